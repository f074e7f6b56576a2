"""Requests as the routes see them, and what they answer."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from email.message import Message
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from t2v_hub.testing.loopback.faults import Faults
    from t2v_hub.testing.loopback.store import Repository, Store, User

JSON_TYPE = "application/json; charset=utf-8"


@dataclass(frozen=True)
class Reply:
    """An answer."""

    status: int = 200
    body: bytes = b""
    content_type: str = JSON_TYPE
    headers: Mapping[str, str] = field(default_factory=dict)

    @staticmethod
    def of(value: object, *, status: int = 200, headers: Mapping[str, str] | None = None) -> "Reply":
        """An answer in JSON."""
        return Reply(status, json.dumps(value).encode(), headers=headers or {})


class RefusalError(Exception):
    """What a request is refused with; it becomes a `Reply` and never leaves the server.

    Args:
        status: Of the answer.
        message: For the body and for ``X-Error-Message``.
        code: For ``X-Error-Code``: clients tell errors apart by it.
        headers: More of them.
    """

    def __init__(
        self, status: int, message: str, *, code: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.headers = headers or {}

    def reply(self) -> Reply:
        """The answer."""
        said = self.message.encode("ascii", "replace").decode().replace("\n", " ").replace("\r", " ")
        headers = {"X-Error-Message": said, **self.headers}
        if self.code is not None:
            headers["X-Error-Code"] = self.code
        return Reply.of({"error": self.message}, status=self.status, headers=headers)


def flag(query: Mapping[str, Sequence[str]], name: str) -> bool:
    """Whether a parameter is given and says yes."""
    return query.get(name, [""])[0].lower() in ("true", "1")


def number(query: Mapping[str, Sequence[str]], name: str, default: int, *, least: int = 0) -> int:
    """A parameter that counts something.

    Raises:
        RefusalError: It is no number, or smaller than ``least``.
    """
    text = query.get(name, [str(default)])[0]
    if not re.fullmatch(r"[0-9]{1,9}", text) or int(text) < least:
        raise RefusalError(400, f'"{name}" must be a whole number of at least {least}, not {text!r}')
    return int(text)


@dataclass
class Call:
    """One request.

    Attributes:
        store: What it is about.
        faults: What else may happen to it.
        endpoint: Address of the server.
        method: In capitals; HEAD arrives as GET.
        target: Path and query, as sent.
        segments: Of the path, decoded.
        query: Parameters.
        headers: As sent.
        body: As sent.
        user: Whose token came with it, None for anyone.
    """

    store: "Store"
    faults: "Faults"
    endpoint: str
    method: str
    target: str
    segments: list[str]
    query: dict[str, list[str]]
    headers: Message
    body: bytes
    user: "User | None"

    @property
    def path(self) -> str:
        """As sent, without the query."""
        return self.target.partition("?")[0]

    @property
    def name(self) -> str | None:
        """Of the user."""
        return None if self.user is None else self.user.name

    def json(self) -> dict[str, object]:
        """The body.

        Raises:
            RefusalError: It is not a JSON object.
        """
        try:
            value = json.loads(self.body)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            raise RefusalError(400, "The body must be a JSON object")
        return value

    def signed_in(self) -> "User":
        """The user.

        Raises:
            RefusalError: The request came without a token.
        """
        if self.user is None:
            raise RefusalError(401, "Invalid username or password.")
        return self.user


@dataclass
class Visit:
    """A request that is about one repository.

    Attributes:
        call: The request.
        repository: Its repository, which the user may know of.
        rest: What stands in the path after the verb.
    """

    call: Call
    repository: "Repository"
    rest: list[str]

    @property
    def store(self) -> "Store":
        """Everything else."""
        return self.call.store

    def require_writing(self) -> "User":
        """The user.

        Raises:
            RefusalError: They may not change the repository with this token.
        """
        user = self.call.signed_in()
        if not self.store.may_write(user, self.repository):
            raise RefusalError(
                403,
                f"Forbidden: {user.name} has no write access to {self.repository.id} with this token. "
                "Pass `create_pr=1` as a query parameter to create a Pull Request",
            )
        return user
