"""What the demo measured: accuracies of every expert on every target, and what each way to choose costs."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from t2v_hub.catalog import Library
from t2v_hub.distance import DistanceName
from t2v_hub.embedding import Json
from t2v_hub.selector import Ranking

SCHEMA = "t2v-demo/1"
POINTS = 100.0
PICTURED: DistanceName = "symmetric"
"""Distance in the picture of all tasks; rankings have their own, which has a direction."""

Array = NDArray[np.float64]
Verdict = Literal["better", "worse", "undecided"]
_DRAWS = 4000


@dataclass(frozen=True)
class Expert:
    """A checkpoint that the demo trained.

    Attributes:
        name: Its short name.
        location: Its folder, a whole path, which is its id in the catalog.
        library: Which library loads it.
        parameters: How many numbers it has.
        accuracy: On held-out images of its own task.
    """

    name: str
    location: str
    library: Library
    parameters: int
    accuracy: float


@dataclass(frozen=True)
class Trial:
    """One target: how the experts were ranked, and what fine-tuning every one of them gave.

    Attributes:
        name: The target.
        ranking: All experts, best first.
        accuracies: Test accuracy by expert's id, one number per seed.
    """

    name: str
    ranking: Ranking
    accuracies: Mapping[str, tuple[float, ...]]

    @property
    def agreement(self) -> float:
        """Rank correlation (Spearman) of nearness and mean accuracy; NaN where one is constant."""
        from scipy.stats import rankdata

        far = rankdata([item.distance for item in self.ranking])
        good = rankdata([float(np.mean(self.accuracies[id])) for id in self.ranking.ranked])
        if np.ptp(far) == 0 or np.ptp(good) == 0:
            return math.nan
        return -float(np.corrcoef(far, good)[0, 1])


@dataclass(frozen=True)
class Regret:
    """What one way to choose an expert loses against the best one, in accuracy points.

    Attributes:
        policy: How the expert is chosen.
        mean: Over targets and seeds; 0 is the best expert's own.
        interval: 95 %, by bootstrap.
    """

    policy: str
    mean: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class Comparison:
    """By how many accuracy points the selector's choice beats another way to choose.

    Attributes:
        policy: The other way.
        gain: Mean over targets and seeds; positive where the selector is better.
        interval: 95 %, by bootstrap.
        n_better: Targets on which the selector is better in the mean over seeds.
    """

    policy: str
    gain: float
    interval: tuple[float, float]
    n_better: int

    @property
    def verdict(self) -> Verdict:
        """Whether the interval lies on one side of 0."""
        if self.interval[0] > 0:
            return "better"
        return "worse" if self.interval[1] < 0 else "undecided"


@dataclass(frozen=True)
class Outcome:
    """The figures that sum up all trials.

    Attributes:
        cross_fitted: Whether the best expert was picked on other seeds than it was judged on; otherwise
            the regrets are too large by the luck of the best.
        regrets: Of the selector and of the other ways to choose.
        comparisons: The selector against each of the others.
        spread: Standard deviation of the experts' mean accuracies within a target, in points.
        noise: Standard error of such a mean over seeds, in points; NaN with one seed.
    """

    cross_fitted: bool
    regrets: tuple[Regret, ...]
    comparisons: tuple[Comparison, ...]
    spread: float
    noise: float


@dataclass(frozen=True)
class HubFindings:
    """What came of uploading the experts to a Hub on this machine, and of choosing among them there.

    Attributes:
        n_published: Experts that were uploaded, with their embeddings in their cards.
        n_uploads: Requests that this took.
        n_requests: Requests that finding them took.
        n_found: Experts that were found.
        largest_difference: Between distances from the cards, which hold float16, and from the local
            catalog, over all experts and targets.
        same_order: Whether all targets' rankings have the same order either way.
        loaded: The first target's first choice, which was loaded from there.
        failure: Why there is none of this, in words; None where there is.
    """

    n_published: int = 0
    n_uploads: int = 0
    n_requests: int = 0
    n_found: int = 0
    largest_difference: float | None = None
    same_order: bool | None = None
    loaded: str | None = None
    failure: str | None = None


@dataclass(frozen=True)
class DemoReport:
    """Everything that the demo found.

    Attributes:
        seed: What all randomness hung on.
        quick: Whether it was the short version.
        probe: What was measured with.
        space: Id of the space.
        experts: The candidates.
        trials: One per target.
        outcome: What every way to choose loses.
        hub: What came of sharing the experts.
        files: What was written, by what it is; whole paths.
        wall_s: Seconds it took.
        cpu_s: Seconds of processor time, over all threads.
        peak_bytes: Largest memory of the process; None where the system does not tell.
    """

    seed: int
    quick: bool
    probe: str
    space: str
    experts: tuple[Expert, ...]
    trials: tuple[Trial, ...]
    outcome: Outcome
    hub: HubFindings
    files: Mapping[str, str]
    wall_s: float
    cpu_s: float
    peak_bytes: int | None

    def to_dict(self) -> dict[str, Json]:
        """The report as plain values that JSON can hold; what is not known is None."""
        return {
            "schema": SCHEMA,
            "seed": self.seed,
            "quick": self.quick,
            "probe": self.probe,
            "space": self.space,
            "experts": [
                {
                    "name": one.name,
                    "id": one.location,
                    "library": one.library,
                    "parameters": one.parameters,
                    "accuracy": one.accuracy,
                }
                for one in self.experts
            ],
            "targets": [
                {
                    "name": trial.name,
                    "ranking": trial.ranking.to_dict(),
                    "accuracies": {id: list(values) for id, values in trial.accuracies.items()},
                    "agreement": _known(trial.agreement),
                }
                for trial in self.trials
            ],
            "cross_fitted": self.outcome.cross_fitted,
            "regrets": [
                {"policy": one.policy, "mean": one.mean, "interval": list(one.interval)}
                for one in self.outcome.regrets
            ],
            "comparisons": [
                {
                    "policy": one.policy,
                    "gain": one.gain,
                    "interval": list(one.interval),
                    "n_better": one.n_better,
                    "verdict": one.verdict,
                }
                for one in self.outcome.comparisons
            ],
            "spread": self.outcome.spread,
            "noise": _known(self.outcome.noise),
            "hub": asdict(self.hub),
            "files": dict(self.files),
            "wall_s": self.wall_s,
            "cpu_s": self.cpu_s,
            "peak_bytes": self.peak_bytes,
        }


SELECTOR = "the selector's first choice"
RANDOM = "a random choice"
UPSTREAM = "the highest own accuracy"
CONSTANT = "the best constant choice, in hindsight"


def sum_up(trials: Sequence[Trial], experts: Sequence[Expert], *, seed: int) -> Outcome:
    """Regrets of every way to choose, with two-level bootstrap intervals: targets, then seeds within.

    With two seeds or more, best expert and best constant expert are picked on the other seeds than the
    one they are judged on: otherwise they would win by their luck too.

    Args:
        trials: One per target, with the same seeds.
        experts: All of them.
        seed: Of the bootstrap.
    """
    ids = [expert.location for expert in experts]
    table = np.array([[trial.accuracies[id] for id in ids] for trial in trials]) * POINTS
    n_targets, _, n_seeds = table.shape
    others = _means_over_other_seeds(table)
    best = _taken(table, others.argmax(axis=1))
    constant = _taken(table, np.broadcast_to(others.mean(axis=0).argmax(axis=0), (n_targets, n_seeds)))
    first = np.array([ids.index(trial.ranking.ranked[0]) for trial in trials])
    own = np.array([expert.accuracy for expert in experts])
    leaders = (own == own.max()) / (own == own.max()).sum()  # equals share the place
    policies = {
        SELECTOR: _taken(table, np.repeat(first[:, None], n_seeds, axis=1)),
        RANDOM: table.mean(axis=1),
        UPSTREAM: np.einsum("tes,e->ts", table, leaders),
        CONSTANT: constant,
    }
    generator = np.random.default_rng([seed, 3])
    targets = generator.integers(n_targets, size=(_DRAWS, n_targets, 1))
    seeds = generator.integers(n_seeds, size=(_DRAWS, n_targets, n_seeds))

    def interval(values: Array) -> tuple[float, float]:
        low, high = np.quantile(values[targets, seeds].mean(axis=(1, 2)), [0.025, 0.975])
        return float(low), float(high)

    chosen = policies[SELECTOR]
    return Outcome(
        cross_fitted=n_seeds > 1,
        regrets=tuple(
            Regret(name, float((best - values).mean()), interval(best - values))
            for name, values in policies.items()
        ),
        comparisons=tuple(
            Comparison(
                name,
                gain=float((chosen - values).mean()),
                interval=interval(chosen - values),
                n_better=int(((chosen - values).mean(axis=1) > 0).sum()),
            )
            for name, values in policies.items()
            if name != SELECTOR
        ),
        spread=float(table.mean(axis=2).std(axis=1, ddof=1).mean()),
        noise=float(np.sqrt((table.var(axis=2, ddof=1) / n_seeds).mean())) if n_seeds > 1 else math.nan,
    )


def _means_over_other_seeds(table: Array) -> Array:
    """``(targets, experts, seeds)``: each entry the mean without that seed; the plain values of one seed."""
    n_seeds = table.shape[2]
    if n_seeds == 1:
        return table
    result: Array = (table.sum(axis=2, keepdims=True) - table) / (n_seeds - 1)
    return result


def _taken(table: Array, choice: NDArray[np.int64]) -> Array:
    """``(targets, seeds)``: the accuracy of the chosen expert, ``choice`` of that shape."""
    return np.take_along_axis(table, choice[:, None, :], axis=1)[:, 0]


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
