"""`ttt3r run`: what it writes and says, stopping and going on, and what it refuses."""

import dataclasses
import errno
import inspect
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.cli.conftest import TINY, Ttt3r, make_clip
from tests.processes import started, wait_until
from tests.sources.clips import damage
from ttt3r import RunFolder, open_source, reconstruct
from ttt3r.cli.progress import LINE_SECONDS, Lines, memory_text, progress, resident_bytes
from ttt3r.cli.run import EXPECT, RunCommand, default_out, resume_line
from ttt3r.cli.stopping import StopRequest
from ttt3r.runs import writer
from ttt3r.runs.frame_file import write_prediction
from ttt3r.runs.reader import Run, frame_path
from ttt3r.summary import picture as summary_picture
from ttt3r.types import Prediction
from ttt3r.weights import loading
from ttt3r.weights.catalogue import CATALOGUE


def assert_equal_runs(left: Run, right: Run):
    assert len(left) == len(right) > 0
    assert (left.folder / "trajectory.tum").read_bytes() == (
        right.folder / "trajectory.tum"
    ).read_bytes()
    for a, b in zip(left, right, strict=True):
        assert (a.timestamp, a.segment) == (b.timestamp, b.segment)
        for name in ("points", "confidence", "pose_encoding", "gate", "image"):
            x, y = getattr(a, name), getattr(b, name)
            assert x is y is None or torch.equal(x, y), (a.index, name)


