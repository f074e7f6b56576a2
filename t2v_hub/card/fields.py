"""Values from strangers' cards, each checked before it is used."""

import base64
import binascii
import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from t2v_hub.errors import CardEntryError

MAX_TEXT = 300
# Control characters, line separators, marks that turn the direction of text, and halves of surrogate pairs.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def is_printable(text: str) -> bool:
    """Whether a text is of 1 to `MAX_TEXT` characters, none of them a control character."""
    return 0 < len(text) <= MAX_TEXT and not _CONTROL.search(text)


def array_of(
    values: Mapping[str, Any], name: str, prefix: str, dtype: np.dtype[Any], length: int
) -> NDArray[Any]:
    """So many numbers in base64 behind a prefix; `CardEntryError` otherwise, as below."""
    text = values.get(name)
    if not isinstance(text, str) or not text.startswith(prefix):
        raise CardEntryError(f"its {name} does not begin with {prefix}")
    wanted = length * dtype.itemsize
    if len(text) - len(prefix) != 4 * math.ceil(wanted / 3):  # before anything is decoded
        raise CardEntryError(f"its {name} has another length than {length} numbers")
    try:
        content = base64.b64decode(text[len(prefix) :], validate=True)
    except (binascii.Error, ValueError) as error:
        raise CardEntryError(f"its {name} is no base64") from error
    if len(content) != wanted:
        raise CardEntryError(f"its {name} has another length than {length} numbers")
    return np.frombuffer(content, dtype)


def text_of(values: Mapping[str, Any], name: str) -> str | None:
    """A short text, or None where it is absent."""
    value = values.get(name)
    return None if value is None else checked_text(value, name)


def checked_text(value: object, name: str) -> str:
    """The value, a short text."""
    if not isinstance(value, str):
        raise CardEntryError(f"its {name} is {kind(value)}, not text")
    if not is_printable(value):
        raise CardEntryError(f"its {name} is no text of 1 to {MAX_TEXT} printable characters")
    return value


def count_of(values: Mapping[str, Any], name: str, *, least: int) -> int:
    """A whole number, not smaller than ``least``."""
    value = values.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value < 1 << 63:
        raise CardEntryError(f"its {name} is {shown(value)}, not a whole number >= {least}")
    return value


def number_of(values: Mapping[str, Any], name: str) -> float:
    """A finite number."""
    value = values.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise CardEntryError(f"its {name} is {shown(value)}, not a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise CardEntryError(f"its {name} is not finite")
    return number


def kind(value: object) -> str:
    """What it is, where it should be something else."""
    return "absent" if value is None else f"of type {type(value).__name__}"


def shown(value: object) -> str:
    """The value in an error: short, and on one line whatever it holds."""
    if isinstance(value, str | int | float | bool | None):
        with_limit = value[:60] if isinstance(value, str) else value
        text = repr(with_limit) if not isinstance(value, int) or abs(value) < 1 << 64 else "a huge number"
        return text[:80]
    return kind(value)
