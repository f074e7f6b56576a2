"""scikit-learn: data sets as rows of a matrix, and a classifier that chooses its own checkpoint."""

from t2v_hub_integrations.sklearn_classifier import CheckpointClassifier
from t2v_hub_integrations.sklearn_transformer import Task2VecTransformer

__all__ = ["CheckpointClassifier", "Task2VecTransformer"]
