"""What was measured as one small table that may be passed on, from which all rows can be judged again."""

import json
import platform
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.selection.experts import SMALL, Checkpoint
from benchmarks.selection.pool import Array, Measured
from benchmarks.selection.tasks import Task
from t2v_hub.judging import GroundTruth
from t2v_hub.scores import BUILT_IN_SCORES

_READ, _SCORE, _EMBED = "seconds", "seconds: ", "seconds of embedding"


def keep(path: Path, parts: list[tuple[Measured, dict[str, Array]]], about: dict[str, str]) -> None:
    """Errors, scores and first-stage values of every size, target, candidate and split."""
    tables = []
    facts: dict[str, dict[str, object]] = {}
    for measured, stages in parts:
        t, c, s = (grid.ravel() for grid in np.indices(measured.truth.errors.shape))
        tasks = [task.name for task in measured.tasks]
        names = list(measured.truth.candidates)
        columns: dict[str, pa.Array] = {
            "size": pa.array([measured.size] * len(t)).dictionary_encode(),
            "task": pa.DictionaryArray.from_arrays(t.astype(np.int32), tasks),
            "candidate": pa.DictionaryArray.from_arrays(c.astype(np.int32), names),
            "split": pa.array(s.astype(np.int8)),
            "error": pa.array(measured.truth.errors.ravel().astype(np.float32)),
        }
        for name, values in measured.scores.items():
            full = np.broadcast_to(values, measured.truth.errors.shape)
            columns[name] = pa.array(full.ravel().astype(np.float32))
        for name, values in _times(measured).items():
            full = np.broadcast_to(values, measured.truth.errors.shape)
            columns[name] = pa.array(full.ravel().astype(np.float32))
        for name, values in stages.items():  # in full: what breaks their ties is 1e-9
            full = np.broadcast_to(values, measured.truth.errors.shape)
            columns[f"stage: {name}"] = pa.array(full.ravel())
        tables.append(pa.table(columns))
        facts[measured.size] = {
            "n_test": measured.truth.n_test.tolist(),
            "sources": list(measured.sources),
            "parameters": measured.parameters.tolist(),
            "origins": [one.origin for one in measured.candidates],
        }
    record = {"facts": facts, "about": about | {"machine": platform.platform()}}
    table = pa.concat_tables(tables, promote_options="permissive")
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.replace_schema_metadata({"selection": json.dumps(record)}), path, compression="zstd")


def _times(measured: Measured) -> dict[str, Array]:
    """Seconds of features, scores and embeddings, each ``(n_tasks, n_candidates or 1, n_splits or 1)``."""
    result = {_READ: measured.seconds[:, :, None]}
    result |= {f"{_SCORE}{name}": values[:, :, None] for name, values in measured.score_seconds.items()}
    if measured.embedding_seconds is not None:
        result[_EMBED] = measured.embedding_seconds[:, None, :]
    return result


def _base(expert: str) -> str:
    """What an expert was fine-tuned from, as far as the settling of the first stage asks: small or large."""
    return SMALL if expert.endswith(f"--{SMALL.split('.')[0]}") else ""


def kept(path: Path, size: str) -> tuple[Measured, dict[str, Array]]:
    """The measurements of one size, and the first-stage values."""
    table = pq.read_table(path)
    facts = json.loads(table.schema.metadata[b"selection"])["facts"][size]
    rows = table.filter(pa.compute.equal(table["size"].cast(pa.string()), size))
    tasks, names = (list(dict.fromkeys(rows[name].to_pylist())) for name in ("task", "candidate"))
    shape = (len(tasks), len(names), len(rows) // (len(tasks) * len(names)))

    def values(name: str) -> Array:
        return rows[name].to_numpy().astype(np.float64).reshape(shape)

    def seconds(name: str, mean: object) -> Array:
        """Older files hold means over targets, among the facts, or none."""
        if name in rows.column_names:
            return values(name)[:, :, 0]
        return np.broadcast_to(np.array(np.nan if mean is None else mean, np.float64), shape[:2])

    truth = GroundTruth(values("error"), np.array(facts["n_test"]), tuple(names), tuple(facts["sources"]))
    nowhere = Path()
    measured = Measured(
        size=size,
        tasks=tuple(Task(n, nowhere, s, "", True) for n, s in zip(tasks, facts["sources"], strict=True)),
        candidates=tuple(
            Checkpoint(n, nowhere, None if o is None else _base(n), (), True)
            for n, o in zip(names, facts["origins"], strict=True)
        ),
        truth=truth,
        scores={name: values(name) for name in BUILT_IN_SCORES},
        outcomes=[],
        seconds=seconds(_READ, facts.get("seconds")),
        score_seconds={
            n: seconds(f"{_SCORE}{n}", facts.get("score_seconds", {}).get(n)) for n in BUILT_IN_SCORES
        },
        parameters=np.array(facts["parameters"]),
        embedding_seconds=values(_EMBED)[:, 0] if _EMBED in rows.column_names else None,
    )
    stages = {n.removeprefix("stage: "): values(n) for n in rows.column_names if n.startswith("stage: ")}
    return measured, stages
