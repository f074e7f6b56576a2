"""From both stages to one order: loaded candidates first, by score, then the others as they stood."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from itertools import groupby

from t2v_hub.catalog import Candidate
from t2v_hub.selector.experience import NO_EXPERIENCE, Experience, with_expected
from t2v_hub.selector.order import Measurements, Nearest, Order, put_in_order
from t2v_hub.selector.ranked import RankedCandidate
from t2v_hub.selector.second_stage import Loaded

_EXACT = 50  # nearest candidates whose order is worked out in full precision, and twice as many as asked for


def first_stage_order(found: Nearest, measurements: Measurements, *, k: int | None) -> list[str]:
    """Ids of all candidates in the order of the first stage, of which k are to be loaded."""
    n = max(_EXACT, 2 * (len(found.placed) if k is None else k))
    exact = [place for place, _ in measurements.nearest_first(found.placed[:n])]
    return [
        *(place.candidate.id for place in (*exact, *found.placed[n:])),
        *(candidate.id for candidate, _ in found.without),
    ]


def prior_order(candidates: Iterable[Candidate], experience: Experience = NO_EXPERIENCE) -> list[str]:
    """Ids of the candidates of which a prior is known: the highest, and then the others by free facts alone.

    The highest prior is what one would take without any ranking, so it is to be loaded. Further ones by
    recorded results would often be of its kind, and a shortlist of one kind misses the rest
    (``docs/selection.md``).
    """
    known = [c for c in candidates if c.has_prior or c.id in experience.effects]
    best = sorted(known, key=experience.by_prior)
    return [one.id for one in (*best[:1], *sorted(best[1:], key=NO_EXPERIENCE.by_prior))]


def refined(
    found: Nearest, measurements: Measurements, loaded: Sequence[Loaded], *, top_k: int | None = None
) -> Order:
    """The first ``top_k`` of the loaded candidates, best first, and of the others after them.

    Args:
        found: Where all candidates stand by the first stage.
        measurements: Their distances in full precision.
        loaded: Those that were loaded, best first.
        top_k: How many; all by default.
    """
    ids = {one.id for one in loaded}
    items = {
        item.candidate.id: item for item in put_in_order(_part(found, ids, inside=True), measurements).items
    }
    first: list[RankedCandidate] = []
    for _, members in groupby(loaded, key=lambda one: one.tie_group):
        group = list(members)
        tied = tuple(one.id for one in group)
        first += [
            _with_score(items[one.id], one, rank=len(first) + place, tied=tied)
            for place, one in enumerate(group, start=1)
        ]
    if top_k is not None and top_k < len(first):
        last = first[top_k - 1].tie_group
        beyond = sum(item.tie_group == last for item in first[top_k:])
        return Order(tuple(first[:top_k]), beyond, (*found.skipped, *measurements.skipped))
    rest = put_in_order(
        _part(found, ids, inside=False),
        measurements,
        top_k=None if top_k is None else top_k - len(first),
        n_before=len(first),
        n_groups_before=first[-1].tie_group if first else 0,
    )
    expectation = measurements.experience.expectation
    if expectation is not None:
        beside = expectation.beside({one.id: 1.0 - one.outcomes.hits for one in loaded})
        rest = replace(rest, items=tuple(with_expected(item, beside) for item in rest.items))
    return replace(rest, items=(*first, *rest.items))


def _part(found: Nearest, ids: Collection[str], *, inside: bool) -> Nearest:
    return Nearest(
        tuple(place for place in found.placed if (place.candidate.id in ids) == inside),
        tuple(item for item in found.without if (item[0].id in ids) == inside),
        found.skipped,
    )


def _with_score(item: RankedCandidate, one: Loaded, *, rank: int, tied: tuple[str, ...]) -> RankedCandidate:
    return replace(
        item,
        rank=rank,
        tie_group=one.tie_group,
        tied=tied,
        gap=None,
        gap_error=None,
        reason=f"predicted error {one.outcomes.error:.1%}; {item.reason}",
        score=one.score,
        predicted_error=one.outcomes.error,
        predicted_interval=one.outcomes.interval,
        predicted_from="images",
    )
