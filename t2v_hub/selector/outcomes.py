"""`Outcomes`: how a checkpoint did on each image, what error that predicts, and who cannot be told apart."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from t2v_hub.selector.comparison import Z95


@dataclass(frozen=True)
class Difference:
    """How much smaller one error is than another, on the same images.

    Attributes:
        value: The other's error less the one's; positive where the one is better.
        standard_error: Its spread over new images; None of a single image.
    """

    value: float
    standard_error: float | None

    @property
    def is_sure(self) -> bool:
        """Whether it is larger than 1.96 standard errors, in either direction."""
        return self.standard_error is not None and abs(self.value) > Z95 * self.standard_error


@dataclass(frozen=True, eq=False)
class Outcomes:
    """Leave-one-out outcomes of a linear classifier on a checkpoint's features.

    Attributes:
        hits: ``(n,)`` in [0, 1], from `t2v_hub.scores.ridge_outcomes`.
    """

    hits: NDArray[np.float64]

    @property
    def error(self) -> float:
        """Share of images that are missed."""
        return 1.0 - float(self.hits.mean())

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the error; inside [0, 1], and not of length 0 where none is missed.

        References:
            Wilson, "Probable inference, the law of succession, and statistical inference", JASA 1927.
        """
        n, p = len(self.hits), self.error
        scale = 1 + Z95**2 / n
        centre = (p + Z95**2 / (2 * n)) / scale
        half = Z95 / scale * math.sqrt(p * (1 - p) / n + Z95**2 / (4 * n**2))
        return max(0.0, centre - half), min(1.0, centre + half)

    def better_than(self, other: "Outcomes") -> Difference:
        """By how much this error is the smaller one, image by image.

        Images that both hit or both miss add nothing to its standard error, which is therefore much smaller
        than that of two errors on different images. It is the spread over images of classifiers that share
        their training images; that other images would have trained other ones is not in it.
        """
        gains = self.hits - other.hits
        n = len(gains)
        error = float(gains.std(ddof=1)) / math.sqrt(n) if n > 1 else None
        return Difference(float(gains.mean()), error)


def tie_groups(ordered: Sequence[Outcomes]) -> list[int]:
    """Number of each one's tie group, from 1.

    A group reaches as far as errors on the same images differ from that of its first by no more than 1.96
    standard errors of the difference.

    Args:
        ordered: Best first.
    """
    groups: list[int] = []
    leader: Outcomes | None = None
    for outcomes in ordered:
        if leader is None or leader.better_than(outcomes).is_sure:
            leader = outcomes
            groups.append(groups[-1] + 1 if groups else 1)
        else:
            groups.append(groups[-1])
    return groups
