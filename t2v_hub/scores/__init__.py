"""Transferability scores: how well a checkpoint's features or predictions fit a task, without training it.

Every score is a pure function of what the checkpoint says of the task's training images and of their
labels; larger is better unless its docstring says otherwise. `SCORES` lists them and those of plug-ins,
`score` calls one by name.
"""

from t2v_hub.scores.evidence import logme
from t2v_hub.scores.features import FeatureKind, layer_means
from t2v_hub.scores.logistic import logistic_loss
from t2v_hub.scores.neighbours import knn_accuracy
from t2v_hub.scores.predictions import leep, nce
from t2v_hub.scores.registry import BUILT_IN_SCORES, SCORES, Score, score
from t2v_hub.scores.ridge import (
    PENALTIES,
    RidgeProbe,
    ridge_accuracy,
    ridge_loss,
    ridge_outcomes,
    ridge_probe,
)
from t2v_hub.scores.separation import h_score, transrate

__all__ = [
    "BUILT_IN_SCORES",
    "PENALTIES",
    "SCORES",
    "FeatureKind",
    "RidgeProbe",
    "Score",
    "h_score",
    "knn_accuracy",
    "layer_means",
    "leep",
    "logistic_loss",
    "logme",
    "nce",
    "ridge_accuracy",
    "ridge_loss",
    "ridge_outcomes",
    "ridge_probe",
    "score",
    "transrate",
]
