"""The order of a ranking: who stands where, and who cannot be told apart."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from t2v_hub.catalog import Candidate, Matrices, Matrix
from t2v_hub.catalog.candidate import EmbeddingRecord, records_of
from t2v_hub.distance import DistanceName
from t2v_hub.embedding import TaskEmbedding
from t2v_hub.errors import EmbeddingFileError, StorageError
from t2v_hub.selector.address import hub_of
from t2v_hub.selector.comparison import Z95, Comparison, Measured
from t2v_hub.selector.experience import NO_EXPERIENCE, Experience
from t2v_hub.selector.ranked import RankedCandidate

_LOOK_BEYOND = 100  # candidates after the last shown that are still compared with the last group
_MAX_MEASURED = 500  # embeddings that are opened for a ranking, about 3 ms each
_LEARNED = "distance learned from errors on other tasks"


@dataclass(frozen=True)
class Place:
    """A candidate with the nearest of its embeddings.

    Attributes:
        candidate: The checkpoint.
        index: Which of ``candidate.embeddings`` is the nearest; None where it has none in the space.
        record: What the catalog knows of it.
        distance: From it, as the catalog's matrix has it; or the learned one.
        is_learned: Whether the distance is a learned one.
    """

    candidate: Candidate
    index: int | None
    record: EmbeddingRecord | None
    distance: float
    is_learned: bool = False


@dataclass(frozen=True)
class Nearest:
    """Candidates with a distance, nearest first, and the others by prior.

    Attributes:
        placed: Those with one.
        without: Those without, and why.
        skipped: Embeddings that could not be read, in words.
    """

    placed: tuple[Place, ...]
    without: tuple[tuple[Candidate, str], ...]
    skipped: tuple[str, ...]


@dataclass(frozen=True)
class Order:
    """Ranked candidates, best first; how many after the last are tied with it; what was skipped."""

    items: tuple[RankedCandidate, ...]
    n_tied_beyond: int
    skipped: tuple[str, ...]


def nearest(
    candidates: Iterable[Candidate],
    matrix: Matrix | Matrices,
    target: TaskEmbedding,
    *,
    name: DistanceName,
    alpha: float,
    experience: Experience = NO_EXPERIENCE,
) -> Nearest:
    """Where candidates stand by their nearest embedding in the target's space, by the matrix alone."""
    values = matrix.distances(target, name=name, alpha=alpha)
    by_digest = dict(zip(matrix.digests, values.tolist(), strict=True))
    placed: list[Place] = []
    without: list[tuple[Candidate, str]] = []
    skipped: list[str] = []
    for candidate in candidates:
        reason = "it has no embedding in this space"
        best: Place | None = None
        least: tuple[float, str] | None = None
        for index, record in enumerate(records_of(candidate.embeddings)):
            if record.space != target.space.id:
                continue
            if record.digest in matrix.damaged:
                reason = "its embedding cannot be read"
                skipped.append(f"{candidate.id}: {matrix.damaged[record.digest]}")
                continue
            value = by_digest[record.digest]
            if least is None or (value, record.digest) < least:
                least = value, record.digest
                best = Place(candidate, index, record, value)
        if best is None:
            without.append((candidate, reason))
        else:
            placed.append(best)
    without.sort(key=lambda item: experience.by_prior(item[0]))
    return Nearest(in_first_order(placed, experience), tuple(without), tuple(skipped))


def in_first_order(places: Iterable[Place], experience: Experience) -> tuple[Place, ...]:
    """The nearest first; of equal distances the higher prior."""
    return tuple(sorted(places, key=lambda place: (place.distance, *experience.by_prior(place.candidate))))


class Measurements:
    """Distances of places in full precision, with their errors; each embedding is opened once.

    The matrix is float16 and knows no errors, so the first 500 embeddings that are asked for are opened and
    measured. After these, standard errors are the recorded typical ones.

    Args:
        comparison: Measures embeddings.
        learned: Measures learned distances by the candidate's id.
        experience: How checkpoints did on other tasks; part of the prior.
    """

    def __init__(
        self,
        comparison: Comparison,
        *,
        learned: Callable[[str], Measured] | None = None,
        experience: Experience = NO_EXPERIENCE,
    ) -> None:
        self.experience = experience
        self._comparison = comparison
        self._learned = learned
        self._known: dict[str, Measured] = {}
        self._n_opened = 0
        self.skipped: list[str] = []

    def of(self, place: Place) -> Measured:
        """The distance of a place."""
        if place.is_learned:
            assert self._learned is not None
            key = f"model2vec:{place.candidate.id}"
            if key not in self._known:
                self._known[key] = self._learned(place.candidate.id)
            return self._known[key]
        assert place.record is not None
        assert place.index is not None
        key = place.record.digest
        if key in self._known:
            return self._known[key]
        self._known[key] = self._comparison.estimate(
            key, place.distance, recorded=place.record.distance_standard_error
        )
        self._n_opened += 1
        if self._n_opened <= _MAX_MEASURED:
            try:
                self._known[key] = self._comparison.measure(place.candidate.embeddings[place.index])
            except (EmbeddingFileError, StorageError) as error:
                # Readable when the matrix was made, and damaged since: its distance is still good.
                self.skipped.append(f"{place.candidate.id}: {error}")
        return self._known[key]

    def nearest_first(self, places: Iterable[Place]) -> list[tuple[Place, Measured]]:
        """Places with their distances, the nearest first."""
        found = [(place, self.of(place)) for place in places]
        return sorted(
            found, key=lambda item: (item[1].distance, *self.experience.by_prior(item[0].candidate))
        )


