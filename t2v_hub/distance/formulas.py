"""The distances' formulas, on rows of Fisher values."""

from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from t2v_hub.embedding import TaskEmbedding
from t2v_hub.errors import SettingsError

DistanceName = Literal[
    "symmetric",
    "asymmetric",
    "relative",
    "kl",
    "asymmetric_kl",
    "jsd",
    "entropy",
    "correlation",
    "normalized_cosine",
]
Rows = NDArray[np.float64]
Formula = Callable[[Rows, Rows], Rows]

ALPHA = 0.15
"""Weight of the complexity term in the asymmetric distance; the paper's value (section 4)."""

WITH_COMPLEXITY: tuple[DistanceName, ...] = ("asymmetric", "relative")
"""Distances from which alpha times the complexity of the source is taken off."""

LEVEL = 1e-4
"""Mean Fisher value to which ``relative`` brings embeddings; from 1e-6 to 1e-2 it chooses alike."""


def formula(name: DistanceName, embedding: TaskEmbedding, alpha: float) -> Formula:
    """The named distance as a function of broadcastable rows of Fisher values of one space.

    Equal spaces have equal probes and so equal priors: any embedding of the space can lend its own.

    Raises:
        SettingsError: An unknown name, or an ``alpha`` that is negative or not finite.
    """
    if not np.isfinite(alpha) or alpha < 0:
        raise SettingsError(f"alpha must be a finite number >= 0, not {alpha!r}.")
    if name in WITH_COMPLEXITY:
        trivial = embedding.prior_precision[None, :]
        robust, level = robust_rows(embedding), level_of(embedding)

        def asymmetric(source: Rows, target: Rows) -> Rows:
            if name == "relative":
                source, target = of_mean(source, level), of_mean(target, level)
            source = robust(source)
            return symmetric(source, robust(target)) - alpha * symmetric(source, trivial)

        return asymmetric
    if name == "normalized_cosine":
        trivial = embedding.prior_precision[None, :]
        return lambda source, target: _normalized_cosine(source, target, trivial)
    if name not in _BY_NAME:
        known = ", ".join(["asymmetric", "relative", "normalized_cosine", *_BY_NAME])
        raise SettingsError(f"There is no distance {name!r}. Choose one of: {known}.")
    return _BY_NAME[name]


def robust_rows(embedding: TaskEmbedding) -> Callable[[Rows], Rows]:
    """What maps rows of the embedding's space to their robust precisions, `TaskEmbedding.robust`."""
    if embedding.space.family == "variational":
        return lambda rows: rows
    beta, trivial = embedding.space.beta, embedding.prior_precision
    return lambda rows: rows / (2 * beta) + trivial


def level_of(embedding: TaskEmbedding) -> float:
    """The mean to which ``relative`` brings rows of a space: of precisions, that of their prior."""
    return float(embedding.prior_precision.mean()) if embedding.space.family == "variational" else LEVEL


def of_mean(rows: Rows, level: float) -> Rows:
    """Rows brought to a mean; rows of zeros stay."""
    means = rows.mean(axis=1, keepdims=True)
    result: Rows = rows * np.divide(level, means, out=np.ones_like(means), where=means != 0)
    return result


def _shares(source: Rows, target: Rows) -> tuple[Rows, Rows]:
    """The shares u and v, each straight from its own quotient: 1 - u would cancel when the scales differ."""
    total = source + target
    equal = total == 0
    if not equal.any():
        return source / total, target / total
    total = np.where(equal, 1.0, total)
    return np.where(equal, 0.5, source / total), np.where(equal, 0.5, target / total)


def symmetric(source: Rows, target: Rows) -> Rows:
    """The symmetric distance of rows, ``(n,)``."""
    u, v = _shares(source, target)
    uu = np.einsum("ij,ij->i", u, u)
    vv = np.einsum("ij,ij->i", v, v)
    uv = np.einsum("ij,ij->i", u, v)
    # Where one task is zero throughout, no direction is left: as far apart as can be.
    norm = np.sqrt(uu * vv)
    result: Rows = 1.0 - np.divide(uv, norm, out=np.zeros_like(uv), where=norm > 0)
    return np.clip(result, 0.0, 1.0)


