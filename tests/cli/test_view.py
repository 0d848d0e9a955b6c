"""`ttt3r view` and `ttt3r run --view`: what they print and serve, and what they refuse."""

import urllib.request
from pathlib import Path

import pytest

from tests.cli.conftest import TINY, Ttt3r
from tests.viewer.test_scene import read_records
from ttt3r.alignment.measuring import scale_by
from ttt3r.cli import viewing
from ttt3r.cli.view import ViewCommand
from ttt3r.types import Prediction
from ttt3r.viewer.live import LiveViewer
from ttt3r.viewer.server import Server


def heads(url: str) -> list[dict]:
    """What the page at an address is given."""
    with urllib.request.urlopen(f"{url}changes?after=0", timeout=30) as answer:
        return [head for head, _ in read_records(answer.read())]


@pytest.fixture
def urls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Addresses of the viewers that were opened."""
    found: list[str] = []
    start = Server.__init__

    def init(self: Server, *words: object) -> None:
        start(self, *words)
        found.append(self.url)

    monkeypatch.setattr(Server, "__init__", init)
    return found


def test_view(finished: Path, ttt3r: Ttt3r, urls: list[str], monkeypatch: pytest.MonkeyPatch):
    seen: list[dict] = []

    def look(seconds: float) -> None:
        seen.extend(heads(urls[0]))
        raise KeyboardInterrupt

    monkeypatch.setattr(viewing, "pause", look)
    result = ttt3r("view", finished, "--port", 0)
    assert (result.status, result.err) == (0, "")
    assert result.out == f"look at it here: {urls[0]}\n"
    meta, *nodes = seen
    assert meta["facts"]["frames"] == 12 and meta["facts"]["title"] == "finished"
    assert "not trained" in meta["facts"]["warning"]
    assert {"path/0", "image/0", "points/0"} <= {node["name"] for node in nodes}


def test_a_view_follows_a_run_that_is_moved(
    finished: Path, ttt3r: Ttt3r, monkeypatch: pytest.MonkeyPatch
):
    shown: list[tuple[int, float]] = []
    show = LiveViewer.show_now

    def watch(self: LiveViewer, prediction: Prediction) -> None:
        shown.append((prediction.index, prediction.scale))
        show(self, prediction)

    def scale(seconds: float) -> None:
        if len(shown) > 12:
            raise KeyboardInterrupt
        scale_by(finished, 2.0)

    monkeypatch.setattr(LiveViewer, "show_now", watch)
    monkeypatch.setattr(viewing, "pause", scale)
    assert ttt3r("view", finished, "--port", 0).status == 0
    assert [index for index, _ in shown] == [*range(12), *range(12)]
    first, second = shown[:12], shown[12:]
    for (_, before), (_, after) in zip(first, second, strict=True):
        assert after == pytest.approx(2 * before)


def test_of_a_long_run_some_frames_are_read_whole(
    finished: Path, ttt3r: Ttt3r, monkeypatch: pytest.MonkeyPatch
):
    whole: list[int] = []
    show = LiveViewer.show_now

    def watch(self: LiveViewer, prediction: object) -> None:
        if getattr(prediction, "points", None) is not None:
            whole.append(getattr(prediction, "index", -1))
        show(self, prediction)  # type: ignore[arg-type]

    def stop(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(LiveViewer, "show_now", watch)
    monkeypatch.setattr(viewing, "MOST_FRAMES", 3)
    monkeypatch.setattr(viewing, "pause", stop)
    assert ttt3r("view", finished, "--port", 0).status == 0
    assert whole == [0, 4, 8]


def test_run_with_a_view(
    clip: Path, ttt3r: Ttt3r, urls: list[str], monkeypatch: pytest.MonkeyPatch
):
    """Afterwards the page stays, and follows the run where it is moved."""
    looks: list[list[dict]] = []

    def look(seconds: float) -> None:
        looks.append(heads(urls[0]))
        if len(looks) == 2:
            raise KeyboardInterrupt
        scale_by(Path("a"), 2.0)

    monkeypatch.setattr(viewing, "pause", look)
    result = ttt3r("run", clip, *TINY, "--out", "a", "--view", "--port", 0)
    assert result.status == 0 and f"look at it here: {urls[0]}" in result.out
    assert "the page stays until Ctrl-C" in result.out
    facts = [look[0]["facts"] for look in looks]
    assert facts[0]["status"] == "complete" and facts[0]["frames"] > 0
    assert [said["scale"] for said in facts] == [1, 2] and facts[1]["started"] == 1


@pytest.mark.parametrize(("host", "savable"), [("127.0.0.1", True), ("0.0.0.0", False)])
def test_a_scale_is_saved_on_this_machine_only(finished: Path, host: str, savable: bool):
    with viewing.opened(finished, ViewCommand(finished, host, 0)) as viewer:
        port, _, token = viewer.url.rpartition(":")[2].partition("/")
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/{token}", timeout=30) as answer:
            assert f'"savable": {str(savable).lower()}' in answer.read().decode()


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--outputs", "points"), "add pose to --outputs"),
        (("--token", "short"), "at least 8 characters"),
        (("--host", "192.0.2.1"), "cannot listen on 192.0.2.1"),
    ],
    ids=str,
)
def test_refused_before_anything_is_written(
    clip: Path, ttt3r: Ttt3r, words: tuple[str, ...], reason: str
):
    result = ttt3r("run", clip, *TINY, "--out", "a", "--view", *words)
    assert result.status == 2 and reason in result.err and not Path("a").exists()


def test_no_run(ttt3r: Ttt3r, tmp_path: Path):
    result = ttt3r("view", tmp_path)
    assert result.status == 2 and "is not a run" in result.err
