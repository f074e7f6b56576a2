r"""The asymmetric distance from a model vector to tasks, and how it moves with the vector.

A model vector is a row of precisions, as `TaskEmbedding.robust` is. Slopes are taken by the logarithm of
its entries: with u and v the shares ``m/(m + t)`` and ``t/(m + t)`` and ``w = uv``,

.. math:: \frac{\partial}{\partial \ln m_f}\bigl(1 - \cos(u, v)\bigr)
   = \frac{w_f}{\|u\| \|v\|} \Bigl(u_f \bigl(1 + \tfrac{\Sigma w}{\Sigma u^2}\bigr)
   - v_f \bigl(1 + \tfrac{\Sigma w}{\Sigma v^2}\bigr)\Bigr)
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_CHUNK_VALUES = 1 << 15  # values that are worked on at once: 256 KiB stay in cache
_LEAST = 1e-300  # two filters without precision then count as equal


def distances_to(vector: Array, targets: Array, trivial: Array, alpha: float) -> Array:
    """Asymmetric distances ``(n,)`` from a model vector ``(n_filters,)``.

    Args:
        vector: Positive, ``(n_filters,)``.
        targets: Robust precisions of tasks, ``(n, n_filters)``.
        trivial: The trivial embedding, ``(n_filters,)``.
        alpha: Weight of the complexity term.
    """
    rows = np.concatenate([targets, trivial[None, :]])
    symmetric = np.concatenate([_symmetric(vector, rows[part])[0] for part in _chunks(rows)])
    result: Array = symmetric[:-1] - alpha * symmetric[-1]
    return result


def distances_and_slopes(vector: Array, targets: Array, trivial: Array, alpha: float) -> tuple[Array, Array]:
    """`distances_to`, and their derivatives by the logarithms of the vector, ``(n, n_filters)``."""
    rows = np.concatenate([targets, trivial[None, :]])
    symmetric, slopes = np.empty(len(rows)), np.empty(rows.shape)
    for part in _chunks(rows):
        symmetric[part], u, v = _symmetric(vector, rows[part])
        uu, vv = np.einsum("ij,ij->i", u, u), np.einsum("ij,ij->i", v, v)
        w = u * v
        uv, norm = w.sum(axis=1), np.sqrt(uu * vv)
        u *= _over(1 + _over(uv, uu), norm)[:, None]
        v *= _over(1 + _over(uv, vv), norm)[:, None]
        np.multiply(w, u - v, out=slopes[part])
    return symmetric[:-1] - alpha * symmetric[-1], slopes[:-1] - alpha * slopes[-1]


def _symmetric(vector: Array, rows: Array) -> tuple[Array, Array, Array]:
    """Symmetric distances and the shares u and v, each straight from its own quotient."""
    source, rows = np.maximum(vector, _LEAST), np.maximum(rows, _LEAST)
    total = rows + source
    u, v = source / total, rows / total
    squares = np.einsum("ij,ij->i", u, u) * np.einsum("ij,ij->i", v, v)
    cosine = _over(np.einsum("ij,ij->i", u, v), np.sqrt(squares))
    return np.clip(1.0 - cosine, 0.0, 1.0), u, v


def _over(numbers: Array, divisors: Array) -> Array:
    """Quotients; 0 over 0, where a vector is zero throughout: it has no direction, and nothing moves it."""
    return np.divide(numbers, divisors, out=np.zeros_like(numbers), where=divisors > 0)


def _chunks(rows: Array) -> Iterator[slice]:
    step = max(1, _CHUNK_VALUES // max(1, rows.shape[1]))
    for start in range(0, len(rows), step):
        yield slice(start, start + step)
