"""The learning problem with straight slopes: convex, small, and any number of fits of it side by side.

Where distances move with biases along slopes that stay as they are, only the part of a bias that lies in the
span of its candidate's slopes matters: one coordinate per task, however many filters there are.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax

Array = NDArray[np.float64]

_STEPS = 300


@dataclass(frozen=True)
class Straight:
    """Distances ``plain + slopes · bias``.

    Attributes:
        plain: What the distances are by these slopes without biases, ``(n_candidates, n_tasks)``.
        directions: ``(n_candidates, n_tasks, n_coordinates)``; times a candidate's coordinates, what its bias
            adds to the logits. The coordinates are as long as the bias in the unit of the penalty.
        wanted: The soft targets, ``(n_candidates, n_tasks)``; NaN where not measured.
    """

    plain: Array
    directions: Array
    wanted: Array

    def logits(self, unknowns: Array, temperature: float) -> Array:
        """``(n_candidates, n_tasks, n_fits)``, of offsets and coordinates as `solve` returns them."""
        bias = self.directions @ unknowns[:, 1:]
        result: Array = -(self.plain / temperature)[:, :, None] - unknowns[:, :1] - bias
        return result

    def solve(
        self,
        counts: Array,
        temperature: float,
        strength: float,
        *,
        start: Array | None = None,
        tolerance: float = 1e-9,
    ) -> Array:
        """Best offsets and coordinates, ``(n_candidates, 1 + n_coordinates, n_fits)``.

        Args:
            counts: Which tasks count in which fit, 0 or 1, ``(n_tasks, n_fits)``.
            temperature: T.
            strength: λ, finite.
            start: Another solution, of a problem that is alike.
            tolerance: Relative decrease of all losses' sum that is small enough.
        """
        shape = (len(self.directions), 1 + self.directions.shape[2], counts.shape[1])
        share = counts / counts.sum(axis=0)
        back = self.directions.transpose(0, 2, 1)

        def function(flat: Array) -> tuple[float, Array]:
            unknowns = flat.reshape(shape)
            entropy, residual = cross_entropy(self.logits(unknowns, temperature), self.wanted, share)
            gradient = strength * unknowns
            gradient[:, 0] += residual.sum(axis=1)
            gradient[:, 1:] += back @ residual
            return float(entropy.sum()) + 0.5 * strength * float(np.square(flat).sum()), gradient.ravel()

        first = np.zeros(shape) if start is None else start
        options = {"maxiter": _STEPS, "ftol": tolerance, "gtol": 1e-7}
        found = minimize(function, first.ravel(), jac=True, method="L-BFGS-B", options=options)
        result: Array = found.x.reshape(shape)
        return result


def cross_entropy(logits: Array, wanted: Array, share: Array) -> tuple[Array, Array]:
    """Cross-entropy of each fit, ``(n_fits,)``, and minus its derivative by the logits.

    Args:
        logits: ``(n_candidates, n_tasks, n_fits)``.
        wanted: The soft targets, ``(n_candidates, n_tasks)``; NaN where not measured.
        share: What the tasks count, ``(n_tasks, n_fits)``.
    """
    measured = ~np.isnan(wanted)[:, :, None]
    target = np.where(measured, wanted[:, :, None], 0.0)
    logs = np.where(measured, log_softmax(np.where(measured, logits, -np.inf), axis=0), 0.0)
    residual = np.where(measured, target - np.exp(logs), 0.0) * share
    return -(target * logs * share).sum(axis=(0, 1)), residual
