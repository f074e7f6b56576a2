"""The metadata of a card: the YAML between two lines of three dashes at a README's top."""

import math
import re
from datetime import date

import yaml

MAX_METADATA = 4 * 1024 * 1024
"""Bytes of metadata that the Hub validates; more is answered with 413."""
_MAX_NODES = 200_000
_MAX_DEPTH = 100
_RULE = re.compile(r"---[ \t]*")
_NESTING = "[{ \t"  # each level of nesting takes one of these at least
_INT, _FLOAT = "tag:yaml.org,2002:int", "tag:yaml.org,2002:float"


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # which one is known at run time
    """A safe loader to which ``1:30`` is text: numbers to the base of 60 can take minutes to read."""


def _number(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> object:
    if ":" in node.value:
        return node.value
    return loader.construct_yaml_int(node) if node.tag == _INT else loader.construct_yaml_float(node)


_Loader.add_constructor(_INT, _number)
_Loader.add_constructor(_FLOAT, _number)


def front_matter(text: str) -> str | None:
    """The YAML at the top of a README, or None where there is none or its end is missing."""
    lines = text.removeprefix("\ufeff").lstrip().splitlines(keepends=True)
    if not lines or not _RULE.fullmatch(lines[0].rstrip("\r\n")):
        return None
    for position, line in enumerate(lines[1:], start=1):
        if _RULE.fullmatch(line.rstrip("\r\n")):
            return "".join(lines[1:position])
    return None


def metadata(front: str) -> dict[str, object]:
    """What the YAML says, in values that JSON has too; unknown keys are kept.

    Args:
        front: Text without the rules around it; it may be hostile.

    Raises:
        ValueError: It does not parse, is no mapping, or is larger or nested more deeply than a card may be.
    """
    if len(front) > MAX_METADATA:
        raise ValueError("the metadata is larger than 4 MB")
    try:
        if sum(map(front.count, _NESTING)) > 1_000:
            _check_depth(front)  # libyaml's own loader recurses in C, where a deep document ends the process
        value = yaml.load(front, Loader=_Loader)
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise ValueError("the metadata must be a mapping of keys to values")
        return {str(key): item for key, item in _Plain().mapping(value, 0).items()}
    except (yaml.YAMLError, RecursionError, ArithmeticError, LookupError, AttributeError, TypeError) as error:
        # Explicit tags that do not fit, such as `!!bool x`, make PyYAML raise any of these.
        raise ValueError(f"invalid YAML: {' '.join(str(error).split())}") from error


def _check_depth(front: str) -> None:
    depth = 0
    for event in yaml.parse(front, Loader=_Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > _MAX_DEPTH:
                raise ValueError(f"the metadata is nested more than {_MAX_DEPTH} deep")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


class _Plain:
    """Turns what YAML can hold into what JSON can; aliases that multiply run into a limit."""

    def __init__(self) -> None:
        self.nodes = 0

    def mapping(self, value: dict[object, object], depth: int) -> dict[str, object]:
        return {self._key(key): self._of(item, depth + 1) for key, item in value.items()}

    @staticmethod
    def _key(key: object) -> str:
        return "null" if key is None else str(key).lower() if isinstance(key, bool) else str(key)

    def _of(self, value: object, depth: int) -> object:
        self.nodes += 1
        if self.nodes > _MAX_NODES or depth > _MAX_DEPTH:
            raise ValueError("the metadata holds too many values, or nests them too deeply")
        if value is None or isinstance(value, str | bool | int):
            return value
        if isinstance(value, float):
            return value if math.isfinite(value) else None
        if isinstance(value, dict):
            return self.mapping(value, depth)
        if isinstance(value, list | tuple | set | frozenset):
            return [self._of(item, depth + 1) for item in value]
        return value.isoformat() if isinstance(value, date) else str(value)
