"""`FeatureStore`: features and predictions on disk, by the key of what they were measured from."""

import hashlib
import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save as to_safetensors

from t2v_hub.embedding import canonical_json
from t2v_hub.embedding.files import read_tensors
from t2v_hub.errors import CacheWarning, EmbeddingFileError, StorageError
from t2v_hub.scores import FeatureKind
from t2v_hub.storage import touch, write_atomically

Rows = NDArray[np.float32]

_MAX_FILE_BYTES = 1 << 32  # far above any sample; a file that claims more is not read into memory


@dataclass(frozen=True, eq=False)
class Features:
    """What a checkpoint makes of some images.

    Attributes:
        features: ``(n, n_features)`` float32, the input of its classification head; or, where ``layers``
            were asked for, `t2v_hub.scores.layer_means` of its stages and that, standardised.
        predictions: ``(n, k)`` float32, its probabilities over its own k classes; None without a head of
            its own.
    """

    features: Rows
    predictions: Rows | None = None


class FeatureStore:
    """Features by key, each a safetensors file.

    Args:
        folder: Where they are kept; None keeps nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def load(self, key: str, *, n: int) -> Features | None:
        """What was kept under a key, or None where it is not there or is damaged.

        Args:
            key: From `feature_key`.
            n: Of how many images it must be.

        Warns:
            CacheWarning: It is damaged.
        """
        if self.folder is None or not self._path(key).exists():
            return None
        try:
            metadata, tensors = read_tensors(
                self._path(key), most_bytes=_MAX_FILE_BYTES, absent="It was removed just now.", broken=_broken
            )
            fits = tensors.keys() <= {"features", "predictions"} and "features" in tensors
            if not fits or not all(_is_sound(rows, n) for rows in tensors.values()):
                raise _broken(self._path(key), f"wanted rows of finite float32 numbers for {n} images")
            if metadata.get("sha256") != _digest(tensors):
                raise _broken(self._path(key), "the checksum differs")
        except (EmbeddingFileError, StorageError) as error:
            warnings.warn(f"{error} It is measured again now.", CacheWarning, stacklevel=2)
            return None
        touch(self._path(key))
        return Features(tensors["features"], tensors.get("predictions"))

    def save(self, key: str, features: Features) -> None:
        """Keep features; where that cannot be done, they are measured again next time.

        Warns:
            CacheWarning: The disk is full or closed to us.
        """
        if self.folder is None:
            return
        tensors = {"features": features.features}
        if features.predictions is not None:
            tensors["predictions"] = features.predictions
        try:
            write_atomically(self._path(key), to_safetensors(tensors, metadata={"sha256": _digest(tensors)}))
        except StorageError as error:
            warnings.warn(f"Features are not kept: {error}", CacheWarning, stacklevel=2)

    def _path(self, key: str) -> Path:
        assert self.folder is not None
        return self.folder / f"{key}.safetensors"


def feature_key(checkpoint: Mapping[str, str], images: str, *, features: FeatureKind = "last") -> str:
    """Hangs on what the checkpoint is, on the images, on which features, and on the code that makes them.

    A checkpoint's preprocessing is a matter of its files, and of the library that reads them.

    Args:
        checkpoint: Names its content: a commit, or a digest of its files.
        images: Digest of the images' pixels.
        features: Which features.
    """
    from importlib.metadata import version

    code = {"layout": "1", "timm": version("timm"), "transformers": version("transformers")}
    named: dict[str, object] = {"checkpoint": dict(checkpoint), "images": images, "code": code}
    if features != "last":
        named["features"] = features  # the last ones' keys are as they were before there were others
    return hashlib.sha256(canonical_json(named)).hexdigest()[:32]


def _is_sound(rows: NDArray[np.float32], n: int) -> bool:
    known = rows.dtype == np.float32 and rows.ndim == 2 and len(rows) == n and rows.shape[1] > 0
    return known and bool(np.isfinite(rows).all())


def _digest(tensors: Mapping[str, Rows]) -> str:
    digest = hashlib.sha256()
    for name, rows in sorted(tensors.items()):
        digest.update(json.dumps([name, list(rows.shape)]).encode())
        digest.update(np.ascontiguousarray(rows).astype("<f4").tobytes())
    return digest.hexdigest()


def _broken(path: Path, reason: str) -> EmbeddingFileError:
    return EmbeddingFileError(f"The kept features in {str(path)!r} cannot be used: {reason}.")
