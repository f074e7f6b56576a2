"""`merge_catalogs`: other catalogs joined into one, and `MergeReport`: what that changed."""

import contextlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Literal

from t2v_hub.catalog.candidate import Candidate, EmbeddingRecord, StoredEmbeddings, records_of
from t2v_hub.catalog.index import Index
from t2v_hub.catalog.joining import joined
from t2v_hub.catalog.pack import copy_pack, open_pack
from t2v_hub.catalog.results import Key, Result
from t2v_hub.catalog.state import Scope, read_state
from t2v_hub.embedding import Space, TaskEmbedding
from t2v_hub.errors import CatalogFileError, EmbeddingFileError, StorageError

if TYPE_CHECKING:
    from t2v_hub.catalog.catalog import Catalog

Prefer = Literal["other", "here"]
"""Whose word counts where two catalogs contradict each other."""

_FACTS = tuple(item.name for item in fields(Candidate) if item.name not in ("id", "embeddings"))


@dataclass(frozen=True)
class MergeConflict:
    """What two catalogs say differently.

    Attributes:
        about: Id of the candidate, or the task, checkpoint, n and seed of a result, in words.
        what: ``revision``, another fact, ``embedding of TASK``, ``error``, ``n_test`` or ``embedding``.
        here: What the catalog said.
        there: What the other one says.
        kept: Which of them stays.
    """

    about: str
    what: str
    here: str
    there: str
    kept: Prefer


@dataclass(frozen=True)
class MergeReport:
    """What joining catalogs changed, or would.

    Attributes:
        n_added: Candidates that are new.
        n_changed: Candidates of which more, or something else, is known now.
        n_same: Candidates that changed nothing.
        n_embeddings: Embeddings of candidates that are new here.
        n_results_added: Results that are new.
        n_results_changed: Results of which more, or something else, is known now.
        n_results_same: Results that changed nothing.
        conflicts: What was said differently, and whose word stays.
        left_out: What could not be read, in words.
        dry_run: Whether nothing was written.
    """

    n_added: int
    n_changed: int
    n_same: int
    n_embeddings: int
    n_results_added: int
    n_results_changed: int
    n_results_same: int
    conflicts: tuple[MergeConflict, ...]
    left_out: tuple[str, ...]
    dry_run: bool


def merge_catalogs(
    catalog: "Catalog",
    others: "Sequence[Catalog]",
    *,
    prefer: Prefer = "other",
    dry_run: bool = False,
) -> MergeReport:
    """Take over all candidates and results of other catalogs, one catalog after the other.

    What only one side knows is kept. Where both know something else, the word of the other one counts, as in
    `Catalog.add`, and that of a later one over an earlier one's; or, with ``prefer="here"``, that of the
    catalog. Of two revisions of a checkpoint one stays, with what was known of either: the commit of a
    repository changes with its card. What cannot be read is named and left out.

    What was read from cards stays that: it keeps its Hub, names no probe that nobody vouched for, and the
    next `Catalog.sync` brings it up to date; of the same task a measurement counts more. Of a card that this
    catalog has read itself, its own reading counts, which sync keeps up to date. A space keeps the name that
    its probe has here.

    Of each catalog, embeddings are written first, then the candidates in one piece, then the results in one
    piece: whoever is killed loses nothing that was there, and merging again completes it.

    Args:
        catalog: Where to.
        others: Where from; they are only read.
        prefer: Whose word counts.
        dry_run: Only say what would change.

    Raises:
        EmbeddingFileError: An embedding was damaged while it was being read.
        StorageError: The disk is full, read-only or closed to us.
    """
    tally = _Tally(prefer, dry_run, read_state(catalog.path))
    index = catalog.index_on_disk() if dry_run else None
    held = {result.key: result for result in catalog.results(origin=None)} if dry_run else None
    for other in others:
        with contextlib.nullcontext(index) if index is not None else catalog.changing() as own:
            tally.candidates(catalog, own, other)
        theirs, embeddings = tally.results_of(other)
        if held is not None:
            tally.results(held, theirs)
        elif theirs:
            with catalog.changing_results() as current:
                tally.results(current, theirs)
                named = {result.embedding for result in current.values()}
                for embedding in embeddings:  # before the results are written, which is at the end of this
                    if embedding.digest in named:
                        catalog.keep(embedding)
    return tally.report()


