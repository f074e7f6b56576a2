"""A ranking's parts as plain values that JSON can hold."""

import math

from t2v_hub.catalog import Candidate
from t2v_hub.embedding import Json
from t2v_hub.selector.origin import Origin
from t2v_hub.selector.ranked import RankedCandidate
from t2v_hub.selector.second_stage import Refinement


def item_to_dict(item: RankedCandidate, weight: float) -> dict[str, Json]:
    """A ranked candidate; ``weight`` is its share of `Ranking.weights`."""
    candidate = item.candidate
    return {
        "rank": item.rank,
        "id": candidate.id,
        "revision": candidate.revision,
        "library": candidate.library,
        "distance": _finite(item.distance),
        "standard_error": _finite(item.standard_error),
        "interval": _bounds(item.interval),
        "tie_group": item.tie_group,
        "weight": weight,
        "prior": _finite(item.prior),
        "source": candidate.source,
        "source_task": item.source_task,
        "complexity": _finite(item.complexity),
        "gap": _finite(item.gap),
        "gap_error": _finite(item.gap_error),
        "reason": item.reason,
        "parameters": candidate.parameters,
        "licence": candidate.licence,
        "downloads": candidate.downloads,
        "likes": candidate.likes,
        "gated": candidate.gated,
        "endpoint": item.endpoint,
        "is_learned": item.is_learned,
        "score": _finite(item.score),
        "predicted_error": _finite(item.predicted_error),
        "predicted_interval": _bounds(item.predicted_interval),
        "predicted_from": item.predicted_from,
        "experience": _finite(item.experience),
        "n_experience": item.n_experience,
    }


def origin_to_dict(origin: Origin) -> dict[str, Json]:
    """Where the candidates come from."""
    report = origin.report
    return {
        "catalog": origin.path,
        "endpoint": None if report is None else report.endpoint,
        "synced_at": None if report is None else report.synced_at,
        "failure": origin.failure,
    }


def refinement_to_dict(done: Refinement) -> dict[str, Json]:
    """What the second stage did."""
    against = done.against_prior
    difference = None if against is None else against.difference
    prior: dict[str, Json] | None = None
    if against is not None:
        prior = {
            "id": against.id,
            "difference": None if difference is None else difference.value,
            "standard_error": None if difference is None else difference.standard_error,
        }
    return {
        "score": done.score,
        "features": done.features,
        "n_loaded": done.n_loaded,
        "n_images": done.n_images,
        "seconds": done.seconds,
        "failed": dict(done.failed),
        "gave_up": done.gave_up,
        "against_prior": prior,
    }


def _bounds(interval: tuple[float, float] | None) -> list[Json] | None:
    return None if interval is None else [_finite(bound) for bound in interval]


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


EMPTY = RankedCandidate(Candidate("none"), None, None, None, None, 0, "", 0)
"""Whose fields are the columns of a ranking without candidates."""
