"""A benchmark in words: its tables as text and as Markdown, and what to mind about the results."""

from collections.abc import Iterable
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from t2v_hub.judging.entries import Entry
    from t2v_hub.judging.evidence import Evidence
    from t2v_hub.judging.metrics import Interval
    from t2v_hub.judging.report import Benchmark, BenchmarkTable

_COLUMNS = ("row", "error", "over the oracle", "regret@1", "regret@3", "tau", "best found")
_MARKDOWN = ("row", "error", "ratio of means", "mean of ratios", "regret@1", "regret@3", "tau", "best found")
_LONGEST_NAME = 40
_LEGEND = (
    "over the oracle: error over that of the best candidate, less 1, with its 95 % interval; below 0, the",
    "row knew better than one half of the splits. regret@1, regret@3: errors per 100 images more than the",
    "oracle's, of the row's first, of the best of its first three. tau: agreement of its order with the",
    "measured one. best found: how often its first is the best.",
)


def text(benchmark: "Benchmark") -> str:
    """All tables as plain text, each with its verdict."""
    parts = [_table_text(benchmark, table) for table in benchmark.tables]
    return "\n\n\n".join([*parts, "\n".join(_LEGEND)])


def markdown(benchmark: "Benchmark") -> str:
    """All tables in Markdown."""
    return "\n\n".join(_table_markdown(benchmark, table) for table in benchmark.tables)


def warnings_of(evidence: "Evidence") -> list[str]:
    """What to mind about the results themselves."""
    left, notes = evidence.left_out, []
    if evidence.n_splits == 1:
        best = np.nanmin(evidence.truth.mean, axis=1)
        noise = 100 * float(np.mean(np.sqrt(best * (1 - best) / evidence.truth.n_test)))
        notes.append(
            f"one split: the oracle is chosen and judged on the same errors, so every row looks worse than "
            f"it is (one error is uncertain by about {noise:.1f} points); differences between rows are not "
            f"biased. Record two splits or more (seed)"
        )
    if left.own:
        notes.append(f"{left.own} pairs left out: the candidate was trained on the task")
    if left.incomplete:
        notes.append(f"{left.incomplete} pairs left out: not measured on all {evidence.n_splits} splits")
    if left.tasks:
        notes.append(f"left out, with fewer than two candidates: {few(left.tasks)}")
    if left.repeated:
        notes.append(f"{left.repeated} results replaced by later ones of the same task, candidate and split")
    if evidence.assumed:
        notes.append(f"number of test images not known, 100 assumed: {few(evidence.assumed)}")
    return notes


def few(names: Iterable[str], *, most: int = 3) -> str:
    """The first of the names, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _table_text(benchmark: "Benchmark", table: "BenchmarkTable") -> str:
    rows: list[tuple[str, ...]] = [_COLUMNS]
    gaps = []
    for _, entries in groupby(table.entries, key=lambda entry: entry.kind):
        gaps.append(len(rows))
        rows += [(_cut(entry.name), *_cells(entry)) for entry in entries]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    lines = [_heading(benchmark, table), ""]
    for number, row in enumerate(rows):
        if number in gaps[1:]:
            lines.append("")
        cells = (cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
        lines.append("  ".join([row[0].ljust(widths[0]), *cells]))
    lines += ["", table.verdict.text]
    return "\n".join([*lines, *(f"- {note}" for note in table.notes)])


def _table_markdown(benchmark: "Benchmark", table: "BenchmarkTable") -> str:
    lines = [f"**{_heading(benchmark, table)}**", "", f"| {' | '.join(_MARKDOWN)} |"]
    lines.append("|---|" + "--:|" * (len(_MARKDOWN) - 1))
    for entry in table.entries:
        f = entry.figures
        cells = [
            f"{f.error.value:.3f}",
            _share(f.ratio_of_means),
            _share(f.mean_of_ratios),
            _interval(f.regret_1, "+.2f"),
            *_last_cells(entry),
        ]
        lines.append(f"| {' | '.join([_escaped(entry.name), *cells])} |")
    lines += ["", table.verdict.text, ""]
    return "\n".join([*lines, *(f"- {note}" for note in table.notes)]).rstrip()


def _heading(benchmark: "Benchmark", table: "BenchmarkTable") -> str:
    evidence = table.evidence
    sizes = set(evidence.n)
    if sizes == {None}:
        size = "training images not known"
    elif len(sizes) == 1:
        size = f"{evidence.size:,} training images"
    else:
        size = "each task with its own number of training images"
    splits = f"{evidence.n_splits} split{'' if evidence.n_splits == 1 else 's'}"
    claims = ", claimed by cards" if benchmark.origin == "card" else ""
    owners = f" of {evidence.n_groups} owners" if benchmark.group_by == "owner" else ""
    return (
        f"{len(evidence.tasks)} tasks{owners} × {len(evidence.truth.candidates)} candidates, {size}, "
        f"{splits}{claims}"
    )


def _cells(entry: "Entry") -> list[str]:
    f = entry.figures
    return [f"{f.error.value:.3f}", _share(f.ratio_of_means), f"{f.regret_1.value:+.2f}", *_last_cells(entry)]


def _last_cells(entry: "Entry") -> list[str]:
    f = entry.figures
    forms = ((f.regret_3, "+.2f"), (f.tau, ".2f"), (f.hit_rate, ".0%"))
    return ["–" if np.isnan(item.value) else format(item.value, form) for item, form in forms]


def _share(interval: "Interval") -> str:
    return _interval(interval, "+.1%")


def _interval(interval: "Interval", form: str) -> str:
    if not np.isfinite(interval.value):
        return "–"
    return f"{interval.value:{form}} [{interval.low:{form}}, {interval.high:{form}}]"


def _cut(name: str) -> str:
    """A name that fits; the end of a path tells more than its beginning."""
    if len(name) <= _LONGEST_NAME:
        return name
    half = (_LONGEST_NAME - 1) // 2
    return f"{name[:half]}…{name[-half:]}"


def _escaped(name: str) -> str:
    """Others name checkpoints: what they write must not end a cell or begin a row."""
    return " ".join(name.replace("\\", "\\\\").replace("|", "\\|").split())
