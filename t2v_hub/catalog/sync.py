"""`sync`: what the cards on a Hub say, read into a catalog and kept up to date."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

from t2v_hub.catalog.candidate import Candidate, EmbeddingRecord, StoredEmbeddings, records_of
from t2v_hub.catalog.index import Index
from t2v_hub.catalog.packing import join_packs
from t2v_hub.catalog.reading import CardReading
from t2v_hub.catalog.state import (
    Question,
    Scope,
    SyncReport,
    now,
    question_of,
    read_state,
    write_state,
)
from t2v_hub.embedding import Space
from t2v_hub.errors import CatalogFileError, HubError, HubNotFoundError, HubUnreachableError, RateLimitError
from t2v_hub.storage import locked

if TYPE_CHECKING:
    from t2v_hub.catalog.catalog import Catalog
    from t2v_hub.hub.connection import Connection

_MAX_SINGLES = 50  # cards that are read one by one; more of them come cheaper by a whole listing
_MAX_FAILURES = 3  # times in a row that the Hub may be out of reach for single cards
_LOCK_SECONDS = 600.0


@dataclass
class _Listed:
    """What a Hub lists.

    Attributes:
        cards: Of every repository, the commit at which its card was read; of one whose card could not be
            read, that of the last time, or nothing.
        n_requests: Pages and cards that were asked for.
    """

    cards: dict[str, str]
    n_requests: int


def sync(
    catalog: "Catalog",
    connection: "Connection",
    *,
    space: Space | str | None,
    filters: Sequence[str],
    again: bool,
) -> SyncReport:
    """See `Catalog.sync`."""
    id = space.id if isinstance(space, Space) else space
    question = question_of(connection.endpoint, id, filters)
    asked = SyncReport(*question, now().isoformat(timespec="seconds"))
    busy = (
        f"Another process has been reading cards into {str(catalog.path)!r} for {_LOCK_SECONDS:.0f} s. Wait "
        f"for it, or end it, and run the same command again."
    )

    def waiting() -> None:
        connection.say(f"waiting for another process that reads cards into {str(catalog.path)!r}")

    with locked(catalog.path / ".sync.lock", seconds=_LOCK_SECONDS, busy=busy, waiting=waiting):
        catalog.reload()  # other processes may have read cards since it was opened
        scopes = {scope.key: scope for scope in read_state(catalog.path)}
        before = scopes.pop(question, Scope(asked))
        own = {known.id: known for known in catalog.own_spaces()}
        if isinstance(space, Space):
            own[space.id] = space
        known = {s.id: s.probe for s in catalog.spaces() if s.probe != Space.probe}
        first = again or not before.cards
        reading = CardReading(catalog.cards, connection.endpoint, own, {} if first else known, id)
        if first:
            listed = _read_all(reading, connection, asked)
        else:
            listed = _read_changed(reading, connection, asked, before.cards)
        reading.flush()
        n_removed = _apply(catalog, reading, asked, listed, scopes)
        _apply_claims(catalog, reading, {*listed.cards, *_listed_before(scopes.values(), asked.endpoint)})
        report = replace(
            asked,
            n_listed=len(listed.cards),
            n_read=len(reading.found),
            n_removed=n_removed,
            n_requests=listed.n_requests,
            skipped=tuple(reading.skipped),
        )
        probe = space.probe if isinstance(space, Space) else before.probe
        write_state(catalog.path, [*scopes.values(), Scope(report, listed.cards, probe)])
        join_packs(catalog)
    return report


def _read_all(reading: CardReading, connection: "Connection", asked: SyncReport) -> _Listed:
    """Read every card that is listed, a thousand a request."""
    from t2v_hub.hub.listing import enriched

    listing = enriched(connection, space=asked.space, filters=asked.filters)
    for row in listing:
        reading.read(row)
    for reason in listing.skipped:
        reading.skip(reason)
    return _Listed(dict(reading.shas), listing.n_requests)


def _read_changed(
    reading: CardReading, connection: "Connection", asked: SyncReport, before: Mapping[str, str]
) -> _Listed:
    """Read the cards whose commit is another one than before."""
    from t2v_hub.hub.listing import enriched

    listing = enriched(connection, space=asked.space, filters=asked.filters, expand=("sha",))
    present = {str(row["id"]): str(row.get("sha") or "") for row in listing}
    changed = {id for id, sha in present.items() if not sha or before.get(id) != sha}
    n_requests = listing.n_requests
    if len(changed) > _MAX_SINGLES:
        listing = enriched(connection, space=asked.space, filters=asked.filters)
        for row in listing:
            if row["id"] in changed:
                reading.read(row)
        n_requests += listing.n_requests
    else:
        for id in _read_singly(reading, connection, changed):
            del present[id]
        n_requests += len(changed)
    for reason in listing.skipped:
        reading.skip(reason)
    # What was listed as changed and could not be read is looked at again the next time.
    cards = {id: reading.shas.get(id, before.get(id, "")) for id in present}
    return _Listed(cards, n_requests)


def _read_singly(reading: CardReading, connection: "Connection", ids: Iterable[str]) -> set[str]:
    """Read cards one by one; returns those that are gone. One that fails does not stop the others."""
    from t2v_hub.hub.connection import repository_path
    from t2v_hub.hub.listing import FACTS

    gone, failures = set(), 0
    for id in sorted(ids):
        try:
            path = repository_path("model", id)
            row = connection.json(path, [("expand", name) for name in FACTS], what=f"The model {id!r}")
        except HubNotFoundError:
            gone.add(id)
        except RateLimitError:
            raise
        except HubError as error:
            failures += isinstance(error, HubUnreachableError)
            if failures >= _MAX_FAILURES:
                raise
            reading.skip(f"{id}: {error}")
        else:
            failures = 0
            reading.read({**row, "id": id})
    return gone


def _apply(
    catalog: "Catalog",
    reading: CardReading,
    asked: SyncReport,
    listed: _Listed,
    others: dict[Question, Scope],
) -> int:
    """Change the index to what was read; returns how many repositories are no longer listed.

    A repository that left this listing may have lost a tag only: where another question to the same Hub
    still has it, its embeddings stay, and its card is read again when that is asked next.
    """

    def is_meant(record: EmbeddingRecord) -> bool:
        return record.endpoint == asked.endpoint and asked.space in (None, record.space)

    gone = {
        candidate.id
        for candidate in catalog
        if candidate.id not in listed.cards and any(map(is_meant, records_of(candidate.embeddings)))
    }
    if not reading.found and not gone:
        return 0
    again: dict[Question, dict[str, str]] = {}  # cards that other questions are to read again
    n_removed = 0
    with catalog.changing() as index:
        index.spaces |= reading.named_spaces()
        for id, (candidate, records) in reading.found.items():
            _put(index, catalog, id, candidate, records, [r for r in _records(index, id) if not is_meant(r)])
        for id in gone:
            kept, keepers = [], set[Question]()
            for record in _records(index, id):
                if not is_meant(record):
                    kept.append(record)
                elif keeping := {key for key, scope in others.items() if _has(scope, record, id)}:
                    kept.append(record)
                    keepers |= keeping
            for key in keepers:
                again.setdefault(key, {})[id] = ""
            n_removed += not keepers
            _put(index, catalog, id, None, [], kept)
    for key, unread in again.items():
        others[key] = replace(others[key], cards={**others[key].cards, **unread})
    return n_removed


def _apply_claims(catalog: "Catalog", reading: CardReading, listed: set[str]) -> None:
    """Change the results to what cards claim now. Results that are damaged spoil no reading of cards."""
    try:
        catalog.refresh_claims(reading.endpoint, reading.claims, listed=listed)
    except CatalogFileError as error:
        reading.skip(f"the accuracies that cards claim: {error} Then `t2v catalog sync --again`.")


def _listed_before(scopes: Iterable[Scope], endpoint: str) -> set[str]:
    """Repositories on that Hub that other questions found."""
    return {id for scope in scopes if scope.report.endpoint == endpoint for id in scope.cards}


def _has(scope: Scope, record: EmbeddingRecord, id: str) -> bool:
    return id in scope.cards and scope.covers(record.endpoint, record.space)


def _records(index: Index, id: str) -> tuple[EmbeddingRecord, ...]:
    candidate = index.candidates.get(id)
    return () if candidate is None else records_of(candidate.embeddings)


def _put(
    index: Index,
    catalog: "Catalog",
    id: str,
    fresh: Candidate | None,
    records: Sequence[EmbeddingRecord],
    kept: Sequence[EmbeddingRecord],
) -> None:
    """What is known of a candidate now: the records of its card beside those that are kept."""
    old = index.candidates.get(id)
    taken = {record.subject for record in kept if record.pack is None}  # a measurement of one's own is better
    distinct = {record.digest: record for record in records if record.subject not in taken}
    now_known = (*(r for r in kept if r.digest not in distinct), *distinct.values())
    if not now_known and id not in index.local:
        index.candidates.pop(id, None)
        return
    if fresh is None and old is None:
        return
    candidate = old if fresh is None else fresh
    assert candidate is not None
    if fresh is not None and old is not None and id in index.local:
        unknown = [item.name for item in fields(Candidate) if getattr(fresh, item.name) is None]
        candidate = replace(fresh, **{name: getattr(old, name) for name in unknown})
    embeddings = StoredEmbeddings(catalog.embeddings_folder, now_known)
    source = candidate.source or next((record.task for record in now_known), None)
    index.candidates[id] = replace(candidate, embeddings=embeddings, source=source)
