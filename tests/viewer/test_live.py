"""The live viewer without a browser: its slot, its server, and who may look."""

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.processes import wait_until
from tests.viewer.room import walk
from tests.viewer.test_scene import read_records
from ttt3r.errors import RunError, SettingError
from ttt3r.runs.facts import Facts
from ttt3r.types import Prediction
from ttt3r.viewer import live
from ttt3r.viewer.live import LiveViewer, Slot
from ttt3r.viewer.server import Address


def get(url: str, sent: bytes | None = None, **headers: str) -> tuple[int, bytes]:
    request = urllib.request.Request(url, sent, headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def read(index: int) -> Prediction:
    if index != 3:
        raise RunError("there is no such frame")
    return replace(next(walk(1)), index=3)


@pytest.fixture
def viewer(monkeypatch: pytest.MonkeyPatch) -> Iterator[LiveViewer]:
    monkeypatch.setattr(live, "PATIENCE", 0.05)
    with LiveViewer(Facts("walk", unit="m"), Address(port=0), read) as viewer:
        yield viewer


def wait_for_frames(viewer: LiveViewer, frames: int) -> None:
    wait_until(lambda: viewer.scene.frames >= frames)


def test_the_slot_keeps_the_newest():
    slot = Slot()
    first, second, third = walk(3)
    for prediction in (first, second, third):
        slot.put(prediction)
    assert slot.take() is third and slot.dropped == 2
    slot.put(first)
    slot.close()
    assert slot.take() is first and slot.take() is None


def test_showing_never_waits(viewer: LiveViewer):
    """Somebody holds the scene, as a slow machine would; frames still go by."""
    predictions = list(walk(50))
    with viewer._lock:
        began = threading.active_count()
        for prediction in predictions:
            viewer.show(prediction)
        assert threading.active_count() == began and viewer.scene.frames == 0
    wait_for_frames(viewer, 50)
    assert viewer._slot.dropped >= 48


def test_a_frame_that_cannot_be_shown_does_not_end_it(
    viewer: LiveViewer, caplog: pytest.LogCaptureFixture
):
    good = next(walk(1))
    for index in range(3):
        viewer.show(replace(good, index=index, world_from_camera=None))
        time.sleep(0.05)
    viewer.show(replace(good, index=5))
    wait_for_frames(viewer, 6)
    assert len(caplog.records) == 1 and "cannot show frame" in caplog.text


def test_changes(viewer: LiveViewer):
    for prediction in walk(4):
        viewer.show_now(prediction)
    status, content = get(f"{viewer.url}changes?after=0")
    (meta, _), *nodes = read_records(content)
    assert status == 200 and meta["kind"] == "meta" and meta["facts"]["frames"] == 4
    assert {head["name"] for head, _ in nodes} == set(viewer.scene.nodes())
    (meta, _), *nodes = read_records(get(f"{viewer.url}changes?after={meta['version']}")[1])
    assert not nodes
    viewer.tell(Facts("walk", status="complete"))
    (meta, _), *nodes = read_records(get(f"{viewer.url}changes?after={meta['version']}")[1])
    assert not nodes and meta["facts"]["status"] == "complete"
    later = get(f"{viewer.url}changes?after=999999")[1]  # a page of a program before this one
    assert len(read_records(later)) == 1 + len(viewer.scene.nodes())


def test_a_run_that_was_moved_begins_anew(viewer: LiveViewer):
    for prediction in walk(4):
        viewer.show_now(prediction)
    (meta, _), *_ = read_records(get(f"{viewer.url}changes?after=0")[1])
    version = meta["version"]
    assert meta["facts"]["started"] == 0
    viewer.begin_anew()
    viewer.show_now(next(walk(1)))
    (meta, _), *nodes = read_records(get(f"{viewer.url}changes?after={version}")[1])
    assert meta["facts"]["started"] == 1 and meta["facts"]["frames"] == 1
    assert {head["name"] for head, _ in nodes} == set(viewer.scene.nodes())
    assert b'"started": 1' in get(viewer.url)[1]


def test_large_changes_come_in_parts(viewer: LiveViewer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(live, "MOST_BYTES", 10_000)
    for prediction in walk(6):
        viewer.show_now(prediction)
    seen, version = set(), 0
    for _ in range(20):
        (meta, _), *nodes = read_records(get(f"{viewer.url}changes?after={version}")[1])
        assert sum(len(body) for _, body in nodes) < 60_000
        seen |= {head["name"] for head, _ in nodes}
        version = meta["version"]
    assert seen == set(viewer.scene.nodes())


def test_details(viewer: LiveViewer):
    newest = list(walk(2))[1]
    viewer.show_now(newest)
    for index in (1, 3):
        status, content = get(f"{viewer.url}frame?index={index}")
        said = json.loads(content)
        assert status == 200 and said["index"] == index
        assert said["image"].startswith("data:image/jpeg;base64,")
        assert ("gate" in said) == (index == 1)
    assert get(f"{viewer.url}frame?index=7")[0] == 404
    assert get(f"{viewer.url}frame?index=x")[0] == 400
    assert get(f"{viewer.url}else")[0] == 404


def scaled(metres: float, length: float) -> str:
    if metres <= 0:
        raise SettingError("a distance must be above 0")
    return f"times {metres / length}"


def test_only_its_own_page_saves_a_scale():
    good, kind = {"metres": 3, "length": 1.5}, {"Content-Type": "application/json"}
    with LiveViewer(Facts(), Address(port=0, token="quite-long"), scale=scaled) as viewer:
        place, _, token = viewer.url.rpartition("/")
        own = {"Origin": place}
        for sent, headers, path, expected in (
            (good, kind, f"/scale{token}", (200, b"times 2.0")),
            (good, kind | own, f"/scale{token}", (200, b"times 2.0")),
            (good, kind | {"Origin": "http://evil.example"}, f"/scale{token}", (403, b"only the")),
            (good, kind | {"Origin": "null"}, f"/scale{token}", (403, b"only the page")),
            (good, kind | {"Host": "evil.example"}, f"/scale{token}", (403, b"another host")),
            (good, {"Content-Type": "text/plain"}, f"/scale{token}", (415, b"must be JSON")),
            (good, kind, "/scale", (403, b"needs the token")),
            (good, kind, f"/frame{token}", (404, b"nothing here")),
            (good | {"metres": -1}, kind, f"/scale{token}", (409, b"must be above 0")),
            (good | {"metres": "x"}, kind, f"/scale{token}", (400, b"must be numbers")),
            ({"metres": 1}, kind, f"/scale{token}", (400, b"must be numbers")),
            ([1], kind, f"/scale{token}", (400, b"must be numbers")),
            ({"metres": "0" * 1000}, kind, f"/scale{token}", (413, b"at most 1000 bytes")),
        ):
            status, content = get(place + path, json.dumps(sent).encode(), **headers)
            assert status == expected[0] and expected[1] in content, (sent, headers, path, content)
        assert b'"savable": true' in get(viewer.url)[1]
    with LiveViewer(Facts(), Address(port=0)) as viewer:
        status, content = get(f"{viewer.url}scale", json.dumps(good).encode(), **kind)
        assert status == 403 and b"only look" in content
        assert b'"savable": false' in get(viewer.url)[1]


def test_names_of_other_hosts_are_refused(viewer: LiveViewer):
    assert viewer.url.startswith("http://127.0.0.1:")
    assert get(viewer.url)[0] == 200 == get(viewer.url, Host="localhost:1")[0]
    assert get(viewer.url, Host="evil.example")[0] == 403


@pytest.mark.parametrize("token", ["chosen-by-hand", None])
def test_other_hosts_need_a_token(token: str | None):
    with LiveViewer(Facts(), Address("0.0.0.0", 0, token)) as viewer:
        place, _, given = viewer.url.partition("?token=")
        assert given == token or (token is None and len(given) >= 16)
        port = place.rstrip("/").rpartition(":")[2]
        here = f"http://127.0.0.1:{port}"
        for path in ("/", "/changes?after=0", "/frame?index=0", "/?token=wrong"):
            status, content = get(here + path)
            assert status == 403 and b"<html" not in content
        assert get(f"{here}/?token={given}")[0] == 200
        assert get(f"{here}/changes?after=-1&token={given}")[0] == 200


def test_addresses_that_cannot_be_used():
    for settings, reason in (
        ({"port": -1}, "--port"),
        ({"token": "short"}, "--token"),
    ):
        with pytest.raises(SettingError, match=reason):
            Address(**settings)
    with LiveViewer(Facts(), Address(port=0)) as viewer:
        port = int(viewer.url.rstrip("/").rpartition(":")[2])
        with pytest.raises(SettingError, match=f"cannot listen on 127.0.0.1 port {port}"):
            LiveViewer(Facts(), Address(port=port))
    with pytest.raises(SettingError, match=r"cannot listen on 192\.0\.2\.1"):
        LiveViewer(Facts(), Address("192.0.2.1", 0))
    for host, local in (
        ("localhost", True),
        ("127.0.0.2", True),
        ("::1", True),
        ("0.0.0.0", False),
    ):
        assert Address(host).is_local == local