def test_run(clip: Path, ttt3r: Ttt3r, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(loading, "_announced", set())
    result = ttt3r("run", clip, *TINY)
    assert result.status == 0
    warnings = [line for line in result.err.splitlines() if line.startswith("warning: ")]
    assert len(warnings) == 1 and "licence Apache-2.0" in warnings[0]
    assert "the output is not a reconstruction" in warnings[0]
    assert result.err.splitlines()[-1].startswith("12 frames, ")
    assert result.out.startswith("12 frames in ") and "units long" in result.out
    for expected in ("run: runs/walk", "ttt3r info runs/walk", "ttt3r export runs/walk --to ply"):
        assert expected in result.out
    run = Run.open("runs/walk")
    assert run.manifest["status"] == "complete" and len(run) == 12
    assert run.manifest["reset"] == "never"


def test_the_weights_in_the_package_say_what_to_expect(clip: Path, ttt3r: Ttt3r):
    words = ("run", clip, "--device", "cpu", "--no-summary", "--end", "0.2", "--overwrite")
    assert ttt3r(*words).out.startswith(f"{EXPECT}\n")
    assert "ttt3r fetch cut3r_512_dpt_4_64" in EXPECT and "cut3r_512_dpt_4_64" in CATALOGUE
    assert ttt3r(*words, "--quiet").out == ""


def test_options_arrive(clip: Path, ttt3r: Ttt3r):
    words = "--rule damped(overwrite,0.5) --reset never --stitch similarity --outputs pose"
    words += " --size 48 --stride 2 --start 0.2 --end 0.9 --precision float32 --quiet --out a"
    result = ttt3r("run", clip, *TINY, *words.split())
    assert (result.status, result.out) == (0, "")
    assert all(line.startswith("warning: ") for line in result.err.splitlines())
    run = Run.open("a")
    settings = {
        "rule": "damped(overwrite, 0.5)",
        "reset": "never",
        "stitch": "similarity",
        "outputs": ["pose"],
        "size": 48,
    }
    assert {key: run.manifest[key] for key in settings} == settings
    assert [round(p.timestamp, 3) for p in run] == [0.2, 0.4, 0.6, 0.8]
    assert run[0].points is None and run[0].image is not None
    assert run[0].image.shape == (32, 48, 3)


def test_the_pose_memory_may_follow_a_rule_of_its_own(clip: Path, ttt3r: Ttt3r):
    words = ("run", clip, *TINY, "--no-summary", "--quiet", "--pose-memory", "damped(ttt3r,0.5)")
    assert ttt3r(*words, "--end", 0.4, "--out", "a").status == 0
    manifest = Run.open("a").manifest
    assert manifest["rule"] == "split(ttt3r, damped(ttt3r, 0.5))"
    assert ttt3r(*words, "--end", 0.4, "--out", "a", "--resume").status == 0
    plain = ttt3r("run", clip, *TINY, "--end", 0.4, "--out", "a", "--resume")
    assert plain.status == 2 and "rule" in plain.err
    both = ("--rule", manifest["rule"], "--end", 0.4, "--no-summary", "--out", "b")
    assert ttt3r("run", clip, *TINY, *both).status == 0
    assert_equal_runs(Run.open("a"), Run.open("b"))


def test_poses_may_come_from_points(clip: Path, ttt3r: Ttt3r):
    words = ("run", clip, *TINY, "--quiet", "--end", 0.3, "--out", "a")
    assert ttt3r(*words, "--pose-from", "points").status == 0
    assert Run.open("a").manifest["pose_from"] == "points"
    assert re.search(r"poses +from points", ttt3r("info", "a").out)
    assert ttt3r(*words, "--pose-from", "points", "--resume").status == 0
    refused = ttt3r(*words, "--resume")
    assert refused.status == 2 and 'pose_from: was "points", now null' in refused.err


def test_images_are_turned_and_cut(clip: Path, ttt3r: Ttt3r):
    words = ("--rotate", 90, "--crop", "1:1", "--size", 48, "--outputs", "pose", "--out", "a")
    assert ttt3r("run", clip, *TINY, *words).status == 0
    run = Run.open("a")
    assert run.manifest["source"]["arranged"] == ["rotate 90", "crop 1:1"]
    transform = run[0].transform
    assert transform is not None and transform.original_size[0] == transform.original_size[1]
    assert "rotate 90, crop 1:1" in ttt3r("info", "a").out
    refused = ttt3r("run", clip, *TINY, "--rotate", 45, "--out", "b")
    assert refused.status == 2 and "90" in refused.err and not Path("b").exists()


def test_images_have_a_frame_rate(ttt3r: Ttt3r, tmp_path: Path):
    for number in range(3):
        Image.new("RGB", (64, 48), (80 * number, 0, 0)).save(tmp_path / f"{number}.png")
    assert ttt3r("run", "*.png", *TINY, "--fps", 4, "--out", "a").status == 0
    assert [p.timestamp for p in Run.open("a")] == [0, 0.25, 0.5]


def test_default_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "shots.d").mkdir()
    monkeypatch.chdir(tmp_path / "shots.d")
    runs = Path("runs")
    assert default_out("a/walk.mp4") == runs / "walk"
    assert default_out(str(tmp_path / "shots.d")) == default_out(".") == runs / "shots.d"
    assert default_out(f"{tmp_path}/shots.d/") == default_out("./*.png") == runs / "shots.d"
    assert default_out("else/where/*.png") == runs / "where"
    (tmp_path / "set [1]").mkdir()
    (tmp_path / "Title [ID].mp4").touch()
    assert default_out(f"{tmp_path}/Title [ID].mp4") == runs / "Title [ID]"
    assert default_out(f"{tmp_path}/set [1]") == default_out(f"{tmp_path}/set [1]/*.jpg")
    assert default_out(f"{tmp_path}/set [1]") == runs / "set [1]"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_out("~/shots.d") == runs / "shots.d"


