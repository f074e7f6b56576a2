"""`TaskEmbedding`: a data set's measurement, and `Space`: what it was measured under."""

from t2v_hub.embedding.embedding import TaskEmbedding, jackknife_standard_error
from t2v_hub.embedding.half import HalfVector
from t2v_hub.embedding.records import Measurement, TaskInfo
from t2v_hub.embedding.space import SPACE_SETTINGS, Family, Json, Layer, Space, canonical_json

__all__ = [
    "SPACE_SETTINGS",
    "Family",
    "HalfVector",
    "Json",
    "Layer",
    "Measurement",
    "Space",
    "TaskEmbedding",
    "TaskInfo",
    "canonical_json",
    "jackknife_standard_error",
]
