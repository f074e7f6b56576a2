"""`embed_manifest`: the tasks of a manifest, or of one shard of it, into a folder of embeddings."""

import copy
import errno
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from t2v_hub import data as data_room
from t2v_hub.data.task import ImageTask
from t2v_hub.embedding import TaskEmbedding
from t2v_hub.errors import StorageError
from t2v_hub.manifest.failures import Failure, FailureTable
from t2v_hub.manifest.manifest import Manifest, ManifestRow
from t2v_hub.manifest.shard import Shard
from t2v_hub.manifest.standing import clear_half_written, note, standing
from t2v_hub.storage import storage_error
from t2v_hub.task2vec import Task2Vec

_FULL = (errno.ENOSPC, errno.EDQUOT)
_HOPELESS = (*_FULL, errno.EROFS)


@dataclass(frozen=True)
class RowOutcome:
    """What became of a row.

    Attributes:
        row: The row.
        state: ``embedded`` now, ``there`` from an earlier run, or ``failed``.
        path: The embedding's file.
        embedding: The embedding; None where it failed.
        image_column: Column that the images came from, where the data has columns and was read now.
        seconds: How long reading and measuring took.
        error: Why it failed.
    """

    row: ManifestRow
    state: Literal["embedded", "there", "failed"]
    path: Path
    embedding: TaskEmbedding | None = field(default=None, repr=False)
    image_column: str | None = None
    seconds: float = 0.0
    error: Exception | None = None


@dataclass(frozen=True)
class ManifestReport:
    """What a run did.

    Attributes:
        shard: Which part of the rows it took.
        n_rows: Rows of the manifest.
        embedded: Rows that were embedded now.
        there: Rows that had been before.
        failed: Rows that failed.
        failures: Table of these; there is none where no row failed.
        n_files: Rows of the whole manifest that have a file now, whichever process wrote it.
        seconds: How long the run took.
    """

    shard: Shard
    n_rows: int
    embedded: tuple[ManifestRow, ...]
    there: tuple[ManifestRow, ...]
    failed: tuple[ManifestRow, ...]
    failures: Path
    n_files: int
    seconds: float


def embed_manifest(
    manifest: Manifest,
    folder: Path | str,
    *,
    task2vec: Task2Vec,
    shard: Shard | None = None,
    overwrite: bool = False,
    begin: Callable[[ManifestRow, int, int], object] | None = None,
    tell: Callable[[RowOutcome], object] | None = None,
    words: Callable[[str], str] = str,
) -> ManifestReport:
    """Embed the tasks of a manifest, each into a file of its own in a folder that processes may share.

    What is there already is left as it is (see `standing`), so that a run which was killed goes on where it
    stopped. Files are whole or absent: two processes that take the same rows do some work twice, and that is
    all. A row that fails is noted in a table of failures, ``failures-<i>-of-<n>.csv``, and tried again by the
    next run; it never ends this one.

    Args:
        manifest: The tasks.
        folder: Where embeddings go; made where it is not there.
        task2vec: What to embed with; a row's own ``max_samples`` goes before its.
        shard: Which rows; all by default.
        overwrite: Whether rows that are done are embedded again, and whatever their files hold is replaced.
        begin: Called before a row is embedded, with its place in the shard, from 1, and the shard's size.
        tell: Called with each outcome.
        words: Turns the message of an error into what the table of failures says.

    Raises:
        StorageError: The folder cannot be made, or a disk is full or read-only, a cache's too: what follows
            would fare no better. What was finished is kept.
    """
    start = time.monotonic()
    folder, shard = Path(folder), shard or Shard()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(folder, error) from error
    names = {row.file_name for row in manifest.rows}
    clear_half_written(folder, names)
    rows = manifest.part(shard)
    table = FailureTable(folder, shard, files={row.file_name for row in rows}, manifest=names)
    run = _Run(manifest, folder, task2vec, overwrite, begin)
    states: dict[str, list[ManifestRow]] = {"embedded": [], "there": [], "failed": []}
    for place, row in enumerate(rows, start=1):
        outcome = run.outcome(row, place, len(rows))
        states[outcome.state].append(row)
        if outcome.error is None:
            table.heal(row.file_name)
        else:
            table.add(Failure.of(row, outcome.error, message=words(str(outcome.error))))
        if tell is not None:
            tell(outcome)
    table.settle({row.file_name for row in (*states["embedded"], *states["there"])})
    return ManifestReport(
        shard=shard,
        n_rows=len(manifest),
        embedded=tuple(states["embedded"]),
        there=tuple(states["there"]),
        failed=tuple(states["failed"]),
        failures=table.path,
        n_files=sum((folder / row.file_name).is_file() for row in manifest.rows),
        seconds=time.monotonic() - start,
    )


@dataclass(frozen=True)
class _Run:
    """One run."""

    manifest: Manifest
    folder: Path
    task2vec: Task2Vec
    overwrite: bool
    begin: Callable[[ManifestRow, int, int], object] | None

    def outcome(self, row: ManifestRow, place: int, n: int) -> RowOutcome:
        """What becomes of a row, the ``place``-th of ``n``."""
        path, start = self.folder / row.file_name, time.perf_counter()
        try:
            if not self.overwrite:
                state, found = standing(self.folder, row, task2vec=self.task2vec)
                if state == "done":
                    return RowOutcome(row, "there", path, found)
            if self.begin is not None:
                self.begin(row, place, n)
            embedder = self._embedder(row)
            task = self._data(row)
            embedding = embedder.embed(task)
            embedding.save(path)
            note(self.folder, row, embedding)
        # Thousands of strangers' data sets go through libraries that may raise anything: one of them must
        # not cost the others. The error is named, in the report and in the table.
        except Exception as error:
            hopeless = _hopeless(error)
            if hopeless is error:
                raise
            if hopeless is not None:
                raise hopeless from error
            return self._failed(row, path, start, error)
        return RowOutcome(row, "embedded", path, embedding, task.image_column, time.perf_counter() - start)

    def _failed(self, row: ManifestRow, path: Path, start: float, error: Exception) -> RowOutcome:
        return RowOutcome(row, "failed", path, seconds=time.perf_counter() - start, error=error)

    def _embedder(self, row: ManifestRow) -> Task2Vec:
        if row.max_samples is None:
            return self.task2vec
        own = copy.copy(self.task2vec)  # with the same probe; the number matters to the drawing only
        own.max_samples = row.max_samples
        return own

    def _data(self, row: ManifestRow) -> ImageTask:
        return data_room.load(
            self.manifest.location(row),
            name=row.task,
            seed=self.task2vec.seed,
            progress=self.task2vec.progress,
            **row.options,  # type: ignore[arg-type]  # small_classes was checked by the manifest
        )


def _hopeless(error: BaseException | None) -> StorageError | None:
    """What ends a run: an error below which a disk is full, or may not be written."""
    below, seen, handled = error, set[int](), False
    while below is not None and id(below) not in seen:
        seen.add(id(below))
        # Where a library tried to write and then failed on something else, a read-only place says nothing.
        if isinstance(below, OSError) and below.errno in (_FULL if handled else _HOPELESS):
            if isinstance(error, StorageError):
                return error
            return (
                below if isinstance(below, StorageError) else storage_error(below.filename or "a file", below)
            )
        handled = handled or below.__cause__ is None
        below = below.__cause__ or (None if below.__suppress_context__ else below.__context__)
    return None
