"""Files of learned distances: tensors and a record in safetensors, under a digest."""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save as to_safetensors

from t2v_hub.embedding import canonical_json
from t2v_hub.embedding.files import read_tensors
from t2v_hub.errors import EmbeddingFileError, T2VError
from t2v_hub.model2vec.precisions import LEARNED_ON
from t2v_hub.storage import write_atomically

T = TypeVar("T")
Tensors = Mapping[str, NDArray[np.float64]]

_FORMAT = "t2v-model2vec/1"
_MAX_FILE_BYTES = 1 << 32  # far above any pool; a file that claims more is not read into memory


def write(path: Path | str, tensors: Tensors, record: Mapping[str, object]) -> Path:
    """Write tensors and a record of plain values, whole or not at all; equal ones to equal bytes."""
    text = canonical_json(record).decode()
    held = {name: np.ascontiguousarray(tensor, "<f8") for name, tensor in tensors.items()}
    # One key of metadata: safetensors leaves the order of several to chance.
    described = json.dumps({"format": _FORMAT, "record": text, "digest": _digest(text, held)}, sort_keys=True)
    return write_atomically(path, to_safetensors(held, metadata={"model2vec": described}))


def read(path: Path | str, build: Callable[[Tensors, Mapping[str, Any]], T]) -> T:
    """What ``build`` makes of the tensors and the record that `write` wrote.

    Raises:
        EmbeddingFileError: No such file, truncated, changed since it was written, or not learned on what
            distances are now learned on.
        StorageError: The file cannot be opened.
    """
    path = Path(path)
    metadata, tensors = read_tensors(
        path,
        most_bytes=_MAX_FILE_BYTES,
        absent=f"There is no file of learned distances {str(path)!r}. Check the path, or make it with "
        f"Model2Vec.fit(...).save(path).",
        broken=_broken,
    )
    if "model2vec" not in metadata:
        raise _broken(path, "it holds other tensors")
    try:
        described = json.loads(metadata["model2vec"])
        if described["format"] != _FORMAT:
            raise _broken(path, f"its format is {described['format']!r}, not {_FORMAT!r}")
        if described["digest"] != _digest(described["record"], tensors):
            raise _broken(path, "its content does not match its digest")
        record = json.loads(described["record"])
        if record.get("learned_on") != LEARNED_ON:
            found = f"{record['learned_on']!r:.80}" if "learned_on" in record else "embeddings as they are"
            raise _broken(
                path,
                f"it was learned on {found}; distances are now learned on embeddings that were brought to "
                f"one mean, {LEARNED_ON!r}, and must be learned again",
            )
        return build(tensors, record)
    except T2VError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise _broken(path, f"its record is malformed ({error})") from error


def _digest(record: str, tensors: Tensors) -> str:
    digest = hashlib.sha256(record.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name}{tensor.shape}{tensor.dtype.str}".encode())
        digest.update(np.ascontiguousarray(tensor).tobytes())
    return f"sha256:{digest.hexdigest()}"


def _broken(path: Path, reason: str) -> EmbeddingFileError:
    return EmbeddingFileError(
        f"{str(path)!r} is not a usable file of learned distances: {reason}. Make it again with "
        f"Model2Vec.fit(...).save(path)."
    )
