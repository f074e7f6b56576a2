"""`Experience`: how checkpoints did on other tasks, from the errors that the user recorded."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from t2v_hub.catalog import Candidate, Catalog, Result
from t2v_hub.catalog.candidate import records_of
from t2v_hub.embedding import TaskEmbedding
from t2v_hub.errors import CatalogFileError
from t2v_hub.selector.ranked import RankedCandidate

Array = NDArray[np.float64]

_SAME = 1e-9  # errors that differ by less are equal: a share of test images cannot
_DIGITS = 9  # of an effect: equal evidence must give equal places, whatever was rounded on the way
_PRECISION = 1e-12


@dataclass(frozen=True, eq=False)
class Experience:
    """What the errors on other tasks say of checkpoints; the first thing that a prior goes by.

    Attributes:
        effects: Of each checkpoint that was measured beside others, its effect on the error, in standard
            deviations of a task's errors; negative is better, 0 is the average.
        tasks: On which tasks, by their ids in lower case.
        skipped: What could not be read, in words.
    """

    effects: Mapping[str, float] = field(default_factory=dict)
    tasks: Mapping[str, frozenset[str]] = field(default_factory=dict)
    skipped: tuple[str, ...] = ()

    @classmethod
    def of(cls, catalog: Catalog, target: TaskEmbedding) -> Self:
        """What a catalog's results with the origin ``run`` say, without those on the target.

        Left out are results on the target (by its id, whatever the case, or by the very embedding), those of
        a checkpoint on a task that it was trained on, and then tasks with one checkpoint. Results that cannot
        be read are named in ``skipped``: there is then no experience.

        Args:
            catalog: The candidates and the results.
            target: The task at hand.
        """
        try:
            results = catalog.results(origin="run")
        except CatalogFileError as error:
            return cls(skipped=(str(error),))
        return cls._from(result for result in results if _is_other(result, target, catalog))

    @classmethod
    def _from(cls, results: Iterable[Result]) -> Self:
        found: dict[tuple[str, int | None], dict[str, list[float]]] = {}
        for result in results:
            row = found.setdefault((result.task.casefold(), result.n), {})
            row.setdefault(result.checkpoint, []).append(result.error)
        found = {key: row for key, row in found.items() if len(row) >= 2}
        tasks: dict[str, set[str]] = {}
        n_rows: dict[tuple[str, str], int] = {}  # a task counts once, with however many n
        for (task, _), row in found.items():
            for checkpoint in row:
                tasks.setdefault(checkpoint, set()).add(task)
                n_rows[task, checkpoint] = n_rows.get((task, checkpoint), 0) + 1
        names = sorted(tasks)
        place = {name: i for i, name in enumerate(names)}
        cells = [
            Cell(r, place[checkpoint], math.fsum(errors) / len(errors), 1 / n_rows[task, checkpoint])
            for r, ((task, _), row) in enumerate(found.items())
            for checkpoint, errors in row.items()
        ]
        effects = additive_effects(cells, n_rows=len(found), n_columns=len(names))
        return cls(
            dict(zip(names, effects.tolist(), strict=True)),
            {name: frozenset(known) for name, known in tasks.items()},
        )

    def n_tasks(self, checkpoint: str) -> int:
        """On how many tasks a checkpoint was measured beside others."""
        return len(self.tasks.get(checkpoint, ()))

    def n_tasks_of(self, candidates: Iterable[Candidate]) -> int:
        """On how many tasks any of these was."""
        return len(frozenset().union(*(self.tasks.get(candidate.id, ()) for candidate in candidates)))

    def prior(self, candidate: Candidate) -> tuple[float, float, int]:
        """What is known without looking at the task, larger is better: effect, accuracy, downloads.

        A checkpoint without recorded errors counts as the average of those that have some.
        """
        return (-self.effects.get(candidate.id, 0.0), *candidate.prior)

    def by_prior(self, candidate: Candidate) -> tuple[float, float, int, str]:
        """Sorts candidates by prior, the highest first: effect, accuracy, downloads, and then the id."""
        effect, accuracy, downloads = self.prior(candidate)
        return -effect, -accuracy, -downloads, candidate.id

    def marked(self, item: RankedCandidate) -> RankedCandidate:
        """A ranked candidate that says what is known of it."""
        id = item.candidate.id
        if id not in self.effects:
            return item
        return replace(item, experience=self.effects[id], n_experience=self.n_tasks(id))


NO_EXPERIENCE = Experience()


class Cell(NamedTuple):
    """An error in a table of tasks by checkpoints: where it stands, and how much it counts."""

    row: int
    column: int
    error: float
    weight: float = 1.0


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
        cells: The errors that were measured; each row has two at least, each column one.
        n_rows: Tasks.
        n_columns: Checkpoints.
    """
    row = np.array([cell.row for cell in cells], np.int64)
    column = np.array([cell.column for cell in cells], np.int64)
    weight = np.array([cell.weight for cell in cells], np.float64)

    def by_row(values: Array) -> Array:
        return np.asarray(np.bincount(row, values, n_rows), np.float64)

    def by_column(values: Array) -> Array:
        return np.asarray(np.bincount(column, values, n_columns), np.float64)

    errors = np.array([cell.error for cell in cells], np.float64)
    size = by_row(np.ones(len(cells)))
    centred = errors - (by_row(errors) / size)[row]
    spread = np.sqrt(by_row(centred**2) / size)[row]
    values = np.divide(centred, spread, out=np.zeros_like(centred), where=spread > _SAME)

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
    return effects.round(_DIGITS)


def _is_other(result: Result, target: TaskEmbedding, catalog: Catalog) -> bool:
    """Whether a result is on another task than the target, and not on what the checkpoint was trained on."""
    task = result.task.casefold()
    if task == target.task.id.casefold() or result.embedding == target.digest:
        return False
    if result.checkpoint not in catalog:
        return True
    candidate = catalog[result.checkpoint]
    if candidate.source is not None and candidate.source.casefold() == task:
        return False
    return all(record.task.casefold() != task for record in records_of(candidate.embeddings))
