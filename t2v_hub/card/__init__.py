"""Embeddings in cards: an entry as plain values, and a README changed in no other byte."""

from t2v_hub.card.entry import (
    LOCAL,
    MAX_ENTRIES,
    SPEC,
    TAG,
    CardEntries,
    CardEntry,
    Role,
    entry_values,
    read_entries,
    read_entry,
    replaces,
    space_tag,
)
from t2v_hub.card.readme import Readme

__all__ = [
    "LOCAL",
    "MAX_ENTRIES",
    "SPEC",
    "TAG",
    "CardEntries",
    "CardEntry",
    "Readme",
    "Role",
    "entry_values",
    "read_entries",
    "read_entry",
    "replaces",
    "space_tag",
]
