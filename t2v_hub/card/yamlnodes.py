"""`Node`: parsed YAML that knows its place in the text, and cannot explode.

PyYAML's composers are not used: they recurse in C, where depth ends the process, and expand merge keys
without bound. Its parsers' events are, from libyaml where PyYAML has it.
"""

import re
from collections.abc import Iterator
from typing import Literal

import yaml
from yaml.resolver import Resolver

from t2v_hub.errors import CardTextError

MAX_DEPTH = 100
MAX_WEIGHT = 8_000_000  # characters and nodes once every alias is written out
MAX_NODES = 150_000
MAX_SLOW = 100_000  # characters that PyYAML's own parser reads within a second or so
_TOO_DEEP = f"it is nested deeper than {MAX_DEPTH} levels"

TAG = "tag:yaml.org,2002:"
_COMMENT = re.compile(r"#[^\r\n]*")
_SURROGATE = re.compile("[\udc80-\udcff]")


class Node:
    """A scalar, list or mapping, or an alias of one.

    Attributes:
        kind: What it is.
        start: Index of its first character, of its anchor or tag where it has one.
        end: Index after its last character other than spaces, newlines and comments.
        tag: What its value is; a plain scalar's is found as PyYAML finds it.
        value: Text of a scalar.
        style: ``""`` for a plain scalar, else its quote, ``|`` or ``>``; ``"flow"`` or ``"block"``.
        items: Items of a list; keys and values, in turns, of a mapping.
        target: What an alias stands for.
        anchor: Its name for aliases.
        weight: Size with all aliases written out; 0 while it is open.
    """

    __slots__ = ("anchor", "end", "items", "kind", "start", "style", "tag", "target", "value", "weight")

    def __init__(
        self,
        kind: Literal["scalar", "list", "mapping", "alias"],
        start: int,
        *,
        end: int = 0,
        tag: str = "",
        value: str = "",
        style: str = "",
        anchor: str | None = None,
        target: "Node | None" = None,
        weight: int = 0,
    ) -> None:
        self.kind = kind
        self.start = start
        self.end = end
        self.tag = tag
        self.value = value
        self.style = style
        self.anchor = anchor
        self.target = target
        self.weight = weight
        self.items: list[Node] = []

    @property
    def meant(self) -> "Node":
        """The node itself, or what it is an alias of."""
        return self.target or self

    @property
    def last(self) -> "Node":
        """The last scalar or alias in it, or the list or mapping that is empty or in flow style."""
        node = self
        while node.items and node.style == "block":
            node = node.items[-1]
        return node

    def pairs(self) -> Iterator[tuple["Node", "Node"]]:
        """Keys and values of a mapping."""
        return zip(self.items[::2], self.items[1::2], strict=True)

    def is_key(self, name: str) -> bool:
        """Whether it is the string ``name``."""
        return self.kind == "scalar" and self.value == name and self.tag == TAG + "str"


