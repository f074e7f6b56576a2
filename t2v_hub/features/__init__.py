"""What checkpoints make of a task's images: their features and predictions, measured once and kept."""

from t2v_hub.features.images import ScoredImages
from t2v_hub.features.plain import PlainImages, network_features
from t2v_hub.features.reader import Checkpoint, FeatureReader
from t2v_hub.features.store import Features, FeatureStore

__all__ = [
    "Checkpoint",
    "FeatureReader",
    "FeatureStore",
    "Features",
    "PlainImages",
    "ScoredImages",
    "network_features",
]
