"""Symmetric distances between all pairs of many vectors, in float64."""

import numpy as np
from numpy.typing import NDArray

from t2v_hub.distance.threads import in_threads

Rows = NDArray[np.float64]

_IN_CACHE = 1 << 16  # values of the buffer, 512 KiB; the rows that make them lie beside it
_SUMMED = 8192  # products in one sum: some libraries split longer ones among threads of their own
_MOST = 0.65  # a mean share above which one minus the share is summed instead


def symmetric_matrix(rows: Rows) -> Rows:
    r"""Symmetric distance of each pair of rows, ``(n, n)``; exactly 0 for equal rows.

    Each pair is worked out once. A few rows stay in cache while all smaller ones pass by. Of the two shares u
    and v only the smaller row's is made, for :math:`\sum uv = \sum v - \sum v^2` and
    :math:`\sum u^2 = n - 2\sum v + \sum v^2`; the last would cancel where nearly all v are 1.

    Args:
        rows: ``(n, n_filters)``, not negative.
    """
    n, n_filters = rows.shape
    result = np.zeros((n, n))
    zeros = [np.flatnonzero(row == 0) for row in rows]
    order = np.argsort(rows.sum(axis=1), kind="stable")
    n_sums = max(1, -(-n_filters // _SUMMED))
    terms = -(-n_filters // n_sums)
    ones = np.ones((n_sums, terms, 1))
    step = max(1, _IN_CACHE // max(1, n_filters))

    def work(start: int) -> None:
        """Distances of some rows to themselves and all smaller ones."""
        some = rows[order[start : start + step]]
        stop = start + len(some)
        buffer = np.zeros((len(some), n_sums * terms))
        shares = buffer[:, :n_filters]
        parts = buffer.reshape(len(some), n_sums, 1, terms)

        def sums(i: int, *, of_smaller: bool) -> Rows:
            """Of shares and of their squares, ``(2, n_some)``."""
            row, zero = rows[i], zeros[i]
            np.add(some, row, out=shares)
            if len(zero):
                equal = shares[:, zero] == 0
                shares[:, zero] += equal
            np.divide(row if of_smaller else some, shares, out=shares)
            if len(zero):  # a filter that is zero in both counts as equal
                shares[:, zero] += 0.5 * equal
            both = np.matmul(parts, ones), np.matmul(parts, parts.swapaxes(2, 3))
            total: Rows = np.stack(both).sum(axis=(2, 3, 4))
            return total

        found = np.empty((stop, 2, len(some)))
        for place, i in enumerate(order[:stop].tolist()):
            found[place] = sums(i, of_smaller=True)
            wrong = found[place, 0] > _MOST * n_filters
            if wrong.any():
                found[place][:, wrong] = sums(i, of_smaller=False)[:, wrong]
        first, squares = found.swapaxes(0, 1)
        products, others = first - squares, n_filters - 2 * first + squares
        norm = np.sqrt(squares * others)
        # Where one is zero throughout, no direction is left: as far apart as can be.
        near = 1.0 - np.divide(products, norm, out=np.zeros_like(norm), where=norm > 0)
        near = np.clip(near, 0.0, 1.0)
        upper = np.triu(near[start:], 1)
        near[start:] = upper + upper.T  # each pair has one of its two distances, and a row 0 to itself
        result[np.ix_(order[:stop], order[start:stop])] = near
        result[np.ix_(order[start:stop], order[:stop])] = near.T

    in_threads(work, range(0, n, step)[::-1])  # the longest first
    return result
