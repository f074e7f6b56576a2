"""How much worse is what a policy selects than the best candidate: figures that survive small test sets.

The smallest of many noisy errors is smaller than any true error, so held against it even a perfect policy
seems to lose. Here the oracle is chosen on one half of the splits and judged, like everything, on the other
half; then the other way round; over many halvings. Figures may therefore be negative, and are not clipped.

What this removes is the noise of a split's draw. Splits of one data set share its images, so what a finite
data set says wrongly about a candidate in all splits stays; no benchmark on one data set sees it.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import ArrayLike, NDArray

from t2v_hub.errors import SettingsError
from t2v_hub.judging.truth import DECIMALS, Array, GroundTruth, halvings

Policy = ArrayLike | Callable[[int, int], ArrayLike]
"""Scores ``(n_candidates,)``, ``(n_tasks, n_candidates)`` or ``(n_tasks, n_candidates, n_splits)``, or a
function from the numbers of a task and a split to ``(n_candidates,)``."""


@dataclass(frozen=True)
class Row:
    """A policy as it was judged in each direction of each halving.

    Attributes:
        name: Of the policy.
        error: Expected error of what it selects, ``(n_directions, n_tasks)``.
        reference: The oracle's, likewise.
        error_3: Of the best of its first three, NaN where it only names one candidate.
        hit: Probability that it selects the best candidate of the judging half.
        tau: Weighted Kendall tau between its order and that by mean error over all splits, ``(n_tasks,)``.
    """

    name: str
    error: Array
    reference: Array
    error_3: Array
    hit: Array
    tau: Array


@dataclass(frozen=True)
class Interval:
    """A figure and its bootstrap interval over tasks."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Figures:
    """What a table shows of a row.

    Attributes:
        error: Mean error of what the policy selects.
        ratio_of_means: Relative error increase, mean error over the oracle's mean error, less 1.
        mean_of_ratios: Mean over tasks of the relative error increase, half a test image added to both
            errors: a task that the oracle solves without an error has no ratio otherwise.
        regret_1: Mean error less the oracle's, in points.
        regret_3: Likewise for the best of the first three, as the selecting half says which it is.
        tau: Mean weighted Kendall tau.
        hit_rate: Share of tasks whose best candidate it selects; see the oracle's for what can be had.
    """

    error: Interval
    ratio_of_means: Interval
    mean_of_ratios: Interval
    regret_1: Interval
    regret_3: Interval
    tau: Interval
    hit_rate: Interval


