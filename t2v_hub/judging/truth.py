"""Measured test errors of candidates on tasks, and the ways to halve the splits that they come from."""

import itertools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from t2v_hub.errors import SettingsError

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]

DECIMALS = 12
"""To which means of errors are rounded: those of the same errors in another order must count as equal."""


@dataclass(frozen=True)
class GroundTruth:
    """Measured test errors.

    Attributes:
        errors: ``(n_tasks, n_candidates, n_splits)``, from 0 to 1; the same splits for every candidate of a
            task. NaN in all splits where a candidate is left out for a task (its own source).
        n_test: Test images of a split, ``(n_tasks,)``.
        candidates: Their names, ``(n_candidates,)``; numbers where absent.
        sources: Where each task comes from, ``(n_tasks,)``; tasks of a source are resampled together.

    Raises:
        SettingsError: Shapes do not agree, a value is out of its range, or gaps are not whole pairs of a
            task and a candidate.
    """

    errors: Array
    n_test: Array
    candidates: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        errors, n_test = np.asarray(self.errors, np.float64), np.asarray(self.n_test, np.float64)
        names = tuple(self.candidates) or tuple(str(c) for c in range(errors.shape[1]))
        for name, value in (("errors", errors), ("n_test", n_test), ("candidates", names)):
            object.__setattr__(self, name, value)
        absent = np.isnan(errors)
        if errors.ndim != 3 or n_test.shape != errors.shape[:1] or len(names) != errors.shape[1]:
            raise SettingsError(
                f"errors {errors.shape}, n_test {n_test.shape} and {len(names)} names do not agree; wanted "
                f"(n_tasks, n_candidates, n_splits), (n_tasks,) and n_candidates names."
            )
        if self.sources and len(self.sources) != len(errors):
            raise SettingsError(
                f"There are {len(self.sources)} sources for {len(errors)} tasks; give each one."
            )
        if (absent.any(axis=2) != absent.all(axis=2)).any():
            raise SettingsError(
                "A candidate must be measured in all splits of a task or in none. Set its errors to NaN in "
                "all splits of a task where one is missing, or leave that split out for all candidates."
            )
        if absent.all(axis=(1, 2)).any():
            raise SettingsError("Each task needs a candidate that was measured; leave the others out.")
        if not ((errors >= 0) & (errors <= 1) | absent).all() or not (n_test > 0).all():
            raise SettingsError(
                "Errors must lie between 0 and 1, and n_test above 0. Divide per cents by 100; 1e12 stands "
                "for an n_test that is not known."
            )

    @property
    def available(self) -> Flags:
        """Which candidates count for which tasks, ``(n_tasks, n_candidates)``."""
        return ~np.isnan(self.errors[:, :, 0])

    @property
    def mean(self) -> Array:
        """Errors averaged over all splits, ``(n_tasks, n_candidates)``."""
        result: Array = self.errors.mean(axis=2).round(DECIMALS)
        return result


def halvings(n_splits: int, n_halvings: int = 126, *, seed: int = 0) -> list[tuple[list[int], list[int]]]:
    """Different ways to halve the splits: all there are (126 for ten splits), or so many at random.

    Args:
        n_splits: Of an odd number, the first half is the smaller one.
        n_halvings: How many at most.
        seed: Of the draw, where there are more.

    Raises:
        SettingsError: There are fewer than two splits.
    """
    if n_splits < 2:
        raise SettingsError(
            f"{n_splits} split cannot be halved: measure each candidate on two splits or more, or pass "
            f"cross_fit=False and say so beside the figures."
        )
    half, even = n_splits // 2, n_splits % 2 == 0
    n_all = math.comb(n_splits, half) // (2 if even else 1)
    if n_all <= n_halvings:
        chosen = [c for c in itertools.combinations(range(n_splits), half) if not even or c[0] == 0]
    else:
        rng, found = np.random.default_rng(seed), dict[tuple[int, ...], None]()
        while len(found) < n_halvings:
            part = {int(s) for s in rng.permutation(n_splits)[:half]}
            if even and 0 not in part:
                part = set(range(n_splits)) - part
            found[tuple(sorted(part))] = None
        chosen = list(found)
    return [(list(c), [s for s in range(n_splits) if s not in c]) for c in chosen]
