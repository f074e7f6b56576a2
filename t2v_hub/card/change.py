"""`Change`: what is to become of a card's items and tags, and whether it has."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from t2v_hub.card.yamlnodes import Node, same
from t2v_hub.card.yamlvalues import construct
from t2v_hub.embedding.space import Json
from t2v_hub.errors import CardEntryError


@dataclass(frozen=True)
class Edit:
    """What is to become of one list.

    Attributes:
        replace: New values of items, by index.
        remove: Indices of items to remove, ascending.
        append: Values that come after the others.
    """

    replace: Mapping[int, Json]
    remove: Sequence[int]
    append: Sequence[Json]

    @property
    def is_empty(self) -> bool:
        """Whether nothing is to be done."""
        return not (self.replace or self.remove or self.append)

    @property
    def values(self) -> list[Json]:
        """The values that are to be written."""
        return [*self.replace.values(), *self.append]

    def is_done(self, old: Node | None, new: Node | None) -> bool:
        """Whether ``new`` is the list ``old`` after the edit, all other items being the same.

        An absent list is empty, and a scalar other than null is a list of one.
        """
        before, after = _items(old), _items(new)
        gone = set(self.remove)
        kept = [i for i in range(len(before)) if i not in gone]
        if len(after) != len(kept) + len(self.append):
            return False
        for i, node in zip(kept, after, strict=False):
            if not (_alike(construct(node), self.replace[i]) if i in self.replace else same(before[i], node)):
                return False
        added = after[len(kept) :]
        return all(_alike(construct(node), value) for node, value in zip(added, self.append, strict=True))


@dataclass(frozen=True)
class Change:
    """What is to become of a card's items and tags."""

    items: Edit
    tags: Edit

    @classmethod
    def of(
        cls,
        items: Sequence[object],
        tags: Sequence[object],
        *,
        replace: Mapping[int, Mapping[str, Json] | None],
        append: Sequence[Mapping[str, Json]],
        add: Sequence[str],
        remove: Collection[str],
    ) -> "Change":
        """The change of these items and tags, without what would change nothing.

        Raises:
            CardEntryError: There is no item of an index.
        """
        for i in replace:
            if not 0 <= i < len(items):
                raise CardEntryError(
                    f"The card has no item {i} under `task2vec`, only {len(items)}. Read it again."
                )
        new = {i: dict(value) for i, value in sorted(replace.items()) if value is not None}
        missing = [tag for tag in dict.fromkeys(add) if tag not in tags]
        return cls(
            items=Edit(
                replace={i: value for i, value in new.items() if not _alike(items[i], value)},
                remove=sorted(i for i, value in replace.items() if value is None),
                append=[dict(value) for value in append],
            ),
            tags=Edit(
                replace={},
                remove=[
                    i
                    for i, tag in enumerate(tags)
                    if isinstance(tag, str) and tag in remove and tag not in add
                ],
                append=list(missing),
            ),
        )

    @property
    def is_empty(self) -> bool:
        """Whether nothing is to be done."""
        return self.items.is_empty and self.tags.is_empty

    @property
    def removes(self) -> bool:
        """Whether something is to be removed."""
        return bool(self.items.remove or self.tags.remove)


def _items(node: Node | None) -> list[Node]:
    if node is None or (node.kind == "scalar" and construct(node) is None):
        return []
    return node.meant.items if node.meant.kind == "list" else [node]


def _alike(read: object, wanted: object) -> bool:
    """Whether a value was read as it was meant to be written: with its type, order and last digit."""
    if isinstance(wanted, Mapping):
        if not isinstance(read, dict) or list(read) != list(wanted):
            return False
        return all(_alike(read[key], value) for key, value in wanted.items())
    if isinstance(wanted, str):
        return isinstance(read, str) and read == wanted
    if isinstance(wanted, Sequence):
        if not isinstance(read, list) or len(read) != len(wanted):
            return False
        return all(_alike(a, b) for a, b in zip(read, wanted, strict=True))
    if isinstance(wanted, bool) or wanted is None:
        return read is wanted
    if isinstance(wanted, int):
        return type(read) is int and read == wanted
    return isinstance(wanted, float) and type(read) is float and repr(read) == repr(float(wanted))
