"""`ResultFolder`: a folder that keeps results, and the embeddings of the tasks that they are of.

::

    results.parquet               one row per result
    embeddings/<sha256>.safetensors

Embeddings are written before the results that name them, and deleted after the results that no longer
do, where no candidate has them.
"""

import abc
import contextlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from t2v_hub.catalog.candidate import file_name
from t2v_hub.catalog.results import Key, Result, ResultOrigin, in_order, read_results, write_results
from t2v_hub.embedding import TaskEmbedding
from t2v_hub.errors import CatalogFileError, EmbeddingFileError, ResultsError, SettingsError, StorageError

_RESULTS = "results.parquet"


class ResultFolder(abc.ABC):
    """Test errors that checkpoints reached on tasks, on disk; `Catalog` is one.

    Unlike candidates, results are read from disk whenever they are asked for.
    """

    path: Path

    @abc.abstractmethod
    def locked(self) -> AbstractContextManager[None]:
        """No other process changes the folder meanwhile."""

    @abc.abstractmethod
    def files_of_candidates(self) -> set[str]:
        """Names of the files of embeddings that candidates have, as the index is on disk now.

        Raises:
            CatalogFileError: It cannot be read.
        """

    @property
    def embeddings_folder(self) -> Path:
        """Folder of the embeddings that were added here."""
        return self.path / "embeddings"

    def record(
        self,
        task: TaskEmbedding | str,
        checkpoint: str,
        error: float,
        *,
        n: int | None = None,
        seed: int | None = None,
        n_test: int | None = None,
    ) -> Result:
        """Keep a test error; one of the same task, checkpoint, ``n`` and ``seed`` is replaced.

        Args:
            task: Its embedding, which is kept too and from which distances can be learned, or its id alone.
            checkpoint: Id of the candidate; it may be added later, or never.
            error: Share of test images that it got wrong, in [0, 1].
            n: Training images that it was reached with.
            seed: Which split or repetition; use one seed for the same split of a task for every checkpoint.
            n_test: Test images behind it.

        Raises:
            SettingsError: A value cannot be one.
            StorageError: The disk is full, read-only or closed to us; what was there stays.
        """
        if not isinstance(task, TaskEmbedding | str):
            raise SettingsError(
                f"task must be a TaskEmbedding or the id of a data set, not {type(task).__name__}."
            )
        id, digest = (task, None) if isinstance(task, str) else (task.task.id, task.digest)
        result = Result(id, checkpoint, error, n=n, seed=seed, n_test=n_test, embedding=digest)
        self.record_many([result], embeddings=[] if isinstance(task, str) else [task])
        return result

    def record_many(self, results: Iterable[Result], *, embeddings: Iterable[TaskEmbedding] = ()) -> None:
        """`record` many results and write the file once: all of them are kept, or none.

        Args:
            results: The results.
            embeddings: Those that the results name and that are not here yet.

        Raises:
            SettingsError: Something else than a `Result` is among them.
            ResultsError: A result names an embedding that is neither here nor given.
            StorageError: The disk is full, read-only or closed to us; what was there stays.
        """
        new = tuple(results)
        for item in new:
            if not isinstance(item, Result):
                raise SettingsError(f"Only a Result can be recorded, not {type(item).__name__}.")
        given = {embedding.digest: embedding for embedding in embeddings}
        named = _digests(new)
        with self.changing_results() as held:
            for digest in named - given.keys():
                if not (self.embeddings_folder / file_name(digest)).is_file():
                    task = next(result.task for result in new if result.embedding == digest)
                    raise ResultsError(
                        f"A result on {task!r} names the embedding {digest[:19]}…, which is neither in "
                        f"{str(self.path)!r} nor given. Pass it: record_many(results, embeddings=[...])."
                    )
            for digest in named & given.keys():
                self.keep(given[digest])
            held |= {result.key: result for result in new}

    def results(
        self,
        *,
        task: str | None = None,
        checkpoint: str | None = None,
        n: int | None = None,
        origin: ResultOrigin | None = "run",
    ) -> tuple[Result, ...]:
        """The results, as they are on disk now, by task, checkpoint, n and seed.

        Args:
            task: Only those on the task of this id.
            checkpoint: Only those of this checkpoint.
            n: Only those with so many training images; all by default.
            origin: ``run`` for what the user measured, ``card`` for what cards claim; None for both.

        Raises:
            CatalogFileError: They cannot be read.
        """
        wanted = {"task": task, "checkpoint": checkpoint, "n": n, "origin": origin}
        tests = [(name, value) for name, value in wanted.items() if value is not None]
        found = read_results(self.path / _RESULTS).values()
        return in_order(r for r in found if all(getattr(r, name) == value for name, value in tests))

    def remove_results(self, results: Iterable[Result]) -> int:
        """Remove results, and embeddings that nothing names any more; returns how many were there.

        Raises:
            StorageError: The disk is full, read-only or closed to us; what was there stays.
        """
        keys = {result.key for result in results}
        with self.changing_results() as held:
            removed = keys & held.keys()
            for key in removed:
                del held[key]
        return len(removed)

    def task_embedding(self, digest: str) -> TaskEmbedding:
        """The embedding that `Result.embedding` names.

        Raises:
            SettingsError: This is no digest.
            EmbeddingFileError: It is not here, or damaged.
        """
        try:
            path = self.embeddings_folder / file_name(digest)
        except ValueError as error:
            raise SettingsError(
                f"{digest!r} is no digest of an embedding; wanted what Result.embedding holds."
            ) from error
        embedding = TaskEmbedding.load(path)
        if embedding.digest != digest:
            raise EmbeddingFileError(
                f"{str(path)!r} holds another embedding than its name says. Record the task's embedding "
                f"again."
            )
        return embedding

    def refresh_claims(
        self, endpoint: str, read: Mapping[str, Sequence[Result]], *, listed: Collection[str]
    ) -> None:
        """Replace what cards on a Hub claimed by what they claim now.

        Args:
            endpoint: Address of the Hub.
            read: Claims by the checkpoints whose cards were read just now.
            listed: Checkpoints that are known to have cards there; claims of others are removed.

        Raises:
            CatalogFileError: The results cannot be read.
        """

        def is_stale(result: Result) -> bool:
            claimed = result.origin == "card" and result.endpoint == endpoint
            return claimed and (result.checkpoint in read or result.checkpoint not in listed)

        with self.changing_results() as held:
            for key in [key for key, result in held.items() if is_stale(result)]:
                del held[key]
            held |= {result.key: result for claims in read.values() for result in claims}

    def _files_of_results(self) -> set[str]:
        """Names of the files of embeddings that results name, as they are on disk now."""
        return set(map(file_name, _digests(read_results(self.path / _RESULTS).values())))

    @contextlib.contextmanager
    def changing_results(self) -> Iterator[dict[Key, Result]]:
        """The results as they are on disk now; what the body makes of them is written, under the lock."""
        with self.locked():
            before = read_results(self.path / _RESULTS)
            held = dict(before)
            yield held
            if held == before:
                return
            write_results(self.path / _RESULTS, held.values())
            unnamed = set(map(file_name, _digests(before.values()) - _digests(held.values())))
            try:
                self._delete(unnamed - self.files_of_candidates() if unnamed else ())
            except CatalogFileError:  # who knows what the index names: nothing is deleted
                self._delete(())

    def keep(self, embedding: TaskEmbedding) -> None:
        """Write an embedding, unless it is here and whole."""
        path = self.embeddings_folder / file_name(embedding.digest)
        try:
            if TaskEmbedding.load(path).digest == embedding.digest:
                return
        except (EmbeddingFileError, StorageError):
            pass
        embedding.save(path)

    def _delete(self, unnamed: Iterable[str]) -> None:
        """Delete files of embeddings, and what killed writers left half written, under the lock."""
        for path in [
            *(self.embeddings_folder / name for name in unnamed),
            *self.embeddings_folder.glob(".*.tmp"),
        ]:
            with contextlib.suppress(OSError):
                path.unlink()


def _digests(results: Iterable[Result]) -> set[str]:
    return {result.embedding for result in results if result.embedding is not None}
