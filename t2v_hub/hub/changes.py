"""A card read at a commit, and changed however many others do so too."""

import base64
import difflib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args
from urllib.parse import quote

from t2v_hub.card import Readme
from t2v_hub.errors import (
    CardSizeError,
    HubAccessError,
    HubConflictError,
    HubNotFoundError,
    SettingsError,
)
from t2v_hub.hub.connection import Connection, repository_path
from t2v_hub.hub.requests import earlier_request

RepoType = Literal["model", "dataset"]
Change = Callable[[Readme], bytes]

_MAX_README = 10 << 20
_CONFLICTS = 200


@dataclass(frozen=True)
class Card:
    """A repository's README at a commit.

    Attributes:
        repo_id: The repository's present name.
        repo_type: What it is.
        sha: The commit; None where the repository has none yet.
        content: README.md; empty where there is none.
    """

    repo_id: str
    repo_type: RepoType
    sha: str | None
    content: bytes


@dataclass(frozen=True)
class PushResult:
    """What became of a card.

    Attributes:
        repo_id: The repository's present name.
        commit: Commit that holds the change; None for a dry run, and where nothing had to change.
        pull_request: Address of the pull request, where it was one.
        changed: Whether the card had to change.
        content: README.md as it is, or would be, after the change.
        before: As it was.
    """

    repo_id: str
    commit: str | None
    pull_request: str | None
    changed: bool
    content: bytes
    before: bytes

    @property
    def diff(self) -> str:
        """The change as a unified diff."""
        old, new = (text.decode("utf-8", "replace").splitlines(True) for text in (self.before, self.content))
        lines = difflib.unified_diff(old, new, "README.md", "README.md (new)")
        return "".join(line if line.endswith("\n") else f"{line}\n" for line in lines)


def read_card(
    connection: Connection, repo_id: str, *, repo_type: RepoType, revision: str | None = None
) -> Card:
    """The README of a repository at the commit that ``revision`` is now.

    Raises:
        CardSizeError: It is larger than the Hub takes.
        HubError: The Hub refused, failed or is out of reach.
    """
    if repo_type not in get_args(RepoType):
        raise SettingsError(f"repo_type must be 'model' or 'dataset', not {repo_type!r}.")
    what = f"The {'data set' if repo_type == 'dataset' else 'model'} {repo_id!r}"
    path = repository_path(repo_type, repo_id)
    if revision is not None:
        path += f"/revision/{quote(revision, safe='')}"
    info = connection.json(path, [("expand", "sha")], what=what)
    name, sha = info.get("id"), info.get("sha")
    name = name if isinstance(name, str) and name else repo_id
    if not isinstance(sha, str):
        return Card(name, repo_type, None, b"")
    prefix = "" if repo_type == "model" else "datasets/"
    address = f"/{prefix}{quote(name, safe='/')}/resolve/{quote(sha, safe='')}/README.md"
    try:
        answer = connection.get(address, what=f"{what}: its README.md", max_bytes=_MAX_README)
    except HubNotFoundError:  # the repository is there: it has no README
        return Card(name, repo_type, sha, b"")
    if answer.content is None:
        raise CardSizeError(f"{what}: its README.md is larger than {_MAX_README >> 20} MiB.")
    return Card(name, repo_type, sha, answer.content)


def change_card(
    repo_id: str,
    change: Change,
    *,
    repo_type: RepoType,
    create_pr: bool | None,
    dry_run: bool,
    revision: str | None,
    message: str,
    connection: Connection,
) -> PushResult:
    """Change a card as it is at the time of the commit, however many others do so too."""
    as_request = create_pr is True
    for attempt in range(_CONFLICTS):
        branch = revision
        request = None
        if as_request:
            request = earlier_request(connection, repo_id, message, repo_type=repo_type)
            request = request if request is not None and request.is_open else None
            branch = revision if request is None else request.branch
        card = read_card(connection, repo_id, repo_type=repo_type, revision=branch)
        content = change(Readme.parse(card.content))
        url = None if request is None else request.url
        if content == card.content or dry_run:
            return PushResult(card.repo_id, None, url, content != card.content, content, card.content)
        try:
            commit, opened = _commit(
                connection, card, content, message=message, branch=branch, request=as_request and not request
            )
        except HubConflictError:
            connection.pause(attempt)
            continue
        except HubAccessError:
            if create_pr is not None or as_request:
                raise
            as_request = True
            continue
        return PushResult(card.repo_id, commit, opened or url, True, content, card.content)
    raise HubConflictError(
        f"{repo_id!r} was changed by others each of {_CONFLICTS} times that its card was to be written. Try "
        f"again later; nothing was written."
    )


def _commit(
    connection: Connection, card: Card, content: bytes, *, message: str, branch: str | None, request: bool
) -> tuple[str | None, str | None]:
    """Commit and, where one was opened, address of the pull request."""
    from huggingface_hub import CommitOperationAdd

    api, tries = connection.api, 0

    def work() -> tuple[str | None, str | None]:
        nonlocal tries
        tries += 1
        if tries > 1 and request:  # an earlier try may have gone through, and only its answer been lost
            earlier = earlier_request(connection, card.repo_id, message, repo_type=card.repo_type)
            if earlier is not None and earlier.is_open:
                return None, earlier.url
        if not _is_utf8(content):
            return _commit_bytes(connection, card, content, message, branch, request)
        done = api.create_commit(
            card.repo_id,
            [CommitOperationAdd("README.md", content)],
            commit_message=message,
            repo_type=card.repo_type,
            revision=branch,
            create_pr=request,
            parent_commit=card.sha,
        )
        return done.oid, done.pr_url

    return connection.call(work, what=f"The card of {card.repo_id!r}")


def _is_utf8(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


def _commit_bytes(
    connection: Connection, card: Card, content: bytes, message: str, branch: str | None, request: bool
) -> tuple[str, str | None]:
    """As `create_commit` of the client, which takes no README that is not UTF-8."""
    header: dict[str, object] = {"summary": message, "description": ""}
    if card.sha is not None:
        header["parentCommit"] = card.sha
    file = {"content": base64.b64encode(content).decode(), "path": "README.md", "encoding": "base64"}
    lines = [{"key": "header", "value": header}, {"key": "file", "value": file}]
    path = repository_path(card.repo_type, card.repo_id)
    answer = connection.post(
        f"{path}/commit/{quote(branch or 'main', safe='')}",
        "".join(f"{json.dumps(line)}\n" for line in lines).encode(),
        [("create_pr", "1")] if request else [],
        content_type="application/x-ndjson",
    )
    return str(answer["commitOid"]), answer.get("pullRequestUrl")
