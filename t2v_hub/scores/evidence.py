r"""LogME: the largest evidence of a Bayesian linear regression from features to labels.

For one class with target :math:`y \in \{0, 1\}^n`, weights :math:`w \sim N(0, \alpha^{-1} I)` and noise
of precision :math:`\beta`, the targets are normal with covariance :math:`\alpha^{-1}(t I + X X^T)`, where
:math:`t = \alpha / \beta`. For given t the best :math:`\alpha` is
:math:`n / y^T (t I + X X^T)^{-1} y`, so that the evidence is a function of t alone:

.. math:: \frac{L(t)}{n} = -\frac12 \Bigl[ \log 2\pi + 1 + \log \frac{q(t)}{n}
    + \frac1n \sum_i \log (t + \lambda_i) \Bigr], \quad q(t) = \sum_i \frac{z_i^2}{t + \lambda_i},

with :math:`\lambda_i` the n eigenvalues of :math:`X X^T` and z the coordinates of y. Its stationary points
are the fixed points of MacKay's iteration, which the papers use.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from t2v_hub.scores.features import Spectrum, checked_pair

Array = NDArray[np.float64]

_LARGEST = 9  # decades of t, relative to the largest eigenvalue
_SMALLEST = -12  # where the features span all targets, so that nothing is lost to rounding
_SMALLEST_WITHIN = -9  # where they do not
_PER_DECADE = 4
_HALVINGS = 30  # of a bracket of two grid steps; the evidence is flat there, so its error is the square
_PERFECT = 1e-13  # of |y|²: what is left outside the features' span and is rounding


def logme(features: ArrayLike, labels: ArrayLike) -> float:
    r"""Log of the maximum evidence per image, averaged over classes.

    The evidence is that of a linear regression without bias onto each class's indicator; its weights are
    integrated out and its two precisions maximised over.

    The papers iterate :math:`t = \alpha/\beta` from 1 to its fixed point. That start depends on the features'
    scale, may lead to the lower one of several optima, and to none where there is none (the second paper's
    condition). Here t is bracketed by the best of a grid over many decades and bisected to the fixed point,
    so the value is the largest evidence. Where features say nothing of a class it is that of pure noise (t
    without bound). Where a class is an exact linear function of fewer features than images the evidence has
    no bound: t is held at 1e-9 of the largest eigenvalue of :math:`X X^T`. With features enough to span every
    target (often where d > n) the optimum may be t = 0; t then goes down to 1e-12 of it.

    Args:
        features: ``(n, d)``, any real type; neither centred nor scaled beforehand. Rotations and a common
            factor change nothing; a shift does, since there is no bias.
        labels: ``(n,)`` whole numbers or strings. A class with one image is a target like others.

    Returns:
        Nats per image, without bound on either side; larger is better. Only comparable for one task and one
        choice of images.

    Raises:
        LabelError: Labels of a single class, or none at all.
        SettingsError: Features of another shape.
        ProbeOutputError: Features that are not finite.

    References:
        You et al., "LogME: Practical Assessment of Pre-trained Models for Transfer Learning", ICML 2021.
        You et al., "Ranking and Tuning Pre-trained Models", JMLR 2022 (convergence).
    """
    x, classes = checked_pair(features, labels, what="features")
    spectrum = Spectrum.of(x)
    squares = np.square(spectrum.coordinates(classes.one_hot))
    return float(_evidences(spectrum.values, squares, classes.counts.astype(np.float64), len(x)).mean())


def _evidences(values: Array, squares: Array, totals: Array, n: int) -> Array:
    """Largest evidence per image for each target, ``(n_targets,)``.

    Args:
        values: ``(rank,)``, eigenvalues > 0.
        squares: ``(rank, n_targets)``, squared coordinates of the targets.
        totals: ``(n_targets,)``, squared norms of the targets.
        n: How many images.
    """
    noise: Array = -(np.log(2 * np.pi) + 1 + np.log(totals / n)) / 2  # t without bound
    if len(values) == 0:
        return noise
    values = values / values.max()  # any factor cancels
    outside = totals - squares.sum(axis=0)
    outside[(outside <= _PERFECT * totals) | (len(values) == n)] = 0.0

    smallest = _SMALLEST if len(values) == n else _SMALLEST_WITHIN
    steps = (_LARGEST - smallest) * _PER_DECADE + 1
    grid = np.linspace(smallest, _LARGEST, steps) * np.log(10.0)
    t = np.exp(grid)
    q = (1 / (t[:, None] + values)) @ squares + outside / t[:, None]  # (steps, n_targets)
    determinants = np.log(t[:, None] + values).sum(axis=1) + (n - len(values)) * grid
    on_grid = _per_image(q, determinants[:, None], n)
    best = on_grid.argmax(axis=0)
    low, high = grid[np.maximum(best - 1, 0)], grid[np.minimum(best + 1, steps - 1)]
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        rises = _rises(np.exp(middle), values, squares, outside, n)
        low, high = np.where(rises, middle, low), np.where(rises, high, middle)
    t = np.exp((low + high) / 2)
    q = (squares / (t + values[:, None])).sum(axis=0) + outside / t
    determinants = np.log(t + values[:, None]).sum(axis=0) + (n - len(values)) * np.log(t)
    result: Array = np.maximum(np.maximum(_per_image(q, determinants, n), on_grid.max(axis=0)), noise)
    return result


def _per_image(q: Array, determinants: Array, n: int) -> Array:
    result: Array = -(np.log(2 * np.pi) + 1 + np.log(q / n) + determinants / n) / 2
    return result


def _rises(t: Array, values: Array, squares: Array, outside: Array, n: int) -> NDArray[np.bool_]:
    """Whether the fixed-point map takes t upwards, which is where the evidence rises, ``(n_targets,)``."""
    inverse = 1 / (t + values[:, None])  # (rank, n_targets)
    shrunk = squares * inverse
    free = n - (values[:, None] * inverse).sum(axis=0)  # n - gamma
    residual = t * t * (shrunk * inverse).sum(axis=0) + outside
    weight = (shrunk * inverse * values[:, None]).sum(axis=0)
    # alpha = gamma / weight and beta = free / residual, so the map is t -> gamma residual / (free weight)
    result: NDArray[np.bool_] = (n - free) * residual > t * free * weight
    return result
