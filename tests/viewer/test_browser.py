"""The page in a real browser: what is drawn, what its controls do, and what it asks for."""

import contextlib
import io
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.exporters.test_exporters import make_run
from tests.processes import PATIENCE
from tests.viewer.room import walk
from ttt3r.cli import viewing
from ttt3r.cli.view import ViewCommand
from ttt3r.exporters import export
from ttt3r.runs.facts import Facts
from ttt3r.runs.folder import RunFolder
from ttt3r.runs.placement import PLACEMENT
from ttt3r.runs.reader import Run
from ttt3r.viewer.live import LiveViewer
from ttt3r.viewer.server import Address

pytestmark = pytest.mark.browser
CHROMIUM = Path(os.environ.get("TTT3R_CHROMIUM", "/usr/bin/chromium"))
ARGUMENTS = [
    "--no-sandbox",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
]
FRAMES = 24
RED, BLUE = (214, 69, 65), (38, 128, 182)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM.exists():
        pytest.skip(f"there is no {CHROMIUM}; apt-get install chromium")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


class Tab:
    """A page with all that it asked for, and all that went wrong in it."""

    def __init__(self, browser: Any, url: str) -> None:
        self.errors: list[str] = []
        self.requests: list[str] = []
        self.page = browser.new_page(viewport={"width": 720, "height": 480})
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda text: self._heard(text))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(url)
        self.until("window.ttt3r && ttt3r.ready")

    def until(self, truth: str) -> None:
        """Wait for something; the page's own policy forbids playwright's way to poll it."""
        deadline = time.monotonic() + PATIENCE
        while not self.page.evaluate(f"Boolean({truth})"):
            assert time.monotonic() < deadline, truth
            self.page.wait_for_timeout(30)

    def _heard(self, text: Any) -> None:
        if text.type == "error":
            self.errors.append(text.text)

    def settled(self) -> None:
        self.page.wait_for_timeout(20)
        self.until("!ttt3r.dirty")
        self.page.wait_for_timeout(20)

    def pixels(self) -> np.ndarray:
        self.settled()
        shot = self.page.locator("#view").screenshot()
        return np.asarray(Image.open(io.BytesIO(shot)).convert("RGB")).astype(int)

    def drawn(self) -> float:
        """Share of the view that is not background."""
        pixels = self.pixels()
        return float((np.abs(pixels - pixels[0, 0]).max(axis=2) > 24).mean())

    def set(self, control: str, value: float | str | bool) -> None:
        if isinstance(value, bool):
            self.page.locator(f"#{control}").set_checked(value)
        else:
            script = "([id, value]) => { const e = document.getElementById(id); e.value = value;"
            self.page.evaluate(script + " e.dispatchEvent(new Event('input')) }", [control, value])