class Judge:
    """Judges policies on one ground truth, all on the same halvings and bootstrap samples.

    Args:
        truth: The measured errors.
        n_halvings: How many halvings at most.
        halves: The halvings themselves, in place of a number.
        cross_fit: False chooses and judges on all splits, as the paper did; then noise counts as regret.
        n_bootstrap: Samples of the tasks, for the intervals.
        coverage: Of the intervals.
        seed: Of the halvings and of the bootstrap.

    Raises:
        SettingsError: There is one split, and it is to be halved.
    """

    def __init__(
        self,
        truth: GroundTruth,
        *,
        n_halvings: int = 126,
        halves: Sequence[tuple[Sequence[int], Sequence[int]]] | None = None,
        cross_fit: bool = True,
        n_bootstrap: int = 2000,
        coverage: float = 0.95,
        seed: int = 0,
    ) -> None:
        self.truth, self.coverage = truth, coverage
        n_tasks, _, n_splits = truth.errors.shape
        if not cross_fit:
            directions: list[tuple[Sequence[int], Sequence[int]]] = [(range(n_splits), range(n_splits))]
        else:
            pairs = halvings(n_splits, n_halvings, seed=seed) if halves is None else halves
            directions = [way for a, b in pairs for way in ((a, b), (b, a))]
        choose, judge = (np.zeros((len(directions), n_splits)) for _ in range(2))
        for place, (chosen_on, judged_on) in enumerate(directions):
            choose[place, list(chosen_on)] = 1 / len(chosen_on)
            judge[place, list(judged_on)] = 1 / len(judged_on)
        self._weight = judge  # (n_directions, n_splits)
        self._filled = np.where(truth.available[:, :, None], truth.errors, np.inf)
        self.chosen_by = np.einsum("tcs,ds->dtc", np.nan_to_num(truth.errors), choose).round(DECIMALS)
        self.judged_by = np.einsum("tcs,ds->dtc", np.nan_to_num(truth.errors), judge).round(DECIMALS)
        for means in (self.chosen_by, self.judged_by):
            means[:, ~truth.available] = np.inf
        self.oracle_pick = _first(self.chosen_by)  # (n_directions, n_tasks, n_candidates)
        self.oracle_error = self.expected(self.oracle_pick)
        self._best = self.judged_by == self.judged_by.min(axis=2, keepdims=True)
        self._samples = _resampled(truth.sources or tuple(map(str, range(n_tasks))), n_bootstrap, seed)

    def expected(self, pick: Array) -> Array:
        """Expected error, ``(n_directions, n_tasks)``, of picks given as probabilities of the candidates."""
        result: Array = (pick * np.where(pick > 0, self.judged_by, 0.0)).sum(axis=2)
        return result

    def hits(self, pick: Array) -> Array:
        """Probability, ``(n_directions, n_tasks)``, that such a pick is the judging half's best."""
        result: Array = (pick * self._best).sum(axis=2)
        return result

    def scored(self, name: str, scores: Policy, *, higher_is_better: bool = False) -> Row:
        """A policy that gives scores; equal ones are in random order, and NaN is behind all others.

        Scores per split are judged on the test images of their own split.

        Raises:
            SettingsError: The scores are of another shape than the errors.
        """
        order = self._order(scores, higher_is_better)
        first = [_first(order[..., s]) for s in range(order.shape[2])]
        error, error_3, hit = (np.zeros(self.oracle_error.shape) for _ in range(3))
        tau = np.zeros(len(self.truth.n_test))
        for s, pick in enumerate(first):
            fixed = len(first) == 1
            errors = self.judged_by if fixed else np.broadcast_to(self._filled[..., s], self.judged_by.shape)
            weight = np.ones((len(error), 1)) if fixed else self._weight[:, s : s + 1]
            error += weight * (pick * np.where(pick > 0, errors, 0.0)).sum(axis=2)
            hit += weight * self.hits(pick)
            for t, available in enumerate(self.truth.available):
                ranks = order[t, available, s]
                part = self.chosen_by[:, t, available], errors[:, t, available]
                error_3[:, t] += weight[:, 0] * _best_of(3, ranks, *part)
                tau[t] += _tau(ranks, self.truth.mean[t, available]) / len(first)
        return Row(name, error, self.oracle_error, error_3, hit, tau)

    def chosen(self, name: str, choice: ArrayLike) -> Row:
        """A policy that names one candidate per task, ``(n_tasks,)``, or per task and split.

        Raises:
            SettingsError: It names one that is left out for the task.
        """
        numbers = np.asarray(choice, np.int64)
        scores = np.ones((*self.truth.available.shape, *numbers.shape[1:]))
        np.put_along_axis(scores, np.expand_dims(numbers, 1), 0.0, axis=1)
        if (scores[~self.truth.available] == 0).any():
            raise SettingsError(
                f"{name!r} chooses a candidate that is left out for the task; name another one there, or "
                f"give scores to Judge.scored, which passes over it."
            )
        row = self.scored(name, scores)
        unknown = np.full(row.error.shape, np.nan)
        return Row(name, row.error, row.reference, unknown, row.hit, unknown[0])

    def drawn(self, name: str, probabilities: ArrayLike) -> Row:
        """A policy that picks at random; the expectation. It has no first three and no order.

        Args:
            name: Of the policy.
            probabilities: Of each candidate to be picked, ``(n_tasks, n_candidates, n_splits)``; each split
                is judged on its own test images. 0 for candidates that are left out.

        Raises:
            SettingsError: Another shape, or probabilities that are none.
        """
        picks = np.asarray(probabilities, np.float64)
        sums = picks.sum(axis=1) if picks.ndim == 3 else picks
        bad = picks.shape != self.truth.errors.shape or not (picks >= 0).all()
        if bad or not np.allclose(sums, 1) or (picks[~self.truth.available] > 0).any():
            raise SettingsError(
                f"{name!r} needs probabilities of shape {self.truth.errors.shape} that sum to 1 over the "
                f"candidates, 0 where one is left out; got shape {picks.shape}."
            )
        errors = (picks * np.where(picks > 0, self._filled, 0.0)).sum(axis=1)  # (n_tasks, n_splits)
        error = self._weight @ errors.T
        hit = np.einsum("ds,tcs,dtc->dt", self._weight, picks, self._best.astype(np.float64))
        unknown = np.full(error.shape, np.nan)
        return Row(name, error, self.oracle_error, unknown, hit, unknown[0])

    def figures(self, row: Row) -> Figures:
        """The row's figures with percentile intervals over resampled tasks."""
        return self._intervals(self._values(row))

    def difference(self, row: Row, other: Row) -> Figures:
        """How much larger the figures of the one row are than the other's, on the same resampled tasks."""
        return self._intervals(self._values(row) - self._values(other))

    def _values(self, row: Row) -> Array:
        """The figures, ``(n_figures, 1 + n_bootstrap)``: first as measured, then of each sample."""
        points = 100 * (row.error - row.reference).mean(axis=0)
        points_3 = 100 * (row.error_3 - row.reference).mean(axis=0)
        half_an_image = 0.5 / self.truth.n_test
        ratios = ((row.error - row.reference) / (row.reference + half_an_image)).mean(axis=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            of_means = (self._samples @ row.error.T) / (self._samples @ row.reference.T)
        per_task = (row.error.mean(axis=0), ratios, points, points_3, row.tau, row.hit.mean(axis=0))
        error, ratio, regret, regret_3, tau, hit = (self._mean(values) for values in per_task)
        return np.stack([error, of_means.mean(axis=1) - 1, ratio, regret, regret_3, tau, hit])

    def _mean(self, values: Array) -> Array:
        known = ~np.isnan(values)
        total = self._samples @ known
        sums = self._samples @ np.where(known, values, 0.0)
        result: Array = np.divide(sums, total, out=np.full(len(total), np.nan), where=total > 0)
        return result

    def _intervals(self, values: Array) -> Figures:
        tail = 50 * (1 - self.coverage)
        result = {}
        for item, sample in zip(fields(Figures), values, strict=True):
            with np.errstate(invalid="ignore"):  # an oracle without any error has no ratio
                low, high = (float(v) for v in np.percentile(sample[1:], [tail, 100 - tail]))
            result[item.name] = Interval(float(sample[0]), low, high)
        return Figures(**result)

    def _order(self, scores: Policy, higher_is_better: bool) -> Array:
        """Places from 0, ``(n_tasks, n_candidates, 1 or n_splits)``; equal ones share; inf where left out."""
        n_tasks, n_candidates, n_splits = self.truth.errors.shape
        if callable(scores):
            rows = [[np.asarray(scores(t, s), np.float64) for s in range(n_splits)] for t in range(n_tasks)]
            scores = np.array(rows).transpose(0, 2, 1)
        values = np.asarray(scores, np.float64)
        values = values[..., None] if values.ndim < 3 else values
        wanted = (n_tasks, n_candidates, values.shape[-1])
        if wanted[2] not in (1, n_splits) or values.shape[:-1] not in (wanted[:2], wanted[1:2]):
            raise SettingsError(
                f"Scores of shape {np.shape(scores)} do not fit errors of {self.truth.errors.shape}; wanted "
                f"(n_candidates,), (n_tasks, n_candidates) or all three."
            )
        values = np.broadcast_to(-values if higher_is_better else values, wanted)
        order = np.full(wanted, np.inf)
        for t, available in enumerate(self.truth.available):
            for s in range(wanted[2]):
                order[t, available, s] = np.unique(values[t, available, s], return_inverse=True)[1]
        return order


def _first(values: Array) -> Array:
    """Probability of each candidate to be picked as the one of the smallest value, ties at random."""
    least = values == values.min(axis=-1, keepdims=True)
    result: Array = least / least.sum(axis=-1, keepdims=True)
    return result


def _best_of(k: int, ranks: Array, chosen_by: Array, judged_by: Array) -> Array:
    """Expected judged error, ``(n_directions,)``, of the best of the first k, as the selecting half says.

    Of the candidates that share the last of the k places, as many as fit are drawn at random. Candidates of
    one error in the selecting half are taken in the policy's own order.
    """
    k = min(k, len(ranks))
    last = np.sort(ranks)[k - 1]
    tied = ranks == last
    n_tied, n_drawn = int(tied.sum()), k - int((ranks < last).sum())
    keep = ranks <= last
    ranks, tied, chosen_by, judged_by = ranks[keep], tied[keep], chosen_by[:, keep], judged_by[:, keep]
    order = np.lexsort((np.broadcast_to(ranks, chosen_by.shape), chosen_by), axis=-1)
    drawn = tied[order]
    before = np.cumsum(drawn, axis=1) - drawn  # tied candidates that are better
    sure_before = np.cumsum(~drawn, axis=1) - ~drawn
    n_all = math.comb(n_tied, n_drawn)
    none_before = np.array([math.comb(n_tied - a, n_drawn) / n_all for a in range(n_tied + 1)])
    this_one = np.array([math.comb(n_tied - a - 1, n_drawn - 1) / n_all for a in range(n_tied)] + [0.0])
    probability = np.where(drawn, this_one[before], none_before[before]) * (sure_before == 0)
    alike = _runs(np.take_along_axis(chosen_by, order, axis=1), ranks[order])
    sums = np.bincount(alike.ravel(), np.take_along_axis(judged_by, order, axis=1).ravel())
    means = sums / np.bincount(alike.ravel())
    result: Array = (probability * means[alike]).sum(axis=1)
    return result


def _runs(first: Array, second: Array) -> NDArray[np.int64]:
    """Numbers of the runs of equal neighbours in each row, ``(n_rows, n)``; no two rows share one."""
    new = np.ones(first.shape, np.bool_)
    new[:, 1:] = (np.diff(first, axis=1) != 0) | (np.diff(second, axis=1) != 0)
    result: NDArray[np.int64] = np.cumsum(new).reshape(first.shape) - 1
    return result


def _tau(ranks: Array, errors: Array) -> float:
    """Weighted Kendall tau of two orders, the first places counting most; 0 where either has none."""
    if np.ptp(ranks) == 0 or np.ptp(errors) == 0:
        return 0.0
    from scipy.stats import weightedtau  # half a second to import

    return float(weightedtau(-ranks, -errors).statistic)


def _resampled(groups: Sequence[str], n_samples: int, seed: int) -> Array:
    """How often each task counts, ``(1 + n_samples, n_tasks)``: once, then with its group drawn anew."""
    names, member = np.unique(np.array(groups), return_inverse=True)
    counts = np.random.default_rng(seed).multinomial(
        len(names), np.full(len(names), 1 / len(names)), n_samples
    )
    return np.concatenate([np.ones((1, len(groups))), counts[:, member].astype(np.float64)])
