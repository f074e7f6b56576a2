"""Embeddings on the Hugging Face Hub: written into cards, read from them, and listed."""

from t2v_hub.card import CardEntries, CardEntry, Role
from t2v_hub.hub.cards import pull_embeddings, push_embedding, remove_embeddings
from t2v_hub.hub.changes import PushResult, RepoType
from t2v_hub.hub.connection import Connection

__all__ = [
    "CardEntries",
    "CardEntry",
    "Connection",
    "PushResult",
    "RepoType",
    "Role",
    "pull_embeddings",
    "push_embedding",
    "remove_embeddings",
]
