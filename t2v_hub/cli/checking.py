"""What is right and wrong with our part of a card: `checked`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from t2v_hub.cli.flags import in_flags
from t2v_hub.cli.output import share
from t2v_hub.errors import CardEntryError, T2VError

if TYPE_CHECKING:
    from t2v_hub.card import CardEntry, Readme

LARGE_ENTRY = 64_000
LARGE_CARD = 256_000
"""Bytes above which we say so; a card of more than 1 MB of metadata is refused."""
_KB = 1000


@dataclass(frozen=True)
class CheckedEntry:
    """An entry of a card.

    Attributes:
        number: Its place in the list, from 1.
        n_bytes: Of its text.
        entry: What it holds; None where it cannot be used.
        reason: Why it cannot.
    """

    number: int
    n_bytes: int
    entry: "CardEntry | None" = None
    reason: str | None = None

    @property
    def line(self) -> str:
        """The entry in a line."""
        if self.entry is None:
            return f"  entry {self.number}: cannot be used: {self.reason}"
        embedding = self.entry.embedding
        task, error = embedding.task, share(embedding.standard_error)
        split = f" {task.split}" if task.split else ""
        return (
            f"  entry {self.number}: OK, {task.id}{split} ({self.entry.role}), "
            f"{embedding.measurement.n_samples:,} images, std. error {error}, space {embedding.space.id}, "
            f"{size(self.n_bytes)}"
        )

    def to_dict(self) -> dict[str, object]:
        """As plain values."""
        found = self.entry
        return {
            "number": self.number,
            "ok": found is not None,
            "reason": self.reason,
            "n_bytes": self.n_bytes,
            "task": None if found is None else found.embedding.task.id,
            "role": None if found is None else found.role,
            "space": None if found is None else found.embedding.space.id,
            "n_measured": None if found is None else found.embedding.measurement.n_samples,
            "standard_error": None if found is None else found.embedding.standard_error,
        }


@dataclass(frozen=True)
class CheckedCard:
    """Our part of a card.

    Attributes:
        name: File or repository.
        entries: Its entries.
        problems: What is wrong, beside entries that cannot be used.
        remarks: What is not wrong, and should be known.
        opted_out: Whether the owner wants no embeddings.
    """

    name: str
    entries: tuple[CheckedEntry, ...] = ()
    problems: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    opted_out: bool = False

    @property
    def n_bytes(self) -> int:
        """Of all entries."""
        return sum(item.n_bytes for item in self.entries)

    @property
    def n_wrong(self) -> int:
        """How many things are wrong."""
        return len(self.problems) + sum(item.entry is None for item in self.entries)

    @property
    def lines(self) -> list[str]:
        """The card in lines: what it has, its entries, what is wrong, what should be known."""
        n = len(self.entries)
        if self.opted_out:
            what = "task2vec: false, its owner wants no embeddings"
        elif n:
            what = f"{n:,} entr{'y' if n == 1 else 'ies'}, {size(self.n_bytes)} of {_limit(LARGE_CARD)}"
        else:
            what = "no embeddings"
        verdict = "OK" if not self.n_wrong else f"{self.n_wrong} thing{'s' * (self.n_wrong > 1)} wrong"
        return [
            f"{self.name}: {verdict}; {what}",
            *(item.line for item in self.entries),
            *(f"  wrong: {problem}" for problem in self.problems),
            *(f"  note: {remark}" for remark in self.remarks),
        ]

    def to_dict(self) -> dict[str, object]:
        """As plain values."""
        return {
            "card": self.name,
            "ok": not self.n_wrong,
            "opted_out": self.opted_out,
            "n_bytes": self.n_bytes,
            "entries": [item.to_dict() for item in self.entries],
            "problems": list(self.problems),
            "remarks": list(self.remarks),
        }


def unreadable(name: str, error: T2VError) -> CheckedCard:
    """A card of which nothing is known but why it cannot be read."""
    return CheckedCard(name, problems=(in_flags(str(error)),))


def checked(name: str, content: bytes, *, repo_type: str | None) -> CheckedCard:
    """What is right and wrong with our part of a README.

    Args:
        name: What to call it.
        content: The README.
        repo_type: Whose card it is; None where that is not known.

    Raises:
        CardError: Its metadata cannot be read.
    """
    from t2v_hub.card import Readme, read_entries

    readme = Readme.parse(content)
    block = readme.metadata.get("task2vec")
    entries = tuple(_entry(number, item) for number, item in enumerate(readme.items, start=1))
    of_the_whole = [r for r in read_entries(block).skipped if not r.startswith("entry ")]
    problems = [*of_the_whole, *_twice(readme.items), *_roles(entries, repo_type), *_tags(readme, entries)]
    return CheckedCard(name, entries, tuple(problems), tuple(_remarks(readme, entries)), readme.opted_out)


def size(n_bytes: int) -> str:
    """A size in words."""
    return f"{n_bytes / _KB:.1f} kB" if n_bytes < 1000 * _KB else f"{n_bytes / _KB / 1000:.1f} MB"


def _limit(n_bytes: int) -> str:
    return f"{n_bytes // _KB} kB"


def _entry(number: int, item: object) -> CheckedEntry:
    from t2v_hub.card import read_entry

    try:
        return CheckedEntry(number, _n_bytes(item), entry=read_entry(item))
    except CardEntryError as error:
        return CheckedEntry(number, _n_bytes(item), reason=str(error))


def _n_bytes(item: object) -> int:
    """Size of an entry as we would write it; the README may have it longer."""
    from t2v_hub.card.yamltext import entry_text

    try:
        return len(entry_text(item).encode()) if isinstance(item, Mapping) else len(repr(item))
    except CardEntryError:
        return len(repr(item))


def _twice(items: Sequence[Any]) -> list[str]:
    from t2v_hub.card import MAX_ENTRIES, replaces

    found = []
    for number, item in enumerate(items[:MAX_ENTRIES], start=1):  # as many as readers look at
        if not isinstance(item, Mapping):
            continue
        earlier = next((i for i, old in enumerate(items[: number - 1], start=1) if replaces(item, old)), None)
        if earlier is not None:
            found.append(f"entries {earlier} and {number} are of one data set, space and role; remove one")
    return found


def _roles(entries: Sequence[CheckedEntry], repo_type: str | None) -> list[str]:
    usable = [(item.number, item.entry.role) for item in entries if item.entry is not None]
    if repo_type == "model":
        return [
            f"entry {number} has the role self, which only the card of a data set can have"
            for number, role in usable
            if role == "self"
        ]
    if repo_type == "dataset":
        return [
            f"entry {number} has the role {role}, but in the card of a data set it must be self"
            for number, role in usable
            if role != "self"
        ]
    return []


def _tags(readme: "Readme", entries: Sequence[CheckedEntry]) -> list[str]:
    from t2v_hub.card import TAG, space_tag

    spaces = dict.fromkeys(item.entry.embedding.space.id for item in entries if item.entry is not None)
    needed = [TAG, *map(space_tag, spaces)] if spaces else []
    missing = [tag for tag in needed if tag not in readme.tags]
    stale = [tag for tag in readme.tags if tag.startswith(space_tag("")) and tag not in needed]
    return [
        *(f"the tag {tag} is missing, so no listing finds it" for tag in missing),
        *(f"the tag {tag!r:.80} is stale: no entry is of that space" for tag in stale),
    ]


def _remarks(readme: "Readme", entries: Sequence[CheckedEntry]) -> list[str]:
    from t2v_hub.card import TAG

    remarks = [
        f"entry {item.number} has {size(item.n_bytes)}, more than {_limit(LARGE_ENTRY)}"
        for item in entries
        if item.n_bytes > LARGE_ENTRY
    ]
    total = sum(item.n_bytes for item in entries)
    if total > LARGE_CARD:
        remarks.append(
            f"all entries have {size(total)}; above {_limit(LARGE_CARD)} the page grows slow, and above 1 MB "
            f"the card is refused"
        )
    if TAG in readme.tags and not entries:
        remarks.append(f"it has the tag {TAG}, but no entry")
    return remarks
