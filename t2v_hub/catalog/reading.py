"""`CardReading`: cards on their way into a catalog's packs, with what strangers claim held apart."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from t2v_hub.card import CardEntry, read_entries
from t2v_hub.catalog.candidate import Candidate, EmbeddingRecord
from t2v_hub.catalog.pack import write_pack
from t2v_hub.catalog.results import Result
from t2v_hub.embedding import Space

_PACK_ENTRIES = 1000
_PACK_VALUES = 1 << 24  # 32 MiB of vectors in memory at a time
_SPACES_OF_A_CARD = 4
_MAX_SPACES = 256
_MAX_REASONS = 1000


@dataclass
class CardReading:
    """Cards that are being read.

    A space is what its settings say, but what its probe is called every card may claim. Embeddings are
    therefore kept without that name, and `named_spaces` gives each space the name that most cards use.

    Attributes:
        folder: Where the packs go.
        endpoint: Address of the Hub.
        own: Spaces whose names are known here, by id; such a space is always taken.
        known: Names of probes that cards gave earlier, by id of their spaces.
        only: Id of the space that is wanted; None for all.
        found: Of each repository that was read, its facts (None where it is closed) and its records.
        claims: Of each, the errors on named data sets that its card claims.
        shas: Of each, the commit.
        skipped: What could not be used, in words.
    """

    folder: Path
    endpoint: str
    own: Mapping[str, Space]
    known: Mapping[str, str]
    only: str | None
    found: dict[str, tuple[Candidate | None, list[EmbeddingRecord]]] = field(default_factory=dict)
    claims: dict[str, tuple[Result, ...]] = field(default_factory=dict)
    shas: dict[str, str] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    _spaces: dict[str, Space] = field(default_factory=dict)
    _names: dict[str, Counter[str]] = field(default_factory=dict)
    _waiting: dict[str, list[tuple[str, CardEntry]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._own = {id: replace(space, probe=Space.probe) for id, space in self.own.items()}

    def read(self, row: Mapping[str, Any]) -> None:
        """Take in a row of a listing."""
        from t2v_hub.hub.facts import candidate_of, facts_of
        from t2v_hub.hub.listing import card_block

        facts = facts_of(row)
        if facts is None:
            self.skip("a repository without a usable id")
            return
        self.shas[facts.id] = facts.revision or ""
        if facts.disabled:
            self.skip(f"{facts.id}: the Hub disabled it")
            self.found[facts.id], self.claims[facts.id] = (None, []), ()
            return
        entries = read_entries(card_block(row), spaces=self._own | self._spaces)
        for reason in entries.skipped:
            self.skip(f"{facts.id}: {reason}")
        self.found[facts.id] = (candidate_of(facts), [])
        self.claims[facts.id] = tuple(
            # Rounded, or an accuracy of 0.9 were an error of 0.09999999999999998.
            Result(data_set, facts.id, round(1 - accuracy, 12), origin="card", endpoint=self.endpoint)
            for data_set, accuracy in facts.accuracies
        )
        spaces: set[str] = set()
        for entry in entries.entries:
            if self._takes(facts.id, entry, spaces):
                self._queue(facts.id, entry, first=entry.embedding.space.id not in spaces)
                spaces.add(entry.embedding.space.id)
        n_waiting = sum(map(len, self._waiting.values()))
        n_values = sum(len(w) * self._spaces[id].n_filters for id, w in self._waiting.items())
        if n_waiting >= _PACK_ENTRIES or n_values >= _PACK_VALUES:
            self.flush()

    def flush(self) -> None:
        """Write what waits into packs.

        Raises:
            StorageError: The disk is full, read-only or closed to us.
        """
        for space, waiting in self._waiting.items():
            key = write_pack(self.folder, self._spaces[space], [entry for _, entry in waiting])
            for id, entry in waiting:
                record = EmbeddingRecord.of(entry.embedding, pack=key, endpoint=self.endpoint)
                self.found[id][1].append(record)
        self._waiting.clear()

    def named_spaces(self) -> dict[str, Space]:
        """The spaces of what was read, their probes called as we know them, or as most cards do."""
        named = {}
        for id, space in self._spaces.items():
            votes = self._names.get(id, Counter())
            name = self.known.get(id) or next((name for name, _ in votes.most_common(1)), Space.probe)
            named[id] = self.own.get(id) or replace(space, probe=name)
        return named

    def skip(self, reason: str) -> None:
        """Note what could not be used."""
        if len(self.skipped) < _MAX_REASONS:
            self.skipped.append(reason)

    def _takes(self, id: str, entry: CardEntry, spaces: set[str]) -> bool:
        space = entry.embedding.space.id
        if self.only is not None and space != self.only:
            return False
        if entry.role == "self":
            self.skip(f"{id}: an entry of the role self, which only a data set card can hold")
            return False
        if space in spaces or space in self.own or space == self.only:
            return True
        n_others = len(spaces - self.own.keys())
        if n_others >= _SPACES_OF_A_CARD or (space not in self._spaces and len(self._spaces) >= _MAX_SPACES):
            self.skip(f"{id}: its space {space} is one too many")
            return False
        return True

    def _queue(self, id: str, entry: CardEntry, *, first: bool) -> None:
        embedding = entry.embedding
        id_of_space = embedding.space.id
        if id_of_space not in self._spaces:
            self._spaces[id_of_space] = replace(embedding.space, probe=Space.probe)
        space = self._spaces[id_of_space]
        if first and entry.probe is not None:  # a card has one vote
            self._names.setdefault(space.id, Counter())[entry.probe] += 1
        if embedding.space is not space or embedding.task.class_names:
            # Names of classes can be many megabytes, and no ranking reads them.
            task = replace(embedding.task, class_names=())
            entry = replace(entry, embedding=replace(embedding, space=space, task=task))
        self._waiting.setdefault(space.id, []).append((id, entry))
