"""The embedding in a data set's own card, where it still describes the data."""

from dataclasses import dataclass
from typing import Any

from t2v_hub.card import CardEntry
from t2v_hub.embedding import Space, TaskEmbedding
from t2v_hub.errors import CardError, HubNotFoundError
from t2v_hub.hub.cards import pull_embeddings
from t2v_hub.hub.connection import Connection, repository_path


@dataclass(frozen=True)
class Stored:
    """What a data set's card offers.

    Attributes:
        embedding: The embedding, or None.
        reason: Why there is none, in words; empty where there is one.
    """

    embedding: TaskEmbedding | None
    reason: str = ""


def stored_embedding(
    repo_id: str,
    space: Space,
    *,
    split: str | None = None,
    config: str | None = None,
    least_images: int = 0,
    connection: Connection,
) -> Stored:
    """The embedding in the card of a data set, if it is of this space and the data is as it was measured.

    Writing the embedding into the card changed the repository's commit. The data is therefore compared by
    its files: all but README.md must be the same at the measured commit and now.

    Args:
        repo_id: The data set.
        space: The space.
        split: Split; ``train`` or the only one by default.
        config: Configuration; the one that was measured by default, where that is just one.
        least_images: How many images must have been measured, where the data set has as many.
        connection: What to ask through.

    Raises:
        HubError: The Hub refused, failed or is out of reach.
    """
    try:
        found = pull_embeddings(repo_id, space=space, repo_type="dataset", connection=connection)
    except CardError as error:
        return Stored(None, str(error))
    fitting = [entry for entry in found.entries if _fits(entry, repo_id, split, config)]
    if not fitting:
        wanted = f"space {space.id}" + (f" and split {split!r}" if split else "")
        return Stored(None, f"its card has no embedding in {wanted}")
    # Without a split, loading takes the one named train, or the only one; which that is, a card does not say.
    named = [entry for entry in fitting if entry.embedding.task.split in (split or "train", None)]
    if not named:
        return Stored(None, f"its card has no embedding of the split {split or 'train'!r}")
    if len(named) > 1:
        return Stored(None, "its card has several embeddings in this space; name config= and split=")
    embedding = named[0].embedding
    measured, wanted_images = embedding.measurement.n_samples, min(least_images, embedding.task.n_samples)
    if measured < wanted_images:
        return Stored(None, f"only {measured} images of it were measured, of {wanted_images} that are wanted")
    if embedding.task.revision is None:
        return Stored(None, "its card does not say which revision was measured")
    if not _unchanged(connection, repo_id, embedding.task.revision):
        return Stored(None, "the data changed since it was measured")
    return Stored(embedding)


def _fits(entry: CardEntry, repo_id: str, split: str | None, config: str | None) -> bool:
    task = entry.embedding.task
    return (
        entry.role == "self"
        and task.id.casefold() == repo_id.casefold()
        and (split is None or task.split == split)
        and (config is None or task.config == config)
    )


def _unchanged(connection: Connection, repo_id: str, revision: str) -> bool:
    what = f"The data set {repo_id!r}"
    info = connection.json(repository_path("dataset", repo_id), [("expand", "sha")], what=what)
    if info.get("sha") == revision:
        return True
    try:
        return _files(connection, repo_id, revision) == _files(connection, repo_id, str(info.get("sha")))
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
