"""The second stage in words: what was loaded, what failed, and whether it adds anything to the prior."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from t2v_hub.selector.combined import COMBINED, PARTS
from t2v_hub.selector.comparison import Z95
from t2v_hub.selector.second_stage import Refinement

if TYPE_CHECKING:
    from t2v_hub.selector.ranked import RankedCandidate
    from t2v_hub.selector.ranking import Ranking

_MAX_NAMES = 5
_ERROR = "predicted error ± 95 %"
_EXPECTED = "~"
_ERROR_IS_SCORE = "ridge_accuracy"  # the predicted error says the same


def loaded_line(done: Refinement) -> str:
    """For the head of a table: how many were loaded, how long it took, by what they are ordered."""
    failed = f"; {len(done.failed):,} failed" if done.failed else ""
    return (
        f"Loaded      {done.n_loaded:,} in {done.seconds:,.1f} s, scored by {done.score}"
        f"{' of all layers' if done.features == 'layers' else ''} on "
        f"{done.n_images:,} images of the task{failed}"
    )


def columns(done: Refinement | None, shown: Sequence["RankedCandidate"] = ()) -> tuple[str, ...]:
    """Columns that a table has only where candidates were loaded, or errors on other tasks predict one."""
    if done is None or done.n_loaded == 0:
        return (_ERROR,) if any(item.predicted_error is not None for item in shown) else ()
    return (_ERROR,) if done.score == _ERROR_IS_SCORE else (_ERROR, done.score)


def cells(item: "RankedCandidate", done: Refinement | None) -> dict[str, str]:
    """A candidate's text in these columns."""
    error, own = "–", "–"
    if item.predicted_error is not None and item.predicted_interval is not None:
        low, high = item.predicted_interval
        margin, mark = 50 * (high - low), ""
        if not item.is_loaded:  # cut to [0, 1], so that one side may be the shorter
            margin, mark = 100 * max(high - item.predicted_error, item.predicted_error - low), _EXPECTED
        error = f"{mark}{100 * item.predicted_error:.1f} ± {margin:.1f} %"
    if item.score is not None:
        own = f"{item.score:+.2f}" if done is not None and done.score == COMBINED else f"{item.score:.4g}"
    return {_ERROR: error, **({} if done is None else {done.score: own})}


def legend(shown: Iterable["RankedCandidate"]) -> list[str]:
    """What the mark of errors that were not measured on the task means."""
    origins = {item.predicted_from for item in shown}
    if "loaded candidates" in origins:
        return [
            f"{_EXPECTED}: not loaded; expected from its errors on other tasks, beside those of the loaded "
            f"candidates here."
        ]
    if "other tasks" in origins:
        return [f"{_EXPECTED}: expected from its errors on other tasks; nothing of this task is in it."]
    return []


def expected_in_words(item: "RankedCandidate") -> list[str]:
    """What errors on other tasks let one expect of a candidate that was not loaded."""
    if item.is_loaded or item.predicted_error is None or item.predicted_interval is None:
        return []
    low, high = (100 * bound for bound in item.predicted_interval)
    level = "taken from those tasks, so nothing of this one is in it"
    if item.predicted_from == "loaded candidates":
        level = "that of the loaded candidates here"
    n = item.n_experience
    return [
        f"Expected error: {100 * item.predicted_error:.1f} % (95 % interval {low:.1f} to {high:.1f} %), from "
        f"its errors on {n:,} other {'task' if n == 1 else 'tasks'}; the level is {level}."
    ]


