"""Symmetric distances between all pairs of many vectors, in float64."""

import numpy as np
from numpy.typing import NDArray

from t2v_hub.distance.threads import in_threads

Rows = NDArray[np.float64]

_IN_CACHE = 1 << 15  # values of one buffer, 256 KiB; there are two, beside the rows
_SUMMED = 8192  # products in one sum: some libraries split longer ones among threads of their own


def symmetric_matrix(rows: Rows) -> Rows:
    """Symmetric distance of each pair of rows, ``(n, n)``; exactly 0 for equal rows.

    Each pair is worked out once. A few rows stay in cache while all others pass by.

    Args:
        rows: ``(n, n_filters)``, not negative.
    """
    n, n_filters = rows.shape
    result = np.zeros((n, n))
    zeros = [np.flatnonzero(row == 0) for row in rows]
    n_sums = max(1, -(-n_filters // _SUMMED))
    terms = -(-n_filters // n_sums)
    step = max(1, _IN_CACHE // max(1, n_filters))

    def work(start: int) -> None:
        """Distances of some rows to each row up to their last."""
        some = rows[start : start + step]
        stop = start + len(some)
        buffers = np.zeros((2, len(some), n_sums * terms))
        u, v = buffers[:, :, :n_filters]
        parts = buffers.reshape(2, len(some), n_sums, 1, terms)
        sums = np.empty((3, stop, len(some), n_sums, 1, 1))
        for i, other in enumerate(rows[:stop]):
            np.add(some, other, out=v)
            if len(zeros[i]):
                equal = v[:, zeros[i]] == 0
                v[:, zeros[i]] += equal
            np.divide(1.0, v, out=v)
            np.multiply(some, v, out=u)
            np.multiply(other, v, out=v)
            if len(zeros[i]):  # a filter that is zero in both counts as equal
                for share in (u, v):
                    share[:, zeros[i]] += 0.5 * equal
            for kind, (a, b) in enumerate(((0, 0), (0, 1), (1, 1))):
                np.matmul(parts[a], parts[b].swapaxes(2, 3), out=sums[kind, i])
        uu, uv, vv = sums.sum(axis=(3, 4, 5))
        norm = np.sqrt(uu * vv)
        # Where one is zero throughout, no direction is left: as far apart as can be.
        found = 1.0 - np.divide(uv, norm, out=np.zeros_like(uv), where=norm > 0)
        result[:stop, start:stop] = np.clip(found, 0.0, 1.0)
        result[start:stop, :stop] = result[:stop, start:stop].T

    in_threads(work, range(0, n, step)[::-1])  # the longest first
    return result
