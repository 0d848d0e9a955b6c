"""One file from one place: resumed where that is safe, and never half of it taken for whole."""

import errno
import hashlib
import os
import random
import socket
import subprocess
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.weights.fetching.conftest import HASTE
from tests.weights.fetching.servers import (
    Handler,
    Request,
    Server,
    http_date,
    page,
    redirect,
    serving,
    silent,
    trickle,
    trickled_headers,
)
from ttt3r.errors import WeightsError
from ttt3r.weights.fetching import part as parts
from ttt3r.weights.fetching.download import Progress, Wanted, download
from ttt3r.weights.fetching.places import Place
from ttt3r.weights.fetching.web import Patience, RefusedError
from ttt3r.weights.hashes import remembered


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def get(
    server: Server,
    target: Path,
    wanted: Wanted | None = None,
    patience: Patience = HASTE,
    progress: Progress = lambda done, total: None,
    path: str = "/file",
) -> str:
    return download(Place(server.url(path)), wanted or Wanted(), target, progress, patience)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


@pytest.fixture
def known(server: Server, content: bytes) -> Wanted:
    server.files["/file"] = content
    return Wanted(len(content), digest(content))


def stop_after(count: int) -> Progress:
    """Ctrl-C once so many bytes are there."""

    def update(done: int, total: int | None) -> None:
        if done >= count:
            raise KeyboardInterrupt

    return update


def test_a_whole_file(server: Server, known: Wanted, content: bytes, tmp_path: Path) -> None:
    told: list[tuple[int, int | None]] = []
    target = tmp_path / "a"
    assert get(server, target, known, progress=lambda *at: told.append(at)) == known.sha256
    assert target.read_bytes() == content and names(tmp_path) == ["a"]
    assert told[0] == (0, len(content)) and told[-1] == (len(content), len(content))
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert remembered(target) == known.sha256
    assert server.requests[0].headers["accept-encoding"] == "identity"


@pytest.mark.parametrize("hash_is_known", [True, False])
def test_fifty_cuts(
    hash_is_known: bool, server: Server, known: Wanted, content: bytes, tmp_path: Path
) -> None:
    chance = random.Random(1)
    server.cuts = [chance.randrange(1, 40_000) for _ in range(50)]
    wanted = known if hash_is_known else Wanted()
    get(server, tmp_path / "a", wanted)
    assert (tmp_path / "a").read_bytes() == content and len(server.requests) == 51
    begins = [request.begin for request in server.requests]
    assert begins[0] is None and all(begins[1:]) and names(tmp_path) == ["a"]


@pytest.mark.parametrize("hash_is_known", [True, False])
def test_ctrl_c_leaves_a_part_that_is_gone_on_with(
    hash_is_known: bool, server: Server, known: Wanted, content: bytes, tmp_path: Path
) -> None:
    wanted, target = known if hash_is_known else Wanted(), tmp_path / "a"
    with pytest.raises(KeyboardInterrupt):
        get(server, target, wanted, progress=stop_after(700_000))
    assert names(tmp_path) == ["a.part", "a.part.json"]
    length = (tmp_path / "a.part").stat().st_size
    assert 700_000 <= length < len(content)
    get(server, target, wanted)
    assert server.requests[-1].begin == length and target.read_bytes() == content
    assert names(tmp_path) == ["a"]


def test_a_killed_process_leaves_a_part_too(
    server: Server, known: Wanted, content: bytes, tmp_path: Path
) -> None:
    """What was not noted as written is trusted only where a hash will tell."""
    (tmp_path / "a.part").write_bytes(content[:900_000])
    note = f'{{"place": "{server.url()}", "validator": null, "total": null, "synced": 500000}}'
    (tmp_path / "a.part.json").write_text(note)
    get(server, tmp_path / "a", known)
    assert server.requests[-1].begin == 900_000
    (tmp_path / "b.part").write_bytes(content[:900_000])
    tag = f'\\"{hashlib.md5(content).hexdigest()}\\"'
    (tmp_path / "b.part.json").write_text(note.replace("null", f'"{tag}"', 1))
    get(server, tmp_path / "b")
    assert server.requests[-1].begin == 500_000
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes() == content


