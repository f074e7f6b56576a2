"""`SCORES`: every score by name, with what it needs and costs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from numpy.typing import ArrayLike

from t2v_hub.errors import SettingsError
from t2v_hub.scores.evidence import logme
from t2v_hub.scores.logistic import logistic_loss
from t2v_hub.scores.neighbours import knn_accuracy
from t2v_hub.scores.predictions import leep, nce
from t2v_hub.scores.ridge import ridge_accuracy, ridge_loss
from t2v_hub.scores.separation import h_score, transrate


@dataclass(frozen=True)
class Score:
    """A transferability score.

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
    needs: Literal["features", "predictions"]
    cost: Literal["linear", "pairwise", "spectral", "iterative"]
    reference: str
    larger_is_better: bool = True


SCORES: Mapping[str, Score] = MappingProxyType(
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
"""Every score, by name."""


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
    """
    if name not in SCORES:
        raise SettingsError(f"There is no score {name!r}; choose one of {', '.join(SCORES)}.")
    entry = SCORES[name]
    if entry.needs == "predictions":
        return None if predictions is None else entry.function(predictions, labels)
    if features is None:
        raise SettingsError(f"The score {name!r} needs features, and none were given.")
    return entry.function(features, labels)