def _divergence(precision: Rows, other: Rows) -> Rows:
    """KL divergence of two centred Gaussians of these precisions, per filter, in nats."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = other / precision
        excess = (other - precision) / precision  # ratio - 1 without its rounding, where it is small
        logarithm = np.where(np.abs(excess) < 0.5, np.log1p(excess), np.log(ratio))
        result: Rows = 0.5 * (excess - logarithm)
    result = np.where((precision == 0) & (other == 0), 0.0, np.where(np.isnan(result), np.inf, result))
    return result


def _kl(source: Rows, target: Rows) -> Rows:
    result: Rows = np.maximum(_divergence(source, target), _divergence(target, source)).sum(axis=1)
    return result


def _asymmetric_kl(source: Rows, target: Rows) -> Rows:
    result: Rows = _divergence(source, target).sum(axis=1)
    return result


def _jsd(source: Rows, target: Rows) -> Rows:
    # The mean variance (1/a + 1/b)/2 has the precision 2ab/(a + b), which is 0 where either is.
    total = source + target
    middle = np.divide(2 * source * target, total, out=np.zeros_like(total), where=total > 0)
    result: Rows = 0.5 * (_divergence(source, middle) + _divergence(target, middle)).mean(axis=1)
    return result


def _entropy(source: Rows, target: Rows) -> Rows:
    u, v = _shares(source, target)
    with np.errstate(divide="ignore", invalid="ignore"):
        nats = -np.where(u > 0, u * np.log(u), 0.0) - np.where(v > 0, v * np.log(v), 0.0)
    result: Rows = np.maximum(np.log(2.0) - nats.mean(axis=1), 0.0)
    return result


def _variances(source: Rows, target: Rows) -> tuple[Rows, Rows, NDArray[np.bool_]]:
    source, target = np.broadcast_arrays(source, target)
    usable = (source > 0) & (target > 0)
    return 1.0 / np.where(usable, source, 1.0), 1.0 / np.where(usable, target, 1.0), usable


def _cosine_distance(a: Rows, b: Rows) -> Rows:
    # Each is divided by its largest entry first, so that no square overflows or vanishes.
    a = a / np.maximum(np.abs(a).max(axis=1, keepdims=True), np.finfo(np.float64).tiny)
    b = b / np.maximum(np.abs(b).max(axis=1, keepdims=True), np.finfo(np.float64).tiny)
    norm = np.sqrt(np.square(a).sum(axis=1) * np.square(b).sum(axis=1))
    dot = (a * b).sum(axis=1)
    result: Rows = 1.0 - np.divide(dot, norm, out=np.zeros_like(dot), where=norm > 0)
    return np.maximum(result, 0.0)  # rounding may leave -1e-16 for equal vectors


def _correlation(source: Rows, target: Rows) -> Rows:
    a, b, usable = _variances(source, target)
    count = np.maximum(usable.sum(axis=1, keepdims=True), 1)
    a = np.where(usable, a - (a * usable).sum(axis=1, keepdims=True) / count, 0.0)
    b = np.where(usable, b - (b * usable).sum(axis=1, keepdims=True) / count, 0.0)
    return _cosine_distance(a, b)


def _normalized_cosine(source: Rows, target: Rows, trivial: Rows) -> Rows:
    a, b, usable = _variances(source, target)
    return _cosine_distance(a * trivial * usable, b * trivial * usable)


_BY_NAME: dict[str, Formula] = {
    "symmetric": symmetric,
    "kl": _kl,
    "asymmetric_kl": _asymmetric_kl,
    "jsd": _jsd,
    "entropy": _entropy,
    "correlation": _correlation,
}
