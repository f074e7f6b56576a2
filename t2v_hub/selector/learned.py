"""Distances that `Model2Vec` learned, in the place of those from source tasks."""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from t2v_hub.catalog import Candidate, Matrices, Matrix
from t2v_hub.distance import recorded_standard_error, replicates
from t2v_hub.embedding import TaskEmbedding, jackknife_standard_error
from t2v_hub.model2vec import Model2Vec
from t2v_hub.model2vec.geometry import distances_to
from t2v_hub.model2vec.precisions import precisions, precisions_of
from t2v_hub.selector.comparison import Measured
from t2v_hub.selector.experience import NO_EXPERIENCE, Experience
from t2v_hub.selector.order import Nearest, Place, in_first_order, nearest


def nearest_learned(
    candidates: Iterable[Candidate],
    matrix: Matrix | Matrices,
    target: TaskEmbedding,
    fit: Model2Vec,
    *,
    experience: Experience = NO_EXPERIENCE,
) -> Nearest:
    """Where candidates stand by their learned distance, and the others by that of their nearest embedding.

    Both are on one scale. Candidates that the fit knows need no embedding.
    """
    found = nearest(candidates, matrix, target, name="relative", alpha=fit.alpha, experience=experience)
    known = set(fit.candidates)
    ids = [place.candidate.id for place in found.placed] + [candidate.id for candidate, _ in found.without]
    learned = dict.fromkeys(id for id in ids if id in known)
    values = dict(zip(learned, fit.distances(target, learned).tolist(), strict=True))
    placed = [
        replace(place, distance=values[place.candidate.id], is_learned=True)
        if place.candidate.id in known
        else place
        for place in found.placed
    ]
    placed += [
        Place(candidate, None, None, values[candidate.id], is_learned=True)
        for candidate, _ in found.without
        if candidate.id in known
    ]
    without = tuple(item for item in found.without if item[0].id not in known)
    return Nearest(in_first_order(placed, experience), without, found.skipped)


class LearnedDistances:
    """Learned distances to one target, with the target's share of their standard errors.

    How sure the fit itself is, is not known, and not in these errors.

    Args:
        fit: What was learned.
        target: The task at hand, of the fit's space.
    """

    def __init__(self, fit: Model2Vec, target: TaskEmbedding) -> None:
        self._fit = fit
        self._target = target
        self._precisions = precisions([target])
        self._places = {id: place for place, id in enumerate(fit.candidates)}
        self._moved: NDArray[np.float64] | None = None
        if target.deviations is not None:
            self._moved = precisions_of(replicates(target), like=target)

    def measure(self, id: str) -> Measured:
        """The learned distance of a candidate that the fit knows."""
        place, fit = self._places[id], self._fit
        vector, offset = fit.vectors[place], float(fit.offsets[place])
        value = float(distances_to(vector, self._precisions, fit.trivial, fit.alpha)[0]) + offset
        if self._moved is None:
            share, at_replicates = recorded_standard_error(self._target, name="relative"), None
        else:
            at_replicates = distances_to(vector, self._moved, fit.trivial, fit.alpha) + offset
            share = float(jackknife_standard_error(at_replicates))
        return Measured(
            f"model2vec:{id}", value, source_share=0.0, target_share=share, at_replicates=at_replicates
        )
