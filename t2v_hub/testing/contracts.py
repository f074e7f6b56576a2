"""What the contract tests of plug-ins share: how they fail, and that nothing touches the whole process."""

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from t2v_hub.errors import T2VError


def require(holds: bool, message: str) -> None:
    """Return where it holds.

    Raises:
        AssertionError: It does not; with the message.
    """
    if not holds:  # an `assert` would be silent under python -O
        raise AssertionError(message)


@contextmanager
def no_error(what: str, *, ours: bool = False) -> Iterator[None]:
    """An error in the body becomes an AssertionError; where ``ours``, a `T2VError` stays as it is."""
    try:
        yield
    except Exception as error:
        if isinstance(error, AssertionError | Warning) or (ours and isinstance(error, T2VError)):
            raise
        raise AssertionError(f"{what}: {type(error).__name__}: {error}") from error


@contextmanager
def randomness_kept(what: str) -> Iterator[None]:
    """The body draws from no random numbers but its own."""
    before, of_torch = _randomness()
    yield
    after, of_torch_now = _randomness()
    require(
        after == before and of_torch in (None, of_torch_now),  # None: the body was the first to import it
        f"{what} draws from, or seeds, random numbers that belong to the whole process. Make a generator of "
        f"its own, such as numpy.random.default_rng(0).",
    )


def _randomness() -> tuple[object, object]:
    _, keys, *rest = np.random.get_state()
    torch = sys.modules.get("torch")
    of_torch = None if torch is None else torch.get_rng_state().numpy().tobytes()
    return (random.getstate(), np.asarray(keys).tobytes(), tuple(rest)), of_torch
