"""Which directions to differentiate along: the label's distribution in feature space.

With a linear head, ``d log p(y|x) / d features = W^T s`` with the score ``s = d log p / d logits``.
The Fisher information of the backbone is the mean over labels of the squared derivative along it. A drawn
label estimates that mean best when likely labels are not drawn for their likelihood alone, but for what they
contribute: an unlikely one has a long direction, and squares grow with the length's square. So labels are
drawn from `proposal` and weighted by the quotient of both probabilities, which leaves the mean as it is
(importance sampling).
"""

from collections.abc import Iterator
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Estimator = Literal["monte_carlo", "exact", "empirical"]
Array = NDArray[np.float64]


# What of the proposal is the model's own probability, so that no label is rare which a replicate's head
# finds likely.
_OWN_SHARE = 0.1


def proposal(weight: Array, probabilities: Array) -> Array:
    """From which to draw labels, ``(n, n_classes)``: nine parts ``p |direction|²``, one part ``p``.

    Args:
        weight: The head's, ``(n_classes, n_features)``.
        probabilities: The head's, ``(n, n_classes)``.
    """
    # |(e_y - p) W|² = K_yy - 2 (p K)_y + p K p with K = W W^T
    gram = weight @ weight.T
    mixed = probabilities @ gram
    lengths = np.diag(gram) - 2 * mixed + (mixed * probabilities).sum(axis=1, keepdims=True)
    shares = probabilities * np.maximum(lengths, 0)
    total = shares.sum(axis=1, keepdims=True)
    shares = np.divide(shares, total, out=probabilities.copy(), where=total > 0)
    result: Array = (1 - _OWN_SHARE) * shares + _OWN_SHARE * probabilities
    return result


def draw_labels(probabilities: Array, n_labels: int, *, seed: int, multi_label: bool) -> NDArray[np.int64]:
    """Drawn labels, ``(n, n_labels)`` codes or ``(n, n_labels, n_classes)`` zeros and ones.

    Image i's labels depend on the seed, on i and on its own probabilities only.

    Args:
        probabilities: Of each label to be drawn, ``(n, n_classes)``.
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
