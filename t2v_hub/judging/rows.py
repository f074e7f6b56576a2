"""The rows that every selector has to beat, and the table that shows them all."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from t2v_hub.judging.metrics import Judge, Row
from t2v_hub.judging.truth import Array

Leave = Literal["task", "source"]


@dataclass(frozen=True)
class Cost:
    """What a row costs for one task, on average.

    Attributes:
        loaded: How many candidates it loads at most; 0 for one that looks at none.
        seconds: How long it takes; NaN where that was not measured.
    """

    loaded: int
    seconds: float


def oracle(judge: Judge) -> Row:
    """What everything is held against: the best candidate of the one half, judged on the other."""
    row = judge.scored("oracle", judge.truth.mean)
    error, no_tau = judge.oracle_error, np.full(len(row.tau), np.nan)
    return replace(row, error=error, error_3=error, hit=judge.hits(judge.oracle_pick), tau=no_tau)


def noise_floor(judge: Judge) -> Row:
    """The pick from one half against the best of the other: what a perfect policy seems to lose by noise.

    Where the oracle is not cross-fitted, each row's figures hold about so much that is only noise.
    """
    return replace(oracle(judge), name="noise floor", reference=judge.judged_by.min(axis=2))


def chance(judge: Judge) -> Row:
    """Any candidate, each as likely; the expectation, not a draw."""
    return judge.scored("chance", np.zeros(len(judge.truth.candidates)))


def always(judge: Judge, candidate: str) -> Row:
    """The one candidate for every task."""
    number = judge.truth.candidates.index(candidate)
    return judge.chosen(f"always {candidate}", np.full(len(judge.truth.n_test), number))


def best_constant(judge: Judge, *, leave: Leave = "task") -> Row:
    """The candidate of the smallest mean error on the other tasks (where left out, the next one)."""
    return judge.scored(f"best constant, other {leave}s", _effects(judge, judge.truth.mean, leave))


def mean_over_others(judge: Judge, *, leave: Leave = "task") -> Row:
    """The candidates by their mean standardised error on the other tasks, each of which counts alike."""
    errors = judge.truth.mean
    centred = errors - np.nanmean(errors, axis=1, keepdims=True)
    spread = np.nanstd(errors, axis=1, keepdims=True)
    standard = np.divide(centred, spread, out=np.zeros_like(centred), where=spread > 0)
    standard[~judge.truth.available] = np.nan
    return judge.scored(f"mean over the other {leave}s", _effects(judge, standard, leave))


def _effects(judge: Judge, values: Array, leave: Leave) -> Array:
    """Each candidate's effect, ``(n_tasks, n_candidates)``, from the tasks other than the row's.

    ``value = task + candidate`` by least squares: a plain mean would praise a candidate that is left out
    for the hard tasks. Without gaps it is the mean. NaN where no other task has the candidate.
    """
    sources = judge.truth.sources if leave == "source" else ()
    own = np.array(sources or [str(t) for t in range(len(values))])
    result = np.full(values.shape, np.nan)
    for t in range(len(values)):
        known = judge.truth.available & (own != own[t])[:, None]
        cells = known.astype(np.float64)
        sums = np.where(known, values, 0.0)
        share = cells / np.maximum(cells.sum(axis=1, keepdims=True), 1.0)
        normal = np.diag(cells.sum(axis=0)) - cells.T @ share
        effect = np.linalg.pinv(normal, hermitian=True) @ (sums.sum(axis=0) - share.T @ sums.sum(axis=1))
        result[t] = np.where(known.any(axis=0), effect.round(12), np.nan)
    return result


def table(judge: Judge, rows: Sequence[Row], *, costs: Mapping[str, Cost] | None = None) -> str:
    """The rows as Markdown; relative error increases and regrets with their intervals.

    Args:
        judge: Who judged them.
        rows: The rows.
        costs: Of rows, by their names; shown as two more columns, with a dash for what is not known.
    """
    head = "| row | error | ratio of means | mean of ratios | regret@1 | regret@3 | weighted tau | hit rate |"
    if costs is not None:
        head += " loaded | seconds |"
    lines = [head, "|---|" + "--:|" * (head.count("|") - 2)]
    for row in rows:
        f = judge.figures(row)
        shown = [f"{f.error.value:.3f}"]
        for item in (f.ratio_of_means, f.mean_of_ratios):
            shown.append(f"{item.value:+.1%} [{item.low:+.1%}, {item.high:+.1%}]")
        shown.append(f"{f.regret_1.value:+.2f} [{f.regret_1.low:+.2f}, {f.regret_1.high:+.2f}]")
        for item, form in ((f.regret_3, "+.2f"), (f.tau, ".2f"), (f.hit_rate, ".0%")):
            shown.append("" if np.isnan(item.value) else format(item.value, form))
        if costs is not None:
            cost = costs.get(row.name)
            shown.append("–" if cost is None else f"{cost.loaded:,}")
            shown.append("–" if cost is None or np.isnan(cost.seconds) else f"{cost.seconds:,.2f}")
        lines.append(f"| {row.name} | {' | '.join(shown)} |")
    return "\n".join(lines)
