"""`Costs`: how many candidates a row loads for a target, and how long it takes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.selection.policies import by_index
from benchmarks.selection.pool import Array, Measured
from t2v_hub.judging.rows import Cost

FREE = Cost(0, 0.0)
"""Of what is known before the target is looked at; what it was learned from is not counted."""


@dataclass(frozen=True)
class Costs:
    """Costs of rows on what was measured, means over targets and splits.

    Seconds are as measured, by default with one thread, without downloads. Features count for all of a target's images, as they
    were read, though a split trains on a part of them. What was not measured is NaN.

    Attributes:
        measured: What was measured.
    """

    measured: Measured

    @property
    def embedding(self) -> float:
        """Seconds of embedding a split's training images."""
        found = self.measured.embedding_seconds
        return float("nan") if found is None or np.isnan(found).all() else float(np.nanmean(found))

    def first_stage(self, *, embeds: bool) -> Cost:
        """Of a row that loads none."""
        return Cost(0, self.embedding) if embeds else FREE

    def shortlist(self, order: Array, k: int, scores: Sequence[str], *, embeds: bool) -> Cost:
        """Of scoring the first k of an order, ``(n_tasks, n_candidates, n_splits)``, by some scores."""
        return self._of((by_index(order) < k).astype(np.float64), k, scores, embeds=embeds)

    def at_random(self, k: int, score: str) -> Cost:
        """Of scoring any k, the expectation."""
        available = self.measured.truth.available.astype(np.float64)
        n = available.sum(axis=1, keepdims=True)
        return self._of((available * np.minimum(k / n, 1.0))[:, :, None], k, [score], embeds=False)

    def everything(self, scores: Sequence[str], *, embeds: bool = False) -> Cost:
        """Of scoring all that are not left out."""
        available = self.measured.truth.available.astype(np.float64)
        return self._of(available[:, :, None], available.shape[1], scores, embeds=embeds)

    def _of(self, shares: Array, loaded: int, scores: Sequence[str], *, embeds: bool) -> Cost:
        """Where each candidate is loaded with such a probability."""
        unknown = np.full(self.measured.seconds.shape, np.nan)
        each = self.measured.seconds + sum(self.measured.score_seconds.get(name, unknown) for name in scores)
        seconds = np.where(shares > 0, shares * each[:, :, None], 0.0).sum(axis=1).mean()
        return Cost(loaded, float(seconds) + (self.embedding if embeds else 0.0))
