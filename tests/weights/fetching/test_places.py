"""The hub and the drive: what they say is understood, and tokens stay where they belong."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.weights.fetching.conftest import HASTE
from tests.weights.fetching.publisher import like_the_drive, like_the_hub
from tests.weights.fetching.servers import Handler, Request, Server, page, redirect, serving
from ttt3r.weights.fetching import drive
from ttt3r.weights.fetching.download import Wanted, download
from ttt3r.weights.fetching.hub import endpoint
from ttt3r.weights.fetching.places import Place
from ttt3r.weights.fetching.web import RefusedError

ON_HUB = "hub:owner/name@abc123/deep/model.pth"
PATH = "/owner/name/resolve/abc123/deep/model.pth"


def get(place: str, folder: Path) -> bytes:
    download(Place(place), Wanted(), folder / "a", lambda *_: None, HASTE)
    return (folder / "a").read_bytes()


@pytest.fixture
def hub(server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    monkeypatch.setenv("HF_ENDPOINT", server.address + "/")
    return server


@pytest.fixture
def store() -> Iterator[Server]:
    with serving() as running:
        yield running


def test_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    assert endpoint() == "https://huggingface.co"
    assert Place(ON_HUB).url == f"https://huggingface.co{PATH}"
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example/hf/")
    assert Place(ON_HUB).url == f"https://mirror.example/hf{PATH}"
    data = Place("hub:datasets/owner/name@main/a b.pth")
    assert data.url == "https://mirror.example/hf/datasets/owner/name/resolve/main/a%20b.pth"
    assert Place("drive:1-a_B").url == "https://drive.google.com/uc?export=download&id=1-a_B"
    assert Place("https://example.com/a").url == "https://example.com/a"


@pytest.mark.parametrize("text", ["hub:name@main/a", "drive:a/b", "ftp://a/b", "file:///a", ""])
def test_what_is_no_place(text: str, tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="not a place that ttt3r knows"):
        get(text, tmp_path)


@pytest.mark.parametrize("token", ["", "hf_secret"])
def test_a_token_goes_to_the_hub_only(
    token: str,
    hub: Server,
    store: Server,
    content: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    like_the_hub(hub, store, {"/moved/again": content})
    hub.scripts = [redirect("/moved"), redirect("/moved/again")]  # on the same host it is sent
    assert get(ON_HUB, tmp_path) == content
    sent = [request.headers.get("authorization") for request in hub.requests]
    assert sent == [f"Bearer {token}" if token else None] * 3
    assert [request.headers.get("authorization") for request in store.requests] == [None]


def test_a_token_does_not_go_to_other_places(
    server: Server, content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    server.files["/file"] = content
    assert get(server.url(), tmp_path) == content
    assert "authorization" not in server.requests[0].headers


def refusal(status: int, code: str = "", message: str = "") -> Callable[[Handler, Request], None]:
    return lambda handler, request: handler.reply(
        status, b"no", X_Error_Code=code, X_Error_Message=message
    )


GATED = "Access to model owner/name is restricted and you are not in the authorized list."


@pytest.mark.parametrize(
    ("token", "script", "message"),
    [
        ("", refusal(401, "GatedRepo"), "Accept them at .*/owner/name in a browser, make a token"),
        ("t", refusal(403, "GatedRepo", GATED), "your account has not accepted the terms of"),
        ("t", refusal(403, "", GATED), "your account has not accepted the terms of"),
        ("t", refusal(403, "GatedRepo", "It is awaiting a review."), "waits for its owners"),
        ("t", refusal(403, "GatedRepo", "It has been rejected."), "refused the request of your"),
        ("t", refusal(401, "", "Invalid credentials"), "token in HF_TOKEN is not valid"),
        ("", refusal(401, "RepoNotFound"), "there is no owner/name on the hub, or it is private"),
        ("t", refusal(404, "RepoNotFound"), "there is no owner/name on the hub, or it is private"),
        ("", refusal(404, "EntryNotFound"), r"owner/name has no file deep/model\.pth"),
        ("", refusal(404), r"owner/name has no file deep/model\.pth"),
        ("", refusal(404, "RevisionNotFound"), "no longer has the version that ttt3r knows"),
        ("", refusal(403, "", "Blocked"), r"status 403 \(Blocked\)"),
        ("", page("log in"), "a web page instead of the file"),
    ],
)
def test_refusals_of_the_hub(
    token: str,
    script: Callable[[Handler, Request], None],
    message: str,
    hub: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    hub.scripts = [script]
    with pytest.raises(RefusedError, match=message):
        get(ON_HUB, tmp_path)
    assert len(hub.requests) == 1 and "secret" not in str(hub.requests)


def test_the_hub_is_not_asked_offline(
    hub: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(RefusedError, match="HF_HUB_OFFLINE is set"):
        get(ON_HUB, tmp_path)
    assert hub.requests == []


# Google Drive ---------------------------------------------------------------------------------


@pytest.fixture
def google(server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    monkeypatch.setattr(drive, "DRIVE", server.address)
    return server


def test_the_form_of_the_drive_is_confirmed(google: Server, content: bytes, tmp_path: Path) -> None:
    like_the_drive(google, {"1x": content})
    google.cuts = [500_000]
    assert get("drive:1x", tmp_path) == content
    files = [request for request in google.requests if request.path.startswith("/download")]
    assert [request.begin for request in files] == [None, 500_000]


def test_small_files_of_the_drive_come_at_once(
    google: Server, content: bytes, tmp_path: Path
) -> None:
    google.files["/uc"] = content
    assert get("drive:1x", tmp_path) == content


QUOTA = (
    "<title>Google Drive - Quota exceeded</title><p>Sorry, you can't view or download this file "
    "at this time. Too many users have viewed or downloaded this file recently.</p>"
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (QUOTA, "too many people have downloaded the file lately. Try again tomorrow; or sign in"),
        ('<a href="https://accounts.google.com/x">Sign in</a>', "no longer shared with everybody"),
        ("<p>You need access</p>", "no longer shared with everybody"),
        ("<p>something else</p>", "a web page instead of the file"),
        ('<form action="/search"><input name="q"></form>', "a web page instead of the file"),
    ],
)
@pytest.mark.parametrize("is_after_the_form", [False, True])
def test_pages_of_the_drive(
    text: str, message: str, is_after_the_form: bool, google: Server, tmp_path: Path
) -> None:
    form = '<form id="download-form" action="/x"><input name="id" value="1"></form>'
    google.scripts = [page(form)] if is_after_the_form else []
    google.scripts.append(page(text))
    with pytest.raises(RefusedError, match=message):
        get("drive:1x", tmp_path)
    assert list(tmp_path.glob("a*")) == []


def test_a_file_that_the_drive_no_longer_has(google: Server, tmp_path: Path) -> None:
    body = b"<!DOCTYPE html>not found"
    google.scripts = [lambda handler, request: handler.reply(404, body, Content_Type="text/html")]
    with pytest.raises(RefusedError, match="no longer has the file"):
        get("drive:1x", tmp_path)


def test_a_form_that_leads_away(google: Server, tmp_path: Path) -> None:
    google.scripts = [page('<form id="download-form" action="ftp://example.com/download"></form>')]
    with pytest.raises(RefusedError, match="does not lead to Drive"):
        get("drive:1x", tmp_path)


def test_trouble_of_the_drive_is_waited_for(google: Server, content: bytes, tmp_path: Path) -> None:
    like_the_drive(google, {"1x": content})
    html = b"<!DOCTYPE html>busy"
    google.scripts = [lambda handler, request: handler.reply(503, html, Content_Type="text/html")]
    assert get("drive:1x", tmp_path) == content
