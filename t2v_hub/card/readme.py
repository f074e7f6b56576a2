"""`Readme`: a card's README, and changes of our part of it that leave every other byte alone."""

import contextlib
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from t2v_hub.card.change import Change
from t2v_hub.card.frontmatter import MAX_FRONT_MATTER, FrontMatter
from t2v_hub.card.listtext import ListText, Splice, item_text, line_end, line_start, spliced
from t2v_hub.card.yamlnodes import Node, parse, same, unreadable
from t2v_hub.card.yamltext import entry_text as entry_text
from t2v_hub.card.yamltext import flow_text
from t2v_hub.card.yamlvalues import construct
from t2v_hub.embedding.space import Json
from t2v_hub.errors import CardSizeError, CardTextError, CardWarning, OptedOutError

KEY = "task2vec"
MANY_BYTES = 256_000


@dataclass(frozen=True, eq=False)
class Readme:
    """A card's README: its bytes, and the metadata in its front matter.

    Attributes:
        content: The README.
        metadata: Values of its front matter, as PyYAML's safe loader makes them; empty where it has none.
    """

    content: bytes = field(repr=False)
    metadata: Mapping[str, object]
    _parts: FrontMatter = field(repr=False)
    _root: Node | None = field(repr=False)
    _end: int | None = field(repr=False)

    @classmethod
    def parse(cls, content: bytes) -> "Readme":
        """The README of these bytes.

        Raises:
            CardTextError: Its metadata is no YAML mapping, or cannot be read safely or without ambiguity.
            CardSizeError: It is larger than 10 MiB, or its metadata than 1 MB.
        """
        parts = FrontMatter.find(content)
        # The Hub's block does not hold its last newline, which a block scalar at the end notices.
        root, end = parse(parts.text.removesuffix("\n").removesuffix("\r"))
        metadata = {} if root is None else construct(root)
        if metadata is None:
            metadata = {}
        if not isinstance(metadata, dict):
            raise unreadable("it is no mapping of keys to values")
        for name in (KEY, "tags"):
            if root is not None and sum(key.meant.is_key(name) for key in root.items[::2]) > 1:
                raise unreadable(f"it has the key {name!r} twice")
        return cls(content, metadata, parts, root, end)

    @property
    def items(self) -> tuple[object, ...]:
        """What the list ``task2vec`` holds; nothing where there is no such list."""
        value = self.metadata.get(KEY)
        return tuple(value) if isinstance(value, list) else ()

    @property
    def opted_out(self) -> bool:
        """Whether the metadata says ``task2vec: false``."""
        return self.metadata.get(KEY) is False

    @property
    def tags(self) -> tuple[str, ...]:
        """The tags; a single string counts as one tag."""
        return tuple(tag for tag in self._tag_values if isinstance(tag, str))

    @property
    def _tag_values(self) -> list[object]:
        value = self.metadata.get("tags")
        return value if isinstance(value, list) else [] if value is None else [value]

    def changed(
        self,
        *,
        replace: Mapping[int, Mapping[str, Json] | None] = {},
        append: Sequence[Mapping[str, Json]] = (),
        add_tags: Sequence[str] = (),
        remove_tags: Collection[str] = (),
    ) -> bytes:
        """Bytes of the README with other items and tags; what is not named keeps its text.

        The result was read again: its metadata is the expected one, and nothing outside the list
        ``task2vec`` and the named tags has changed. A key goes with the last item of its list, and the
        front matter with its last line.

        Args:
            replace: New values of items by their index; None removes the item.
            append: Items that come after the others.
            add_tags: Tags to add where they are absent.
            remove_tags: Tags to remove where they are present.

        Raises:
            CardTextError: The README cannot be changed without harm to what others wrote.
            CardEntryError: A value cannot be written into a card, or there is no item of that index.
            CardSizeError: The metadata would have more than 1 MB, or the README more than 10 MiB.
            OptedOutError: The card says ``task2vec: false``.

        Warns:
            CardWarning: Our items have more than 256 kB.
        """
        change = Change.of(
            self.items, self._tag_values, replace=replace, append=append, add=add_tags, remove=remove_tags
        )
        if change.is_empty:
            return self.content
        if self.opted_out:
            raise OptedOutError(
                "The card says `task2vec: false`: its owner wants no embeddings there. "
                "Only its owner should remove that line."
            )
        text = spliced(self._parts.text, self._splices(change))
        n_bytes = len(text.encode("utf-8", "surrogateescape"))
        if n_bytes > MAX_FRONT_MATTER:
            raise CardSizeError(
                f"The README's metadata would have {n_bytes:,} bytes, of at most {MAX_FRONT_MATTER:,}. "
                "Write fewer embeddings into it."
            )
        try:
            new = self._checked(text, change)
        except CardTextError:
            if not change.removes or not text:
                raise
            # A block scalar that has become the last would lose its newline without an empty line below.
            with contextlib.suppress(CardTextError):
                return self._checked(text + self._parts.newline, change).content
            raise  # the first error, which names what the change was to do
        if change.items.values:
            new._warn_of_size()
        return new.content

    def _pair(self, name: str) -> tuple[Node, Node] | None:
        """Key and value of a name in the metadata's text."""
        if self._root is None:
            return None
        return next((pair for pair in self._root.pairs() if pair[0].meant.is_key(name)), None)

    def _splices(self, change: Change) -> list[Splice]:
        """What a change does to the metadata's text."""
        splices, lines = [], []
        for name, edit in (("tags", change.tags), (KEY, change.items)):
            if edit.is_empty:
                continue
            pair = self._pair(name)
            if pair is not None:
                if name == KEY and self.metadata[KEY] is not None and pair[1].kind == "scalar":
                    raise CardTextError(
                        f"The README's `task2vec` is {self.metadata[KEY]!r:.60}, not a list. "
                        "Correct or remove it first."
                    )
                splices += ListText(self._parts.text, *pair, self._parts.newline).edited(edit)
            elif name in self.metadata:
                raise CardTextError(
                    f"The README's metadata takes `{name}` from elsewhere, by a merge key or an alias. "
                    f"Write `{name}:` out in full, then try again."
                )
            elif name == KEY:
                lines += [f"{KEY}:\n", *(item_text(value, 0) for value in edit.append)]
            else:
                lines.append(f"tags: {flow_text(list(edit.append))}\n")
        if lines:
            indent = " " * self._column
            added = "".join(indent + line for line in "".join(lines).splitlines(keepends=True))
            splices += self._new_keys(added.replace("\n", self._parts.newline))
        return splices

    @property
    def _column(self) -> int:
        """Column of the metadata's keys."""
        if self._root is None:
            return 0
        first = self._root.items[0].start if self._root.items else self._root.start
        return first - line_start(self._parts.text, first)

    def _new_keys(self, lines: str) -> list[Splice]:
        """What adds lines of new keys, in place of the ``{}`` of the Hub's empty template."""
        root = self._root
        if root is None or (root.kind == "mapping" and root.style == "block"):
            place = self._place_of_new_keys(root)
            return [Splice(place, place, lines)]
        if root.kind == "mapping" and not root.items and "#" not in self._parts.text[root.start : root.end]:
            place = line_end(self._parts.text, root.end)
            if self._parts.text[root.end : place].isspace():
                return [Splice(root.start, root.end, lines.strip())]
            return [Splice(root.start, root.end, ""), Splice(place, place, lines)]
        raise CardTextError(
            "The README's metadata stands in braces. Write it one `key: value` a line, then try again."
        )

    def _place_of_new_keys(self, root: Node | None) -> int:
        """Index in the text where new keys may stand: at its end, where that is harmless."""
        text = self._parts.text
        if self._end is not None:
            return line_start(text, self._end)
        if root is None or root.last.style not in ("|", ">"):
            return len(text)
        # What follows a block scalar changes its end, so the new keys go above the last one and its comments.
        place = line_start(text, root.items[-2].start)
        above = root.items[-3].end if len(root.items) > 2 else 0
        while place > 0:
            line = line_start(text, place - 1 - text.startswith("\r\n", place - 2))
            if line < above or not text[line:place].lstrip(" \t").startswith("#"):
                break
            place = line
        return place

    def _checked(self, text: str, change: Change) -> "Readme":
        """The README with other lines of metadata; raises CardTextError where more changes than should."""
        parts = self._parts.with_text(text)
        try:
            new = Readme.parse(parts.content)
        except CardTextError as error:
            raise _harmful("make the README's metadata unreadable") from error
        if (new._parts.lead, new._parts.text, new._parts.body) != (parts.lead, parts.text, parts.body):
            raise _harmful("change where the README's metadata ends")
        for name, edit in (("tags", change.tags), (KEY, change.items)):
            old_pair, new_pair = self._pair(name), new._pair(name)
            if not edit.is_empty and not edit.is_done(old_pair and old_pair[1], new_pair and new_pair[1]):
                raise _harmful(f"change other items of `{name}` as well")
        old_pairs, new_pairs = self._others(change), new._others(change)
        for (old_key, old_value), (new_key, new_value) in zip(old_pairs, new_pairs, strict=False):
            if not (same(old_key, new_key) and same(old_value, new_value)):
                raise _harmful(f"change `{old_key.meant.value[:60]}` as well")
        if len(old_pairs) != len(new_pairs):
            raise _harmful("change other keys as well")
        return new

    def _others(self, change: Change) -> list[tuple[Node, Node]]:
        """Keys and values that a change must leave alone."""
        edited = [name for name, edit in (("tags", change.tags), (KEY, change.items)) if not edit.is_empty]
        pairs = [] if self._root is None else list(self._root.pairs())
        return [pair for pair in pairs if not any(pair[0].meant.is_key(name) for name in edited)]

    def _warn_of_size(self) -> None:
        pair = self._pair(KEY)
        if pair is None:
            return
        n_bytes = len(self._parts.text[pair[0].start : pair[1].end].encode("utf-8", "surrogateescape"))
        if n_bytes > MANY_BYTES:
            warnings.warn(
                f"The card's embeddings now have {n_bytes:,} bytes; above {MANY_BYTES:,} its page gets slow. "
                "Remove those of no use.",
                CardWarning,
                stacklevel=3,
            )


def _harmful(what: str) -> CardTextError:
    return CardTextError(
        f"This would {what}, perhaps by an alias or an unusual layout. "
        "Write `tags` and `task2vec` as plain lists, one item a line, then try again."
    )
