"""`Matrix`: the Fisher vectors of one space as memory-mapped float16, made again when stale.

Rows are encoded as `t2v_hub.embedding.HalfVector` does.
"""

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_safetensors

from t2v_hub.catalog.terms import read_terms, write_terms
from t2v_hub.distance import (
    ALPHA,
    WITH_COMPLEXITY,
    DistanceName,
    SourceTerms,
    distances,
    distances_with_terms,
)
from t2v_hub.embedding import HalfVector, TaskEmbedding
from t2v_hub.embedding.half import POWERS
from t2v_hub.errors import EmbeddingFileError, StorageError
from t2v_hub.storage import write_atomically

_FORMAT = "t2v-matrix/1"
_GATHERED = 2048  # rows that are brought together where they lie scattered


@dataclass(frozen=True, eq=False)
class Matrix:
    """The Fisher vectors of a catalog in one space, one row per distinct embedding.

    Attributes:
        digests: ``(n,)``, which embedding a row is, sorted.
        values: ``(n, n_filters)`` float16; a row is ``values**power * scale``.
        scale: ``(n,)`` float64.
        power: ``(n,)``, 1, 2, 4 or 8.
        damaged: Embeddings that could not be read, by digest, and why; they have no row.
        rows: ``(n,)``, which row of ``values`` each has; None where that is its own number.
        beside: The file that its values were mapped from, beside which more may be kept; None where they
            were not.
    """

    digests: tuple[str, ...]
    values: NDArray[np.float16]
    scale: NDArray[np.float64]
    power: NDArray[np.int64]
    damaged: Mapping[str, str]
    rows: NDArray[np.int64] | None = None
    beside: Path | None = None

    def __len__(self) -> int:
        return len(self.digests)

    def distances(
        self, target: TaskEmbedding, *, name: DistanceName = "symmetric", alpha: float = ALPHA
    ) -> NDArray[np.float64]:
        """Distances from each row, as source, to a target of the same space, ``(n,)``."""
        if self.rows is None:
            return self._distances(target, None, self.scale, self.power, name=name, alpha=alpha)
        # Many data sets' embeddings may be one: each distinct row is worked out once.
        keys = np.stack([self.rows, self.scale.view(np.int64), self.power], axis=1)
        distinct, places = np.unique(keys, axis=0, return_inverse=True)
        rows, scale, power = distinct[:, 0], distinct[:, 1].copy().view(np.float64), distinct[:, 2]
        scattered = None if np.array_equal(rows, np.arange(len(self.values))) else rows
        found = self._distances(target, scattered, scale, power, name=name, alpha=alpha)
        return found[places.reshape(-1)]

    def _distances(
        self,
        target: TaskEmbedding,
        rows: NDArray[np.int64] | None,
        scale: NDArray[np.float64],
        power: NDArray[np.int64],
        *,
        name: DistanceName,
        alpha: float,
    ) -> NDArray[np.float64]:
        """Distances from rows that lie scattered, or all in order.

        What they take from the rows alone is worked out once and kept beside them.
        """
        n = len(scale)
        step = max(1, n) if rows is None else _GATHERED
        parts = [slice(start, start + step) for start in range(0, n, step)]
        found = np.empty(n)
        path = None
        if self.beside is not None and name in WITH_COMPLEXITY:
            path = self.beside.with_name(f"{self.beside.stem}.{name}-terms")
        kept = None if path is None else read_terms(path, target, n)
        made = SourceTerms(np.empty(n), np.empty(n))
        for part in parts:
            values = self.values if rows is None else self.values[rows[part]]
            if name not in WITH_COMPLEXITY:
                found[part] = distances(
                    target, values, name=name, alpha=alpha, scale=scale[part], power=power[part]
                )
                continue
            found[part], terms = distances_with_terms(
                target,
                values,
                name=name,
                alpha=alpha,
                scale=scale[part],
                power=power[part],
                terms=None if kept is None else kept.part(part),
            )
            made.scale[part], made.complexity[part] = terms.scale, terms.complexity
        if path is not None and kept is None and n:
            with contextlib.suppress(StorageError):  # a catalog that one may only read can still be ranked
                write_terms(path, target, made)
        return found


@dataclass(frozen=True, eq=False)
class Matrices:
    """Several matrices of one space as one.

    Attributes:
        parts: The matrices.
        damaged: Embeddings that could not be read, by digest, and why.
    """

    parts: tuple[Matrix, ...]
    damaged: Mapping[str, str]

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    @property
    def digests(self) -> tuple[str, ...]:
        """Which embedding each row is; one that is in two parts has two."""
        return tuple(digest for part in self.parts for digest in part.digests)

    def distances(
        self, target: TaskEmbedding, *, name: DistanceName = "symmetric", alpha: float = ALPHA
    ) -> NDArray[np.float64]:
        """Distances from each row, as source, to a target of the same space, ``(n,)``."""
        return np.concatenate([part.distances(target, name=name, alpha=alpha) for part in self.parts])


