"""One look per segment: equal to looks by hand, and as robust as any other run."""

import dataclasses
import itertools
import json

import numpy as np
import pytest
import torch

from tests.networks import random_tiny
from tests.stream.test_session import assert_same
from tests.vggt_networks import random_tiny as random_vggt
from ttt3r.errors import CapacityError, InputError, SessionError, SettingError
from ttt3r.geometry import se3
from ttt3r.geometry.align import align_points
from ttt3r.runs.folder import RunFolder
from ttt3r.runs.reader import Run
from ttt3r.stream.clips import ClipSession, open_session
from ttt3r.stream.reconstruct import reconstruct
from ttt3r.stream.session import Session
from ttt3r.types import Reading

COUNT = 8
EVERYTHING = ("points", "pose", "world")


@pytest.fixture(scope="module")
def model():
    return random_vggt("vggt")


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (COUNT, 28, 42, 3), np.uint8)


def pixels(frames: np.ndarray) -> torch.Tensor:
    """Laid out in memory as a session does it; another layout may round differently."""
    channels = torch.from_numpy(frames).permute(0, 3, 1, 2).contiguous()
    return ((channels.float() / 255 - 0.5) / 0.5)[None]


@torch.no_grad()
def test_without_resets_it_is_one_look_at_the_whole(model, frames):
    session = ClipSession(model, outputs=EVERYTHING)
    said = list(session.stream(frames))
    whole = model.predict(pixels(frames), EVERYTHING)
    for index, prediction in enumerate(said):
        assert (prediction.index, prediction.segment, prediction.scale) == (index, 0, 1.0)
        for name in ("points", "confidence", "world_points", "intrinsics"):
            assert torch.equal(getattr(prediction, name), getattr(whole, name)[0, index]), name
        pose = whole.world_from_camera[0, index]
        torch.testing.assert_close(prediction.world_from_camera, pose, atol=1e-5, rtol=0)
        assert torch.equal(prediction.image, torch.from_numpy(frames[index]))
    assert len(said) == COUNT and session.index == 0  # nothing is settled before a segment ends


@torch.no_grad()
def test_segments_share_a_frame_and_join_in_one_unit(model, frames):
    said = list(ClipSession(model, 3).stream(frames))
    assert [p.segment for p in said] == [0, 0, 0, 1, 1, 1, 2, 2]
    placement = torch.eye(4, dtype=torch.float64)
    before = None
    for number, (start, end) in enumerate([(0, 3), (2, 6), (5, 8)]):
        looked = model.predict(pixels(frames[start:end]), ("points", "pose"))
        poses = se3.pose_from_encoding(se3.encoding_from_pose(looked.world_from_camera[0]).double())
        if before is not None:
            (old, new), weight = zip(before, seen(looked, poses, 0), strict=True)
            placement = placement @ align_points(new, old, weight[0] * weight[1], with_scale=True)
        scale = float(se3.similarity_scale(placement))
        for index in range(start + (number > 0), end):
            prediction, view = said[index], index - start
            assert prediction.scale == pytest.approx(scale, rel=1e-6)
            torch.testing.assert_close(
                prediction.points, looked.points[0, view] * scale, rtol=1e-4, atol=1e-5
            )
            pose = se3.place_camera(placement, poses[view]).float()
            torch.testing.assert_close(prediction.world_from_camera, pose, rtol=1e-4, atol=1e-5)
        before = seen(looked, poses, -1)
    assert said[-1].scale != 1.0


