"""H-score and TransRate: how far the classes lie apart, against how far they spread."""

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from t2v_hub.errors import SettingsError
from t2v_hub.scores.features import Spectrum, centred, checked_pair

Array = NDArray[np.float64]
Shrinkage = Literal["ledoit_wolf"]


def h_score(features: ArrayLike, labels: ArrayLike, *, shrinkage: Shrinkage | float = "ledoit_wolf") -> float:
    r"""Variance of the class means in the metric of the features' covariance.

    .. math:: \mathrm{tr}\Bigl( \Sigma_a^{-1} (1 - a)\, \Sigma_z \Bigr), \qquad
        \Sigma_a = (1 - a) \Sigma + a \tfrac{\mathrm{tr} \Sigma}{d} I

    with :math:`\Sigma` the features' covariance and :math:`\Sigma_z` that of the class means, each mean
    counted once for every image. The plain score (a = 0) is ill-posed for fewer images than features: for
    ``n - 1 <= d`` points in general position it is ``n_classes - 1`` whatever the features are.

    Args:
        features: ``(n, d)``, any real type. A shift, a common factor and rotations change nothing; any other
            invertible map does, unless the shrinkage is 0.
        labels: ``(n,)`` whole numbers or strings. The one image of a class is its mean: without shrinkage
            it seems perfectly separated.
        shrinkage: a, in [0, 1); or ``"ledoit_wolf"``, estimated from the features; 0 is the score of Bao et
            al., with the pseudo-inverse where the covariance has none.

    Returns:
        A number in ``[0, min(n_classes - 1, d)]``; larger is better. 0 for constant features.

    Raises:
        LabelError: Labels of a single class, or none at all.
        SettingsError: Features of another shape, or no such shrinkage.
        ProbeOutputError: Features that are not finite.

    References:
        Bao et al., "An Information-Theoretic Approach to Transferability in Task Transfer Learning", ICIP
        2019.
        Ibrahim et al., "Newer is not always better: Rethinking transferability metrics, their
        peculiarities, stability and performance", 2021. Ledoit and Wolf, "A well-conditioned estimator for
        large-dimensional covariance matrices", 2004.
    """
    x, classes = checked_pair(features, labels, what="features")
    if isinstance(shrinkage, str | bool):
        sound = shrinkage == "ledoit_wolf"
    else:
        sound = isinstance(shrinkage, int | float | np.floating) and 0 <= shrinkage < 1
    if not sound:
        raise SettingsError(f"The shrinkage must be 'ledoit_wolf' or in [0, 1), not {shrinkage!r}.")
    spectrum = Spectrum.of(centred(x))
    if len(spectrum.values) == 0:
        return 0.0
    n, d = x.shape
    variances = spectrum.values / n
    share = _ledoit_wolf(spectrum, variances) if isinstance(shrinkage, str) else float(shrinkage)
    # The mean of class k is sqrt(lambda_i) z_ik / n_k along eigenvector i, and counts n_k / n.
    between = np.square(spectrum.coordinates(classes.one_hot)) @ (1 / classes.counts)
    shrunk = (1 - share) * variances + share * variances.sum() / d
    return float(((1 - share) * variances * between / shrunk).sum())


def _ledoit_wolf(spectrum: Spectrum, variances: Array) -> float:
    """Weight of the spherical covariance that minimises the expected squared error, in [0, 1]."""
    n, d = spectrum.x.shape
    squares = np.square(variances).sum()
    distance = squares - variances.sum() ** 2 / d  # of the covariance from a sphere, squared
    fourth = np.square(np.square(spectrum.x).sum(axis=1)).sum() / n
    error = (fourth - squares) / n  # of the covariance, squared
    return float(min(max(error / distance, 0.0), 1.0)) if distance > 1e-14 * squares else 1.0


def transrate(
    features: ArrayLike, labels: ArrayLike, *, eps: float = 1e-4, unit_trace: bool = False
) -> float:
    r"""Coding rate of all features less the mean coding rate within classes.

    .. math:: R(Z) - \sum_k \frac{n_k}{n} R(Z_k), \qquad
        R(Z) = \tfrac12 \log\det\Bigl( I + \frac{1}{m \epsilon} Z^T Z \Bigr)

    for m rows Z; all rows are centred together, not within classes. The paper's listing weighs classes
    alike, which is the same for classes of one size; shares are what mutual information asks for, and with
    them the score is never negative. As in the listing, eps divides once, unsquared.

    Args:
        features: ``(n, d)``, any real type. A shift and rotations change nothing; a factor does, as
            much as one of eps, so features of checkpoints of different scales hardly compare.
        labels: ``(n,)`` whole numbers or strings. A class with one image counts with the rate of that image.
        eps: Squared distortion that is let pass, > 0, in units of the squared features.
        unit_trace: Whether features are first divided by their root sum of squares (before centring), as in
            the authors' code for comparing checkpoints. The score is then free of scale.

    Returns:
        Nats, at least 0; larger is better. 0 for constant features.

    Raises:
        LabelError: Labels of a single class, or none at all.
        SettingsError: Features of another shape, or eps not above 0.
        ProbeOutputError: Features that are not finite.

    References:
        Huang et al., "Frustratingly Easy Transferability Estimation", ICML 2022.
    """
    x, classes = checked_pair(features, labels, what="features")
    if not (isinstance(eps, int | float | np.floating) and np.isfinite(eps) and eps > 0):
        raise SettingsError(f"TransRate's eps must be a finite number > 0, not {eps!r}.")
    if unit_trace and np.abs(x).max() > 0:
        x /= np.abs(x).max()
        x /= np.sqrt(np.square(x).sum())
    x = centred(x)
    within = sum(
        count / len(x) * _coding_rate(x[classes.codes == code], eps)
        for code, count in enumerate(classes.counts)
    )
    return max(float(_coding_rate(x, eps) - within), 0.0)


def _coding_rate(x: Array, eps: float) -> float:
    """Half the log-determinant, by the eigenvalues that both Gram matrices share.

    Not by elimination: beside large features the 1 on the diagonal would be rounded away.
    """
    n, d = x.shape
    values = np.linalg.eigvalsh(x.T @ x if n >= d else x @ x.T)
    values = values[values > np.finfo(np.float64).eps * max(n, d) * max(values[-1], 0.0)]
    return float(np.log1p(values / (n * eps)).sum()) / 2
