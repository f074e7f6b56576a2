"""`edited`: items of a list in YAML text replaced, removed and added, and nothing else touched.

What comes back are splices, not the new text; the caller checks what they amount to.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from t2v_hub.card.change import Edit
from t2v_hub.card.yamlnodes import Node
from t2v_hub.card.yamltext import entry_text, flow_text
from t2v_hub.embedding.space import Json
from t2v_hub.errors import CardTextError

_LINE_END = re.compile(r"\r\n|\n|\r|\Z")
_COLON = re.compile(r"[ \t]*:(?=\s|\Z)")
_NULL = re.compile(r"(?:~|null|Null|NULL)?\Z")
_GAP = re.compile(r"(?:[ \t\r\n]|#[^\r\n]*)*+")  # between two tokens
_PROPERTIES = re.compile(r"(?:[&!][^ \t\r\n]*|[ \t\r\n]|#[^\r\n]*)*+")
_LINE_PROPERTIES = re.compile(r"(?:[ \t]+[&!][^ \t\r\n]*)*+")
_TIGHT = re.compile(r"[ \t\r\n]*,[ \t\r\n]*\Z")
_BARE = re.compile(
    r"(?:\A|\s)[&!]\S*\Z"
)  # an anchor or tag without value, of which a comma would become part
_LINE_REST = re.compile(r"[ \t]*(#[^\r\n]*)?(?:\r\n|\n|\r|\Z)")


@dataclass(frozen=True)
class Splice:
    """Characters ``start`` to ``end`` of a text, and what comes in their place."""

    start: int
    end: int
    text: str


def spliced(text: str, splices: Sequence[Splice]) -> str:
    """The text with all splices made; those at one place in their order."""
    done, parts = 0, []
    for splice in sorted(splices, key=lambda splice: (splice.start, splice.end)):
        if splice.start < done:
            raise CardTextError("The card's lists overlap. Write them one item a line, then try again.")
        parts += [text[done : splice.start], splice.text]
        done = splice.end
    return "".join([*parts, text[done:]])


@dataclass(frozen=True)
class ListText:
    """A key of the metadata whose value is a list, in its text.

    Attributes:
        text: Lines of the metadata.
        key: The key.
        value: Its value; may be null, or a scalar, which then counts as a list of one.
        newline: What new lines end with.
    """

    text: str
    key: Node
    value: Node
    newline: str

    def edited(self, edit: Edit) -> list[Splice]:
        """Splices that change items of the list; its key goes with its last item.

        Raises:
            CardTextError: The list is written in a way that cannot be changed without harm.
        """
        self._check_key()
        replace, remove, append = edit.replace, edit.remove, edit.append
        if self.value.kind == "scalar":
            return self._scalar(remove, append)
        if self.value.kind != "list":
            what = "an alias" if self.value.kind == "alias" else "a mapping"
            raise self._refused(f"is {what}")
        if self.value.style == "flow":
            return self._flow(replace, remove, append)
        return self._block(replace, remove, append)

    def _refused(self, why: str) -> CardTextError:
        return CardTextError(
            f"Cannot change `{self.key.value}` in the README's metadata: it {why}. "
            "Write it as a list with one item a line, then try again."
        )

    def _check_key(self) -> None:
        key, line = self.key, self._line_start(self.key.start)
        if self.text[line : key.start].strip(" ") or not _COLON.match(self.text, key.end):
            raise self._refused("is not written as `key: value` on a line of its own")

    @property
    def _after_colon(self) -> int:
        return self.text.index(":", self.key.end) + 1

    @property
    def _column(self) -> int:
        return self.key.start - self._line_start(self.key.start)

    def _line_start(self, index: int) -> int:
        return line_start(self.text, index)

    def _line_end(self, index: int) -> int:
        return line_end(self.text, index)

    def _lines(self, values: Sequence[Json], column: int) -> str:
        return "".join(item_text(value, column) for value in values).replace("\n", self.newline)

    def _scalar(self, remove: Sequence[int], append: Sequence[Json]) -> list[Splice]:
        value, text = self.value, self.text
        start, end = self._after_colon, value.end
        if value.anchor is None and value.style == "" and _NULL.match(text[value.start : end]):
            place = self._line_end(start)
            blank = [Splice(start, end, "")] if end > value.start else []
            return [*blank, Splice(place, place, self._lines(append, self._column))]
        if value.style in ("|", ">"):
            raise self._refused("is a block of text")
        if remove and not append and "#" not in text[start : value.start]:
            return self._without_key([], start, end)
        if remove:
            return [Splice(value.start, end, flow_text(list(append)))]
        place = self._line_end(end)
        own_line = self._line_start(value.start)
        if own_line > self.key.start:
            column = value.start - own_line
            return [Splice(value.start, value.start, "- "), Splice(place, place, self._lines(append, column))]
        if text[start : value.start].strip(" \t"):
            raise self._refused("is written in an unusual way")
        opened = self.newline + " " * self._column + "- "
        return [Splice(start, value.start, opened), Splice(place, place, self._lines(append, self._column))]

    def _block(
        self, replace: Mapping[int, Json], remove: Sequence[int], append: Sequence[Json]
    ) -> list[Splice]:
        dashes = self._dashes()
        items, column = self.value.items, dashes[0] - self._line_start(dashes[0])
        removed = [Splice(dashes[i] - column, self._line_end(items[i].end), "") for i in remove]
        if len(remove) == len(items) and not append:
            return self._without_key(removed, self._after_colon, self._after_colon)
        splices = [
            Splice(dashes[i], items[i].end, self._lines([value], column).strip())
            for i, value in replace.items()
        ]
        place = self._line_end(items[-1].end)
        return [*splices, *removed, Splice(place, place, self._lines(append, column))]

    def _dashes(self) -> list[int]:
        """Index of each item's dash."""
        properties = _PROPERTIES.match(self.text, self.value.start)
        first = properties.end() if properties else self.value.start
        column = first - self._line_start(first)
        dash = re.compile(" " * column + r"-(?=[ \t\r\n]|\Z)")
        dashes = []
        for item in self.value.items:
            line = self._line_start(item.start)
            while line > first and not dash.match(self.text, line):
                line = self._line_start(line - 1 - (self.text[line - 2 : line] == "\r\n"))
            if not dash.match(self.text, line):
                raise self._refused("is written in an unusual way")
            dashes.append(line + column)
        return dashes

    def _flow(
        self, replace: Mapping[int, Json], remove: Sequence[int], append: Sequence[Json]
    ) -> list[Splice]:
        text, items = self.text, self.value.items
        new = ", ".join(flow_text(value) for value in append)
        if not items:
            place = text.index("[", self.value.start) + 1
            return [Splice(place, place, new)]
        if len(remove) == len(items) and not append and "#" not in self._beside:
            return self._without_key([], self._after_colon, self.value.end)
        splices = [Splice(items[i].start, items[i].end, flow_text(value)) for i, value in replace.items()]
        if append and remove and remove[-1] == len(items) - 1:
            splices.append(Splice(items[-1].start, items[-1].end, new))
            remove = remove[:-1]
        elif append:
            end = items[-1].end
            bare = _BARE.search(text[items[-1].start : end])
            splices.append(Splice(end, end, (" , " if bare else ", ") + new))
        return splices + [cut for run in _runs(remove) for cut in self._cut(run[0], run[-1])]

    @property
    def _beside(self) -> str:
        """What stands beside the items of a flow list."""
        ends = [self._after_colon, *(item.end for item in self.value.items)]
        starts = [*(item.start for item in self.value.items), self.value.end]
        return "".join(self.text[end:start] for end, start in zip(ends, starts, strict=True))

    def _cut(self, first: int, last: int) -> list[Splice]:
        """Neighbours in a flow list removed, with their commas and the one before or after; comments stay."""
        items, cuts = self.value.items, []
        for i in range(first, last + 1):
            cuts.append((items[i].start, items[i].end))
            if i < last:
                cuts.append(self._comma(i))
        if first > 0 and self._is_tight(first - 1):
            cuts.insert(0, (items[first - 1].end, items[first].start))
        elif last < len(items) - 1 or self._has_comma(last):
            cuts.append(self._comma(last))
        elif first > 0:
            cuts.insert(0, self._comma(first - 1))
        return [Splice(start, end, "") for start, end in cuts]

    def _is_tight(self, i: int) -> bool:
        """Whether only a comma and spaces stand between an item of a flow list and the next."""
        items = self.value.items
        return _TIGHT.match(self.text[items[i].end : items[i + 1].start]) is not None

    def _has_comma(self, i: int) -> bool:
        return self.text.startswith(",", self._gap_end(i))

    def _gap_end(self, i: int) -> int:
        gap = _GAP.match(self.text, self.value.items[i].end)
        return gap.end() if gap else self.value.items[i].end

    def _comma(self, i: int) -> tuple[int, int]:
        """The comma after an item of a flow list, with its spaces where no comment stands beside it."""
        items = self.value.items
        if i < len(items) - 1 and self._is_tight(i):
            return items[i].end, items[i + 1].start
        return self._gap_end(i), self._gap_end(i) + 1

    def _without_key(self, removed: list[Splice], start: int, end: int) -> list[Splice]:
        """The key's line removed, but for a comment at its end."""
        properties = _LINE_PROPERTIES.match(self.text, start)
        rest = _LINE_REST.match(self.text, max(end, properties.end() if properties else end))
        if rest is None:
            raise self._refused("shares its line with something else")
        stop = rest.start(1) if rest[1] else rest.end()
        first = self.key.start if rest[1] else self._line_start(self.key.start)
        return [Splice(first, stop, ""), *removed]


def _runs(indices: Sequence[int]) -> list[list[int]]:
    """Neighbours among ascending indices."""
    runs: list[list[int]] = []
    for i in indices:
        if runs and runs[-1][-1] == i - 1:
            runs[-1].append(i)
        else:
            runs.append([i])
    return runs


def item_text(value: Json, column: int) -> str:
    """Lines of one item in a block list."""
    if isinstance(value, Mapping):
        return entry_text(value, column)
    return " " * column + f"- {flow_text(value)}\n"


def line_start(text: str, index: int) -> int:
    """Index of the first character in the line of another."""
    start = text.rfind("\n", 0, index) + 1
    return max(start, text.rfind("\r", start, index) + 1)


def line_end(text: str, index: int) -> int:
    """Index after the newline of the line that another is in."""
    match = _LINE_END.search(text, index)
    return match.end() if match else len(text)
