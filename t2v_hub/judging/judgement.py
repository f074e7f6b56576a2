"""`benchmark`: every way to choose a checkpoint, judged on a pool's results."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from t2v_hub.catalog import Candidate, Result, ResultOrigin, load_results
from t2v_hub.errors import ResultsError, SettingsError
from t2v_hub.judging.entries import Entry, Kind, free, references, task_aware
from t2v_hub.judging.evidence import Evidence, GroupBy, evidence_of
from t2v_hub.judging.metrics import Judge, Row
from t2v_hub.judging.nearness import Nearness, nearness
from t2v_hub.judging.report import Benchmark, BenchmarkTable
from t2v_hub.judging.verdict import verdict
from t2v_hub.judging.words import few, warnings_of

if TYPE_CHECKING:
    from t2v_hub.catalog import Catalog

_LEAST_EMBEDDED = 3


def benchmark(
    catalog: "Catalog",
    *,
    results: Iterable[Result] | Path | str | None = None,
    n: int | None = None,
    origin: ResultOrigin = "run",
    group_by: GroupBy = "task",
    model2vec: bool = True,
    seed: int = 0,
) -> Benchmark:
    """How well each way to choose a checkpoint does on results that are known.

    A candidate is left out for a task that it was trained on, or where it lacks a split that others have.
    With two splits or more the oracle is chosen on one half of them and judged on the other.

    Args:
        catalog: The candidates, and their results (`Catalog.record`).
        results: Results in place of the catalog's: a table (see `load_results`), or the results themselves.
        n: Only results with so many training images; by default each number has its table.
        origin: ``run`` for measured results, ``card`` for what strangers' cards claim.
        group_by: ``owner`` where tasks of one owner (before the ``/`` of their ids) are alike: then they
            are resampled together, and no row learns from results on one about another.
        model2vec: Whether to learn distances, once per task; takes the most time.
        seed: Of halvings and of resampled tasks.

    Raises:
        ResultsError: There are no results, or those of fewer than two tasks with two candidates.
        SettingsError: An argument that cannot work.
    """
    for name, value, known in (("origin", origin, ResultOrigin), ("group_by", group_by, GroupBy)):
        if value not in get_args(known):
            raise SettingsError(f"{name} must be one of {', '.join(get_args(known))}; got {value!r}.")
    every = _results(catalog, results)
    wanted = [r for r in every if r.origin == origin and (n is None or r.n == n)]
    if not wanted:
        raise _nothing(catalog, every, n, origin)
    candidates = {r.checkpoint: _candidate(catalog, r.checkpoint) for r in wanted}
    found = evidence_of(
        wanted,
        candidates=candidates,
        group_by=group_by,
        embeddings=_embeddings(catalog, every),
    )
    if not found:
        raise _toofew(wanted)
    if all(evidence.n_groups < 2 for evidence in found):
        raise SettingsError(
            f"group_by='owner' leaves one group: all tasks are of the owner {found[0].truth.sources[0]!r}. "
            f"Group by task, or record results on tasks of others."
        )
    tables = [
        _table(catalog, evidence, candidates, wanted, group_by=group_by, model2vec=model2vec, seed=seed)
        for evidence in found
        if evidence.n_groups > 1
    ]
    return Benchmark(tuple(tables), origin, group_by, str(catalog.path))


def _table(
    catalog: "Catalog",
    evidence: Evidence,
    candidates: Mapping[str, Candidate],
    results: Sequence[Result],
    *,
    group_by: GroupBy,
    model2vec: bool,
    seed: int,
) -> BenchmarkTable:
    near = nearness(catalog, evidence, results=results, group_by=group_by)
    evidence, near, notes = _embedded(catalog, evidence, near, results, group_by)
    cross_fit = evidence.n_splits > 1
    judge = Judge(evidence.truth, cross_fit=cross_fit, seed=seed)
    pool = [candidates[name] for name in evidence.truth.candidates]
    by_kind: dict[Kind, list[Row]] = {"reference": references(judge, cross_fit=cross_fit)}
    by_kind["free"], lacks = free(judge, pool, leave="source" if group_by == "owner" else "task")
    notes += lacks
    if near is not None:
        by_kind["task-aware"], lacks = task_aware(judge, evidence, near, pool, model2vec=model2vec)
        notes += lacks
    entries = tuple(Entry(row, kind, judge.figures(row)) for kind, found in by_kind.items() for row in found)
    return BenchmarkTable(
        evidence=evidence,
        entries=entries,
        verdict=verdict(judge, entries, unit=group_by),
        cross_fit=cross_fit,
        space=None if near is None else near.space.id,
        notes=(*warnings_of(evidence), *notes),
    )


def _embedded(
    catalog: "Catalog",
    evidence: Evidence,
    near: Nearness | None,
    results: Sequence[Result],
    group_by: GroupBy,
) -> tuple[Evidence, Nearness | None, list[str]]:
    """What all rows can be judged on, so that their figures are of the same tasks."""
    n_tasks = len(evidence.tasks)
    if near is None:
        return evidence, None, ["no space holds embeddings of a task and of what a candidate was trained on"]
    n_embedded = len(near.tasks)
    if n_embedded == n_tasks:
        notes: list[str] = []
    elif n_embedded < _LEAST_EMBEDDED or len({evidence.truth.sources[t] for t in near.tasks}) < 2:
        return evidence, None, [f"too few tasks for rows by distance: {n_embedded} have an embedding"]
    else:
        lacking = [task for t, task in enumerate(evidence.tasks) if t not in near.tasks]
        evidence = evidence.of_tasks(list(near.tasks))
        again = nearness(catalog, evidence, results=results, group_by=group_by)
        assert again is not None
        near = again
        notes = [f"left out, so that all rows are judged on the same tasks: {few(lacking)} (no embedding)"]
    n_without = len(evidence.truth.candidates) - len(near.sources)
    if n_without:
        notes.append(f"{n_without} candidates without an embedding are last by distance, in order of prior")
    if near.skipped:
        notes.append(f"could not be read: {few(near.skipped)}")
    return evidence, near, notes


def _results(catalog: "Catalog", results: Iterable[Result] | Path | str | None) -> tuple[Result, ...]:
    if results is None:
        return catalog.results(origin=None)
    if isinstance(results, Path | str):
        return load_results(results).results
    found = tuple(results)
    if wrong := next((item for item in found if not isinstance(item, Result)), None):
        raise SettingsError(f"results must hold Result objects, not {type(wrong).__name__}.")
    return found


def _candidate(catalog: "Catalog", id: str) -> Candidate:
    return catalog[id] if id in catalog else Candidate(id)


def _embeddings(catalog: "Catalog", results: Iterable[Result]) -> dict[str, tuple[str, ...]]:
    """Digests of each task's embeddings, also where a table of results does not name them."""
    found: dict[str, dict[str, None]] = {}
    for result in (*results, *catalog.results(origin=None)):
        if result.embedding is not None:
            found.setdefault(result.task, {})[result.embedding] = None
    return {task: tuple(digests) for task, digests in found.items()}