@pytest.fixture(scope="module")
def offline(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    folder = tmp_path_factory.mktemp("page")
    run = make_run(folder / "run", list(walk(FRAMES, 96, 72, segment=12)))
    tab = Tab(browser, export(run, "html", folder / "a.html").path.as_uri())
    yield tab
    tab.page.close()


def like(pixels: np.ndarray, colour: tuple[int, int, int]) -> float:
    return float((np.abs(pixels - colour).max(axis=2) < 30).mean())


def test_the_page_shows_the_room(offline: Tab):
    pixels = offline.pixels()
    assert offline.drawn() > 0.2
    assert like(pixels, RED) > 0.001 and like(pixels, BLUE) > 0.001
    assert offline.page.locator("#image").evaluate("e => e.naturalWidth") == 96
    assert offline.page.locator("#moment").text_content() == "frame 23 of 24, 2.30 s"


def test_controls(offline: Tab):
    whole = offline.drawn()
    offline.set("time", 0)
    assert 0 < offline.drawn() < 0.8 * whole
    assert "frame 0 " in offline.page.locator("#caption").text_content() + " "
    offline.set("all", True)
    assert offline.drawn() > 0.95 * whole
    offline.set("all", False)
    offline.set("time", FRAMES - 1)
    for control, value, usual in (("least", 0.9, 0), ("share", 0.02, 1)):
        offline.set(control, value)
        assert offline.drawn() < 0.9 * whole, control
        offline.set(control, usual)
    before = offline.pixels()
    offline.set("size", 4)
    assert (offline.pixels() != before).mean() > 0.05
    offline.set("size", 1)
    for colour in ("1", "2", "3"):
        offline.set("colour", colour)
        assert (np.abs(offline.pixels() - before).max(axis=2) > 40).mean() > 0.1, colour
    offline.set("colour", "0")
    for control in ("path", "frusta", "thumbs", "through", "dark"):
        offline.set(control, False)
        assert (offline.pixels() != before).any(), control
        offline.set(control, True)
    assert np.abs(offline.pixels() - before).mean() < 1


def test_follow_turn_and_come_back(offline: Tab):
    before = offline.pixels()
    offline.set("follow", True)
    followed = offline.pixels()
    assert np.abs(followed - before).mean() > 5
    # The view is that of the input image; its lower middle is the red block.
    height, width = followed.shape[:2]
    middle = followed[height // 3 :, width // 6 : 2 * width // 3]
    assert like(middle, RED) + like(middle, (171, 55, 52)) > 0
    box = offline.page.locator("#view").bounding_box()
    offline.page.mouse.move(box["x"] + 200, box["y"] + 200)
    offline.page.mouse.down()
    offline.page.mouse.move(box["x"] + 300, box["y"] + 240, steps=3)
    offline.page.mouse.up()
    offline.page.mouse.wheel(0, 240)
    assert not offline.page.locator("#follow").is_checked()
    assert np.abs(offline.pixels() - followed).mean() > 2
    offline.page.locator("#reset").click()
    assert np.abs(offline.pixels() - before).mean() < 1


def click(tab: Tab, x: float, y: float) -> np.ndarray:
    """Click into the view; returns the points that are measured between."""
    box = tab.page.locator("#view").bounding_box()
    tab.page.mouse.click(box["x"] + x, box["y"] + y)
    return np.array(tab.page.evaluate("measuring.ends"))


def test_measure(offline: Tab):
    """What is clicked is a point of the room, and under the mouse; the text is their distance."""
    offline.page.locator("#measure").click()
    assert offline.page.locator("#measured").text_content() == "click the first point"
    places = (200.0, 240.0), (380.0, 300.0)
    assert len(click(offline, *places[0])) == 1
    ends = click(offline, *places[1])
    length = float(np.linalg.norm(ends[0] - ends[1]))
    said = offline.page.locator("#measured").text_content()
    number, unit = said.split()
    assert unit == "units" and float(number) == pytest.approx(length, rel=1e-3) and length > 0.2
    clouds = []
    for p in walk(FRAMES, 96, 72, segment=12):
        assert p.points is not None and p.world_from_camera is not None
        pose = p.world_from_camera.numpy()
        clouds.append(p.points.reshape(-1, 3).numpy() @ pose[:3, :3].T + pose[:3, 3])
    cloud = np.concatenate(clouds)
    for end, place in zip(ends, places, strict=True):
        # float16 of some metres in the frame files, and 16 bits of a node's extent
        assert np.linalg.norm(cloud - end, axis=1).min() < 0.02
        seen = offline.page.evaluate(
            "p => { const { matrix: m } = projection(viewpoint());"
            " const q = [0, 1, 3].map(r => m[r]*p[0] + m[r+4]*p[1] + m[r+8]*p[2] + m[r+12]);"
            " return [(q[0]/q[2] + 1)/2*canvas.clientWidth,"
            " (1 - q[1]/q[2])/2*canvas.clientHeight] }",
            end.tolist(),
        )
        assert np.hypot(seen[0] - place[0], seen[1] - place[1]) <= 8.1
    yellow = np.array([255, 217, 26])
    assert like(offline.pixels(), tuple(yellow)) > 1e-4
    assert not offline.page.locator("#scale-command").is_visible()  # of a page that was sent
    assert len(click(offline, *places[0])) == 1  # begins anew
    offline.page.locator("#measure").click()
    assert offline.page.evaluate("measuring.ends.length") == 0
    assert not offline.page.locator("#measured").is_visible()


def test_measure_live(browser: Any):
    """The page of a run says how to scale it, and loads anew once it was."""
    facts = Facts("walk", unit="m", scale=2.0)
    with LiveViewer(facts, Address("127.0.0.1", 0)) as viewer:
        for prediction in walk(4, 96, 72):
            viewer.show_now(prediction)
        tab = Tab(browser, viewer.url)
        tab.until("ttt3r.frames === 4")
        tab.set("follow", True)
        tab.page.locator("#measure").click()
        click(tab, 200, 240)
        ends = click(tab, 380, 300)
        tab.set("true-length", 1.5)
        factor = 2 * 1.5 / float(np.linalg.norm(ends[0] - ends[1]))
        words = tab.page.locator("#scale-command").text_content().split()
        assert words[:3] == ["ttt3r", "scale", "RUN"]
        assert float(words[3]) == pytest.approx(factor, rel=1e-4)
        with tab.page.expect_navigation():  # the page loads itself anew
            viewer.begin_anew()
            viewer.show_now(next(walk(1, 96, 72)))
            viewer.tell(replace(facts, aligned=True))
        tab.until("typeof ttt3r !== 'undefined' && ttt3r.ready && ttt3r.frames === 1")
        assert tab.page.evaluate("facts.started") == 1 and tab.page.evaluate("facts.aligned")
        tab.page.close()


def test_the_scale_is_saved(browser: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Once the run is done: then its page loads anew, scaled; before, it says to wait."""
    run = make_run(tmp_path / "run", list(walk(4, 96, 72)))
    ended = threading.Event()

    def pause(seconds: float) -> None:
        if ended.wait(0.05):
            raise KeyboardInterrupt

    def followed(viewer: LiveViewer) -> None:
        with contextlib.suppress(KeyboardInterrupt):
            viewing.follow(run, viewer)

    monkeypatch.setattr(viewing, "pause", pause)
    with viewing.opened(run.folder, ViewCommand(run.folder, port=0)) as viewer:
        thread = threading.Thread(target=followed, args=(viewer,))
        thread.start()
        try:
            tab = Tab(browser, viewer.url)
            tab.until("ttt3r.frames === 4")
            tab.set("follow", True)
            tab.page.locator("#measure").click()
            click(tab, 200, 240)
            assert not tab.page.locator("#save-scale").is_visible()
            ends = click(tab, 380, 300)
            tab.set("true-length", 1.5)
            said = "document.getElementById('scale-said').textContent"
            with RunFolder(run.folder).hold():  # as a program does that writes the run
                tab.page.locator("#save-scale").click()
                tab.until(said)
            assert "still writing the run" in tab.page.evaluate(said)
            assert not (run.folder / PLACEMENT).exists()
            with tab.page.expect_navigation():
                tab.page.locator("#save-scale").click()
            tab.until("typeof ttt3r !== 'undefined' && ttt3r.ready && ttt3r.frames === 4")
            factor = 1.5 / float(np.linalg.norm(ends[0] - ends[1]))
            placement = Run.open(run.folder).placement
            assert placement.scale == pytest.approx(factor, rel=1e-6) and placement.metric
            assert placement.world_text == "measured: 1.5 m between two points of the viewer"
            assert tab.page.evaluate("facts.scale") == pytest.approx(factor, rel=1e-6)
            assert "measured: 1.5 m" in tab.page.locator("#facts").text_content()
            tab.page.close()
        finally:
            ended.set()
            thread.join()


def test_play_and_screenshot(offline: Tab):
    offline.page.locator("#play").click()
    offline.until("ttt3r.frame > 2")
    offline.page.locator("#play").click()
    with offline.page.expect_download() as coming:
        offline.page.locator("#shot").click()
    assert coming.value.suggested_filename.startswith("run-")
    with Image.open(coming.value.path()) as shot:
        assert (
            shot.format == "PNG"
            and len(np.unique(np.asarray(shot.convert("RGB")).reshape(-1, 3), axis=0)) > 100
        )
    offline.set("time", FRAMES - 1)


def test_the_page_asks_for_nothing_and_has_no_errors(offline: Tab):
    assert offline.errors == []
    first, *others = offline.requests
    assert first.startswith("file://") and all(url.startswith("blob:") for url in others)


def test_live(browser: Any):
    """While frames come: nothing, some, more; then a pause, and an older frame."""
    predictions = list(walk(FRAMES, 96, 72, segment=12))
    address = Address("0.0.0.0", 0)
    with LiveViewer(Facts("walk", unit="m"), address, predictions.__getitem__) as viewer:
        url = "http://127.0.0.1" + viewer.url[viewer.url.rindex(":") :]
        tab = Tab(browser, url)
        tab.until("document.getElementById('message').textContent")
        assert "waiting" in tab.page.locator("#message").text_content()
        shares = [tab.drawn()]
        for end in (6, FRAMES):
            for prediction in predictions[viewer.scene.frames : end]:
                viewer.show(prediction)
                time.sleep(0.02)
            tab.until(f"ttt3r.frames === {end}")
            shares.append(tab.drawn())
        assert shares[0] < 0.02 < shares[1] < shares[2]  # before: a line of text
        for name in ("image", "depth", "confidence", "gate"):
            script = f"document.getElementById('{name}').naturalWidth > 0"
            tab.until(script)
        tab.set("time", 3)
        tab.until("document.getElementById('caption').textContent.endsWith('frame 3')")
        tab.page.locator("#pause").click()
        tab.page.wait_for_timeout(1100)
        version = tab.page.evaluate("ttt3r.version")
        viewer.tell(Facts("walk", status="complete"))
        tab.page.wait_for_timeout(600)
        assert tab.page.evaluate("ttt3r.version") == version
        tab.page.locator("#pause").click()
        tab.until(f"ttt3r.version > {version}")
        assert tab.errors == []
        assert all(
            request.startswith((url.split("?")[0], "blob:", "data:")) for request in tab.requests
        )
        tab.page.close()
