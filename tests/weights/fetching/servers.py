"""Servers on this machine that behave well, badly, or like the hub and the drive."""

import contextlib
import email.utils
import hashlib
import mmap
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

RANGE = re.compile(r"bytes=(\d+)-")


@dataclass
class Request:
    path: str
    headers: dict[str, str]

    @property
    def begin(self) -> int | None:
        """First byte that is asked for; None for the whole file."""
        found = RANGE.fullmatch(self.headers.get("range", ""))
        return int(found[1]) if found else None


@dataclass
class Server:
    """Gives files; tests change its attributes, or answer requests themselves.

    Attributes:
        files: content by path.
        etags: by path; else one is made of the content.
        ranges: whether parts are given.
        cuts: after how many bytes each request is cut, in order; those after them are not.
        scripts: functions that answer the next requests, in order.
        before: asked first by every request; True says that it has answered.
        requests: what was asked.
    """

    files: dict[str, bytes | Path] = field(default_factory=dict)
    etags: dict[str, str] = field(default_factory=dict)
    ranges: bool = True
    cuts: list[int] = field(default_factory=list)
    scripts: list[Callable[["Handler", Request], None]] = field(default_factory=list)
    before: Callable[["Handler", Request], bool] = lambda handler, request: False
    requests: list[Request] = field(default_factory=list)
    address: str = ""

    def url(self, path: str = "/file") -> str:
        return self.address + path


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    behaviour: Server

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        request = Request(self.path, {k.lower(): v for k, v in self.headers.items()})
        self.behaviour.requests.append(request)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            if self.behaviour.scripts:
                self.behaviour.scripts.pop(0)(self, request)
            elif not self.behaviour.before(self, request):
                self.give(request)

    def reply(self, status: int, body: bytes = b"", **headers: str) -> None:
        """Answer with headers whose names have underscores for hyphens."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if "Content_Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def give(self, request: Request) -> None:
        """Give a file as a good server does, cut if that is wanted."""
        server, path = self.behaviour, request.path.partition("?")[0]
        if path not in server.files:
            self.reply(404, b"nothing")
            return
        held = server.files[path]
        if isinstance(held, Path):
            with held.open("rb") as file:
                content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        else:
            content = memoryview(held)
        etag = server.etags.get(path) or f'"{hashlib.md5(content).hexdigest()}"'
        begin = request.begin if server.ranges else None
        condition = request.headers.get("if-range")
        if condition not in (None, etag):
            begin = None
        if begin is not None and begin >= len(content):
            self.reply(416, Content_Range=f"bytes */{len(content)}")
            return
        self.send_response(200 if begin is None else 206)
        begin = begin or 0
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(len(content) - begin))
        if etag != "none":
            self.send_header("ETag", etag)
        self.end_headers()
        if server.cuts:
            self.wfile.write(content[begin : begin + server.cuts.pop(0)])
            self.cut()
        else:
            self.wfile.write(content[begin:])

    def cut(self) -> None:
        """Close the connection in the middle of an answer."""
        self.wfile.flush()
        self.close_connection = True


@contextlib.contextmanager
def serving(behaviour: Server | None = None, host: str = "127.0.0.1") -> Iterator[Server]:
    """Run a server while the context is open."""
    behaviour = behaviour or Server()
    kind = type("Bound", (Handler,), {"behaviour": behaviour})
    with ThreadingHTTPServer((host, 0), kind) as server:
        server.daemon_threads = True
        server.block_on_close = False
        behaviour.address = f"http://{host}:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield behaviour
        finally:
            server.shutdown()
            thread.join()


def page(text: str) -> Callable[[Handler, Request], None]:
    """A script that answers with a web page."""
    body = f"<!DOCTYPE html><html><body>{text}</body></html>".encode()
    return lambda handler, request: handler.reply(200, body, Content_Type="text/html")


def redirect(target: str, **headers: str) -> Callable[[Handler, Request], None]:
    return lambda handler, request: handler.reply(302, Location=target, **headers)


def trickle(handler: Handler, request: Request) -> None:
    """A byte now and then, for longer than any test waits."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000000")
    handler.end_headers()
    for _ in range(600):
        handler.wfile.write(b"x")
        time.sleep(0.05)


def trickled_headers(handler: Handler, request: Request) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
    for number in range(90):
        handler.wfile.write(f"X-{number}: ".encode())
        time.sleep(0.1)
        handler.wfile.write(b"1\r\n")


def silent(handler: Handler, request: Request) -> None:
    time.sleep(20)


def http_date(seconds: float) -> str:
    return email.utils.formatdate(seconds, usegmt=True)