def test_resume_line():
    command = RunCommand("my walk.mp4", out=Path("a b"), outputs=("pose",), overwrite=True)
    words = "--out 'a b' --outputs pose --resume"
    assert resume_line(command) == f"ttt3r run 'my walk.mp4' {words}"
    command = RunCommand("w.mp4", rule="damped(ttt3r, 0.5)", reset="never", start=1.5, size=64)
    words = "--rule 'damped(ttt3r, 0.5)' --reset never --size 64 --start 1.5 --resume"
    assert resume_line(command) == f"ttt3r run w.mp4 {words}"


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_stop_and_resume(number: signal.Signals, ttt3r: Ttt3r, tmp_path: Path):
    clip = make_clip(tmp_path / "long walk.mp4", 60)
    words = ["run", clip.name, *TINY, "--reset", "30"]
    command = [sys.executable, "-m", "ttt3r", *words, "--out", "stopped", "--checkpoint-every", "7"]
    pipe = subprocess.PIPE
    with started(command, stdout=pipe, stderr=pipe, cwd=tmp_path) as process:
        wait_until(frame_path(tmp_path / "stopped", 9).exists, process)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number, err
    assert "Traceback" not in err and "stopping after this frame" in err
    line = "ttt3r run 'long walk.mp4' --out stopped --model tiny-dpt --reset 30 --device cpu"
    line += " --checkpoint-every 7 --resume --no-summary"
    assert out == f"stopped. To continue:\n  {line}\n"

    stopped = Run.open("stopped")
    assert stopped.manifest["status"] == "interrupted" and 10 <= len(stopped) < 60
    frames = len(stopped)
    assert len(stopped.trajectory()) == frames
    assert "--resume goes on" in ttt3r("info", "stopped").out

    result = ttt3r(*words, "--out", "stopped", "--checkpoint-every", 7, "--resume")
    assert result.status == 0 and result.out.startswith(f"going on after {frames} frames\n")
    assert f"{60 - frames} frames in" in result.out
    assert ttt3r(*words, "--out", "straight").status == 0
    assert_equal_runs(Run.open("stopped"), Run.open("straight"))
    assert Run.open("stopped").manifest["status"] == "complete"


def test_stop_request_counts():
    before = signal.getsignal(signal.SIGINT)
    with StopRequest() as stop:
        assert stop.signal == 0
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.signal == signal.SIGTERM and stop.status == 143
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert stop.status == 143 and signal.getsignal(signal.SIGINT) is before


def test_stop_request_leaves_ignored_signals_alone():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with StopRequest():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_interrupted_at_once(clip: Path, ttt3r: Ttt3r, monkeypatch: pytest.MonkeyPatch):
    """A second Ctrl-C, in the middle of a frame."""
    from ttt3r.stream.session import Session

    push = Session.push

    def interrupted(self: Session, image: object) -> Prediction:
        if self.index == 4:
            raise KeyboardInterrupt
        return push(self, image)

    with monkeypatch.context() as patch:
        patch.setattr(Session, "push", interrupted)
        result = ttt3r("run", clip, *TINY, "--out", "a")
    assert result.status == 130 and "--out a" in result.out and "--resume" in result.out
    assert Run.open("a").manifest["status"] == "interrupted" and len(Run.open("a")) == 4
    assert ttt3r("run", clip, *TINY, "--out", "a", "--resume").status == 0
    assert len(Run.open("a")) == 12


def test_resume_of_a_complete_run(clip: Path, finished: Path, shared: Path, ttt3r: Ttt3r):
    words = ("run", shared / "walk.mp4", *TINY, "--reset", 5, "--out", finished)
    result = ttt3r(*words, "--resume")
    assert result.status == 0 and "0 frames in" in result.out, result.err
    assert_equal_runs(Run.open(finished), Run.open(shared / "run"))


