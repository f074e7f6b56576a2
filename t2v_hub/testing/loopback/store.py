"""Users, repositories and who may do what, in memory."""

import re
import threading
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import MappingProxyType

from t2v_hub.testing.loopback.facts import facts
from t2v_hub.testing.loopback.listing import Row
from t2v_hub.testing.loopback.objects import Blob, Commit, Discussion, Gated, Kind, is_lfs

_START = datetime(2024, 1, 1, tzinfo=UTC)
_PULL_REQUEST = re.compile(r"refs/pr/(\d+)")
_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?"
_REPO_ID = re.compile(rf"(?:{_NAME}/)?{_NAME}")


def is_repo_id(text: str) -> bool:
    """Whether a repository may be called so; old ids have no namespace."""
    return bool(_REPO_ID.fullmatch(text)) and ".." not in text and len(text) <= 193


def is_name(text: str) -> bool:
    """Whether a user or an organisation may be called so."""
    return "/" not in text and is_repo_id(text)


@dataclass
class User:
    """Someone with a token.

    Attributes:
        name: Also the namespace that the user may write in.
        token: As sent in the ``Authorization`` header.
        can_write: Whether the token may do more than read and open pull requests.
        can_discuss: Whether the token may open pull requests where it may not write.
    """

    name: str
    token: str
    can_write: bool = True
    can_discuss: bool = True


@dataclass
class Repository:
    """One repository; change it only while holding the store's lock, then call `touch`."""

    kind: Kind
    id: str
    owner: str
    number: int
    created: str
    modified: str
    private: bool = False
    gated: Gated = False
    disabled: bool = False
    downloads: int = 0
    likes: int = 0
    parameters: int | None = None
    library_name: str | None = None
    pipeline_tag: str | None = None
    granted: set[str] = field(default_factory=set)
    commits: dict[str, Commit] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    discussions: dict[int, Discussion] = field(default_factory=dict)
    _row: Row | None = None

    @property
    def namespace(self) -> str | None:
        """The part before the slash; None for the old ids without one."""
        return self.id.rpartition("/")[0] or None

    @property
    def head(self) -> Commit:
        """Last commit of ``main``."""
        return self.commits[self.branches["main"]]

    @property
    def path(self) -> str:
        """Where it stands in web addresses."""
        return f"datasets/{self.id}" if self.kind == "dataset" else self.id

    def find(self, revision: str) -> Commit | None:
        """The commit that a branch, a tag, ``refs/pr/N`` or an id (7 digits or more) names."""
        short = revision.removeprefix("refs/heads/").removeprefix("refs/tags/")
        sha = self.branches.get(short) or self.tags.get(short)
        if match := _PULL_REQUEST.fullmatch(revision):
            discussion = self.discussions.get(int(match[1]))
            sha = None if discussion is None else discussion.head
        if sha is None and re.fullmatch(r"[0-9a-f]{7,40}", revision):
            found = [known for known in self.commits if known.startswith(revision)]
            sha = found[0] if len(found) == 1 else None
        return None if sha is None else self.commits[sha]

    def history(self, commit: Commit) -> Iterator[Commit]:
        """The commit and all before it, newest first."""
        step: Commit | None = commit
        while step is not None:
            yield step
            step = self.commits[step.parent] if step.parent else None

    def add(
        self,
        changes: Mapping[str, Blob | None],
        *,
        parent: Commit | None,
        author: str,
        message: str,
        date: str,
    ) -> Commit:
        """Stores a commit that no branch names yet.

        Args:
            changes: Contents by path; None deletes.
            parent: What is changed.
            author: Name of the user.
            message: Title and description.
            date: ISO 8601.
        """
        tree = dict(parent.tree) if parent else {}
        for path, blob in changes.items():
            if blob is None:
                tree.pop(path, None)
            else:
                tree[path] = blob
        commit = Commit.make(
            MappingProxyType(tree),
            repo=f"{self.kind}s/{self.id}",
            message=message,
            author=author,
            date=date,
            parent=parent.sha if parent else None,
        )
        self.commits[commit.sha] = commit
        return commit

    def advance(self, branch: str, commit: Commit) -> None:
        """Makes the commit a branch's last one."""
        self.branches[branch] = commit.sha
        if branch == "main":
            self.modified = commit.date
        self.touch()

    def touch(self) -> None:
        """Forgets what was derived from the state before a change."""
        self._row = None

    def row(self, readers: frozenset[str]) -> Row:
        """What listings show; derived once for each state.

        Args:
            readers: Who sees it where it is private.
        """
        if self._row is None or self._row.readers != readers:
            self._row = self.describe(self.head, readers)
        return self._row

    def describe(self, commit: Commit, readers: frozenset[str]) -> Row:
        """The same as of one commit."""
        derived = facts(
            commit.tree, self.kind, library_name=self.library_name, pipeline_tag=self.pipeline_tag
        )
        return Row(
            kind=self.kind,
            id=self.id,
            author=self.namespace,
            number=self.number,
            created=self.created,
            modified=self.modified,
            private=self.private,
            gated=self.gated,
            disabled=self.disabled,
            downloads=self.downloads,
            likes=self.likes,
            parameters=derived.parameters if self.parameters is None else self.parameters,
            facts=derived,
            commit=commit,
            readers=readers,
        )


