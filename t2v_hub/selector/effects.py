"""`Errors`: a table of tasks by checkpoints with gaps, and the effects of checkpoints that fit it."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from t2v_hub.catalog import Result

Array = NDArray[np.float64]
Numbers = NDArray[np.int64]

_SAME = 1e-9  # errors that differ by less are equal: a share of test images cannot
_DIGITS = 9  # of an effect: equal evidence must give equal places, whatever was rounded on the way
_PRECISION = 1e-12


class Cell(NamedTuple):
    """An error in a table of tasks by checkpoints: where it stands, and how much it counts."""

    row: int
    column: int
    error: float
    weight: float = 1.0


class Fit(NamedTuple):
    """What fits a table of errors.

    Attributes:
        effects: Of the columns, in standard deviations of a row's errors, ``(n_columns,)``; negative is
            better, 0 is the average.
        level: Error of an average column in each row, ``(n_rows,)``.
        spread: Standard deviation of each row's errors, ``(n_rows,)``; 0 where all are equal.
    """

    effects: Array
    level: Array
    spread: Array


@dataclass(frozen=True, eq=False)
class Errors:
    """Mean errors of checkpoints on tasks, each measured beside others there.

    Attributes:
        tasks: Id of each row's task in lower case, ``(n_rows,)``: a row for each number of training images.
        names: Ids of the checkpoints, ``(n_columns,)``, sorted.
        row: Of each cell, ``(n_cells,)``.
        column: Likewise.
        error: Likewise, mean over seeds, from 0 to 1.
        weight: Likewise; a checkpoint's weights on one task sum to 1, so that a task counts once.
    """

    tasks: tuple[str, ...]
    names: tuple[str, ...]
    row: Numbers
    column: Numbers
    error: Array
    weight: Array

    @classmethod
    def of(cls, results: Iterable[Result]) -> Self:
        """The table of some results, without tasks that have one checkpoint."""
        found: dict[tuple[str, int | None], dict[str, list[float]]] = {}
        for result in results:
            row = found.setdefault((result.task.casefold(), result.n), {})
            row.setdefault(result.checkpoint, []).append(result.error)
        found = {key: row for key, row in found.items() if len(row) >= 2}
        n_rows: dict[tuple[str, str], int] = {}
        for (task, _), row in found.items():
            for checkpoint in row:
                n_rows[task, checkpoint] = n_rows.get((task, checkpoint), 0) + 1
        names = sorted({checkpoint for row in found.values() for checkpoint in row})
        place = {name: i for i, name in enumerate(names)}
        cells = [
            Cell(r, place[checkpoint], math.fsum(errors) / len(errors), 1 / n_rows[task, checkpoint])
            for r, ((task, _), row) in enumerate(found.items())
            for checkpoint, errors in row.items()
        ]
        return cls(tuple(task for task, _ in found), tuple(names), *_arrays(cells))

    @property
    def tasks_of(self) -> dict[str, frozenset[str]]:
        """On which tasks each checkpoint was measured."""
        found: dict[str, set[str]] = {name: set() for name in self.names}
        for row, column in zip(self.row.tolist(), self.column.tolist(), strict=True):
            found[self.names[column]].add(self.tasks[row])
        return {name: frozenset(tasks) for name, tasks in found.items()}

    @property
    def is_measured(self) -> NDArray[np.bool_]:
        """Which columns have a cell, ``(n_columns,)``; `without` may leave some with none."""
        return np.bincount(self.column, minlength=len(self.names)) > 0

    def of_task(self, task: str) -> NDArray[np.bool_]:
        """Which cells are of a task, ``(n_cells,)``."""
        rows = np.array([name == task for name in self.tasks], np.bool_)
        return rows[self.row]

    def without(self, task: str) -> "Errors":
        """The table without one of its tasks; the columns stay as they are."""
        kept = ~self.of_task(task)
        number = np.cumsum([name != task for name in self.tasks]) - 1
        return Errors(
            tuple(name for name in self.tasks if name != task),
            self.names,
            number[self.row[kept]],
            self.column[kept],
            self.error[kept],
            self.weight[kept],
        )

    def fit(self) -> Fit:
        """The effects of the checkpoints, see `additive_effects`."""
        shape = (len(self.tasks), len(self.names))
        return _fit(self.row, self.column, self.error, self.weight, shape)


def additive_effects(cells: Sequence[Cell], *, n_rows: int, n_columns: int) -> Array:
    r"""Effects of the columns on the errors, in standard deviations of a row's errors, ``(n_columns,)``.

    Each row's errors are centred and divided by their spread over the row's cells; then
    ``value = row + column`` is fitted by least squares with a penalty on the columns alone:

    .. math:: \min_{t,\,c} \sum w_{rk} (z_{rk} - t_r - c_k)^2 + \sum c_k^2

    Rows are fitted beside columns because of gaps: a plain mean would blame a checkpoint that was only
    measured beside good ones. The penalty weighs as much as one task: what a checkpoint is worth everywhere
    and what one task adds to it are taken to vary alike, as they do where half of the variance of the errors
    is the checkpoints' own. Without gaps, a column with m cells has m/(m+1) of its mean; little evidence
    says little, and none says 0.

    Args:
        cells: The errors that were measured; each row has two at least.
        n_rows: Tasks.
        n_columns: Checkpoints.
    """
    return _fit(*_arrays(cells), (n_rows, n_columns)).effects


def _arrays(cells: Sequence[Cell]) -> tuple[Numbers, Numbers, Array, Array]:
    return (
        np.array([cell.row for cell in cells], np.int64),
        np.array([cell.column for cell in cells], np.int64),
        np.array([cell.error for cell in cells], np.float64),
        np.array([cell.weight for cell in cells], np.float64),
    )


def _fit(row: Numbers, column: Numbers, errors: Array, weight: Array, shape: tuple[int, int]) -> Fit:
    n_rows, n_columns = shape

    def by_row(values: Array) -> Array:
        return np.asarray(np.bincount(row, values, n_rows), np.float64)

    def by_column(values: Array) -> Array:
        return np.asarray(np.bincount(column, values, n_columns), np.float64)

    size = by_row(np.ones(len(errors)))
    centred = errors - (by_row(errors) / size)[row]
    spread = np.sqrt(by_row(centred**2) / size)
    spread[spread <= _SAME] = 0.0
    values = np.divide(centred, spread[row], out=np.zeros_like(centred), where=spread[row] > 0)

    # For given columns the best rows are means of what is left, so that only the columns are unknown.
    row_weight, diagonal = by_row(weight), by_column(weight) + 1.0

    def without_rows(values: Array) -> Array:
        return by_column(weight * (values - (by_row(weight * values) / row_weight)[row]))

    effects = np.zeros(n_columns)
    left = without_rows(values)
    wanted = _PRECISION * float(np.linalg.norm(left))
    # Conjugate gradients, preconditioned by the diagonal: the table is mostly gaps where pools are large. The
    # penalty keeps the condition number below the greatest number of tasks of a checkpoint plus 1.
    step = left / diagonal
    power = float(left @ step)
    for _ in range(10 * n_columns + 100):
        if np.linalg.norm(left) <= wanted:
            break
        image = without_rows(step[column]) + step
        length = power / float(step @ image)
        effects += length * step
        left = left - length * image
        before, power = power, float(left @ (left / diagonal))
        step = left / diagonal + (power / before) * step
    effects = effects.round(_DIGITS)
    level = by_row(weight * (errors - spread[row] * effects[column])) / row_weight
    return Fit(effects, level, spread)