class TestRefusals:
    """Each is one message, without a traceback, and status 2."""

    def refused(self, ttt3r: Ttt3r, *words: object) -> str:
        result = ttt3r("run", *words)
        assert result.status == 2 and "Traceback" not in result.err
        assert len(result.errors) == 1, result.err
        return result.err.partition("error: ")[2]

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            ("--model nonsense", "nonsense"),
            ("--model cut3r_512_dpt_4_64", "CC-BY-NC-SA-4.0"),
            ("--device warp", "unknown device 'warp'"),
            ("--device cuda:77", "not available"),
            ("--precision int4", "unknown precision"),
            ("--rule nonsense", "unknown rule 'nonsense'"),
            ("--rule damped(ttt3r,7)", "damping factor"),
            ("--pose-memory ttsa3r", "the pose memory cannot follow ttsa3r"),
            ("--pose-memory ttt3r --model tiny-vggt", "only CUT3R has a pose memory"),
            ("--reset 1", "at least 2 frames"),
            ("--reset sometimes", "unknown reset"),
            ("--stitch glue", "unknown stitching"),
            ("--pose-from tail", "pose_from must be one of head, points, auto"),
            ("--refine --outputs points", "add pose to the outputs"),
            ("--stride 0", "stride"),
            ("--start 2 --end 1", "must lie after start"),
            ("--start 99", "no frame between"),
            ("--fps 0", "fps"),
            ("--size 5", "size"),
            ("--checkpoint-every 0", "checkpoint_every"),
            ("--resume --overwrite", "either --resume or --overwrite"),
        ],
    )
    def test_setting(
        self,
        words: str,
        message: str,
        clip: Path,
        ttt3r: Ttt3r,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ):
        monkeypatch.setenv("TTT3R_WEIGHTS", str(tmp_path))
        tiny = [] if "--model" in words else ["--model", "tiny-dpt"]
        assert message in self.refused(ttt3r, clip, *tiny, *words.split())

    def test_input(self, ttt3r: Ttt3r, tmp_path: Path):
        (tmp_path / "folder").mkdir()
        (tmp_path / "text.mp4").write_text("not a video\n" * 100)
        (tmp_path / "zero.mp4").write_bytes(b"")
        (tmp_path / "notes.txt").write_text("hello")
        for name, message in {
            "missing.mp4": "does not exist",
            "folder": "folder",
            "text.mp4": "cannot be opened as a video",
            "zero.mp4": "is empty",
            "notes.txt": "is of a kind that is not known",
            "rtsp://camera/1": "network address",
            "*.nef": "*.nef",
        }.items():
            assert message in self.refused(ttt3r, name, *TINY)
        assert not (tmp_path / "runs").exists()

    def test_second_run_into_the_folder(self, clip: Path, finished: Path, ttt3r: Ttt3r):
        before = (finished / "trajectory.tum").read_bytes()
        message = self.refused(ttt3r, clip, *TINY, "--out", finished)
        assert "already holds a run" in message
        assert (finished / "trajectory.tum").read_bytes() == before and len(
            Run.open(finished)
        ) == 12
        assert ttt3r("run", clip, *TINY, "--out", finished, "--overwrite", "--end", 0.3).status == 0
        assert len(Run.open(finished)) == 3

    def test_resume_with_other_settings(self, shared: Path, finished: Path, ttt3r: Ttt3r):
        words = (shared / "walk.mp4", *TINY, "--out", finished, "--resume")
        message = self.refused(ttt3r, *words, "--reset", 6)
        assert 'reset: was "every(5)", now "every(6)"' in message
        assert len(Run.open(finished)) == 12

    def test_output_that_cannot_be_written(self, clip: Path, ttt3r: Ttt3r, tmp_path: Path):
        message = self.refused(ttt3r, clip, *TINY, "--out", clip / "below")
        assert "cannot write the run" in message
        assert "is a file" in self.refused(ttt3r, clip, *TINY, "--out", clip)
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "thesis.txt").write_text("precious")
        assert "holds other files" in self.refused(ttt3r, clip, *TINY, "--out", "mine")
        assert "holds other files" in self.refused(
            ttt3r, clip, *TINY, "--out", "mine", "--overwrite"
        )
        assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]

    def test_full_disk(
        self, clip: Path, shared: Path, ttt3r: Ttt3r, monkeypatch: pytest.MonkeyPatch
    ):
        def full(path: Path, prediction: Prediction) -> None:
            if prediction.index == 5:
                raise OSError(errno.ENOSPC, "No space left on device")
            write_prediction(path, prediction)

        with monkeypatch.context() as patch:
            patch.setattr(writer, "write_prediction", full)
            message = self.refused(ttt3r, clip, *TINY, "--reset", 5, "--out", "a")
        assert "No space left on device" in message and "--resume" in message
        run = Run.open("a")
        assert len(run) == 5 and len(run.trajectory()) == 5 and len(list(run)) == 5
        assert ttt3r("run", clip, *TINY, "--reset", 5, "--out", "a", "--resume").status == 0
        assert_equal_runs(Run.open("a"), Run.open(shared / "run"))

    def test_damaged_video(self, clip: Path, ttt3r: Ttt3r):
        damage(clip, 8)
        message = self.refused(ttt3r, clip, *TINY, "--out", "a")
        assert "is damaged" in message
        run = Run.open("a")
        assert run.manifest["status"] == "failed" and 1 <= len(run) == len(list(run)) <= 8
        assert ttt3r("export", "a", "--to", "tum").status == 0


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_lines_come_now_and_then(capsys: pytest.CaptureFixture[str]):
    clock = Clock()
    lines = Lines(100, 10, lambda: "9 MB memory", clock)
    for done in range(11, 41):
        clock.now += LINE_SECONDS / 10
        lines.update(done)
    lines.finish()
    lines.finish()
    assert capsys.readouterr().err.splitlines() == [
        "20 of 100 frames, 2.0 fps, 40.0 s left, 9 MB memory",
        "30 of 100 frames, 2.0 fps, 35.0 s left, 9 MB memory",
        "40 of 100 frames, 2.0 fps, 30.0 s left, 9 MB memory",
    ]


