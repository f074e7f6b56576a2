"""What was measured before: finished embeddings, and the blocks of unfinished ones."""

import hashlib
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from t2v_hub.blocks import BlockStore
from t2v_hub.data import DecodedSample
from t2v_hub.embedding import TaskEmbedding, canonical_json
from t2v_hub.errors import CacheWarning, EmbeddingFileError
from t2v_hub.storage import touch


class EmbeddingCache:
    """Embeddings by the key of what they were measured from.

    Args:
        folder: Where they are kept; None keeps nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def __getstate__(self) -> dict[str, object]:
        # Another process may have another working folder.
        return {"folder": None if self.folder is None else self.folder.absolute()}

    def load(self, key: str) -> TaskEmbedding | None:
        """The finished embedding, or None where it is not there or is damaged."""
        if self.folder is None or not self._path(key).exists():
            return None
        try:
            found = TaskEmbedding.load(self._path(key))
        except EmbeddingFileError as error:
            warnings.warn(f"{error} It is measured again now.", CacheWarning, stacklevel=7)
            return None
        touch(self._path(key))
        return found

    def save(self, key: str, embedding: TaskEmbedding) -> None:
        """Keep a finished embedding.

        Raises:
            StorageError: The disk is full or closed to us.
        """
        if self.folder is not None:
            embedding.save(self._path(key))

    def blocks(self, key: str) -> BlockStore:
        """Where the blocks of an embedding are kept until it is finished."""
        return BlockStore(None if self.folder is None else self.folder / f"{key}.blocks")

    def _path(self, key: str) -> Path:
        assert self.folder is not None
        return self.folder / f"{key}.safetensors"


def cache_key(decoded: DecodedSample, settings: Mapping[str, Any]) -> str:
    """Hangs on the pixels, labels and weights of a sample, and on the settings."""
    digest = hashlib.sha256()
    for image in decoded.images:
        digest.update(image.tobytes())
    digest.update(np.ascontiguousarray(decoded.labels).astype("<f8").tobytes())
    digest.update(decoded.weights.astype("<f8").tobytes())
    digest.update(canonical_json({"shape": list(decoded.images.shape), "layout": 4, **settings}))
    return digest.hexdigest()[:32]
