"""`Evidence`: recorded results as tasks × candidates × splits, and what had to be left out of it."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from t2v_hub.judging.truth import GroundTruth

if TYPE_CHECKING:
    from t2v_hub.catalog import Candidate
    from t2v_hub.catalog.results import Result

GroupBy = Literal["task", "owner"]
Seed = int | None
Cells = dict[str, dict[Seed, "Result"]]
"""Results of one task, by candidate and seed."""

ASSUMED_TEST_IMAGES = 100
"""Test images of a task whose results do not say: only the mean of ratios hangs on it, and little."""


@dataclass(frozen=True)
class LeftOut:
    """What of the results is not in a table.

    Attributes:
        own: Pairs of a task and a candidate that was trained on it: a free win, had it counted.
        incomplete: Pairs without a result on one of the task's splits.
        tasks: Tasks on which fewer than two candidates are left.
        repeated: Results that a later one of the same task, candidate and seed replaced.
    """

    own: int = 0
    incomplete: int = 0
    tasks: tuple[str, ...] = ()
    repeated: int = 0


@dataclass(frozen=True)
class Evidence:
    """Results of like training, as tasks × candidates × splits.

    Attributes:
        truth: The errors; its sources are groups of tasks that are resampled, and left out, together.
        tasks: Ids, ``(n_tasks,)``.
        n: Training images of each task, ``(n_tasks,)``; None where that is not known.
        embeddings: Digests of each task's embeddings, the most often named first, ``(n_tasks,)``.
        assumed: Tasks whose results do not say how many test images there were.
        left_out: What it does not hold.
    """

    truth: GroundTruth
    tasks: tuple[str, ...]
    n: tuple[int | None, ...]
    embeddings: tuple[tuple[str, ...], ...]
    assumed: tuple[str, ...] = ()
    left_out: LeftOut = LeftOut()

    @property
    def n_splits(self) -> int:
        """Splits of each task."""
        return int(self.truth.errors.shape[2])

    @property
    def size(self) -> int | None:
        """Training images, where they are the same for all tasks and known."""
        return self.n[0] if len(set(self.n)) == 1 else None

    @property
    def n_groups(self) -> int:
        """Groups of tasks."""
        return len(set(self.truth.sources))

    def of_tasks(self, numbers: Sequence[int]) -> "Evidence":
        """The same without the other tasks, and without candidates that only these were measured with."""
        rows = list(numbers)
        errors = self.truth.errors[rows]
        kept = [c for c in range(errors.shape[1]) if not np.isnan(errors[:, c]).all()]
        return Evidence(
            truth=GroundTruth(
                errors[:, kept],
                self.truth.n_test[rows],
                tuple(self.truth.candidates[c] for c in kept),
                tuple(self.truth.sources[t] for t in rows),
            ),
            tasks=tuple(self.tasks[t] for t in rows),
            n=tuple(self.n[t] for t in rows),
            embeddings=tuple(self.embeddings[t] for t in rows),
            assumed=tuple(task for task in self.assumed if task in {self.tasks[t] for t in rows}),
            left_out=self.left_out,
        )


def evidence_of(
    results: Iterable["Result"],
    *,
    candidates: Mapping[str, "Candidate"] | None = None,
    group_by: GroupBy = "task",
    embeddings: Mapping[str, Sequence[str]] | None = None,
) -> tuple[Evidence, ...]:
    """One table for each number of training images that at least two tasks share, the smallest first.

    Errors compare within a task, so where that leaves a task out (everybody's data sets differ in size), a
    last table holds every task at the number of training images at which it has the most results.

    Args:
        results: Of one origin; of two with the same task, candidate, number of images and seed the later one.
        candidates: By their ids, as far as they are known: none counts on what it was trained on.
        group_by: Whether each task stands for itself, or tasks of one owner (what is before the ``/``)
            count as one piece of evidence.
        embeddings: Digests of tasks' embeddings beside those that the results name.
    """
    by_task: dict[str, dict[int | None, Cells]] = defaultdict(lambda: defaultdict(lambda: defaultdict(dict)))
    digests: dict[str, Counter[str]] = defaultdict(Counter)
    own: Counter[tuple[str, int | None]] = Counter()
    repeated: Counter[tuple[str, int | None]] = Counter()
    for task, named in (embeddings or {}).items():
        digests[task].update(dict.fromkeys(named, 0))  # known, but named by no result here
    for result in results:
        cell = by_task[result.task][result.n][result.checkpoint]
        repeated[result.task, result.n] += result.seed in cell
        cell[result.seed] = result
        if result.embedding is not None:
            digests[result.task][result.embedding] += 1
    for task, sizes in by_task.items():
        known = candidates or {}
        for size, cells in sizes.items():
            own_cells = [
                name for name in cells if name in known and known[name].was_trained_on(task, *digests[task])
            ]
            for name in own_cells:
                del cells[name]
                own[task, size] += 1

    def table(sizes: Mapping[str, int | None]) -> Evidence | None:
        found = _table({task: by_task[task][size] for task, size in sizes.items()}, group_by)
        if found is None:
            return None
        pairs = list(sizes.items())
        left_out = replace(
            found.left_out,
            own=sum(own[pair] for pair in pairs),
            repeated=sum(repeated[pair] for pair in pairs),
        )
        return replace(
            found,
            n=tuple(sizes[task] for task in found.tasks),
            embeddings=tuple(tuple(d for d, _ in digests[task].most_common()) for task in found.tasks),
            left_out=left_out,
        )

    every = {size for sizes in by_task.values() for size in sizes}
    of_size = [
        table({task: size for task, sizes in by_task.items() if size in sizes})
        for size in sorted(every, key=_number)
    ]
    shared = [found for found in of_size if found is not None and len(found.tasks) > 1]
    fullest = {
        task: max(sizes, key=lambda size: (_n_results(sizes[size]), _number(size)))
        for task, sizes in by_task.items()
    }
    pooled, covered = table(fullest), {task for found in shared for task in found.tasks}
    if pooled is not None and len(pooled.tasks) > 1 and not set(pooled.tasks) <= covered:
        shared.append(pooled)
    return tuple(shared)


def owner(task: str) -> str:
    """What stands before the first ``/`` of a task's id; the id itself where there is none."""
    return task.split("/", 1)[0]


def _table(parts: Mapping[str, Cells], group_by: GroupBy) -> Evidence | None:
    """What can be judged of these results; None where no task has two candidates."""
    n_splits = _best_number_of_splits(parts.values())
    kept: dict[str, tuple[list[Seed], list[str]]] = {}
    for task, cells in sorted(parts.items()):
        seeds, names = _complete(cells, n_splits)
        if len(names) >= 2:
            kept[task] = seeds, names
    if not kept:
        return None
    candidates = sorted({name for _, names in kept.values() for name in names})
    place = {name: c for c, name in enumerate(candidates)}
    errors = np.full((len(kept), len(candidates), n_splits), np.nan)
    n_test = np.full(len(kept), float(ASSUMED_TEST_IMAGES))
    assumed = []
    for t, (task, (seeds, names)) in enumerate(kept.items()):
        used = [parts[task][name][seed] for name in names for seed in seeds]
        errors[t, [place[name] for name in names]] = np.reshape(
            [result.error for result in used], (len(names), n_splits)
        )
        known = [result.n_test for result in used if result.n_test is not None]
        if known:
            n_test[t] = min(known)
        else:
            assumed.append(task)
    groups = tuple(owner(task) if group_by == "owner" else task for task in kept)
    return Evidence(
        truth=GroundTruth(errors, n_test, tuple(candidates), groups),
        tasks=tuple(kept),
        n=(None,) * len(kept),
        embeddings=((),) * len(kept),
        assumed=tuple(assumed),
        left_out=LeftOut(
            incomplete=sum(len(parts[task]) - len(names) for task, (_, names) in kept.items()),
            tasks=tuple(sorted(set(parts) - set(kept))),
        ),
    )


def _best_number_of_splits(parts: Iterable[Cells]) -> int:
    """That which keeps the most results; of several the largest, for the more splits, the less noise."""
    parts = list(parts)
    most = max((len(cell) for cells in parts for cell in cells.values()), default=1)
    kept = []
    for n_splits in range(1, most + 1):
        n_pairs = [len(_complete(cells, n_splits)[1]) for cells in parts]
        kept.append((n_splits * sum(n for n in n_pairs if n >= 2), n_splits))
    return max(kept)[1]


def _complete(cells: Cells, n_splits: int) -> tuple[list[Seed], list[str]]:
    """The seeds that the most candidates have, so many, and the candidates that have them all."""
    counts = Counter(seed for cell in cells.values() for seed in cell)
    seeds = sorted(counts, key=lambda seed: (-counts[seed], _number(seed)))[:n_splits]
    if len(seeds) < n_splits:
        return seeds, []
    return seeds, sorted(name for name, cell in cells.items() if all(seed in cell for seed in seeds))


def _n_results(cells: Cells) -> int:
    return sum(map(len, cells.values()))


def _number(value: int | None) -> int:
    """For sorting; what is not known comes first."""
    return -1 if value is None else value
