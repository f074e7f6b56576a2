r"""The ridge probe, leave-one-out: a linear classifier refitted without each image, in closed form.

The probe minimises :math:`\sum_i s_i |e_i - b - W x_i|^2 + p |W|^2` over W and b, with :math:`e_i` the
one-hot label and shares :math:`s_i` of sum 1. Without image i, the other shares and p as they are, its error
at image i is :math:`(e_i - \hat e_i) / (1 - h_i)`, with the prediction :math:`\hat e_i` and the leverage
:math:`h_i` of the probe that saw all images. This is exact; no probe is refitted.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from t2v_hub.scores.features import Spectrum, centred, checked_pair
from t2v_hub.scores.labels import Classes

Array = NDArray[np.float64]

PENALTIES: tuple[float, ...] = tuple(float(10.0 ** (k / 2)) for k in range(-14, 3))
"""Penalties among which the probe chooses, as parts of the features' total variance."""

_TIE = 1e-9  # predictions this near are equal but for rounding


@dataclass(frozen=True, eq=False)
class RidgeProbe:
    """What the leave-one-out ridge probe says of features.

    Attributes:
        loss: As by `ridge_loss`.
        outcomes: ``(n,)``, as by `ridge_outcomes`.
        share: ``(n,)`` of sum 1, what each image counts.
    """

    loss: float
    outcomes: Array
    share: Array

    @property
    def accuracy(self) -> float:
        """As by `ridge_accuracy`."""
        return min(float(self.share @ self.outcomes), 1.0)


def ridge_accuracy(features: ArrayLike, labels: ArrayLike, *, balanced: bool = False) -> float:
    """Share of images that the ridge probe classifies right when it was fitted without them.

    The penalty is that of `PENALTIES` with the smallest leave-one-out squared error; the same for all
    images, so that the accuracy is a little too good, by a choice among 17.

    Features that say nothing fall below chance, down to 0: without an image its class is rarer, so the other
    classes are predicted.

    Args:
        features: ``(n, d)``, any real type; centred, and divided by one common deviation in effect, as
            for our heads: the penalty is a part of the total variance. Shifts, a common factor and rotations
            change nothing.
        labels: ``(n,)`` whole numbers or strings. The one image of a class is always missed.
        balanced: Whether every class counts the same, in the fit, the choice and the result (then the mean
            recall), instead of every image. Shares are those of all images, in each refit.

    Returns:
        A number in ``[0, 1]``; larger is better. An image with m classes equally likely, its own among
        them, counts 1/m.

    Raises:
        LabelError: Labels of a single class, or none at all.
        SettingsError: Features of another shape.
        ProbeOutputError: Features that are not finite.

    References:
        Allen, "The relationship between variable selection and data augmentation and a method for
        prediction", 1974 (PRESS). Rifkin and Lippert, "Notes on regularized least squares", 2007.
    """
    return ridge_probe(features, labels, balanced=balanced).accuracy


def ridge_outcomes(features: ArrayLike, labels: ArrayLike, *, balanced: bool = False) -> Array:
    """Whether the ridge probe classifies each image right when it was fitted without that image.

    Outcomes of several checkpoints on the same images can be compared in pairs, which tells them apart much
    sooner than their accuracies do: what is hard for one is mostly hard for the other.

    Args:
        features: As in `ridge_accuracy`.
        labels: As in `ridge_accuracy`.
        balanced: As in `ridge_accuracy`.

    Returns:
        ``(n,)`` numbers in ``[0, 1]``: 1 for a hit, 0 for a miss, 1/m where m classes are equally likely and
        the image's own is among them. Their mean is `ridge_accuracy` (where ``balanced``, the mean over
        classes of each class's mean).

    Raises:
        LabelError: Labels of a single class, or none at all.
        SettingsError: Features of another shape.
        ProbeOutputError: Features that are not finite.

    References:
        As for `ridge_accuracy`.
    """
    return ridge_probe(features, labels, balanced=balanced).outcomes


def ridge_loss(features: ArrayLike, labels: ArrayLike, *, balanced: bool = False) -> float:
    """Mean squared leave-one-out error of the ridge probe's one-hot predictions; **smaller is better**.

    Tells apart what `ridge_accuracy`, in steps of 1/n, cannot.

    Args:
        features: As in `ridge_accuracy`.
        labels: As in `ridge_accuracy`.
        balanced: As in `ridge_accuracy`.

    Returns:
        A number >= 0: squares summed over classes and averaged over images. For n images of classes of
        equal size, about ``1 - 1/n_classes`` where the features say nothing.

    Raises:
        LabelError: Labels of a single class, or none at all.
        SettingsError: Features of another shape.
        ProbeOutputError: Features that are not finite.

    References:
        As for `ridge_accuracy`.
    """
    return ridge_probe(features, labels, balanced=balanced).loss


def ridge_probe(features: ArrayLike, labels: ArrayLike, *, balanced: bool = False) -> RidgeProbe:
    """Loss and outcomes of the ridge probe from one fit, under the penalty of smallest loss.

    Args:
        features: As in `ridge_accuracy`.
        labels: As in `ridge_accuracy`.
        balanced: As in `ridge_accuracy`.

    Raises:
        LabelError: Labels of a single class, or none at all.
        SettingsError: Features of another shape.
        ProbeOutputError: Features that are not finite.
    """
    x, classes = checked_pair(features, labels, what="features")
    n = len(x)
    share = 1 / (classes.n_classes * classes.counts[classes.codes]) if balanced else np.full(n, 1 / n)
    root = np.sqrt(share)[:, None]
    x = centred(x, share)
    x *= root
    spectrum = Spectrum.of(x)
    del x
    left, values = spectrum.left, spectrum.values
    one_hot = classes.one_hot
    targets = root * (one_hot - share @ one_hot)  # orthogonal to the mean, as the features are
    inner = left.T @ targets  # (rank, n_classes)
    # 1 - h is what lies outside mean and features, and what the penalty takes from the features.
    parts = np.asarray(PENALTIES) * max(values.sum(), 1e-300)
    kept = values[:, None] / (values[:, None] + parts)  # (rank, n_penalties)
    leverages = np.square(left) @ kept + share[:, None]  # (n, n_penalties)
    best: RidgeProbe | None = None
    for place in reversed(range(len(parts))):  # of equal penalties the largest
        residuals = (targets - left @ (kept[:, place, None] * inner)) / root
        residuals /= (1 - leverages[:, place])[:, None]
        loss = float(share @ np.square(residuals).sum(axis=1))
        if best is None or loss < best.loss * (1 - 1e-12):
            best = RidgeProbe(loss, _outcomes(one_hot - residuals, classes), share)
    assert best is not None
    return best


def _outcomes(predictions: Array, classes: Classes) -> Array:
    largest = predictions.max(axis=1, keepdims=True)
    first = predictions >= largest - _TIE
    own = first[np.arange(len(predictions)), classes.codes]
    result: Array = own / first.sum(axis=1)
    return result
