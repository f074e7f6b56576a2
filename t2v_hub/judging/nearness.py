"""`Nearness`: how near candidates are to tasks by what they were trained on, as selectors see it."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from t2v_hub.catalog.candidate import records_of
from t2v_hub.catalog.known import KnownEmbeddings
from t2v_hub.distance import DistanceName, distances
from t2v_hub.embedding import Space, TaskEmbedding
from t2v_hub.judging.evidence import GroupBy, owner
from t2v_hub.judging.truth import Array
from t2v_hub.selector.experience import NO_EXPERIENCE, Experience, not_own

if TYPE_CHECKING:
    from t2v_hub.catalog import Candidate, Catalog, Result
    from t2v_hub.judging.evidence import Evidence


@dataclass(frozen=True)
class Nearness:
    """Embeddings of tasks and of what candidates were trained on, in one space, and what breaks their ties.

    Attributes:
        space: The space.
        tasks: By the task's number, in its order; not empty.
        sources: By the candidate's number; not empty.
        skipped: Embeddings that could not be read, in words.
        experience: Of each of the tasks, what results on tasks of other groups say of the candidates.
    """

    space: Space
    tasks: Mapping[int, TaskEmbedding]
    sources: Mapping[int, tuple[TaskEmbedding, ...]]
    skipped: tuple[str, ...] = ()
    experience: Mapping[int, Experience] = field(default_factory=dict)

    def scores(self, candidates: Sequence["Candidate"], *, name: DistanceName) -> Array:
        """Places of the candidates for each of ``tasks``, ``(n, n_candidates)``, smaller is better.

        As in a ranking: by the distance of the nearest source, equal ones by prior, and those without an
        embedding last, by prior; which goes by results on other tasks first. What is equal even then shares a
        place.
        """
        rows = [source.fisher for sources in self.sources.values() for source in sources]
        column = [c for c, sources in self.sources.items() for _ in sources]
        matrix = np.stack(rows)
        result = np.zeros((len(self.tasks), len(candidates)))
        for place, (t, task) in enumerate(self.tasks.items()):
            nearest = np.full(len(candidates), np.inf)
            np.minimum.at(nearest, column, distances(task, matrix, name=name))
            experience = self.experience.get(t, NO_EXPERIENCE)
            keys = [
                (float(value), *(-fact for fact in experience.prior(candidate)))
                for value, candidate in zip(nearest, candidates, strict=True)
            ]
            number = {key: i for i, key in enumerate(sorted(set(keys)))}
            result[place] = [number[key] for key in keys]
        return result

    def source_of(self, candidate: int) -> TaskEmbedding | None:
        """The one embedding of a candidate that is the nearest to the tasks on average; None without any."""
        from t2v_hub.model2vec.spaces import nearest_on_average

        return nearest_on_average(self.sources.get(candidate, ()), tuple(self.tasks.values()))


def nearness(
    catalog: "Catalog",
    evidence: "Evidence",
    *,
    results: Sequence["Result"] = (),
    group_by: GroupBy = "task",
) -> Nearness | None:
    """The embeddings in the space in which the most tasks and candidates have one; None where none has.

    A task's embedding is what its results name; else that of a candidate which was trained on it, as far as
    it was added here: what a stranger's card calls a task may be anything.

    Args:
        catalog: The candidates.
        evidence: The tasks.
        results: By which a ranking's prior goes first; those on a task, and on others of its group, do not
            count for it.
        group_by: What a group is.
    """
    known = KnownEmbeddings(catalog)
    columns = {name: c for c, name in enumerate(evidence.truth.candidates) if name in catalog}
    spaces = {record.space for name in columns for record in records_of(catalog[name].embeddings)}
    best: tuple[tuple[int, int, str], dict[int, TaskEmbedding], dict[int, tuple[TaskEmbedding, ...]]] | None
    best = None
    for space in sorted(spaces):
        pairs = enumerate(zip(evidence.tasks, evidence.embeddings, strict=True))
        own = {t: known.of_task(task, space, named=named, from_cards=False) for t, (task, named) in pairs}
        tasks = {t: embedding for t, embedding in own.items() if embedding is not None}
        every = {c: known.of_candidate(name, space) for name, c in columns.items()}
        sources = {c: embeddings for c, embeddings in every.items() if embeddings}
        size = len(tasks), len(sources), space
        if tasks and sources and (best is None or size > best[0]):
            best = size, tasks, sources
    if best is None:
        return None
    _, tasks, sources = best
    return Nearness(
        space=next(iter(tasks.values())).space,
        tasks=tasks,
        sources=sources,
        skipped=tuple(known.skipped),
        experience=_experience(catalog, evidence, tasks, results, group_by),
    )


def _experience(
    catalog: "Catalog",
    evidence: "Evidence",
    tasks: Mapping[int, TaskEmbedding],
    results: Sequence["Result"],
    group_by: GroupBy,
) -> dict[int, Experience]:
    """Of each task, what the results on tasks of other groups say: as a ranking for it would have them."""

    def group_of(task: str) -> str:
        return (owner(task) if group_by == "owner" else task).casefold()

    names: dict[str, set[str]] = defaultdict(set)  # all that a group's tasks are known by
    for result in results:
        named = (result.task, result.embedding)
        names[group_of(result.task)].update(name for name in named if name is not None)
    counted = not_own(results, catalog)
    found = {}
    for t, task in tasks.items():
        group = {task.task.id, task.digest, *evidence.embeddings[t], *names[group_of(evidence.tasks[t])]}
        found[t] = Experience.from_results(counted, without=group)
    return found
