"""Test error of a linear classifier on fixed features, for many splits at once."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

PENALTY = 1e-3
"""Of the squared weights, features having a mean squared norm of 1; 1e-2 and 1e-4 are worse on average."""

_STEPS = 300


def linear_errors(
    features: NDArray[np.floating],
    labels: NDArray[np.int64],
    trains: Sequence[NDArray[np.bool_]],
    *,
    penalty: float = PENALTY,
) -> NDArray[np.float64]:
    """Share of the other images that softmax regression gets wrong, ``(n_splits,)``.

    Features are centred and divided by one number, both of the training images alone. The weights are a
    sum of training images (the representer theorem), found by accelerated gradient steps in that metric;
    an image on the border of m classes, its own among them, counts 1 - 1/m.

    Args:
        features: ``(n, d)``.
        labels: ``(n,)`` from 0.
        trains: Which images each split trains on, ``(n,)`` each.
        penalty: Of the squared weights.
    """
    n_classes = int(labels.max()) + 1
    x_all = torch.from_numpy(np.asarray(features, np.float32))
    y_all = torch.nn.functional.one_hot(torch.from_numpy(labels), n_classes).float()
    errors = []
    for train in trains:
        rows = torch.from_numpy(train)
        x, y = x_all[rows], y_all[rows]
        mean = x.mean(dim=0)
        scale = (x - mean).square().sum(dim=1).mean().sqrt().clamp_min(1e-12)
        x, others = (x - mean) / scale, (x_all[~rows] - mean) / scale
        gram = x @ x.T + 1.0  # the bias, as one more feature
        solution = _solve(gram, y, penalty)
        logits = (others @ x.T + 1.0) @ solution
        first = logits >= logits.amax(dim=1, keepdim=True)
        own = (first & (y_all[~rows] > 0)).any(dim=1)
        errors.append(float((1 - own.float() / first.sum(dim=1)).mean()))
    return np.array(errors)


def _solve(gram: torch.Tensor, y: torch.Tensor, penalty: float) -> torch.Tensor:
    """Coefficients ``(n, n_classes)`` of the training images."""
    n = len(gram)
    largest = (
        float(torch.linalg.matrix_norm(gram, ord="fro")) / n
    )  # no smaller than the largest eigenvalue / n
    step = 1 / (0.5 * largest + penalty)
    momentum = (1 - (penalty * step) ** 0.5) / (1 + (penalty * step) ** 0.5)
    a = before = torch.zeros_like(y)
    for k in range(_STEPS):
        ahead = a + momentum * (a - before)
        gradient = (torch.softmax(gram @ ahead, dim=1) - y) / n + penalty * ahead
        before, a = a, ahead - step * gradient
        if k % 20 == 19 and float(gradient.abs().max()) * n < 1e-3:
            break
    return a
