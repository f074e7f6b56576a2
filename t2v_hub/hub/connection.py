"""`Connection`: requests to one Hub, with patience, and with errors that say what to do."""

import json
import math
import random
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NoReturn, TypeVar, cast
from urllib.parse import quote, urljoin, urlsplit

from t2v_hub.errors import (
    HubAccessError,
    HubConflictError,
    HubError,
    HubNotFoundError,
    HubRejectedError,
    HubUnreachableError,
    RateLimitError,
    SettingsError,
)
from t2v_hub.hub.secrets import check_endpoint, checked_token, shown

T = TypeVar("T")
Parameters = Sequence[tuple[str, str]]

_SECONDS = 60.0
_MAX_PAUSE = 600.0  # a window of the Hub's limits is 5 minutes
_PAUSE = re.compile(r"(?:^|;)\s*t\s*=\s*(\d+)")
_LOGIN = "log in with `hf auth login`, or set HF_TOKEN"
# What the client raises when a server answers with other JSON than it should.
_NOT_UNDERSTOOD = (TypeError, AttributeError, LookupError, ValueError, RecursionError)


@dataclass(frozen=True)
class Answer:
    """What the Hub sent.

    Attributes:
        content: The body; None where it was longer than was wanted.
        next: Address of the next page.
    """

    content: bytes | None
    next: str | None = None


