"""Embeddings in cards: `push_embedding`, `pull_embeddings`, `remove_embeddings`."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from t2v_hub.card import TAG, CardEntries, Readme, Role, entry_values, read_entries, replaces, space_tag
from t2v_hub.embedding import Json, Space, TaskEmbedding
from t2v_hub.errors import (
    CardWarning,
    OptedOutError,
    SettingsError,
)
from t2v_hub.hub.changes import Card, PushResult, RepoType, change_card, read_card
from t2v_hub.hub.connection import Connection


def push_embedding(
    repo_id: str,
    embedding: TaskEmbedding,
    *,
    role: Role,
    create_pr: bool | None = None,
    publish_names: bool = False,
    dry_run: bool = False,
    repo_type: RepoType | None = None,
    revision: str | None = None,
    commit_message: str | None = None,
    endpoint: str | None = None,
    token: str | bool | None = None,
    connection: Connection | None = None,
) -> PushResult:
    """Write an embedding into the card of a repository; every other byte of it stays as it is.

    An entry of the same space, data set and role is replaced. When others change the card meanwhile it is
    read again, so that no change of theirs is lost.

    Args:
        repo_id: The repository on the Hub.
        embedding: What to write; without its deviations, and to float16's precision.
        role: What the measured data set is to the repository: its checkpoint was fine-tuned on it
            (``finetune``), pretrained on it (``pretrain``), or the repository is that data set (``self``);
            the entry then has the repository's id, whatever the data was called when it was measured.
        create_pr: True for a pull request, False for a commit; None commits where you may write, and opens a
            pull request elsewhere. An open one of yours with the same title is used again.
        publish_names: Whether names of classes, and names and fingerprints of data that is not on the Hub,
            may be written.
        dry_run: Change nothing; `PushResult.content` is the card as it would be.
        repo_type: ``model`` or ``dataset``; by default what goes with the role.
        revision: Branch to commit to; ``main`` by default.
        commit_message: Subject of the commit.
        endpoint: Address of another Hub.
        token: Access token, where it is not the one that ``hf auth login`` left.
        connection: What to ask through, in place of ``endpoint`` and ``token``.

    Raises:
        OptedOutError: The card says ``task2vec: false``.
        CardError: The card cannot be changed without harm, or would grow too large.
        HubError: The Hub refused, failed or is out of reach; subclasses say why.
        SettingsError: A role or type of repository that does not exist, or do not go together.
    """
    if not isinstance(embedding, TaskEmbedding):
        raise SettingsError(f"push_embedding needs a TaskEmbedding, not {type(embedding).__name__}.")
    repo_type = _type_for(role, repo_type)
    values = entry_values(embedding, role=role, publish_names=publish_names)
    if role == "self":  # the card it lies in says which data set it is
        values["dataset"] = {**values["dataset"], "id": repo_id}  # type: ignore[dict-item]
    return push_entries(
        repo_id,
        [values],
        repo_type=repo_type,
        create_pr=create_pr,
        dry_run=dry_run,
        revision=revision,
        message=commit_message or _subject(values),
        connection=connection or Connection(endpoint=endpoint, token=token),
    )


def push_entries(
    repo_id: str,
    entries: Sequence[Mapping[str, Json]],
    *,
    repo_type: RepoType,
    create_pr: bool | None,
    dry_run: bool,
    revision: str | None,
    message: str,
    connection: Connection,
) -> PushResult:
    """`push_embedding` for entries that are plain values already, in one commit."""

    def change(readme: Readme) -> bytes:
        if readme.opted_out:
            raise OptedOutError(
                f"The card of {repo_id!r} says `task2vec: false`: its owner wants no embeddings there. If "
                f"that is you, remove the line first."
            )
        replaced: dict[int, Mapping[str, Json] | None] = {}
        added = []
        for values in entries:
            places = [i for i, item in enumerate(readme.items) if replaces(values, item)]
            if not places:
                added.append(values)
            elif readme.items[places[0]] != values:
                replaced[places[0]] = values
            replaced |= dict.fromkeys(places[1:])
        tags = [TAG, *dict.fromkeys(space_tag(str(values["space"])) for values in entries)]
        return readme.changed(replace=replaced, append=added, add_tags=tags)

    return change_card(
        repo_id,
        change,
        repo_type=repo_type,
        create_pr=create_pr,
        dry_run=dry_run,
        revision=revision,
        message=message,
        connection=connection,
    )


def remove_embeddings(
    repo_id: str,
    *,
    space: Space | str | None = None,
    dataset: str | None = None,
    create_pr: bool | None = None,
    dry_run: bool = False,
    repo_type: RepoType = "model",
    revision: str | None = None,
    endpoint: str | None = None,
    token: str | bool | None = None,
    connection: Connection | None = None,
) -> PushResult:
    """Take embeddings out of a card, all of them or those of one space or data set, and tags with the last.

    Args:
        repo_id: The repository.
        space: Only those of this space, given as such or by its id.
        dataset: Only those of this data set's id.
        create_pr: As in `push_embedding`, and so on for all others.
        dry_run: Change nothing.
        repo_type: ``model`` or ``dataset``.
        revision: Branch to commit to.
        endpoint: Address of another Hub.
        token: Access token.
        connection: In place of ``endpoint`` and ``token``.

    Raises:
        CardError: The card cannot be changed without harm.
        HubError: The Hub refused, failed or is out of reach.
    """
    wanted = space.id if isinstance(space, Space) else space

    def change(readme: Readme) -> bytes:
        return without_entries(readme, space=wanted, dataset=dataset)

    return change_card(
        repo_id,
        change,
        repo_type=repo_type,
        create_pr=create_pr,
        dry_run=dry_run,
        revision=revision,
        message="Remove Task2Vec embeddings",
        connection=connection or Connection(endpoint=endpoint, token=token),
    )


def without_entries(readme: Readme, *, space: str | None = None, dataset: str | None = None) -> bytes:
    """The README without entries of that space and data set, and without the tags that only they needed."""

    def meant(item: object) -> bool:
        values: Mapping[str, Any] = item if isinstance(item, Mapping) else {}
        data = values.get("dataset")
        id = str(data.get("id")) if isinstance(data, Mapping) else ""
        same = dataset is None or id.casefold() == dataset.casefold()
        return same and (space is None or values.get("space") == space)

    gone = {i for i, item in enumerate(readme.items) if meant(item)}
    left = [item for i, item in enumerate(readme.items) if i not in gone]
    needed = {space_tag(str(item.get("space"))) for item in left if isinstance(item, Mapping)}
    ours = {tag for tag in readme.tags if tag.startswith(space_tag(""))}
    filtered = space is not None or dataset is not None
    if not gone and (filtered or not ours):  # the tag task2vec alone may be there for another reason
        return readme.content
    unneeded = {*(ours - needed), *([] if left else [TAG])}
    return readme.changed(replace=dict.fromkeys(gone), remove_tags=unneeded)


def pull_embeddings(
    repo_id: str,
    *,
    space: Space | str | None = None,
    repo_type: RepoType = "model",
    revision: str | None = None,
    endpoint: str | None = None,
    token: str | bool | None = None,
    connection: Connection | None = None,
) -> CardEntries:
    """The embeddings in the card of a repository, and why others there cannot be used.

    Args:
        repo_id: The repository on the Hub.
        space: Only those of this space, given as such or by its id.
        repo_type: ``model`` or ``dataset``.
        revision: Branch, tag or commit.
        endpoint: Address of another Hub.
        token: Access token.
        connection: In place of ``endpoint`` and ``token``.

    Raises:
        CardTextError: The card's metadata cannot be read.
        HubError: The Hub refused, failed or is out of reach; subclasses say why.
    """
    link = connection or Connection(endpoint=endpoint, token=token)
    card = read_card(link, repo_id, repo_type=repo_type, revision=revision)
    wanted = space.id if isinstance(space, Space) else space
    found = entries_in(card, repo_id, spaces=[space] if isinstance(space, Space) else [])
    kept = tuple(e for e in found.entries if wanted is None or e.embedding.space.id == wanted)
    return replace(found, entries=kept)


def entries_in(card: Card, repo_id: str, *, spaces: Sequence[Space]) -> CardEntries:
    """What a card holds; a warning names what of it cannot be used.

    Args:
        card: The card.
        repo_id: What to call it in warnings.
        spaces: Spaces that are known here.

    Raises:
        CardTextError: The card's metadata cannot be read.
    """
    readme = Readme.parse(card.content)
    if readme.opted_out:
        return CardEntries(opted_out=True)
    found = read_entries(list(readme.items), spaces={space.id: space for space in spaces})
    for reason in found.skipped:
        warnings.warn(f"Card of {repo_id!r}: skipped {reason}.", CardWarning, stacklevel=3)
    return found


def _type_for(role: Role, repo_type: RepoType | None) -> RepoType:
    wanted: RepoType = "dataset" if role == "self" else "model"
    if repo_type not in (None, wanted):
        raise SettingsError(
            f"role={role!r} goes with the card of a {wanted}, not of a {repo_type}: a checkpoint was "
            f"fine-tuned or pretrained on the data (finetune, pretrain), and only a data set is it (self)."
        )
    return wanted


def _subject(values: Mapping[str, Json]) -> str:
    data = values["dataset"]
    assert isinstance(data, dict)
    return f"Add Task2Vec embedding of {data['id']}"
