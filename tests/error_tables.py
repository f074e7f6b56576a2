"""Tables of errors, tasks by checkpoints with gaps, and what numpy's least squares makes of them."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from t2v_hub.catalog import Result

Array = NDArray[np.float64]


def by_lstsq(table: Array, weights: Array | None = None) -> Array:
    """Effects by numpy: a row per cell, and one per column for the penalty; spreads by `numpy.nanstd`."""
    n_rows, n_columns = table.shape
    weights = np.ones_like(table) if weights is None else weights
    values = (table - np.nanmean(table, axis=1, keepdims=True)) / np.nanstd(table, axis=1, keepdims=True)
    cells = np.argwhere(~np.isnan(table))
    design = np.zeros((len(cells) + n_columns, n_rows + n_columns))
    right = np.zeros(len(design))
    for i, (r, c) in enumerate(cells):
        root = np.sqrt(weights[r, c])
        design[i, r] = design[i, n_rows + c] = root
        right[i] = root * values[r, c]
    design[len(cells) :, n_rows:] = np.eye(n_columns)
    effects: Array = np.linalg.lstsq(design, right, rcond=None)[0][n_rows:]
    return effects


def gapped(rng: np.random.Generator, shape: tuple[int, int], share: float) -> Array:
    """Random errors with gaps, at least two in each row and one in each column."""
    while True:
        table = rng.uniform(size=shape)
        table[rng.uniform(size=shape) < share] = np.nan
        measured = ~np.isnan(table)
        if (measured.sum(axis=1) >= 2).all() and measured.any(axis=0).all():
            return table


def results_of(table: Array, names: Sequence[str] | None = None) -> list[Result]:
    """The errors of a table as results on the tasks ``org/t0``, ``org/t1`` and so on."""
    names = [f"org/c{c}" for c in range(table.shape[1])] if names is None else names
    return [Result(f"org/t{r}", names[c], float(table[r, c])) for r, c in np.argwhere(~np.isnan(table))]
