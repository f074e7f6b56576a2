"""The k-nearest-neighbour score: each image classified by the others."""

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from t2v_hub.errors import SettingsError
from t2v_hub.scores.features import centred, checked_pair

Array = NDArray[np.float64]
Metric = Literal["cosine", "euclidean"]

_BLOCK = 1 << 22  # distances held at once: 32 MiB
_TIE = 1e-12  # squared distances this near, relative to the squared norms, are equal but for rounding


def knn_accuracy(features: ArrayLike, labels: ArrayLike, *, k: int = 5, metric: Metric = "cosine") -> float:
    """Share of images whose k nearest others vote for their class (leave one out).

    Among classes of equally many votes the one with the nearest image wins. Others as far as the k-th vote
    too, and an image whose own class shares the victory with m - 1 classes at the same distance counts 1/m;
    so the order of the images decides nothing, even among duplicates.

    Args:
        features: ``(n, d)``, any real type. A common factor and rotations change nothing; a shift does
            for ``cosine``.
        labels: ``(n,)`` whole numbers or strings. The one image of a class is always missed.
        k: How many neighbours, at least 1; all others where there are not so many. 5 is a compromise: few
            enough for 5 images a class, enough to outvote a mislabelled one.
        metric: ``cosine`` (a row of zeros is at distance 1 from all) or ``euclidean``.

    Returns:
        A number in ``[0, 1]``; larger is better.

    Raises:
        LabelError: Labels of a single class, or none at all.
        SettingsError: Features of another shape, no such metric, or no such k.
        ProbeOutputError: Features that are not finite.

    References:
        Cover and Hart, "Nearest neighbor pattern classification", 1967.
    """
    x, classes = checked_pair(features, labels, what="features")
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
        raise SettingsError(f"The number of neighbours k must be a whole number >= 1, not {k!r}.")
    if metric not in ("cosine", "euclidean"):
        raise SettingsError(f"The metric must be 'cosine' or 'euclidean', not {metric!r}.")
    x = _normalised(x) if metric == "cosine" else _of_unit_size(centred(x))
    n = len(x)
    k = min(int(k), n - 1)
    one_hot = classes.one_hot
    norms = np.square(x).sum(axis=1) if metric == "euclidean" else np.ones(n)
    step = max(1, _BLOCK // n)
    hits = 0.0
    for start in range(0, n, step):
        rows = np.arange(start, min(start + step, n))
        distances = norms[rows, None] + norms - 2 * (x[rows] @ x.T)  # squared; (len(rows), n)
        distances[np.arange(len(rows)), rows] = np.inf
        slack = _TIE * (norms[rows] + norms.max())
        votes = distances <= (np.partition(distances, k - 1, axis=1)[:, k - 1] + slack)[:, None]
        counts = votes @ one_hot  # (len(rows), n_classes)
        winners = counts == counts.max(axis=1, keepdims=True)
        own = classes.codes[rows]
        hits += float((winners[np.arange(len(rows)), own] & (winners.sum(axis=1) == 1)).sum())
        for i in np.flatnonzero(winners[np.arange(len(rows)), own] & (winners.sum(axis=1) > 1)):
            nearest = np.full(classes.n_classes, np.inf)
            voters = np.flatnonzero(votes[i])
            np.minimum.at(nearest, classes.codes[voters], distances[i, voters])
            nearest[~winners[i]] = np.inf
            first = nearest <= nearest.min() + slack[i]
            hits += float(first[own[i]]) / first.sum()
    return hits / n


def _of_unit_size(x: Array) -> Array:
    largest = np.abs(x).max()
    result: Array = x / largest if largest > 0 else x
    return result


def _normalised(x: Array) -> Array:
    """Rows of norm 1, or 0."""
    largest = np.abs(x).max(axis=1, keepdims=True)
    x = np.divide(x, largest, out=np.zeros_like(x), where=largest > 0)
    norms = np.sqrt(np.square(x).sum(axis=1, keepdims=True))
    result: Array = np.divide(x, norms, out=np.zeros_like(x), where=norms > 0)
    return result
