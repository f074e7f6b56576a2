"""The Hub itself, as tests hold it."""

import threading
from collections.abc import Collection, Mapping
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from t2v_hub.errors import SettingsError
from t2v_hub.testing.loopback.faults import Faults
from t2v_hub.testing.loopback.listing import Row
from t2v_hub.testing.loopback.objects import Blob, Commit, Gated, Kind, PullRequest
from t2v_hub.testing.loopback.store import Repository, Store, User, is_name, is_repo_id
from t2v_hub.testing.loopback.wire import LOOPBACK, Request, Server

OWNER = "owner"
"""Name of the user whose token `LoopbackHub.token` is."""
_HOSTS = f"{LOOPBACK},localhost"


class LoopbackHub:
    """A Hugging Face Hub in memory, that the real clients talk to over the loopback interface.

    Repositories can be added before it starts and stay after it stops. A process that has imported
    ``huggingface_hub`` reaches it by ``endpoint=`` only, so libraries that offer no such argument need a
    child process with `environment`. Dates come from a clock of its own that begins in 2024 and moves a
    second with each change, and commit ids follow from contents and order: runs repeat to the letter.

    Attributes:
        faults: What goes wrong between client and Hub, on demand.

    Example:
        >>> from huggingface_hub import HfApi
        >>> from t2v_hub.testing import LoopbackHub
        >>> with LoopbackHub() as hub:
        ...     sha = hub.add_repo("org/net", {"README.md": "A network."})
        ...     HfApi(hub.endpoint, token=False).model_info("org/net").sha == sha
        True
    """

    def __init__(self) -> None:
        self._store = Store()
        self.faults = Faults(self._rows)
        self._server: Server | None = None
        self._thread: threading.Thread | None = None
        self._log: list[Request] = []
        self.user(OWNER)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Begins to listen, on a port that the system chooses; nothing where it listens already."""
        if self._server is None:
            self._server = Server(self._store, self.faults, self._log)
            self._thread = threading.Thread(
                target=self._server.serve_forever, args=(0.02,), name="loopback-hub", daemon=True
            )
            self._thread.start()

    def stop(self) -> None:
        """Ends every connection and stops to listen; what hangs wakes, contents and switches stay."""
        if self._server is None or self._thread is None:
            return
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self._server.hang_up()
        self.faults.wake()
        self._server = self._thread = None

    @property
    def endpoint(self) -> str:
        """Address of the Hub while it listens, ``http://127.0.0.1:<port>``.

        Raises:
            SettingsError: It does not listen.
        """
        if self._server is None:
            raise SettingsError(
                "The loopback Hub does not listen: use `with LoopbackHub() as hub:` or hub.start()."
            )
        return self._server.endpoint

    @property
    def token(self) -> str:
        """Of the user ``owner``, who may write under that name and where repositories were added for them."""
        return self.user(OWNER)

    def user(self, name: str, *, can_write: bool | None = None, can_discuss: bool | None = None) -> str:
        """The token of a user, who is made where there is none of that name.

        Args:
            name: Also the namespace in which the user may write.
            can_write: Whether the token may do more than read and open pull requests; None leaves it, at
                first True.
            can_discuss: Whether the token may open pull requests on what it may not write; None leaves it, at
                first True. A token that may do neither only reads.
        """
        if not is_name(name):
            raise SettingsError(f"A user cannot be called {name!r}: use letters, digits, '-', '_' and '.'.")
        with self._store.lock:
            user = self._store.users.setdefault(name, User(name, f"hf_loopback_{name}"))
            user.can_write = user.can_write if can_write is None else can_write
            user.can_discuss = user.can_discuss if can_discuss is None else can_discuss
            return user.token

    def environment(self, home: Path, *, token: str | Literal[False] | None = None) -> dict[str, str]:
        """What a child process must find in its environment to talk to this Hub and to no other.

        The Hugging Face libraries read these when they are imported; lay them over the present environment:
        ``subprocess.run(…, env={**os.environ, **hub.environment(tmp_path)})``.

        Args:
            home: Folder for all their caches.
            token: Whose requests they are; None stands for `token`, False for nobody's.
        """
        folder = Path(home).absolute()
        return {
            "HF_ENDPOINT": self.endpoint,
            "HF_HOME": str(folder),
            "HF_HUB_CACHE": str(folder / "hub"),
            "HF_ASSETS_CACHE": str(folder / "assets"),
            "HF_DATASETS_CACHE": str(folder / "datasets"),
            "HF_MODULES_CACHE": str(folder / "modules"),
            "HF_TOKEN_PATH": str(folder / "token"),
            "HF_TOKEN": self.token if token is None else token or "",
            "HUGGING_FACE_HUB_TOKEN": "",
            "HF_HUB_OFFLINE": "0",
            "HF_DATASETS_OFFLINE": "0",
            "TRANSFORMERS_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_UPDATE_DOWNLOAD_COUNTS": "0",
            "NO_PROXY": _HOSTS,
            "no_proxy": _HOSTS,
        }

    def add_repo(
        self,
        repo_id: str,
        files: Mapping[str, bytes | str],
        *,
        kind: Kind = "model",
        owner: str | None = None,
        private: bool = False,
        gated: Gated = False,
        disabled: bool = False,
        downloads: int = 0,
        likes: int = 0,
        library_name: str | None = None,
        pipeline_tag: str | None = None,
        parameters: int | None = None,
        granted: Collection[str] = (),
    ) -> str:
        """Adds a repository and returns its commit id. Adding tens of thousands is cheap.

        Args:
            repo_id: ``namespace/name``, or an old id without a namespace.
            files: Contents by path; text is stored as UTF-8.
            kind: What it holds.
            owner: Name of the user who becomes a member of the namespace; None stands for the namespace.
            private: Only its owner, members of the namespace and those ``granted`` know of it.
            gated: Whether files other than the card are for those who were granted access.
            disabled: Nobody gets at it.
            downloads: As listings show it.
            likes: As listings show it.
            library_name: Takes the place of what the card and ``config.json`` say.
            pipeline_tag: Takes the place of what the card and ``config.json`` say.
            parameters: Takes the place of what is counted in ``.safetensors`` files.
            granted: Names of users who may read what is gated or private.

        Raises:
            SettingsError: There is one already, or an argument cannot work.
        """
        _require(is_repo_id(repo_id), f"{repo_id!r} is no repository id: use 'namespace/name'.")
        _require(kind in ("model", "dataset"), f"kind must be 'model' or 'dataset', not {kind!r}.")
        _require(
            gated in (False, "auto", "manual"), f"gated must be False, 'auto' or 'manual', not {gated!r}."
        )
        with self._store.lock:
            known = (kind, repo_id) in self._store.repositories
            _require(not known, f"There is already a {kind} {repo_id!r}: use hub.commit() to change it.")
            author = owner or repo_id.rpartition("/")[0] or "huggingface"
            repository = self._store.create(kind, repo_id, owner=author)
            repository.private, repository.gated, repository.disabled = private, gated, disabled
            repository.downloads, repository.likes = downloads, likes
            repository.library_name, repository.pipeline_tag = library_name, pipeline_tag
            repository.parameters = parameters
            repository.granted = set(granted)
            return self._commit(repository, files, "initial commit", author, repository.created)

    def commit(
        self,
        repo_id: str,
        files: Mapping[str, bytes | str | None],
        *,
        kind: Kind = "model",
        message: str = "Update",
        author: str = "someone",
    ) -> str:
        """Commits to ``main`` as another writer would, and returns the commit id.

        Args:
            repo_id: Of the repository.
            files: Contents by path; None deletes.
            kind: Of the repository.
            message: Of the commit.
            author: Name of who commits.
        """
        with self._store.lock:
            repository = self._repository(repo_id, kind)
            return self._commit(repository, files, message, author, self._store.now())

    def _commit(
        self,
        repository: Repository,
        files: Mapping[str, bytes | str | None],
        message: str,
        author: str,
        date: str,
    ) -> str:
        changes: dict[str, Blob | None] = {}
        for path, content in files.items():
            data = content.encode() if isinstance(content, str) else content
            changes[path] = None if data is None else self._store.blob(path, data)
        parent = repository.head if repository.branches else None
        made = repository.add(changes, parent=parent, author=author, message=message, date=date)
        repository.advance("main", made)
        return made.sha

    def read(
        self, repo_id: str, path: str = "README.md", *, revision: str = "main", kind: Kind = "model"
    ) -> bytes:
        """Content of a file.

        Raises:
            SettingsError: There is no such repository, revision or file.
        """
        with self._store.lock:
            commit = self._repository(repo_id, kind).find(revision)
            _require(commit is not None, f"{repo_id!r} has no revision {revision!r}.")
            assert commit is not None
            _require(path in commit.tree, f"{repo_id!r} has no {path!r} but {sorted(commit.tree)}.")
            return commit.tree[path].data

    def head(self, repo_id: str, *, kind: Kind = "model") -> str:
        """Id of the last commit of ``main``."""
        with self._store.lock:
            return self._repository(repo_id, kind).head.sha

    def history(self, repo_id: str, *, kind: Kind = "model") -> list[Commit]:
        """Commits of ``main``, newest first."""
        with self._store.lock:
            repository = self._repository(repo_id, kind)
            return list(repository.history(repository.head))

    def pull_requests(self, repo_id: str, *, kind: Kind = "model") -> list[PullRequest]:
        """Pull requests, oldest first."""
        with self._store.lock:
            return [
                PullRequest(each.number, each.title, each.author, each.status, each.head)
                for each in self._repository(repo_id, kind).discussions.values()
                if each.head is not None
            ]

    def rename(self, old: str, new: str, *, kind: Kind = "model") -> None:
        """Gives a repository another id; requests for the old one are sent on."""
        with self._store.lock:
            repository = self._repository(old, kind)
            _require(is_repo_id(new), f"{new!r} is no repository id: use 'namespace/name'.")
            known = (kind, new) in self._store.repositories
            _require(not known, f"There is already a {kind} {new!r}.")
            self._store.rename(repository, new)

    def remove(self, repo_id: str, *, kind: Kind = "model") -> None:
        """Removes a repository."""
        with self._store.lock:
            self._store.remove(self._repository(repo_id, kind))

    def grant(self, repo_id: str, user: str, *, kind: Kind = "model") -> None:
        """Lets a user read what is gated or private."""
        with self._store.lock:
            repository = self._repository(repo_id, kind)
            repository.granted.add(user)
            repository.touch()

    def _repository(self, repo_id: str, kind: Kind) -> Repository:
        found = self._store.repositories.get((kind, repo_id))
        if found is None:
            known = sorted(name for each, name in self._store.repositories if each == kind)[:10]
            raise SettingsError(f"The loopback Hub has no {kind} {repo_id!r}; it has {known}.")
        return found

    @property
    def requests(self) -> list[Request]:
        """Requests so far, in the order in which their answers were ready."""
        return list(self._log)

    def clear_requests(self) -> None:
        """Forgets the requests so far."""
        self._log.clear()

    def _rows(self) -> tuple[Row, ...]:
        with self._store.lock:
            return self._store.rows()


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise SettingsError(message)