class Store:
    """Everything that a Hub holds. Hold ``lock`` while reading or changing it."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.users: dict[str, User] = {}
        self.repositories: dict[tuple[Kind, str], Repository] = {}
        self.renamed: dict[tuple[Kind, str], str] = {}
        self.members: dict[str, set[str]] = {}
        self.large_files: dict[str, bytes] = {}
        self._ticks = 0

    def now(self) -> str:
        """A time of its own, one second later with each call, so that runs repeat to the letter."""
        self._ticks += 1
        moment = _START + timedelta(seconds=self._ticks)
        return moment.strftime("%Y-%m-%dT%H:%M:%S.000Z")

    def user_of(self, token: str) -> User | None:
        """Whose token it is."""
        return next((user for user in self.users.values() if user.token == token), None)

    def create(self, kind: Kind, repo_id: str, *, owner: str) -> Repository:
        """A new repository without a commit."""
        now = self.now()
        repository = Repository(
            kind=kind, id=repo_id, owner=owner, number=self._ticks, created=now, modified=now
        )
        self.repositories[kind, repo_id] = repository
        self.renamed.pop((kind, repo_id), None)
        if repository.namespace:
            self.members.setdefault(repository.namespace, set()).add(owner)
        return repository

    def rename(self, repository: Repository, new_id: str) -> None:
        """Gives the repository another id; the old one leads there."""
        old = (repository.kind, repository.id)
        del self.repositories[old]
        self.repositories[repository.kind, new_id] = repository
        for key, target in self.renamed.items():
            if key[0] == repository.kind and target == repository.id:
                self.renamed[key] = new_id
        self.renamed[old] = new_id
        self.renamed.pop((repository.kind, new_id), None)
        repository.id = new_id
        if repository.namespace:
            self.members.setdefault(repository.namespace, set()).add(repository.owner)
        repository.touch()

    def remove(self, repository: Repository) -> None:
        """Forgets the repository, and the names that it had before."""
        del self.repositories[repository.kind, repository.id]
        gone = [key for key, new in self.renamed.items() if (key[0], new) == (repository.kind, repository.id)]
        for key in gone:
            del self.renamed[key]

    def blob(self, path: str, data: bytes) -> Blob:
        """A file's content, kept as the Hub would keep it."""
        blob = Blob(data, lfs=is_lfs(path, len(data)))
        if blob.lfs:
            self.large_files[blob.sha256] = data
        return blob

    def belongs(self, user: User | None, namespace: str) -> bool:
        """Whether the namespace is the user's own or that of an organisation of theirs."""
        return user is not None and (user.name == namespace or user.name in self.members.get(namespace, ()))

    def is_member(self, user: User | None, repository: Repository) -> bool:
        """Whether the user is one of those whose repository it is, whatever the token may do."""
        if user is None:
            return False
        return user.name == repository.owner or (
            repository.namespace is not None and self.belongs(user, repository.namespace)
        )

    def may_read(self, user: User | None, repository: Repository) -> bool:
        """Whether the user may know of the repository."""
        return not repository.private or (
            user is not None and (self.is_member(user, repository) or user.name in repository.granted)
        )

    def may_open(self, user: User | None, repository: Repository) -> bool:
        """Whether the user may read files other than the card."""
        return not repository.gated or (
            user is not None and (self.is_member(user, repository) or user.name in repository.granted)
        )

    def may_write(self, user: User | None, repository: Repository) -> bool:
        """Whether the user may change the repository with this token."""
        return user is not None and user.can_write and self.is_member(user, repository)

    def rows(self, kind: Kind | None = None) -> tuple[Row, ...]:
        """What listings show, of everything."""
        found = (each for each in self.repositories.values() if kind is None or each.kind == kind)
        return tuple(each.row(self._readers(each)) for each in found)

    def row(self, repository: Repository) -> Row:
        """What listings show of one."""
        return repository.row(self._readers(repository))

    def _readers(self, repository: Repository) -> frozenset[str]:
        if not repository.private:
            return frozenset()
        namespace = repository.namespace
        members: Collection[str] = self.members.get(namespace, ()) if namespace else ()
        names = {repository.owner, *members, *repository.granted}
        return frozenset(names | {namespace} if namespace else names)