def open_matrix(folder: Path, space: str, n_filters: int, files: Mapping[str, Path]) -> Matrix:
    """The matrix of a space from its cache, or made from the embeddings' files and cached.

    A row that an older cache holds is copied rather than made again. Where the folder cannot be
    written, the matrix is held in memory.

    Args:
        folder: Where matrices are kept.
        space: Id of the space.
        n_filters: Length of its vectors.
        files: The embedding's file by digest.
    """
    caches = list(_caches(folder, space, n_filters))
    for cache in caches:
        if set(cache.digests) == set(files):
            return cache
    known = {digest: (cache, row) for cache in caches for row, digest in enumerate(cache.digests)}
    damaged: dict[str, str] = {}
    fresh: dict[str, HalfVector] = {}
    for digest in sorted(set(files) - set(known)):
        try:
            embedding = TaskEmbedding.load(files[digest])
        except (EmbeddingFileError, StorageError) as error:
            damaged[digest] = str(error)
            continue
        if (embedding.digest, embedding.space.id) != (digest, space):
            damaged[digest] = f"{files[digest].name!r} holds another embedding than its name says."
            continue
        fresh[digest] = HalfVector.encode(embedding.fisher)
    readable = sorted(set(files) - set(damaged))
    for cache in caches:
        if cache.digests == tuple(readable):
            return _with_damaged(cache, damaged)
    rows = [fresh[digest] if digest in fresh else _stored_row(*known[digest]) for digest in readable]
    matrix = Matrix(
        digests=tuple(readable),
        values=np.stack([row.values for row in rows]) if rows else np.empty((0, n_filters), np.float16),
        scale=np.array([row.scale for row in rows], np.float64),
        power=np.array([row.power for row in rows], np.int64),
        damaged=damaged,
    )
    with contextlib.suppress(StorageError):  # a catalog that one may only read can still be ranked
        return _write(folder, space, matrix)
    return matrix


def _stored_row(cache: Matrix, row: int) -> HalfVector:
    return HalfVector(cache.values[row], float(cache.scale[row]), int(cache.power[row]))


def _with_damaged(matrix: Matrix, damaged: Mapping[str, str]) -> Matrix:
    return replace(matrix, damaged=damaged)


def _caches(folder: Path, space: str, n_filters: int) -> Iterator[Matrix]:
    for path in sorted(folder.glob(f"{space}-*.safetensors")):
        cache = _read(path, n_filters)
        if cache is not None:
            yield cache


def _read(path: Path, n_filters: int) -> Matrix | None:
    """A cached matrix; None where it is damaged, half deleted or of another format."""
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            scale, power = file.get_tensor("scale"), file.get_tensor("power")
        if metadata.get("format") != _FORMAT:
            return None
        digests = tuple(json.loads(metadata["digests"]))
        values = np.load(path.with_suffix(".npy"), mmap_mode="r", allow_pickle=False)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError):
        return None
    shapes = (values.shape, scale.shape, power.shape)
    if shapes != ((len(digests), n_filters), (len(digests),), (len(digests),)):
        return None
    if values.dtype != np.float16 or not np.isfinite(scale).all() or not np.isin(power, list(POWERS)).all():
        return None
    return Matrix(digests, values, scale, power, {}, beside=path)


def _write(folder: Path, space: str, matrix: Matrix) -> Matrix:
    """The matrix, memory-mapped from the files it was written to; older ones of the space are gone."""
    key = hashlib.sha256("\n".join(matrix.digests).encode()).hexdigest()[:16]
    path = folder / f"{space}-{key}.safetensors"

    def write_values(file: BinaryIO) -> None:
        np.lib.format.write_array(file, matrix.values, allow_pickle=False)

    write_atomically(path.with_suffix(".npy"), write_values)
    beside = to_safetensors(
        {"scale": matrix.scale, "power": matrix.power},
        metadata={"format": _FORMAT, "digests": json.dumps(matrix.digests)},
    )
    write_atomically(path, beside)  # last: what it names is there
    _delete_all_but(folder, space, keep=path.stem)
    mapped = _read(path, matrix.values.shape[1])
    return matrix if mapped is None else _with_damaged(mapped, matrix.damaged)


def _delete_all_but(folder: Path, space: str, *, keep: str) -> None:
    # Open maps of a deleted file go on working; where the system forbids deleting, it stays.
    old: Sequence[Path] = [path for path in folder.glob(f"{space}-*") if path.stem != keep]
    for path in old:
        with contextlib.suppress(OSError):
            path.unlink()
