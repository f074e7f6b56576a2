"""The demo in words and tables."""

import io
import math
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from t2v_hub.demo.digits import RENDERINGS, Digits, DigitTask
from t2v_hub.demo.report import (
    PICTURED,
    POINTS,
    Comparison,
    DemoReport,
    Expert,
    HubFindings,
    Outcome,
    Trial,
)
from t2v_hub.embedding import TaskEmbedding

_WIDTH = 110
_INDENT = " " * 20  # where the text of a step begins
_PICTURES = {
    "distances": f" (the {PICTURED} distance between all tasks; rankings use the relative one)",
    "ranking": " (the first target's candidates)",
}


def step(seconds: float, name: str, text: str) -> str:
    """One line of the story, with when it was reached."""
    return textwrap.fill(
        f"{seconds:5.0f} s  {name:<10} {text}", _WIDTH, subsequent_indent=_INDENT, break_on_hyphens=False
    )


def promise(folder: Path, *, quick: bool) -> str:
    """What is about to happen, how long it takes and where it is written."""
    how_long = "under a minute" if quick else "3 to 5 minutes"
    text = (
        f"Trains a few, ranks them by distance, then fine-tunes all of them to see whether the ranking was "
        f"right: {how_long} on two cores. Checkpoints, catalog, pictures and report go to"
    )
    return f"{textwrap.fill(text, _WIDTH)}\n{folder}\n"


def images(digits: Digits) -> str:
    """Where the images come from and how they are split."""
    sizes = ", ".join(
        f"{len(places[0])} for {what}"
        for what, places in (
            ("the probe", digits.pools["probe"]),
            ("the experts", digits.pools["experts"]),
            ("training on a target", digits.pools["train"]),
            ("testing there", digits.pools["test"]),
        )
    )
    return (
        f"scikit-learn's {digits.n_images:,} handwritten digits, drawn in {len(RENDERINGS)} ways "
        f"({', '.join(RENDERINGS)}); of each digit {sizes}, and no image twice"
    )


def probe(n_parameters: int, n_ways: int, right: float) -> str:
    """The probe that was trained here."""
    return (
        f"a ResNet of {n_parameters / 1e3:.0f} k parameters, trained here on all ten digits drawn in "
        f"{n_ways} ways: {right:.0%} right on held-out images"
    )


def experts(trained: Sequence[Expert]) -> str:
    """What the candidates are."""
    return (
        f"{len(trained)} networks of {trained[0].parameters / 1e3:.0f} k parameters, each trained from "
        f"scratch on digits 0-4 (low) or 5-9 (high) drawn in one way:"
    )


def expert_table(trained: Sequence[Expert]) -> str:
    """The candidates."""
    rows = [(one.name, one.library, f"{one.accuracy:.0%}") for one in trained]
    return _table(("checkpoint", "library", ">own accuracy"), rows)


def embedded(embeddings: Sequence[TaskEmbedding], catalog: Path) -> str:
    """What was measured of the source tasks."""
    first = embeddings[0]
    return (
        f"the {len(embeddings)} source tasks, {first.measurement.n_samples} images each, as vectors of "
        f"{first.space.n_filters} filters; catalog in {catalog}"
    )


def target(task: DigitTask, n_images: int) -> str:
    """The first target."""
    return (
        f"a new task, {task.name!r}: digits {', '.join(map(str, task.digits))} drawn as {task.rendering!r}, "
        f"{n_images} labelled images. Nothing is fine-tuned for this:"
    )


def shared(findings: HubFindings) -> str:
    """What came of sharing the experts on a Hub of this machine."""
    if findings.failure is not None:
        return f"how experts are shared on a Hub cannot be shown here: {findings.failure.rstrip('.')}"
    requests = "one request" if findings.n_requests == 1 else f"{findings.n_requests} requests"
    found = f"{findings.n_found} of them" if findings.n_found < findings.n_published else "all of them"
    order = "the same order" if findings.same_order else "not the same order"
    difference = findings.largest_difference
    assert difference is not None
    return (
        f"the {findings.n_published} experts, uploaded to a Hub on this machine with their embeddings in "
        f"their model cards ({findings.n_uploads} requests); {requests} found {found}. Ranked by their "
        f"cards, float16, for every target: {order}, distances differ by at most {difference:.1g}. The first "
        f"choice, {findings.loaded}, was loaded from there"
    )


def truth(n_experts: int, n_seeds: int) -> str:
    """What follows the ranking."""
    times = "once" if n_seeds == 1 else f"{n_seeds} times"
    return (
        f"was that right? Now all {n_experts} experts are fine-tuned on every target, {times} each; in the "
        f"order of the ranking:"
    )


