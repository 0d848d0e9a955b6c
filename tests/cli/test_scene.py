"""`ttt3r scene`: the video, the truth about it, and what is refused."""

import errno
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import av
import numpy as np
import pytest
import torch
from PIL import Image

from tests.cli.conftest import TINY, Ttt3r
from tests.processes import started, wait_until
from ttt3r.cli.scene import Style, World, parse_size
from ttt3r.drawing import videos
from ttt3r.errors import SettingError
from ttt3r.geometry.rotation import matrix_from_quaternion
from ttt3r.geometry.se3 import assemble, invert
from ttt3r.scenes import WORLDS, Clip, Scene, recording
from ttt3r.scenes.paths import STYLES
from ttt3r.sources import open_source

SMALL = ("--seed", 7, "--frames", 4, "--size", "64x48")


def made(size: tuple[int, int] = (48, 64), frames: int = 4) -> Clip:
    """What `SMALL` renders."""
    return Scene(7, frames, size).frames(0, frames)


def listing(folder: Path = Path()) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def pictures(folder: Path) -> np.ndarray:
    found = []
    for path in sorted(folder.iterdir()):
        with Image.open(path) as image:
            found.append(np.array(image))
    return np.stack(found)


def test_video(ttt3r: Ttt3r):
    result = ttt3r("scene", *SMALL)
    assert result.status == 0, result.err
    assert result.err.startswith("4 frames, ") and result.out.startswith("4 frames in ")
    assert "wrote scene.mp4: " in result.out and "next: ttt3r run scene.mp4" in result.out
    assert listing() == ["scene.mp4"]
    frames = list(open_source("scene.mp4").frames())
    assert [round(frame.timestamp * 30) for frame in frames] == [0, 1, 2, 3]
    for frame, image in zip(frames, made().image.numpy(), strict=True):
        assert np.abs(frame.image.astype(float) - image).mean() < 8
    with av.open("scene.mp4") as container:
        assert container.streams.video[0].codec_context.name == "h264"
        assert container.streams.video[0].average_rate == 30


def test_what_it_writes_can_be_run(ttt3r: Ttt3r):
    assert ttt3r("scene", *SMALL, "--quiet") == (0, "", "")
    assert ttt3r("run", "scene.mp4", *TINY).status == 0


@pytest.mark.parametrize("name", ["a.mov", "b.mkv", "c.MP4", "new/folder/d.mp4", "x:y.mp4"])
def test_names_of_videos(name: str, ttt3r: Ttt3r):
    assert ttt3r("scene", *SMALL, "--out", name).status == 0
    assert len(list(open_source(name).frames())) == 4


def test_truth(ttt3r: Ttt3r):
    assert ttt3r("scene", *SMALL, "--truth", "new/truth").status == 0
    folder, clip = Path("new/truth"), made()
    assert listing(folder) == [
        *("README.md", "depth", "intrinsics.txt", "motion", "poses.txt", "rgb")
    ]
    assert listing(folder / "depth") == [f"{i:06d}.png" for i in range(4)]
    assert np.array_equal(pictures(folder / "rgb"), clip.image.numpy())
    depth = pictures(folder / "depth")
    assert depth.dtype == np.uint16
    expected = clip.depth.numpy()
    there = (expected > 0) & (expected < 65.5)
    np.testing.assert_allclose(depth[there] / 1000, expected[there], atol=5.1e-4)
    assert not depth[expected == 0].any() and not depth[expected > 65.54].any()
    motion = pictures(folder / "motion")
    assert motion.dtype == np.uint8 and np.array_equal(motion, clip.moving.numpy() * 255)

    (fx, _, cx), (_, fy, cy), _ = clip.intrinsics[0].tolist()
    written = np.loadtxt(folder / "intrinsics.txt")
    np.testing.assert_allclose(written, [fx, fy, cx, cy], atol=1e-4)
    rows = np.loadtxt(folder / "poses.txt")
    assert rows.shape == (4, 8)
    np.testing.assert_allclose(rows[:, 0], np.arange(4) / 30, atol=1e-6)
    np.testing.assert_array_equal(rows[0, 1:], [0, 0, 0, 0, 0, 0, 1])
    x, y, z, w = torch.from_numpy(rows[:, 4:]).unbind(1)
    poses = assemble(
        matrix_from_quaternion(torch.stack((w, x, y, z), 1)), torch.from_numpy(rows[:, 1:4])
    )
    world = clip.world_from_camera.double()
    torch.testing.assert_close(poses, invert(world[:1]) @ world, atol=2e-6, rtol=0)
    readme = (folder / "README.md").read_text("utf-8")
    assert "seed 7" in readme and "64x48" in readme


