"""`SourceTerms`: what a distance takes from rows alone, whatever the target; and the distances with them."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from t2v_hub.distance.blocks import by_blocks
from t2v_hub.distance.formulas import DistanceName, level_of, of_mean, robust_rows, symmetric
from t2v_hub.distance.half import HalfDistances, half_distances
from t2v_hub.distance.stored import StoredRows
from t2v_hub.embedding import TaskEmbedding

Numbers = NDArray[np.float64]

_GATHERED = 2048  # rows that are brought together where they lie scattered


@dataclass(frozen=True, eq=False)
class SourceTerms:
    """What distances with a complexity term need of each row beside its values.

    Attributes:
        scale: ``(n,)``, what a row is to be multiplied by: for ``relative`` what brings it to the mean.
        complexity: ``(n,)``, the symmetric distance of its robust precision to the trivial embedding.
    """

    scale: Numbers
    complexity: Numbers

    def part(self, rows: slice) -> "SourceTerms":
        """Those of some rows."""
        return SourceTerms(self.scale[rows], self.complexity[rows])


def with_complexity(
    target: TaskEmbedding, rows: StoredRows, *, name: DistanceName, alpha: float, terms: SourceTerms | None
) -> tuple[Numbers, SourceTerms]:
    """Distances from rows to a target, ``(n,)``, by a name in `WITH_COMPLEXITY`; and the terms.

    With terms and without, distances have the same bits.
    """
    vectors = [_precision(target, name)]
    if terms is None:
        vectors.append(target.prior_precision)
    rows, near = _near(target, rows, vectors, name=name, terms=terms)
    if terms is None:
        terms = SourceTerms(rows.scale, near[1])
    return near[0] - alpha * terms.complexity, terms


def from_source(source: TaskEmbedding, rows: StoredRows, *, name: DistanceName, alpha: float) -> Numbers:
    """Distances from a source to rows, ``(n,)``, by a name in `WITH_COMPLEXITY`."""
    ours = _precision(source, name)
    _, near = _near(source, rows, [ours], name=name, terms=None)
    complexity: Numbers = symmetric(ours[None, :], source.prior_precision[None, :])
    result: Numbers = near[0] - alpha * complexity
    return result


def _precision(embedding: TaskEmbedding, name: DistanceName) -> Numbers:
    fisher = embedding.fisher.astype(np.float64)[None, :]
    if name == "relative":
        fisher = of_mean(fisher, level_of(embedding))
    precision: Numbers = robust_rows(embedding)(fisher)[0]
    return precision


def _near(
    query: TaskEmbedding,
    rows: StoredRows,
    vectors: list[Numbers],
    *,
    name: DistanceName,
    terms: SourceTerms | None,
) -> tuple[StoredRows, Numbers]:
    """The rows as the distance takes them, and their symmetric distances to vectors, ``(n_vectors, n)``."""
    if terms is not None:
        rows = replace(rows, scale=terms.scale)
    is_half = rows.values.dtype == np.float16
    if name == "relative" and terms is None:
        level = level_of(query)
        found = _in_float32(query, rows, vectors, level=level) if is_half else _nothing(rows, vectors)
        left = np.flatnonzero(np.isnan(found.scale))
        scale = found.scale
        scale[left] = rows.scale_of_mean(level, left)
        rows = replace(rows, scale=scale)
        if is_half:  # as when terms are given
            for some in np.split(left, range(_GATHERED, len(left), _GATHERED)):
                part = StoredRows(rows.values[some], scale[some], rows.power[some])
                found.values[:, some] = _in_float32(query, part, vectors, level=None).values
    else:
        found = _in_float32(query, rows, vectors, level=None) if is_half else _nothing(rows, vectors)
    robust = robust_rows(query)
    for values, vector in zip(found.values, vectors, strict=True):
        by_blocks(
            lambda source, other: symmetric(robust(source), other), rows, vector[None, :], result=values
        )
    return rows, found.values


def _in_float32(
    query: TaskEmbedding, rows: StoredRows, vectors: list[Numbers], *, level: float | None
) -> HalfDistances:
    trivial = query.prior_precision
    if query.space.family == "variational":
        return half_distances(rows, *vectors, level=level, about=trivial)
    gain = 1 / (2 * query.space.beta)
    return half_distances(rows, *vectors, gain=gain, offset=trivial, level=level, about=trivial)


def _nothing(rows: StoredRows, vectors: list[Numbers]) -> HalfDistances:
    return HalfDistances(np.full((len(vectors), len(rows)), np.nan), np.full(len(rows), np.nan))
