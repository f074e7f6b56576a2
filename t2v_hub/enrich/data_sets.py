"""`Measurer`: the embedding of a data set, measured where it is nowhere to be had."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from t2v_hub.embedding import Space, TaskEmbedding
from t2v_hub.enrich.journal import Journal
from t2v_hub.enrich.patience import Patience
from t2v_hub.enrich.report import DataSetOutcome, DataSetState
from t2v_hub.errors import DataError, HubUnreachableError, RateLimitError, StorageError, T2VError
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
    """

    link: Connection
    task2vec: "Task2Vec"
    space: Space
    journal: Journal
    patience: Patience
    max_scan: int

    def embedding(
        self, name: str, n_checkpoints: int
    ) -> tuple[DataSet, TaskEmbedding | None, DataSetOutcome]:
        """A data set by what cards call it, and its embedding: kept, from its card, or measured now.

        Raises:
            HubError: The Hub asks to wait for too long, or is out of reach again and again.
            StorageError: The journal cannot be written.
        """
        data_set = DataSet(name, None, private=True)
        try:
            data_set = self._data_set(name)
            self.patience.answered()
            embedding, state = self._found(data_set)
        except (RateLimitError, StorageError):
            raise  # what follows would fare no better
        except HubUnreachableError as error:
            self.patience.out_of_reach(error)
            return data_set, None, DataSetOutcome(data_set.id, n_checkpoints, "failed", str(error))
        except T2VError as error:
            self.patience.answered()
            return data_set, None, DataSetOutcome(data_set.id, n_checkpoints, "failed", str(error))
        return data_set, embedding, DataSetOutcome(data_set.id, n_checkpoints, state)

    def _data_set(self, name: str) -> DataSet:
        fields = [("expand", "sha"), ("expand", "private")]
        info = self.link.json(repository_path("dataset", name), fields, what=f"The data set {name!r}")
        id, sha = info.get("id"), info.get("sha")
        return DataSet(
            id if isinstance(id, str) and id else name,
            sha if isinstance(sha, str) else None,
            private=info.get("private") is not False,  # who does not say so is taken to keep it secret
        )

    def _found(self, data_set: DataSet) -> tuple[TaskEmbedding, DataSetState]:
        kept = None if data_set.revision is None else self.journal.embedding(data_set.id, data_set.revision)
        if kept is not None and kept.space == self.space:
            return _named(kept, data_set.id), "reused"
        stored = stored_embedding(data_set.id, [self.space], connection=self.link)
        if stored is not None:
            stored = _named(stored, data_set.id)
            self.journal.keep_embedding(data_set.id, stored)
            return stored, "from its card"
        embedding = self.task2vec.embed(
            data_set.id,
            streaming=True,
            revision=data_set.revision,
            max_scan=self.max_scan,
            # Any sample that is drawn from all images lies within so many of each class's first.
            max_kept=max(_LEAST_KEPT, 2 * self.task2vec.max_samples),
            small_classes="drop",
        )
        if embedding.space != self.space:
            raise DataError("its images have several labels, which is another space")
        self.journal.keep_embedding(data_set.id, embedding)
        return embedding, "embedded"


def _named(embedding: TaskEmbedding, id: str) -> TaskEmbedding:
    """The embedding under the data set's present name: two spellings would be two entries."""
    return embedding if embedding.task.id == id else replace(embedding, task=replace(embedding.task, id=id))