def test_far_depth_is_none():
    depth = torch.tensor([[0.0, 0.0004, 0.0006, 65.535, 65.5356, 1e4]])
    assert recording.millimetres(depth).tolist() == [[0, 0, 1, 65535, 0, 0]]


def test_choices(ttt3r: Ttt3r):
    """They are written out in the command, because the registries are slow to import."""
    assert get_args(World) == tuple(WORLDS) and get_args(Style) == STYLES
    result = ttt3r("scene", *SMALL, "--world", "outdoor", "--style", "drive")
    assert result.status == 0 and "wrote scene.mp4: outdoor" in result.out


def test_memory_does_not_grow(ttt3r: Ttt3r, monkeypatch: pytest.MonkeyPatch):
    """Frames are rendered one at a time."""
    asked, frames = [], Scene.frames

    def spy(self: Scene, start: int, stop: int, device: Any = "cpu") -> Clip:
        asked.append((start, stop))
        return frames(self, start, stop, device)

    monkeypatch.setattr(Scene, "frames", spy)
    assert ttt3r("scene", *SMALL).status == 0
    assert asked == [(0, 1), (1, 2), (2, 3), (3, 4)]


def test_another_encoder(ttt3r: Ttt3r, monkeypatch: pytest.MonkeyPatch):
    """Where H.264 cannot be written."""
    monkeypatch.setitem(videos.ENCODERS, "libx264", {})
    monkeypatch.setattr(videos, "_can_encode", lambda name: name == "mpeg4")
    assert ttt3r("scene", *SMALL).status == 0
    assert len(list(open_source("scene.mp4").frames())) == 4


def test_parse_size():
    assert parse_size("320x240") == (240, 320)
    for text in (
        "320",
        "320x",
        "x240",
        "320X240",
        "-8x8",
        "8x8x8",
        "320 x 240",
        "",
        "1e2x8",
        "8x٨",
    ):
        with pytest.raises(SettingError, match="WIDTHxHEIGHT"):
            parse_size(text)


