"""What may go wrong between a client and the Hub, on demand."""

import math
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from t2v_hub.errors import SettingsError
from t2v_hub.testing.loopback.listing import Row
from t2v_hub.testing.loopback.replies import JSON_TYPE, RefusalError, Reply


@dataclass
class _Rule:
    """Something that happens to the next matching requests."""

    times: int
    path: re.Pattern[str] | None
    method: str | None
    carried_out: bool = True
    seconds: float = 0.0
    after_bytes: int | None = None
    reply: Reply | None = None
    callback: Callable[[], object] | None = None

    def fits(self, method: str, path: str, target: str) -> bool:
        if self.times < 1 or (self.method is not None and self.method != method):
            return False
        return self.path is None or bool(self.path.search(path) or self.path.search(target))


@dataclass
class _Window:
    """So many requests in so many seconds."""

    n: int
    seconds: float
    ends: float = field(default=-math.inf)
    used: int = 0


class Faults:
    """Switches for what goes wrong; they may be set at any time and from any thread.

    Rules for the next ``times`` matching requests queue up: the oldest that matches is used first. ``path``
    is a regular expression, searched for in the request's path as it was sent, and in path and query
    together (``r"/api/models$"``, ``r"cursor="``); ``method`` is the HTTP method in capitals. Where several
    apply, a request first waits, then is counted, fails or is lied to, and is answered or cut.

    Args:
        rows: Gives the state that listings show.
    """

    def __init__(self, rows: Callable[[], tuple[Row, ...]]) -> None:
        self._rows = rows
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._latency_s = 0.0
        self._window: _Window | None = None
        self._frozen: tuple[Row, ...] | None = None
        self._frozen_for: int | None = None
        self._failures: list[_Rule] = []
        self._cuts: list[_Rule] = []
        self._hangs: list[_Rule] = []
        self._lies: list[_Rule] = []
        self._racers: list[_Rule] = []

    @property
    def latency_s(self) -> float:
        """Seconds that every answer takes longer."""
        return self._latency_s

    @latency_s.setter
    def latency_s(self, seconds: float) -> None:
        _require(0 <= seconds < math.inf, f"latency_s must be a number of seconds, not {seconds!r}.")
        self._latency_s = seconds

    @property
    def stale_listings(self) -> bool | int:
        """Whether listings show the state as of when this was set: True until it is unset, or for n pages."""
        with self._lock:
            if self._frozen is None:
                return False
            return True if self._frozen_for is None else self._frozen_for

    @stale_listings.setter
    def stale_listings(self, pages: bool | int) -> None:
        _require(pages >= 0, f"stale_listings must be True, False or a number of pages, not {pages!r}.")
        rows = self._rows() if pages else None
        with self._lock:
            self._frozen = rows
            self._frozen_for = None if isinstance(pages, bool) else pages

    def fail(
        self,
        status: int,
        *,
        times: int = 1,
        path: str | None = None,
        method: str | None = None,
        headers: Mapping[str, str] | None = None,
        retry_after_s: int = 1,
    ) -> None:
        """The next matching requests are answered with an error and not carried out.

        Args:
            status: Of the answer, 400 or more.
            times: How many requests.
            path: Regular expression.
            method: In capitals.
            headers: Of the answer, in place of or beside its own.
            retry_after_s: What an answer of 429 or 503 says in ``Retry-After``, and 429 in ``RateLimit`` too.
        """
        _require(400 <= status <= 599, f"status must be an error, 400 to 599, not {status!r}.")
        own: dict[str, str] = {}
        if status in (429, 503):
            own["Retry-After"] = str(retry_after_s)
        if status == 429:
            own |= _limit_headers(remaining=0, reset_s=retry_after_s, n=500, window_s=300)
        message = {"error": f"Injected by the loopback Hub: {status}"}
        reply = Reply.of(message, status=status, headers={**own, **(headers or {})})
        self._add(self._failures, times, path, method, reply=reply)

    def rate_limit(self, n: int, window_s: float) -> None:
        """More than ``n`` API requests (``/api/…``) in a window are answered with 429 until it ends.

        Args:
            n: Requests of all users together; the answers' headers count them down as the Hub's do.
            window_s: Length of a window, which starts with the first request after the last one ended.
        """
        _require(
            n >= 0 and window_s > 0, f"n must not be negative and window_s positive: {n!r}, {window_s!r}."
        )
        with self._lock:
            self._window = _Window(n, window_s)

    def cut(
        self,
        *,
        times: int = 1,
        after_bytes: int | None = None,
        path: str | None = None,
        method: str | None = None,
        carried_out: bool = True,
    ) -> None:
        """The connection of the next matching requests is cut, before or in the middle of the answer.

        Args:
            times: How many requests.
            after_bytes: Of the answer's body; None cuts before the answer begins.
            path: Regular expression.
            method: In capitals.
            carried_out: Whether the request took effect; for a commit the client cannot know.
        """
        _require(
            after_bytes is None or after_bytes >= 0, f"after_bytes must not be negative: {after_bytes!r}."
        )
        self._add(self._cuts, times, path, method, after_bytes=after_bytes, carried_out=carried_out)

    def hang(
        self, seconds: float, *, times: int = 1, path: str | None = None, method: str | None = None
    ) -> None:
        """The next matching requests wait before they are carried out; `clear` and stopping wake them.

        Args:
            seconds: How long.
            times: How many requests.
            path: Regular expression.
            method: In capitals.
        """
        _require(seconds >= 0, f"seconds must not be negative, not {seconds!r}.")
        self._add(self._hangs, times, path, method, seconds=seconds)

    def before_commit(
        self, callback: Callable[[], object], *, times: int = 1, path: str | None = None
    ) -> None:
        """Calls back when a commit has arrived and its parent is not checked yet: a racing writer's moment.

        Args:
            callback: Called in the server's thread, without its lock; it may use the hub.
            times: For how many commits.
            path: Regular expression.
        """
        self._add(self._racers, times, path, "POST", callback=callback)

    def lie(
        self,
        path: str,
        body: bytes,
        *,
        content_type: str = JSON_TYPE,
        times: int = 1,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """The next matching requests get arbitrary bytes for an answer and are not carried out.

        Args:
            path: Regular expression.
            body: Of the answer.
            content_type: Of the answer.
            times: How many requests.
            status: Of the answer.
            headers: More of the answer's.
        """
        self._add(self._lies, times, path, None, reply=Reply(status, body, content_type, headers or {}))

    def clear(self) -> None:
        """Takes every switch back and wakes what hangs."""
        with self._lock:
            self._latency_s = 0.0
            self._window = self._frozen = self._frozen_for = None
            for rules in (self._failures, self._cuts, self._hangs, self._lies, self._racers):
                rules.clear()
        self.wake()

    def wake(self) -> None:
        """Lets what hangs, and what waits for its latency, go on."""
        with self._lock:
            wake, self._wake = self._wake, threading.Event()
        wake.set()

    def _add(
        self,
        rules: list[_Rule],
        times: int,
        path: str | None,
        method: str | None,
        *,
        carried_out: bool = True,
        seconds: float = 0.0,
        after_bytes: int | None = None,
        reply: Reply | None = None,
        callback: Callable[[], object] | None = None,
    ) -> None:
        _require(times >= 1, f"times must be 1 or more, not {times!r}.")
        try:
            pattern = None if path is None else re.compile(path)
        except re.error as error:
            raise SettingsError(f"path must be a regular expression, not {path!r}: {error}.") from error
        rule = _Rule(times, pattern, method, carried_out, seconds, after_bytes, reply, callback)
        with self._lock:
            rules.append(rule)

    def _take(self, rules: list[_Rule], method: str, target: str) -> _Rule | None:
        path = target.partition("?")[0]
        with self._lock:
            for rule in rules:
                if rule.fits(method, path, target):
                    rule.times -= 1
                    return rule
        return None

    def delay(self, method: str, target: str) -> None:
        """For the server: waits as long as the request must."""
        hang = self._take(self._hangs, method, target)
        with self._lock:
            wake = self._wake
            seconds = self._latency_s + (hang.seconds if hang else 0.0)
        if seconds:
            wake.wait(seconds)

    def answer(self, method: str, target: str) -> Reply | None:
        """For the server: what the request gets in place of its answer, None for its own."""
        for rules in (self._failures, self._lies):
            if rule := self._take(rules, method, target):
                return rule.reply
        return None

    def cut_of(self, method: str, target: str) -> tuple[bool, int | None] | None:
        """For the server: whether to carry a request out whose answer is cut, and after how many bytes."""
        rule = self._take(self._cuts, method, target)
        return None if rule is None else (rule.carried_out, rule.after_bytes)

    def race(self, method: str, target: str) -> None:
        """For the server: lets others in before a commit."""
        rule = self._take(self._racers, method, target)
        if rule is not None and rule.callback is not None:
            rule.callback()

    def count(self, target: str) -> dict[str, str]:
        """For the server: headers that count requests down.

        Raises:
            RefusalError: There were too many.
        """
        with self._lock:
            window = self._window
            if window is None or not target.startswith("/api/"):
                return {}
            now = time.monotonic()
            if now >= window.ends:
                window.ends, window.used = now + window.seconds, 0
            window.used += 1
            left = window.n - window.used
            reset = math.ceil(window.ends - now)
        headers = _limit_headers(
            remaining=max(left, 0), reset_s=reset, n=window.n, window_s=math.ceil(window.seconds)
        )
        if left < 0:
            raise RefusalError(
                429, "We had to rate limit you", headers={**headers, "Retry-After": str(reset)}
            )
        return headers

    def frozen_rows(self) -> tuple[Row, ...] | None:
        """For the server: what a page of a listing is taken from, None for the present state."""
        with self._lock:
            rows = self._frozen
            if rows is not None and self._frozen_for is not None:
                self._frozen_for -= 1
                if not self._frozen_for:
                    self._frozen = None
            return rows


def _limit_headers(*, remaining: int, reset_s: int, n: int, window_s: int) -> dict[str, str]:
    return {
        "RateLimit": f'"api";r={remaining};t={reset_s}',
        "RateLimit-Policy": f'"fixed window";"api";q={n};w={window_s}',
    }


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise SettingsError(message)
