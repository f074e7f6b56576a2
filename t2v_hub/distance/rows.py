"""Distances from one embedding to many, and among many."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from t2v_hub.distance.formulas import (
    ALPHA,
    WITH_COMPLEXITY,
    DistanceName,
    Formula,
    formula,
    level_of,
    of_mean,
    robust_rows,
    symmetric,
)
from t2v_hub.distance.half import half_distances
from t2v_hub.distance.stored import StoredRows
from t2v_hub.distance.symmetric import symmetric_matrix
from t2v_hub.distance.threads import in_threads
from t2v_hub.embedding import TaskEmbedding
from t2v_hub.errors import SettingsError

QueryIs = Literal["source", "target"]

_CHUNK_VALUES = 1 << 15  # float64 values of a matrix that are worked on at once: 256 KiB stay in cache
# float64 values and rows decoded at once. C libraries hand memory back to the system, and take it again
# page by page for every array, unless they have freed a larger one before: with blocks as small as the
# chunks a fresh process took four times as long.
_BLOCK_VALUES = 1 << 18
_BLOCK_ROWS = 8


def pairwise(
    embeddings: Sequence[TaskEmbedding], *, name: DistanceName = "symmetric", alpha: float = ALPHA
) -> NDArray[np.float64]:
    """Matrix of distances, ``(n, n)``; entry ``[i, j]`` is from embedding ``i`` to embedding ``j``.

    Raises:
        EmbeddingMismatchError: Not all are of one space.
        SettingsError: An unknown name or an unusable ``alpha``.
    """
    if not embeddings:
        return np.zeros((0, 0))
    first = embeddings[0]
    for embedding in embeddings[1:]:
        first.space.require_equal(embedding.space)
    named = formula(name, first, alpha)
    matrix = np.stack([embedding.fisher for embedding in embeddings])
    if name == "symmetric":
        return symmetric_matrix(matrix.astype(np.float64))
    if name in WITH_COMPLEXITY:
        rows = matrix.astype(np.float64)
        robust = robust_rows(first)(of_mean(rows, level_of(first)) if name == "relative" else rows)
        worth = _in_chunks(symmetric, robust, first.prior_precision[None, :])
        return symmetric_matrix(robust) - alpha * worth[:, None]
    columns = np.empty((len(embeddings), len(embeddings)))

    def work(place: int) -> None:
        columns[:, place] = _in_chunks(named, matrix, matrix[place].astype(np.float64)[None, :])

    in_threads(work, range(len(embeddings)))
    return columns


def distances(
    query: TaskEmbedding,
    matrix: ArrayLike,
    *,
    query_is: QueryIs = "target",
    name: DistanceName = "symmetric",
    alpha: float = ALPHA,
    scale: ArrayLike | None = None,
    power: ArrayLike | None = None,
) -> NDArray[np.float64]:
    """Distances between one embedding and each row of a matrix, ``(n,)``.

    A row of the matrix is ``values**power * scale``: float16 spans too few powers of ten to hold
    Fisher values as they are. Of float16, the symmetric and the asymmetric distance are worked out
    in float32, to 1e-6 and mostly to 1e-7, far below what the rounding of the values does; all else
    in float64.

    Args:
        query: The embedding.
        matrix: Fisher vectors of the same space, ``(n, n_filters)``, of any float type; a
            memory-mapped one is read a few rows at a time.
        query_is: Whether the query is the target (rows are sources) or the source.
        name: Which distance.
        alpha: Weight of the complexity term of ``asymmetric``.
        scale: ``(n,)``, what each row is to be multiplied by; 1 where absent.
        power: ``(n,)``, whole numbers >= 1; 1 where absent.

    Raises:
        SettingsError: The matrix has not ``n_filters`` columns, or an unusable name or ``alpha``.
    """
    if query_is not in ("source", "target"):
        raise SettingsError(f"query_is must be 'source' or 'target', not {query_is!r}.")
    rows = _stored(query, matrix, scale, power)
    named = formula(name, query, alpha)
    fisher = query.fisher.astype(np.float64)
    if name == "relative":
        level = level_of(query)
        rows, fisher = rows.of_mean(level), of_mean(fisher[None, :], level)[0]
        name, named = "asymmetric", formula("asymmetric", query, alpha)
    result = np.full(len(rows), np.nan)
    if rows.values.dtype == np.float16:
        if name == "symmetric":
            result = half_distances(rows, fisher)[0]
        if name == "asymmetric":
            result = _half_asymmetric(query, fisher, rows, query_is, alpha)
    left = np.flatnonzero(np.isnan(result))
    step = max(_BLOCK_ROWS, _BLOCK_VALUES // max(1, len(fisher)))

    def work(start: int) -> None:
        part: slice | NDArray[np.int64] = left[start : start + step]
        if len(left) == len(rows):
            part = slice(start, start + step)  # which copies nothing
        result[part] = _in_chunks(named, rows.decode(part), fisher[None, :], other_is=query_is)

    in_threads(work, range(0, len(left), step))
    return result


def _stored(
    query: TaskEmbedding, matrix: ArrayLike, scale: ArrayLike | None, power: ArrayLike | None
) -> StoredRows:
    values = matrix if isinstance(matrix, np.ndarray) else np.asarray(matrix)
    n_filters = len(query.fisher)
    if values.ndim != 2 or values.shape[1] != n_filters:
        raise SettingsError(
            f"The matrix has shape {values.shape}; wanted (n, {n_filters}), one row per embedding of "
            f"space {query.space.id}."
        )
    n = len(values)
    scales = np.ones(n) if scale is None else np.asarray(scale, dtype=np.float64)
    powers = np.ones(n, np.int64) if power is None else np.asarray(power)
    for name, given in (("scale", scales), ("power", powers)):
        if given.shape != (n,):
            raise SettingsError(f"{name} has shape {given.shape}; wanted ({n},), one per row.")
    if n and (not np.issubdtype(powers.dtype, np.integer) or powers.min() < 1):
        raise SettingsError("power must be whole numbers >= 1, as `HalfVector.encode` gives them.")
    return StoredRows(values, scales, powers)


def _half_asymmetric(
    query: TaskEmbedding, fisher: NDArray[np.float64], rows: StoredRows, query_is: QueryIs, alpha: float
) -> NDArray[np.float64]:
    """NaN where float32 will not do."""
    trivial, ours = query.prior_precision, robust_rows(query)(fisher)
    if query.space.family == "variational":
        near, worth = (half_distances(rows, vector)[0] for vector in (ours, trivial))
    else:
        near, worth = half_distances(rows, ours, trivial, gain=1 / (2 * query.space.beta), offset=trivial)
    if query_is == "source":
        worth = symmetric(ours[None, :], trivial[None, :])
    result: NDArray[np.float64] = near - alpha * worth
    return result


def _in_chunks(
    named: Formula,
    rows: NDArray[np.floating],
    other: NDArray[np.float64],
    *,
    other_is: QueryIs = "target",
) -> NDArray[np.float64]:
    """A distance between rows and one other row, ``(1, n_filters)``."""
    result = np.empty(len(rows))
    step = max(1, _CHUNK_VALUES // max(1, rows.shape[1]))
    for start in range(0, len(rows), step):
        part = rows[start : start + step].astype(np.float64, copy=False)
        found = named(part, other) if other_is == "target" else named(other, part)
        result[start : start + step] = found
    return result