class TestRefusals:
    """Each is one message, without a traceback, status 2, and nothing is written."""

    def refused(self, ttt3r: Ttt3r, *words: object) -> str:
        before = {path: path.stat().st_mtime_ns for path in Path().rglob("*")}
        result = ttt3r("scene", *SMALL, *words)
        assert result.status == 2 and "Traceback" not in result.err and result.out == ""
        assert len(result.errors) == 1, result.err
        assert {path: path.stat().st_mtime_ns for path in Path().rglob("*")} == before
        return result.err.partition("error: ")[2]

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            ("--frames 0", "1 to 1000000 frames, not 0"),
            ("--frames -5", "frames"),
            ("--frames 99999999999999", "frames"),
            ("--seed -1", "seed"),
            ("--size 320", "WIDTHxHEIGHT"),
            ("--size 0x0", "multiples of 8"),
            ("--size 100x100", "multiples of 8"),
            ("--size 99992x8", "up to 4096"),
            ("--out clip.txt", ".mp4, .mov, .mkv"),
            ("--out clip", ".mp4"),
            ("--out .mp4", ".mp4"),
            ("--out a.mp4 --truth a.mp4", "may lie in the other"),
            ("--out t/a.mp4 --truth t", "may lie in the other"),
            ("--out a.mp4 --truth a.mp4/t", "may lie in the other"),
        ],
    )
    def test_setting(self, words: str, message: str, ttt3r: Ttt3r):
        assert message in self.refused(ttt3r, *words.split())

    @pytest.mark.parametrize(
        "words", ["--world moon", "--style fly", "--frames many", "--seed 1.5"]
    )
    def test_what_the_parser_refuses(self, words: str, ttt3r: Ttt3r):
        result = ttt3r("scene", *words.split())
        assert result.status == 2 and "Traceback" not in result.err and listing() == []

    def test_names_that_are_taken(self, ttt3r: Ttt3r):
        Path("folder.mp4").mkdir()
        Path("mine.mp4").write_text("mine")
        Path("data").mkdir()
        Path("data/thesis.txt").write_text("precious")
        for words, message in {
            "--out folder.mp4": "is a folder",
            "--out folder.mp4 --overwrite": "is a folder",
            "--out mine.mp4": "add --overwrite",
            "--out mine.mp4/a.mp4": "cannot write",
            "--truth mine.mp4": "is a file",
            "--truth mine.mp4 --overwrite": "is a file",
            "--truth data": "not empty; choose a new folder",
            "--truth data --overwrite": "not empty; choose a new folder",
        }.items():
            assert message in self.refused(ttt3r, *words.split())

    def test_another_data_set(self, ttt3r: Ttt3r):
        """A recorded one of the same layout is never replaced."""
        for name in ("rgb", "depth"):
            (Path("room") / name).mkdir(parents=True)
        for name in ("poses.txt", "intrinsics.txt", "README.md"):
            (Path("room") / name).write_text("# room\n")
        assert "not empty; choose a new" in self.refused(ttt3r, "--truth", "room", "--overwrite")

    @pytest.mark.parametrize("at", [0, 2])
    @pytest.mark.parametrize("where", ["rgb", "depth"])
    def test_full_disk(self, at: int, where: str, ttt3r: Ttt3r, monkeypatch: pytest.MonkeyPatch):
        save = Image.Image.save

        def full(self: Image.Image, path: Path, *rest: Any) -> None:
            if (path.parent.name, path.stem) == (where, f"{at:06d}"):
                raise OSError(errno.ENOSPC, "No space left on device")
            save(self, path, *rest)

        monkeypatch.setattr(Image.Image, "save", full)
        message = self.refused(ttt3r, "--truth", "truth")
        assert (
            "No space left on device" in message and "cannot write scene.mp4 and truth" in message
        )

    def test_encoder_that_fails(self, ttt3r: Ttt3r, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setitem(videos.ENCODERS, "libx264", {"preset": "nonsense"})
        assert "cannot write scene.mp4" in self.refused(ttt3r)


def test_overwrite(ttt3r: Ttt3r):
    assert ttt3r("scene", *SMALL, "--truth", "t").status == 0
    before = Path("scene.mp4").read_bytes()
    result = ttt3r("scene", *SMALL, "--out", "other.mp4", "--truth", "t")
    assert result.status == 2 and "add --overwrite" in result.errors[0]
    words = ("--seed", 8, "--frames", 2, "--size", "32x24", "--truth", "t", "--overwrite")
    assert ttt3r("scene", *words).status == 0
    assert Path("scene.mp4").read_bytes() != before
    assert listing(Path("t/rgb")) == ["000000.png", "000001.png"]
    assert listing() == ["scene.mp4", "t"]
    # With anything beside it, the folder is no longer ours to delete.
    Path("t/notes.txt").write_text("mine")
    result = ttt3r("scene", *words)
    assert result.status == 2 and "not empty; choose a new folder" in result.errors[0]
    assert Path("t/notes.txt").exists()
    Path("t/notes.txt").rename("t/depth/notes.txt")
    result = ttt3r("scene", *words)
    assert result.status == 2 and "not empty; choose a new folder" in result.errors[0]
    assert Path("t/depth/notes.txt").exists()


def test_empty_folder_for_the_truth(ttt3r: Ttt3r):
    Path("t").mkdir()
    assert ttt3r("scene", *SMALL, "--truth", "t/").status == 0
    assert listing() == ["scene.mp4", "t"] and len(listing(Path("t/rgb"))) == 4


def test_a_failure_keeps_what_was_there(ttt3r: Ttt3r, monkeypatch: pytest.MonkeyPatch):
    assert ttt3r("scene", *SMALL, "--truth", "t").status == 0
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    replace = Path.replace

    def broken(self: Path, target: Path) -> Path:
        if self.parent.name.endswith(".tmp") and target.name == "t":
            raise OSError(errno.EIO, "Input/output error")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", broken)
    result = ttt3r("scene", *SMALL, "--seed", 9, "--truth", "t", "--overwrite")
    assert result.status == 2 and "Input/output error" in result.errors[0]
    after = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    assert before.keys() == after.keys()
    assert all(after[path] == before[path] for path in before if path.parts[0] == "t")


def test_interrupted_in_the_middle(ttt3r: Ttt3r, monkeypatch: pytest.MonkeyPatch):
    """A second Ctrl-C, while a frame is rendered."""
    frames = Scene.frames

    def interrupted(self: Scene, start: int, stop: int, device: Any = "cpu") -> Clip:
        if start == 2:
            raise KeyboardInterrupt
        return frames(self, start, stop, device)

    monkeypatch.setattr(Scene, "frames", interrupted)
    result = ttt3r("scene", *SMALL, "--truth", "t")
    assert result.status == 130 and result.out == "stopped; nothing was written\n"
    assert listing() == []


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_stop(number: signal.Signals, tmp_path: Path):
    words = ["scene", "--frames", "100000", "--size", "64x48", "--out", "a.mp4", "--truth", "t"]
    command = [sys.executable, "-m", "ttt3r", *words]
    pipe = subprocess.PIPE
    with started(command, stdout=pipe, stderr=pipe, cwd=tmp_path) as process:
        wait_until(lambda: any(tmp_path.glob(".t.*.tmp/t/rgb/000002.png")), process)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number, err
    assert out == "stopped; nothing was written\n" and "Traceback" not in err
    assert "stopping after this frame" in err and listing(tmp_path) == []
