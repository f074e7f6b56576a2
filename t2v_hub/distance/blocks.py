"""Formulas on many rows, a few at a time."""

import numpy as np
from numpy.typing import NDArray

from t2v_hub.distance.formulas import Formula
from t2v_hub.distance.stored import StoredRows
from t2v_hub.distance.threads import in_threads

_CHUNK_VALUES = 1 << 15  # float64 values of a matrix that are worked on at once: 256 KiB stay in cache
# float64 values and rows decoded at once. C libraries hand memory back to the system, and take it again
# page by page for every array, unless they have freed a larger one before: with blocks as small as the
# chunks a fresh process took four times as long.
_BLOCK_VALUES = 1 << 18
_BLOCK_ROWS = 8


def by_blocks(
    named: Formula,
    rows: StoredRows,
    other: NDArray[np.float64],
    *,
    result: NDArray[np.float64],
    rows_first: bool = True,
) -> None:
    """A distance between rows and one other row, ``(1, n_filters)``, wherever the result is NaN."""
    left = np.flatnonzero(np.isnan(result))
    step = max(_BLOCK_ROWS, _BLOCK_VALUES // max(1, other.shape[1]))

    def work(start: int) -> None:
        part: slice | NDArray[np.int64] = left[start : start + step]
        if len(left) == len(rows):
            part = slice(start, start + step)  # which copies nothing
        result[part] = by_chunks(named, rows.decode(part), other, rows_first=rows_first)

    in_threads(work, range(0, len(left), step))


def by_chunks(
    named: Formula, rows: NDArray[np.floating], other: NDArray[np.float64], *, rows_first: bool = True
) -> NDArray[np.float64]:
    """A distance between rows and one other row, ``(1, n_filters)``, in float64."""
    result = np.empty(len(rows))
    step = max(1, _CHUNK_VALUES // max(1, rows.shape[1]))
    for start in range(0, len(rows), step):
        part = rows[start : start + step].astype(np.float64, copy=False)
        found = named(part, other) if rows_first else named(other, part)
        result[start : start + step] = found
    return result
