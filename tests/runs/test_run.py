"""Reconstruction into a run folder: what is written, and that nothing can spoil it."""

import contextlib
import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.mutations import counts, mutated
from tests.networks import random_tiny
from tests.processes import started
from tests.stream.test_session import images
from ttt3r.errors import InputError, RunError, SettingError
from ttt3r.runs import frame_file
from ttt3r.runs import writer as writer_module
from ttt3r.runs.folder import RunFolder
from ttt3r.runs.frame_file import read_pose, read_prediction, write_prediction
from ttt3r.runs.manifest import Manifest, Weights
from ttt3r.runs.reader import Run, frame_path
from ttt3r.runs.trajectory import line_of
from ttt3r.sources import open_source
from ttt3r.stream.base import SessionBase
from ttt3r.stream.reconstruct import reconstruct
from ttt3r.tensor_files import read_tensors, write_tensors
from ttt3r.types import ImageTransform, Prediction

FRAMES = 14
SETTINGS = dict(rule="ttt3r", reset=5, size=64)


def into(path: str | Path, **options: bool) -> RunFolder:
    """A run folder with checkpoints close together."""
    return RunFolder(path, checkpoint_every=3, **options)


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
    assert len(list(reconstruct(folder, model="tiny-dpt", out=into(out), **SETTINGS))) == FRAMES
    return out


