"""Pull requests of ours that are there already: none is opened twice."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from t2v_hub.hub.connection import Connection


@dataclass(frozen=True)
class PullRequest:
    """A pull request.

    Attributes:
        number: Of the discussion.
        url: Where to read it.
        branch: Where its commits lie.
        status: ``open``, ``draft``, ``merged`` or ``closed``.
    """

    number: int
    url: str
    branch: str
    status: str

    @property
    def is_open(self) -> bool:
        """Whether its branch still takes commits."""
        return self.status in ("open", "draft")


def earlier_request(
    connection: Connection, repo_id: str, title: str, *, repo_type: str
) -> PullRequest | None:
    """A pull request of the token's owner with that title, in any case: an open one, else the latest.

    Raises:
        HubError: The Hub refused, failed or is out of reach.
    """
    me = connection.user

    def work() -> PullRequest | None:
        discussions: Iterable[Any] = connection.api.get_repo_discussions(
            repo_id, author=me, discussion_type="pull_request", repo_type=repo_type
        )
        found = [
            PullRequest(item.num, item.url, item.git_reference, item.status)
            for item in discussions
            if item.title.casefold() == title.casefold() and item.author == me and item.git_reference
        ]
        return min(found, key=lambda item: (not item.is_open, -item.number), default=None)

    return connection.call(work, what=f"Pull requests of {repo_id!r}")