class Connection:
    """Requests to one Hub.

    Args:
        endpoint: Address of the Hub; None takes ``HF_ENDPOINT``, or the public one.
        token: Access token; None takes the one that ``hf auth login`` or ``HF_TOKEN`` left, False none.
        patience_s: How long one call may wait in all when the Hub asks for pauses (429).
        tries: How often one call is made in all when servers fail or connections break.
        progress: Whether to say so, on stderr.
        sleep: Waits; tests pass their own.
    """

    def __init__(
        self,
        *,
        endpoint: str | None = None,
        token: str | bool | None = None,
        patience_s: float = 1800.0,
        tries: int = 6,
        progress: bool = True,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        from huggingface_hub import HfApi

        check_endpoint(endpoint)
        token = checked_token(token)
        if math.isnan(patience_s) or patience_s < 0:
            raise SettingsError(f"patience_s must be a number >= 0, not {patience_s!r}.")
        self.api: HfApi = HfApi(endpoint=endpoint, token=token)
        self.endpoint = self.api.endpoint.rstrip("/")
        self.progress = progress
        self._tries = tries
        self._token = token
        self._patience_s = patience_s
        self._sleep = sleep

    def call(self, work: Callable[[], T], *, what: str) -> T:
        """What ``work``, one call of the Hub's client, returns; tried again where that can help.

        Args:
            work: Must be safe to be done twice.
            what: For messages: which repository, or what was to be had of it.

        Raises:
            HubError: It failed; subclasses say why.
        """
        from huggingface_hub.errors import (
            HfHubHTTPError,
            HFValidationError,
            LocalTokenNotFoundError,
            OfflineModeIsEnabled,
        )

        waited, tries = 0.0, 0
        while True:
            try:
                return work()
            except OfflineModeIsEnabled as error:
                raise HubUnreachableError(
                    f"{what}: HF_HUB_OFFLINE forbids to ask the Hub. Unset it, or use what is cached."
                ) from error
            except LocalTokenNotFoundError:
                raise HubAccessError(f"{what}: there is no token. {_LOGIN[0].upper()}{_LOGIN[1:]}.") from None
            except HFValidationError as error:
                raise SettingsError(f"{what}: {self._line(error)}") from error
            except HubError:
                raise
            except HfHubHTTPError as error:
                status = _status(error)
                if status == 429:
                    waited += self._pause(_pause_of(error), waited, what, error)
                    continue
                if status is not None and status < 500:
                    self._refuse(error, status, what)
                failure: Exception = error
            except _network_failures() as error:
                failure = cast(Exception, error)
            except _NOT_UNDERSTOOD as error:
                if str(error).startswith("Invalid metadata"):  # what the client makes of a refused card
                    raise self._named(HubRejectedError, f"{what}: the Hub rejects it", error) from None
                raise self._named(
                    HubUnreachableError,
                    f"{what}: {self.endpoint} gave an answer that is none of a Hub",
                    error,
                ) from None
            tries += 1
            if tries >= self._tries:
                raise self._named(
                    HubUnreachableError,
                    f"{what}: {self.endpoint} cannot be reached, or fails. Try again later; "
                    f"what was finished is kept. The last of {tries} failures",
                    failure,
                ) from None
            if tries > 1:
                self.say(
                    f"{what}: {self.endpoint} fails or cannot be reached; try {tries + 1} of {self._tries}"
                )
            self._sleep(min(8.0, 0.25 * 2**tries) * random.uniform(0.5, 1.0))

    def get(self, path: str, parameters: Parameters = (), *, what: str, max_bytes: int) -> Answer:
        """The answer to a GET request, of which no more than ``max_bytes`` are read.

        Args:
            path: Below the endpoint, or an address there that an earlier answer gave.
            parameters: Of the query.
            what: For messages.
            max_bytes: Where the body is longer, `Answer.content` is None.

        Raises:
            HubError: It failed, or an answer leads to another server.
        """
        address = self._address(path)
        return self.call(lambda: self._read(address, parameters, max_bytes), what=what)

    def json(
        self, path: str, parameters: Parameters = (), *, what: str, max_bytes: int = 1 << 26
    ) -> dict[str, Any]:
        """A JSON object.

        Raises:
            HubError: It failed, or the answer is something else.
        """
        content = self.get(path, parameters, what=what, max_bytes=max_bytes).content
        try:
            values = None if content is None else json.loads(content)
        except (ValueError, RecursionError):
            values = None
        if not isinstance(values, dict):
            raise HubUnreachableError(
                f"{what}: {self.endpoint} gave an answer that is none of a Hub. Check the endpoint."
            )
        return values

    def post(
        self, path: str, content: bytes, parameters: Parameters = (), *, content_type: str
    ) -> dict[str, Any]:
        """The JSON answer to a POST request; for use inside `call`."""
        client = _client()
        response = client.get_session().post(
            self.endpoint + path,
            content=content,
            headers={**self.headers, "Content-Type": content_type},
            params=list(parameters) or None,
            timeout=_SECONDS,
        )
        client.hf_raise_for_status(response)
        return dict(response.json())

    @cached_property
    def user(self) -> str:
        """Name of the token's owner.

        Raises:
            HubAccessError: There is no token, or it is not valid.
        """
        if self._token is False:
            raise HubAccessError(f"Only who is logged in has a name there: {_LOGIN}.")
        return self.call(lambda: str(self.api.whoami()["name"]), what="Your token")

    @property
    def headers(self) -> dict[str, str]:
        """Headers of a request, with the token."""
        headers: dict[str, str] = _client().build_hf_headers(token=self._token)
        return headers

    def pause(self, attempt: int) -> None:
        """Wait a little, longer from attempt to attempt, and not as long as others who wait."""
        self._sleep(min(2.0, 0.02 * 1.5**attempt) * random.random())

    def _read(self, address: str, parameters: Parameters, max_bytes: int) -> Answer:
        client = _client()
        # The client follows redirects, and leaves the token behind where they lead to another server.
        with client.get_session().stream(
            "GET",
            address,
            params=list(parameters) or None,
            headers=self.headers,
            timeout=_SECONDS,
            follow_redirects=True,
        ) as response:
            if response.status_code >= 400:
                response.read()
            client.hf_raise_for_status(response)
            following = response.links.get("next", {}).get("url")
            following = None if following is None else self._address(urljoin(address, str(following)))
            parts, length = [], 0
            for part in response.iter_bytes():
                parts.append(part)
                length += len(part)
                if length > max_bytes:
                    return Answer(None, following)
            return Answer(b"".join(parts), following)

    def _address(self, path: str) -> str:
        if path.startswith("/"):
            return self.endpoint + path
        ours, theirs = urlsplit(self.endpoint), urlsplit(path)
        if (theirs.scheme, theirs.netloc) != (ours.scheme, ours.netloc):
            raise HubUnreachableError(
                f"{self.endpoint} leads to another server, {theirs.scheme}://{theirs.netloc}; it is not "
                f"followed, since your token would go with it."
            )
        return path

    def _pause(self, asked: float | None, waited: float, what: str, error: Exception) -> float:
        """Wait as long as the Hub asks; returns for how long."""
        seconds = min(_MAX_PAUSE, max(1.0, 30.0 if asked is None else asked + 1.0))
        if waited + seconds > self._patience_s:
            raise self._named(
                RateLimitError,
                f"{what}: the Hub asks to wait {seconds:.0f} s (429, too many requests), and {waited:.0f} s "
                f"of at most {self._patience_s:.0f} s were waited. Log in for a higher limit (hf auth login) "
                f"or run the same again later; what was finished is kept. The Hub says",
                error,
            ) from None
        self.say(
            f"{what}: the Hub asks for a pause (429, too many requests); waiting {seconds:.0f} s, "
            f"{waited:.0f} s so far of at most {self._patience_s:.0f} s"
        )
        self._sleep(seconds)
        return seconds

    def say(self, message: str) -> None:
        """Tell whoever watches, on stderr, beside any progress bar."""
        if not self.progress:
            return
        from tqdm import tqdm

        tqdm.write(message, file=sys.stderr)

    def _refuse(self, error: Exception, status: int, what: str) -> NoReturn:
        """Raise our error for an answer that more tries would not change."""
        from huggingface_hub.errors import (
            DisabledRepoError,
            GatedRepoError,
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )

        kind: type[HubError] = HubRejectedError
        if isinstance(error, GatedRepoError):
            kind = HubAccessError
            message = f"{what} is gated. Ask for access on its page on the Hub, and {_LOGIN}"
        elif isinstance(error, DisabledRepoError):
            kind, message = HubAccessError, f"{what} was disabled by the Hub"
        elif isinstance(error, RevisionNotFoundError):
            kind, message = HubNotFoundError, f"{what} has no such revision. Check the branch, tag or commit"
        elif isinstance(error, RepositoryNotFoundError) or status in (404, 410):
            kind = HubNotFoundError
            message = (
                f"{what} is not on {self.endpoint}, or you may not see it. Check the spelling and whether it "
                f"is a model or a data set; for a private one {_LOGIN}"
            )
        elif status == 401:
            kind, message = (
                HubAccessError,
                f"{what}: the token is missing or not valid. To renew it, {_LOGIN}",
            )
        elif status == 403:
            kind = HubAccessError
            message = f"{what}: your token may not do that. Use one with the right to write"
        elif status in (409, 412):
            kind, message = HubConflictError, f"{what} was changed by others meanwhile"
        elif status == 413:
            message = f"{what}: the Hub does not take so much metadata in one card. Remove entries first"
        else:
            message = f"{what}: the Hub rejects it ({status})"
        raise self._named(kind, f"{message}. The Hub says", error) from None

    def _named(self, kind: type[HubError], message: str, error: BaseException) -> HubError:
        # Not raised from the original: a server may have echoed the token into its text.
        return kind(f"{message}: {self._line(error)}.")

    def _line(self, error: BaseException) -> str:
        token = self._token if isinstance(self._token, str) else None
        if token is None and self._token is not False:
            from huggingface_hub import get_token

            token = get_token()
        return shown(error, token)


def repository_path(kind: str, repo_id: str) -> str:
    """Path of a repository in the Hub's interface."""
    return f"/api/{kind}s/{quote(repo_id, safe='/')}"


def _client() -> Any:
    """The client's functions for single requests, which its type information leaves out."""
    from huggingface_hub import utils

    return utils


def _status(error: Exception) -> int | None:
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    return status if isinstance(status, int) else None


def _pause_of(error: Exception) -> float | None:
    """Seconds that the Hub asks to wait, where it says so."""
    headers: Mapping[str, str] = getattr(getattr(error, "response", None), "headers", {})
    found = _PAUSE.search(headers.get("ratelimit", ""))
    text = found.group(1) if found else headers.get("retry-after", "")
    return float(text) if text.isascii() and text.isdigit() and len(text) < 7 else None


def _network_failures() -> tuple[type[BaseException], ...]:
    """What the client's HTTP library raises; which library that is changed from version to version."""
    from huggingface_hub.errors import HfHubHTTPError

    bases = tuple(cast("type[BaseException]", base) for base in HfHubHTTPError.__bases__)
    return (*bases, OSError)
