"""Fixed blocks of samples and their partial sums: long sums that can stop and go on, bit for bit."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file
from safetensors.numpy import save as to_safetensors

from t2v_hub.errors import CacheWarning
from t2v_hub.storage import write_atomically

Array = NDArray[np.float64]

BLOCK_SIZE = 32
"""Images per block: what an interruption can cost at most."""

N_GROUPS = 16
"""Groups of images that are reweighted for the standard error; a power of two, for Hadamard's matrix."""


@dataclass(frozen=True)
class BlockLayout:
    """How samples 0..n-1 fall into blocks (of work) and groups (of the standard error), both contiguous.

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

    @property
    def groups(self) -> NDArray[np.int64]:
        """Group of each sample, ``(n_samples,)``; sizes differ by one at most."""
        return np.arange(self.n_samples, dtype=np.int64) * N_GROUPS // self.n_samples

    def spread(self, count: int) -> NDArray[np.int64]:
        """``count`` samples (or all), evenly spread."""
        count = min(count, self.n_samples)
        return np.arange(count, dtype=np.int64) * self.n_samples // count

    def block(self, index: int) -> range:
        """Samples of a block."""
        start = index * self.block_size
        return range(start, min(start + self.block_size, self.n_samples))


@dataclass
class BlockSums:
    """Weighted sums of squares over the samples of one block, ``(n_filters,)`` float64 each.

    Attributes:
        fisher: By the group that the samples belong to.
        base: Over the few samples that show what another head changes, under the head itself; key 0.
        moved: Over those samples under each replicate's head, by replicate.
    """

    fisher: dict[int, Array] = field(default_factory=dict)
    base: dict[int, Array] = field(default_factory=dict)
    moved: dict[int, Array] = field(default_factory=dict)

    @staticmethod
    def add(sums: dict[int, Array], key: int, row: Array) -> None:
        """Add one sample's row; one after the other, so that the order of additions is fixed."""
        if key in sums:
            sums[key] += row
        else:
            sums[key] = row.astype(np.float64)


class BlockStore:
    """Finished blocks, in a folder or only in memory.

    Args:
        folder: Where to keep them; None keeps them in memory.
        n_filters: Length of the sums; files of another length are ignored.
    """

    def __init__(self, folder: Path | None, n_filters: int) -> None:
        self.folder = folder
        self.n_filters = n_filters
        self._memory: dict[int, BlockSums] = {}

    def get(self, index: int) -> BlockSums | None:
        """The block's sums, or None where it is not finished; a damaged file counts as unfinished."""
        if index in self._memory or self.folder is None:
            return self._memory.get(index)
        path = self._path(index)
        if not path.exists():
            return None
        sums = BlockSums()
        try:
            for name, values in load_file(path).items():
                kind, key = name.split(".")
                if values.shape != (self.n_filters,) or not np.isfinite(values).all():
                    raise ValueError(f"{name} has shape {values.shape} or is not finite")
                {"fisher": sums.fisher, "base": sums.base, "moved": sums.moved}[kind][int(key)] = values
        except (SafetensorError, OSError, ValueError, KeyError) as error:
            warnings.warn(
                f"Block {index} in {str(self.folder)!r} is damaged ({error}); it is measured again.",
                CacheWarning,
                stacklevel=2,
            )
            return None
        self._memory[index] = sums
        return sums

    def put(self, index: int, sums: BlockSums) -> None:
        """Keep a finished block.

        Raises:
            StorageError: The disk is full or closed to us.
        """
        if self.folder is not None:
            tensors = {f"{kind}.{key}": row for kind, key, row in _items(sums)}
            write_atomically(self._path(index), to_safetensors(tensors))
        self._memory[index] = sums

    def discard(self) -> None:
        """Remove the files, once what they add up to is kept elsewhere."""
        if self.folder is not None and self.folder.is_dir():
            for path in self.folder.glob("block-*.safetensors"):
                path.unlink(missing_ok=True)
            if not any(self.folder.iterdir()):
                self.folder.rmdir()

    def _path(self, index: int) -> Path:
        assert self.folder is not None
        return self.folder / f"block-{index:06d}.safetensors"


def _items(sums: BlockSums) -> Iterator[tuple[str, int, Array]]:
    for kind, rows in (("fisher", sums.fisher), ("base", sums.base), ("moved", sums.moved)):
        for key, row in sorted(rows.items()):
            yield kind, key, row
