"""Listings of checkpoints, page by page, with what their cards say."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from t2v_hub.card import TAG, space_tag
from t2v_hub.errors import HubUnreachableError
from t2v_hub.hub.connection import Connection

FACTS = (
    "sha",
    "tags",
    "cardData",
    "lastModified",
    "gated",
    "private",
    "disabled",
    "pipeline_tag",
    "library_name",
    "downloads",
    "likes",
    "safetensors",
    "model-index",
)
"""What a listing is asked for beside the id, where whole cards are wanted."""

PAGE = 1000
_MAX_REQUESTS = 20_000
_MAX_PAGE_BYTES = 1 << 25  # parsed, hostile JSON takes 24 times that; 1,000 cards of 23 kB fit


@dataclass
class Listing:
    """Rows of a listing, one per repository, as the Hub's JSON has them.

    A page that is too large or too deep to be read, as a single card may make it, is asked for again in
    smaller pieces, until what cannot be read stands alone and is skipped.

    Args:
        connection: What to ask through.
        filters: Tags that all must have.
        expand: What to ask for beside the id.
        limit: Rows at most.
        sort: ``createdAt`` cannot change while one pages; others can skip rows.

    Attributes:
        n_requests: Pages that were asked for.
        skipped: What could not be read, in words.
    """

    connection: Connection
    filters: Sequence[str] = ()
    expand: Sequence[str] = FACTS
    limit: int | None = None
    sort: str = "createdAt"
    n_requests: int = 0
    skipped: list[str] = field(default_factory=list)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        seen: set[str] = set()
        for row in self._rows():
            id = row.get("id")
            if not isinstance(id, str) or id in seen:
                continue
            if self.limit is not None and len(seen) >= self.limit:
                return
            seen.add(id)
            yield row

    def _rows(self) -> Iterator[dict[str, Any]]:
        size = largest = PAGE if self.limit is None else max(1, min(PAGE, self.limit))
        address: str | None = "/api/models"
        while address is not None:
            rows, following, n_bytes = self._page(address, size)
            if rows is None and size > 1:
                size = max(1, size // 4)
                continue
            if rows is None:
                self.skipped.append(
                    f"one repository of the listing: its card is larger than {_MAX_PAGE_BYTES >> 20} MiB, or "
                    f"cannot be parsed"
                )
            yield from rows or ()
            if following == address or self.n_requests > _MAX_REQUESTS:
                raise HubUnreachableError(
                    f"{self.connection.endpoint} lists without end. Check the endpoint."
                )
            address = following
            if rows is None or n_bytes < _MAX_PAGE_BYTES // 4:
                size = min(largest, size * 2)  # past what was too large

    def _page(self, address: str, size: int) -> tuple[list[dict[str, Any]] | None, str | None, int]:
        """Rows, None where they cannot be read, the next page, and how long this one was."""
        first = address.startswith("/")
        parameters = [
            *(("filter", tag) for tag in self.filters),
            *(("expand", name) for name in self.expand),
            ("sort", self.sort),
        ]
        self.n_requests += 1
        answer = self.connection.get(
            address if first else _with_limit(address, size),
            [*parameters, ("limit", str(size))] if first else (),
            what="Listing of models",
            max_bytes=_MAX_PAGE_BYTES,
        )
        if answer.content is None:
            return None, answer.next, _MAX_PAGE_BYTES
        try:
            rows = json.loads(answer.content)
        except (json.JSONDecodeError, UnicodeDecodeError):
            rows = None
        except (ValueError, RecursionError):  # an endless number, or a card that is nested without end
            return None, answer.next, len(answer.content)
        if not isinstance(rows, list):
            raise HubUnreachableError(
                f"{self.connection.endpoint} gave a listing that is none. Check the endpoint."
            )
        return [row for row in rows if isinstance(row, dict)], answer.next, len(answer.content)


def enriched(
    connection: Connection,
    *,
    space: str | None = None,
    filters: Sequence[str] = (),
    expand: Sequence[str] = FACTS,
) -> Listing:
    """The checkpoints with an embedding in their cards, of one space or of any."""
    tags = [TAG, *([] if space is None else [space_tag(space)]), *filters]
    return Listing(connection, tags, expand)


def card_block(row: Mapping[str, Any]) -> object:
    """The ``task2vec:`` block in a row's card; None where there is none."""
    card = row.get("cardData")
    return card.get(TAG) if isinstance(card, Mapping) else None


def _with_limit(address: str, size: int) -> str:
    """The address of a next page, which names a size of its own, with another."""
    parts = urlsplit(address)
    query = [
        (name, value) for name, value in parse_qsl(parts.query, keep_blank_values=True) if name != "limit"
    ]
    return urlunsplit(parts._replace(query=urlencode([*query, ("limit", str(size))])))
