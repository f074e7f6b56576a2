"""`Catalog`: a folder of candidates that several processes may read and write at once.

::

    candidates.parquet            one row per candidate; the spaces in its metadata
    results.parquet               one row per measured error of a checkpoint on a task
    embeddings/<sha256>.safetensors
    cards/<key>.*                 embeddings that were read from cards, many in one file
    hub.json                      which cards were read, at which commits
    matrices/<space>-<key>.*      a cache; may be deleted
    .lock, .sync.lock             held while a process changes the catalog, or reads cards

Every file is whole or absent. Embeddings are written before the index that names them and deleted
after the index that no longer does, so a process that is killed leaves a catalog that can be read,
at worst with an embedding that nothing names.
"""

import contextlib
import difflib
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

from t2v_hub.catalog.candidate import Candidate, EmbeddingRecord, StoredEmbeddings, records_of
from t2v_hub.catalog.index import Index, read_index, write_index
from t2v_hub.catalog.joining import file_names, joined, spaces_in
from t2v_hub.catalog.matrix import Matrices, Matrix, open_matrix
from t2v_hub.catalog.merging import merge_catalogs
from t2v_hub.catalog.pack import open_pack
from t2v_hub.catalog.plugged import plugged_catalog
from t2v_hub.catalog.recording import ResultFolder
from t2v_hub.catalog.state import SyncReport, read_state
from t2v_hub.embedding import Space, TaskEmbedding
from t2v_hub.errors import (
    CandidateNotFoundError,
    CatalogFileError,
    EmbeddingFileError,
    SettingsError,
)
from t2v_hub.storage import home, locked

if TYPE_CHECKING:
    from t2v_hub.hub.connection import Connection

_INDEX = "candidates.parquet"
_LOCK_SECONDS = 120.0