def parse(text: str) -> tuple[Node | None, int | None]:
    """The only document in a text, and where the text ends it.

    Args:
        text: YAML; lone surrogates stand for bytes that are not UTF-8, and may stand in comments only.

    Returns:
        The root, None of a text without content; the index of the line ``...``, None where there is none.

    Raises:
        CardTextError: This is not YAML, or YAML that cannot be read safely.
    """
    stand_in = next(chr(code) for code in range(0xE000, 0xF8FF) if chr(code) not in text)
    readable, n_replaced = _SURROGATE.subn(stand_in, text)
    # The two read byte order marks inside a text differently.
    slow = "\ufeff" in text and len(text) <= MAX_SLOW
    fast = yaml.SafeLoader if slow else getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        return _parsed(readable, stand_in if n_replaced else None, fast)
    except yaml.YAMLError as error:
        # libyaml refuses a little that PyYAML reads; slow, so not for what an attacker made long.
        if fast is yaml.SafeLoader or len(text) > MAX_SLOW:
            raise unreadable(reason_of(error)) from error
    try:
        return _parsed(readable, stand_in if n_replaced else None, yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise unreadable(reason_of(error)) from error


def _parsed(text: str, stand_in: str | None, loader: type) -> tuple[Node | None, int | None]:
    builder = _Builder(text, stand_in)
    try:
        for event in yaml.parse(text, Loader=loader):
            builder.take(event)
    except (UnicodeError, RecursionError, OverflowError) as error:
        raise unreadable(str(error)) from error
    builder.check_tabs(len(text))
    return builder.root, builder.end


def same(old: Node, new: Node) -> bool:
    """Whether two nodes mean the same; takes time by their text, not by what aliases expand to."""
    todo, seen = [(old, new)], set()
    while todo:
        a, b = todo.pop()
        a, b = a.meant, b.meant
        if (id(a), id(b)) in seen:
            continue
        seen.add((id(a), id(b)))
        if (a.kind, a.tag, a.value, len(a.items)) != (b.kind, b.tag, b.value, len(b.items)):
            return False
        todo += zip(a.items, b.items, strict=True)
    return True


def reason_of(error: yaml.YAMLError) -> str:
    """What PyYAML found wrong, on one line."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem:
        if "maximum nesting depth" in error.problem:  # newer libyaml, before it hands over any event
            return _TOO_DEEP
        mark = error.problem_mark
        return f"{error.problem}" + (f" in its line {mark.line + 1}" if mark else "")
    return str(error).splitlines()[0]


def unreadable(reason: str) -> CardTextError:
    """The error for metadata that cannot be read."""
    return CardTextError(
        f"Cannot read the README's metadata: {reason}. Repair the YAML between its `---` lines, "
        "then try again."
    )


class _Builder:
    """Makes a tree of parser events."""

    def __init__(self, text: str, stand_in: str | None) -> None:
        self.root: Node | None = None
        self.end: int | None = None
        self._text = text
        self._stand_in = stand_in
        self._n_nodes = 0
        self._has_tabs, self._read = "\t" in text, 0
        self._open: list[Node] = []
        self._anchors: dict[str, Node] = {}

    def take(self, event: yaml.Event) -> None:
        """Add what an event says to the tree."""
        if isinstance(event, yaml.ScalarEvent):
            self._add(self._scalar(event))
        elif isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
            self._add(_collection(event))
            if len(self._open) > MAX_DEPTH:
                raise unreadable(_TOO_DEEP)
        elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
            self._close(_start(event), _end(event))
        elif isinstance(event, yaml.AliasEvent):
            self._add(self._alias(event))
        elif isinstance(event, yaml.DocumentStartEvent) and (event.explicit or self.root is not None):
            raise unreadable("it holds more than one YAML document")
        elif isinstance(event, yaml.DocumentEndEvent) and event.explicit:
            self.end = _start(event)

    def check_tabs(self, end: int) -> None:
        """Refuse a tab since the last value: libyaml takes it for a space, PyYAML does not."""
        if self._has_tabs and "\t" in _COMMENT.sub("", self._text[self._read : end]):
            raise unreadable("a tab stands between its values, which not every reader takes for a space")

    def _scalar(self, event: yaml.ScalarEvent) -> Node:
        end, start, value = _end(event), _start(event), event.value
        self.check_tabs(start)
        self._read = end if event.style else start  # nor are tabs spaces inside plain scalars
        blank = " \t\r\n"
        if event.style in ("|", ">") and (value.endswith("\n\n") or not value.strip("\n")):
            blank = " \t"  # its empty lines belong to it; only the last one's newline does not
            end -= self._text.endswith("\n", start, end)
            end -= self._text.endswith("\r", start, end)
        while (
            end > start and self._text[end - 1] in blank
        ):  # the mark of a block scalar stands at the next token
            end -= 1
        tag = event.tag
        if tag is None or tag == "!":
            tag = _plain_tag(value) if tag or event.implicit[0] else TAG + "str"
        style, anchor = event.style or "", event.anchor
        return Node(
            "scalar", start, end=end, tag=tag, value=value, style=style, anchor=anchor, weight=1 + len(value)
        )

    def _alias(self, event: yaml.AliasEvent) -> Node:
        target = self._anchors.get(event.anchor or "")
        if target is None:
            raise unreadable(f"the alias *{event.anchor} stands for nothing")
        if not target.weight:
            raise unreadable(f"the alias *{event.anchor} stands in what it stands for")
        start, end = _start(event), _end(event)
        return Node("alias", start, end=end, target=target, weight=target.weight)

    def _add(self, node: Node) -> None:
        if self._stand_in and self._stand_in in f"{node.value}{node.anchor}{node.tag}":
            raise unreadable("it holds bytes that are not UTF-8")
        self._n_nodes += 1
        if self._n_nodes > MAX_NODES:
            raise unreadable(f"it holds more than {MAX_NODES:,} values")
        if self._open:
            self._open[-1].items.append(node)
        else:
            self.root = node
        if node.anchor is not None:
            if node.anchor in self._anchors:
                raise unreadable(f"it has the anchor &{node.anchor} twice")
            self._anchors[node.anchor] = node
        if node.kind in ("list", "mapping"):
            self._open.append(node)

    def _close(self, start: int, end: int) -> None:
        node = self._open.pop()
        node.end = end if start < end or not node.items else node.items[-1].end  # only brackets have a length
        node.weight = 1 + sum(item.weight for item in node.items)
        if node.weight > MAX_WEIGHT:
            raise unreadable("its aliases expand to more than a card may hold")


def _collection(event: yaml.MappingStartEvent | yaml.SequenceStartEvent) -> Node:
    mapping = isinstance(event, yaml.MappingStartEvent)
    tag = event.tag if event.tag not in (None, "!") else TAG + ("map" if mapping else "seq")
    style = "flow" if event.flow_style else "block"
    kind: Literal["mapping", "list"] = "mapping" if mapping else "list"
    return Node(kind, _start(event), tag=tag, style=style, anchor=event.anchor)


def _start(event: yaml.Event) -> int:
    assert event.start_mark is not None
    return event.start_mark.index


def _end(event: yaml.Event) -> int:
    assert event.end_mark is not None
    return event.end_mark.index


def _plain_tag(value: str) -> str:
    for tag, pattern in Resolver.yaml_implicit_resolvers.get(value[:1], ()):
        if pattern.match(value):
            return str(tag)
    return TAG + "str"
