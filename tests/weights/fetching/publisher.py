"""Imitations of the hub and of the drive, and small weights that are published there."""

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from tests.weights.fetching.servers import Handler, Request, Server
from ttt3r.weights import CATALOGUE
from ttt3r.weights.catalogue import PublishedFile, WeightsSpec


def published(name: str, content: bytes) -> PublishedFile:
    """A file with all that is known of it, and no place yet."""
    return PublishedFile(name, (), len(content), hashlib.sha256(content).hexdigest())


def publish(
    monkeypatch: pytest.MonkeyPatch, name: str, *files: PublishedFile, also=()
) -> WeightsSpec:
    """Let a name of the catalogue stand for other files."""
    spec = replace(CATALOGUE[name], files=files, also=tuple(also))
    monkeypatch.setitem(CATALOGUE, name, spec)
    return spec


def like_the_hub(server: Server, store: Server, files: dict[str, bytes | Path]) -> None:
    """Answer as the hub does: the address of a file redirects to where its bytes are.

    Args:
        server: what `HF_ENDPOINT` names.
        store: another host, which has the bytes and must never see a token.
        files: by ``/OWNER/NAME/resolve/REVISION/FILE``.
    """

    def answer(handler: Handler, request: Request) -> bool:
        if request.path not in files:
            handler.reply(404, b"", X_Error_Code="EntryNotFound")
            return True
        key = "/bytes" + request.path
        store.files[key] = files[request.path]
        handler.reply(302, Location=store.url(key))
        return True

    server.before = answer


CONFIRM = """<!DOCTYPE html><html><head><title>Google Drive - Virus scan warning</title></head>
<body><p>Google Drive can't scan this file for viruses.</p>
<form id="search" action="/search"><input type="hidden" name="q" value="no"></form>
<form id="download-form" action="{address}/download" method="get">
<input type="submit" value="Download anyway"/><input type="hidden" name="id" value="{id}">
<input type="hidden" name="export" value="download"><input type="hidden" name="confirm" value="t">
<input type="hidden" name="uuid" value="1-2&amp;3"></form></body></html>"""


def like_the_drive(server: Server, files: dict[str, bytes]) -> None:
    """Answer as Google Drive does for large files: a form first, then the file.

    Args:
        server: what stands for the drive.
        files: by identifier.
    """

    def answer(handler: Handler, request: Request) -> bool:
        path, _, query = request.path.partition("?")
        values = dict(part.split("=") for part in query.split("&") if part)
        identifier = values.get("id", "")
        if identifier not in files:
            return False
        if path == "/uc":
            handler.reply(303, Location=f"/page?{query}")
        elif path == "/page":
            text = CONFIRM.format(address=server.address, id=identifier).encode()
            handler.reply(200, text, Content_Type="text/html; charset=utf-8")
        else:
            assert values["confirm"] == "t" and values["uuid"] == "1-2%263"
            server.files["/download"] = files[identifier]
            return False
        return True

    server.before = answer
