"""`Comparison`: how far source tasks are from one target, and how sure their order is.

The target is the same in every distance of a ranking, so most of its noise cancels in a difference
of two. Its share of the difference's variance is therefore taken from the differences of the
distances at the target's jackknife replicates; each source adds a share of its own. An embedding
without its deviations lends its recorded typical share, and as that says nothing of what cancels,
the target's then counts twice: too many ties rather than too few.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from t2v_hub.distance import (
    ALPHA,
    WITH_COMPLEXITY,
    DistanceName,
    distance,
    distances,
    recorded_standard_error,
    replicates,
)
from t2v_hub.embedding import TaskEmbedding, jackknife_standard_error

Z95 = 1.96
"""Standard errors on either side of a 95 % interval."""


@dataclass(frozen=True, eq=False)
class Measured:
    """The distance from one source task to the target.

    Attributes:
        digest: Which embedding the source is.
        distance: The distance.
        complexity: What ``relative`` and ``asymmetric`` take off for the source's complexity,
            ``alpha * d(source, t0)``; None for other distances.
        source_share: The source's share of the standard error; NaN where it is not known.
        target_share: The target's.
        at_replicates: ``(n_groups,)``, the distance at each jackknife replicate of the target.
    """

    digest: str
    distance: float
    complexity: float | None = None
    source_share: float = math.nan
    target_share: float = math.nan
    at_replicates: NDArray[np.float64] | None = None

    @property
    def standard_error(self) -> float:
        """Standard error of the distance; NaN where it is not known."""
        return math.hypot(self.source_share, self.target_share)

    def difference_error(self, other: "Measured") -> float:
        """Standard error of the difference of two distances to one target; NaN where not known."""
        if self.digest == other.digest:
            return 0.0
        if self.at_replicates is None or other.at_replicates is None:
            target = math.hypot(self.target_share, other.target_share)
        else:
            with np.errstate(invalid="ignore"):  # a divergence may be infinite
                target = float(jackknife_standard_error(self.at_replicates - other.at_replicates))
        return math.hypot(self.source_share, other.source_share, target)

    def is_tied_with(self, other: "Measured") -> bool:
        """Whether the distances are equal, or differ by less than 1.96 standard errors."""
        if self.digest == other.digest or self.distance == other.distance:
            return True
        return abs(self.distance - other.distance) < Z95 * self.difference_error(other)


class Comparison:
    """Distances from source tasks to one target.

    Args:
        target: The task at hand.
        name: Which distance.
        alpha: Weight of the complexity term, where the distance has one.
    """

    def __init__(
        self, target: TaskEmbedding, *, name: DistanceName = "symmetric", alpha: float = ALPHA
    ) -> None:
        self._target = target
        self._name: DistanceName = name
        self._alpha = alpha
        self._replicates = None if target.deviations is None else replicates(target)

    def measure(self, source: TaskEmbedding) -> Measured:
        """The distance from ``source`` with its standard error, which equals `distance_standard_error`.

        Raises:
            EmbeddingMismatchError: The spaces differ.
        """
        name, alpha, target = self._name, self._alpha, self._target
        value = distance(source, target, name=name, alpha=alpha)
        complexity = None
        if name in WITH_COMPLEXITY:
            complexity = distance(source, target, name=name, alpha=0.0) - value
        source_share = recorded_standard_error(source, name=name)
        target_share = recorded_standard_error(target, name=name)
        at_replicates = None
        with np.errstate(invalid="ignore"):  # a divergence may be infinite
            if source.deviations is not None:
                moved = distances(target, replicates(source), name=name, alpha=alpha)
                source_share = float(jackknife_standard_error(moved))
            if self._replicates is not None:
                at_replicates = distances(source, self._replicates, query_is="source", name=name, alpha=alpha)
                target_share = float(jackknife_standard_error(at_replicates))
        return Measured(source.digest, value, complexity, source_share, target_share, at_replicates)

    def estimate(self, digest: str, distance: float, *, recorded: float | None) -> Measured:
        """A distance that is known already, with the recorded shares of its standard error.

        Args:
            digest: Which embedding the source is.
            distance: The distance.
            recorded: The source's recorded share, where there is one.
        """
        source_share = math.nan
        if recorded is not None and (self._name == "symmetric" or self._name in WITH_COMPLEXITY):
            source_share = recorded
        return Measured(
            digest,
            distance,
            source_share=source_share,
            target_share=recorded_standard_error(self._target, name=self._name),
        )
