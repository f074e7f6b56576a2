"""The order of a ranking: who stands where, and who cannot be told apart."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from t2v_hub.catalog import Candidate, Matrices, Matrix
from t2v_hub.catalog.candidate import EmbeddingRecord, records_of
from t2v_hub.distance import DistanceName
from t2v_hub.embedding import TaskEmbedding
from t2v_hub.errors import EmbeddingFileError, StorageError
from t2v_hub.selector.comparison import Z95, Comparison, Measured
from t2v_hub.selector.ranking import RankedCandidate

_LOOK_BEYOND = 100  # candidates after the last shown that are still compared with the last group
_MAX_MEASURED = 500  # embeddings that are opened for a ranking, about 3 ms each


@dataclass(frozen=True)
class Place:
    """A candidate with the nearest of its embeddings.

    Attributes:
        candidate: The checkpoint.
        index: Which of ``candidate.embeddings`` is the nearest.
        record: What the catalog knows of it.
        distance: From it, as the catalog's matrix has it.
    """

    candidate: Candidate
    index: int
    record: EmbeddingRecord
    distance: float


@dataclass(frozen=True)
class Nearest:
    """Candidates with a readable embedding in a space, nearest first, and the others by prior.

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
        for index, record in enumerate(records_of(candidate.embeddings)):
            if record.space != target.space.id:
                continue
            if record.digest in matrix.damaged:
                reason = "its embedding cannot be read"
                skipped.append(f"{candidate.id}: {matrix.damaged[record.digest]}")
                continue
            value = by_digest[record.digest]
            if best is None or (value, record.digest) < (best.distance, best.record.digest):
                best = Place(candidate, index, record, value)
        if best is None:
            without.append((candidate, reason))
        else:
            placed.append(best)
    placed.sort(key=lambda place: (place.distance, *_by_prior(place.candidate)))
    without.sort(key=lambda item: _by_prior(item[0]))
    return Nearest(tuple(placed), tuple(without), tuple(skipped))


def put_in_order(found: Nearest, comparison: Comparison, *, top_k: int | None = None) -> Order:
    """The first ``top_k`` with standard errors and tie groups, and the Hubs whose cards told of them.

    The matrix is float16 and knows no errors, so the nearest 500 embeddings are opened, measured in full
    precision and sorted by that. Further away, standard errors are the recorded typical ones.
    """
    skipped = list(found.skipped)
    known: dict[str, Measured] = {}

    def measure(place: Place) -> tuple[Place, Measured]:
        digest = place.record.digest
        if digest in known:
            return place, known[digest]
        known[digest] = comparison.estimate(
            digest, place.distance, recorded=place.record.distance_standard_error
        )
        if len(known) <= _MAX_MEASURED:
            try:
                known[digest] = comparison.measure(place.candidate.embeddings[place.index])
            except (EmbeddingFileError, StorageError) as error:
                # Readable when the matrix was made, and damaged since: its distance is still good.
                skipped.append(f"{place.candidate.id}: {error}")
        return place, known[digest]

    n_shown = len(found.placed) if top_k is None else min(top_k, len(found.placed))
    shown = [measure(place) for place in found.placed[:n_shown]]
    shown.sort(key=lambda item: (item[1].distance, *_by_prior(item[0].candidate)))
    beyond = map(measure, found.placed[n_shown : n_shown + _LOOK_BEYOND])
    items, n_tied_beyond = _with_groups(shown, beyond)

    n_without = len(found.without) if top_k is None else min(top_k - n_shown, len(found.without))
    items += _without_distance(
        found.without[:n_without],
        first_rank=len(found.placed) + 1,
        first_group=items[-1].tie_group + 1 if items else 1,
    )
    return Order(tuple(items), n_tied_beyond, tuple(skipped))


def _by_prior(candidate: Candidate) -> tuple[float, int, str]:
    accuracy, downloads = candidate.prior
    return -accuracy, -downloads, candidate.id


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
    return RankedCandidate(
        candidate=place.candidate,
        distance=value.distance,
        standard_error=error,
        prior=place.candidate.upstream_accuracy,
        interval=None if margin is None else (value.distance - margin, value.distance + margin),
        tie_group=group,
        reason=f"nearest source task {place.record.task!r}",
        rank=rank,
        source_task=place.record.task,
        complexity=value.complexity,
        endpoint=_hub(place.candidate),
    )


def _with_gap(item: RankedCandidate, value: Measured, after: Measured | None) -> RankedCandidate:
    if after is None:
        return item
    gap = 0.0 if after.distance == value.distance else max(0.0, after.distance - value.distance)
    return replace(item, gap=gap, gap_error=_known(value.difference_error(after)))


def _without_distance(
    candidates: Sequence[tuple[Candidate, str]], *, first_rank: int, first_group: int
) -> list[RankedCandidate]:
    """Candidates without a distance, in order; those of equal prior are one tie group."""
    items: list[RankedCandidate] = []
    for group, members in enumerate(_of_equal_prior(candidates), start=first_group):
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
                    endpoint=_hub(candidate),
                )
            )
    return items


def _of_equal_prior(candidates: Sequence[tuple[Candidate, str]]) -> Iterator[list[tuple[Candidate, str]]]:
    for _, members in groupby(candidates, key=lambda item: item[0].prior):
        yield list(members)


def _hub(candidate: Candidate) -> str | None:
    """Address of the Hub whose card told of the candidate."""
    found = (record.endpoint for record in records_of(candidate.embeddings))
    return next((endpoint for endpoint in found if endpoint is not None), None)


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
