"""One request over HTTP: redirects that leak nothing, and answers that cannot stall for ever."""

import contextlib
import http.client
import ipaddress
import socket
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from email.message import Message
from typing import Any
from urllib.parse import urljoin, urlsplit

from ttt3r.version import __version__

BLOCK = 1 << 18
MOST_REDIRECTS = 10
REDIRECTS = {301, 302, 303, 307, 308}
TEMPORARY = {408, 425, 429, 500, 502, 503, 504, 509, 520, 521, 522, 523, 524}
AGENT = f"ttt3r/{__version__}"
ANYTHING_WRONG = (OSError, http.client.HTTPException)


class RefusedError(Exception):
    """A place does not give the file, and would not if it were asked again."""


class CutError(Exception):
    """A request failed in a way that may pass.

    Args:
        reason: what happened.
        wait: seconds that the server asked to wait; None if it did not.
    """

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


@dataclass(frozen=True)
class Patience:
    """How long to wait for a server, and how often to ask again.

    Attributes:
        silence: seconds without a byte before a connection counts as cut; also for the headers.
        window: seconds in which at least `least` bytes must come.
        least: number of bytes.
        tries: failures without a new byte before a place is given up.
        pause: seconds before the second try; doubled for each further one.
        longest_pause: limit of the pauses, also of those that servers ask for.
    """

    silence: float = 30.0
    window: float = 30.0
    least: int = 32_768
    tries: int = 6
    pause: float = 1.0
    longest_pause: float = 60.0


@dataclass(frozen=True)
class Secret:
    """A token, and the only origin that may see it."""

    token: str = field(repr=False)
    origin: tuple[str, str, int | None]


@dataclass
class Answer:
    """An open reply of a server.

    Attributes:
        url: where it came from, after all redirects.
        status: of HTTP.
        headers: by name, in any case.
        linked_sha256: what a hub says of the file before it redirects to where the bytes are.
    """

    url: str
    status: int
    headers: Message
    body: Any
    patience: Patience
    linked_sha256: str | None = None
    _head: bytes = b""

    def __enter__(self) -> "Answer":
        return self

    def __exit__(self, *_: object) -> None:
        self.body.close()

    def number(self, name: str) -> int | None:
        """A header that is a number; None if there is none."""
        text = self.headers.get(name, "")
        return int(text) if text.isascii() and text.isdigit() else None

    def peek(self, count: int) -> bytes:
        """Return the first bytes, fewer if there are not so many; `blocks` gives them again."""
        blocks = self._read()
        while len(self._head) < count and (block := next(blocks, b"")):
            self._head += block
        return self._head

    def text(self, most: int = 1_000_000) -> str:
        """Return the beginning of a page."""
        return self.peek(most)[:most].decode("utf-8", "replace")

    def is_page(self) -> bool:
        """Whether this is a web page instead of a file."""
        kind = self.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        head = self.peek(64).lstrip(b"\xef\xbb\xbf \t\r\n").lower()
        begins = (b"<!doctype", b"<html", b"<head", b"<?xml", b"<script")
        return kind in ("text/html", "application/xhtml+xml") or head.startswith(begins)

    def blocks(self) -> Iterator[bytes]:
        """Yield the content as it comes.

        Raises:
            CutError: if the connection breaks, falls silent, or is slower than is reasonable.
        """
        if self._head:
            yield self._head
        yield from self._read()

    def _read(self) -> Iterator[bytes]:
        began, got = time.monotonic(), 0
        while True:
            try:
                block = self.body.read1(BLOCK)
            except TimeoutError as error:
                raise CutError(f"no byte came for {self.patience.silence:g} seconds") from error
            except (*ANYTHING_WRONG, ValueError, AttributeError) as error:
                raise CutError(f"the connection broke ({_words(error)})") from error
            if not block:
                return
            got += len(block)
            if (now := time.monotonic()) - began >= self.patience.window:
                if got < self.patience.least:
                    raise CutError(f"only {got} bytes came in {now - began:.0f} seconds")
                began, got = now, 0
            yield block


def origin_of(url: str) -> tuple[str, str, int | None]:
    """Scheme, host and port of an address."""
    parts = urlsplit(url)
    return parts.scheme, (parts.hostname or "").lower(), parts.port


