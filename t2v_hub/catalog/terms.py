"""Files of `SourceTerms`: what distances take from a matrix alone, kept so that the next ranking need not."""

import hashlib
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_safetensors

from t2v_hub.distance import SourceTerms
from t2v_hub.distance.formulas import level_of
from t2v_hub.embedding import TaskEmbedding
from t2v_hub.storage import write_atomically

_FORMAT = "t2v-terms/1"


def read_terms(path: Path, target: TaskEmbedding, n: int) -> SourceTerms | None:
    """The terms of n rows; None where there are none, or they are damaged, or of another prior or level."""
    try:
        with safe_open(path, framework="numpy") as file:
            if file.metadata() != _about(target):
                return None
            scale, complexity = file.get_tensor("scale"), file.get_tensor("complexity")
    except (SafetensorError, OSError, KeyError, ValueError):
        return None
    for values in (scale, complexity):
        if values.shape != (n,) or values.dtype != np.float64 or not np.isfinite(values).all():
            return None
    if (complexity < 0).any() or (complexity > 1).any() or (scale < 0).any():
        return None
    return SourceTerms(scale, complexity)


def write_terms(path: Path, target: TaskEmbedding, terms: SourceTerms) -> None:
    """As a whole or not at all; for all targets of the space.

    Raises:
        StorageError: The folder cannot be written.
    """
    tensors = {"scale": terms.scale, "complexity": terms.complexity}
    write_atomically(path, to_safetensors(tensors, metadata=_about(target)))


def _about(target: TaskEmbedding) -> dict[str, str]:
    prior = hashlib.sha256(target.prior_precision.astype(np.float64).tobytes()).hexdigest()
    return {"format": _FORMAT, "level": repr(level_of(target)), "prior": prior}
