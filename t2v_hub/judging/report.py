"""`Benchmark`: does looking at the data help to choose, on a pool with results?"""

import math
from dataclasses import dataclass

from t2v_hub.catalog import ResultOrigin
from t2v_hub.embedding import Json
from t2v_hub.judging.entries import Entry
from t2v_hub.judging.evidence import Evidence, GroupBy
from t2v_hub.judging.metrics import Figures, Interval
from t2v_hub.judging.verdict import Verdict

SCHEMA = "t2v-benchmark/1"


@dataclass(frozen=True)
class BenchmarkTable:
    """The rows for results of like training.

    Attributes:
        evidence: What they were judged on.
        entries: The rows: references, free ones, task-aware ones.
        verdict: Whether the best task-aware row beats the best free one.
        cross_fit: Whether the oracle was chosen and judged on different splits; False where there is one.
        space: Id of the space of the tasks' embeddings; None where no row reads them.
        notes: What was left out and what to mind, in words.
    """

    evidence: Evidence
    entries: tuple[Entry, ...]
    verdict: Verdict
    cross_fit: bool
    space: str | None
    notes: tuple[str, ...]


@dataclass(frozen=True, repr=False)
class Benchmark:
    """Ways to choose a checkpoint, judged on a pool's results; prints as tables.

    Attributes:
        tables: One for each number of training images, and one for what shares none.
        origin: Whose results they are.
        group_by: What was resampled, and left out, together.
        catalog: Folder of the catalog.
    """

    tables: tuple[BenchmarkTable, ...]
    origin: ResultOrigin
    group_by: GroupBy
    catalog: str

    def __str__(self) -> str:
        from t2v_hub.judging.words import text

        return text(self)

    def __repr__(self) -> str:
        answers = ", ".join(table.verdict.answer for table in self.tables)
        return f"Benchmark(n_tables={len(self.tables)}, verdicts=[{answers}])"

    def to_markdown(self) -> str:
        """The same tables in Markdown, with the intervals of all relative figures."""
        from t2v_hub.judging.words import markdown

        return markdown(self)

    def to_dict(self) -> dict[str, Json]:
        """The benchmark as plain values that JSON can hold; what is not known or not finite is None.

        The schema is named by ``schema``; fields may join it, none changes its meaning under one name.
        """
        return {
            "schema": SCHEMA,
            "catalog": self.catalog,
            "origin": self.origin,
            "group_by": self.group_by,
            "tables": [_table_to_dict(table) for table in self.tables],
        }


def _table_to_dict(table: BenchmarkTable) -> dict[str, Json]:
    evidence, left = table.evidence, table.evidence.left_out
    difference = table.verdict.difference
    return {
        "n": evidence.size,
        "n_tasks": len(evidence.tasks),
        "n_candidates": len(evidence.truth.candidates),
        "n_splits": evidence.n_splits,
        "cross_fit": table.cross_fit,
        "space": table.space,
        "tasks": [{"id": task, "n": n} for task, n in zip(evidence.tasks, evidence.n, strict=True)],
        "candidates": list(evidence.truth.candidates),
        "left_out": {
            "own": left.own,
            "incomplete": left.incomplete,
            "tasks": list(left.tasks),
            "repeated": left.repeated,
        },
        "rows": [
            {"name": entry.name, "kind": entry.kind, **_figures_to_dict(entry.figures)}
            for entry in table.entries
        ],
        "verdict": {
            "answer": table.verdict.answer,
            "text": table.verdict.text,
            "task_aware": table.verdict.task_aware,
            "free": table.verdict.free,
            "difference": None if difference is None else _interval_to_dict(difference),
        },
        "notes": list(table.notes),
    }


def _figures_to_dict(figures: Figures) -> dict[str, Json]:
    return {name: _interval_to_dict(getattr(figures, name)) for name in vars(figures)}


def _interval_to_dict(interval: Interval) -> dict[str, Json]:
    return {name: value if math.isfinite(value) else None for name, value in vars(interval).items()}
