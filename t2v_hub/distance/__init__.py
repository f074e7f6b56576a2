r"""Distances between task embeddings, and how sure they are.

Every function takes ``(source, target)`` in that order: the task a checkpoint was trained on, then
the task at hand. With F the Fisher vectors, u and v are ``F_source / (F_source + F_target)`` and
``F_target / (F_source + F_target)``, elementwise.
"""

from t2v_hub.distance.coordinates import CoordinatesOf, coordinates
from t2v_hub.distance.formulas import ALPHA, WITH_COMPLEXITY, DistanceName
from t2v_hub.distance.pair import (
    asymmetric_distance,
    distance,
    distance_standard_error,
    recorded_standard_error,
    replicates,
    symmetric_distance,
)
from t2v_hub.distance.rows import distances, distances_with_terms, pairwise
from t2v_hub.distance.terms import SourceTerms

__all__ = [
    "ALPHA",
    "WITH_COMPLEXITY",
    "CoordinatesOf",
    "DistanceName",
    "SourceTerms",
    "asymmetric_distance",
    "coordinates",
    "distance",
    "distance_standard_error",
    "distances",
    "distances_with_terms",
    "pairwise",
    "recorded_standard_error",
    "replicates",
    "symmetric_distance",
]
