"""HTTP: from sockets to calls, and from replies to sockets."""

import itertools
import socket
import sys
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from urllib.parse import parse_qs, unquote

from t2v_hub.testing.loopback.faults import Faults
from t2v_hub.testing.loopback.replies import Call, RefusalError, Reply
from t2v_hub.testing.loopback.routes import is_commit, route
from t2v_hub.testing.loopback.store import Store

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Request:
    """A request that arrived.

    Attributes:
        method: In capitals.
        path: Decoded, without the query.
        query: Values by parameter.
        status: Of the answer; 0 where the connection was cut before one.
        user: Name of the user whose token came with it, None for anyone.
    """

    method: str
    path: str
    query: dict[str, list[str]] = field(hash=False)
    status: int
    user: str | None


class Server(ThreadingHTTPServer):
    """Listens on the loopback interface, with a thread for each connection.

    Args:
        store: What it serves.
        faults: What goes wrong.
        log: Where requests are added.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, store: Store, faults: Faults, log: list[Request]) -> None:
        self.store = store
        self.faults = faults
        self.log = log
        self.ids = itertools.count(1)
        self._open: set[socket.socket] = set()
        self._open_lock = threading.Lock()
        super().__init__((LOOPBACK, 0), Handler)

    @property
    def endpoint(self) -> str:
        """Its address."""
        return f"http://{LOOPBACK}:{self.server_address[1]}"

    def server_bind(self) -> None:
        """Binds without asking for the machine's name, which may go to the network."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = LOOPBACK, self.server_address[1]

    def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
        """Accepts a connection and remembers it."""
        connection, address = super().get_request()
        with self._open_lock:
            self._open.add(connection)
        return connection, address

    def shutdown_request(self, request: object) -> None:
        """Closes a connection and forgets it."""
        assert isinstance(request, socket.socket)
        with self._open_lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def hang_up(self) -> None:
        """Ends the connections that clients keep for later: another hub may get the same port."""
        with self._open_lock:
            still_open = list(self._open)
        for connection in still_open:
            sever(connection)

    def handle_error(self, request: object, client_address: object) -> None:
        """Says nothing of clients that went away."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


def sever(connection: socket.socket) -> None:
    """Ends a connection at once, also where the other side ended it before."""
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return


class Handler(BaseHTTPRequestHandler):
    """Reads requests, lets faults happen to them and sends answers."""

    server: Server
    protocol_version = "HTTP/1.1"
    server_version = "LoopbackHub"
    sys_version = ""
    disable_nagle_algorithm = True  # else each answer waits 40 ms for the client's acknowledgement

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: requests are in the hub's list."""

    def answer(self) -> None:
        """One request, from reading to sending."""
        body = self._read_body()
        faults = self.server.faults
        faults.delay(self.command, self.path)
        cut = faults.cut_of(self.command, self.path)
        path, _, query = self.path.partition("?")
        call = Call(
            store=self.server.store,
            faults=faults,
            endpoint=self.server.endpoint,
            method="GET" if self.command == "HEAD" else self.command,
            target=self.path,
            segments=[unquote(part) for part in path.split("/")[1:]],
            query=parse_qs(query, keep_blank_values=True),
            headers=self.headers,
            body=body,
            user=None,
        )
        if cut is not None and not cut[0]:
            self._remember(call, 0)
            return self._cut()
        reply = self._reply(call)
        if cut is not None and cut[1] is None:
            self._remember(call, 0)
            return self._cut()
        self._remember(call, reply.status)  # before the client can look
        self._send(reply, None if cut is None else cut[1])

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = answer  # noqa: N815

    def _read_body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        chunks = []
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return b"".join(chunks)

    def _reply(self, call: Call) -> Reply:
        counted: dict[str, str] = {}
        try:
            known = self._identify(call)
            counted = call.faults.count(call.target)
            reply = call.faults.answer(self.command, call.target)
            if reply is not None:
                return reply
            if not known:
                raise RefusalError(401, "Invalid credentials in Authorization header")
            if is_commit(call):
                call.faults.race(call.method, call.target)
            with call.store.lock:
                reply = route(call)
        except RefusalError as refusal:
            reply = refusal.reply()
        return Reply(reply.status, reply.body, reply.content_type, {**counted, **reply.headers})

    def _identify(self, call: Call) -> bool:
        """Notes whose token came; False where it is nobody's."""
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            with call.store.lock:
                call.user = call.store.user_of(token.strip())
        return call.user is not None or not scheme

    def _remember(self, call: Call, status: int) -> None:
        path = unquote(call.path)
        self.server.log.append(Request(self.command, path, call.query, status, call.name))

    def _send(self, reply: Reply, after_bytes: int | None) -> None:
        self.send_response(reply.status)
        self.send_header("Content-Type", reply.content_type)
        self.send_header("Content-Length", str(len(reply.body)))
        self.send_header("X-Request-Id", f"loopback-{next(self.server.ids)}")
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(reply.body if after_bytes is None else reply.body[:after_bytes])
        if after_bytes is not None:
            self._cut()

    def _cut(self) -> None:
        self.close_connection = True
        sever(self.connection)
