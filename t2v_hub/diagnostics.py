"""Diagnostics of collections of embeddings: how diverse tasks are, and how ready for learning together."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from t2v_hub.distance import ALPHA, DistanceName, distances, pairwise
from t2v_hub.embedding import TaskEmbedding
from t2v_hub.errors import SettingsError

Rows = NDArray[np.float64]
Interval = tuple[float, float]

_LEVEL = 0.95
_CHUNK_VALUES = 1 << 16  # float64 values that are worked on at once


@dataclass(frozen=True)
class Diversity:
    """Mean distance between the tasks of a collection.

    Attributes:
        value: Mean over all pairs of two tasks.
        standard_error: How far it moves with other tasks of the same population; None for two tasks.
        interval: Holds the population's value 95 times in 100; None where there is no standard error.
        n: Number of tasks.
        distance: Which distance.
    """

    value: float
    standard_error: float | None
    interval: Interval | None
    n: int
    distance: DistanceName


@dataclass(frozen=True)
class CrossDiversity:
    """Mean distance from the tasks of one collection to those of another.

    Attributes:
        value: Mean over all pairs of one task of each.
        standard_error: How far it moves with other tasks of both populations; None where one of the
            collections has a single task.
        interval: Holds the populations' value 95 times in 100; None where there is no standard error.
        n: Numbers of tasks.
        distance: Which distance.
    """

    value: float
    standard_error: float | None
    interval: Interval | None
    n: tuple[int, int]
    distance: DistanceName


@dataclass(frozen=True)
class Readiness:
    """How alike the tasks of clients are who want to learn together.

    Attributes:
        cohesion: Mean cosine of two Fisher vectors, in ``[0, 1]``.
        dispersion: Root mean square over filters of the difference from the mean vector, averaged over
            tasks; at least 0, in the unit of the vectors.
        density: Mean Gaussian kernel of two Fisher vectors, in ``[0, 1]``.
        n: Number of tasks.
    """

    cohesion: float
    dispersion: float
    density: float
    n: int


def diversity(
    embeddings: Sequence[TaskEmbedding], *, distance: DistanceName = "symmetric", alpha: float = ALPHA
) -> Diversity:
    r"""Mean distance between two tasks of a collection, with an interval that knows that pairs share tasks.

    .. math:: \hat\delta = \binom{n}{2}^{-1} \sum_{i<j} d_{ij}, \qquad
        s^2 = \frac{4 (n-1)}{n (n-2)^2} \sum_i \bigl(\bar d_i - \hat\delta\bigr)^2

    with :math:`\bar d_i` the mean distance of task i from the others. A task takes part in n - 1
    pairs, so the n(n - 1)/2 distances are not so many independent numbers; as if they were, an error
    comes out several times too small. This is a U-statistic of degree 2, and its variance the delete-one
    jackknife's, in closed form. The interval takes Student's t with n - 1 degrees of freedom. The jackknife
    errs towards wide: with three tasks by up to 2 and with many by :math:`\sqrt{2}` where no task is nearer
    to the rest than any other, by little where some are. What no interval knows is a kind of task that is
    rare in the population and absent among a few.

    The population is that of tasks measured as these were: noise of the measurements is part of the
    distances, and noisier embeddings lie further apart. Tasks that share images are not drawn
    independently, and the interval does not see that.

    Args:
        embeddings: Two or more of one space, each of a task drawn by itself.
        distance: Which distance; where it has a direction, the mean of both.
        alpha: Weight of the complexity term of ``relative`` and ``asymmetric``.

    Raises:
        EmbeddingMismatchError: Not all are of one space.
        SettingsError: Fewer than two embeddings, an infinite distance, or an unusable ``distance`` or
            ``alpha``.

    References:
        Miranda et al., "The Curse of Low Task Diversity", arXiv 2208.01545, 2022; Lee et al., "Beyond
        Scale: the Diversity Coefficient as a Data Quality Metric", arXiv 2306.13840, 2023. Hoeffding, "A
        Class of Statistics with Asymptotically Normal Distribution", 1948; Arvesen, "Jackknifing
        U-Statistics", 1969.
    """
    n = _count(embeddings, "diversity")
    matrix = pairwise(embeddings, name=distance, alpha=alpha)
    matrix = (matrix + matrix.T) / 2
    np.fill_diagonal(matrix, 0.0)  # the asymmetric distance of a task from itself is none of a pair
    _require_finite(matrix, distance)
    of_each = matrix.sum(axis=1) / (n - 1)
    value = float(of_each.mean())
    if n == 2:
        return Diversity(value, None, None, n, distance)
    variance = 4 * (n - 1) / (n * (n - 2) ** 2) * float(np.square(of_each - value).sum())
    error = math.sqrt(variance)
    return Diversity(value, error, _interval(value, error, n - 1), n, distance)


def cross_diversity(
    first: Sequence[TaskEmbedding],
    second: Sequence[TaskEmbedding],
    *,
    distance: DistanceName = "symmetric",
    alpha: float = ALPHA,
) -> CrossDiversity:
    r"""Mean distance from a task of one collection to a task of another.

    .. math:: \hat\delta = \frac{1}{n m} \sum_{ij} d_{ij}, \qquad
        s^2 = \frac{s_{\text{first}}^2}{n} + \frac{s_{\text{second}}^2}{m}

    with :math:`s_{\text{first}}^2` the variance of the mean distances of the first's tasks from all of
    the second, and the other way round: the delete-one jackknife of a U-statistic of two samples. The
    interval takes Student's t with Welch's degrees of freedom. See `diversity` for what the population is.

    Args:
        first: One or more embeddings; the sources, where the distance has a direction.
        second: One or more embeddings of the same space, of other tasks.
        distance: Which distance.
        alpha: Weight of the complexity term of ``relative`` and ``asymmetric``.

    Raises:
        EmbeddingMismatchError: Not all are of one space.
        SettingsError: A collection is empty, a distance infinite, or an unusable ``distance`` or ``alpha``.

    References:
        Lee et al., "Beyond Scale", arXiv 2306.13840, 2023, section 2.
    """
    n, m = len(first), len(second)
    if not n or not m:
        raise SettingsError(
            f"cross_diversity needs an embedding in each collection; they have {n} and {m}. Leave none empty."
        )
    for embedding in (*first, *second):
        first[0].space.require_equal(embedding.space)
    sources = np.stack([embedding.fisher for embedding in first])
    matrix = np.stack(
        [distances(target, sources, name=distance, alpha=alpha) for target in second], axis=1
    )  # (n, m)
    _require_finite(matrix, distance)
    value = float(matrix.mean())
    if n == 1 or m == 1:
        return CrossDiversity(value, None, None, (n, m), distance)
    shares = [matrix.mean(axis=1).var(ddof=1) / n, matrix.mean(axis=0).var(ddof=1) / m]
    variance = float(sum(shares))
    freedom = min(n, m) - 1.0
    if variance > 0:  # Welch's, which lie between min(n, m) - 1 and n + m - 2
        freedom = variance**2 / float(shares[0] ** 2 / (n - 1) + shares[1] ** 2 / (m - 1))
    error = math.sqrt(variance)
    return CrossDiversity(value, error, _interval(value, error, freedom), (n, m), distance)


def readiness(embeddings: Sequence[TaskEmbedding]) -> Readiness:
    r"""How alike clients' tasks are: cohesion, dispersion and density of their Fisher vectors z.

    .. math:: \text{cohesion} = \operatorname{mean}_{i<j} \cos(z_i, z_j), \quad
        \text{dispersion} = \operatorname{mean}_c \frac{\lVert z_c - \bar z \rVert}{\sqrt{d}}, \quad
        \text{density} = \operatorname{mean}_{i<j} \exp\Bigl(-\frac{\lVert z_i - z_j \rVert^2}{2 h^2}\Bigr)

    with d filters and :math:`h = \operatorname{median}_c \lVert z_c - \bar z \rVert`. Means are over all
    pairs of two clients; a client with itself is no pair. Two vectors of zeros have cosine 1, one of zeros
    and another 0. Where h is 0, which takes more than half of the clients at the mean, the kernel is its
    limit: 1 for equal vectors and 0 for others. With two clients the density is :math:`e^{-2}` whatever
    they are, or 1 where they are equal.

    Args:
        embeddings: Two or more of one space, one per client.

    Raises:
        EmbeddingMismatchError: Not all are of one space.
        SettingsError: Fewer than two embeddings.

    References:
        Mafuz and Silva, 2026. They leave open what happens where h is 0.
    """
    n = _count(embeddings, "readiness")
    for embedding in embeddings[1:]:
        embeddings[0].space.require_equal(embedding.space)
    rows = np.stack([embedding.fisher for embedding in embeddings]).astype(np.float64)  # (n, d)
    from_mean = np.linalg.norm(rows - rows.mean(axis=0), axis=1)
    return Readiness(
        cohesion=_mean_cosine(rows),
        dispersion=float(from_mean.mean() / math.sqrt(rows.shape[1])),
        density=_mean_kernel(rows, float(np.median(from_mean))),
        n=n,
    )


def _mean_cosine(rows: Rows) -> float:
    n = len(rows)
    norms = np.linalg.norm(rows, axis=1)
    directions = rows / np.where(norms > 0, norms, 1.0)[:, None]
    n_zero = int((norms == 0).sum())
    # The square of the sum of the directions holds every pair twice, and each with itself once.
    twice = float(np.square(directions.sum(axis=0)).sum()) - (n - n_zero) + n_zero * (n_zero - 1)
    return min(1.0, max(0.0, twice / (n * (n - 1))))


def _mean_kernel(rows: Rows, width: float) -> float:
    n = len(rows)
    step = max(1, _CHUNK_VALUES // rows.shape[1])
    total = 0.0
    for i in range(n - 1):
        for start in range(i + 1, n, step):
            # Straight from the differences: norms and products would cancel for near vectors.
            apart = np.linalg.norm(rows[start : start + step] - rows[i], axis=1)
            relative = np.divide(apart, width, out=np.where(apart > 0, np.inf, 0.0), where=width > 0)
            total += float(np.exp(-0.5 * np.square(relative)).sum())
    return total / (n * (n - 1) / 2)


def _count(embeddings: Sequence[TaskEmbedding], quantity: str) -> int:
    if len(embeddings) < 2:
        raise SettingsError(
            f"{quantity} needs the embeddings of two tasks or more, and got {len(embeddings)}. It is a mean "
            f"over pairs of tasks."
        )
    return len(embeddings)


def _require_finite(matrix: Rows, distance: DistanceName) -> None:
    bad = int((~np.isfinite(matrix)).sum())
    if bad:
        raise SettingsError(
            f"{bad} of the distances {distance!r} are infinite, as where a filter is zero in one task only, "
            f"and so have no mean. Choose another distance, such as 'symmetric'."
        )


def _interval(value: float, error: float, freedom: float) -> Interval:
    from scipy.special import stdtrit

    reach = float(stdtrit(freedom, (1 + _LEVEL) / 2)) * error
    return value - reach, value + reach
