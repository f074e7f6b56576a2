r"""LEEP and NCE: what a checkpoint's predictions over its own classes say of the task's labels.

Both need the classifier that the checkpoint was trained with. Neither sees more of an image than that
classifier's answer.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from t2v_hub.errors import SettingsError
from t2v_hub.scores.features import checked_matrix, checked_pair
from t2v_hub.scores.labels import Classes, coded

Array = NDArray[np.float64]

_SUM = 1e-2  # float16 probabilities of thousands of classes sum to 1 no better
_BLOCK = 1 << 22  # values worked on at once: 32 MiB


def leep(predictions: ArrayLike, labels: ArrayLike) -> float:
    r"""Mean log-likelihood of the labels under the empirical predictor built on source probabilities.

    .. math:: \frac1n \sum_i \log \sum_z \hat P(y_i \mid z)\, \theta(x_i)_z, \qquad
        \hat P(y, z) = \frac1n \sum_{i: y_i = y} \theta(x_i)_z

    Args:
        predictions: ``(n, k)``, probabilities of the checkpoint's k own classes. Rows are divided by their
            sums, which may miss 1 by 0.01 (float16). A class of probability 0 everywhere counts nothing.
        labels: ``(n,)`` whole numbers or strings. A class with one image raises the score, since its image
            helped to estimate its own probability.

    Returns:
        Nats per image, at most 0; larger is better, ``-H(labels)`` at least. Equal to `nce` where all
        predictions are certain.

    Raises:
        LabelError: Labels of a single class, or none at all.
        SettingsError: Predictions of another shape, or no probabilities.
        ProbeOutputError: Predictions that are not finite.

    References:
        Nguyen et al., "LEEP: A New Measure to Evaluate Transferability of Learned Representations", ICML
        2020.
    """
    theta, classes = checked_pair(predictions, labels, what="predictions")
    sums = theta.sum(axis=1)
    if theta.min() < 0 or np.abs(sums - 1).max() > _SUM:
        raise SettingsError(
            "Predictions must be probabilities: none negative, each row of sum 1. These start at "
            f"{theta.min():.3g}, and rows sum to {sums.min():.3g} up to {sums.max():.3g}. "
            "Apply softmax to logits first."
        )
    theta /= sums[:, None]
    joint = classes.one_hot.T @ theta  # (n_classes, k)
    source = joint.sum(axis=0)
    conditional = np.divide(joint, source, out=np.zeros_like(joint), where=source > 0)
    step = max(1, _BLOCK // theta.shape[1])
    total = 0.0
    for start in range(0, len(theta), step):
        part = slice(start, start + step)
        likelihoods = np.einsum("iz,iz->i", conditional[classes.codes[part]], theta[part])
        total += float(np.log(likelihoods).sum())
    return total / len(theta)


def nce(source: ArrayLike, labels: ArrayLike) -> float:
    r"""Negative conditional entropy of the labels given the source classes, :math:`-H(Y \mid Z)`.

    Args:
        source: ``(n,)``, each image's class in the checkpoint's own words, whole numbers or strings; or
            ``(n, k)``, the checkpoint's probabilities or logits, of which the largest (of equal ones the
            first) says the class.
        labels: ``(n,)`` whole numbers or strings. A class with one image raises the score where that image
            is alone in its source class.

    Returns:
        Nats, between ``-H(labels)`` (source classes say nothing) and 0 (they say all); larger is better.

    Raises:
        LabelError: Labels of a single class, or none at all.
        SettingsError: Predictions of another shape, or not one per label.
        ProbeOutputError: Predictions that are not finite.

    References:
        Tran et al., "Transferability and Hardness of Supervised Classification Tasks", ICCV 2019.
    """
    classes = Classes.of(labels)
    given = np.asarray(source)
    if given.ndim == 1:
        if len(given) != len(classes):
            raise SettingsError(
                f"There are {len(given)} source classes and {len(classes)} labels; one each is wanted."
            )
        codes, counts = coded(given, what="source classes")
    else:
        best = checked_matrix(given, len(classes), what="predictions").argmax(axis=1)
        codes, counts = coded(best, what="source classes")
    pairs, n_pairs = np.unique(codes * classes.n_classes + classes.codes, return_counts=True)
    logs = np.log(n_pairs / counts[pairs // classes.n_classes])
    return float((n_pairs * logs).sum() / len(classes))