@dataclass
class _Tally:
    """One merge, and what it changed so far."""

    prefer: Prefer
    dry_run: bool
    scopes: Sequence[Scope]
    counts: dict[str, int] = field(default_factory=dict)
    conflicts: list[MergeConflict] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def report(self) -> MergeReport:
        """What was changed."""
        names = [item.name for item in fields(MergeReport) if item.name.startswith("n_")]
        return MergeReport(
            **{name: self.counts.get(name, 0) for name in names},
            conflicts=tuple(self.conflicts),
            left_out=tuple(self.left_out),
            dry_run=self.dry_run,
        )

    def candidates(self, catalog: "Catalog", index: Index, other: "Catalog") -> None:
        """Join another catalog's candidates into an index."""
        reading = _Reading(catalog, other, self.left_out, self.dry_run)
        for theirs in other:
            records = [record for record in records_of(theirs.embeddings) if reading.takes(theirs.id, record)]
            old = index.candidates.get(theirs.id)
            fresh = [] if old is None else [r for r in records if self._is_read_here(theirs.id, r)]
            kept = [record for record in records if record not in fresh]
            read = replace(theirs, embeddings=StoredEmbeddings(catalog.embeddings_folder, kept))
            if old is None:
                self._count("n_added")
                known = read
            else:
                known = self._joined(old, read, "here" if fresh else self.prefer)
                self._count("n_same" if _plain(old) == _plain(known) else "n_changed")
            had = set() if old is None else {record.digest for record in records_of(old.embeddings)}
            self._count("n_embeddings", len({r.digest for r in records_of(known.embeddings)} - had))
            for record in records_of(known.embeddings):
                if record not in kept:
                    continue
                reading.keep(record)
                if record.space not in index.spaces or index.spaces[record.space].probe == Space.probe:
                    index.spaces[record.space] = reading.spaces[record.space]
            index.candidates[read.id] = known
            if other.is_local(read.id):
                index.local.add(read.id)

    def results(self, held: dict[Key, Result], theirs: Sequence[Result]) -> None:
        """Join another catalog's results into those that are held."""
        for new in theirs:
            if new.origin == "card" and self._is_claim_read_here(new):
                self._count("n_results_same")
                continue
            old = held.get(new.key)
            if old is None:
                held[new.key] = new
                self._count("n_results_added")
                continue
            kept, other = (new, old) if self.prefer == "other" else (old, new)
            for name in ("error", "n_test", "embedding"):
                here, there = getattr(old, name), getattr(new, name)
                if here is not None and there is not None and here != there:
                    self._conflict(_named(new), name, str(here)[:19], str(there)[:19], self.prefer)
            known = replace(kept, embedding=kept.embedding or other.embedding)
            if old.error == new.error and kept.n_test is None:
                known = replace(known, n_test=other.n_test)
            held[new.key] = known
            self._count("n_results_same" if known == old else "n_results_changed")

    def results_of(self, other: "Catalog") -> tuple[list[Result], list[TaskEmbedding]]:
        """Another catalog's results, and the embeddings that they name, as far as they can be read."""
        try:
            found = other.results(origin=None)
        except CatalogFileError as error:
            self.left_out.append(str(error))
            return [], []
        embeddings: dict[str, TaskEmbedding] = {}
        for digest in sorted({result.embedding for result in found if result.embedding is not None}):
            try:
                embeddings[digest] = other.task_embedding(digest)
            except (EmbeddingFileError, StorageError) as error:
                self.left_out.append(f"a task with results: {error}")
        known = [r if r.embedding in embeddings else replace(r, embedding=None) for r in found]
        return known, list(embeddings.values())

    def _is_read_here(self, id: str, record: EmbeddingRecord) -> bool:
        """Whether an embedding is of a card that was read here: then sync would not read it again."""
        covering = (scope for scope in self.scopes if scope.covers(record.endpoint, record.space))
        return record.pack is not None and any(scope.cards.get(id) for scope in covering)

    def _is_claim_read_here(self, claim: Result) -> bool:
        own = (scope for scope in self.scopes if scope.report.endpoint == claim.endpoint)
        return any(scope.cards.get(claim.checkpoint) for scope in own)

    def _joined(self, old: Candidate, read: Candidate, prefer: Prefer) -> Candidate:
        """What is known of a candidate from both sides; contradictions are noted."""
        ours = {record.subject: record for record in records_of(old.embeddings)}
        theirs = {record.subject: record for record in records_of(read.embeddings)}
        for name in _FACTS:
            here, there = getattr(old, name), getattr(read, name)
            if here is not None and there is not None and here != there:
                self._conflict(read.id, name, here, there, prefer)
        for subject in ours.keys() & theirs.keys():
            mine, other = ours[subject], theirs[subject]
            if (mine.pack is None) != (other.pack is None):  # whoever is preferred: a card only claims
                del (ours if other.pack is None else theirs)[subject]
            elif mine.digest != other.digest:
                what = f"embedding of {mine.task}"
                self._conflict(read.id, what, mine.digest[:19], other.digest[:19], prefer)
            elif mine != other:  # the same, in another pack
                del theirs[subject]
        old, read = _with(old, ours.values()), _with(read, theirs.values())
        first, last = (old, read) if prefer == "other" else (read, old)
        return joined(first, last, across_revisions=True)

    def _conflict(self, about: str, what: str, here: object, there: object, kept: Prefer) -> None:
        self.conflicts.append(MergeConflict(about, what, str(here), str(there), kept))

    def _count(self, name: str, n: int = 1) -> None:
        self.counts[name] = self.counts.get(name, 0) + n


