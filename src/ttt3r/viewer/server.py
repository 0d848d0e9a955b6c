"""A small HTTP server for the live viewer: a page, its changes, and details of one frame.

It listens on this machine only unless it is told otherwise, and then asks for a token. Requests
with the name of another host are refused, so that a foreign page in the same browser cannot reach
it by a name that it made point here. Only this server's own page can make it change a run: what is
sent must be JSON, which a foreign page may not send without asking first, and that is refused.
"""

import contextlib
import hmac
import ipaddress
import json
import secrets
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from ttt3r.errors import SettingError, Ttt3rError
from ttt3r.version import __version__

LOOPBACK = "127.0.0.1"
PORT = 8012
TRIED = 20  # ports from the first on, where none was asked for
MOST_SENT = 1000  # bytes that a page may send
JSON = "application/json"
Answer = tuple[int, str, bytes]  # status, type and content
Scale = Callable[[float, float], str]  # see `Server`
HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


@dataclass(frozen=True)
class Address:
    """Where to listen, and who may look.

    Attributes:
        host: name or number of an interface of this machine.
        port: 0 for any free one; None for 8012 or the next free one.
        token: what a request must bring along; where the host is not this machine alone, one is
            made if it is missing.

    Raises:
        SettingError: if the port or the token makes no sense.
    """

    host: str = LOOPBACK
    port: int | None = None
    token: str | None = None

    def __post_init__(self) -> None:
        if self.port is not None and not 0 <= self.port < 65536:
            raise SettingError(f"--port must be between 0 and 65535, not {self.port}")
        if self.token is not None and len(self.token) < 8:
            raise SettingError(
                "--token must have at least 8 characters; leave it out to have one made"
            )

    @property
    def is_local(self) -> bool:
        """Whether only programs on this machine can reach it."""
        if self.host == "localhost":
            return True
        with contextlib.suppress(ValueError):
            return ipaddress.ip_address(self.host).is_loopback
        return False


class Server:
    """Answers requests in threads of its own until it is closed.

    Args:
        address: where to listen.
        page: the page.
        changes: records of what changed after a version.
        detail: of the frame at an index, as JSON values; None if there is none.
        scale: notes how many metres a length of the run really is, the length in the network's
            unit, and returns what was done; None where pages may only look.

    Attributes:
        url: with the token, if there is one.
        token: what requests must bring along; None if they need none.

    Raises:
        SettingError: if the address cannot be used.
    """

    def __init__(
        self,
        address: Address,
        page: Callable[[], bytes],
        changes: Callable[[int], bytes],
        detail: Callable[[int], dict[str, Any] | None],
        scale: Scale | None = None,
    ) -> None:
        self.token = address.token or (None if address.is_local else secrets.token_urlsafe(16))
        handler = type("Handler", (_Handler,), {"owner": self})
        self._answers = {"/": page, "/changes": changes, "/frame": detail}
        self._scale, self._changing = scale, threading.Lock()
        self._http = _listening(address, handler)
        port = self._http.server_address[1]
        self.any_host = not address.is_local
        host = socket.gethostname() if address.host in ("0.0.0.0", "::", "") else address.host
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{port}/" + (f"?token={self.token}" if self.token else "")
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.1,), daemon=True)
        self._thread.start()

    def answer(self, path: str, sent: bytes | None = None) -> Answer:
        """Answer a request, with what was sent along if it is to change something."""
        parts = urlsplit(path)
        words = parse_qs(parts.query)
        given = words.get("token", [""])[0]
        if self.token and not hmac.compare_digest(given.encode(), self.token.encode()):
            return _refused(403, "This address needs the token that the program printed.")
        if sent is not None:
            return self._scaled(sent) if parts.path == "/scale" else _refused(404, "nothing here")
        if parts.path == "/":
            return 200, "text/html; charset=utf-8", self._answers["/"]()
        try:
            if parts.path == "/changes":
                after = int(words.get("after", ["0"])[0])
                return 200, "application/octet-stream", self._answers["/changes"](after)
            if parts.path == "/frame":
                found = self._answers["/frame"](int(words.get("index", ["-1"])[0]))
                if found is not None:
                    return 200, JSON, json.dumps(found).encode()
        except ValueError:
            return _refused(400, "not a number")
        return _refused(404, "nothing here")

    def _scaled(self, sent: bytes) -> Answer:
        if self._scale is None:
            return _refused(403, "this page may only look")
        try:
            said = json.loads(sent)
            metres, length = float(said["metres"]), float(said["length"])
        except (ValueError, TypeError, KeyError):
            return _refused(400, "metres and length must be numbers")
        try:
            with self._changing:
                return 200, "text/plain; charset=utf-8", self._scale(metres, length).encode()
        except (Ttt3rError, OSError) as error:
            return _refused(409, str(error))

    def knows(self, host: str) -> bool:
        """Whether a request for a host is meant for this server."""
        name = urlsplit(f"//{host}").hostname or ""
        return self.any_host or Address(name).is_local

    def close(self) -> None:
        """Stop listening."""
        self._http.shutdown()
        self._http.server_close()
        self._thread.join(timeout=5)


class _Handler(BaseHTTPRequestHandler):
    owner: Server
    server_version = f"ttt3r/{__version__}"
    sys_version = ""
    protocol_version = "HTTP/1.1"
    timeout = 30

    def do_GET(self) -> None:
        self._give(self._is_for_another or self.owner.answer(self.path))

    def do_POST(self) -> None:
        self.close_connection = True  # what was sent may be left unread
        self._give(self._is_for_another or self._changed())

    @property
    def _is_for_another(self) -> Answer | None:
        """The answer to a request for another host; None if it is for this one."""
        known = self.owner.knows(self.headers.get("Host", ""))
        return None if known else _refused(403, "another host was asked for")

    def _changed(self) -> Answer:
        origin = self.headers.get("Origin")
        if origin not in (None, f"http://{self.headers.get('Host', '')}"):
            return _refused(403, "only the page of this address may change something")
        if self.headers.get("Content-Type") != JSON:
            return _refused(415, "what is sent must be JSON")
        size = self.headers.get("Content-Length", "")
        if not (size.isdecimal() and int(size) <= MOST_SENT):
            return _refused(413, f"at most {MOST_SENT} bytes may be sent, and their number first")
        return self.owner.answer(self.path, self.rfile.read(int(size)))

    def _give(self, answer: Answer) -> None:
        status, kind, content = answer
        with contextlib.suppress(OSError):  # the browser went away
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            for name, value in HEADERS.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing; the terminal shows the progress of the run."""


def _refused(status: int, reason: str) -> Answer:
    return status, "text/plain; charset=utf-8", f"{reason}\n".encode()


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that breaks off is nothing to report."""


def _listening(address: Address, handler: type[BaseHTTPRequestHandler]) -> ThreadingHTTPServer:
    ports = [address.port] if address.port is not None else [*range(PORT, PORT + TRIED), 0]
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    kind = type("Http", (_Http,), {"address_family": family})
    failure: OSError | None = None
    for port in ports:
        try:
            return kind((address.host, port), handler)
        except OSError as error:
            failure = error
    assert failure is not None
    raise SettingError(
        f"cannot listen on {address.host} port {ports[0]}: {failure.strerror or failure}; choose "
        "another --port, or another --host"
    ) from failure
