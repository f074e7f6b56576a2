"""A ranking in words: its table, and why a candidate stands where it stands."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

from t2v_hub.selector import prior_words, refined_words
from t2v_hub.selector.comparison import Z95
from t2v_hub.selector.figures import count, digits_of, gap_in_words, number

if TYPE_CHECKING:
    from t2v_hub.selector.ranked import RankedCandidate
    from t2v_hub.selector.ranking import Ranking

_MAX_ROWS = 30
_MAX_NAMES = 5
_COLUMNS = ("rank", "checkpoint", "distance ± s.e.", "tie", "nearest source task", "parameters", "upstream")
_TO_THE_RIGHT = ("rank", prior_words.ELSEWHERE, "parameters", "upstream")


def table(ranking: "Ranking") -> str:
    """The ranking as plain text: what was ranked, whether the leaders are tied, a row per candidate."""
    lines = _header(ranking)
    shown = ranking.items[:_MAX_ROWS]
    if not shown:
        return "\n".join(lines)
    digits = digits_of(shown)
    sizes = Counter(item.tie_group for item in ranking.items)
    folder = _folder(ranking)
    columns = [*_COLUMNS[:2], *refined_words.columns(ranking.refinement, shown), *_COLUMNS[2:]]
    if ranking.n_experience:
        columns.insert(columns.index("parameters"), prior_words.ELSEWHERE)
    cells = [
        _cells(item, digits, sizes, folder) | refined_words.cells(item, ranking.refinement) for item in shown
    ]
    rows = [columns, *([own[column] for column in columns] for own in cells)]
    widths = [max(map(len, texts)) for texts in zip(*rows, strict=True)]
    lines += ["", *(_aligned(row, columns, widths) for row in rows)]
    if len(ranking) > len(shown):
        lines.append(f"… and {len(ranking) - len(shown):,} more; slice the ranking to print others.")
    elif ranking.n_tied_beyond:
        lines.append(f"{ranking.n_tied_beyond:,} more cannot be told apart from the last group (≈).")
    lines += _legend(ranking, shown)
    if ranking.skipped:
        lines += ["", f"Could not be read, and was left out ({len(ranking.skipped):,}):"]
        lines += [f"  {reason}" for reason in ranking.skipped[:_MAX_NAMES]]
        if len(ranking.skipped) > _MAX_NAMES:
            lines.append(f"  … and {len(ranking.skipped) - _MAX_NAMES:,} more (Ranking.skipped)")
    lines += refined_words.failures(ranking.refinement, folder)
    return "\n".join(lines)


def first_of_ties(item: "RankedCandidate") -> int:
    """Rank of the first in the item's tie group, which the others are compared with."""
    id = item.candidate.id
    return item.rank - (item.tied.index(id) if id in item.tied else 0)


def common_folder(ids: Iterable[str]) -> str:
    """What all ids begin with, as far as their last common slash; what follows tells them apart."""
    steps = zip(*(re.findall(r"[^/\\]*[/\\]", id) for id in ids), strict=False)
    return "".join(step[0] for step in takewhile(lambda step: len(set(step)) == 1, steps))


def explanation(ranking: "Ranking", i: int) -> str:
    """Why the i-th candidate stands where it stands, and what would change the order."""
    item = ranking.items[i]
    total = ranking.n_considered - ranking.n_filtered
    lines = [f"{item.candidate.id} is number {item.rank} of {total:,} for {ranking.task.id!r}."]
    if ranking.refinement is not None:
        lines += refined_words.score_in_words(item, ranking.refinement)
    if item.is_loaded:
        others = [id for id in item.tied if id != item.candidate.id]
        lines += [refined_words.tied_in_words(_names(others, _folder(ranking)))] if others else []
        lines += [] if item.distance is None else _distance_in_words(ranking, item)
    elif item.distance is None:
        lines.append(
            f"It has no place by distance: {item.reason}. Such candidates come after all others, ordered by "
            f"prior: {prior_words.goes_by(ranking)}."
        )
    else:
        lines += [
            *_distance_in_words(ranking, item),
            *_ties_in_words(ranking, item),
            *_next_in_words(ranking, item),
        ]
    lines += [*refined_words.expected_in_words(item), prior_words.sentence(ranking, item)]
    return "\n".join(lines)


