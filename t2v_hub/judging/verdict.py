"""`Verdict`: whether looking at the task's data helps to choose, in one sentence."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from t2v_hub.judging.entries import Entry
from t2v_hub.judging.metrics import Interval, Judge

Answer = Literal["helps", "harms", "undecided"]

LEAST_GROUPS = 6
"""Groups of tasks below which nothing is said: by chance alone, all of 5 point one way in 6 % of cases."""

_MOST_TASKS = 1000


@dataclass(frozen=True)
class Verdict:
    """Whether the best task-aware row beats the best free one.

    Attributes:
        answer: ``undecided`` where that cannot be said.
        text: The answer in plain words, and what to record where it cannot be given.
        task_aware: Name of the best task-aware row, by relative error increase; None without any.
        free: Name of the best free row.
        difference: By how many accuracy points the task-aware row's errors are more; below 0 it helps. Its
            interval is `widened`.
    """

    answer: Answer
    text: str
    task_aware: str | None = None
    free: str | None = None
    difference: Interval | None = None


def verdict(judge: Judge, entries: Sequence[Entry], *, unit: str = "task") -> Verdict:
    """What the table says; both rows are the best of their kind on these same tasks.

    Args:
        judge: Of the rows.
        entries: All rows.
        unit: What a group of tasks is called.
    """
    best = {}
    for kind in ("free", "task-aware"):
        of_kind = [entry for entry in entries if entry.kind == kind]
        best[kind] = min(of_kind, key=lambda entry: entry.figures.error.value, default=None)
    free, aware = best["free"], best["task-aware"]
    if free is None or aware is None:
        return Verdict(
            "undecided",
            "Cannot be said: no ranking by distance could be judged. Record results with the task's "
            "embedding, Catalog.record(embedding, checkpoint, error), and add embeddings of what the "
            "candidates were trained on (`t2v catalog add`).",
            free=None if free is None else free.name,
        )
    n_groups = len(set(judge.truth.sources or range(len(judge.truth.n_test))))
    difference = widened(judge.difference(aware.row, free.row).regret_1, n_groups, coverage=judge.coverage)
    answer = _answer(difference, n_groups)
    compared = (
        f"choosing by {aware.name} makes {_points(difference.value)} errors per 100 images than "
        f"{free.name!r}, the best row that looks at no data of the task ({judge.coverage:.0%} interval: "
        f"{_points(difference.low)} to {_points(difference.high)})"
    )
    say = {"helps": "It helps: ", "harms": "It harms: ", "undecided": "Cannot be said: "}[answer]
    more = f" {_more(difference, n_groups, unit)}" if answer == "undecided" else ""
    return Verdict(answer, f"{say}{compared}.{more}", aware.name, free.name, difference)


def widened(interval: Interval, n_groups: int, *, coverage: float = 0.95) -> Interval:
    r"""A bootstrap interval over few groups, as wide as one of Student's t.

    Percentiles of resampled means take their spread, which is :math:`\sqrt{(n-1)/n}` too small, for known.

    References:
        Hesterberg, "What Teachers Should Know About the Bootstrap", The American Statistician 69 (2015).
    """
    if n_groups < 2:
        return interval
    from scipy.stats import norm, t  # half a second to import

    tail = (1 - coverage) / 2
    factor = math.sqrt(n_groups / (n_groups - 1)) * float(t.isf(tail, n_groups - 1) / norm.isf(tail))
    value = interval.value
    return Interval(value, value - factor * (value - interval.low), value + factor * (interval.high - value))


def _answer(difference: Interval, n_groups: int) -> Answer:
    if n_groups < LEAST_GROUPS:
        return "undecided"
    if difference.high < 0:
        return "helps"
    return "harms" if difference.low > 0 else "undecided"


def _more(difference: Interval, n_groups: int, unit: str) -> str:
    """What to record."""
    units = f"{unit}s"
    if n_groups < LEAST_GROUPS:
        return (
            f"An interval over {n_groups} {units} cannot be trusted; record results on at least "
            f"{LEAST_GROUPS}, better 20."
        )
    if difference.low == difference.high == 0:
        return "Both choose checkpoints of the same errors; other candidates could tell them apart."
    half = (difference.high - difference.low) / 2
    needed = math.inf
    if difference.value:
        needed = n_groups * (half / difference.value) ** 2
    if needed > _MOST_TASKS:
        return (
            f"To show a difference as small as it looks, more than {_MOST_TASKS:,} {units} would be needed; "
            f"there are {n_groups}."
        )
    # Where the interval is lopsided, the rule of the square root may ask for no more than there are.
    n_needed = max(n_groups + 1, math.ceil(needed))
    return (
        f"If the difference is as large as it looks, results on about {n_needed} {units} would show it; "
        f"there are {n_groups}."
    )


def _points(value: float) -> str:
    return f"{abs(value):.2f} {'fewer' if value < 0 else 'more'}"
