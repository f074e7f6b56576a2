"""`Nearness`: how near candidates are to tasks by what they were trained on, as selectors see it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from t2v_hub.catalog.candidate import records_of
from t2v_hub.distance import DistanceName, distances
from t2v_hub.embedding import Space, TaskEmbedding
from t2v_hub.errors import EmbeddingFileError, StorageError
from t2v_hub.judging.truth import Array

if TYPE_CHECKING:
    from t2v_hub.catalog import Candidate, Catalog
    from t2v_hub.judging.evidence import Evidence


@dataclass(frozen=True)
class Nearness:
    """Embeddings of tasks and of what candidates were trained on, in one space.

    Attributes:
        space: The space.
        tasks: By the task's number, in its order; not empty.
        sources: By the candidate's number; not empty.
        skipped: Embeddings that could not be read, in words.
    """

    space: Space
    tasks: Mapping[int, TaskEmbedding]
    sources: Mapping[int, tuple[TaskEmbedding, ...]]
    skipped: tuple[str, ...] = ()

    def scores(self, candidates: Sequence["Candidate"], *, name: DistanceName) -> Array:
        """Places of the candidates for each of ``tasks``, ``(n, n_candidates)``, smaller is better.

        As in a ranking: by the distance of the nearest source, equal ones by prior, and those without an
        embedding last, by prior. What is equal even then shares a place.
        """
        rows = [source.fisher for sources in self.sources.values() for source in sources]
        column = [c for c, sources in self.sources.items() for _ in sources]
        matrix = np.stack(rows)
        result = np.zeros((len(self.tasks), len(candidates)))
        for t, task in enumerate(self.tasks.values()):
            nearest = np.full(len(candidates), np.inf)
            np.minimum.at(nearest, column, distances(task, matrix, name=name))
            keys = [
                (float(value), *(-fact for fact in candidate.prior))
                for value, candidate in zip(nearest, candidates, strict=True)
            ]
            place = {key: number for number, key in enumerate(sorted(set(keys)))}
            result[t] = [place[key] for key in keys]
        return result

    def source_of(self, candidate: int) -> TaskEmbedding | None:
        """The one embedding of a candidate that is the nearest to the tasks on average; None without any."""
        from t2v_hub.model2vec.spaces import nearest_on_average

        return nearest_on_average(self.sources.get(candidate, ()), tuple(self.tasks.values()))


def nearness(catalog: "Catalog", evidence: "Evidence") -> Nearness | None:
    """The embeddings in the space in which the most tasks and candidates have one; None where none has.

    A task's embedding is what its results name; else that of a candidate which was trained on it, as far as
    it was added here: what a stranger's card calls a task may be anything.
    """
    skipped: list[str] = []
    tasks: dict[Space, dict[int, TaskEmbedding]] = {}
    sources: dict[Space, dict[int, list[TaskEmbedding]]] = {}

    def read(owner: str, embedding: Callable[[], TaskEmbedding]) -> TaskEmbedding | None:
        try:
            return embedding()
        except (EmbeddingFileError, StorageError) as error:
            skipped.append(f"{owner}: {error}")
            return None

    for t, digests in enumerate(evidence.embeddings):
        for digest in digests:
            if found := read(evidence.tasks[t], partial(catalog.task_embedding, digest)):
                tasks.setdefault(found.space, {}).setdefault(t, found)
    numbers = {task.lower(): t for t, task in enumerate(evidence.tasks)}
    columns = {name: c for c, name in enumerate(evidence.truth.candidates)}
    for candidate in catalog:
        for index, record in enumerate(records_of(candidate.embeddings)):
            c, own = (
                columns.get(candidate.id),
                numbers.get(record.task.lower()) if record.pack is None else None,
            )
            if c is None and own is None:
                continue
            if found := read(candidate.id, partial(candidate.embeddings.__getitem__, index)):
                if c is not None:
                    sources.setdefault(found.space, {}).setdefault(c, []).append(found)
                if own is not None:
                    tasks.setdefault(found.space, {}).setdefault(own, found)
    both = [space for space in tasks if space in sources]
    if not both:
        return None
    space = max(both, key=lambda space: (len(tasks[space]), len(sources[space]), space.id))
    return Nearness(
        space=space,
        tasks=dict(sorted(tasks[space].items())),
        sources={c: tuple(embeddings) for c, embeddings in sources[space].items()},
        skipped=tuple(skipped),
    )
