"""`sync`: what the cards on the Hub say, read into a catalog, page by page."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from t2v_hub.card import CardEntry, read_entries
from t2v_hub.catalog.candidate import Candidate, EmbeddingRecord, StoredEmbeddings, records_of
from t2v_hub.catalog.index import Index
from t2v_hub.catalog.pack import delete_packs, open_pack, write_pack
from t2v_hub.catalog.state import Scope, SyncReport, now, read_state, write_state
from t2v_hub.embedding import Space
from t2v_hub.errors import EmbeddingFileError, HubNotFoundError, StorageError
from t2v_hub.storage import storage_error

if TYPE_CHECKING:
    from t2v_hub.catalog.catalog import Catalog
    from t2v_hub.hub.connection import Connection

_PACK_ENTRIES = 1000
_PACK_VALUES = 1 << 24  # 32 MiB of vectors in memory at a time
_SMALL_PACK = 200
_MAX_SMALL_PACKS = 8
_MAX_SPACES = 256
_MAX_SINGLES = 50  # cards that are read one by one; more of them come cheaper by a whole listing
_MAX_REASONS = 1000
_LOCK_SECONDS = 600.0


@dataclass
class _Reading:
    """Cards on their way into the catalog's packs.

    Attributes:
        catalog: Where they go.
        spaces: Known spaces by id; others join as cards bring them.
        only: Id of the space that is wanted; None for all.
        found: Of each repository that was read, its facts and the records of its embeddings.
        shas: Of each, the commit.
        skipped: What could not be used.
    """

    catalog: "Catalog"
    spaces: dict[str, Space]
    only: str | None
    found: dict[str, tuple[Candidate | None, list[EmbeddingRecord]]] = field(default_factory=dict)
    shas: dict[str, str] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    _waiting: dict[str, list[tuple[str, CardEntry]]] = field(default_factory=dict)

    def read(self, row: Mapping[str, Any]) -> None:
        """Take in a row of a listing."""
        from t2v_hub.hub.facts import candidate_of, facts_of
        from t2v_hub.hub.listing import card_block

        facts = facts_of(row)
        if facts is None:
            self._skip("a repository without a usable id")
            return
        self.shas[facts.id] = facts.revision or ""
        if facts.disabled:
            self._skip(f"{facts.id}: the Hub disabled it")
            self.found[facts.id] = (None, [])
            return
        entries = read_entries(card_block(row), spaces=self.spaces)
        for reason in entries.skipped:
            self._skip(f"{facts.id}: {reason}")
        self.found[facts.id] = (candidate_of(facts), [])
        for entry in entries.entries:
            space = entry.embedding.space
            if entry.role == "self":
                self._skip(f"{facts.id}: an entry of the role self, which only a data set card can hold")
            elif self.only is not None and space.id != self.only:
                continue
            elif space.id not in self.spaces and len(self.spaces) >= _MAX_SPACES:
                self._skip(f"{facts.id}: space {space.id} is one too many")
            else:
                self.spaces.setdefault(space.id, space)
                self._waiting.setdefault(space.id, []).append((facts.id, entry))
        n_waiting = sum(map(len, self._waiting.values()))
        n_values = sum(len(w) * self.spaces[id].n_filters for id, w in self._waiting.items())
        if n_waiting >= _PACK_ENTRIES or n_values >= _PACK_VALUES:
            self.flush()

    def flush(self) -> None:
        """Write what waits into packs."""
        for space, waiting in self._waiting.items():
            key = write_pack(self.catalog.cards, self.spaces[space], [entry for _, entry in waiting])
            for id, entry in waiting:
                self.found[id][1].append(EmbeddingRecord.of(entry.embedding, pack=key))
        self._waiting.clear()

    def _skip(self, reason: str) -> None:
        if len(self.skipped) < _MAX_REASONS:
            self.skipped.append(reason)


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
    asked = SyncReport(connection.endpoint, id, tuple(filters), now().isoformat(timespec="seconds"))
    with _alone(catalog):
        scopes = {scope.key: scope for scope in read_state(catalog.path)}
        before = scopes.get(Scope(asked).key)
        known = {known.id: known for known in catalog.spaces()}
        if isinstance(space, Space):
            known[space.id] = space  # its name of the probe is the caller's, not a stranger's
        reading = _Reading(catalog, known, id)
        n_requests, listed, unread = _read_cards(
            reading, connection, before=None if again else before, space=id, filters=filters
        )
        reading.flush()
        alone = _apply(catalog, reading, before, listed, [s for s in scopes.values() if s is not before])
        report = replace(
            asked,
            n_listed=len(listed),
            n_read=len(reading.found),
            n_removed=len(set(before.cards) - set(listed)) if before else 0,
            n_requests=n_requests,
            skipped=(*reading.skipped, *unread),
        )
        scopes[Scope(asked).key] = Scope(
            report, {id: (sha, alone.get(id, True)) for id, sha in listed.items()}
        )
        write_state(catalog.path, list(scopes.values()))
        _tidy(catalog)
    return report


def _read_cards(
    reading: _Reading,
    connection: "Connection",
    *,
    before: Scope | None,
    space: str | None,
    filters: Sequence[str],
) -> tuple[int, dict[str, str], list[str]]:
    """Requests that were made, commit of every listed repository, and what could not be read."""
    from t2v_hub.hub.connection import repository_path
    from t2v_hub.hub.listing import FACTS, commits, enriched

    if before is None:
        whole = enriched(connection, space=space, filters=filters)
        for row in whole:
            reading.read(row)
        return whole.n_requests, dict(reading.shas), whole.skipped
    listing = commits(connection, space=space, filters=filters)
    listed = {str(row["id"]): str(row.get("sha") or "") for row in listing}
    changed = {id for id, sha in listed.items() if not sha or before.cards.get(id, ("", True))[0] != sha}
    if len(changed) > _MAX_SINGLES:
        whole = enriched(connection, space=space, filters=filters)
        for row in whole:
            if row["id"] in changed:
                reading.read(row)
        return listing.n_requests + whole.n_requests, listed, [*listing.skipped, *whole.skipped]
    for id in sorted(changed):
        try:
            path = repository_path("model", id)
            row = connection.json(path, [("expand", name) for name in FACTS], what=f"The model {id!r}")
        except HubNotFoundError:  # deleted since it was listed
            listed.pop(id)
            continue
        reading.read({**row, "id": id})
        listed[id] = reading.shas.get(id, listed[id])
    return listing.n_requests + len(changed), listed, listing.skipped


def _apply(
    catalog: "Catalog",
    reading: _Reading,
    before: Scope | None,
    listed: Mapping[str, str],
    others: Iterable[Scope],
) -> dict[str, bool]:
    """Change the index; returns of each repository whether the candidate is there for its card alone."""
    alone = {id: flag for id, (_, flag) in before.cards.items()} if before else {}
    elsewhere = {id for scope in others for id in scope.cards}
    gone = set(alone) - set(listed)
    if not reading.found and not gone:
        return alone
    with catalog.changing() as index:
        index.spaces |= reading.spaces
        for id in gone:
            _remove(index, id, space=reading.only, drop=alone.pop(id) and id not in elsewhere)
        for id, (candidate, records) in reading.found.items():
            old = index.candidates.get(id)
            alone[id] = old is None or (alone.get(id, id in elsewhere))
            if candidate is None or not records:
                _remove(index, id, space=reading.only, drop=alone[id] and id not in elsewhere)
                continue
            kept = [] if old is None else _without_cards(old, reading.only)
            taken = {(record.space, record.task) for record in kept}
            new = [record for record in records if (record.space, record.task) not in taken]
            embeddings = StoredEmbeddings(catalog.embeddings_folder, (*kept, *_distinct(new)))
            source = candidate.source or records[0].task
            fresh = replace(candidate, embeddings=embeddings, source=source)
            index.candidates[id] = fresh if old is None or alone[id] else _beside(old, fresh)
    return alone


def _remove(index: Index, id: str, *, space: str | None, drop: bool) -> None:
    """Take out what the card of a candidate brought, and the candidate where it is there for that alone."""
    old = index.candidates.get(id)
    if old is None:
        return
    kept = _without_cards(old, space)
    if drop and not kept:
        del index.candidates[id]
    else:
        assert isinstance(old.embeddings, StoredEmbeddings)
        index.candidates[id] = replace(old, embeddings=StoredEmbeddings(old.embeddings.folder, kept))


def _without_cards(candidate: Candidate, space: str | None) -> list[EmbeddingRecord]:
    """The records of a candidate that are not from its card, or are of other spaces."""
    records = records_of(candidate.embeddings)
    return [r for r in records if r.pack is None or (space is not None and r.space != space)]


def _beside(old: Candidate, new: Candidate) -> Candidate:
    """The new candidate with what only its owner here knew of it."""
    facts = {
        item.name: getattr(old, item.name) for item in fields(Candidate) if getattr(new, item.name) is None
    }
    return replace(new, **facts)


def _distinct(records: Iterable[EmbeddingRecord]) -> Iterator[EmbeddingRecord]:
    seen: set[str] = set()
    for record in records:
        if record.digest not in seen:
            seen.add(record.digest)
            yield record


def _tidy(catalog: "Catalog") -> None:
    """Join small packs, and packs of which little is left in use; delete what nobody names."""
    used: dict[str, set[str]] = {}
    for candidate in catalog:
        for record in records_of(candidate.embeddings):
            if record.pack is not None:
                used.setdefault(record.pack, set()).add(record.digest)
    small: dict[str, list[str]] = {}
    for key, digests in used.items():
        with contextlib.suppress(EmbeddingFileError):
            pack = open_pack(catalog.cards, key)
            if len(digests) < _SMALL_PACK or 2 * len(digests) < len(pack):
                small.setdefault(pack.space.id, []).append(key)
    for keys in small.values():
        if len(keys) > _MAX_SMALL_PACKS:
            _join(catalog, keys, used)
            for key in keys:
                used.pop(key)
    with contextlib.suppress(StorageError):
        named = {r.pack for c in catalog for r in records_of(c.embeddings) if r.pack is not None}
        delete_packs(catalog.cards, keep=named)


def _join(catalog: "Catalog", keys: Sequence[str], used: Mapping[str, set[str]]) -> None:
    entries: list[CardEntry] = []
    for key in keys:
        pack = open_pack(catalog.cards, key)
        for digest in sorted(used[key]):
            with contextlib.suppress(EmbeddingFileError):  # damaged: the record goes on naming the old pack
                embedding, half = pack.entry(digest)
                entries.append(CardEntry(embedding, "finetune", half))
    if not entries:
        return
    joined = write_pack(catalog.cards, entries[0].embedding.space, entries)
    moved = {entry.embedding.digest for entry in entries}

    def place(record: EmbeddingRecord) -> EmbeddingRecord:
        return record._replace(pack=joined) if record.pack in keys and record.digest in moved else record

    with catalog.changing() as index:
        for id, candidate in index.candidates.items():
            records = [place(record) for record in records_of(candidate.embeddings)]
            stored = StoredEmbeddings(catalog.embeddings_folder, records)
            index.candidates[id] = replace(candidate, embeddings=stored)


@contextlib.contextmanager
def _alone(catalog: "Catalog") -> Iterator[None]:
    """No other process reads cards into this catalog meanwhile."""
    try:
        catalog.path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(catalog.path / ".sync.lock", timeout=_LOCK_SECONDS)
        lock.acquire()
    except Timeout as error:
        raise StorageError(
            f"Another process has been reading cards into {str(catalog.path)!r} for {_LOCK_SECONDS:.0f} s. "
            f"Wait for it, or end it, and run the same command again."
        ) from error
    except OSError as error:
        raise storage_error(catalog.path, error) from error
    try:
        yield
    finally:
        lock.release()