@dataclass
class _Reading:
    """Another catalog's embeddings, each looked at once, and taken into a catalog.

    Attributes:
        catalog: Where to.
        other: Where from.
        left_out: Is told what cannot be read.
        dry_run: Whether nothing is to be written.
        spaces: The other's spaces, by id.
    """

    catalog: "Catalog"
    other: "Catalog"
    left_out: list[str]
    dry_run: bool
    spaces: dict[str, Space] = field(init=False)
    _errors: dict[tuple[str | None, str], str | None] = field(default_factory=dict)
    _kept: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.spaces = {space.id: space for space in self.other.spaces()}

    def takes(self, id: str, record: EmbeddingRecord) -> bool:
        """Whether a candidate's embedding can be read; says so where it cannot."""
        where = record.pack, record.digest  # one embedding may be damaged in a pack and whole in a file
        if where not in self._errors:
            self._errors[where] = self._error(record)
        error = self._errors[where]
        if error is not None:
            self.left_out.append(f"{id}: {error}")
        return error is None

    def keep(self, record: EmbeddingRecord) -> None:
        """Write what a record of the other catalog names, where it is not here or is damaged."""
        what = record.pack or record.digest
        if self.dry_run or what in self._kept:
            return
        self._kept.add(what)
        if record.pack is not None:
            copy_pack(self.other.cards, self.catalog.cards, record.pack)
        else:
            self.catalog.keep(self.other.task_embedding(record.digest))

    def _error(self, record: EmbeddingRecord) -> str | None:
        try:
            if record.pack is not None:
                open_pack(self.other.cards, record.pack).entry(record.digest)
            else:
                self.other.task_embedding(record.digest)
        except (EmbeddingFileError, StorageError) as error:
            return str(error)
        return None


def _with(candidate: Candidate, records: Collection[EmbeddingRecord]) -> Candidate:
    assert isinstance(candidate.embeddings, StoredEmbeddings)
    return replace(candidate, embeddings=StoredEmbeddings(candidate.embeddings.folder, tuple(records)))


def _plain(candidate: Candidate) -> Mapping[str, object]:
    """All that is known of a candidate, to be compared; where an embedding lies is no matter."""
    facts: dict[str, object] = {name: getattr(candidate, name) for name in _FACTS}
    digests = {record.subject: record.digest for record in records_of(candidate.embeddings)}
    return {**facts, "embeddings": digests}


def _named(result: Result) -> str:
    parts = [f"{result.checkpoint} on {result.task}"]
    parts += [
        f"{name}={value}" for name, value in (("n", result.n), ("seed", result.seed)) if value is not None
    ]
    return ", ".join(parts)
