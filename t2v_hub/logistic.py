r"""Logistic regressions of few images, many at a time, by Newton's method.

scikit-learn fits one classifier per call, which for 25 images takes most of the time to begin and end. With
fewer images than features the optimum lies in the span of the images (the representer theorem), so the
weights are looked for there: :math:`W = \Theta Z`, with ``Z Z^T`` the images' Gram matrix, ``n + 1`` numbers
per class instead of thousands. Newton's method then takes some six steps.
"""

import contextlib
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

MAX_UNKNOWNS = 256
"""Classes times images up to which Newton's method is faster than scikit-learn's."""

_BYTES = 64 << 20  # for problems that are solved side by side
_STEPS = 60
_HALVINGS = 30
_GRADIENT = 1e-10  # of the mean cross-entropy by the coordinates, at most


def fit_many(
    x: Sequence[Array],
    codes: Sequence[NDArray[np.int64]],
    share: Sequence[Array],
    n_classes: int,
    strength: float,
) -> Iterator[tuple[Array, Array, bool]]:
    """As `fit_small` for any number of problems of one size, in parts that fit into memory."""
    n, d = x[0].shape
    each = 8 * (2 * (n_classes * (n + 1)) ** 2 + 3 * n * n + 3 * n * d)
    step = max(1, _BYTES // each)
    for start in range(0, len(x), step):
        part = slice(start, start + step)
        solutions = fit_small(
            np.stack(x[part]), np.stack(codes[part]), np.stack(share[part]), n_classes, strength
        )
        for weight, bias, solved in zip(*solutions, strict=True):
            yield weight, bias, bool(solved)


def fit_small(
    x: Array, codes: NDArray[np.int64], share: Array, n_classes: int, strength: float
) -> tuple[Array, Array, NDArray[np.bool_]]:
    r"""Minima of ``sum_i share_i · cross-entropy_i + strength/2 · |W|²`` over softmax classifiers.

    No problem hangs on the others, not by a bit.

    Args:
        x: Features of every problem's images, ``(n_problems, n, d)``.
        codes: Classes from 0, each of which occurs, ``(n_problems, n)``.
        share: What images count, ``(n_problems, n)``; the sum over a problem's images is 1.
        n_classes: How many classes.
        strength: Of the penalty, > 0; the bias has none.

    Returns:
        Weights ``(n_problems, n_classes, d)``, biases ``(n_problems, n_classes)`` of sum 0, and which
        problems were solved, ``(n_problems,)``: not those whose gradient never came near 0.
    """
    n_problems, n, _ = x.shape
    values, vectors = np.linalg.eigh(x @ x.transpose(0, 2, 1))
    alive = values > 1e-12 * np.maximum(values[:, -1:], 1e-300)
    # What is cut off as rounding must be little beside the penalty, or it might count.
    blurred = (np.where(alive, 0.0, values) > 1e-3 * strength).any(axis=1)
    root = np.sqrt(np.where(alive, values, 0.0))
    design = np.concatenate([vectors * root[:, None, :], np.ones((n_problems, n, 1))], axis=2)
    hot = np.eye(n_classes)[codes]
    penalty = np.append(np.full(n, strength), 0.0)

    theta = np.zeros((n_problems, n_classes, n + 1))
    solved = np.zeros(n_problems, dtype=bool)
    left = np.flatnonzero(~blurred)
    for _ in range(_STEPS):
        own = design[left], hot[left], share[left]
        p = _probabilities(design[left], theta[left])
        gradient = ((p - own[1]) * own[2][:, :, None]).transpose(0, 2, 1) @ own[0] + penalty * theta[left]
        near = np.abs(gradient).max(axis=(1, 2)) <= _GRADIENT
        solved[left[near]] = True
        if near.all():
            break
        left, p, gradient = left[~near], p[~near], gradient[~near]
        step = _newton_step(_hessian(design[left], p, share[left], penalty), gradient)
        regular = np.isfinite(step).all(axis=(1, 2))
        left, step, gradient = left[regular], step[regular], gradient[regular]
        theta[left] = _descended(design[left], hot[left], share[left], penalty, theta[left], step, gradient)
    # W = Theta · root^-1 · vectors^T · x
    inverse = np.divide(1.0, root, out=np.zeros_like(root), where=alive)
    weight = (theta[:, :, :n] * inverse[:, None, :]) @ vectors.transpose(0, 2, 1) @ x
    return weight, theta[:, :, n], solved


def _newton_step(hessian: Array, gradient: Array) -> Array:
    """The solutions; NaN where a Hessian is singular, which is no matter of the others."""
    columns = gradient.reshape(len(gradient), -1, 1)
    try:
        step: Array = np.asarray(np.linalg.solve(hessian, columns), np.float64)
    except np.linalg.LinAlgError:
        step = np.full(columns.shape, np.nan)
        for i in range(len(columns)):
            with contextlib.suppress(np.linalg.LinAlgError):
                step[i] = np.linalg.solve(hessian[i], columns[i])
    result: Array = step.reshape(gradient.shape)
    return result


def _logits(design: Array, theta: Array) -> Array:
    logits = design @ theta.transpose(0, 2, 1)
    result: Array = logits - logits.max(axis=2, keepdims=True)
    return result


def _probabilities(design: Array, theta: Array) -> Array:
    p = np.exp(_logits(design, theta))
    result: Array = p / p.sum(axis=2, keepdims=True)
    return result


def _loss(design: Array, hot: Array, share: Array, penalty: Array, theta: Array) -> Array:
    logits = _logits(design, theta)
    entropies = np.log(np.exp(logits).sum(axis=2)) - (logits * hot).sum(axis=2)
    result: Array = (share * entropies).sum(axis=1) + (penalty * np.square(theta)).sum(axis=(1, 2)) / 2
    return result


def _hessian(design: Array, p: Array, share: Array, penalty: Array) -> Array:
    """``(n_problems, unknowns, unknowns)``, by classes, then by coordinates."""
    n_problems, n, width = design.shape
    n_classes = p.shape[2]
    products = (p[:, :, :, None] * design[:, :, None, :]).reshape(n_problems, n, -1)
    hessian: Array = -products.transpose(0, 2, 1) @ (products * share[:, :, None])
    for code in range(n_classes):
        own = slice(code * width, (code + 1) * width)
        hessian[:, own, own] += design.transpose(0, 2, 1) @ (design * (share * p[:, :, code])[:, :, None])
    unknowns = np.arange(n_classes * width)
    hessian[:, unknowns, unknowns] += np.tile(penalty, n_classes)
    # What is added to all biases changes nothing; so that it has a definite place, and stays 0:
    biases = np.arange(n_classes) * width + width - 1
    hessian[:, biases[:, None], biases] += 1.0
    return hessian


def _descended(
    design: Array, hot: Array, share: Array, penalty: Array, theta: Array, step: Array, gradient: Array
) -> Array:
    """After Newton's step, halved until the loss falls as a step of that size should (Armijo)."""
    before = _loss(design, hot, share, penalty, theta)
    slope = (gradient * step).sum(axis=(1, 2))
    size = np.ones(len(theta))
    for _ in range(_HALVINGS):
        after = _loss(design, hot, share, penalty, theta - size[:, None, None] * step)
        # Near the optimum the loss is flat to the last bit.
        falls = after <= before - 1e-4 * size * slope + 1e-15 * np.abs(before)
        if falls.all():
            break
        size = np.where(falls, size, size / 2)
    result: Array = theta - size[:, None, None] * step
    return result
