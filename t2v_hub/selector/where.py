"""`Where`: which candidates a ranking considers."""

import numbers
from collections.abc import Callable, Collection, Mapping
from typing import cast

from t2v_hub.catalog import Candidate
from t2v_hub.errors import SettingsError

Number = int | float
Wanted = str | bool | Number | Collection[str] | tuple[Number | None, Number | None]
Where = Callable[[Candidate], object] | Mapping[str, Wanted]

_TEXTS = ("id", "revision", "library", "source", "licence")
_NUMBERS = ("parameters", "downloads", "likes", "upstream_accuracy")
_FLAGS = ("gated",)
_FIELDS = (*_TEXTS, *_NUMBERS, *_FLAGS)


def condition(where: Where | None) -> Callable[[Candidate], bool]:
    """The condition as a function; a mapping holds where each of its fields matches.

    A field's value is one of

    - a plain value, which the fact must equal: ``{"library": "timm", "gated": False}``;
    - a list or set, of which the fact must be one: ``{"licence": ["mit", "apache-2.0"]}``;
    - for numbers, a tuple ``(lowest, highest)``, both included, None for no bound:
      ``{"parameters": (None, 30_000_000)}``.

    A fact that is not known (None) never matches.

    Raises:
        SettingsError: An unknown field, or a value that its field cannot have.
    """
    if where is None:
        return lambda candidate: True
    if isinstance(where, Mapping):
        tests = {name: _test(name, wanted) for name, wanted in where.items()}
        return lambda candidate: all(
            (fact := getattr(candidate, name)) is not None and test(fact) for name, test in tests.items()
        )
    if callable(where):
        return lambda candidate: bool(where(candidate))
    raise SettingsError(
        f"where must be a function of a Candidate or a mapping such as {{'library': 'timm'}}, "
        f"not {type(where).__name__}."
    )


def _test(name: str, wanted: Wanted) -> Callable[[object], bool]:
    if name not in _FIELDS:
        raise SettingsError(f"where: a candidate has no field {name!r}. Choose from: {', '.join(_FIELDS)}.")
    if isinstance(wanted, tuple):
        return _range(name, wanted)
    if isinstance(wanted, list | set | frozenset):
        for value in wanted:
            _check(name, value)
        return lambda fact: fact in wanted
    _check(name, wanted)
    return lambda fact: fact == wanted


def _range(name: str, wanted: tuple[object, ...]) -> Callable[[object], bool]:
    bounds = len(wanted) == 2 and all(bound is None or _is_number(bound) for bound in wanted)
    if name not in _NUMBERS or not bounds:
        raise SettingsError(
            f"where: {name}={wanted!r} is a tuple, which means a range (lowest, highest) of numbers, None "
            f"for no bound; that goes with {', '.join(_NUMBERS)}. For one of several values use a list."
        )
    lowest, highest = cast(tuple[Number | None, Number | None], wanted)

    def within(fact: object) -> bool:
        value = cast(Number, fact)
        return (lowest is None or value >= lowest) and (highest is None or value <= highest)

    return within


def _check(name: str, value: object) -> None:
    if name in _TEXTS:
        fits, kind = isinstance(value, str), "text"
    elif name in _NUMBERS:
        fits, kind = _is_number(value), "a number, or a range (lowest, highest)"
    else:
        fits, kind = isinstance(value, bool), "True or False"
    if not fits:
        raise SettingsError(
            f"where: {name} must be {kind}, or a list of such; got {value!r}. Candidates of which it is not "
            f"known never match; to find those, pass a function."
        )


def _is_number(value: object) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)
