r"""Logistic regression, cross-validated: what a softmax classifier says of images that it did not see.

For every fold the classifier minimises :math:`\sum_i s_i \ell_i + \tfrac{p}{2} |W|^2` over the other images,
with cross-entropies :math:`\ell_i` and shares :math:`s_i` of sum 1, the bias being the weight of one more
feature of value 1. Its weights are sums of training images (the representer theorem), so that one Gram matrix
serves all folds, and all are fitted side by side by accelerated gradient steps.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from t2v_hub.scores.features import centred, checked_pair
from t2v_hub.scores.labels import Classes

Array = NDArray[np.float64]

PENALTY = 0.01
"""Of the squared weights, features having a mean squared norm of 1."""

N_FOLDS = 5
SHARPEST = 16.0
"""The largest factor of the logits: where no image is missed, the best would be infinite."""

_BYTES = 64 << 20  # for the coefficients of folds that are fitted side by side
_STEPS = 2000
_NEAR = 1e-6  # of the gradient, image by image, of those that count 1


def logistic_loss(features: ArrayLike, labels: ArrayLike, *, balanced: bool = False) -> float:
    """Mean cross-entropy of a softmax classifier on images that it did not see; **smaller is better**.

    Five folds, each with its share of every class; the same for all features of the same labels. The penalty
    is one for all checkpoints; as it makes predictions timid, the logits are multiplied by the one number
    of at most 16 that suits them best.

    Args:
        features: As in `t2v_hub.scores.ridge_accuracy`: shifts, a common factor and rotations change nothing.
        labels: ``(n,)`` whole numbers or strings; what they are called does not matter, the order of the
            images does, as folds go by it. The one image of a class is predicted by a classifier that never
            saw its class.
        balanced: Whether every class counts the same, in the fits and in the mean, instead of every image.

    Returns:
        A number >= 0 in nats; about the entropy of the labels where the features say nothing.

    Raises:
        LabelError: Labels of a single class, or none at all.
        SettingsError: Features of another shape.
        ProbeOutputError: Features that are not finite.

    References:
        Guo et al., "On calibration of modern neural networks", ICML 2017 (the factor). Nesterov,
        "Introductory lectures on convex optimization", 2004, section 2.2 (the steps).
    """
    x, classes = checked_pair(features, labels, what="features")
    n = len(x)
    share = np.full(n, 1 / n)
    if balanced:
        share = 1 / (classes.n_classes * classes.counts[classes.codes])
    return _calibrated(_held_out(_scaled(x, share), classes, share), classes, share)


def _scaled(x: Array, share: Array) -> Array:
    """Centred, and of mean squared norm 1; 0 where all are equal."""
    x = centred(x, share)
    largest = float(np.abs(x).max())
    if largest > 0:
        x /= largest  # no square overflows or vanishes
        x /= np.sqrt(share @ np.square(x).sum(axis=1))
    return x


def fold_numbers(classes: Classes) -> NDArray[np.int64]:
    """The fold of each image: mixed, then class by class in turns, which go on from one class to the next.

    Classes come as they first occur, whatever they are called.
    """
    mixed = np.random.default_rng(0).permutation(len(classes))
    _, first, codes = np.unique(classes.codes[mixed], return_index=True, return_inverse=True)
    ordered = mixed[np.argsort(first[codes], kind="stable")]
    result = np.empty(len(classes), np.int64)
    result[ordered] = np.arange(len(classes)) % N_FOLDS
    return result


def _held_out(x: Array, classes: Classes, share: Array) -> Array:
    """Logits of each image, ``(n, n_classes)``, by the classifier of the other folds."""
    gram = x @ x.T + 1.0
    folds = fold_numbers(classes)
    result = np.zeros((len(x), classes.n_classes))
    step = max(1, _BYTES // (8 * result.size))
    for start in range(0, N_FOLDS, step):
        part = [fold for fold in range(start, min(start + step, N_FOLDS)) if (folds == fold).any()]
        weights = np.stack([np.where(folds == fold, 0.0, share) for fold in part], axis=1)
        weights /= weights.sum(axis=0)
        logits = _fitted(gram, classes.one_hot, weights)
        for place, fold in enumerate(part):
            result[folds == fold] = logits[folds == fold, place]
    return result


def _fitted(gram: Array, one_hot: Array, weights: Array) -> Array:
    """Logits ``(n, n_fits, n_classes)`` of classifiers that see images with weights ``(n, n_fits)``."""
    n, n_fits = weights.shape
    shape = n, n_fits, one_hot.shape[1]
    weight, targets = weights[:, :, None], one_hot[:, None, :]
    # No eigenvalue of the cross-entropy's Hessian exceeds half of the largest one of the weighted Gram
    # matrix, nor that the norm of all its entries.
    largest = max(float(np.linalg.norm(np.sqrt(np.outer(own, own)) * gram)) for own in weights.T)
    length = 1 / (0.5 * largest + PENALTY)
    momentum = (1 - np.sqrt(PENALTY * length)) / (1 + np.sqrt(PENALTY * length))
    coefficients = before = np.zeros(shape)
    for k in range(_STEPS):
        ahead = coefficients + momentum * (coefficients - before)
        gradient = (gram @ ahead.reshape(n, -1)).reshape(shape)
        gradient -= gradient.max(axis=2, keepdims=True)
        np.exp(gradient, out=gradient)
        gradient /= gradient.sum(axis=2, keepdims=True)
        gradient -= targets
        gradient *= weight
        gradient += PENALTY * ahead
        before, coefficients = coefficients, ahead - length * gradient
        if k % 10 == 9 and float(np.abs(gradient).max()) * n < _NEAR:
            break
    result: Array = (gram @ coefficients.reshape(n, -1)).reshape(shape)
    return result


def _calibrated(logits: Array, classes: Classes, share: Array) -> float:
    """Mean cross-entropy of the logits times the best factor up to `SHARPEST`; convex in the factor."""
    own = logits[np.arange(len(logits)), classes.codes]
    gaps = logits - own[:, None]

    def slope_and_loss(factor: float) -> tuple[float, float]:
        scaled = factor * gaps
        top = scaled.max(axis=1, keepdims=True)
        p = np.exp(scaled - top)
        total = p.sum(axis=1)
        loss = share @ (top[:, 0] + np.log(total))
        return float(share @ ((p * gaps).sum(axis=1) / total)), float(loss)

    low, high = 0.0, SHARPEST
    if slope_and_loss(high)[0] <= 0:
        return slope_and_loss(high)[1]
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if slope_and_loss(middle)[0] < 0 else (low, middle)
    return slope_and_loss((low + high) / 2)[1]
