"""Temperature and strength by leave-one-task-out cross-validation."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from t2v_hub.model2vec.learning import Array, Learning
from t2v_hub.model2vec.straight import cross_entropy

# Times the spread of the distances to a task. The warmer, the further biases must reach to count; at 10 their
# slopes are straight no more, and what cross-validation promises is not kept.
_TEMPERATURES = (0.1, 0.3, 1.0, 3.0)
_STRENGTHS = (float("inf"), 1.0, 0.1, 1e-2, 1e-3, 3e-4)  # falling: each solution starts the next
_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Choice:
    """A temperature and a strength, and how they did.

    Attributes:
        temperature: T, in units of distance.
        strength: λ.
        excess: Cross-entropy on left-out tasks less the soft targets' own entropy, in nats; 0 is perfect. NaN
            where nothing was tried.
    """

    temperature: float
    strength: float
    excess: float


def choose(
    learning: Learning,
    groups: Sequence[str],
    *,
    temperature: float | None = None,
    strength: float | None = None,
) -> list[Choice]:
    """Every pair that was tried, the best first; of equal ones the stronger and colder.

    The left-out tasks of each group are predicted from the tasks of the others, with slopes that stay as
    they are without biases: that makes thousands of fits a few convex problems. An infinite strength is
    tried, too, so that what does not help is not learned.

    Args:
        learning: The problem.
        groups: Tasks of one group are left out together, ``(n_tasks,)``.
        temperature: One that is given, in place of a choice.
        strength: Likewise.
    """
    member = np.unique(np.array(groups), return_inverse=True)[1]
    left_out = (member[:, None] == np.arange(member.max() + 1)).astype(np.float64)  # (n_tasks, n_groups)
    wanted, straight = learning.wanted, learning.straight
    n_tasks = wanted.shape[1]
    entropy = -float(np.nansum(wanted * np.log(np.where(wanted > 0, wanted, 1.0)))) / n_tasks
    tried = []
    for cold in _temperatures(learning) if temperature is None else [temperature]:
        unknowns: Array | None = None
        for strong in _STRENGTHS if strength is None else (strength,):
            if np.isfinite(strong):
                unknowns = straight.solve(1.0 - left_out, cold, strong, start=unknowns, tolerance=_TOLERANCE)
                logits = straight.logits(unknowns, cold)
            else:
                logits = np.repeat(-straight.plain[:, :, None] / cold, left_out.shape[1], axis=2)
            excess = float(cross_entropy(logits, wanted, left_out / n_tasks)[0].sum()) - entropy
            tried.append(Choice(float(cold), float(strong), round(excess, 6)))
    return sorted(tried, key=lambda choice: (choice.excess, -choice.strength, choice.temperature))


def _temperatures(learning: Learning) -> list[float]:
    """Those to try, by the typical standard deviation of the plain distances to a task."""
    plain = learning.straight.plain
    measured = np.where(np.isnan(learning.wanted), np.nan, plain)
    spread = float(np.sqrt(np.nanmean(np.square(measured - np.nanmean(measured, axis=0)))))
    if spread > 1e-9:
        return [times * spread for times in _TEMPERATURES]
    # All are equally far without biases (no training task is known): only how far biases reach hangs on the
    # temperature, and small ones keep slopes straight.
    spread = float(np.std(plain))
    return [_TEMPERATURES[0] * (spread if spread > 1e-9 else 1.0)]