def _header(ranking: "Ranking") -> list[str]:
    task, space = ranking.task, ranking.space
    facts = [*(name for name in (task.config, task.split) if name)]
    measured = "" if ranking.n_measured in (None, task.n_samples) else f"{ranking.n_measured:,} of "
    facts += [f"{measured}{task.n_samples:,} images", f"{task.n_classes:,} classes"]
    alpha = f" (alpha {ranking.alpha:g})" if ranking.has_alpha else ""
    if ranking.n_learned_from is not None:
        alpha += f", learned from errors of {ranking.n_learned_from:,} checkpoints on other tasks"
    counts = [f"{ranking.n_considered:,} in the catalog"]
    if ranking.n_filtered:
        counts.append(f"{ranking.n_filtered:,} left out by where")
    if ranking.n_without_embedding:
        or_learned = "" if ranking.n_learned_from is None else " or a learned distance"
        where = "last, by prior" if ranking.refinement is None else "last, by prior, unless loaded"
        counts.append(
            f"{ranking.n_without_embedding:,} without an embedding in this space{or_learned} ({where})"
        )
    folder = _folder(ranking)
    if folder:
        counts.append(f"checkpoints in {folder}")
    lines = [
        f"Task        {task.id} ({', '.join(facts)})",
        f"Probe       {space.probe}, space {space.id}",
        f"Distance    {ranking.distance}{alpha}, smaller is better",
        f"Candidates  {'; '.join(counts)}",
        *([] if ranking.origin is None else [f"Catalog     {ranking.origin}"]),
        *prior_words.line(ranking),
        *([] if ranking.refinement is None else [refined_words.loaded_line(ranking.refinement)]),
    ]
    if not ranking.items:
        return [*lines, "No candidate is left to rank."]
    return [*lines, *refined_words.verdict(ranking, folder), *_leaders_in_words(ranking)]


def _leaders_in_words(ranking: "Ranking") -> list[str]:
    first = ranking.items[0]
    if first.rank != 1 or first.distance is None or first.is_loaded:
        return []
    n_tied = len(first.tied)
    if n_tied > 1:
        leaders = [item for item in ranking.items if item.tie_group == first.tie_group]
        same = len(leaders) == n_tied and all(item.distance == first.distance for item in leaders)
        why = (
            "have one distance (the same source task) and are ordered by prior"
            if same
            else "cannot be told apart: distances differ from the first one's by less than "
            f"{Z95} standard errors"
        )
        return [f"The first {n_tied:,} {why}."]
    if first.standard_error is None:
        return ["How sure the order is, is not known: standard errors were not measured."]
    return []


def _legend(ranking: "Ranking", shown: Sequence["RankedCandidate"]) -> list[str]:
    """What in the table needs a word: the marks of ties, and distances below 0."""
    lines = []
    distant = [item for item in shown if item.distance is not None]
    marked = [item for item in shown if item.distance is not None or item.is_loaded]
    tied = next((item for item in marked if len(item.tied) > 1), None)
    if tied is not None:
        first = first_of_ties(tied)
        lines.append(
            f"≈{first}: cannot be told apart from number {first}, the group's first; "
            f"neighbours in different groups may be tied too."
        )
    if ranking.has_alpha and any((item.distance or 0.0) < 0 for item in distant):
        what = f"{ranking.distance} takes off alpha times the source task's complexity"
        if ranking.distance == "model2vec":
            what = "alpha times the complexity is taken off, and what was learned moves distances, too"
        lines.append(f"Below 0 is no error: {what}.")
    return [*lines, *refined_words.legend(shown), *prior_words.legend(shown)]


def _folder(ranking: "Ranking") -> str:
    """The folder of all checkpoints, where they lie in one on this machine; names leave it out."""
    folder = common_folder(ranking.ranked) if len(ranking) > 1 else ""
    path = Path(folder)
    return folder if path.is_absolute() and path != path.parent else ""