class Catalog(ResultFolder):
    """Candidates on disk, by id and in the order of their ids; and results, for which see `record`.

    A catalog object is what was on disk when it was opened, or when it last wrote; what other
    processes add meanwhile shows once it is opened again, and is never lost.

    Args:
        path: The folder; it need not exist yet. ``T2V_HOME/catalog`` by default.

    Raises:
        CatalogFileError: Something is there that cannot be read.
    """

    def __init__(self, path: Path | str | None = None) -> None:
        self.path = (home() / "catalog" if path is None else Path(path)).expanduser().absolute()
        self._index = self.index_on_disk()

    @classmethod
    def load(cls, path: Path | str | None = None) -> Self:
        """The catalog in a folder that has one, or at ``NAME:LOCATION`` for what the plug-in NAME opens.

        Raises:
            CatalogFileError: There is none, or it cannot be read.
            CatalogError: The plug-in fails.
        """
        if (plugged := plugged_catalog(path)) is not None:
            return plugged  # type: ignore[return-value]  # whichever catalog the plug-in makes
        catalog = cls(path)
        if not any((catalog.path / name).is_file() for name in (_INDEX, "results.parquet")):
            raise CatalogFileError(
                f"There is no catalog in {str(catalog.path)!r} (no {_INDEX}). Check the path, or start one "
                f"with `t2v catalog add` or Catalog(path).add(Candidate(...))."
            )
        return catalog

    def __len__(self) -> int:
        return len(self._index.candidates)

    def __iter__(self) -> Iterator[Candidate]:
        return iter(self._index.candidates.values())

    def __contains__(self, id: object) -> bool:
        return id in self._index.candidates

    def __getitem__(self, id: str) -> Candidate:
        """The candidate of that id.

        Raises:
            CandidateNotFoundError: There is none; the message names similar ones.
        """
        try:
            return self._index.candidates[id]
        except KeyError:
            near = difflib.get_close_matches(str(id), self._index.candidates, n=3, cutoff=0.5)
            hint = f" Similar: {', '.join(near)}." if near else ""
            raise CandidateNotFoundError(
                f"The catalog in {str(self.path)!r} has no candidate {id!r} among its {len(self)}.{hint} "
                f"`t2v catalog list` shows them all."
            ) from None

    def __repr__(self) -> str:
        return f"Catalog({str(self.path)!r}, n_candidates={len(self)}, n_spaces={len(self.spaces())})"

    def spaces(self) -> dict[Space, int]:
        """Each space in which candidates have an embedding, and how many have; the most common first."""
        counts: dict[str, int] = {}
        for candidate in self:
            for space in spaces_in([candidate]):
                counts[space] = counts.get(space, 0) + 1
        order = sorted(counts, key=lambda space: (-counts[space], space))
        return {self._index.spaces[space]: counts[space] for space in order}

    def matrix(self, space: Space) -> Matrix | Matrices:
        """The Fisher vectors of one space, memory-mapped; one row per distinct embedding.

        Made when first asked for, and again when embeddings came or went. Embeddings that cannot be
        read have no row and are named in `Matrix.damaged`.
        """
        files: dict[str, Path] = {}
        packs: dict[str, list[str]] = {}
        for candidate in self:
            for record in records_of(candidate.embeddings):
                if record.space == space.id and record.pack is None:
                    files[record.digest] = self.embeddings_folder / record.file_name
                elif record.space == space.id and record.pack is not None:
                    packs.setdefault(record.pack, []).append(record.digest)
        own = open_matrix(self.path / "matrices", space.id, space.n_filters, files)
        if not packs:
            return own
        parts, damaged = [own], dict(own.damaged)
        for key, digests in packs.items():
            try:
                pack = open_pack(self.cards, key)
            except EmbeddingFileError as error:
                damaged |= dict.fromkeys(digests, str(error))
                continue
            parts.append(pack.matrix())
            damaged |= {d: f"{key} does not hold it." for d in digests if d not in pack.places}
        return Matrices(tuple(parts), damaged)

    @classmethod
    def from_hub(
        cls,
        path: Path | str | None = None,
        *,
        space: Space | str | None = None,
        filter: str | Iterable[str] = (),
        endpoint: str | None = None,
        token: str | bool | None = None,
    ) -> Self:
        """The catalog in a folder, brought up to date with the cards on the Hub.

        Args:
            path: The folder; ``T2V_HOME/catalog`` by default. Afterwards it needs no network.
            space: Only embeddings of this space, given as such or by its id.
            filter: Only checkpoints with all of these tags of the Hub, such as ``image-classification``.
            endpoint: Address of another Hub.
            token: Access token, where it is not the one that ``hf auth login`` left.

        Raises:
            HubError: The Hub refused, failed or is out of reach; `Catalog(path)` is what was read before.
        """
        catalog = cls(path)
        catalog.sync(space=space, filter=filter, endpoint=endpoint, token=token)
        return catalog

    def sync(
        self,
        *,
        space: Space | str | None = None,
        filter: str | Iterable[str] = (),
        endpoint: str | None = None,
        token: str | bool | None = None,
        again: bool = False,
        connection: "Connection | None" = None,
    ) -> SyncReport:
        """Bring what was read from the cards on the Hub up to date; what was added here stays.

        The first time, a few requests list all enriched checkpoints with their cards; later, one listing of
        commits says which cards changed, and only those are read. What changes without a commit, such as
        downloads, is as it was then (``again`` reads all).

        Args:
            space: Only embeddings of this space, given as such or by its id.
            filter: Only checkpoints with all of these tags of the Hub.
            endpoint: Address of another Hub.
            token: Access token.
            again: Whether to read all cards again.
            connection: What to ask through, in place of ``endpoint`` and ``token``.

        Raises:
            HubError: The Hub refused, failed or is out of reach; the catalog is as it was.
            StorageError: The disk is full, read-only or closed to us.
        """
        from t2v_hub.catalog.sync import sync
        from t2v_hub.hub.connection import Connection  # the one way up: the network's door

        filters = (filter,) if isinstance(filter, str) else tuple(filter)
        link = connection or Connection(endpoint=endpoint, token=token)
        return sync(self, link, space=space, filters=filters, again=again)

    def synced(self, *, space: Space | str | None = None) -> tuple[SyncReport, ...]:
        """When cards were last read into this catalog, and from where; the latest first.

        Args:
            space: Only what covers this space.
        """
        id = space.id if isinstance(space, Space) else space
        found = [scope.report for scope in read_state(self.path) if id is None or scope.space in (None, id)]
        return tuple(sorted(found, key=lambda report: report.synced_at, reverse=True))

    @property
    def cards(self) -> Path:
        """Folder of the embeddings that were read from cards."""
        return self.path / "cards"

    def add(self, candidate: Candidate, *, embedding: TaskEmbedding | None = None) -> None:
        """Add a candidate, or add to what is known of it.

        For an id that is there already, facts that are given replace the old ones, facts that are
        None leave them, and an embedding replaces the one of the same space and task. A candidate of
        another revision, where both are known, replaces the old one altogether.

        Args:
            candidate: The checkpoint.
            embedding: Of a data set it was trained on; joins ``candidate.embeddings``.

        Raises:
            EmbeddingFileError: The candidate comes from a catalog and its embedding is damaged there.
            StorageError: The disk is full, read-only or closed to us; the catalog is as it was.
        """
        if not isinstance(candidate, Candidate):
            raise SettingsError(f"Only a Candidate can be added, not {type(candidate).__name__}.")
        if embedding is not None:
            candidate = replace(candidate, embeddings=(*candidate.embeddings, embedding))
        self.extend([candidate])

    def extend(self, candidates: Iterable[Candidate], *, across_revisions: bool = False) -> None:
        """`add` many candidates and write the index once: all of them are added, or none.

        Args:
            candidates: The checkpoints.
            across_revisions: Whether what is known of another revision is kept, too: the commit of a
                repository changes with its card, also where the weights stay.

        Raises:
            EmbeddingFileError: An embedding is damaged where it comes from; `merge` goes on without.
            StorageError: The disk is full, read-only or closed to us; the catalog is as it was.
        """
        written: set[str] = set()
        with self.changing() as index:
            for candidate in candidates:
                old = index.candidates.get(candidate.id)
                stored = self._store(candidate, index.spaces, written)
                known = stored if old is None else joined(old, stored, across_revisions=across_revisions)
                index.candidates[candidate.id] = known
                index.local.add(candidate.id)

    def merge(self, other: "Catalog") -> tuple[str, ...]:
        """Add every candidate and result of another catalog; `merge_catalogs` says more of what it did.

        Returns:
            What could not be read and was left out, in words; empty when all could.

        Raises:
            StorageError: The disk is full, read-only or closed to us; merging again completes it.
        """
        return merge_catalogs(self, [other]).left_out

    def reload(self) -> None:
        """Take up what other processes wrote since this catalog was opened.

        Raises:
            CatalogFileError: What is there now cannot be read.
        """
        self._index = self.index_on_disk()

    def own_spaces(self) -> dict[Space, int]:
        """As `spaces`, without those that only cards brought: nobody else named their probes.

        They are the spaces of embeddings that were added here, and those that `sync` was asked for.
        """
        named = {scope.space: scope.probe for scope in read_state(self.path) if scope.probe is not None}
        counts: dict[str, int] = {}
        for candidate in self:
            records = records_of(candidate.embeddings)
            for id in {r.space for r in records if r.pack is None or r.space in named}:
                counts[id] = counts.get(id, 0) + 1
        order = sorted(counts, key=lambda space: (-counts[space], space))
        spaces = self._index.spaces
        return {replace(spaces[id], probe=named.get(id) or spaces[id].probe): counts[id] for id in order}

    def remove(self, id: str) -> None:
        """Remove a candidate, and its embeddings where nothing else names them; its results stay.

        Raises:
            CandidateNotFoundError: There is none of that id.
            StorageError: The disk is full, read-only or closed to us; the catalog is as it was.
        """
        if id not in self:
            self._index = self.index_on_disk()
        self[id]  # raises where it is absent
        with self.changing() as index:
            index.candidates.pop(id, None)

    def is_local(self, id: str) -> bool:
        """Whether a candidate was added here; else it is there for its card alone."""
        return id in self._index.local

    def files_of_candidates(self) -> set[str]:
        """See `ResultFolder`."""
        return file_names(self.index_on_disk())

    def locked(self) -> AbstractContextManager[None]:
        """No other process changes the catalog meanwhile.

        Raises:
            StorageError: Another process kept the lock, or the folder cannot be written.
        """
        busy = (
            f"Cannot change the catalog in {str(self.path)!r}: another process has been changing it for "
            f"{_LOCK_SECONDS:.0f} s. Wait for it, or end it, and run the same command again."
        )
        return locked(self.path / ".lock", seconds=_LOCK_SECONDS, busy=busy)

    def index_on_disk(self) -> Index:
        """The index as it is on disk now.

        Raises:
            CatalogFileError: It cannot be read.
        """
        return read_index(self.path / _INDEX, self.embeddings_folder)

    @contextlib.contextmanager
    def changing(self) -> Iterator[Index]:
        """The index as it is on disk now; what the body makes of it is written, under the lock."""
        with self.locked():
            index = self.index_on_disk()
            before = file_names(index)
            yield index
            used = spaces_in(index.candidates.values())
            index = Index(
                candidates=dict(sorted(index.candidates.items())),
                spaces={id: space for id, space in index.spaces.items() if id in used},
                local=index.local & index.candidates.keys(),
            )
            write_index(self.path / _INDEX, index)
            self._index = index
            unnamed = before - file_names(index)
            try:
                self._delete(unnamed - self._files_of_results() if unnamed else ())
            except CatalogFileError:  # who knows what the results name: nothing is deleted
                self._delete(())

    def _store(self, candidate: Candidate, spaces: dict[str, Space], written: set[str]) -> Candidate:
        """The candidate with its embeddings written into this catalog's folder, unless they are just now."""
        embeddings = candidate.embeddings
        if isinstance(embeddings, StoredEmbeddings) and embeddings.folder == self.embeddings_folder:
            here = [self._file(record).is_file() for record in embeddings.records]
            if all(here) and spaces.keys() >= spaces_in([candidate]):
                return candidate
        records: dict[tuple[str, str, str | None, str | None], EmbeddingRecord] = {}
        for embedding in candidate.embeddings:
            record = EmbeddingRecord.of(embedding)
            if record.digest not in written:
                embedding.save(self.embeddings_folder / record.file_name)
                written.add(record.digest)
            spaces[record.space] = embedding.space
            records[record.subject] = record
        return replace(
            candidate, embeddings=StoredEmbeddings(self.embeddings_folder, tuple(records.values()))
        )

    def _file(self, record: EmbeddingRecord) -> Path:
        """The file that holds an embedding."""
        if record.pack is not None:
            return self.cards / f"{record.pack}.parquet"
        return self.embeddings_folder / record.file_name
