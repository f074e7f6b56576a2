"""The second stage of a ranking: candidates are loaded, and scored by what their features say of the task."""

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import TYPE_CHECKING, Any, Self, get_args

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from t2v_hub.errors import InsufficientMemoryError, SettingsError, T2VError
from t2v_hub.scores import SCORES, FeatureKind, ridge_probe, score
from t2v_hub.selector.combined import COMBINED, PARTS, combined
from t2v_hub.selector.outcomes import Difference, Outcomes, tie_groups
from t2v_hub.selector.shortlist import shortlist

if TYPE_CHECKING:
    from t2v_hub.features import Features

_PATIENCE = 10  # candidates that fail one after the other: then it is the connection, or the disk


@dataclass(frozen=True)
class Limits:
    """How much the second stage does, and by what it orders.

    Attributes:
        k: Candidates to load; None for all that the time suffices for.
        budget_s: Seconds after which no further one is begun; None for no limit.
        score: Name of the score, ``combined`` or a key of `t2v_hub.scores.SCORES`.
        max_images: Images of the task that they are scored on.
        features: By which features: the ``last`` ones, or those of all ``layers``.
    """

    k: int | None
    budget_s: float | None
    score: str
    max_images: int
    features: FeatureKind = "last"

    @classmethod
    def checked(
        cls,
        refine: int,
        budget_s: float | None,
        score: str,
        max_images: int,
        features: FeatureKind = "last",
    ) -> Self | None:
        """The limits, from arguments of `ModelSelector.rank`; None where nothing is to be loaded.

        Raises:
            SettingsError: One that cannot work.
        """
        if isinstance(refine, bool) or not isinstance(refine, int) or refine < 0:
            raise SettingsError(
                f"refine must be a whole number >= 0, how many candidates to load; got {refine!r}."
            )
        if budget_s is not None:
            is_number = isinstance(budget_s, int | float) and not isinstance(budget_s, bool)
            if not is_number or not math.isfinite(budget_s) or budget_s < 0:
                raise SettingsError(
                    f"budget_s must be a number of seconds >= 0, or None for no limit; got {budget_s!r}."
                )
        check_score(score)
        if isinstance(max_images, bool) or not isinstance(max_images, int) or max_images < 2:
            raise SettingsError(f"max_images must be a whole number >= 2; got {max_images!r}.")
        if features not in get_args(FeatureKind):
            raise SettingsError(f"features must be 'last' or 'layers'; got {features!r}.")
        if refine == 0 and budget_s is None:
            return None
        return cls(refine or None, None if budget_s is None else float(budget_s), score, max_images, features)


def check_score(name: str) -> None:
    """Return when there is such a score to order loaded candidates by.

    Raises:
        SettingsError: There is none; the message lists them, those of plug-ins too.
    """
    if name != COMBINED and name not in SCORES:
        known = ", ".join((COMBINED, *SCORES))
        raise SettingsError(f"There is no score {name!r}. Choose one of: {known}.")


@dataclass(frozen=True, eq=False)
class Loaded:
    """A candidate that was loaded.

    Attributes:
        id: Of the candidate.
        score: The score; None for one that it cannot have.
        outcomes: Of the leave-one-out ridge probe on its features.
        parts: Of the combined score; empty for any other.
        tie_group: Number of its tie group among those that were loaded, from 1.
    """

    id: str
    score: float | None
    outcomes: Outcomes
    parts: Mapping[str, float] = field(default_factory=dict)
    tie_group: int = 0


@dataclass(frozen=True)
class AgainstPrior:
    """Whether the ranking adds anything to what is known without looking at the task.

    Attributes:
        id: The candidate of the highest prior, which one would take without any ranking.
        difference: Its predicted error less that of the ranking's first; None where it was not loaded. The
            first was chosen on the same images as it is judged on, which favours it a little.
    """

    id: str
    difference: Difference | None


@dataclass(frozen=True)
class Refinement:
    """What the second stage did.

    Attributes:
        score: By which score the loaded candidates are ordered.
        n_loaded: How many were loaded.
        n_images: On how many images of the task they were scored.
        seconds: How long that took.
        failed: Why a candidate could not be loaded or scored, by its id; it keeps its place by distance.
        gave_up: Whether it ended because ten in a row failed.
        against_prior: The first against the candidate of the highest prior; None where no candidate has a
            prior, or none was loaded.
        features: Which features they were scored by.
    """

    score: str
    n_loaded: int
    n_images: int
    seconds: float
    failed: Mapping[str, str] = field(default_factory=dict)
    gave_up: bool = False
    against_prior: AgainstPrior | None = None
    features: FeatureKind = "last"


