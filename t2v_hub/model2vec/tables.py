"""`ErrorTable`: the results in a catalog as what `Model2Vec` learns from."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from t2v_hub.catalog import Catalog, Result, ResultOrigin
from t2v_hub.catalog.known import KnownEmbeddings
from t2v_hub.distance import ALPHA
from t2v_hub.embedding import Space, TaskEmbedding
from t2v_hub.errors import ResultsError
from t2v_hub.model2vec.learning import Bias
from t2v_hub.model2vec.model import TARGET_TEMPERATURE, Model2Vec
from t2v_hub.model2vec.spaces import nearest_on_average

Array = NDArray[np.float64]

RUNS: tuple[ResultOrigin, ...] = ("run",)
_LEAST_TASKS = 3
_NAMED = 5
_HOW = "Catalog.record(embedding, checkpoint, error), or `t2v catalog record EMBEDDING_FILE CHECKPOINT ERROR`"


@dataclass(frozen=True, eq=False)
class ErrorTable:
    """Errors of checkpoints on tasks that have an embedding in one space.

    Attributes:
        tasks: Embeddings of the tasks.
        candidates: Ids of the checkpoints, in order.
        errors: Mean test errors over seeds, ``(n_tasks, n_candidates)``; NaN where a checkpoint was not
            measured on a task, or was trained on it.
        sources: Of each checkpoint, the embedding of what it was trained on; None where none is known.
        n_results: How many results stand behind the errors.
        n_own: How many were left out because the checkpoint was trained on the task.
        without_embedding: Tasks that were left out because none of their embeddings is in the space.
        skipped: Embeddings that could not be read, in words.
    """

    tasks: tuple[TaskEmbedding, ...]
    candidates: tuple[str, ...]
    errors: Array
    sources: Mapping[str, TaskEmbedding | None]
    n_results: int
    n_own: int
    without_embedding: tuple[str, ...]
    skipped: tuple[str, ...]

    @property
    def n_comparing(self) -> int:
        """Tasks with errors of two checkpoints or more; the others say nothing about which is better."""
        return int(((~np.isnan(self.errors)).sum(axis=1) >= 2).sum())


def error_table(
    catalog: Catalog,
    space: Space | str,
    *,
    n: int | None = None,
    origins: Collection[ResultOrigin] = RUNS,
    results: Iterable[Result] | None = None,
    embeddings: Iterable[TaskEmbedding] = (),
    alpha: float = ALPHA,
) -> ErrorTable:
    """The results in a catalog, as tasks by checkpoints.

    A task's embedding is one that its results name, or else one that is given, or else what a candidate that
    was trained on that data set brought; of several, the one that was measured on the most images. Ids of
    tasks are compared without regard to case. Of a candidate with several embeddings, the source is the one
    that is nearest, on average, to the tasks that it was measured on. Where a checkpoint was measured on a
    task here, what its card claims for that task is not counted.

    Errors are plain means over what there is of each checkpoint: measure all on the same seeds.

    Args:
        catalog: The candidates and the results.
        space: Space of the embeddings, given as such or by its id.
        n: Only results with so many training images (and claims of cards, which name none). May be None where
            all were reached with as many.
        origins: ``run`` for what the user measured, ``card`` for what strangers' cards claim, or both.
        results: In place of the catalog's.
        embeddings: Of tasks whose results name none.
        alpha: Weight of the complexity term of the distance by which a source is chosen.

    Raises:
        ResultsError: There is nothing to learn from, or results with several ``n``.
        CatalogFileError: The results cannot be read.
    """
    id = space.id if isinstance(space, Space) else space
    used = _chosen(catalog, results, n=n, origins=origins)
    known = KnownEmbeddings(catalog)
    for embedding in embeddings:
        known.take(embedding)
    named = {name: [r.embedding for r in found if r.embedding is not None] for name, found in used.items()}
    found = {name: known.of_task(name, id, named=named[name]) for name in used}
    tasks = {name: embedding for name, embedding in found.items() if embedding is not None}
    lacking = tuple(used[name][0].task for name in used if name not in tasks)
    if not tasks:
        raise ResultsError(
            f"None of the {len(used)} tasks with results ({_some(lacking)}) has an embedding in space {id}, "
            f"so distances cannot be learned. Embed the tasks and record the results with them: {_HOW}."
        )
    candidates = tuple(sorted({result.checkpoint for name in tasks for result in used[name]}))
    column = {checkpoint: place for place, checkpoint in enumerate(candidates)}
    sums, counts = np.zeros((2, len(tasks), len(candidates)))
    n_own = 0
    for row, (name, embedding) in enumerate(tasks.items()):
        for result in used[name]:
            if _is_own(result, embedding, catalog):
                n_own += 1
            else:
                sums[row, column[result.checkpoint]] += result.error
                counts[row, column[result.checkpoint]] += 1
    errors = np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0)
    rows = tuple(tasks.values())
    measured_on = {name: [rows[t] for t in np.flatnonzero(counts[:, c])] for name, c in column.items()}
    sources = {
        name: nearest_on_average(known.of_candidate(name, id), tasks_of, alpha=alpha)
        for name, tasks_of in measured_on.items()
    }
    return ErrorTable(
        tasks=rows,
        candidates=candidates,
        errors=errors,
        sources=sources,
        n_results=int(counts.sum()),
        n_own=n_own,
        without_embedding=lacking,
        skipped=tuple(known.skipped),
    )


def fit_catalog(
    catalog: Catalog,
    space: Space | str,
    *,
    n: int | None = None,
    origins: Collection[ResultOrigin] = RUNS,
    results: Iterable[Result] | None = None,
    embeddings: Iterable[TaskEmbedding] = (),
    bias: Bias = "filter",
    alpha: float = ALPHA,
    temperature: float | None = None,
    strength: float | None = None,
    target_temperature: float = TARGET_TEMPERATURE,
    group_of: Callable[[str], str] | None = None,
) -> Model2Vec:
    """Distances to checkpoints, learned from a catalog's results; see `error_table` and `Model2Vec.fit`.

    Args:
        catalog: As of `error_table`.
        space: Likewise.
        n: Likewise.
        origins: Likewise.
        results: Likewise.
        embeddings: Likewise.
        bias: As of `Model2Vec.fit`.
        alpha: Likewise.
        temperature: Likewise.
        strength: Likewise.
        target_temperature: Likewise.
        group_of: The group of a task, by its id: cross-validation leaves tasks of one group out together.
            Each task is its own where None.

    Raises:
        ResultsError: There is too little to learn from; the message says what there is and what to record.
        CatalogFileError: The results cannot be read.
        SettingsError: An argument that cannot work.
    """
    table = error_table(
        catalog, space, n=n, origins=origins, results=results, embeddings=embeddings, alpha=alpha
    )
    wanted = 1 if temperature is not None and strength is not None else _LEAST_TASKS
    if table.n_comparing < wanted:
        left_out = (
            f"; {len(table.without_embedding)} more have no embedding" if table.without_embedding else ""
        )
        own = f", of {table.n_own} more the checkpoint was trained on the task" if table.n_own else ""
        raise ResultsError(
            f"To learn distances, errors of two checkpoints or more are wanted on at least {wanted} tasks "
            f"with an embedding in the space; there are {table.n_comparing} such tasks (of "
            f"{len(table.tasks)} with an embedding{left_out}), from {table.n_results} results of "
            f"{len(table.candidates)} checkpoints{own}. Record more: {_HOW}."
        )
    return Model2Vec.fit(
        table.tasks,
        table.errors,
        candidates=table.candidates,
        sources=table.sources,
        bias=bias,
        alpha=alpha,
        temperature=temperature,
        strength=strength,
        target_temperature=target_temperature,
        groups=None if group_of is None else [group_of(task.task.id) for task in table.tasks],
    )


def _is_own(result: Result, task: TaskEmbedding, catalog: Catalog) -> bool:
    """Whether a task, by what a result or its embedding calls it, is what the candidate was trained on."""
    if result.checkpoint not in catalog:
        return False
    names = (result.task, result.embedding, task.task.id, task.digest)
    return catalog[result.checkpoint].was_trained_on(*names)


def _chosen(
    catalog: Catalog,
    results: Iterable[Result] | None,
    *,
    n: int | None,
    origins: Collection[ResultOrigin],
) -> dict[str, list[Result]]:
    """The results to be used, by their tasks' ids in lower case."""
    everything = tuple(catalog.results(origin=None) if results is None else results)
    wanted = [result for result in everything if result.origin in origins]
    where = f"in {str(catalog.path)!r}" if results is None else "given"
    if not wanted:
        others = f", though {len(everything)} of another" if everything else ""
        raise ResultsError(
            f"There are no results of the origin {' or '.join(sorted(origins))} {where}{others}. Record "
            f"some: {_HOW}."
        )
    counts = Counter(result.n for result in wanted if result.origin == "run")
    listed = ", ".join(
        f"n={size if size is not None else 'unknown'} ({count} results)"
        for size, count in sorted(counts.items(), key=lambda item: -1 if item[0] is None else item[0])
    )
    if n is None and len(counts) > 1:
        raise ResultsError(
            f"Errors with different numbers of training images do not go into one table; there are {listed} "
            f"{where}. Choose one: n=..."
        )
    kept = [result for result in wanted if n is None or result.n == n or result.origin == "card"]
    if not kept:
        raise ResultsError(
            f"There are no results with n={n} {where}; there are {listed}. Choose one of these."
        )
    measured = {(r.task.casefold(), r.checkpoint) for r in kept if r.origin == "run"}
    by_task: dict[str, list[Result]] = {}
    for result in kept:
        if result.origin == "run" or (result.task.casefold(), result.checkpoint) not in measured:
            by_task.setdefault(result.task.casefold(), []).append(result)
    return by_task


def _some(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