def is_loopback(url: str) -> bool:
    """Whether an address is of this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def open_url(
    url: str, headers: Mapping[str, str], patience: Patience, secret: Secret | None = None
) -> Answer:
    """Ask for `url` and follow redirects, to https only; the secret goes to its origin only.

    Returns:
        The answer, of whatever status.

    Raises:
        RefusedError: if redirects go round in circles or to an address that is not safe, or the
            server's certificate is wrong.
        CutError: if the server cannot be reached or breaks off.
    """
    seen: set[str] = set()
    linked = None
    while True:
        if url in seen or len(seen) > MOST_REDIRECTS:
            raise RefusedError(f"{_host(url)} redirects in circles")
        seen.add(url)
        sent = {"User-Agent": AGENT, "Accept-Encoding": "identity", **headers}
        if secret is not None and origin_of(url) == secret.origin:
            sent["Authorization"] = f"Bearer {secret.token}"
        body = _ask(url, sent, patience)
        linked = linked or _sha256_in(body.headers.get("X-Linked-Etag"))
        if body.status not in REDIRECTS:
            return Answer(url, body.status, body.headers, body, patience, linked)
        target = urljoin(url, body.headers.get("Location") or "")
        body.close()
        _check_redirect(url, target)
        url = target


def _check_redirect(url: str, target: str) -> None:
    scheme = urlsplit(target).scheme
    stays = scheme == "http" and urlsplit(url).scheme == "http"
    is_local = is_loopback(url) and is_loopback(target)
    same_host = origin_of(url)[1] == origin_of(target)[1]
    if scheme != "https" and not (stays and (is_local or same_host)):
        raise RefusedError(f"{_host(url)} redirects to {target[:200]}, which is not https")


def _ask(url: str, headers: Mapping[str, str], patience: Patience) -> Any:
    """Send one request; no redirect is followed and no status is an error."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.UnknownHandler(),
        _PlainHandler(),
        _SafeHandler(),
    ):
        opener.add_handler(handler)
    try:
        return opener.open(
            urllib.request.Request(url, headers=dict(headers)), timeout=patience.silence
        )
    except urllib.error.URLError as error:
        reason = error.reason
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise RefusedError(
                f"the certificate of {_host(url)} is not valid ({reason.verify_message}); check "
                "the clock of this machine and the proxy"
            ) from error
        raise CutError(f"{_host(url)} cannot be reached ({_words(reason)})") from error
    except (ValueError, http.client.InvalidURL) as error:
        raise RefusedError(f"{url[:200]!r} is not an address: {error}") from error
    except ANYTHING_WRONG as error:
        raise CutError(f"{_host(url)} does not answer ({_words(error)})") from error


class _Timed(http.client.HTTPConnection):
    """Breaks the connection where headers do not come in time, a byte now and then included."""

    def getresponse(self) -> http.client.HTTPResponse:
        held, late = self.sock, threading.Event()

        def give_up() -> None:
            late.set()
            with contextlib.suppress(OSError):  # it is closed already
                held.shutdown(socket.SHUT_RDWR)

        timer = threading.Timer(self.timeout or 60.0, give_up)
        timer.daemon = True
        timer.start()
        try:
            response = super().getresponse()
        finally:
            timer.cancel()
        if late.is_set():  # what came until then looks like all of the headers
            response.close()
            raise TimeoutError(f"its headers did not come within {self.timeout:g} seconds")
        return response


class _TimedSafe(_Timed, http.client.HTTPSConnection):
    pass


class _PlainHandler(urllib.request.HTTPHandler):
    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_Timed, req)


class _SafeHandler(urllib.request.HTTPSHandler):
    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_TimedSafe, req, context=ssl.create_default_context())


def _sha256_in(tag: str | None) -> str | None:
    """A hub's tag of a large file is its SHA-256."""
    text = (tag or "").strip('"').lower()
    return text if len(text) == 64 and set(text) <= set("0123456789abcdef") else None


def _host(url: str) -> str:
    return urlsplit(url).hostname or url[:100]


def _words(error: object) -> str:
    return str(error) or type(error).__name__
