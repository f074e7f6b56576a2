"""`SpaceEmbeddings`: what a catalog knows of tasks and of candidates in one space."""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from t2v_hub.catalog import Candidate, Catalog, Result
from t2v_hub.catalog.candidate import records_of
from t2v_hub.distance import ALPHA
from t2v_hub.embedding import TaskEmbedding
from t2v_hub.errors import EmbeddingFileError, StorageError
from t2v_hub.model2vec.geometry import distances_to


def nearest_on_average(
    sources: Sequence[TaskEmbedding], tasks: Sequence[TaskEmbedding], *, alpha: float = ALPHA
) -> TaskEmbedding | None:
    """Of several embeddings the one with the smallest mean asymmetric distance to tasks; None of none."""
    if len(sources) < 2 or not tasks:
        return next(iter(sources), None)
    targets = np.stack([task.robust for task in tasks])  # (n_tasks, n_filters)
    trivial = tasks[0].prior_precision
    means = [distances_to(source.robust, targets, trivial, alpha).mean() for source in sources]
    return sources[int(np.argmin(means))]


class SpaceEmbeddings:
    """Embeddings of one space in a catalog: of tasks, and of what candidates were trained on. Read once.

    Args:
        catalog: The catalog.
        space: Id of the space.

    Attributes:
        skipped: Embeddings that could not be read, in words.
    """

    def __init__(self, catalog: Catalog, space: str) -> None:
        self.catalog = catalog
        self.space = space
        self.skipped: list[str] = []
        self._given: dict[str, list[TaskEmbedding]] = {}
        self._read: dict[str, TaskEmbedding | None] = {}
        self._sources: dict[str, list[tuple[Candidate, int]]] = {}
        for candidate in catalog:
            for place, record in enumerate(records_of(candidate.embeddings)):
                if record.space == space:
                    self._sources.setdefault(record.task.casefold(), []).append((candidate, place))

    def take(self, embedding: TaskEmbedding) -> None:
        """Know an embedding that is in no catalog."""
        if embedding.space.id == self.space:
            self._given.setdefault(embedding.task.id.casefold(), []).append(embedding)

    def of_task(self, name: str, results: Sequence[Result]) -> TaskEmbedding | None:
        """The embedding of a task; None where there is none in the space."""
        digests = sorted({result.embedding for result in results if result.embedding is not None})
        named = [self._once(digest, partial(self.catalog.task_embedding, digest)) for digest in digests]
        found = [item for item in named if item is not None and item.space.id == self.space]
        found = found or self._given.get(name, [])
        if not found:
            stored = [self._stored(candidate, place) for candidate, place in self._sources.get(name, ())]
            found = [embedding for embedding in stored if embedding is not None]
        return max(found, key=lambda item: (item.measurement.n_samples, item.digest), default=None)

    def was_trained_on(self, result: Result, task: TaskEmbedding) -> bool:
        """Whether a task, by the id in a result or in its embedding, is what a candidate was trained on."""
        if result.checkpoint not in self.catalog:
            return False
        candidate = self.catalog[result.checkpoint]
        sources = {record.task.casefold() for record in records_of(candidate.embeddings)}
        sources.add((candidate.source or "").casefold())
        return not sources.isdisjoint((result.task.casefold(), task.task.id.casefold()))

    def source_of(
        self, checkpoint: str, tasks: Sequence[TaskEmbedding], alpha: float
    ) -> TaskEmbedding | None:
        """The embedding of a candidate's that is nearest to these tasks on average; None without one."""
        if checkpoint not in self.catalog:
            return None
        candidate = self.catalog[checkpoint]
        places = [p for p, r in enumerate(records_of(candidate.embeddings)) if r.space == self.space]
        found = [e for place in places if (e := self._stored(candidate, place)) is not None]
        return nearest_on_average(found, tasks, alpha=alpha)

    def _stored(self, candidate: Candidate, place: int) -> TaskEmbedding | None:
        digest = records_of(candidate.embeddings)[place].digest
        return self._once(digest, lambda: candidate.embeddings[place])

    def _once(self, digest: str, read: Callable[[], TaskEmbedding]) -> TaskEmbedding | None:
        if digest not in self._read:
            try:
                self._read[digest] = read()
            except (EmbeddingFileError, StorageError) as error:
                self._read[digest] = None
                self.skipped.append(str(error))
        return self._read[digest]
