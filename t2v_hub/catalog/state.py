"""Which cards were read into a catalog, at which commits; `SyncReport`."""

import datetime
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from t2v_hub.embedding import canonical_json
from t2v_hub.storage import write_atomically

Question = tuple[str, str | None, tuple[str, ...]]
"""What was asked: the endpoint, the space (None for all) and the tags."""

_FILE = "hub.json"
_FORMAT = "t2v-hub/1"


@dataclass(frozen=True)
class SyncReport:
    """What reading cards into a catalog found.

    Attributes:
        endpoint: Address of the Hub.
        space: Id of the space that was asked for; None for all.
        filters: Tags that were asked for.
        synced_at: When, in UTC, as ISO 8601.
        n_listed: Checkpoints with an embedding in their cards.
        n_read: Cards that were read, the others being known.
        n_removed: Checkpoints that are no longer listed, or no longer have an embedding.
        n_requests: Pages and cards that were asked for.
        skipped: What could not be used, in words.
    """

    endpoint: str
    space: str | None
    filters: tuple[str, ...]
    synced_at: str
    n_listed: int = 0
    n_read: int = 0
    n_removed: int = 0
    n_requests: int = 0
    skipped: tuple[str, ...] = ()

    @property
    def age_s(self) -> float:
        """Seconds since then."""
        return (now() - datetime.datetime.fromisoformat(self.synced_at)).total_seconds()

    @property
    def age(self) -> str:
        """How long ago that was, in words."""
        seconds = max(0.0, self.age_s)
        for size, name in ((86400, "day"), (3600, "hour"), (60, "minute")):
            if seconds >= size:
                count = int(seconds // size)
                return f"{count} {name}{'' if count == 1 else 's'} ago"
        return "just now"


@dataclass(frozen=True)
class Scope:
    """What one kind of question to one Hub found last time.

    Attributes:
        report: The last report.
        cards: Commit at which the card of each listed repository was read; empty where it is to be read
            again.
        probe: What whoever asked calls the probe of the space; None where the space was given by its id.
    """

    report: SyncReport
    cards: Mapping[str, str] = field(default_factory=dict)
    probe: str | None = None

    @property
    def space(self) -> str | None:
        """Space that was asked for."""
        return self.report.space

    @property
    def key(self) -> Question:
        """What was asked."""
        return self.report.endpoint, self.report.space, self.report.filters

    def covers(self, endpoint: str | None, space: str) -> bool:
        """Whether embeddings of that space on that Hub are among what was asked for."""
        return self.report.endpoint == endpoint and self.space in (None, space)


def question_of(endpoint: str, space: str | None, filters: Iterable[str]) -> Question:
    """The question; tags in any order, or given twice, make one."""
    return endpoint, space, tuple(sorted(set(filters)))


def read_state(folder: Path) -> tuple[Scope, ...]:
    """What was read before; nothing where the file is absent or damaged: all cards are then read again."""
    try:
        values = json.loads((folder / _FILE).read_bytes())
        if values["format"] != _FORMAT:
            return ()
        return tuple(_scope(item) for item in values["scopes"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return ()


def write_state(folder: Path, scopes: Sequence[Scope]) -> None:
    """Keep it.

    Raises:
        StorageError: The disk is full, read-only or closed to us.
    """
    values = [
        {"report": asdict(scope.report), "cards": dict(scope.cards), "probe": scope.probe} for scope in scopes
    ]
    write_atomically(folder / _FILE, canonical_json({"format": _FORMAT, "scopes": values}))


def now() -> datetime.datetime:
    """The time in UTC."""
    return datetime.datetime.now(datetime.UTC)


def _scope(values: Mapping[str, Any]) -> Scope:
    report = values["report"]
    kept = SyncReport(**{**report, "filters": tuple(report["filters"]), "skipped": tuple(report["skipped"])})
    datetime.datetime.fromisoformat(kept.synced_at)
    probe = values.get("probe")
    if probe is not None and not isinstance(probe, str):
        raise TypeError("the name of a probe must be text")
    return Scope(kept, {str(id): str(sha) for id, sha in values["cards"].items()}, probe)
