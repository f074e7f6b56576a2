"""Which directions to differentiate along: the label's distribution in feature space.

With a linear head, ``d log p(y|x) / d features = W^T s`` with the score ``s = d log p / d logits``.
The Fisher information of the backbone is the mean over labels of the squared derivative along it.
"""

from collections.abc import Iterator
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Estimator = Literal["monte_carlo", "exact", "empirical"]
Array = NDArray[np.float64]


def draw_labels(probabilities: Array, n_labels: int, *, seed: int, multi_label: bool) -> NDArray[np.int64]:
    """Labels drawn from the model, ``(n, n_labels)`` codes or ``(n, n_labels, n_classes)`` zeros and ones.

    Image i's labels depend on the seed, on i and on its own probabilities only.

    Args:
        probabilities: ``(n, n_classes)``.
        n_labels: How many labels per image.
        seed: What the draws hang on.
        multi_label: Whether each class is drawn by itself.
    """
    n, n_classes = probabilities.shape
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, 0x1ABE15])))
    if multi_label:
        uniform = generator.random((n, n_labels, n_classes))
        return (uniform < probabilities[:, None, :]).astype(np.int64)
    uniform = generator.random((n, n_labels))
    cumulative = np.cumsum(probabilities, axis=1)
    cumulative /= cumulative[:, -1:]
    codes = (uniform[:, :, None] >= cumulative[:, None, :]).sum(axis=2)
    drawn: NDArray[np.int64] = np.minimum(codes, n_classes - 1).astype(np.int64)
    return drawn


def directions(
    estimator: Estimator,
    weight: Array,
    probabilities: Array,
    labels: NDArray[np.int64],
    *,
    drawn_from: Array | None = None,
    multi_label: bool = False,
) -> Iterator[tuple[Array, Array]]:
    """Directions in feature space and their weights; the Fisher is the weighted sum of squares.

    Args:
        estimator: Which expectation over labels.
        weight: The head's, ``(n_classes, n_features)``.
        probabilities: The head's, ``(batch, n_classes)``.
        labels: Drawn labels as `draw_labels` gives them (``monte_carlo``), or the data's own with one
            label per image (``empirical``); not looked at by ``exact``.
        drawn_from: Probabilities that the labels were drawn from, where these are not
            ``probabilities``: the weights then are the quotients of both, which keeps the mean.
        multi_label: Whether classes are independent (sigmoid) instead of exclusive (softmax).

    Yields:
        ``(batch, n_features)`` and ``(batch,)``.
    """
    n_classes = weight.shape[0]
    if estimator == "exact":
        for code in range(n_classes):
            p = probabilities[:, code]
            if multi_label:  # sum over classes of p(1-p)(dz/dw)²
                yield np.broadcast_to(weight[code], (len(p), weight.shape[1])), p * (1 - p)
            else:
                score = -probabilities
                score[:, code] += 1
                yield score @ weight, p
        return
    n_labels = labels.shape[1]
    for column in range(n_labels):
        drawn = labels[:, column]
        hot = drawn.astype(np.float64) if multi_label else np.eye(n_classes)[drawn]
        importance = np.ones(len(drawn))
        if drawn_from is not None and estimator == "monte_carlo":
            ours, theirs = (_likelihood(p, hot, multi_label) for p in (probabilities, drawn_from))
            importance = np.divide(ours, theirs, out=importance, where=theirs > 0)
        yield (hot - probabilities) @ weight, importance / n_labels


def _likelihood(probabilities: Array, hot: Array, multi_label: bool) -> Array:
    chosen = np.where(hot > 0, probabilities, 1 - probabilities if multi_label else 1.0)
    result: Array = np.prod(chosen, axis=1)
    return result