def verdict(ranking: "Ranking", folder: str) -> list[str]:
    """Whether the first ones are tied, and whether the ranking adds anything to the prior.

    Args:
        ranking: What to judge.
        folder: What names of candidates begin with and need not say.
    """
    done = ranking.refinement
    if done is None:
        return []
    lines = []
    if done.gave_up:
        lines.append("Ten candidates in a row could not be loaded, so no more were tried.")
    if done.n_loaded == 0:
        return [*lines, "No candidate was loaded; the order is that of the first stage."]
    first = ranking.items[0]
    if first.rank != 1:
        return lines
    if len(first.tied) > 1:
        lines.append(
            f"The first {len(first.tied):,} cannot be told apart: on the same images, errors differ from the "
            f"first one's by less than {Z95} standard errors."
        )
    return [*lines, _against_prior(first.candidate.id, done, folder)]


def failures(done: Refinement | None, folder: str) -> list[str]:
    """For the end of a table: which candidates could not be loaded, and why."""
    if done is None or not done.failed:
        return []
    lines = ["", f"Could not be loaded, and keep their place by distance ({len(done.failed):,}):"]
    lines += [
        f"  {id.removeprefix(folder)}: {reason}" for id, reason in list(done.failed.items())[:_MAX_NAMES]
    ]
    if len(done.failed) > _MAX_NAMES:
        lines.append(f"  … and {len(done.failed) - _MAX_NAMES:,} more (Ranking.failed)")
    return lines


def score_in_words(item: "RankedCandidate", done: Refinement) -> list[str]:
    """Why a candidate stands where it stands, as far as the second stage goes."""
    if item.candidate.id in done.failed:
        return [
            f"It could not be loaded, so it stands by distance, after those that could: "
            f"{done.failed[item.candidate.id]}"
        ]
    if not item.is_loaded or item.predicted_error is None or item.predicted_interval is None:
        return ["It was not loaded; those that were stand before it."]
    low, high = (100 * bound for bound in item.predicted_interval)
    which = "the features of all its layers" if done.features == "layers" else "its features"
    lines = [
        f"It was loaded: a linear classifier on {which} misses {100 * item.predicted_error:.1f} % of "
        f"{done.n_images:,} images of the task, each left out in turn (95 % interval {low:.1f} to "
        f"{high:.1f} %)."
    ]
    if item.score is None:
        lines.append(
            f"It has no {done.score}, which needs the predictions of a head of its own; so it stands after "
            f"those that have one."
        )
    elif done.score == COMBINED:
        lines.append(
            f"Loaded candidates are ordered by the combined score: the mean of {', '.join(PARTS)}, and a "
            f"quarter of recorded results, in standard deviations over the loaded ones; its own is "
            f"{item.score:+.2f}."
        )
    elif done.score != _ERROR_IS_SCORE:
        lines.append(f"Loaded candidates are ordered by {done.score}; its own is {item.score:.4g}.")
    return lines


def tied_in_words(names: str) -> str:
    """That a loaded candidate is tied with others."""
    return (
        f"It cannot be told apart from {names}: on the same images, errors differ from the group's first by "
        f"less than {Z95} standard errors of the difference. More images (max_images) would shrink these."
    )


def _against_prior(first: str, done: Refinement, folder: str) -> str:
    against = done.against_prior
    if against is None:
        return (
            "No candidate has a prior (parameters, upstream accuracy, downloads) that the ranking could be "
            "held against."
        )
    best = first.removeprefix(folder)
    other = f"{against.id.removeprefix(folder)}, which the prior alone would have taken"
    if against.id == first:
        return f"The prior alone would have taken {best} as well: the task changes nothing at the top."
    difference = against.difference
    if difference is None:
        why = "could not be loaded" if against.id in done.failed else "was not loaded (refine=2 loads it)"
        return f"Whether {best} is better than {other}, is not known: that {why}."
    points = f"{100 * abs(difference.value):.1f}"
    if difference.standard_error is not None:
        points += f" ± {100 * difference.standard_error:.1f}"
    which = "fewer" if difference.value >= 0 else "more"
    if difference.is_sure:
        return f"{best} makes {points} points {which} errors than {other}."
    return (
        f"{best} cannot be told apart from {other} ({points} points {which} errors): for this pool the task "
        f"adds nothing that shows."
    )
