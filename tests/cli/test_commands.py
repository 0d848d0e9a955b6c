"""The commands other than `run`."""

import json
import logging
import os
import shutil
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.cli.conftest import TINY, Ttt3r
from ttt3r.cli import doctor, main
from ttt3r.cli.command import duration_text
from ttt3r.cli.models import ModelsCommand
from ttt3r.files import bytes_text
from ttt3r.runs.frame_file import read_prediction, write_prediction
from ttt3r.runs.manifest import MANIFEST
from ttt3r.runs.reader import Run, frame_path
from ttt3r.weights import CATALOGUE


def test_info(finished: Path, ttt3r: Ttt3r):
    result = ttt3r("info", finished)
    assert (result.status, result.err) == (0, "")
    facts = dict(line.split("  ", 1) for line in result.out.splitlines())
    facts = {key.strip(): value.strip() for key, value in facts.items()}
    assert facts["status"] == "complete" and facts["frames"] == "12"
    assert facts["rule"] == "ttt3r" and facts["reset"] == "every(5)"
    assert facts["segments"] == "3, all of one scale"
    assert "not a reconstruction" in facts["model"] and facts["licence"].startswith("Apache-2.0")
    assert facts["duration"] == "1.1 s" and facts["source"].endswith("walk.mp4")


def test_info_tells_how_scale_drifts_over_segments(finished: Path, ttt3r: Ttt3r):
    shutil.copytree(finished, "a")
    for index in range(5, 12):
        path = frame_path(Path("a"), index)
        said = read_prediction(path)
        scale = (1.0, 1.25, 0.5)[said.segment]
        write_prediction(path, replace(said, scale=scale, scale_error=0.02 * said.segment))
    line = next(line for line in ttt3r("info", "a").out.splitlines() if "segments" in line)
    assert line.split(maxsplit=1)[1] == (
        "3, scale 1.000 in the first, 0.500 (± 4.0 %) in the last, at most 2.500 times another"
    )


def test_info_as_json(finished: Path, ttt3r: Ttt3r):
    facts = json.loads(ttt3r("info", finished, "--json").out)
    assert facts["frames"] == 12 and facts["model"]["name"] == "tiny-dpt"
    assert facts["duration"] == pytest.approx(1.1)
    steps = Run.open(finished).trajectory().world_from_camera[:, :3, 3].double().diff(dim=0)
    assert facts["trajectory_length"] == pytest.approx(float(steps.norm(dim=1).sum()))
    parts = {name: size for name, size in facts["bytes"].items() if name != "total"}
    assert facts["bytes"]["total"] == sum(parts.values())
    assert set(parts) == {"frames", "manifest.json", "session.safetensors", "trajectory.tum"}


def test_info_without_poses_or_frames(clip: Path, ttt3r: Ttt3r):
    assert ttt3r("run", clip, *TINY, "--out", "a", "--outputs", "points", "--end", 0.2).status == 0
    facts = json.loads(ttt3r("info", "a", "--json").out)
    assert (facts["frames"], facts["trajectory_length"]) == (2, None)
    for frame in Path("a/frames").iterdir():
        frame.unlink()
    facts = json.loads(ttt3r("info", "a", "--json").out)
    assert (facts["frames"], facts["duration"]) == (0, None)
    assert ttt3r("info", "a").status == 0


def test_info_of_frames_that_could_not_be_placed(finished: Path, ttt3r: Ttt3r):
    """JSON has no NaN; the path goes on from the last frame that has a pose."""
    shutil.copytree(finished, "a")
    for index in (0, 3):
        path = frame_path(Path("a"), index)
        lost = torch.full((4, 4), float("nan"))
        write_prediction(path, replace(read_prediction(path), world_from_camera=lost))
    text = ttt3r("info", "a", "--json").out
    facts = json.loads(text, parse_constant=pytest.fail)
    assert facts["frames"] == 12 and 0 < facts["trajectory_length"] < 1e9


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "is not a run"), ("{", "cannot read"), ('{"format": 1}', "is damaged")],
)
def test_info_on_what_is_no_run(content: str | None, message: str, tmp_path: Path, ttt3r: Ttt3r):
    if content is not None:
        (tmp_path / MANIFEST).write_text(content)
    result = ttt3r("info", tmp_path)
    assert result.status == 2 and len(result.errors) == 1 and message in result.err