def second_stage(
    by_distance: Sequence[str],
    by_prior: Sequence[str],
    *,
    read: "Callable[[str], Features]",
    labels: NDArray[np.int64],
    limits: Limits,
    effects: Mapping[str, float] | None = None,
    began: float | None = None,
    progress: bool = True,
) -> tuple[tuple[Loaded, ...], Refinement]:
    """Candidates loaded and scored, best first, and what was done.

    Args:
        by_distance: Ids of all candidates in the order of the first stage.
        by_prior: Ids of those with a known prior, the highest first.
        read: Loads a candidate and gives its features on the task's images.
        labels: Of these images, ``(n,)``.
        limits: How many to load.
        effects: Of candidates on the errors of other tasks (`Experience.effects`), for the combined score;
            None or empty where nothing is recorded.
        began: When the time began to run, by `time.monotonic`; now where absent.
        progress: Whether to show a bar (on a terminal).

    Raises:
        InsufficientMemoryError: Not even one image fits into memory.
    """
    began = monotonic() if began is None else began
    loaded: dict[str, Loaded] = {}
    failed: dict[str, str] = {}
    k = len(by_distance) if limits.k is None else min(limits.k, len(by_distance))
    in_a_row = 0
    with _bar(k if limits.budget_s is None else None, progress) as bar:
        while len(loaded) < k and in_a_row < _PATIENCE:
            if loaded and limits.budget_s is not None and monotonic() - began >= limits.budget_s:
                break
            wanted = shortlist(_without(by_distance, failed), _without(by_prior, failed), k)
            id = next((id for id in wanted if id not in loaded), None)
            if id is None:
                break
            try:
                loaded[id] = _scored(id, read(id), labels, limits.score)
            except InsufficientMemoryError:
                raise
            except T2VError as error:
                failed[id] = str(error)
                in_a_row += 1
            else:
                in_a_row = 0
                bar.update()
    ordered = _ordered(_combined(loaded.values(), limits, effects), by_distance, limits.score)
    against = None
    if ordered and by_prior:
        other = loaded.get(by_prior[0])
        difference = None if other is None else ordered[0].outcomes.better_than(other.outcomes)
        against = AgainstPrior(by_prior[0], difference)
    return ordered, Refinement(
        score=limits.score,
        n_loaded=len(ordered),
        n_images=len(labels),
        seconds=monotonic() - began,
        failed=failed,
        gave_up=in_a_row >= _PATIENCE,
        against_prior=against,
        features=limits.features,
    )


def _scored(id: str, found: "Features", labels: NDArray[np.int64], name: str) -> Loaded:
    probe = ridge_probe(found.features, labels)
    outcomes = Outcomes(probe.outcomes)
    known = {"ridge_accuracy": probe.accuracy, "ridge_loss": probe.loss}
    if name == COMBINED:
        functions = {part: SCORES[part].function for part in PARTS if part not in known}
        parts = known | {part: function(found.features, labels) for part, function in functions.items()}
        return Loaded(id, None, outcomes, {part: parts[part] for part in PARTS})
    if name in known:
        return Loaded(id, known[name], outcomes)
    return Loaded(id, score(name, labels, features=found.features, predictions=found.predictions), outcomes)


def _combined(
    loaded: Collection[Loaded], limits: Limits, effects: Mapping[str, float] | None
) -> Collection[Loaded]:
    """With the combined score, where that is wanted: it is known when all are loaded."""
    if limits.score != COMBINED or not loaded:
        return loaded
    own = [effects.get(one.id, 0.0) for one in loaded] if effects else None
    values = combined([one.parts for one in loaded], own)
    return [replace(one, score=value) for one, value in zip(loaded, values, strict=True)]


def _ordered(loaded: Iterable[Loaded], by_distance: Sequence[str], name: str) -> tuple[Loaded, ...]:
    """By score, best first; those that cannot have it last; equal ones by error, then by the first stage."""
    sign = -1.0 if name == COMBINED or SCORES[name].larger_is_better else 1.0
    places = {id: place for place, id in enumerate(by_distance)}

    def key(one: Loaded) -> tuple[bool, float, float, int]:
        value = 0.0 if one.score is None else sign * one.score
        return one.score is None, value, one.outcomes.error, places[one.id]

    ordered = sorted(loaded, key=key)
    groups = tie_groups([one.outcomes for one in ordered])
    return tuple(replace(one, tie_group=group) for one, group in zip(ordered, groups, strict=True))


def _without(ids: Sequence[str], failed: Mapping[str, str]) -> Sequence[str]:
    return [id for id in ids if id not in failed] if failed else ids


def _bar(total: int | None, progress: bool) -> "tqdm[Any]":
    disable = None if progress else True
    return tqdm(total=total, desc="checkpoints loaded", disable=disable, leave=False)
