"""Distances from one embedding to many, and among many."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from t2v_hub.distance.blocks import by_blocks, by_chunks
from t2v_hub.distance.formulas import (
    ALPHA,
    WITH_COMPLEXITY,
    DistanceName,
    formula,
    level_of,
    of_mean,
    robust_rows,
    symmetric,
)
from t2v_hub.distance.half import half_distances
from t2v_hub.distance.stored import StoredRows
from t2v_hub.distance.symmetric import symmetric_matrix
from t2v_hub.distance.terms import SourceTerms, from_source, with_complexity
from t2v_hub.distance.threads import in_threads
from t2v_hub.embedding import TaskEmbedding
from t2v_hub.errors import SettingsError

QueryIs = Literal["source", "target"]


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
        worth = by_chunks(symmetric, robust, first.prior_precision[None, :])
        return symmetric_matrix(robust) - alpha * worth[:, None]
    columns = np.empty((len(embeddings), len(embeddings)))

    def work(place: int) -> None:
        columns[:, place] = by_chunks(named, matrix, matrix[place].astype(np.float64)[None, :])

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
    Fisher values as they are. Of float16, the symmetric, the asymmetric and the relative distance are
    worked out in float32, to 1e-6 and mostly to 1e-7, far below what the rounding of the values does; all
    else in float64.

    Args:
        query: The embedding.
        matrix: Fisher vectors of the same space, ``(n, n_filters)``, of any float type; a
            memory-mapped one is read a few rows at a time.
        query_is: Whether the query is the target (rows are sources) or the source.
        name: Which distance.
        alpha: Weight of the complexity term of ``relative`` and ``asymmetric``.
        scale: ``(n,)``, what each row is to be multiplied by; 1 where absent.
        power: ``(n,)``, whole numbers >= 1; 1 where absent.

    Raises:
        SettingsError: The matrix has not ``n_filters`` columns, or an unusable name or ``alpha``.
    """
    if query_is not in ("source", "target"):
        raise SettingsError(f"query_is must be 'source' or 'target', not {query_is!r}.")
    rows = _stored(query, matrix, scale, power)
    named = formula(name, query, alpha)
    if name in WITH_COMPLEXITY:
        if query_is == "source":
            return from_source(query, rows, name=name, alpha=alpha)
        return with_complexity(query, rows, name=name, alpha=alpha, terms=None)[0]
    fisher = query.fisher.astype(np.float64)
    result = np.full(len(rows), np.nan)
    if name == "symmetric" and rows.values.dtype == np.float16:
        result = half_distances(rows, fisher).values[0]
    by_blocks(named, rows, fisher[None, :], result=result, rows_first=query_is == "target")
    return result


def distances_with_terms(
    target: TaskEmbedding,
    matrix: ArrayLike,
    *,
    name: DistanceName,
    alpha: float = ALPHA,
    scale: ArrayLike | None = None,
    power: ArrayLike | None = None,
    terms: SourceTerms | None = None,
) -> tuple[NDArray[np.float64], SourceTerms]:
    """`distances` by a name in `WITH_COMPLEXITY`, and what they take from the rows alone.

    Given again, the terms halve the work of the next target's distances or better, and change no bit of them.

    Args:
        target: The embedding.
        matrix: As for `distances`.
        name: Which distance.
        alpha: Weight of the complexity term.
        scale: As for `distances`.
        power: As for `distances`.
        terms: Of the same rows, name and space, as they came out of this function before.

    Raises:
        SettingsError: As by `distances`, a name without such terms, or terms of another number of rows.
    """
    if name not in WITH_COMPLEXITY:
        raise SettingsError(
            f"Only {' and '.join(WITH_COMPLEXITY)} take a term from the source alone, not {name!r}; "
            f"use `distances`."
        )
    rows = _stored(target, matrix, scale, power)
    formula(name, target, alpha)  # which checks alpha
    if terms is not None and not terms.scale.shape == terms.complexity.shape == (len(rows),):
        raise SettingsError(
            f"The terms are of {len(terms.scale)} rows and the matrix has {len(rows)}; give those "
            f"that were made of this matrix."
        )
    return with_complexity(target, rows, name=name, alpha=alpha, terms=terms)


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
