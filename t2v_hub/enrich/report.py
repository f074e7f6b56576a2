"""`EnrichReport`: what a run of enrichment did, and what it could not."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from t2v_hub.embedding import Json

SCHEMA = "t2v-enrich/1"

DataSetState = Literal["embedded", "reused", "from its card", "failed", "planned"]
CardState = Literal[
    "committed",
    "pull request",
    "unchanged",
    "catalog only",
    "opted out",
    "declined",
    "merged",
    "refused",
    "failed",
    "planned",
]


@dataclass(frozen=True)
class DataSetOutcome:
    """What became of a data set.

    Attributes:
        id: The data set.
        n_checkpoints: How many checkpoints were trained on it.
        state: ``embedded`` now, ``reused`` from an earlier run, taken ``from its card``, ``failed``, or
            ``planned`` (a dry run).
        reason: Why it failed.
    """

    id: str
    n_checkpoints: int
    state: DataSetState
    reason: str = ""


@dataclass(frozen=True)
class CardOutcome:
    """What became of a checkpoint's card.

    Attributes:
        id: The checkpoint.
        data_set: What it was trained on; empty where that could not be found out.
        state: ``committed``; ``pull request``; ``unchanged`` (the entry was there); ``catalog only``;
            ``opted out`` (``task2vec: false``); ``declined`` or ``merged`` (a pull request of ours was closed
            or merged there, and no second one is opened); ``refused`` (no right to write, gated, disabled, or
            the card would tell of something private); ``failed``; or ``planned`` (a dry run).
        url: Of the pull request.
        reason: Why it was refused or failed.
    """

    id: str
    data_set: str
    state: CardState
    url: str | None = None
    reason: str = ""


@dataclass(frozen=True)
class EnrichReport:
    """What a run did.

    Attributes:
        n_listed: Checkpoints that were listed.
        n_through_base: Of those, how many got their data set from a base model's card.
        data_sets: What became of each data set.
        cards: What became of each checkpoint with an embedding, and of those whose data set could not be
            found out because the Hub was out of reach.
        without: Why a checkpoint has no data set, in words; it is a candidate without an embedding.
        skipped: Rows of the listing that could not be used.
        space: Id of the space.
        catalog: Folder of the catalog.
        seconds: How long it took.
    """

    n_listed: int
    n_through_base: int
    data_sets: tuple[DataSetOutcome, ...]
    cards: tuple[CardOutcome, ...]
    without: Mapping[str, str]
    skipped: tuple[str, ...]
    space: str
    catalog: str
    seconds: float

    @property
    def n_failed(self) -> int:
        """Data sets and cards that failed."""
        states = [*(item.state for item in self.data_sets), *(item.state for item in self.cards)]
        return states.count("failed")

    def __str__(self) -> str:
        cards = _counted([card.state for card in self.cards]) or "none"
        n_with = sum(item.n_checkpoints for item in self.data_sets)
        n_open = sum(not card.data_set for card in self.cards)
        more = f", {n_open:,} to be asked again" if n_open else ""
        sets = _counted([item.state for item in self.data_sets]) or "none"
        lines = [
            f"Checkpoints  {self.n_listed:,} listed; {n_with:,} with a data set "
            f"({self.n_through_base:,} through a base model), {len(self.without):,} without{more}",
            f"Data sets    {sets}",
            f"Cards        {cards}",
            f"Catalog      {self.catalog}, space {self.space}",
        ]
        lines += [f"  {item.id}: {item.reason}" for item in self.data_sets if item.reason]
        lines += [f"  {item.id}: {item.reason}" for item in self.cards if item.state == "failed"]
        lines += [f"  skipped: {reason}" for reason in self.skipped[:5]]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Json]:
        """The report as plain values."""
        return {
            "schema": SCHEMA,
            "n_listed": self.n_listed,
            "n_through_base": self.n_through_base,
            "data_sets": [
                {"id": d.id, "n_checkpoints": d.n_checkpoints, "state": d.state, "reason": d.reason}
                for d in self.data_sets
            ],
            "cards": [
                {"id": c.id, "data_set": c.data_set, "state": c.state, "url": c.url, "reason": c.reason}
                for c in self.cards
            ],
            "without": dict(self.without),
            "skipped": list(self.skipped),
            "space": self.space,
            "catalog": self.catalog,
            "seconds": self.seconds,
        }


def _counted(states: list[str]) -> str:
    return ", ".join(f"{n:,} {state}" for state, n in Counter(states).most_common())
