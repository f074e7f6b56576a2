"""The embedding in a data set's own card, where it still describes the data."""

from collections.abc import Sequence
from typing import Any

from t2v_hub.card import CardEntry
from t2v_hub.embedding import Space, TaskEmbedding
from t2v_hub.errors import CardError, HubNotFoundError
from t2v_hub.hub.cards import entries_in
from t2v_hub.hub.changes import Card, read_card
from t2v_hub.hub.connection import Connection


def stored_embedding(
    repo_id: str, spaces: Sequence[Space], *, least_images: int = 0, connection: Connection
) -> TaskEmbedding | None:
    """The embedding in the card of a data set; None unless it is what measuring it now would be.

    It is of the split that loading takes: the one named train. Which is the only one of several other
    splits, a card does not say.

    Writing the embedding into the card changed the repository's commit. The data is therefore compared by
    its files: all but README.md must be the same at the measured commit and now.

    Args:
        repo_id: The data set.
        spaces: Of which spaces it may be, the most wanted first.
        least_images: How many images must have been measured, where the data set has as many.
        connection: What to ask through.

    Raises:
        HubError: The Hub refused, failed or is out of reach.
    """
    card = read_card(connection, repo_id, repo_type="dataset")
    try:
        found = entries_in(card, repo_id, spaces=spaces)
    except CardError:
        return None
    for space in spaces:
        fitting = [entry.embedding for entry in found.entries if _fits(entry, repo_id, space)]
        if len(fitting) != 1:  # of several configurations, a card does not say which loading takes
            continue
        [embedding] = fitting
        wanted = min(least_images, embedding.task.n_samples)
        if embedding.measurement.n_samples >= wanted and _unchanged(
            connection, card, embedding.task.revision
        ):
            return embedding
    return None


def _fits(entry: CardEntry, repo_id: str, space: Space) -> bool:
    task = entry.embedding.task
    return (
        entry.role == "self"
        and entry.embedding.space == space
        and task.id.casefold() == repo_id.casefold()
        and task.split in ("train", None)
    )


def _unchanged(connection: Connection, card: Card, revision: str | None) -> bool:
    """Whether the data is as it was at a commit."""
    if revision is None or card.sha is None:
        return False
    if card.sha == revision:
        return True
    try:
        return _files(connection, card.repo_id, revision) == _files(connection, card.repo_id, card.sha)
    except HubNotFoundError:  # the measured commit is gone, or was none of this repository
        return False


def _files(connection: Connection, repo_id: str, revision: str) -> dict[str, str]:
    """Blob of every file but README.md."""

    def work() -> dict[str, str]:
        tree: Any = connection.api.list_repo_tree(
            repo_id, recursive=True, revision=revision, repo_type="dataset"
        )
        blobs = {item.path: getattr(item, "blob_id", None) for item in tree}
        return {path: blob for path, blob in blobs.items() if blob is not None and path != "README.md"}

    return connection.call(work, what=f"The files of the data set {repo_id!r}")
