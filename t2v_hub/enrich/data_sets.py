"""`Measurer`: the embedding of a data set, measured where it is nowhere to be had."""

from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from t2v_hub.embedding import Space, TaskEmbedding
from t2v_hub.enrich.journal import Journal
from t2v_hub.enrich.patience import Patience
from t2v_hub.enrich.report import DataSetOutcome, DataSetState
from t2v_hub.errors import DataError, HubUnreachableError, RateLimitError, StorageError, T2VError
from t2v_hub.executors import Executor, results
from t2v_hub.hub.connection import Connection, repository_path
from t2v_hub.hub.datasets import stored_embedding

if TYPE_CHECKING:
    from t2v_hub.task2vec import Task2Vec

_LEAST_KEPT = 1000


@dataclass(frozen=True)
class DataSet:
    """A data set as the Hub knows it.

    Attributes:
        id: Its present name, as the Hub spells it.
        revision: Its commit; None where it has none.
        private: Whether only some may see it.
    """

    id: str
    revision: str | None
    private: bool


Found = tuple[DataSet, TaskEmbedding | None, DataSetOutcome]


@dataclass(frozen=True)
class Measurer:
    """Finds or measures embeddings of data sets, each once.

    Attributes:
        link: What to ask through.
        task2vec: What to embed with.
        space: The space that it measures in, for one label per image.
        journal: What was measured before.
        patience: Counts how often the Hub is out of reach.
        max_scan: Images of a data set that are streamed at most.
        executor: Where to measure; None for this process.
    """

    link: Connection
    task2vec: "Task2Vec"
    space: Space
    journal: Journal
    patience: Patience
    max_scan: int
    executor: Executor | None = None

    def embeddings(self, sizes: Mapping[str, int]) -> Generator[tuple[str, Found], None, None]:
        """Data sets and their embeddings: kept, from their cards, or measured now.

        They come one after the other; from an executor as soon as they are measured.

        Args:
            sizes: How many checkpoints were trained on each, by what cards call it.

        Raises:
            HubError: The Hub asks to wait for too long, or is out of reach again and again.
            StorageError: The journal cannot be written.
        """
        measure = _Streamed(self.task2vec, self.max_scan)
        if self.executor is not None:
            yield from self._measured_by(self.executor, measure, sizes)
            return
        for name, size in sizes.items():
            found = self._known(name, size)
            if isinstance(found, DataSet):
                embedding: TaskEmbedding | T2VError
                try:
                    embedding = measure((found.id, found.revision))
                except T2VError as error:
                    embedding = error
                found = self._measured(found, size, embedding)
            yield name, found

    def _measured_by(
        self, executor: Executor, measure: "_Streamed", sizes: Mapping[str, int]
    ) -> Generator[tuple[str, Found], None, None]:
        """The Hub and the journal are asked here; only what must be measured is handed on."""
        ready: list[tuple[str, Found]] = []
        handed: list[DataSet] = []
        waiting: dict[DataSet, list[str]] = {}

        def unknown() -> Iterator[tuple[str, str | None]]:
            for name, size in sizes.items():
                found = self._known(name, size)
                if not isinstance(found, DataSet):
                    ready.append((name, found))
                elif found in waiting:  # another name of one that is being measured
                    waiting[found].append(name)
                else:
                    waiting[found] = [name]
                    handed.append(found)
                    yield found.id, found.revision

        failure: T2VError | None = None
        with closing(results(executor, measure, unknown())) as outcomes:
            try:
                for place, result in outcomes:
                    data_set = handed[place]
                    first, *others = waiting.pop(data_set)
                    if isinstance(result, StorageError):  # of the worker's own machine
                        result = DataError(f"in a worker: {result}")
                    found = self._measured(data_set, sizes[first], result)
                    ready.append((first, found))
                    for name in others:
                        same = replace(found[2], n_checkpoints=sizes[name])
                        again = same if found[1] is None else replace(same, state="reused")
                        ready.append((name, (data_set, found[1], again)))
                    yield from ready
                    ready.clear()
            except T2VError as error:  # what is known already is written before the run ends
                failure = error
        yield from ready
        if failure is not None:
            raise failure

    def _known(self, name: str, size: int) -> DataSet | Found:
        """A data set that must be measured; or what is known of it, or why nothing can be known."""
        data_set = DataSet(name, None, private=True)
        try:
            data_set = self._data_set(name)
            self.patience.answered()
            known = self._stored(data_set)
        except T2VError as error:
            return self._failed(data_set, size, error)
        if known is None:
            return data_set
        embedding, state = known
        return data_set, embedding, DataSetOutcome(data_set.id, size, state)

    def _measured(self, data_set: DataSet, size: int, result: TaskEmbedding | T2VError) -> Found:
        """What was measured now, kept in the journal, or why it was not."""
        if isinstance(result, TaskEmbedding) and result.space != self.space:
            result = DataError("its images have several labels, which is another space")
        if isinstance(result, T2VError):
            return self._failed(data_set, size, result)
        self.journal.keep_embedding(data_set.id, result)
        return data_set, result, DataSetOutcome(data_set.id, size, "embedded")

    def _failed(self, data_set: DataSet, size: int, error: T2VError) -> Found:
        """A data set without an embedding, and why; what ends the run is raised."""
        if isinstance(error, RateLimitError | StorageError):
            raise error  # what follows would fare no better
        if isinstance(error, HubUnreachableError):
            self.patience.out_of_reach(error)
        else:
            self.patience.answered()
        return data_set, None, DataSetOutcome(data_set.id, size, "failed", str(error))

    def _data_set(self, name: str) -> DataSet:
        fields = [("expand", "sha"), ("expand", "private")]
        info = self.link.json(repository_path("dataset", name), fields, what=f"The data set {name!r}")
        id, sha = info.get("id"), info.get("sha")
        return DataSet(
            id if isinstance(id, str) and id else name,
            sha if isinstance(sha, str) else None,
            private=info.get("private") is not False,  # who does not say so is taken to keep it secret
        )

    def _stored(self, data_set: DataSet) -> tuple[TaskEmbedding, DataSetState] | None:
        """What an earlier run kept, or what the data set's own card holds."""
        kept = None if data_set.revision is None else self.journal.embedding(data_set.id, data_set.revision)
        if kept is not None and kept.space == self.space:
            return _named(kept, data_set.id), "reused"
        stored = stored_embedding(data_set.id, [self.space], connection=self.link)
        if stored is not None:
            stored = _named(stored, data_set.id)
            self.journal.keep_embedding(data_set.id, stored)
            return stored, "from its card"
        return None


@dataclass(frozen=True)
class _Streamed:
    """Embeds a bounded sample of a data set, wherever it is called; it knows no token and no card."""

    task2vec: "Task2Vec"
    max_scan: int

    def __call__(self, data_set: tuple[str, str | None]) -> TaskEmbedding:
        id, revision = data_set
        return self.task2vec.embed(
            id,
            streaming=True,
            revision=revision,
            max_scan=self.max_scan,
            # Any sample that is drawn from all images lies within so many of each class's first.
            max_kept=max(_LEAST_KEPT, 2 * self.task2vec.max_samples),
            small_classes="drop",
        )


def _named(embedding: TaskEmbedding, id: str) -> TaskEmbedding:
    """The embedding under the data set's present name: two spellings would be two entries."""
    return embedding if embedding.task.id == id else replace(embedding, task=replace(embedding.task, id=id))