def test_a_line_before_the_first_answer(capsys: pytest.CaptureFixture[str]):
    """Without an answer there is no rate, and so no time that is left."""
    for total in (100, None):
        clock = Clock()
        lines = Lines(total, 0, lambda: "9 MB memory", clock)
        clock.now = LINE_SECONDS + 1
        lines.update(0)
        expected = "0 of 100 frames" if total else "0 frames"
        assert capsys.readouterr().err == f"{expected}, 0.0 fps, 9 MB memory\n"


def test_lines_when_the_total_is_unknown_or_wrong(capsys: pytest.CaptureFixture[str]):
    for total in (None, 3, 10):
        clock = Clock()
        lines = Lines(total, 0, lambda: "", clock)
        clock.now = 2.0
        lines.update(4)
        lines.finish()
        assert capsys.readouterr().err.startswith("4 frames, 2.0 fps, ")


def test_bar_on_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    for total in (20, 3, None):
        with progress(total, 0, lambda: "9 MB memory") as update:
            update(1)
            update(4)
        err = capsys.readouterr().err
        assert "4 of" in err and "fps" in err and "9 MB memory" in err


def test_quiet_shows_nothing(capsys: pytest.CaptureFixture[str]):
    with progress(3, 0, lambda: "", quiet=True) as update:
        update(1)
    assert capsys.readouterr() == ("", "")


def test_memory():
    size = resident_bytes()
    assert size is None or 10**7 < size < 10**12
    assert size is None or memory_text().endswith("B memory")


def test_defaults_are_those_of_python():
    """The two first lines of the README do the same for a stream of any length."""
    stated = {
        name: parameter.default
        for function in (reconstruct, open_source, RunFolder)
        for name, parameter in inspect.signature(function).parameters.items()
    }
    shared = [field for field in dataclasses.fields(RunCommand) if field.name in stated]
    assert len(shared) > 12
    for field in shared:
        if field.name != "out":  # the command makes a name up
            assert field.default == stated[field.name], field.name


def test_summary(clip: Path, ttt3r: Ttt3r, monkeypatch: pytest.MonkeyPatch):
    words = [word for word in TINY if word != "--no-summary"]
    result = ttt3r("run", clip, *words, "--out", "a")
    assert result.status == 0 and "picture: a/summary.png" in result.out
    with Image.open("a/summary.png") as picture:
        assert picture.width == 1600
    assert ttt3r("run", clip, *TINY, "--out", "a", "--overwrite").status == 0
    assert not Path("a/summary.png").exists()

    def fails(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(summary_picture, "write_atomically", fails)
    result = ttt3r("run", clip, *words, "--out", "a", "--overwrite")
    assert result.status == 0 and "picture: " not in result.out
    assert "a/summary.png was not drawn" in result.err and "No space left" in result.err


def test_a_profile_is_written_and_an_impossible_one_refused_first(clip: Path, ttt3r: Ttt3r):
    refused = ttt3r("run", clip, *TINY, "--profile", "nowhere/trace.json")
    assert refused.status == 2 and "cannot write the profile" in refused.errors[0]
    assert not Path("runs").exists()
    assert ttt3r("run", clip, *TINY, "--quiet", "--profile", "trace.json").status == 0
    events = json.loads(Path("trace.json").read_text())["traceEvents"]
    assert {"decode", "prepare", "encode", "step", "heads", "write"} <= {e["name"] for e in events}
