"""The prior of a ranking in words: what it goes by, and what it knows of a candidate."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from t2v_hub.selector.figures import count

if TYPE_CHECKING:
    from t2v_hub.selector.ranked import RankedCandidate
    from t2v_hub.selector.ranking import Ranking

ELSEWHERE = "elsewhere"
"""The column of errors on other tasks, which a table has only where some are recorded."""


def goes_by(ranking: "Ranking") -> str:
    """What the prior goes by."""
    n = ranking.n_experience
    recorded = f"errors on {n:,} recorded {_tasks(n)}, then " if n else ""
    return f"{recorded}parameters, then upstream accuracy, then downloads"


def line(ranking: "Ranking") -> list[str]:
    """For the head of a table: that the prior comes from recorded results, where it does."""
    return [f"Prior       {goes_by(ranking)}"] if ranking.n_experience else []


def cell(item: "RankedCandidate") -> str:
    """A candidate's text in the column of errors on other tasks."""
    return "–" if item.experience is None else f"{item.experience:+.2f}"


def legend(shown: Iterable["RankedCandidate"]) -> list[str]:
    """What the column means."""
    if all(item.experience is None for item in shown):
        return []
    return [
        f"{ELSEWHERE}: errors on other tasks recorded here, in standard deviations from the average; below 0 "
        f"is better."
    ]


def sentence(ranking: "Ranking", item: "RankedCandidate") -> str:
    """What the prior knows of a candidate, and what it decides."""
    candidate = item.candidate
    facts = [
        *_experience(ranking, item),
        "size not known" if candidate.parameters is None else f"{count(candidate.parameters)} parameters",
        "upstream accuracy not known" if item.prior is None else f"upstream accuracy {item.prior:.3f}",
        "downloads not known" if candidate.downloads is None else f"{candidate.downloads:,} downloads",
    ]
    what = "it decides only between equal distances and where there is none"
    if ranking.refinement is not None:
        what = "it decides which candidates are loaded beside the nearest, and between equal distances"
    return f"Prior: {', '.join(facts)}; {what}."


def _experience(ranking: "Ranking", item: "RankedCandidate") -> list[str]:
    if not ranking.n_experience:
        return []
    if item.experience is None:
        return ["no errors on other tasks are recorded here, which counts as the average"]
    where = f"on {item.n_experience:,} other {_tasks(item.n_experience)} recorded here"
    size = f"{abs(item.experience):.1f}"
    if size == "0.0":
        return [f"{where} its errors were about the average"]
    side = "below" if item.experience < 0 else "above"
    return [f"{where} its errors were {size} deviations {side} the average"]


def _tasks(n: int) -> str:
    return "task" if n == 1 else "tasks"
