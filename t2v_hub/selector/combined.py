"""The combined score: three scores and the results on other tasks, of the candidates that were loaded."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from t2v_hub.scores import SCORES

COMBINED = "combined"
"""Its name, beside those of `t2v_hub.scores.SCORES`."""

PARTS = ("ridge_loss", "logme", "logistic_loss")
"""The scores of which it is the mean; their noise differs, so that the mean has less of it than each."""

RESULTS_WEIGHT = 0.25
"""How much errors on other tasks count beside the scores of this one."""


def combined(parts: Sequence[Mapping[str, float]], effects: Sequence[float] | None = None) -> list[float]:
    """The combined score of each loaded candidate; larger is better.

    Each part is brought to mean 0 and variance 1 over the loaded candidates, 0 where all are equal, and
    turned so that larger is better; the score is their mean. Where errors on other tasks are recorded, a
    quarter of the candidates' effects, brought to the same scale, is added. So a value means something beside
    the other loaded ones only.

    Args:
        parts: Per candidate its scores by name, those of `PARTS`.
        effects: Per candidate its effect on the error (`Experience.effects`), 0 where unknown; None where
            nothing is recorded.
    """
    columns = []
    for name in PARTS:
        sign = 1.0 if SCORES[name].larger_is_better else -1.0
        columns.append(sign * _standard([own[name] for own in parts]))
    result = np.mean(columns, axis=0)
    if effects is not None:
        result -= RESULTS_WEIGHT * _standard(effects)
    return [float(value) for value in result]


def _standard(values: Sequence[float]) -> NDArray[np.float64]:
    """Of mean 0 and variance 1; 0 where all are equal but for rounding."""
    array = np.asarray(values, np.float64)
    centred = array - array.mean()
    deviation = float(np.sqrt(np.mean(centred**2)))
    if deviation <= 1e-12 * float(np.abs(array).max()):
        return np.zeros(len(array))
    result: NDArray[np.float64] = centred / deviation
    return result
