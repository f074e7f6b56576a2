"""`Expectation`: the error of a checkpoint on a task that it was not tried on, from errors on other tasks."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple, Self

import numpy as np

from t2v_hub.selector.effects import Array, Errors, Fit

LEAST_TASKS = 3
"""Other tasks that are wanted: each is left out in turn, and one alone has no spread between tasks."""

_MOST_LEFT_OUT = 40  # tasks that are left out in turn, evenly spread over all: each costs a fit
_TAIL = 0.025


class Expected(NamedTuple):
    """An error that is expected, and its 95 % interval; both within [0, 1]."""

    error: float
    interval: tuple[float, float]


@dataclass(frozen=True, eq=False)
class Expectation:
    """What errors on other tasks let one expect of checkpoints on a new one.

    The error of checkpoint k is taken as ``level + spread * effect_k``, with the effects of `Experience`. Of
    a new task neither level nor spread is known: both are means over the recorded tasks. How wrong that is,
    is tried: each task is left out in turn, everything is fitted again without it, and its errors are
    predicted. The root mean square of what is missed, tasks counting alike, gives the interval, with the
    quantile of Student's t for one degree of freedom less than there are tasks: it is tasks that differ
    independently, not errors on one task. Where all checkpoints are alike this is the usual prediction
    interval of one more task's mean. It has one width for all checkpoints, whether much or little is known
    of them; and it holds for tasks like the recorded ones, at their numbers of training images.

    Attributes:
        effects: Of each checkpoint that was measured elsewhere.
        level: Error of an average checkpoint.
        spread: By how much the error grows with an effect of 1.
        standard_error: Root mean square of what is missed.
        n_tasks: Tasks that the standard error comes from.
        within: Likewise, where a task's level is known: standard deviation within a task; None where fewer
            than three tasks have two checkpoints to tell.
        n_within: Tasks that this comes from.
        n_anchors: Loaded candidates that the level comes from; 0 where it comes from other tasks.
    """

    effects: Mapping[str, float]
    level: float
    spread: float
    standard_error: float
    n_tasks: int
    within: float | None
    n_within: int
    n_anchors: int = 0

    @classmethod
    def of(cls, errors: Errors) -> Self | None:
        """What a table of errors lets one expect; None of fewer than three tasks that can be predicted."""
        tasks = sorted(set(errors.tasks))
        if len(tasks) < LEAST_TASKS:
            return None
        places = np.linspace(0, len(tasks) - 1, min(len(tasks), _MOST_LEFT_OUT)).round().astype(int)
        missed = [found for i in places if (found := _missed(errors, tasks[i])) is not None]
        if len(missed) < LEAST_TASKS:
            return None
        fit = errors.fit()
        level, spread = _typical(errors, fit)
        within = [one.within for one in missed if one.within is not None]
        # A level from one task less is a little worse than the one that is used.
        n = len(tasks)
        square = (1 - 1 / n**2) * float(np.mean([one.square for one in missed]))
        return cls(
            effects=dict(zip(errors.names, fit.effects.tolist(), strict=True)),
            level=level,
            spread=spread,
            standard_error=math.sqrt(square),
            n_tasks=len(missed),
            within=math.sqrt(float(np.mean(within))) if len(within) >= LEAST_TASKS else None,
            n_within=len(within),
        )

    def beside(self, misses: Mapping[str, Array]) -> "Expectation":
        """The same with the level of checkpoints that were tried on the new task; spread from other tasks.

        The level is the one of least squares, the mean of what is left of their errors without their effects.
        The interval is that of a further value beside such a mean, and holds what other images would change.

        Args:
            misses: Which images a checkpoint missed, ``(n,)`` from 0 to 1, the same images for all. Without
                two that have an effect, nothing changes.
        """
        known = {id: values for id, values in misses.items() if id in self.effects}
        m = len(known)
        if m < 2 or self.within is None:
            return self
        left = [float(values.mean()) - self.spread * self.effects[id] for id, values in known.items()]
        mean = np.mean(list(known.values()), axis=0)
        n = len(mean)
        of_images = float(mean.var(ddof=1)) / n if n > 1 else 0.25  # of one image, the most there can be
        square = self.within**2 * (1 + 1 / m) + of_images
        return replace(
            self,
            level=math.fsum(left) / m,
            standard_error=math.sqrt(square),
            n_tasks=self.n_within,
            n_anchors=m,
        )

    def of_checkpoint(self, id: str) -> Expected | None:
        """The error that one may expect of a checkpoint; None where it was measured nowhere else."""
        if id not in self.effects:
            return None
        value = self.level + self.spread * self.effects[id]
        margin = self.margin
        error, low, high = (min(1.0, max(0.0, x)) for x in (value, value - margin, value + margin))
        return Expected(error, (low, high))

    @property
    def margin(self) -> float:
        """Half of the interval's width, before it is cut to [0, 1]."""
        from scipy.special import stdtrit

        return float(stdtrit(self.n_tasks - 1, 1 - _TAIL)) * self.standard_error


class _Missed(NamedTuple):
    """What the other tasks miss of one: mean square, and variance within it where that can be told."""

    square: float
    within: float | None


def _missed(errors: Errors, task: str) -> _Missed | None:
    """What is missed of a task that is left out; None where no checkpoint on it was measured elsewhere."""
    others = errors.without(task)
    fit = others.fit()
    level, spread = _typical(others, fit)
    known = errors.of_task(task) & others.is_measured[errors.column]
    left = errors.error[known] - spread * fit.effects[errors.column[known]]
    row = errors.row[known]
    by_row = [left[row == r] for r in np.unique(row)]
    if not by_row:
        return None
    several = [values.var(ddof=1) for values in by_row if len(values) > 1]
    square = np.mean([np.mean((values - level) ** 2) for values in by_row])
    return _Missed(float(square), float(np.mean(several)) if several else None)


def _typical(errors: Errors, fit: Fit) -> tuple[float, float]:
    """Mean level and spread over tasks, each counting once with however many rows."""
    counts = Counter(errors.tasks)
    weight = np.array([1 / counts[task] for task in errors.tasks])
    return float(weight @ fit.level / len(counts)), float(weight @ fit.spread / len(counts))