def _nothing(
    catalog: "Catalog", every: tuple[Result, ...], n: int | None, origin: ResultOrigin
) -> ResultsError:
    if not every:
        return ResultsError(
            f"There are no results to judge by in {str(catalog.path)!r}. Record how candidates did on tasks: "
            f"`t2v catalog record TASK CHECKPOINT ERROR`, or Catalog.record(task, checkpoint, error)."
        )
    of_origin = [result for result in every if result.origin == origin]
    if not of_origin:
        other = next(iter(sorted({result.origin for result in every})))
        return ResultsError(
            f"None of the {len(every)} results is of the origin {origin!r}; all are of the origin {other!r}. "
            f"Ask for those, or record results of your own with `t2v catalog record`."
        )
    sizes = sorted({-1 if result.n is None else result.n for result in of_origin})
    known = ", ".join("not known" if size < 0 else f"{size}" for size in sizes[:10])
    return ResultsError(
        f"No result was reached with {n} training images; there are results with these numbers: {known}."
    )


def _toofew(results: Iterable[Result]) -> ResultsError:
    results = list(results)
    tasks = sorted({result.task for result in results})
    checkpoints = sorted({result.checkpoint for result in results})
    return ResultsError(
        f"Too few results to judge by: wanted at least two tasks, each with results of two candidates that "
        f"were not trained on it; got {len(results)} results on {len(tasks)} tasks ({few(tasks)}) of "
        f"{len(checkpoints)} candidates ({few(checkpoints)}). Record more, on the same splits for every "
        f"candidate."
    )
