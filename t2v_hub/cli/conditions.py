"""Conditions of ``--where``: from ``parameters<=30M`` to what `ModelSelector.rank` takes."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from t2v_hub.errors import SettingsError

if TYPE_CHECKING:
    from t2v_hub.catalog import Candidate

_NUMBERS = ("parameters", "downloads", "likes", "upstream_accuracy")
_FLAGS = ("gated",)
_UNITS = {"k": 1e3, "M": 1e6, "B": 1e9}
_MAX_LISTED = 8
_FORM = re.compile(r"\s*(\w+)\s*(<=|>=|=)\s*(.+?)\s*")
_NUMBER = re.compile(r"(\d[\d_]*(?:\.\d+)?(?:[eE][+-]?\d+)?)\s*([kMB]?)")
_TRUTH = {"true": True, "yes": True, "false": False, "no": False}


def conditions(texts: Sequence[str]) -> dict[str, Any]:
    """All conditions as one mapping; a candidate must meet each.

    Raises:
        SettingsError: A condition is none, or two of one field cannot be joined.
    """
    wanted: dict[str, Any] = {}
    for text in texts:
        found = _FORM.fullmatch(text)
        if not found:
            raise SettingsError(
                f"--where {text!r} is no condition; wanted field=value, field=one,another, field<=number or "
                f"field>=number, such as licence=apache-2.0 or parameters<=30M. Mind the quotes: a shell "
                f"reads < and > itself."
            )
        name, sign, value = found.groups()
        name = "licence" if name == "license" else name
        if sign == "=":
            _set(wanted, name, _value(name, value))
        else:
            bound = amount(name, value)
            _bound(wanted, name, bound if sign == ">=" else None, bound if sign == "<=" else None)
    return wanted


def _set(wanted: dict[str, Any], name: str, value: object) -> None:
    if name in wanted:
        raise SettingsError(
            f"--where names {name} twice; for one of several values write {name}=one,another, for a range "
            f"use <= and >=."
        )
    wanted[name] = value


def _bound(wanted: dict[str, Any], name: str, lowest: float | None, highest: float | None) -> None:
    before = wanted.pop(name, (None, None))
    clash = not isinstance(before, tuple) or any(
        new is not None and old is not None for old, new in zip(before, (lowest, highest), strict=True)
    )
    if clash:
        raise SettingsError(
            f"--where bounds {name} twice in one direction, or beside a value; once is enough."
        )
    wanted[name] = tuple(
        old if new is None else new for old, new in zip(before, (lowest, highest), strict=True)
    )


def _value(name: str, text: str) -> object:
    if name in _FLAGS:
        if text.lower() not in _TRUTH:
            raise SettingsError(f"--where {name}={text}: wanted true or false.")
        return _TRUTH[text.lower()]
    parts = [part.strip() for part in text.split(",")]
    values = [amount(name, part) if name in _NUMBERS else part for part in parts]
    return values[0] if len(values) == 1 else values


def amount(name: str, text: str) -> float:
    """The whole or other number that a text such as ``30M`` stands for.

    Raises:
        SettingsError: It is none.
    """
    found = _NUMBER.fullmatch(text)
    if not found:
        raise SettingsError(f"{name}: {text!r} is no number; wanted a number such as 30000000 or 30M.")
    value = float(found[1].replace("_", ""))
    if found[2]:
        return round(value * _UNITS[found[2]])
    return int(value) if value.is_integer() else value


def known_values(candidates: "Iterable[Candidate]", fields: Iterable[str]) -> str:
    """What the candidates have in these fields, in a sentence for each."""
    everyone = list(candidates)
    return " ".join(_known(name, [getattr(item, name) for item in everyone]) for name in fields)


def _known(name: str, facts: list[Any]) -> str:
    known = [fact for fact in facts if fact is not None]
    unknown = len(facts) - len(known)
    rest = f"; not known of {unknown}" if unknown and known else ""
    if not known:
        return f"{name} is not known of any candidate."
    if name in _NUMBERS:
        return f"{name} lies between {min(known):,} and {max(known):,}{rest}."
    counts = Counter(str(fact).lower() if name in _FLAGS else str(fact) for fact in known).most_common()
    listed = ", ".join(f"{value} ({count})" for value, count in counts[:_MAX_LISTED])
    more = f" and {len(counts) - _MAX_LISTED} more" if len(counts) > _MAX_LISTED else ""
    return f"{name} is {listed}{more}{rest}."
