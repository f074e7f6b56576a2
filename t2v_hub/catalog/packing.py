"""`join_packs`: few packs rather than many, and none that nobody names."""

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from t2v_hub.card import CardEntry
from t2v_hub.catalog.candidate import EmbeddingRecord, StoredEmbeddings, records_of
from t2v_hub.catalog.pack import delete_packs, open_pack, write_pack
from t2v_hub.errors import EmbeddingFileError, StorageError

if TYPE_CHECKING:
    from t2v_hub.catalog.catalog import Catalog

_SMALL = 200  # embeddings
_MAX_SMALL = 8
_MAX_JOINED = 1000
_GRACE_S = 3600.0  # for processes that opened the catalog before, and still read what it named then


def join_packs(catalog: "Catalog") -> None:
    """Join small packs, and packs of which little is in use, and delete what nobody has named for an hour.

    To be called by one process at a time, right after it wrote the index.

    Raises:
        StorageError: The disk is full, read-only or closed to us.
    """
    used: dict[str, set[str]] = {}
    for candidate in catalog:
        for record in records_of(candidate.embeddings):
            if record.pack is not None:
                used.setdefault(record.pack, set()).add(record.digest)
    small: dict[str, list[str]] = {}
    for key, digests in used.items():
        with contextlib.suppress(EmbeddingFileError):
            pack = open_pack(catalog.cards, key)
            if len(digests) < _SMALL or 2 * len(digests) < len(pack):
                small.setdefault(pack.space.id, []).append(key)
    for keys in small.values():
        if len(keys) > _MAX_SMALL:
            for part in _parts(keys, used):
                _join(catalog, part, used)
    with contextlib.suppress(StorageError):
        named = {r.pack for c in catalog for r in records_of(c.embeddings) if r.pack is not None}
        delete_packs(catalog.cards, keep=named, older_than_s=_GRACE_S)


def _parts(keys: Sequence[str], used: Mapping[str, set[str]]) -> Iterable[list[str]]:
    """The keys in groups of at most so many embeddings that fit into memory."""
    part: list[str] = []
    n = 0
    for key in keys:
        if part and n + len(used[key]) > _MAX_JOINED:
            yield part
            part, n = [], 0
        part.append(key)
        n += len(used[key])
    if len(part) > 1:
        yield part


def _join(catalog: "Catalog", keys: Sequence[str], used: Mapping[str, set[str]]) -> None:
    entries: list[CardEntry] = []
    for key in keys:
        pack = open_pack(catalog.cards, key)
        for digest in sorted(used[key]):
            with contextlib.suppress(EmbeddingFileError):  # damaged: the record goes on naming the old pack
                embedding, half = pack.entry(digest)
                entries.append(CardEntry(embedding, "finetune", half))
    if not entries:
        return
    joined = write_pack(catalog.cards, entries[0].embedding.space, entries)
    moved = {entry.embedding.digest for entry in entries}

    def place(record: EmbeddingRecord) -> EmbeddingRecord:
        return record._replace(pack=joined) if record.pack in keys and record.digest in moved else record

    with catalog.changing() as index:
        for id, candidate in index.candidates.items():
            records = [place(record) for record in records_of(candidate.embeddings)]
            stored = StoredEmbeddings(catalog.embeddings_folder, records)
            index.candidates[id] = replace(candidate, embeddings=stored)