def test_export(finished: Path, ttt3r: Ttt3r):
    result = ttt3r("export", finished, "--to", "tum")
    assert result == (0, result.out, "") and "12 poses" in result.out
    lines = (finished / "export.tum").read_text().splitlines()
    assert lines == (finished / "trajectory.tum").read_text().splitlines()

    options = ("--min-confidence", 0, "--pixel-stride", 4, "--every", 3)
    result = ttt3r("export", finished, "--to", "ply", "--out", "new/cloud.ply", *options)
    assert result.status == 0, result.err
    size = Path("new/cloud.ply").stat().st_size
    assert result.out == f"wrote new/cloud.ply: 768 points, {bytes_text(size)}\n"


def test_paths_may_begin_with_a_tilde(
    finished: Path, ttt3r: Ttt3r, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HOME", str(finished.parent))
    home = f"~/{finished.name}"
    assert ttt3r("info", home).status == 0
    assert ttt3r("export", home, "--to", "tum", "--out", "~/out.tum").status == 0
    assert (finished.parent / "out.tum").is_file()
    words = ("--frames", "2", "--size", "64x48", "--out", "~/room.mp4", "--truth", "~/truth")
    assert ttt3r("scene", *words).status == 0
    assert (finished.parent / "room.mp4").is_file() and (finished.parent / "truth").is_dir()


def test_names_that_are_not_text(clip: Path, ttt3r: Ttt3r):
    """An input may have any name; an output that cannot be read back is refused at once."""
    name = os.fsdecode(b"caf\xe9")
    Path(name).mkdir()
    shutil.copy(clip, Path(name) / "walk.mp4")
    words = ("run", Path(name) / "walk.mp4", *TINY, "--end", 0.2)
    result = ttt3r(*words, "--out", f"{name}/run")
    assert result.status == 2 and "not valid UTF-8" in result.err
    assert os.listdir(name) == ["walk.mp4"]  # noqa: PTH208
    result = ttt3r(*words, "--out", "run")
    assert result.status == 0, result.err
    assert ttt3r("info", "run").status == 0


def test_export_keeps_files_unless_told(finished: Path, ttt3r: Ttt3r):
    Path("a.tum").write_text("mine")
    result = ttt3r("export", finished, "--to", "tum", "--out", "a.tum")
    assert result.status == 2 and "--overwrite" in result.errors[0]
    assert Path("a.tum").read_text() == "mine"
    assert ttt3r("export", finished, "--to", "tum", "--out", "a.tum", "--overwrite").status == 0
    assert Path("a.tum").read_text() != "mine"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--to", "tum", "--every", "2"], "no option every"),
        (["--to", "ply", "--every", "0"], "every must be"),
        (["--to", "ply", "--min-confidence", "1e9"], "lower min_confidence"),
        (["--to", "ply", "--out", "finished/manifest.json/x"], "cannot write"),
    ],
    ids=str,
)
def test_export_refuses(words: list[str], message: str, finished: Path, ttt3r: Ttt3r):
    result = ttt3r("export", finished, *words)
    assert result.status == 2 and len(result.errors) == 1 and message in result.err
    assert "Traceback" not in result.err


