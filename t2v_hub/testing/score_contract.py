"""`check_score`: what a score of a plug-in must do."""

import math
from collections.abc import Iterator
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from t2v_hub.errors import T2VError
from t2v_hub.plugins import is_name
from t2v_hub.scores import BUILT_IN_SCORES, Score
from t2v_hub.scores.registry import finite_number, unusable
from t2v_hub.testing.contracts import no_error, randomness_kept, require

Array = NDArray[np.float64]
Codes = NDArray[np.int64]

_SAME = 1e-6  # of a value: what another order of the same sums may change


def check_score(score: Score, *, any_order: bool = True) -> None:
    """Return when a score does what t2v_hub's own do.

    It has a name of its own. It gives a finite number, the same each time, whatever numbers the classes have;
    a better one where classes lie apart than for noise, in the direction that it claims. For features that
    are constant, tiny, huge or few it gives a finite number or raises a `T2VError`. It leaves its inputs and
    the state of random numbers as they were.

    Args:
        score: The score.
        any_order: Whether the order of the images must not matter either. It may for a score that divides
            them into folds, as `logistic_loss` does.

    Raises:
        AssertionError: It does not; the message says what was wanted and what came.
    """
    why = unusable(getattr(score, "name", ""), score)
    require(why is None, f"{score!r} is no score: {why}.")
    require(
        is_name(score.name),
        f"{score.name!r} is no name for a plug-in: two or more letters, digits, '_', '.' and '-'.",
    )
    require(
        score.name != "combined" and BUILT_IN_SCORES.get(score.name, score) is score,
        f"t2v_hub has a score {score.name!r} itself. Choose another name.",
    )
    for n, d, n_classes in ((60, 8, 3), (24, 40, 4)):
        _check_invariances(score, n, d, n_classes, any_order=any_order)
    averages = [
        np.mean([_value(score, *_task(score, 120, 8, 4, apart=apart, seed=seed)) for seed in range(3)])
        for apart in (0.0, 2.0)
    ]
    noise, apart = (float(average) for average in averages)
    require(
        apart > noise if score.larger_is_better else apart < noise,
        f"The score {score.name!r} gave {apart:.4g} for classes that lie apart and {noise:.4g} for noise; "
        f"larger_is_better={score.larger_is_better} claims the opposite. Correct the one or the other.",
    )
    for case, x, codes in _edges(score):
        with suppress(T2VError):
            _value(score, x, codes, case=case, may_refuse=True)


def _check_invariances(score: Score, n: int, d: int, n_classes: int, *, any_order: bool) -> None:
    rng = np.random.default_rng(0)
    x, codes = _task(score, n, d, n_classes, apart=1.0, seed=n)
    value = _value(score, x, codes)
    _value(score, *_task(score, n, d, n_classes, apart=0.5, seed=n + 1))
    again = _value(score, x, codes)
    require(
        again == value,
        f"The score {score.name!r} gave {value!r}, and then {again!r} for the same {score.needs} and labels. "
        f"Seed what is random in it, and keep nothing from one call to the next.",
    )
    renamed = _value(score, x, np.roll(np.arange(n_classes), 1)[codes])
    require(
        math.isclose(renamed, value, rel_tol=_SAME, abs_tol=1e-9),
        f"The score {score.name!r} gave {value!r}, and {renamed!r} when the classes had other numbers. Which "
        f"number a class has says nothing.",
    )
    order = rng.permutation(n)
    mixed = _value(score, x[order], codes[order]) if any_order else value
    require(
        math.isclose(mixed, value, rel_tol=_SAME, abs_tol=1e-9),
        f"The score {score.name!r} gave {value!r}, and {mixed!r} for the same images in another order. Where "
        f"that is meant, as with folds, check it with any_order=False.",
    )


def _value(
    score: Score,
    x: Array,
    codes: Codes,
    *,
    case: str = "ordinary values",
    may_refuse: bool = False,
) -> float:
    """What the function gives; checks the kind of it, and that it leaves all else alone."""
    given = x.copy(), codes.copy()
    what = f"The score {score.name!r}"
    with randomness_kept(what), no_error(f"{what} fails for {case}", ours=may_refuse):
        result: object = score.function(*given)
    require(
        np.array_equal(given[0], x) and np.array_equal(given[1], codes),
        f"{what} changed the {score.needs} or the labels that it was given. Work on a copy.",
    )
    number = finite_number(result)
    require(
        number is not None,
        f"{what} gave {result!r} for {case}; wanted a finite number, or a T2VError where there is none.",
    )
    assert number is not None
    return number


def _task(score: Score, n: int, d: int, n_classes: int, *, apart: float, seed: int) -> tuple[Array, Codes]:
    """Features of normal classes whose centres lie apart, or such logits as probabilities; and classes."""
    rng = np.random.default_rng(seed)
    codes = np.arange(n, dtype=np.int64) % n_classes
    x = apart * rng.normal(size=(n_classes, d))[codes] + rng.normal(size=(n, d))
    return _probabilities(x) if score.needs == "predictions" else x, codes


def _edges(score: Score) -> Iterator[tuple[str, Array, Codes]]:
    """Inputs at which formulas divide by zero or overflow."""
    two, three = np.arange(8, dtype=np.int64) % 2, np.arange(6, dtype=np.int64) % 3
    x = np.random.default_rng(0).normal(size=(8, 5))
    if score.needs == "predictions":
        yield "predictions of one source class", np.ones((6, 1)), three
        yield "predictions that are certain, all of one class", np.eye(9)[[4] * 6], three
        yield "predictions that are all equal", np.full((6, 4), 0.25), three
        yield "two images", _probabilities(x[:2]), two[:2]
        yield "classes of one image each", _probabilities(x[:6]), np.arange(6)
        return
    yield "two images", x[:2], two[:2]
    yield "equal images of two classes", np.ones((2, 3)), two[:2]
    yield "one feature", x[:, :1], two
    yield "classes of one image each", x[:6], np.arange(6)
    yield "a class of one image", x, np.array([0] * 7 + [1])
    yield "features that are all 0", np.zeros((6, 4)), three
    yield "constant features", np.full((6, 4), 0.1), three
    yield "columns of zeros", np.pad(x, ((0, 0), (0, 40))), two
    yield "every image four times", np.repeat(x[:2], 4, axis=0), two
    yield "features of size 1e-120", 1e-120 * x, two
    yield "features of size 1e99", 1e99 * np.clip(x, -9, 9), two


def _probabilities(logits: Array) -> Array:
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    result: Array = p / p.sum(axis=1, keepdims=True)
    return result
