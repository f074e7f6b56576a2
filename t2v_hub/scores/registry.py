"""`SCORES`: every score by name, with what it needs and costs; those of plug-ins too."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from numbers import Real
from types import MappingProxyType
from typing import Literal, cast, get_args

from numpy.typing import ArrayLike

from t2v_hub.errors import ScoreError, SettingsError
from t2v_hub.plugins import guarded, plugins
from t2v_hub.scores.evidence import logme
from t2v_hub.scores.features import checked_pair
from t2v_hub.scores.logistic import logistic_loss
from t2v_hub.scores.neighbours import knn_accuracy
from t2v_hub.scores.predictions import leep, nce
from t2v_hub.scores.ridge import ridge_accuracy, ridge_loss
from t2v_hub.scores.separation import h_score, transrate

Needs = Literal["features", "predictions"]
Cost = Literal["linear", "pairwise", "spectral", "iterative"]
_BOOL = (True, False)


@dataclass(frozen=True)
class Score:
    """A transferability score.

    Another package adds one by an entry point of the group ``t2v_hub.scores`` that names such an object;
    the entry point's name must be the score's. Its function is then called with copies, checked beforehand:
    ``(n, d)`` finite float64 and ``(n,)`` codes of classes from 0, two or more, all of which occur. It
    returns a finite number. `t2v_hub.testing.check_score` tests what is expected of it.

    Attributes:
        name: What it is called, in tables and in `score`.
        function: Of ``(features, labels)`` or ``(predictions, labels)``; further options keep their defaults.
        needs: Which of the two it takes.
        cost: ``linear`` in the values; ``pairwise``: n² products of rows; ``spectral``: the cube of the
            smaller of n and d; ``iterative``: some hundred times n² products for each class.
        reference: Where it comes from.
        larger_is_better: Its direction.
    """

    name: str
    function: Callable[[ArrayLike, ArrayLike], float]
    needs: Needs
    cost: Cost
    reference: str
    larger_is_better: bool = True


BUILT_IN_SCORES: Mapping[str, Score] = MappingProxyType(
    {
        entry.name: entry
        for entry in (
            Score("logme", logme, "features", "spectral", "You et al., ICML 2021 and JMLR 2022"),
            Score("leep", leep, "predictions", "linear", "Nguyen et al., ICML 2020"),
            Score("nce", nce, "predictions", "linear", "Tran et al., ICCV 2019"),
            Score("h_score", h_score, "features", "spectral", "Bao et al., ICIP 2019; Ibrahim et al., 2021"),
            Score("transrate", transrate, "features", "spectral", "Huang et al., ICML 2022"),
            Score("knn_accuracy", knn_accuracy, "features", "pairwise", "Cover and Hart, 1967"),
            Score("ridge_accuracy", ridge_accuracy, "features", "spectral", "Allen, 1974"),
            Score("ridge_loss", ridge_loss, "features", "spectral", "Allen, 1974", larger_is_better=False),
            Score(
                "logistic_loss",
                logistic_loss,
                "features",
                "iterative",
                "Stone, 1974; Guo et al., ICML 2017",
                larger_is_better=False,
            ),
        )
    }
)
"""The scores of t2v_hub itself, by name."""

_TAKEN = frozenset({*BUILT_IN_SCORES, "combined"})  # the selector's own


class _Scores(Mapping[str, Score]):
    """The built-in ones; those of plug-ins once another name is asked for, or the names are listed."""

    def __getitem__(self, name: str) -> Score:
        return BUILT_IN_SCORES[name] if name in BUILT_IN_SCORES else _plugged()[name]

    def __iter__(self) -> Iterator[str]:
        yield from BUILT_IN_SCORES
        yield from _plugged()

    def __len__(self) -> int:
        return len(BUILT_IN_SCORES) + len(_plugged())

    def __repr__(self) -> str:
        return f"<scores: {', '.join(self)}>"


SCORES: Mapping[str, Score] = _Scores()
"""Every score, by name: the built-in ones, then those of plug-ins, looked up when they are needed."""


def unusable(name: str, value: object) -> str | None:
    """What is wrong with what is to be the score of that name, in words; None where nothing is."""
    if not isinstance(value, Score):
        return f"it must be a t2v_hub.scores.Score, not {type(value).__name__}"
    facts: Mapping[str, object] = vars(value)  # nothing has looked at their types yet
    if facts["name"] != name:
        return f"the score calls itself {facts['name']!r}"
    if not callable(facts["function"]):
        return f"its function must be one, not {type(facts['function']).__name__}"
    for field, known in (("needs", get_args(Needs)), ("cost", get_args(Cost)), ("larger_is_better", _BOOL)):
        if facts[field] not in known:
            return f"its {field} must be one of {', '.join(map(str, known))}, not {facts[field]!r}"
    return None


def _plugged() -> Mapping[str, Score]:
    return cast("Mapping[str, Score]", plugins("t2v_hub.scores", taken=_TAKEN, refusal=unusable))


def score(
    name: str,
    labels: ArrayLike,
    *,
    features: ArrayLike | None = None,
    predictions: ArrayLike | None = None,
) -> float | None:
    """The value of one score, or None where the checkpoint has no classifier to predict with.

    Args:
        name: A key of `SCORES`.
        labels: ``(n,)`` whole numbers or strings.
        features: ``(n, d)``, what the checkpoint makes of the images; for scores that need them.
        predictions: ``(n, k)``, its probabilities over its own classes; None for one without a head.

    Returns:
        The function's value; its direction is `Score.larger_is_better`. None for a score that needs
        predictions where there are none: a blank under its name, not a failure.

    Raises:
        SettingsError: No such score, or it needs features and there are none.
        LabelError: As the score's function.
        ProbeOutputError: As the score's function.
        ScoreError: A plug-in's function fails, or what it returns is no finite number.
    """
    if name not in SCORES:
        raise SettingsError(f"There is no score {name!r}; choose one of {', '.join(SCORES)}.")
    entry = SCORES[name]
    values = features if entry.needs == "features" else predictions
    if values is None:
        if entry.needs == "predictions":
            return None
        raise SettingsError(f"The score {name!r} needs features, and none were given.")
    return entry.function(values, labels) if name in BUILT_IN_SCORES else _of_plug_in(entry, values, labels)


def finite_number(value: object) -> float | None:
    """The value as a float; None where it is no finite real number."""
    if value is True or value is False or not isinstance(value, Real):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _of_plug_in(entry: Score, values: ArrayLike, labels: ArrayLike) -> float:
    x, classes = checked_pair(values, labels, what=entry.needs)
    with guarded(f"The score {entry.name!r} cannot be worked out", ScoreError):
        value = entry.function(x, classes.codes)
        number = finite_number(value)
    if number is None:
        raise ScoreError(
            f"The score {entry.name!r} must be a finite number, and came out as {_shown(value)}. The fault "
            f"is the plug-in's; tell who made it."
        )
    return number


def _shown(value: object) -> str:
    return str(value) if isinstance(value, Real) else f"a {type(value).__name__}"
