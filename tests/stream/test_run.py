"""Reconstruction into a run folder: what is written, and that nothing can spoil it."""

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.networks import random_tiny
from tests.stream.test_session import images
from ttt3r.errors import InputError, RunError, SettingError
from ttt3r.stream import writer as writer_module
from ttt3r.stream.frame_file import read_prediction, write_prediction
from ttt3r.stream.reconstruct import reconstruct
from ttt3r.stream.run import Run
from ttt3r.types import ImageTransform, Prediction

FRAMES = 14
SETTINGS = dict(rule="ttt3r", reset=5, checkpoint_every=3, size=64)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder of images."""
    path = tmp_path_factory.mktemp("images")
    for index, pixels in enumerate(images(FRAMES)):
        Image.fromarray(pixels).save(path / f"frame{index}.png")
    return path


@pytest.fixture(scope="module")
def whole(folder, tmp_path_factory) -> Path:
    """An uninterrupted run over it."""
    out = tmp_path_factory.mktemp("whole") / "run"
    assert len(list(reconstruct(folder, model="tiny-dpt", out=out, **SETTINGS))) == FRAMES
    return out


def content(run: Path) -> dict[str, bytes]:
    """Every file of a run that must not depend on how often it was interrupted."""
    files = {p.name: p.read_bytes() for p in (run / "frames").iterdir()}
    files["trajectory.tum"] = (run / "trajectory.tum").read_bytes()
    files["session.safetensors"] = (run / "session.safetensors").read_bytes()
    files["manifest.json"] = (run / "manifest.json").read_bytes()
    return files


def assert_same_run(a: Path, b: Path):
    left, right = content(a), content(b)
    assert left.keys() == right.keys()
    assert [name for name in left if left[name] != right[name]] == []


def test_what_is_written(folder, whole):
    run = Run.open(whole)
    assert len(run) == FRAMES and run.manifest["status"] == "complete"
    assert run.manifest["rule"] == "ttt3r" and run.manifest["reset"] == "every(5)"
    assert run.manifest["model"]["licence"] and len(run.manifest["model"]["sha256"]) == 64
    assert run.manifest["source"]["files"] == FRAMES
    assert sorted(p.name for p in whole.iterdir()) == [
        ".lock",
        "frames",
        "manifest.json",
        "session.safetensors",
        "trajectory.tum",
    ]
    trajectory = run.trajectory()
    assert trajectory.to_tum() == (whole / "trajectory.tum").read_text()
    assert trajectory.world_from_camera.shape == (FRAMES, 4, 4)
    fresh = list(reconstruct(folder, model="tiny-dpt", **SETTINGS))
    for index, (stored, made) in enumerate(zip(run, fresh, strict=True)):
        assert stored.index == made.index == index
        assert stored.segment == made.segment == [0, 1, 2][index // 5]
        assert stored.timestamp == made.timestamp == pytest.approx(index / 30)
        assert torch.equal(stored.world_from_camera, made.world_from_camera)
        assert torch.equal(stored.intrinsics, made.intrinsics)
        assert torch.equal(stored.image, made.image)
        assert stored.transform == made.transform is not None
        torch.testing.assert_close(stored.points, made.points, rtol=1e-3, atol=1e-6)
        torch.testing.assert_close(stored.confidence, made.confidence, rtol=1e-3, atol=0)
    assert torch.equal(run[-1].points, run[FRAMES - 1].points)
    for outside in (FRAMES, -FRAMES - 1):
        with pytest.raises(IndexError):
            run[outside]


def test_trajectory_lines(whole):
    lines = (whole / "trajectory.tum").read_text().splitlines()
    numbers = np.array([[float(n) for n in line.split()] for line in lines])
    assert numbers.shape == (FRAMES, 8)
    np.testing.assert_allclose(np.linalg.norm(numbers[:, 4:], axis=1), 1, atol=1e-6)
    run = Run.open(whole)
    for row, prediction in zip(numbers, run, strict=True):
        np.testing.assert_allclose(row[1:4], prediction.world_from_camera[:3, 3], rtol=1e-6)


SCRIPT = """
import sys, ttt3r.stream.reconstruct as r
for p in r.reconstruct(sys.argv[1], model="tiny-dpt", out=sys.argv[2], resume=True,
                       rule="ttt3r", reset=5, checkpoint_every=3, size=64):
    print(p.index, flush=True)
