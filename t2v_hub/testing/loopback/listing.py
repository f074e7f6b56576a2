"""Rows of listings, and pages of rows."""

import base64
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from t2v_hub.testing.loopback.facts import Facts
from t2v_hub.testing.loopback.objects import Commit, Gated, Kind
from t2v_hub.testing.loopback.replies import RefusalError, flag, number

MAX_PAGE = 1000
"""Rows of a page, at most and by default."""

_BRIEF = {
    "model": (
        "likes",
        "private",
        "downloads",
        "tags",
        "pipeline_tag",
        "library_name",
        "createdAt",
        "modelId",
    ),
    "dataset": (
        "author",
        "disabled",
        "gated",
        "lastModified",
        "likes",
        "private",
        "sha",
        "downloads",
        "tags",
        "createdAt",
    ),
}
_FULL = {
    "model": (*_BRIEF["model"], "author", "gated", "disabled", "lastModified", "sha", "siblings"),
    "dataset": (*_BRIEF["dataset"], "cardData", "siblings"),
}
_INFO = (
    *(
        "author",
        "cardData",
        "createdAt",
        "disabled",
        "downloads",
        "gated",
        "lastModified",
        "likes",
        "private",
    ),
    *("sha", "siblings", "tags"),
)
_INFO_OF_MODELS = ("library_name", "modelId", "pipeline_tag", "safetensors")
_NOT_KEPT = """
    baseModels childrenModelCount citation config description downloadsAllTime evalResults gguf inference
    inferenceProviderMapping mainSize mask_token model-index paperswithcode_id resourceGroup spaces
    transformersInfo trendingScore usedStorage widgetData xetEnabled
"""
_EMPTY_FIELDS = frozenset(_NOT_KEPT.split())


@dataclass(frozen=True)
class Row:
    """A repository's state as listings show it; pieces of JSON are made once."""

    kind: Kind
    id: str
    author: str | None
    number: int
    created: str
    modified: str
    private: bool
    gated: Gated
    disabled: bool
    downloads: int
    likes: int
    parameters: int | None
    facts: Facts
    commit: Commit
    readers: frozenset[str]

    @cached_property
    def labels(self) -> frozenset[str]:
        """What a filter may ask for."""
        names = filter(None, (self.facts.library_name, self.facts.pipeline_tag))
        return frozenset(self.facts.tags).union(names)

    @cached_property
    def _pieces(self) -> dict[str, bytes]:
        return {}

    def to_json(self, fields: Iterable[str]) -> bytes:
        """An object with ``id`` and those of the fields that have a value."""
        parts = [self._piece(name) for name in dict.fromkeys(("id", *fields))]
        return b"{%s}" % b",".join(part for part in parts if part)

    def _piece(self, name: str) -> bytes:
        if name not in self._pieces:
            value = self._value(name)
            text = value if isinstance(value, bytes) else json.dumps(value, ensure_ascii=False).encode()
            self._pieces[name] = b'"%s":%s' % (name.encode(), text) if value is not None else b""
        return self._pieces[name]

    def _value(self, name: str) -> object:
        if name in _EMPTY_FIELDS:
            return None
        if name == "siblings":
            return [{"rfilename": path} for path in sorted(self.commit.tree)]
        if name == "safetensors":
            total = self.parameters
            return None if total is None else {"parameters": {"F32": total}, "total": total}
        values: dict[str, object] = {
            "id": self.id,
            "modelId": self.id,
            "author": self.author,
            "cardData": self.facts.card,
            "createdAt": self.created,
            "disabled": self.disabled,
            "downloads": self.downloads,
            "gated": self.gated,
            "lastModified": self.modified,
            "library_name": self.facts.library_name,
            "likes": self.likes,
            "pipeline_tag": self.facts.pipeline_tag,
            "private": self.private,
            "sha": self.commit.sha,
            "tags": list(self.facts.tags),
        }
        if name not in values:
            raise RefusalError(400, f'"expand" must be one of {sorted(values)}, not {name!r}')
        return values[name]


def info_fields(kind: Kind) -> tuple[str, ...]:
    """What the Hub says about one repository when nothing else is asked for."""
    return (*_INFO, *_INFO_OF_MODELS) if kind == "model" else _INFO


def expanded(query: Mapping[str, Sequence[str]]) -> list[str]:
    """The fields that a request asks for, if it does."""
    return [*query.get("expand", ()), *query.get("expand[]", ())]


_NUMBERS = ("downloads", "likes", "trendingScore")
_SORT_KEYS: dict[str, Callable[[Row], str | int]] = {
    "createdAt": lambda row: row.created,
    "created_at": lambda row: row.created,
    "lastModified": lambda row: row.modified,
    "last_modified": lambda row: row.modified,
    "downloads": lambda row: row.downloads,
    "likes": lambda row: row.likes,
    "trendingScore": lambda row: row.number,
}


def page(
    rows: Iterable[Row], kind: Kind, query: Mapping[str, Sequence[str]], user: str | None
) -> tuple[bytes, str | None]:
    """One page of a listing, as JSON, and the cursor of the next one if there is one.

    Args:
        rows: Of everything; those of other kinds, and those that the user may not see, are left out.
        kind: What is listed.
        query: The request's parameters.
        user: Who asks, None for anyone.

    Raises:
        RefusalError: A parameter cannot be used.
    """
    sort = query.get("sort", ["trendingScore"])[0]
    if sort not in _SORT_KEYS:
        raise RefusalError(400, f'"sort" must be one of {sorted(_SORT_KEYS)}, not {sort!r}')
    key = _SORT_KEYS[sort]
    descending = query.get("direction", ["-1"])[0] != "1"
    keyed = [((key(row), row.number), row) for row in rows if row.kind == kind and _shown(row, query, user)]
    if cursor := query.get("cursor"):
        last = _read_cursor(cursor[0], int if sort in _NUMBERS else str)
        keyed = [each for each in keyed if (each[0] < last if descending else each[0] > last)]
    keyed.sort(key=lambda each: each[0], reverse=descending)
    shown = keyed[: min(number(query, "limit", MAX_PAGE, least=1), MAX_PAGE)]
    fields = _fields(kind, query)
    body = b"[%s]" % b",".join(row.to_json(fields) for _, row in shown)
    more = len(keyed) > len(shown)
    return body, base64.urlsafe_b64encode(json.dumps(shown[-1][0]).encode()).decode() if more else None


def _fields(kind: Kind, query: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    if asked := expanded(query):
        return tuple(asked)
    fields = _FULL[kind] if flag(query, "full") else _BRIEF[kind]
    return (*fields, "cardData") if flag(query, "cardData") else fields


def _shown(row: Row, query: Mapping[str, Sequence[str]], user: str | None) -> bool:
    if row.private and user not in row.readers:
        return False
    if not row.labels.issuperset(query.get("filter", ())):
        return False
    if "author" in query and row.author != query["author"][0]:
        return False
    if "pipeline_tag" in query and row.facts.pipeline_tag != query["pipeline_tag"][0]:
        return False
    if "gated" in query and bool(row.gated) != flag(query, "gated"):
        return False
    name = row.id.lower()
    return all(part.lower() in name for part in query.get("search", ()))


def _read_cursor(text: str, kind: type) -> tuple[str | int, int]:
    try:
        value, number = json.loads(base64.urlsafe_b64decode(text))
    except (ValueError, TypeError):
        value = number = None
    if not isinstance(value, str | int) or not isinstance(value, kind) or not isinstance(number, int):
        raise RefusalError(400, "Invalid cursor")
    return value, number