def content(run: Path) -> dict[str, bytes]:
    """Every file of a run that must not depend on how often it was interrupted."""
    files = {p.name: p.read_bytes() for p in (run / "frames").iterdir()}
    files["trajectory.tum"] = (run / "trajectory.tum").read_bytes()
    files["session.safetensors"] = (run / "session.safetensors").read_bytes()
    files["manifest.json"] = (run / "manifest.json").read_bytes()
    files["inputs.txt"] = (run / "inputs.txt").read_bytes()
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
    where_asked_for = {"trace", "pose_from", "refine", "refined_frames"}
    assert run.manifest.keys() == Manifest.__annotations__.keys() - where_asked_for
    assert run.manifest["model"].keys() == Weights.__annotations__.keys()
    assert sorted(p.name for p in whole.iterdir()) == [
        ".lock",
        "frames",
        "inputs.txt",
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
import sys, ttt3r
folder = ttt3r.RunFolder(sys.argv[2], resume=True, checkpoint_every=3)
for p in ttt3r.reconstruct(sys.argv[1], model="tiny-dpt", out=folder,
                           rule="ttt3r", reset=5, size=64):
    print(p.index, flush=True)
"""


@pytest.mark.parametrize(
    "kills", [(1, 6), *(pytest.param(k, marks=pytest.mark.slow) for k in ((0,), (4, 5, 12)))]
)
def test_killed_and_resumed_equals_uninterrupted(folder, whole, tmp_path, kills):
    """SIGKILL after the given frames, any number of times; then resume to the end."""
    out = tmp_path / "run"
    for last in kills:
        command = [sys.executable, "-c", SCRIPT, str(folder), str(out)]
        with started(command, stdout=subprocess.PIPE) as process:
            for line in process.stdout:
                if int(line) >= last:
                    os.kill(process.pid, signal.SIGKILL)
                    break
        assert process.returncode == -signal.SIGKILL
        assert json.loads((out / "manifest.json").read_text())["status"] == "running"
    rest = list(reconstruct(folder, model="tiny-dpt", out=into(out, resume=True), **SETTINGS))
    assert rest[-1].index == FRAMES - 1
    assert_same_run(out, whole)


@pytest.mark.parametrize("stop", [1, 5, 7])
def test_stopped_and_resumed_equals_uninterrupted(folder, whole, tmp_path, stop):
    """Leaving the loop early saves exactly what was yielded."""
    out = tmp_path / "run"
    with reconstruct(folder, model="tiny-dpt", out=into(out), **SETTINGS) as predictions:
        for prediction in predictions:
            if prediction.index == stop:
                break
    assert len(Run.open(out)) == stop + 1
    assert Run.open(out).manifest["status"] == "interrupted"
    again = reconstruct(folder, model="tiny-dpt", out=into(out, resume=True), **SETTINGS)
    assert again.resumed_at == stop + 1 and again.total == FRAMES
    assert [p.index for p in again] == list(range(stop + 1, FRAMES))
    assert_same_run(out, whole)


def test_resuming_a_complete_run_does_nothing(folder, whole):
    before = content(whole)
    assert (
        list(reconstruct(folder, model="tiny-dpt", out=into(whole, resume=True), **SETTINGS)) == []
    )
    assert content(whole) == before


def test_a_folder_that_grew_is_continued(folder, tmp_path):
    out, grown = tmp_path / "run", tmp_path / "images"
    grown.mkdir()
    for index in range(4):
        (grown / f"frame{index}.png").write_bytes((folder / f"frame{index}.png").read_bytes())
    assert len(list(reconstruct(grown, model="tiny-dpt", out=into(out), **SETTINGS))) == 4
    (grown / "frame4.png").write_bytes((folder / "frame4.png").read_bytes())
    rest = reconstruct(grown, model="tiny-dpt", out=into(out, resume=True), **SETTINGS)
    assert [p.index for p in rest] == [4]


def test_a_folder_that_lost_or_gained_images_among_those_done_is_refused(folder, tmp_path):
    images_folder, out = tmp_path / "images", tmp_path / "run"
    shutil.copytree(folder, images_folder)
    with reconstruct(images_folder, model="tiny-dpt", out=into(out), **SETTINGS) as predictions:
        for prediction in predictions:
            if prediction.index == 7:
                break
    before = content(out)
    lost = (images_folder / "frame3.png").read_bytes()
    (images_folder / "frame3.png").unlink()
    with pytest.raises(RunError, match=r"lost: \d+ frame3\.png\nPut"):
        reconstruct(images_folder, model="tiny-dpt", out=into(out, resume=True), **SETTINGS)
    (images_folder / "frame3.png").write_bytes(lost)
    (images_folder / "frame2b.png").write_bytes(lost)
    with pytest.raises(RunError, match=r"new: \d+ frame2b\.png\nPut"):
        reconstruct(images_folder, model="tiny-dpt", out=into(out, resume=True), **SETTINGS)
    (images_folder / "frame2b.png").unlink()
    (images_folder / "frame5.png").write_bytes(lost + b"x")
    with pytest.raises(RunError, match=r"lost: \d+ frame5\.png\n  new: \d+ frame5\.png\nPut"):
        reconstruct(images_folder, model="tiny-dpt", out=into(out, resume=True), **SETTINGS)
    assert content(out) == before
    shutil.copy(folder / "frame5.png", images_folder / "frame5.png")
    rest = reconstruct(images_folder, model="tiny-dpt", out=into(out, resume=True), **SETTINGS)
    assert [p.index for p in rest] == list(range(8, FRAMES))


def test_a_second_run_is_refused(folder, whole, tmp_path):
    before = content(whole)
    with pytest.raises(RunError, match="--resume"):
        reconstruct(folder, model="tiny-dpt", out=into(whole), **SETTINGS)
    again = into(whole, resume=True)
    for change in ({"rule": "overwrite"}, {"reset": None}, {"size": 48}):
        with pytest.raises(RunError, match="other settings"):
            reconstruct(folder, model="tiny-dpt", out=again, **SETTINGS | change)
    with pytest.raises(RunError, match="other settings"):
        reconstruct(open_source(folder, stride=2), model="tiny-dpt", out=again, **SETTINGS)
    with pytest.raises(RunError, match="other settings"):
        reconstruct(folder, model="tiny-linear", out=into(whole, resume=True), **SETTINGS)
    with pytest.raises(SettingError, match="either"):
        into(whole, resume=True, overwrite=True)
    assert content(whole) == before
    (tmp_path / "precious.txt").write_text("mine")
    for options in ({}, {"overwrite": True}, {"resume": True}):
        with pytest.raises(RunError, match="other files"):
            reconstruct(folder, model="tiny-dpt", out=into(tmp_path, **options), **SETTINGS)
    assert [p.name for p in tmp_path.iterdir()] == ["precious.txt"]


def test_a_manifest_of_another_program_protects_its_folder(folder, tmp_path):
    (tmp_path / "manifest.json").write_text('{"name": "my app"}')
    (tmp_path / "frames").mkdir()
    (tmp_path / "frames" / "precious.txt").write_text("mine")
    for options in ({}, {"overwrite": True}, {"resume": True}):
        with pytest.raises(RunError, match="format"):
            reconstruct(folder, model="tiny-dpt", out=into(tmp_path, **options), **SETTINGS)
    assert (tmp_path / "frames" / "precious.txt").read_text() == "mine"


def test_a_run_without_frames_is_in_nobodys_way(folder, tmp_path):
    """Settings that fail at the first frame can be corrected and tried again."""
    out = tmp_path / "run"
    with pytest.raises((InputError, SettingError)):
        list(reconstruct(folder, model="tiny-dpt", out=into(out), **SETTINGS | {"size": 5}))
    assert Run.open(out).manifest["status"] == "failed" and len(Run.open(out)) == 0
    for options in ({}, {"resume": True}):
        with reconstruct(
            folder, model="tiny-dpt", out=into(out, **options), **SETTINGS
        ) as predictions:
            if options:
                next(predictions)
    assert Run.open(out).manifest["size"] == 64


def test_overwrite_deletes_only_the_run(folder, tmp_path):
    out = tmp_path / "run"
    list(reconstruct(folder, model="tiny-dpt", out=into(out), **SETTINGS))
    (out / "notes.txt").write_text("mine")
    sparse = open_source(folder, stride=7)
    list(reconstruct(sparse, model="tiny-dpt", out=into(out, overwrite=True), **SETTINGS))
    assert len(Run.open(out)) == 2 and (out / "notes.txt").read_text() == "mine"


def test_two_writers_exclude_each_other(folder, tmp_path):
    out = tmp_path / "run"
    with reconstruct(folder, model="tiny-dpt", out=into(out), **SETTINGS) as first:
        next(first)
        with pytest.raises(RunError, match="still writing the run"):
            reconstruct(folder, model="tiny-dpt", out=into(out, resume=True), **SETTINGS)
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
        list(reconstruct(folder, model="tiny-dpt", out=into(out), **SETTINGS))
    monkeypatch.setattr(writer_module, "write_prediction", real)
    assert len(Run.open(out)) == 7
    again = reconstruct(folder, model="tiny-dpt", out=into(out, resume=True), **SETTINGS)
    assert again.resumed_at == 6
    list(again)
    assert_same_run(out, whole)


def test_a_damaged_image_in_the_middle(folder, whole, tmp_path):
    """Frames before it are kept; after the file is replaced the run goes on."""
    broken = tmp_path / "images"
    broken.mkdir()
    for image in folder.iterdir():
        (broken / image.name).write_bytes(image.read_bytes())
    intact = (broken / "frame6.png").read_bytes()
    (broken / "frame6.png").write_bytes(intact[:100])
    out = tmp_path / "run"
    with pytest.raises(InputError, match=r"frame6\.png"):
        list(reconstruct(broken, model="tiny-dpt", out=into(out), **SETTINGS))
    assert len(Run.open(out)) == 6 and Run.open(out).manifest["status"] == "failed"
    (broken / "frame6.png").write_bytes(intact)
    list(reconstruct(broken, model="tiny-dpt", out=into(out, resume=True), **SETTINGS))
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


def test_places_that_cannot_hold_a_run(folder, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="is a file"):
        reconstruct(folder, model="tiny-dpt", out=into(tmp_path / "file"), **SETTINGS)
    with pytest.raises(RunError, match="Choose a folder"):
        reconstruct(folder, model="tiny-dpt", out=into(tmp_path / "file" / "run"), **SETTINGS)
    with pytest.raises(SettingError, match="checkpoint_every"):
        RunFolder(tmp_path / "run", checkpoint_every=0)


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
    predictions = reconstruct(folder, model="tiny-dpt", out=into(out), **SETTINGS)
    next(predictions)
    del predictions
    assert Run.open(out).manifest["status"] == "interrupted"
    never_started = reconstruct(folder, model="tiny-dpt", out=into(out, resume=True), **SETTINGS)
    never_started.close()
    assert (
        len(list(reconstruct(folder, model="tiny-dpt", out=into(out, resume=True), **SETTINGS)))
        == 13
    )


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


@pytest.mark.parametrize("kept", [0, 300])
@pytest.mark.parametrize("index", [3, 9, 13])
def test_a_damaged_frame_is_made_again(folder, whole, tmp_path, caplog, index, kept):
    """Frames emptied or cut by a power failure, before and after the last checkpoint."""
    out = tmp_path / "run"
    with reconstruct(folder, model="tiny-dpt", out=into(out), **SETTINGS) as predictions:
        for prediction in predictions:
            if prediction.index == 9:
                break
    path = frame_path(out, index)
    content_before = path.read_bytes() if path.exists() else b"x" * 400
    path.write_bytes(content_before[:kept])
    list(reconstruct(folder, model="tiny-dpt", out=into(out, resume=True), **SETTINGS))
    assert ("starts over" in caplog.text) == (index <= 9)
    assert_same_run(out, whole)


def test_a_damaged_frame_of_a_complete_run_is_made_again(folder, whole, tmp_path, caplog):
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    frame_path(out, 6).write_bytes(b"")
    list(reconstruct(folder, model="tiny-dpt", out=into(out, resume=True), **SETTINGS))
    assert "frame 6" in caplog.text
    assert_same_run(out, whole)


def test_frames_are_durable_before_the_session_that_counts_them(folder, tmp_path, monkeypatch):
    events = []

    def noted(paths):
        events.append([path.name for path in paths])

    real = SessionBase.save

    def save(session, path):
        events.append(session.index)
        real(session, path)

    monkeypatch.setattr(writer_module, "sync_files", noted)
    monkeypatch.setattr(SessionBase, "save", save)
    list(reconstruct(folder, model="tiny-dpt", out=into(tmp_path / "run"), **SETTINGS))
    durable = 0
    for synced, index in zip(events[::2], events[1::2], strict=True):
        assert synced[-1] == "trajectory.tum"
        durable += len(synced) - 1
        assert durable == index
    assert durable == FRAMES


def test_reading_one_frame_does_not_list_the_folder(whole, monkeypatch):
    listed = []
    real = Path.glob
    monkeypatch.setattr(Path, "glob", lambda *words: listed.append(words) or real(*words))
    run = Run.open(whole)
    for index in range(FRAMES):
        assert run[index].index == index
        assert len(run) == FRAMES
    assert len(listed) <= 1


def test_a_run_that_is_being_written_grows_and_one_that_is_replaced_shrinks(whole, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    paths = [frame_path(out, index) for index in range(FRAMES)]
    contents = [path.read_bytes() for path in paths]
    for path in paths[5:]:
        path.unlink()
    run = Run.open(out)
    assert len(run) == 5
    for path, data in zip(paths[5:8], contents[5:8], strict=True):
        path.write_bytes(data)
    assert len(run) == 8 and run[-1].index == 7
    for path in paths[2:]:
        path.unlink(missing_ok=True)
    assert len(run) == 2
    with pytest.raises(IndexError):
        run[2]


def test_unplaced_frames_have_no_line(tmp_path):
    pose = torch.full((4, 4), float("nan"))
    assert line_of(0.0, pose) == "" and line_of(0.0, None) == ""
    numbers = [float(word) for word in line_of(0.5, torch.eye(4)).split()]
    assert numbers == [0.5, 0, 0, 0, 0, 0, 0, 1]


def test_overwriting_a_linked_folder_of_frames_leaves_no_stale_frame(folder, tmp_path):
    out, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    list(reconstruct(folder, model="tiny-dpt", out=into(out), **SETTINGS))
    (out / "frames").rename(elsewhere)
    (out / "frames").symlink_to(elsewhere)
    sparse = open_source(folder, stride=7)
    list(reconstruct(sparse, model="tiny-dpt", out=into(out, overwrite=True), **SETTINGS))
    assert len(Run.open(out)) == 2 and len(list(elsewhere.iterdir())) == 2


def test_overwriting_refuses_to_touch_files_of_others_among_the_frames(folder, tmp_path):
    out = tmp_path / "run"
    list(reconstruct(folder, model="tiny-dpt", out=into(out), **SETTINGS))
    (out / "frames" / "notes.txt").write_text("mine")
    before = content(out)
    with pytest.raises(RunError, match=r"notes\.txt"):
        reconstruct(folder, model="tiny-dpt", out=into(out, overwrite=True), **SETTINGS)
    assert content(out) == before


def test_a_tilde_stands_for_the_home_folder(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    list(reconstruct(folder, model="tiny-dpt", out=into("~/run"), **SETTINGS))
    assert len(Run.open("~/run")) == len(Run.open(tmp_path / "run")) == FRAMES


@pytest.mark.parametrize("count", counts(10_000))
def test_damaged_frame_files_raise_run_errors_only(whole, tmp_path, count):
    """Seeded mutations; what still reads is a prediction."""
    generator = random.Random(0)
    small = replace(Run.open(whole)[1], image=None, points=None, confidence=None)
    path = tmp_path / "000001.safetensors"
    write_prediction(path, small)
    intact = path.read_bytes()
    refused = 0
    for _ in range(count):
        path.write_bytes(mutated(intact, generator))
        for read in (read_prediction, read_pose):
            try:
                read(path)
            except RunError:
                refused += 1
    assert refused > count / 2


def test_maps_of_different_sizes_are_damage(tmp_path):
    """Damage that leaves each map whole by itself; exporters would trip over it."""
    path = tmp_path / "000000.safetensors"
    points = torch.ones(2, 3, 3)
    write_prediction(path, Prediction(index=0, timestamp=0.0, points=points))
    header, tensors = read_tensors(path, frame_file._Header)
    for other in ({"image": torch.zeros(3, 2, 3).byte()}, {"confidence": torch.ones(3, 2)}):
        write_tensors(path, tensors | other, header)
        with pytest.raises(RunError, match=r"damaged.*different sizes"):
            read_prediction(path)


@pytest.mark.parametrize("count", counts(2_000))
def test_damaged_manifests_raise_run_errors_only(whole, tmp_path, count):
    generator = random.Random(1)
    path = tmp_path / "manifest.json"
    intact = (whole / "manifest.json").read_bytes()
    for _ in range(count):
        path.write_bytes(mutated(intact, generator))
        with contextlib.suppress(RunError):
            Run.open(tmp_path)
