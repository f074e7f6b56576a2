"""What was measured as one small table that may be passed on, from which all rows can be judged again."""

import json
import platform
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.selection.experts import Checkpoint
from benchmarks.selection.pool import Array, Measured
from benchmarks.selection.tasks import Task
from t2v_hub.judging import GroundTruth
from t2v_hub.scores import SCORES


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
        for name, values in stages.items():  # in full: what breaks their ties is 1e-9
            full = np.broadcast_to(values, measured.truth.errors.shape)
            columns[f"stage: {name}"] = pa.array(full.ravel())
        tables.append(pa.table(columns))
        facts[measured.size] = {
            "n_test": measured.truth.n_test.tolist(),
            "sources": list(measured.sources),
            "parameters": measured.parameters.tolist(),
            "origins": [one.origin for one in measured.candidates],
            "seconds": measured.seconds.mean(axis=0).round(3).tolist(),
            "score_seconds": {n: round(float(v.mean()), 5) for n, v in measured.score_seconds.items()},
        }
    record = {"facts": facts, "about": about | {"machine": platform.platform()}}
    table = pa.concat_tables(tables, promote_options="permissive")
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.replace_schema_metadata({"selection": json.dumps(record)}), path, compression="zstd")


def kept(path: Path, size: str) -> tuple[Measured, dict[str, Array]]:
    """The measurements of one size, and the first-stage values."""
    table = pq.read_table(path)
    facts = json.loads(table.schema.metadata[b"selection"])["facts"][size]
    rows = table.filter(pa.compute.equal(table["size"].cast(pa.string()), size))
    tasks, names = (list(dict.fromkeys(rows[name].to_pylist())) for name in ("task", "candidate"))
    shape = (len(tasks), len(names), len(rows) // (len(tasks) * len(names)))

    def values(name: str) -> Array:
        return rows[name].to_numpy().astype(np.float64).reshape(shape)

    truth = GroundTruth(values("error"), np.array(facts["n_test"]), tuple(names), tuple(facts["sources"]))
    nowhere = Path()
    measured = Measured(
        size=size,
        tasks=tuple(Task(n, nowhere, s, "", True) for n, s in zip(tasks, facts["sources"], strict=True)),
        candidates=tuple(
            Checkpoint(n, nowhere, None if o is None else "", (), True)
            for n, o in zip(names, facts["origins"], strict=True)
        ),
        truth=truth,
        scores={name: values(name) for name in SCORES},
        outcomes=[],
        seconds=np.broadcast_to(np.array(facts["seconds"]), shape[:2]),
        score_seconds={n: np.full(shape[:2], v) for n, v in facts["score_seconds"].items()},
        parameters=np.array(facts["parameters"]),
    )
    stages = {n.removeprefix("stage: "): values(n) for n in rows.column_names if n.startswith("stage: ")}
    return measured, stages