def test_models(ttt3r: Ttt3r, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TTT3R_WEIGHTS", str(tmp_path))
    (tmp_path / "cut3r_224_linear_4.pth").write_bytes(b"")
    result = ttt3r("models")
    assert (result.status, result.err) == (0, "")
    rows = {line.split()[0]: line for line in result.out.splitlines() if line}
    for name, spec in CATALOGUE.items():
        assert spec.licence in rows[name] and spec.family in rows[name]
    assert str(tmp_path / "cut3r_224_linear_4.pth") in rows["cut3r_224_linear_4"]
    assert "  no  " in rows["cut3r_512_dpt_4_64"]


def test_convert(clip: Path, ttt3r: Ttt3r):
    result = ttt3r("convert", "tiny-linear", "weights", "--dtype", "float16")
    assert result.status == 0 and "Apache-2.0" in result.out, result.err
    assert Path("weights/model.safetensors").is_file()
    assert ttt3r("run", clip, "--model", "weights", "--end", 0.2).status == 0

    result = ttt3r("convert", "tiny-linear", "weights")
    assert result.status == 2 and "exists already" in result.errors[0]
    assert ttt3r("convert", "tiny-linear", "weights", "--overwrite").status == 0
    result = ttt3r("convert", "nothing.pth", "other")
    assert result.status == 2 and "nothing.pth" in result.errors[0]
    result = ttt3r("convert", clip, "other")
    assert result.status == 2 and len(result.errors) == 1
    assert not Path("other").exists()


def test_doctor(ttt3r: Ttt3r):
    result = ttt3r("doctor")
    assert (result.status, result.err) == (0, "")
    names = [line.split()[0] for line in result.out.splitlines() if line]
    assert names == [*doctor.CHECKS, "ready"]
    assert "h264" in result.out and "passed" in result.out


def test_doctor_tells_what_is_broken(ttt3r: Ttt3r, monkeypatch: pytest.MonkeyPatch):
    def broken() -> str:
        raise OSError("no such library")

    monkeypatch.setattr(doctor, "CHECKS", {"video": broken, "packages": doctor.CHECKS["packages"]})
    result = ttt3r("doctor")
    assert result.status == 1 and "BROKEN: OSError: no such library" in result.out
    assert "numpy" in result.out
    with pytest.raises(OSError, match="no such library"):
        ttt3r("doctor", "--debug")


def test_debug_keeps_the_traceback(ttt3r: Ttt3r, monkeypatch: pytest.MonkeyPatch):
    from ttt3r.errors import RunError

    with pytest.raises(RunError):
        ttt3r("info", "nowhere", "--debug")
    monkeypatch.setenv("TTT3R_DEBUG", "1")
    with pytest.raises(RunError):
        ttt3r("info", "nowhere")
    monkeypatch.setenv("TTT3R_DEBUG", "0")
    assert ttt3r("info", "nowhere").status == 2


def test_bugs_keep_their_traceback(ttt3r: Ttt3r, monkeypatch: pytest.MonkeyPatch):
    def bug(self: ModelsCommand) -> int:
        raise ZeroDivisionError

    monkeypatch.setattr(ModelsCommand, "main", bug)
    with pytest.raises(ZeroDivisionError):
        ttt3r("models")


def test_warnings_and_log_records(ttt3r: Ttt3r, monkeypatch: pytest.MonkeyPatch):
    def talk(self: ModelsCommand) -> int:
        logging.getLogger("ttt3r.stream").warning("scale %s", "lost")
        logging.getLogger("ttt3r.stream").info("nobody wants to know")
        logging.getLogger("ttt3r.weights").info("licence")
        logging.getLogger("other").warning("not ours")
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("old", UserWarning, stacklevel=1)
        return 0

    monkeypatch.setattr(ModelsCommand, "main", talk)
    before = logging.getLogger("ttt3r").handlers[:], logging.getLogger("ttt3r.weights").level
    expected = ["warning: scale lost", "note: licence", "warning: old"]
    assert [line for line in ttt3r("models").err.splitlines() if "ours" not in line] == expected
    after = logging.getLogger("ttt3r").handlers[:], logging.getLogger("ttt3r.weights").level
    assert before == after


def test_reader_that_goes_away():
    """As in `ttt3r models | head -0`."""
    code = "import sys; from ttt3r.cli import main; sys.exit(main())"
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-c", code, "--version"]
    result = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert (result.returncode, result.stderr) == (141, "")


def test_interrupt_outside_of_a_run(ttt3r: Ttt3r, monkeypatch: pytest.MonkeyPatch):
    def interrupted(self: ModelsCommand) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(ModelsCommand, "main", interrupted)
    assert ttt3r("models") == (130, "", "interrupted\n")


def test_readable_numbers():
    assert [bytes_text(count) for count in (0, 999, 1500, 2_500_000, 3 * 10**9, 4 * 10**12)] == [
        *("0 B", "999 B", "1.5 kB", "2.5 MB", "3.0 GB", "4.0 TB")
    ]
    assert [duration_text(seconds) for seconds in (9.44, 187.0, 7387.0)] == [
        *("9.4 s", "3:07 min", "2:03:07 h")
    ]


def test_main_reads_the_command_line(monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setattr(sys, "argv", ["ttt3r", "--version"])
    assert main() == 0 and capsys.readouterr().out == "ttt3r 0.1.0\n"
