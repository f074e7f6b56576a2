"""Which checkpoint should I fine-tune on my data?

t2v_hub measures a labelled image data set once (Task2Vec: the diagonal Fisher information of a
fixed probe network) and ranks checkpoints by how near the data that they were trained on lies.
Importing it is quick: torch and the Hugging Face libraries are loaded when they are first needed.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from t2v_hub.catalog import Candidate, Catalog, Result
    from t2v_hub.diagnostics import (
        CrossDiversity,
        Diversity,
        Readiness,
        cross_diversity,
        diversity,
        readiness,
    )
    from t2v_hub.distance import (
        asymmetric_distance,
        distance_standard_error,
        distances,
        pairwise,
        symmetric_distance,
    )
    from t2v_hub.embedding import Space, TaskEmbedding
    from t2v_hub.errors import T2VError, T2VWarning
    from t2v_hub.executors import Executor
    from t2v_hub.fisher.variational import VariationalRecipe
    from t2v_hub.head import HeadRecipe
    from t2v_hub.probe import Preprocessing, ProbeNetwork
    from t2v_hub.selector import AutoSelector, ModelSelector, RankedCandidate, Ranking
    from t2v_hub.task2vec import Task2Vec

__version__ = "0.1.0"

_HOMES = {
    "AutoSelector": "selector",
    "Candidate": "catalog",
    "Catalog": "catalog",
    "CrossDiversity": "diagnostics",
    "Diversity": "diagnostics",
    "Executor": "executors",
    "HeadRecipe": "head",
    "ModelSelector": "selector",
    "Preprocessing": "probe",
    "ProbeNetwork": "probe",
    "RankedCandidate": "selector",
    "Ranking": "selector",
    "Readiness": "diagnostics",
    "Result": "catalog",
    "Space": "embedding",
    "T2VError": "errors",
    "T2VWarning": "errors",
    "Task2Vec": "task2vec",
    "TaskEmbedding": "embedding",
    "VariationalRecipe": "fisher.variational",
    "asymmetric_distance": "distance",
    "cross_diversity": "diagnostics",
    "distance_standard_error": "distance",
    "distances": "distance",
    "diversity": "diagnostics",
    "pairwise": "distance",
    "readiness": "diagnostics",
    "symmetric_distance": "distance",
}

__all__ = [
    "AutoSelector",
    "Candidate",
    "Catalog",
    "CrossDiversity",
    "Diversity",
    "Executor",
    "HeadRecipe",
    "ModelSelector",
    "Preprocessing",
    "ProbeNetwork",
    "RankedCandidate",
    "Ranking",
    "Readiness",
    "Result",
    "Space",
    "T2VError",
    "T2VWarning",
    "Task2Vec",
    "TaskEmbedding",
    "VariationalRecipe",
    "asymmetric_distance",
    "cross_diversity",
    "distance_standard_error",
    "distances",
    "diversity",
    "pairwise",
    "readiness",
    "symmetric_distance",
]


def __getattr__(name: str) -> object:
    if name in _HOMES:
        value = getattr(import_module(f"t2v_hub.{_HOMES[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 't2v_hub' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