"""


@pytest.mark.parametrize("kills", [(0,), (1, 6), (4, 5, 12)])
def test_killed_and_resumed_equals_uninterrupted(folder, whole, tmp_path, kills):
    """SIGKILL after the given frames, any number of times; then resume to the end."""
    out = tmp_path / "run"
    for last in kills:
        command = [sys.executable, "-c", SCRIPT, str(folder), str(out)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            for line in process.stdout:
                if int(line) >= last:
                    os.kill(process.pid, signal.SIGKILL)
                    break
        assert process.returncode == -signal.SIGKILL
        assert json.loads((out / "manifest.json").read_text())["status"] == "running"
    rest = list(reconstruct(folder, model="tiny-dpt", out=out, resume=True, **SETTINGS))
    assert rest[-1].index == FRAMES - 1
    assert_same_run(out, whole)


@pytest.mark.parametrize("stop", [1, 5, 7])
def test_stopped_and_resumed_equals_uninterrupted(folder, whole, tmp_path, stop):
    """Leaving the loop early saves exactly what was yielded."""
    out = tmp_path / "run"
    with reconstruct(folder, model="tiny-dpt", out=out, **SETTINGS) as predictions:
        for prediction in predictions:
            if prediction.index == stop:
                break
    assert len(Run.open(out)) == stop + 1
    assert Run.open(out).manifest["status"] == "interrupted"
    again = reconstruct(folder, model="tiny-dpt", out=out, resume=True, **SETTINGS)
    assert again.resumed_at == stop + 1 and again.total == FRAMES
    assert [p.index for p in again] == list(range(stop + 1, FRAMES))
    assert_same_run(out, whole)


def test_resuming_a_complete_run_does_nothing(folder, whole):
    before = content(whole)
    assert list(reconstruct(folder, model="tiny-dpt", out=whole, resume=True, **SETTINGS)) == []
    assert content(whole) == before


def test_a_folder_that_grew_is_continued(folder, tmp_path):
    out, grown = tmp_path / "run", tmp_path / "images"
    grown.mkdir()
    for index in range(4):
        (grown / f"frame{index}.png").write_bytes((folder / f"frame{index}.png").read_bytes())
    assert len(list(reconstruct(grown, model="tiny-dpt", out=out, **SETTINGS))) == 4
    (grown / "frame4.png").write_bytes((folder / "frame4.png").read_bytes())
    rest = reconstruct(grown, model="tiny-dpt", out=out, resume=True, **SETTINGS)
    assert [p.index for p in rest] == [4]


def test_a_second_run_is_refused(folder, whole, tmp_path):
    before = content(whole)
    with pytest.raises(RunError, match="--resume"):
        reconstruct(folder, model="tiny-dpt", out=whole, **SETTINGS)
    for change in ({"rule": "overwrite"}, {"reset": None}, {"size": 48}, {"stride": 2}):
        with pytest.raises(RunError, match="other settings"):
            reconstruct(folder, model="tiny-dpt", out=whole, resume=True, **SETTINGS | change)
    with pytest.raises(RunError, match="other settings"):
        reconstruct(folder, model="tiny-linear", out=whole, resume=True, **SETTINGS)
    with pytest.raises(RunError, match="either"):
        reconstruct(folder, model="tiny-dpt", out=whole, resume=True, overwrite=True, **SETTINGS)
    assert content(whole) == before
    (tmp_path / "precious.txt").write_text("mine")
    for options in ({}, {"overwrite": True}, {"resume": True}):
        with pytest.raises(RunError, match="other files"):
            reconstruct(folder, model="tiny-dpt", out=tmp_path, **options, **SETTINGS)
    assert [p.name for p in tmp_path.iterdir()] == ["precious.txt"]


def test_a_manifest_of_another_program_protects_its_folder(folder, tmp_path):
    (tmp_path / "manifest.json").write_text('{"name": "my app"}')
    (tmp_path / "frames").mkdir()
    (tmp_path / "frames" / "precious.txt").write_text("mine")
    for options in ({}, {"overwrite": True}, {"resume": True}):
        with pytest.raises(RunError, match="format"):
            reconstruct(folder, model="tiny-dpt", out=tmp_path, **options, **SETTINGS)
    assert (tmp_path / "frames" / "precious.txt").read_text() == "mine"


def test_a_run_without_frames_is_in_nobodys_way(folder, tmp_path):
    """Settings that fail at the first frame can be corrected and tried again."""
    out = tmp_path / "run"
    with pytest.raises((InputError, SettingError)):
        list(reconstruct(folder, model="tiny-dpt", out=out, **SETTINGS | {"size": 5}))
    assert Run.open(out).manifest["status"] == "failed" and len(Run.open(out)) == 0
    for options in ({}, {"resume": True}):
        with reconstruct(folder, model="tiny-dpt", out=out, **SETTINGS, **options) as predictions:
            if options:
                next(predictions)
    assert Run.open(out).manifest["size"] == 64


def test_overwrite_deletes_only_the_run(folder, tmp_path):
    out = tmp_path / "run"
    list(reconstruct(folder, model="tiny-dpt", out=out, **SETTINGS))
    (out / "notes.txt").write_text("mine")
    settings = SETTINGS | {"stride": 7}
    list(reconstruct(folder, model="tiny-dpt", out=out, overwrite=True, **settings))
    assert len(Run.open(out)) == 2 and (out / "notes.txt").read_text() == "mine"


def test_two_writers_exclude_each_other(folder, tmp_path):
    out = tmp_path / "run"
    with reconstruct(folder, model="tiny-dpt", out=out, **SETTINGS) as first:
        next(first)
        with pytest.raises(RunError, match="another process"):
            reconstruct(folder, model="tiny-dpt", out=out, resume=True, **SETTINGS)
    assert len(Run.open(out)) == 1


def test_a_full_disk_keeps_what_was_written(folder, whole, tmp_path, monkeypatch):
    """The writer fails at frame 7; the run up to there can be resumed when there is room again."""
    real = writer_module.write_prediction

    def full(path, prediction):
        if prediction.index == 7:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(path, prediction)

    out = tmp_path / "run"
    monkeypatch.setattr(writer_module, "write_prediction", full)
    with pytest.raises(RunError, match=r"No space left.*--resume"):
        list(reconstruct(folder, model="tiny-dpt", out=out, **SETTINGS))
    monkeypatch.setattr(writer_module, "write_prediction", real)
    assert len(Run.open(out)) == 7
    again = reconstruct(folder, model="tiny-dpt", out=out, resume=True, **SETTINGS)
    assert again.resumed_at == 6
    list(again)
    assert_same_run(out, whole)


def test_a_damaged_image_in_the_middle(folder, whole, tmp_path):
    """Frames before it are kept; after mending the file the run goes on."""
    broken = tmp_path / "images"
    broken.mkdir()
    for image in folder.iterdir():
        (broken / image.name).write_bytes(image.read_bytes())
    intact = (broken / "frame6.png").read_bytes()
    (broken / "frame6.png").write_bytes(intact[:100])
    out = tmp_path / "run"
    with pytest.raises(InputError, match=r"frame6\.png"):
        list(reconstruct(broken, model="tiny-dpt", out=out, **SETTINGS))
    assert len(Run.open(out)) == 6 and Run.open(out).manifest["status"] == "failed"
    (broken / "frame6.png").write_bytes(intact)
    list(reconstruct(broken, model="tiny-dpt", out=out, resume=True, **SETTINGS))
    files, expected = content(out), content(whole)
    del files["manifest.json"], expected["manifest.json"]  # holds the other source path
    assert files == expected


def test_damaged_runs_say_so(folder, whole, tmp_path):
    with pytest.raises(RunError, match="not a run"):
        Run.open(tmp_path)
    for text in ("", "{}", "[]", '{"format": 99}'):
        (tmp_path / "manifest.json").write_text(text)
        with pytest.raises(RunError):
            Run.open(tmp_path)
    (tmp_path / "manifest.json").write_bytes((whole / "manifest.json").read_bytes())
    (tmp_path / "frames").mkdir()
    frame = tmp_path / "frames" / "000000.safetensors"
    frame.write_bytes((whole / "frames" / "000000.safetensors").read_bytes()[:500])
    with pytest.raises(RunError, match="damaged"):
        Run.open(tmp_path)[0]
    (tmp_path / "session.safetensors").write_bytes((whole / "session.safetensors").read_bytes())
    with pytest.raises(RunError, match="damaged"):
        reconstruct(folder, model="tiny-dpt", out=tmp_path, resume=True, **SETTINGS)


def test_places_that_cannot_hold_a_run(folder, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="is a file"):
        reconstruct(folder, model="tiny-dpt", out=tmp_path / "file", **SETTINGS)
    with pytest.raises(RunError, match="Choose a folder"):
        reconstruct(folder, model="tiny-dpt", out=tmp_path / "file" / "run", **SETTINGS)
    with pytest.raises(SettingError, match="output folder"):
        reconstruct(folder, model="tiny-dpt", resume=True, **SETTINGS)
    with pytest.raises(SettingError, match="checkpoint_every"):
        reconstruct(folder, model="tiny-dpt", **SETTINGS | {"checkpoint_every": 0})


def test_frames_of_changing_size():
    stream = [np.full((h, w, 3), 99, np.uint8) for h, w in ((48, 64), (64, 48), (50, 200))]
    shapes = [tuple(p.points.shape[:2]) for p in reconstruct(stream, model=random_tiny(), size=64)]
    assert shapes == [(48, 64), (64, 48), (16, 64)]


def test_a_generator_may_reuse_its_buffer():
    """Frames are read ahead, so each is copied before the generator goes on."""
    stream = images(6)

    def camera():
        buffer = np.empty_like(stream[0])
        for image in stream:
            buffer[:] = image
            yield buffer

    expected = [p.image for p in reconstruct(stream, model=random_tiny(), size=64)]
    found = [p.image for p in reconstruct(camera(), model=random_tiny(), size=64)]
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_abandoned_reconstructions_let_go(folder, tmp_path):
    out = tmp_path / "run"
    predictions = reconstruct(folder, model="tiny-dpt", out=out, **SETTINGS)
    next(predictions)
    del predictions
    assert Run.open(out).manifest["status"] == "interrupted"
    never_started = reconstruct(folder, model="tiny-dpt", out=out, resume=True, **SETTINGS)
    never_started.close()
    assert len(list(reconstruct(folder, model="tiny-dpt", out=out, resume=True, **SETTINGS))) == 13


def test_others_may_read_a_run(whole):
    """Files get the permissions that the user's mask asks for, not the owner's alone."""
    plain = whole / "plain"
    plain.write_text("")
    try:
        for path in whole.rglob("*.*"):
            assert path.is_dir() or path.stat().st_mode == plain.stat().st_mode, path
    finally:
        plain.unlink()


def test_frame_files_saturate_and_keep_every_field(tmp_path):
    full = Prediction(
        index=3,
        timestamp=0.1,
        image=torch.arange(18, dtype=torch.uint8).view(2, 3, 3),
        points=torch.tensor([1e9, -1e9, 0.5]).expand(2, 3, 3),
        confidence=torch.full((2, 3), float("inf")),
        pose_encoding=torch.randn(7),
        world_from_camera=torch.randn(4, 4),
        intrinsics=torch.randn(3, 3),
        gate=torch.rand(5),
        world_points=torch.randn(2, 3, 3),
        world_confidence=torch.rand(2, 3) + 1,
        rgb=torch.rand(2, 3, 3),
        segment=2,
        scale=1.25,
        transform=ImageTransform((6, 4), (3, 2), (0, 0, 3, 2)),
    )
    path = tmp_path / "000003.safetensors"
    write_prediction(path, full)
    first = path.read_bytes()
    write_prediction(path, full)
    assert path.read_bytes() == first, "the same prediction gives the same bytes"
    back = read_prediction(path)
    assert torch.equal(back.points[0, 0], torch.tensor([65504.0, -65504.0, 0.5]))
    assert (back.confidence == 65504).all()
    for name in ("index", "timestamp", "segment", "scale", "transform"):
        assert getattr(back, name) == getattr(full, name)
    for name in ("image", "pose_encoding", "world_from_camera", "intrinsics", "gate"):
        assert torch.equal(getattr(back, name), getattr(full, name))
    torch.testing.assert_close(back.world_points, full.world_points, rtol=1e-3, atol=1e-3)
    assert [p.name for p in tmp_path.iterdir()] == ["000003.safetensors"]
