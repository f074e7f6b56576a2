"""How we write values into a card: YAML text that versions 1.1 and 1.2 read alike.

Strings are plain only where no reader could take them for anything else, and double-quoted otherwise.
Floats carry a dot and a signed exponent, without which PyYAML reads ``1e-09`` as a string.
"""

import math
import re
from collections.abc import Mapping, Sequence

from t2v_hub.embedding.space import Json
from t2v_hub.errors import CardEntryError

MAX_DEPTH = 16
MAX_KEY = 512  # a key of more than 1,024 characters is none to YAML; escapes take up to 10 characters

_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_./-]*\Z")
_RESERVED = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", "inf", "infinity"})
_UNSAFE = re.compile(  # what may not stand in double quotes, or cannot be seen there
    '[\x00-\x1f"\\\\\x7f-\xa0\xad\u061c\u115f\u180e\u200b-\u200f\u2028-\u202f\u2060-\u206f'
    "\ud800-\uf8ff\ufe00-\ufe0f\ufeff\ufff0-\uffff\U000e0000-\U0010ffff]"
)
_SHORT = {"\n": "\\n", "\t": "\\t", "\r": "\\r", '"': '\\"', "\\": "\\\\"}


def entry_text(values: Mapping[str, Json], indent: int = 0) -> str:
    r"""Text of one entry of the list ``task2vec``: a line for each key, deeper values in flow style.

    Args:
        values: The entry; its order is kept.
        indent: Column of the dash.

    Returns:
        Lines that end with ``\n``.

    Raises:
        CardEntryError: A value that cards do not hold: NaN, infinity, a lone surrogate, an integer beyond
            64 bits, a key that is no string, nesting deeper than 16 levels.
    """
    if not values:
        return " " * indent + "- {}\n"
    lines = [f"{_key(key)}: {flow_text(value)}\n" for key, value in values.items()]
    return " " * indent + "- " + (" " * (indent + 2)).join(lines)


def flow_text(value: object, depth: int = 0) -> str:
    """Text of a value in flow style, on one line; raises as `entry_text` does."""
    if depth > MAX_DEPTH:
        raise CardEntryError(f"Cannot write an entry nested deeper than {MAX_DEPTH} levels. Flatten it.")
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return string_text(value)
    if isinstance(value, int):
        if not -(2**63) <= value < 2**64:
            raise CardEntryError("Cannot write an integer beyond 64 bits into a card. Write it as a string.")
        return str(int(value))
    if isinstance(value, float):
        return _float_text(float(value))
    if isinstance(value, Mapping):
        pairs = (f"{_key(key)}: {flow_text(item, depth + 1)}" for key, item in value.items())
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray | memoryview):
        return "[" + ", ".join(flow_text(item, depth + 1) for item in value) + "]"
    raise CardEntryError(
        f"Cannot write a {type(value).__name__} into a card, only None, bool, int, float, str, list, dict. "
        "Convert it first."
    )


def string_text(value: str) -> str:
    """Text of a string: plain where that is safe, else in double quotes."""
    if _PLAIN.match(value) and value.lower() not in _RESERVED:
        return str(value)
    return '"' + _UNSAFE.sub(_escape, value) + '"'


def _escape(match: re.Match[str]) -> str:
    character = match.group()
    code = ord(character)
    if 0xD800 <= code < 0xE000:
        raise CardEntryError(f"Cannot write the lone surrogate {character!r} into a card. Remove it.")
    if character in _SHORT:
        return _SHORT[character]
    return f"\\x{code:02X}" if code < 0x100 else f"\\u{code:04X}" if code < 0x10000 else f"\\U{code:08X}"


def _float_text(value: float) -> str:
    if not math.isfinite(value):
        raise CardEntryError(
            f"Cannot write {value} into a card, only finite numbers. Leave the key out or use None."
        )
    text = repr(value)
    digits, exponent, power = text.partition("e")
    return f"{digits}{'' if '.' in digits else '.0'}{exponent}{power}"


def _key(key: object) -> str:
    if not isinstance(key, str):
        raise CardEntryError(
            f"Cannot write a key of type {type(key).__name__} into a card. Keys are strings."
        )
    text = string_text(key)
    if len(text) > MAX_KEY:
        raise CardEntryError(
            f"Cannot write a key of {len(text):,} characters into a card, at most {MAX_KEY}."
        )
    return text