def trial_table(trial: Trial) -> str:
    """The ranking of one target beside the accuracies that were measured afterwards."""
    means = {id: float(np.mean(values)) * POINTS for id, values in trial.accuracies.items()}
    best = max(means.values())
    rows = []
    for item in trial.ranking:
        id, values = item.candidate.id, np.array(trial.accuracies[item.candidate.id]) * POINTS
        error = "" if len(values) == 1 else f" ± {values.std(ddof=1) / math.sqrt(len(values)):3.1f}"
        away = "" if item.standard_error is None else f" ± {item.standard_error:.4f}"
        rows.append(
            (
                str(item.rank),
                Path(id).name,
                f"{item.distance:.4f}{away}",
                f"{means[id]:.1f}{error}",
                "<- best" if means[id] == best else "",
            )
        )
    agreement = "" if math.isnan(trial.agreement) else f"; rank correlation {trial.agreement:+.2f}"
    mean = float(np.mean(list(means.values())))
    return (
        _table((">rank", f"for {trial.name}", ">distance ± s.e.", ">accuracy % ± s.e.", ""), rows)
        + f"\n{_INDENT}first choice {means[trial.ranking.ranked[0]]:.1f} %, best {best:.1f} %, mean of all "
        f"{mean:.1f} %{agreement}\n"
    )


def spread(outcome: Outcome) -> str:
    """Whether there was anything to choose."""
    text = f"on one target the experts' accuracies differ by {outcome.spread:.1f} points (standard deviation)"
    if math.isnan(outcome.noise):
        return f"{text}; with one seed, how much of that is noise is not known"
    text += f", of which noise between seeds makes {outcome.noise:.1f}"
    return text if outcome.spread > 2 * outcome.noise else f"{text}: hardly anything to choose from"


def outcome_table(outcome: Outcome) -> str:
    """What every way to choose loses against the best expert."""
    rows = [
        (one.policy, f"{one.mean:.1f}", f"{one.interval[0]:.1f} to {one.interval[1]:.1f}")
        for one in outcome.regrets
    ]
    return _table(("way to choose an expert", ">points lost to the best", ">95 % interval"), rows)


def verdict(outcome: Outcome, n_targets: int, n_seeds: int) -> str:
    """In plain words what the selector was worth here, good or bad."""
    parts = [_compared(one, n_targets, few=not outcome.cross_fitted) for one in outcome.comparisons]
    caution = (
        "the best experts were picked on other seeds than they were judged on"
        if outcome.cross_fitted
        else "with one seed the best experts also win by luck, so that all losses are too large"
    )
    seeds = "one seed" if n_seeds == 1 else f"{n_seeds} seeds"
    parts.append(f"Intervals are rough: a bootstrap over {n_targets} targets and {seeds}; {caution}.")
    parts.append("Toy networks on toy images show that the steps fit together, not what they gain on yours.")
    return "\n".join(
        textwrap.fill(part, _WIDTH, initial_indent=_INDENT, subsequent_indent=_INDENT + "  ")
        for part in parts
    )


def closing(report: DemoReport) -> str:
    """What was written, what to do next, and what it took."""
    memory = "" if report.peak_bytes is None else f", at most {report.peak_bytes / 2**30:.2f} GiB of memory"
    return "\n".join(
        [
            "",
            "Written:",
            *(f"  {what:<10} {path}{_PICTURES.get(what, '')}" for what, path in report.files.items()),
            "",
            "With your own data (a folder with a sub-folder of images per class, or a data set on the Hub):",
            "  t2v catalog add CHECKPOINT --data WHAT_IT_WAS_TRAINED_ON",
            "  t2v rank YOUR_IMAGES",
            "",
            f"Took {report.wall_s:.0f} s ({report.cpu_s:.0f} s of processor time){memory}.",
        ]
    )


def _compared(one: Comparison, n_targets: int, *, few: bool) -> str:
    low, high = one.interval
    figures = (
        f"{one.gain:+.1f} points (95 % interval {low:+.1f} to {high:+.1f}), better on {one.n_better} of "
        f"{n_targets} targets"
    )
    if one.gain <= 0:
        outcome = "did worse than" if one.verdict == "worse" else "did not beat"
    elif few:
        return f"Against {one.policy}: {figures}; too few runs to conclude from."
    else:
        outcome = "beat" if one.verdict == "better" else "cannot be said to beat"
    return f"Here the selector {outcome} {one.policy}: {figures}."


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Aligned plain text below a step; columns that begin with ``>`` are set to the right."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(
            column.removeprefix(">"), justify="right" if column[:1] == ">" else "left", no_wrap=True
        )
    for row in rows:
        table.add_row(*row)
    text = io.StringIO()
    Console(file=text, width=200, color_system=None, markup=False, highlight=False).print(table)
    return "\n".join((_INDENT + line).rstrip() for line in text.getvalue().splitlines())
