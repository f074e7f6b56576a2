r"""Biases of model vectors, learned from measured errors.

A candidate i sits at :math:`m_i = p_i \exp(b_i)`, with ``p_i`` the precisions of the task that it was trained
on. The paper adds its bias to the embedding; a factor is the same family of vectors, keeps them positive, and
one penalty suits filters whose precisions differ by powers of ten. Beside it stands an offset, for what a
candidate is worth on any task. They minimise

.. math:: \frac{1}{n}\sum_t \mathrm{CE}\bigl(q_t, \mathrm{softmax}_i(-d(m_i \to t)/T - \gamma_i)\bigr)
   + \frac{\lambda}{2}\sum_i \bigl(\gamma_i^2 + |b_i|^2 \sigma^2 / T^2\bigr)

with :math:`q_{ti} \propto \exp(-e_{ti}/\tau)` over the candidates that were measured on t. ``σ`` is the
typical length of the distance's slope by ``b``, so that offsets and biases are penalised in one unit: what
they contribute to the softmax's logits.

A bias per filter has a hundred times more numbers than there are errors. The penalty leaves it in the span
of the slopes towards the tasks at hand, one direction per task, and of these mostly in the few that tasks
differ by. On left-out tasks of real images this did no worse than fewer numbers (``layer``, ``offset``).
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from t2v_hub.model2vec.geometry import distances_and_slopes, distances_to
from t2v_hub.model2vec.straight import Straight, cross_entropy

Array = NDArray[np.float64]
Bias = Literal["filter", "layer", "offset"]
"""What is learned of a candidate beside its offset: a bias per filter, per layer, or none."""

_ROUNDS = 12
_HALVINGS = 6
_TOLERANCE = 1e-4  # of the loss, relative; below what left-out tasks can tell


@dataclass(frozen=True)
class Learning:
    """What is to be learned from.

    Attributes:
        base: Model vectors without a bias, ``(n_candidates, n_filters)``.
        level: Added to each candidate's distances, ``(n_candidates,)``.
        targets: Precisions of the tasks, ``(n_tasks, n_filters)``.
        trivial: The trivial embedding, ``(n_filters,)``.
        wanted: The soft targets, ``(n_candidates, n_tasks)``; NaN where not measured.
        edges: First filter of each group of filters that share a bias, ``(n_groups,)``.
        alpha: Weight of the complexity term.
    """

    base: Array
    level: Array
    targets: Array
    trivial: Array
    wanted: Array
    edges: NDArray[np.int64]
    alpha: float

    @property
    def no_bias(self) -> Array:
        """Zeros, ``(n_candidates, n_groups)``."""
        return np.zeros((len(self.base), len(self.edges)))

    def vectors(self, bias: Array) -> Array:
        """The model vectors with a bias ``(n_candidates, n_groups)``."""
        if not len(self.edges):
            return self.base
        sizes = np.diff([*self.edges, self.base.shape[1]])
        result: Array = self.base * np.exp(np.repeat(bias, sizes, axis=1))
        return result

    def distances(self, bias: Array) -> Array:
        """From each candidate to each task, ``(n_candidates, n_tasks)``."""
        rows = [distances_to(v, self.targets, self.trivial, self.alpha) for v in self.vectors(bias)]
        result: Array = np.stack(rows) + self.level[:, None]
        return result

    @cached_property
    def length(self) -> float:
        """The typical length of a slope without biases, ``σ``; 1 where there are none."""
        slopes = [self._slopes(vector)[1] for vector in self.base] if len(self.edges) else []
        return float(np.sqrt(np.mean([np.square(s).sum(axis=1) for s in slopes]))) if slopes else 1.0

    @cached_property
    def straight(self) -> Straight:
        """The problem with slopes as they are without biases."""
        return self.straight_at(self.no_bias)

    def straight_at(self, bias: Array) -> Straight:
        """The problem with slopes as they are at a bias ``(n_candidates, n_groups)``."""
        if not len(self.edges):
            none = np.zeros((*self.wanted.shape, 0))
            return Straight(self.distances(bias), none, self.wanted)
        plain, kernels = [], []
        for vector, own in zip(self.vectors(bias), bias, strict=True):
            distances, slopes = self._slopes(vector)
            plain.append(distances - slopes @ own)
            kernels.append(slopes @ slopes.T)
        values, vectors = np.linalg.eigh(np.stack(kernels) / self.length**2)
        # An eigenvalue's square root is the length of a direction; those of rounding errors are left out.
        kept = values > 1e-10 * values.max(axis=1, keepdims=True)
        directions = vectors * np.sqrt(np.where(kept, values, 0.0))[:, None, :]
        return Straight(np.stack(plain) + self.level[:, None], directions, self.wanted)

    def loss(self, offsets: Array, bias: Array, temperature: float, strength: float) -> float:
        """What is minimised; offsets are ``γ``, in units of logits."""
        logits = -self.distances(bias) / temperature - offsets[:, None]
        share = np.full((self.wanted.shape[1], 1), 1 / self.wanted.shape[1])
        entropy, _ = cross_entropy(logits[:, :, None], self.wanted, share)
        size = np.square(offsets).sum() + np.square(bias * (self.length / temperature)).sum()
        return float(entropy[0]) + 0.5 * strength * float(size)

    def solve(self, temperature: float, strength: float) -> tuple[Array, Array]:
        """Best offsets ``γ``, ``(n_candidates,)``, and biases ``(n_candidates, n_groups)``.

        Each round solves the problem with the slopes at the last round's biases, and goes there, or half the
        way, and so on, where that is no better. Where it ends, the loss has no slope.
        """
        bias, offsets = self.no_bias, np.zeros(len(self.base))
        if not np.isfinite(strength):
            return offsets, bias
        everything = np.ones((self.wanted.shape[1], 1))
        loss = self.loss(offsets, bias, temperature, strength)
        straight, found = self.straight, None
        for _ in range(_ROUNDS):
            found = straight.solve(everything, temperature, strength, start=found)
            aim = self._bias(straight, bias, found[:, 1:, 0], temperature)
            before = loss
            for step in 0.5 ** np.arange(_HALVINGS):
                there = offsets + step * (found[:, 0, 0] - offsets), bias + step * (aim - bias)
                there_loss = self.loss(*there, temperature, strength)
                if there_loss < loss:
                    (offsets, bias), loss = there, there_loss
                    break
            if before - loss <= _TOLERANCE * before or not len(self.edges):
                break
            straight, found = self.straight_at(bias), None
        return offsets, bias

    def _bias(self, straight: Straight, at: Array, coordinates: Array, temperature: float) -> Array:
        """The biases of these coordinates, which count along the slopes at another bias."""
        result = self.no_bias
        if not len(self.edges):
            return result
        for i, vector in enumerate(self.vectors(at)):
            directions = straight.directions[i]
            lengths = np.square(directions).sum(axis=0)  # their eigenvalues; the columns are orthogonal
            along = directions @ np.divide(
                coordinates[i], lengths, out=np.zeros(len(lengths)), where=lengths > 0
            )
            result[i] = temperature / self.length**2 * (along @ self._slopes(vector)[1])
        return result

    def _slopes(self, vector: Array) -> tuple[Array, Array]:
        """Distances ``(n_tasks,)`` from a model vector, and their slopes ``(n_tasks, n_groups)``."""
        distances, slopes = distances_and_slopes(vector, self.targets, self.trivial, self.alpha)
        if len(self.edges) < slopes.shape[1]:
            slopes = np.add.reduceat(slopes, self.edges, axis=1)
        return distances, slopes


def soft_targets(errors: Array, temperature: float) -> Array:
    """``softmax(-error/temperature)`` over the measured candidates, the last axis; NaN for the others."""
    measured = ~np.isnan(errors)
    result: Array = softmax(np.where(measured, -errors / temperature, -np.inf), axis=-1)
    return np.where(measured, result, np.nan)