def put_in_order(
    found: Nearest,
    measurements: Measurements,
    *,
    top_k: int | None = None,
    n_before: int = 0,
    n_groups_before: int = 0,
) -> Order:
    """The first ``top_k`` with standard errors and tie groups, and the Hubs whose cards told of them.

    Args:
        found: Where they stand by the matrix.
        measurements: Their distances in full precision.
        top_k: How many; all by default.
        n_before: Candidates that stand before all of these.
        n_groups_before: Tie groups of those.
    """
    n_shown = len(found.placed) if top_k is None else min(top_k, len(found.placed))
    shown = measurements.nearest_first(found.placed[:n_shown])
    beyond = ((place, measurements.of(place)) for place in found.placed[n_shown : n_shown + _LOOK_BEYOND])
    items, n_tied_beyond = _with_groups(shown, beyond)

    n_without = len(found.without) if top_k is None else min(top_k - n_shown, len(found.without))
    items += _without_distance(
        found.without[:n_without],
        measurements.experience,
        first_rank=len(found.placed) + 1,
        first_group=items[-1].tie_group + 1 if items else 1,
    )
    if n_before:
        items = [
            replace(item, rank=item.rank + n_before, tie_group=item.tie_group + n_groups_before)
            for item in items
        ]
    return Order(
        tuple(map(measurements.experience.marked, items)),
        n_tied_beyond,
        (*found.skipped, *measurements.skipped),
    )


def _with_groups(
    shown: Sequence[tuple[Place, Measured]], beyond: Iterator[tuple[Place, Measured]]
) -> tuple[list[RankedCandidate], int]:
    """Ranked candidates, and how many of ``beyond`` belong to the last one's group."""
    if not shown:
        return [], 0
    groups: list[list[int]] = []
    leader = shown[0][1]
    for position, (_, value) in enumerate(shown):
        if position == 0 or not leader.is_tied_with(value):
            groups.append([])
            leader = value
        groups[-1].append(position)
    following = next(beyond, None)
    next_value = None if following is None else following[1]
    tied_beyond: list[str] = []
    while following is not None and leader.is_tied_with(following[1]):
        tied_beyond.append(following[0].candidate.id)
        following = next(beyond, None)

    items: list[RankedCandidate] = []
    for number, positions in enumerate(groups, start=1):
        ids = [shown[position][0].candidate.id for position in positions]
        tied = (*ids, *tied_beyond) if number == len(groups) else tuple(ids)
        for position in positions:
            place, value = shown[position]
            after = shown[position + 1][1] if position + 1 < len(shown) else next_value
            item = _ranked(place, value, rank=position + 1, group=number)
            items.append(_with_gap(replace(item, tied=tied), value, after))
    return items, len(tied_beyond)


def _ranked(place: Place, value: Measured, *, rank: int, group: int) -> RankedCandidate:
    error = _known(value.standard_error)
    margin = None if error is None else Z95 * error
    task = None if place.record is None else place.record.task
    return RankedCandidate(
        candidate=place.candidate,
        distance=value.distance,
        standard_error=error,
        prior=place.candidate.upstream_accuracy,
        interval=None if margin is None else (value.distance - margin, value.distance + margin),
        tie_group=group,
        reason=_LEARNED if place.is_learned else f"nearest source task {task!r}",
        rank=rank,
        source_task=task,
        complexity=value.complexity,
        endpoint=hub_of(place.candidate),
        is_learned=place.is_learned,
    )


def _with_gap(item: RankedCandidate, value: Measured, after: Measured | None) -> RankedCandidate:
    if after is None:
        return item
    gap = 0.0 if after.distance == value.distance else max(0.0, after.distance - value.distance)
    return replace(item, gap=gap, gap_error=_known(value.difference_error(after)))


def _without_distance(
    candidates: Sequence[tuple[Candidate, str]],
    experience: Experience,
    *,
    first_rank: int,
    first_group: int,
) -> list[RankedCandidate]:
    """Candidates without a distance, in order; those of equal prior are one tie group."""
    items: list[RankedCandidate] = []
    of_equal_prior = groupby(candidates, key=lambda item: experience.prior(item[0]))
    for group, (_, found) in enumerate(of_equal_prior, start=first_group):
        members = list(found)
        tied = tuple(candidate.id for candidate, _ in members)
        for candidate, reason in members:
            items.append(
                RankedCandidate(
                    candidate=candidate,
                    distance=None,
                    standard_error=None,
                    prior=candidate.upstream_accuracy,
                    interval=None,
                    tie_group=group,
                    reason=reason,
                    rank=first_rank + len(items),
                    tied=tied,
                    endpoint=hub_of(candidate),
                )
            )
    return items


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
