"""`KnownEmbeddings`: what a catalog knows of tasks, and of what candidates were trained on."""

from collections.abc import Callable, Iterable
from functools import partial

from t2v_hub.catalog.candidate import Candidate, EmbeddingRecord, records_of
from t2v_hub.catalog.catalog import Catalog
from t2v_hub.embedding import TaskEmbedding
from t2v_hub.errors import EmbeddingFileError, StorageError


class KnownEmbeddings:
    """Embeddings of tasks and of candidates in a catalog; each is read once, and only when it is asked for.

    Args:
        catalog: The catalog.

    Attributes:
        skipped: Embeddings that could not be read, in words.
    """

    def __init__(self, catalog: Catalog) -> None:
        self.skipped: list[str] = []
        self._catalog = catalog
        self._given: dict[str, list[TaskEmbedding]] = {}
        self._read: dict[str, TaskEmbedding | None] = {}
        self._trained_on: dict[str, list[tuple[Candidate, int, EmbeddingRecord]]] = {}
        for candidate in catalog:
            for place, record in enumerate(records_of(candidate.embeddings)):
                found = self._trained_on.setdefault(record.task.casefold(), [])
                found.append((candidate, place, record))

    def take(self, embedding: TaskEmbedding) -> None:
        """Know an embedding of a task that is in no catalog."""
        self._given.setdefault(embedding.task.id.casefold(), []).append(embedding)

    def of_task(
        self, task: str, space: str, *, named: Iterable[str] = (), from_cards: bool = True
    ) -> TaskEmbedding | None:
        """The embedding of a task in a space; of several the one of the most images; None without any.

        It is one that results name; or else one that was given; or else one of a candidate that was trained
        on the data set of that id.

        Args:
            task: Its id, whatever its case.
            space: Id of the space.
            named: Digests that its results name.
            from_cards: Whether candidates count whose cards brought the embedding: what a stranger's card
                calls a data set may be anything.
        """
        found = [
            self._once(task, digest, partial(self._catalog.task_embedding, digest))
            for digest in sorted(set(named))
        ]
        if not _in(space, found):
            found = list(self._given.get(task.casefold(), ()))
        if not _in(space, found):
            found = [
                self._stored(candidate, place, record)
                for candidate, place, record in self._trained_on.get(task.casefold(), ())
                if record.space == space and (from_cards or record.pack is None)
            ]
        known = _in(space, found)
        return max(known, key=lambda item: (item.measurement.n_samples, item.digest), default=None)

    def of_candidate(self, id: str, space: str) -> tuple[TaskEmbedding, ...]:
        """A candidate's embeddings in a space, as far as they can be read; it need not be in the catalog."""
        if id not in self._catalog:
            return ()
        candidate = self._catalog[id]
        return _in(
            space,
            [
                self._stored(candidate, place, record)
                for place, record in enumerate(records_of(candidate.embeddings))
                if record.space == space
            ],
        )

    def _stored(self, candidate: Candidate, place: int, record: EmbeddingRecord) -> TaskEmbedding | None:
        return self._once(candidate.id, record.digest, partial(candidate.embeddings.__getitem__, place))

    def _once(self, owner: str, digest: str, read: Callable[[], TaskEmbedding]) -> TaskEmbedding | None:
        if digest not in self._read:
            try:
                self._read[digest] = read()
            except (EmbeddingFileError, StorageError) as error:
                self._read[digest] = None
                self.skipped.append(f"{owner}: {error}")
        return self._read[digest]


def _in(space: str, found: Iterable[TaskEmbedding | None]) -> tuple[TaskEmbedding, ...]:
    return tuple(item for item in found if item is not None and item.space.id == space)