@pytest.mark.parametrize("text", ["", "{", "[]", '{"place": 1}', '{"other": 1}', "null"])
def test_a_damaged_note_starts_over(
    text: str, server: Server, known: Wanted, content: bytes, tmp_path: Path
) -> None:
    (tmp_path / "a.part").write_bytes(content[:1000])
    (tmp_path / "a.part.json").write_text(text)
    get(server, tmp_path / "a", known)
    assert (tmp_path / "a").read_bytes() == content and server.requests[-1].begin is None


def test_a_server_without_ranges_starts_over(
    server: Server, known: Wanted, content: bytes, tmp_path: Path
) -> None:
    server.ranges, server.cuts = False, [1000, 500_000]
    get(server, tmp_path / "a", known)
    assert (tmp_path / "a").read_bytes() == content
    assert [request.begin for request in server.requests] == [None, 1000, 500_000]


@pytest.mark.parametrize("shift", [-7, 7])
def test_a_wrong_range_is_not_taken(
    shift: int, server: Server, known: Wanted, content: bytes, tmp_path: Path
) -> None:
    def wrong(handler: Handler, request: Request) -> None:
        begin = (request.begin or 0) + shift
        size = len(content)
        handler.reply(206, content[begin:], Content_Range=f"bytes {begin}-{size - 1}/{size}")

    server.scripts = [lambda handler, request: cut_after(handler, content, 1000), wrong]
    get(server, tmp_path / "a", Wanted())
    assert (tmp_path / "a").read_bytes() == content
    assert [request.begin for request in server.requests] == [None, 1000, None]


def cut_after(handler: Handler, content: bytes, count: int, tag: str = '"1"') -> None:
    handler.reply(200, content[:count], Content_Length=str(len(content)), ETag=tag)
    handler.cut()


@pytest.mark.parametrize("header", ["", "bytes */5", "bytes 0-4/5", "nonsense", "bytes 1000-"])
def test_parts_that_were_not_asked_for(
    header: str, server: Server, known: Wanted, tmp_path: Path
) -> None:
    wrong = lambda handler, request: handler.reply(206, b"12345", Content_Range=header)  # noqa: E731
    server.scripts = [wrong] * 3
    with pytest.raises(RefusedError, match="another part than was asked for; tried 3 times"):
        get(server, tmp_path / "a", known)
    assert names(tmp_path) == []


def test_a_changed_file_starts_over(server: Server, content: bytes, tmp_path: Path) -> None:
    """The tag differs, so that the condition fails and the whole comes."""
    server.files["/file"] = content[::-1]
    server.cuts = [400_000]
    with pytest.raises(KeyboardInterrupt):
        get(server, tmp_path / "a", progress=stop_after(300_000))
    server.cuts, server.files["/file"] = [], content
    get(server, tmp_path / "a")
    assert server.requests[-1].headers["if-range"] and (tmp_path / "a").read_bytes() == content


@pytest.mark.parametrize("hash_is_known", [True, False])
def test_a_changed_tag_behind_a_server_that_ignores_the_condition(
    hash_is_known: bool, server: Server, known: Wanted, content: bytes, tmp_path: Path
) -> None:
    other = content[::-1]

    def rest(handler: Handler, request: Request) -> None:
        begin, size = request.begin or 0, len(content)
        where = f"bytes {begin}-{size - 1}/{size}"
        handler.reply(206, content[begin:], Content_Range=where, ETag='"2"')

    server.scripts = [lambda handler, request: cut_after(handler, other, 1000), rest]
    get(server, tmp_path / "a", known if hash_is_known else Wanted())
    assert (tmp_path / "a").read_bytes() == content


def test_parts_of_two_files_without_a_tag_are_found_by_the_hash(
    server: Server, known: Wanted, content: bytes, tmp_path: Path
) -> None:
    server.etags["/file"] = "none"
    server.scripts = [lambda handler, request: cut_after(handler, content[::-1], 1000, "W/1")]
    get(server, tmp_path / "a", known)
    assert (tmp_path / "a").read_bytes() == content
    assert [request.begin for request in server.requests] == [None, 1000, None]


