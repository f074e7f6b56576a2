"""Fixed blocks of samples and their partial sums: long sums that can stop and go on, bit for bit."""

import contextlib
import hashlib
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_safetensors

from t2v_hub.errors import CacheWarning
from t2v_hub.storage import touch, write_atomically

Array = NDArray[np.float64]

BLOCK_SIZE = 32
"""Images per block: what an interruption can cost at most."""

_STALE_SECONDS = 3600


@dataclass(frozen=True)
class BlockLayout:
    """How samples 0..n-1 fall into blocks of work.

    Attributes:
        n_samples: How many samples.
        block_size: Samples per block; the last block may be shorter.
    """

    n_samples: int
    block_size: int = BLOCK_SIZE

    @property
    def n_blocks(self) -> int:
        """How many blocks."""
        return -(-self.n_samples // self.block_size)

    def block(self, index: int) -> range:
        """Samples of a block."""
        start = index * self.block_size
        return range(start, min(start + self.block_size, self.n_samples))


class BlockStore:
    """Sums over finished blocks, in a folder or only in memory.

    Args:
        folder: Where to keep them; None keeps them in memory.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._memory: dict[int, Array] = {}

    def get(self, index: int, shape: tuple[int, int]) -> Array | None:
        """The block's sums of that shape, or None where it is not there or is damaged."""
        if index in self._memory or self.folder is None:
            return self._memory.get(index)
        path = self._path(index)
        if not path.exists():
            return None
        try:
            with safe_open(path, framework="numpy") as file:
                sums: Array = file.get_tensor("sums")
                digest = (file.metadata() or {}).get("sha256")
            if sums.dtype != np.float64 or sums.shape != shape:
                raise ValueError(f"the sums are {sums.dtype} {sums.shape}, not float64 {shape}")
            if digest != _digest(sums):
                raise ValueError("the checksum differs")
        except (SafetensorError, OSError, ValueError) as error:
            warnings.warn(
                f"Block {index} in {str(self.folder)!r} is damaged ({error}); it is measured again.",
                CacheWarning,
                stacklevel=2,
            )
            return None
        self._memory[index] = sums
        touch(path)
        return sums

    def put(self, index: int, sums: Array) -> None:
        """Keep a finished block.

        Raises:
            StorageError: The disk is full or closed to us.
        """
        if self.folder is not None:
            content = to_safetensors({"sums": sums}, metadata={"sha256": _digest(sums)})
            write_atomically(self._path(index), content)
        self._memory[index] = sums

    def discard(self) -> None:
        """Remove the files, once what they add up to is kept elsewhere."""
        if self.folder is None:
            return
        with contextlib.suppress(FileNotFoundError):  # another process that shares them was faster
            for path in self.folder.iterdir():
                if path.match("block-*.safetensors"):
                    path.unlink(missing_ok=True)
                elif path.match(".block-*.tmp"):
                    # Of a process that was killed, not of one at work.
                    with contextlib.suppress(FileNotFoundError):
                        if path.stat().st_mtime < time.time() - _STALE_SECONDS:
                            path.unlink()
        with contextlib.suppress(OSError):  # not empty, or gone
            self.folder.rmdir()

    def _path(self, index: int) -> Path:
        assert self.folder is not None
        return self.folder / f"block-{index:06d}.safetensors"


def _digest(sums: Array) -> str:
    return hashlib.sha256(np.ascontiguousarray(sums).astype("<f8").tobytes()).hexdigest()
