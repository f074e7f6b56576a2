"""`construct`: the values that parsed YAML stands for."""

import yaml
from yaml.constructor import SafeConstructor

from t2v_hub.card.yamlnodes import TAG, Node, reason_of, unreadable

MAX_DIGITS = 1_000

_SCALARS = {TAG + name for name in ("null", "bool", "int", "float", "binary", "timestamp")}


def construct(root: Node) -> object:
    """The values that `yaml.safe_load` makes of a document.

    Raises:
        CardTextError: It would make none, because of an unknown tag or an impossible value.
    """
    try:
        return _Values().of(root)
    except yaml.YAMLError as error:
        raise unreadable(reason_of(error)) from error
    except RecursionError as error:
        raise unreadable("it is nested too deeply") from error


class _Values:
    """Makes values of nodes; aliases share theirs."""

    def __init__(self) -> None:
        self._made: dict[int, object] = {}
        self._mappings: dict[int, dict[object, object]] = {}
        self._constructor = SafeConstructor()

    def of(self, node: Node) -> object:
        node = node.meant
        if node.tag == TAG + "str" and node.kind == "scalar":
            return node.value
        if id(node) not in self._made:
            self._made[id(node)] = self._new(node)
        return self._made[id(node)]

    def _new(self, node: Node) -> object:
        if node.kind == "scalar" and node.tag in _SCALARS:
            return self._scalar(node)
        if node.kind == "list" and node.tag == TAG + "seq":
            return [self.of(item) for item in node.items]
        if node.kind == "mapping" and node.tag == TAG + "map":
            return self._mapping(node)
        raise unreadable(f"t2v_hub does not know the YAML tag {node.tag.removeprefix(TAG)!r}")

    def _scalar(self, node: Node) -> object:
        if len(node.value) > MAX_DIGITS and node.tag in (TAG + "int", TAG + "float"):
            raise unreadable(f"it holds a number of {len(node.value):,} digits")
        make = SafeConstructor.yaml_constructors[node.tag]
        try:
            return make(self._constructor, yaml.ScalarNode(node.tag, node.value))
        except (ValueError, LookupError, AttributeError, TypeError, ArithmeticError) as error:
            kind = node.tag.removeprefix(TAG)
            raise unreadable(f"{node.value[:40]!r} is no {kind}; quote it if it is text") from error

    def _mapping(self, node: Node) -> dict[object, object]:
        made = self._mappings.get(id(node))
        if made is None:
            made = self._mappings[id(node)] = self._new_mapping(node)
        return made

    def _new_mapping(self, node: Node) -> dict[object, object]:
        merged: dict[object, object] = {}
        own: list[tuple[object, object]] = []
        for key, value in node.pairs():
            if key.meant.tag == TAG + "merge":
                for part in _merged_parts(value.meant):
                    merged.update(self._mapping(part))
                continue
            name = key.meant.value if key.meant.tag == TAG + "value" else self.of(key)
            if isinstance(name, dict | list):
                raise unreadable("a list or mapping stands where a key must; quote it if it is text")
            own.append((name, self.of(value)))
        merged.update(own)
        return merged


def _merged_parts(value: Node) -> list[Node]:
    """The mappings that a merge key names, the weakest first."""
    parts = [part.meant for part in reversed(value.items)] if value.kind == "list" else [value]
    if any(part.kind != "mapping" for part in parts):
        raise unreadable("a merge key `<<` stands before something else than a mapping")
    return parts