def test_without_tag_and_hash_nothing_is_gone_on_with(
    server: Server, known: Wanted, content: bytes, tmp_path: Path
) -> None:
    server.etags["/file"], server.cuts = "none", [1000]
    get(server, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == content
    assert [request.begin for request in server.requests] == [None, None]


def test_the_time_of_change_serves_as_a_tag(server: Server, content: bytes, tmp_path: Path) -> None:
    date = http_date(1e9)

    def begin(handler: Handler, request: Request) -> None:
        size = str(len(content))
        handler.reply(200, content[:1000], Content_Length=size, Last_Modified=date)
        handler.cut()

    def rest(handler: Handler, request: Request) -> None:
        assert request.headers["if-range"] == date and request.begin == 1000
        where = f"bytes 1000-{len(content) - 1}/{len(content)}"
        handler.reply(206, content[1000:], Content_Range=where, Last_Modified=date)

    server.scripts = [begin, rest]
    get(server, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == content


def test_a_wrong_hash(server: Server, known: Wanted, tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match=f"SHA-256 is {known.sha256}, but 00000"):
        get(server, tmp_path / "a", replace(known, sha256="0" * 64))
    assert names(tmp_path) == [] and len(server.requests) == 1


def test_a_wrong_hash_after_cuts_is_tried_once_more(
    server: Server, known: Wanted, tmp_path: Path
) -> None:
    server.cuts = [1000]
    with pytest.raises(RefusedError, match="SHA-256"):
        get(server, tmp_path / "a", replace(known, sha256="0" * 64))
    assert names(tmp_path) == [] and len(server.requests) == 3


def test_the_hash_that_a_hub_states_is_checked(
    server: Server, known: Wanted, content: bytes, tmp_path: Path
) -> None:
    for stated in (known.sha256, "0" * 64):
        server.scripts = [redirect("/file", X_Linked_Etag=f'"{stated}"')]
        if stated == known.sha256:
            get(server, tmp_path / "a", path="/first")
            continue
        with pytest.raises(RefusedError, match="SHA-256"):
            get(server, tmp_path / "b", path="/first")
    assert names(tmp_path) == ["a"]


def test_a_wrong_size_costs_nothing(server: Server, known: Wanted, tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="has 1500000 bytes, but 5 were expected"):
        get(server, tmp_path / "a", replace(known, size=5))
    assert names(tmp_path) == []


def test_a_part_is_not_given_up_for_a_page(
    server: Server, known: Wanted, content: bytes, tmp_path: Path
) -> None:
    server.cuts = [900_000]
    server.scripts = []
    with pytest.raises(KeyboardInterrupt):
        get(server, tmp_path / "a", known, progress=stop_after(800_000))
    server.scripts = [page("log in to the network of this hotel")]
    with pytest.raises(RefusedError, match="web page instead of the file"):
        get(server, tmp_path / "a", known)
    get(server, tmp_path / "a", known)
    assert (server.requests[-1].begin or 0) >= 800_000
    assert (tmp_path / "a").read_bytes() == content


@pytest.mark.parametrize("body", [b"<!DOCTYPE html>", b"\n <HTML>", b"\xef\xbb\xbf<?xml"])
def test_pages_are_not_files(body: bytes, server: Server, tmp_path: Path) -> None:
    server.files["/file"] = body + b"x" * 100
    with pytest.raises(RefusedError, match="web page instead of the file"):
        get(server, tmp_path / "a")
    assert names(tmp_path) == []


def test_lengths_that_are_not_told(server: Server, known: Wanted, tmp_path: Path) -> None:
    def endless(handler: Handler, request: Request) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + b"x" * 1000)
        handler.cut()

    server.scripts = [endless]
    with pytest.raises(RefusedError, match="does not say how long"):
        get(server, tmp_path / "a")
    server.scripts = [endless]  # with a known size, a cut is seen
    get(server, tmp_path / "a", known)
    assert (tmp_path / "a").stat().st_size == known.size


def test_too_many_bytes(server: Server, tmp_path: Path) -> None:
    def chunked(handler: Handler, request: Request) -> None:
        handler.reply(
            200, b"5\r\n12345\r\n0\r\n\r\n", Transfer_Encoding="chunked", Content_Length="4"
        )

    server.scripts = [chunked] * 3
    with pytest.raises(RefusedError):
        get(server, tmp_path / "a", Wanted(4))
    assert names(tmp_path) == []


def test_an_encoding_that_was_not_asked_for(server: Server, tmp_path: Path) -> None:
    server.scripts = [lambda h, request: h.reply(200, b"123", Content_Encoding="gzip")]
    with pytest.raises(RefusedError, match="encoding"):
        get(server, tmp_path / "a")


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_trouble_of_the_server_is_waited_for(
    status: int, server: Server, known: Wanted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    clock = SimpleNamespace(sleep=slept.append, time=lambda: 0.0)
    monkeypatch.setattr("ttt3r.weights.fetching.download.time", clock)
    waits = ["", "7", http_date(3.0)]
    server.scripts = [
        lambda handler, request, wait=wait: handler.reply(status, b"<html>", Retry_After=wait)
        for wait in waits
    ]
    patience = replace(HASTE, tries=4, pause=1.0, longest_pause=5.0)
    get(server, tmp_path / "a", known, patience)
    for slept_for, least, most in zip(slept, (0.8, 4.0, 2.4), (1.0, 5.0, 3.0), strict=True):
        assert least <= slept_for <= most
    server.scripts = [lambda handler, request: handler.reply(status, b"")] * 9
    with pytest.raises(RefusedError, match=f"status {status}; tried 4 times"):
        get(server, tmp_path / "b", known, patience)
    assert slept[-1] > slept[-2] > slept[-3], "pauses grow"


@pytest.mark.parametrize("status", [400, 404, 410, 418])
def test_other_refusals_are_final(status: int, server: Server, tmp_path: Path) -> None:
    server.scripts = [lambda handler, request: handler.reply(status, b"no")]
    with pytest.raises(RefusedError, match=f"status {status}"):
        get(server, tmp_path / "a")
    assert len(server.requests) == 1 and names(tmp_path) == []


def test_a_part_that_is_whole_is_only_checked(
    server: Server, known: Wanted, content: bytes, tmp_path: Path
) -> None:
    for name, end in (("a", 0), ("b", 1)):
        whole = content[: len(content) - end] + b"!" * end
        (tmp_path / f"{name}.part").write_bytes(whole)
        note = '{"place": "elsewhere", "validator": null, "total": null, "synced": 0}'
        (tmp_path / f"{name}.part.json").write_text(note)
    get(server, tmp_path / "a", known)
    assert server.requests == []
    get(server, tmp_path / "b", known)  # not what it should be, so it starts over
    assert (tmp_path / "b").read_bytes() == content and server.requests[0].begin is None


def test_nothing_left_to_send(
    server: Server, content: bytes, known: Wanted, tmp_path: Path
) -> None:
    """The server says that the part is as long as the file."""
    tag = f'\\"{hashlib.md5(content).hexdigest()}\\"'
    for name, extra in (("a", b""), ("b", b"more")):
        (tmp_path / f"{name}.part").write_bytes(content + extra)
        note = f'{{"place": "{server.url()}", "validator": "{tag}", "total": null, "synced": '
        (tmp_path / f"{name}.part.json").write_text(f"{note}{len(content + extra)}}}")
        get(server, tmp_path / name)
        assert (tmp_path / name).read_bytes() == content


# Slow and silent servers, redirects -----------------------------------------------------------


@pytest.mark.parametrize("script", [trickle, trickled_headers, silent], ids=lambda f: f.__name__)
def test_slow_servers_are_given_up(script, server: Server, known: Wanted, tmp_path: Path) -> None:
    server.scripts = [script] * 2
    patience = replace(HASTE, silence=0.4, window=0.3, least=10_000, tries=2)
    with pytest.raises(RefusedError, match=r"bytes came in|does not answer|no byte came|broke"):
        get(server, tmp_path / "a", Wanted(), patience)
    assert not (tmp_path / "a").exists()
    get(server, tmp_path / "a", known)


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        place = Place(f"http://127.0.0.1:{taken.getsockname()[1]}/file")
        with pytest.raises(RefusedError, match=r"127\.0\.0\.1 cannot be reached.*tried 3 times"):
            download(place, Wanted(), tmp_path / "a", lambda *_: None, HASTE)


def test_redirects_in_circles(server: Server, tmp_path: Path) -> None:
    server.before = lambda handler, request: handler.reply(302, Location="/file") or True
    with pytest.raises(RefusedError, match="redirects in circles"):
        get(server, tmp_path / "a")

    def further(handler: Handler, request: Request) -> bool:
        handler.reply(302, Location=f"{request.path}x")
        return True

    server.before = further
    with pytest.raises(RefusedError, match="redirects in circles"):
        get(server, tmp_path / "a")
    assert len(server.requests) < 20


@pytest.mark.parametrize("target", ["http://example.com/file", "ftp://127.0.0.1/x", "file:///etc"])
def test_redirects_to_what_is_not_safe(target: str, server: Server, tmp_path: Path) -> None:
    server.scripts = [redirect(target)]
    with pytest.raises(RefusedError, match="which is not https"):
        get(server, tmp_path / "a")


def test_redirects_are_followed(
    server: Server, known: Wanted, content: bytes, tmp_path: Path
) -> None:
    with serving(Server(files={"/there": content})) as other:
        server.scripts = [redirect("/second"), redirect(other.url("/there"))]
        get(server, tmp_path / "a", known)
    assert (tmp_path / "a").read_bytes() == content


def test_proxies_are_used(
    server: Server, known: Wanted, content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.files["http://weights.example/file"] = content
    monkeypatch.setenv("http_proxy", server.address)
    place = Place("http://weights.example/file")
    download(place, known, tmp_path / "a", lambda *_: None, HASTE)
    assert server.requests[-1].path == "http://weights.example/file"
    assert (tmp_path / "a").read_bytes() == content


# Disks ----------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path):
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True).returncode == 0
    except OSError:
        done = False
    if not done:
        pytest.skip("this machine does not let the test mount a small disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_is_too_small(server: Server, known: Wanted, small_disk: Path) -> None:
    with pytest.raises(WeightsError, match=r"has 1\.0 MB free, but a needs 1\.5 MB more"):
        get(server, small_disk / "a", known)
    assert names(small_disk) == []


def test_a_disk_that_fills_up(
    server: Server, known: Wanted, content: bytes, small_disk: Path, monkeypatch
) -> None:
    free = SimpleNamespace(free=10**12)
    monkeypatch.setattr("ttt3r.weights.fetching.download.shutil.disk_usage", lambda _: free)
    with pytest.raises(WeightsError, match=r"the disk is full.*Free some space.*goes on"):
        get(server, small_disk / "a", known)
    assert "a" not in names(small_disk) and "a.part" in names(small_disk)
    size = (small_disk / "a.part").stat().st_size
    subprocess.run(["mount", "-o", "remount,size=8m", str(small_disk)], check=True)
    get(server, small_disk / "a", known)
    assert (small_disk / "a").read_bytes() == content
    assert 0 < (server.requests[-1].begin or 0) <= size


def test_a_disk_that_is_full_at_the_last_moment(
    server: Server, known: Wanted, content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(parts.os, "fsync", full)
        with pytest.raises(WeightsError, match="the disk is full"):
            get(server, tmp_path / "a", known)
    assert not (tmp_path / "a").exists()
    get(server, tmp_path / "a", known)
    assert (tmp_path / "a").read_bytes() == content


def test_a_folder_that_is_not_there(server: Server, known: Wanted, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"cannot write .*Check the folder"):
        get(server, tmp_path / "none" / "a", known)
