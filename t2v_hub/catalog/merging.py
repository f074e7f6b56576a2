"""`merge_catalogs`: other catalogs joined into one, and `MergeReport`: what that changed."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Literal

from t2v_hub.catalog.candidate import Candidate, StoredEmbeddings, records_of
from t2v_hub.catalog.index import Index
from t2v_hub.catalog.joining import joined
from t2v_hub.catalog.results import Key, Result
from t2v_hub.embedding import TaskEmbedding
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
        what: ``revision``, another fact, ``embedding`` or ``error``.
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
    catalog. Of two revisions of a checkpoint, one stays with all that was known of it. What cannot be read
    is named and left out.

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
    tally = _Tally(prefer, dry_run)
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
        written: set[str] = set()
        for theirs in other:
            read = replace(theirs, embeddings=tuple(self._readable(theirs)))
            old = index.candidates.get(read.id)
            if old is None:
                self._count("n_added")
                known = self._stored(catalog, index, read, written)
            else:
                known = self._joined(catalog, index, old, read, written)
                self._count("n_same" if _plain(old) == _plain(known) else "n_changed")
            had = set() if old is None else {record.digest for record in records_of(old.embeddings)}
            self._count("n_embeddings", len({r.digest for r in records_of(known.embeddings)} - had))
            index.candidates[read.id] = known
            index.local.add(read.id)

    def results(self, held: dict[Key, Result], theirs: Sequence[Result]) -> None:
        """Join another catalog's results into those that are held."""
        for new in theirs:
            old = held.get(new.key)
            if old is None:
                held[new.key] = new
                self._count("n_results_added")
                continue
            kept, other = (new, old) if self.prefer == "other" else (old, new)
            if old.error != new.error:
                self._conflict(_named(new), "error", old.error, new.error)
                known = replace(kept, embedding=kept.embedding or other.embedding)
            else:
                known = replace(
                    kept,
                    n_test=kept.n_test if kept.n_test is not None else other.n_test,
                    embedding=kept.embedding or other.embedding,
                )
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

    def _joined(
        self, catalog: "Catalog", index: Index, old: Candidate, read: Candidate, written: set[str]
    ) -> Candidate:
        """What is known of a candidate from both sides; contradictions are noted."""
        other_revision = None not in (old.revision, read.revision) and old.revision != read.revision
        ours = {record.subject: record.digest for record in records_of(old.embeddings)}
        if other_revision:
            self._conflict(read.id, "revision", old.revision, read.revision)
            if self.prefer == "here":
                return old
        else:
            for name in _FACTS:
                here, there = getattr(old, name), getattr(read, name)
                if here is not None and there is not None and here != there:
                    self._conflict(read.id, name, here, there)
            for record in records_of(read.embeddings):
                here = ours.get(record.subject, record.digest)
                if here != record.digest:
                    self._conflict(read.id, f"embedding of {record.task}", here[:19], record.digest[:19])
        if self.prefer == "other":
            return joined(old, self._stored(catalog, index, read, written), across_revisions=False)
        new = [
            embedding
            for embedding, record in zip(read.embeddings, records_of(read.embeddings), strict=True)
            if record.subject not in ours
        ]
        stored = self._stored(catalog, index, replace(read, embeddings=new), written)
        return joined(stored, old, across_revisions=False)

    def _stored(self, catalog: "Catalog", index: Index, read: Candidate, written: set[str]) -> Candidate:
        """The candidate with its embeddings in the catalog's folder."""
        if self.dry_run:
            records = records_of(read.embeddings)
            return replace(read, embeddings=StoredEmbeddings(catalog.embeddings_folder, records))
        return catalog.store(read, index.spaces, written)

    def _readable(self, candidate: Candidate) -> Iterator[TaskEmbedding]:
        for place in range(len(candidate.embeddings)):
            try:
                yield candidate.embeddings[place]
            except (EmbeddingFileError, StorageError) as error:
                self.left_out.append(f"{candidate.id}: {error}")

    def _conflict(self, about: str, what: str, here: object, there: object) -> None:
        self.conflicts.append(MergeConflict(about, what, str(here), str(there), self.prefer))

    def _count(self, name: str, n: int = 1) -> None:
        self.counts[name] = self.counts.get(name, 0) + n


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