def seen(looked: Reading, poses: torch.Tensor, view: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Every fourth point of a view in its segment, and the logarithms of their confidences."""
    points = looked.points[0, view, ::4, ::4].double().reshape(-1, 3)
    confidence = looked.confidence[0, view, ::4, ::4].double().flatten()
    return se3.apply(poses[view], points), confidence.log()


def without_pose(model, monkeypatch, bad):
    """Let the views of which `bad` says so, by their pixels, have no pose."""
    predict = type(model).predict

    def partly(self, images, outputs=("points", "pose")):
        output = predict(self, images, outputs)
        poses = output.world_from_camera.clone()
        poses[0, [bad(image) for image in images[0]]] = torch.nan
        return dataclasses.replace(output, world_from_camera=poses)

    monkeypatch.setattr(type(model), "predict", partly)


def test_segments_meet_at_a_frame_that_has_a_pose(model, frames, monkeypatch, caplog):
    unplaced = pixels(frames)[0, 2]
    without_pose(model, monkeypatch, lambda image: torch.equal(image, unplaced))
    session = ClipSession(model, 3)
    said = list(itertools.islice(session.stream(frames), 3))
    assert not said[2].world_from_camera.isfinite().all()
    assert torch.equal(session.state.image[0, 0], pixels(frames)[0, 1])
    rest = list(session.stream(frames[3:]))
    assert all(p.world_from_camera.isfinite().all() and p.points.isfinite().all() for p in rest)
    assert not caplog.records


@pytest.mark.parametrize("stitch", ["pose", "similarity"])
def test_segments_without_any_pose_say_so_and_keep_their_points(
    model, frames, monkeypatch, caplog, stitch
):
    without_pose(model, monkeypatch, lambda image: True)
    said = list(ClipSession(model, 3, stitch=stitch).stream(frames))
    assert all(p.points.isfinite().all() and p.scale == 1.0 for p in said)
    assert not any(p.world_from_camera.isfinite().all() for p in said)
    assert "has no pose" in caplog.text


def test_poses_alone_chain_without_scale(model, frames):
    said = list(ClipSession(model, 3, ("pose",), "pose").stream(frames))
    assert all(p.scale == 1.0 and p.points is None for p in said)
    assert len({p.segment for p in said}) == 3


@pytest.mark.parametrize("stop", [1, 3, 4, 7])
def test_saved_and_loaded_goes_on_after_the_last_segment(model, frames, tmp_path, stop):
    whole = list(ClipSession(model, 3).stream(frames))
    session = ClipSession(model, 3)
    list(itertools.islice(session.stream(frames), stop))
    session.save(tmp_path / "session")
    again = ClipSession.load(tmp_path / "session", model)
    assert again.index == session.index == stop // 3 * 3
    assert type(again.stitch) is type(session.stitch) and again.rule == session.rule
    for actual, expected in zip(
        again.stream(frames[again.index :]), whole[again.index :], strict=True
    ):
        assert_same(actual, expected)


def test_a_fork_goes_its_own_way(model, frames):
    session = ClipSession(model, 3)
    stream = session.stream(frames)
    said = list(itertools.islice(stream, 4))
    fork = session.fork()
    rest = list(stream)
    assert fork.index == 3 and session.index == 6
    for actual, expected in zip(fork.stream(frames[3:]), said[3:] + rest, strict=True):
        assert_same(actual, expected)


def test_which_session_suits(model, frames, tmp_path):
    for rule in (None, "once"):
        assert isinstance(open_session(model, rule), ClipSession)
    for rule in ("keep_all", "window(4)"):
        assert isinstance(open_session(model, rule), Session)
    assert isinstance(open_session(random_tiny()), Session)
    with pytest.raises(SettingError, match="known names are: keep_all, once, window"):
        open_session(model, "ttt3r")
    with pytest.raises(SettingError, match="answers when a clip has ended"):
        Session(model, "once")
    with pytest.raises(SettingError, match="unknown rule 'once'"):
        open_session(random_tiny(), "once")
    pushed = Session(model)
    pushed.push(frames[0])
    pushed.save(tmp_path / "pushed")
    with pytest.raises(SessionError, match="it answers for each frame"):
        ClipSession.load(tmp_path / "pushed", model)
    clip = ClipSession(model)
    clip.save(tmp_path / "clip")
    with pytest.raises(SessionError, match="answers when a clip has ended"):
        Session.load(tmp_path / "clip", model)
    other = random_vggt("vggt")
    other.weights = dataclasses.replace(other.weights, sha256="another")
    with pytest.raises(SessionError, match="Load those weights"):
        ClipSession.load(tmp_path / "clip", other)


def test_unusable_frames(model, frames):
    other = np.zeros((42, 42, 3), np.uint8)
    with pytest.raises(InputError, match="frame 2 has 42x42 pixels, those before it 42x28"):
        list(ClipSession(model).stream([*frames[:2], other]))
    with pytest.raises(InputError, match="frame 3 has 42x42 pixels"):  # the shared frame counts
        list(ClipSession(model, 3).stream([*frames[:3], other]))
    with pytest.raises(InputError, match="push takes"):
        list(ClipSession(model).stream([frames[0][..., :2]]))
    with pytest.raises(SettingError, match="multiple"):
        list(ClipSession(model).stream(np.zeros((2, 30, 42, 3), np.uint8)))
    with pytest.raises(SettingError, match="cannot give rgb"):
        ClipSession(model, outputs=("rgb",))
    assert list(ClipSession(model).stream([])) == []


SETTINGS = dict(size=42)


@pytest.mark.parametrize("reset", [None, 3])
def test_stopped_and_resumed_equals_uninterrupted(model, frames, tmp_path, reset):
    settings = dict(model=model, reset=reset, **SETTINGS)
    whole = list(reconstruct(frames, out=tmp_path / "whole", **settings))
    assert len(whole) == COUNT
    for stop in (1, 5, 7):
        out = tmp_path / f"run{stop}"
        with reconstruct(frames, out=out, **settings) as part:
            list(itertools.islice(part, stop))
            assert part.done == stop
        assert Run.open(out).manifest["status"] == "interrupted" and len(Run.open(out)) == stop
        rest = reconstruct(frames, out=RunFolder(out, resume=True), **settings)
        first = 0 if reset is None else stop // 3 * 3
        assert rest.resumed_at == first
        for actual, expected in zip(rest, whole[first:], strict=True):
            assert_same(actual, expected)
        names = (
            "trajectory.tum",
            "session.safetensors",
            *(f"frames/{p.name}" for p in sorted((out / "frames").iterdir())),
        )
        for name in names:
            assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_resuming_a_complete_run_does_nothing(model, frames, tmp_path):
    list(reconstruct(frames, model=model, out=tmp_path, **SETTINGS))
    before = (tmp_path / "frames" / "000000.safetensors").stat().st_mtime_ns
    again = reconstruct(frames, model=model, out=RunFolder(tmp_path, resume=True), **SETTINGS)
    assert again.resumed_at == again.done == COUNT and list(again) == []
    run = Run.open(tmp_path)
    assert len(run) == COUNT and run.manifest["status"] == "complete"
    assert (tmp_path / "frames" / "000000.safetensors").stat().st_mtime_ns == before


@pytest.mark.parametrize("reset", [None, 3])
def test_a_stop_is_heard_while_a_clip_is_gathered(model, frames, tmp_path, reset):
    asked = itertools.count(1)
    settings = dict(model=model, reset=reset, **SETTINGS)
    stopping = reconstruct(frames, out=tmp_path, stop_when=lambda: next(asked) == 5, **settings)
    with pytest.raises(KeyboardInterrupt):
        list(stopping)
    done = 0 if reset is None else 3
    assert stopping.done == done and len(list((tmp_path / "frames").iterdir())) == done
    assert json.loads((tmp_path / "manifest.json").read_text())["status"] == "interrupted"
    rest = reconstruct(frames, out=RunFolder(tmp_path, resume=True), **settings)
    assert rest.resumed_at == done and len(list(rest)) == COUNT - done


def test_too_little_memory_says_what_helps(model, frames, tmp_path, monkeypatch):
    def fail(*arguments):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB\nmore")

    monkeypatch.setattr(type(model), "predict", fail)
    with pytest.raises(CapacityError, match=r"frame 0: out of memory: .* 9 GiB. .*--reset 50"):
        list(reconstruct(frames, model=model, out=tmp_path, **SETTINGS))
    assert json.loads((tmp_path / "manifest.json").read_text())["status"] == "failed"

    def broken(*arguments):
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(type(model), "predict", broken)
    with pytest.raises(RuntimeError, match="shapes"):
        list(reconstruct(frames, model=model, **SETTINGS))