def _cells(item: "RankedCandidate", digits: int, sizes: Counter[int], folder: str) -> dict[str, str]:
    distance = "–"
    if item.distance is not None:
        error = "" if item.standard_error is None else f" ± {number(item.standard_error, digits)}"
        distance = number(item.distance, digits) + error
    tied = len(item.tied) > 1 or sizes[item.tie_group] > 1
    cells = (
        str(item.rank),
        item.candidate.id.removeprefix(folder),
        distance,
        f"≈{first_of_ties(item)}" if tied else "",
        item.source_task or "–",
        count(item.candidate.parameters),
        "–" if item.prior is None else f"{item.prior:.3f}",
    )
    return {**dict(zip(_COLUMNS, cells, strict=True)), prior_words.ELSEWHERE: prior_words.cell(item)}


def _aligned(row: Sequence[str], columns: Sequence[str], widths: Sequence[int]) -> str:
    cells = [
        cell.rjust(width) if name in _TO_THE_RIGHT else cell.ljust(width)
        for name, cell, width in zip(columns, row, widths, strict=True)
    ]
    return "  ".join(cells).rstrip()


def _distance_in_words(ranking: "Ranking", item: "RankedCandidate") -> list[str]:
    assert item.distance is not None
    digits = digits_of([item])
    error = "standard error not known (it was not measured)"
    if item.standard_error is not None and item.interval is not None:
        low, high = (number(bound, digits) for bound in item.interval)
        error = f"standard error {number(item.standard_error, digits)}, 95 % interval {low} to {high}"
    if item.is_learned:
        n_tasks = f"{ranking.n_learned_tasks:,} " if ranking.n_learned_tasks else ""
        return [
            f"Learned distance: {number(item.distance, digits)} ({error}), from measured errors of "
            f"{ranking.n_learned_from or 0:,} checkpoints on {n_tasks}other tasks. What other errors would "
            f"have taught is not in the standard error."
        ]
    several = len(item.candidate.embeddings)
    of = f", the nearest of its {several} embeddings" if several > 1 else ""
    name = "relative" if ranking.distance == "model2vec" else ranking.distance
    lines = [
        f"Nearest source task: {item.source_task!r}{of}, at {name} distance "
        f"{number(item.distance, digits)} ({error})."
    ]
    if item.complexity is not None:
        lines.append(
            f"That is {number(item.distance + item.complexity, digits)} less "
            f"{number(item.complexity, digits)} for the complexity of the source task, alpha "
            f"{ranking.alpha:g} times its distance to the trivial embedding."
        )
    if ranking.distance == "model2vec":
        lines.append("The learned distances do not know it; theirs are on the scale of this one.")
    return lines


def _ties_in_words(ranking: "Ranking", item: "RankedCandidate") -> list[str]:
    distances = {other.candidate.id: other.distance for other in ranking.items}
    others = [id for id in item.tied if id != item.candidate.id]
    folder = _folder(ranking)
    same = [id for id in others if distances.get(id) == item.distance]
    near = [id for id in others if id not in set(same)]
    lines = []
    if same:
        lines.append(
            f"It has the same distance as {_names(same, folder)}; among these the prior decides. No image of "
            f"the task can part them."
        )
    if near:
        lines.append(
            f"It cannot be told apart from {_names(near, folder)}: within the group, distances differ from "
            f"the first one's by less than {Z95} standard errors. More images (max_samples) would shrink the "
            f"error."
        )
    return lines


def _next_in_words(ranking: "Ranking", item: "RankedCandidate") -> list[str]:
    if item.gap is None:
        return []
    name = next((other.candidate.id for other in ranking.items if other.rank == item.rank + 1), None)
    following = (
        f"The next one, {name.removeprefix(_folder(ranking))}," if name else "The next one (not shown)"
    )
    if item.gap == 0:
        return [] if item.gap_error == 0 else [f"{following} is exactly as far."]
    if item.gap_error is None:
        return [f"{following} is {gap_in_words(item.gap, None)} further; how sure that is, is not known."]
    ratio = item.gap / item.gap_error if item.gap_error else math.inf
    verdict = (
        "other images of the same task could swap the two"
        if ratio < Z95
        else f"{ratio:.1f} standard errors, so other images of the same task are unlikely to swap the two"
    )
    return [f"{following} is {gap_in_words(item.gap, item.gap_error)} further: {verdict}."]


def _names(names: Sequence[str], folder: str) -> str:
    shown = ", ".join(name.removeprefix(folder) for name in names[:_MAX_NAMES])
    return shown if len(names) <= _MAX_NAMES else f"{shown} and {len(names) - _MAX_NAMES:,} more"
