"""Traces of sessions: against all that was kept by hand, and over saving, forking and resuming."""

import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.networks import random_tiny
from tests.stream.test_session import assert_same, images
from ttt3r import weights
from ttt3r.errors import RunError
from ttt3r.geometry.agreement import agreement, some_points
from ttt3r.runs.folder import RunFolder
from ttt3r.runs.frame_file import read_prediction, write_prediction
from ttt3r.runs.reader import TRACE, Run
from ttt3r.stream.clips import ClipSession
from ttt3r.stream.reconstruct import reconstruct
from ttt3r.stream.session import Session
from ttt3r.tensor_files import read_tensors, write_tensors
from ttt3r.trace.health import DRIFTING, FIRST, LOST, Judge
from ttt3r.trace.horizon import Horizon
from ttt3r.trace.series import SERIES, VALUES
from ttt3r.trace.sketch import Sketch, means
from ttt3r.trace.trace import Trace, _Header, trace_of
from ttt3r.types import Prediction, Quality

FRAMES = 9
SETTINGS = {"rule": "ttt3r", "reset": 4, "outputs": ("points", "pose")}


@pytest.fixture(scope="module")
def walked() -> tuple[Session, list[Prediction], list[torch.Tensor]]:
    """A traced session, its predictions, and its state's tokens before and after each frame."""
    session = Session(random_tiny(), **SETTINGS, trace=True)
    said, states = [], []
    start = session.state.tokens
    states.append(start)
    for image in images(FRAMES):
        said.append(session.push(image))
        states.append(session.state.tokens)
    return session, said, states


def values(trace: Trace, name: str) -> np.ndarray:
    """One number per frame, while no bin holds more."""
    assert trace.sketch.width == 1
    return means(trace.column(name))[:, 0]


def same(one: Trace | None, other: Trace | None) -> bool:
    assert one is not None and other is not None
    left, right = one.to_tensors(), other.to_tensors()
    return left.keys() == right.keys() and all(
        torch.equal(left[name].nan_to_num(-7.0), right[name].nan_to_num(-7.0))
        if left[name].is_floating_point()
        else torch.equal(left[name], right[name])
        for name in left
    )


def test_the_trace_is_what_was_seen(walked):
    session, said, states = walked
    trace = session.trace
    assert trace.frames == FRAMES
    gates = [math.nan if p.gate is None else float(p.gate.double().mean()) for p in said]
    # The same float32 numbers summed in float64.
    np.testing.assert_allclose(values(trace, "gate"), gates, rtol=1e-12)
    # The norm of some hundreds of float32 numbers, summed in either order.
    drift = [float((state - states[0]).norm()) for state in states[1:]]
    drift[3::4] = [math.nan] * len(drift[3::4])  # seen here after the reset, by the trace before it
    known = np.isfinite(drift)
    np.testing.assert_allclose(values(trace, "state_drift")[known], np.array(drift)[known], 1e-5)
    steps = [float((b - a).norm()) for a, b in pairwise(states)]
    np.testing.assert_allclose(values(trace, "state_step")[known], np.array(steps)[known], 1e-5)
    poses = torch.stack([p.world_from_camera for p in said]).double()
    ways = poses[:, :3, 3].diff(dim=0).norm(dim=1)
    np.testing.assert_allclose(values(trace, "translation")[1:], ways, rtol=1e-6)
    assert math.isnan(values(trace, "translation")[0])
    trusted = [float(p.confidence.mean()) for p in said]
    np.testing.assert_allclose(values(trace, "confidence"), trusted, rtol=1e-6)
    assert values(trace, "segment").tolist() == [p.segment for p in said] == [0] * 4 + [1] * 4 + [2]
    agreed = [math.nan] + [
        agreement(
            some_points(before.points, before.world_from_camera, 768),
            after.world_from_camera,
            after.intrinsics,
            after.depth,
        )
        for before, after in pairwise(said)
    ]
    np.testing.assert_array_equal(values(trace, "agreement"), agreed)
    seen = [math.nan if p.quality.agreement is None else p.quality.agreement for p in said]
    np.testing.assert_array_equal(seen, agreed)


def test_tracing_changes_no_prediction(walked):
    plain = Session(random_tiny(), **SETTINGS)
    assert plain.trace is None
    for image, traced in zip(images(FRAMES), walked[1], strict=True):
        prediction = plain.push(image)
        assert prediction.quality is None and isinstance(traced.quality, Quality)
        assert_same(prediction, traced)


def brute_horizons(gates: np.ndarray) -> np.ndarray:
    """Of each token and frame, from all gates so far, [frames, tokens]."""
    found = np.zeros(gates.shape)
    for token in range(gates.shape[1]):
        begin, last = 0, 0
        for frame in range(len(gates)):
            left = np.prod(1 - gates[begin : frame + 1, token])
            length = frame + 1 - begin
            if left < 1 / math.e:
                begin, last, length = frame + 1, length, 0
            found[frame, token] = max(last, length)
    return found


def test_horizons_against_all_gates():
    gates = np.random.default_rng(0).random((60, 7)) ** 3
    gates[:, 0], gates[:, 1] = 0.0, 1.0
    gates[5, 2] = 1.0
    horizon, wanted = Horizon.none(), brute_horizons(gates)
    for gate, frames in zip(gates, wanted, strict=True):
        horizon = horizon.after(gate)
        np.testing.assert_array_equal(horizon.frames, frames)
    assert horizon.frames[0] == 60 and horizon.frames[1] == 1
    assert horizon.bounded_below >= 1
    assert horizon.restarted().after(gates[0]).length.max() == 1


def test_saved_forked_and_gone_on(walked, tmp_path: Path):
    pictures = images(FRAMES)
    session = Session(random_tiny(), **SETTINGS, trace=True)
    for image in pictures[:5]:
        session.push(image)
    session.save(tmp_path / "session")
    fork = session.fork()
    session.push(pictures[0])
    assert fork.trace.frames == 5 and session.trace.frames == 6
    loaded = Session.load(tmp_path / "session", session.model)
    for image in pictures[5:]:
        again, forked = loaded.push(image), fork.push(image)
        assert again.quality == forked.quality
    assert same(loaded.trace, fork.trace) and same(loaded.trace, walked[0].trace)


def test_a_session_without_a_trace_has_none_when_loaded(tmp_path: Path):
    session = Session(random_tiny())
    session.save(tmp_path / "session")
    assert Session.load(tmp_path / "session", session.model).trace is None


def test_resumed_runs_have_the_same_trace(tmp_path: Path):
    def run(name: str, stop: int, **folder: bool) -> Path:
        target = RunFolder(tmp_path / name, checkpoint_every=2, **folder)
        model = random_tiny()
        with reconstruct(images(FRAMES), model=model, out=target, trace=True, reset=4) as frames:
            for _, _ in zip(range(stop), frames, strict=False):
                pass
        return tmp_path / name / TRACE

    whole = run("whole", FRAMES + 1)
    run("parts", 5)
    parts = run("parts", FRAMES + 1, resume=True)
    assert parts.read_bytes() == whole.read_bytes()
    assert Run.open(tmp_path / "whole").manifest["trace"] is True
    with pytest.raises(RunError, match="trace: was true, now null"):
        target = RunFolder(tmp_path / "parts", resume=True)
        reconstruct(images(FRAMES), model=random_tiny(), out=target, reset=4)
    RunFolder(tmp_path / "parts", overwrite=True).clear()
    assert not parts.exists()


def test_what_frames_tell_alone(walked):
    session, said, _ = walked
    trace = trace_of(said)
    for name in ("gate", "horizon", "token_gate", "confidence", "agreement", "translation"):
        np.testing.assert_array_equal(
            means(trace.column(name)), means(session.trace.column(name)), name
        )
    assert not trace.known("state_step") and trace.known("rotation")


@pytest.mark.parametrize("name", ["tiny-point3r", "tiny-streamvggt", "tiny-vggt"])
def test_other_families_trace_what_they_have(name: str):
    model = weights.load(name, "cpu")
    session = Session(model, trace=True)
    side = 2 * model.preparation.patch
    for _ in range(3):
        session.push(torch.rand(3, side, side))
    trace = session.trace
    assert trace.known("confidence") and trace.known("translation") and trace.known("state_bytes")
    assert not trace.known("gate") and not trace.known("state_step")
    assert (np.diff(values(trace, "state_bytes")) > 0).all()


def test_clips_trace_single_frames(tmp_path: Path):
    session = ClipSession(weights.load("tiny-fast3r", "cpu"), reset=2, trace=True)
    pictures = [torch.rand(3, 32, 48) for _ in range(5)]
    frames = session.stream(pictures)
    first = [next(frames) for _ in range(4)]
    session.save(tmp_path / "session")
    assert session.trace.frames == 4 and all(p.quality is not None for p in first)
    next(frames)
    assert session.trace.frames == 5
    again = ClipSession.load(tmp_path / "session", session.model)
    assert again.trace.frames == 4
    list(again.stream(pictures[4:]))
    assert same(again.trace, session.trace)


def test_bounded():
    trace, sizes = Trace(Sketch(most=8)), set()
    for index in range(60):
        gate, pose = torch.full((100,), 0.1), torch.eye(4)
        pose[0, 3] = index
        made = Prediction(index=index, timestamp=0.0, gate=gate, world_from_camera=pose)
        trace, _ = trace.observe(made)
        sizes.add(sum(item.nbytes for item in trace.to_tensors().values()))
    # A row of the sketch takes 32 bytes per value; the rest does not change at all.
    assert max(sizes) - min(sizes) == 7 * 32 * VALUES and trace.sketch.width == 8
    assert trace.horizon.frames.tolist() == [10.0] * 100  # 0.9¹⁰ < 1/e < 0.9⁹
    # The gate is 0.1 in float32.
    np.testing.assert_allclose(means(trace.column("token_gate")), 0.1, rtol=1e-6)


def test_files(walked, tmp_path: Path):
    path, trace = tmp_path / "trace.safetensors", walked[0].trace
    trace.write(path)
    assert same(Trace.read(path), trace)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(RunError, match="missing or damaged"):
        Trace.read(path)


def test_files_from_before_the_last_series(walked, tmp_path: Path):
    path, trace = tmp_path / "trace.safetensors", walked[0].trace
    trace.write(path)
    header, tensors = read_tensors(path, _Header)
    last = list(SERIES)[-1]
    rows = header.series.pop(last)
    for name in ("known", "total", "least", "most"):
        tensors[f"sketch.{name}"] = tensors[f"sketch.{name}"][:, : VALUES - rows]
    write_tensors(path, tensors, header)
    older = Trace.read(path)
    assert not older.known(last)
    assert values(older, "gate").tolist()[1:] == values(trace, "gate").tolist()[1:]
    write_tensors(path, tensors, replace(header, series={"other": VALUES - rows}))
    with pytest.raises(RunError, match="other series"):
        Trace.read(path)


def test_quality_is_stored_and_older_frames_have_none(walked, tmp_path: Path):
    path, prediction = tmp_path / "frame", walked[1][2]
    write_prediction(path, prediction)
    assert read_prediction(path).quality == prediction.quality
    from ttt3r.runs import frame_file

    header, tensors = read_tensors(path, frame_file._Header)
    old = {key: item for key, item in vars(header).items() if key != "quality"}
    write_tensors(path, tensors, old)
    assert read_prediction(path).quality is None


def judged(pairs: list[tuple[float, float]]) -> Iterator[Quality]:
    judge = Judge()
    for pair in pairs:
        judge, quality = judge.look(*pair)
        yield quality


def test_the_judge():
    first = [(math.nan, 2.0)] + [(0.95, 2.0)] * FIRST
    *_, good = judged(first)
    assert good == Quality("in-domain", 0.95, 1.0)
    *_, worse = judged([*first, *[((DRIFTING + LOST) / 2, 1.0)] * 60])
    assert worse.health == "drifting" and worse.confidence == 0.5
    *_, lost = judged([*first, *[(0.0, 1.0)] * 60])
    assert lost.health == "lost"
    (nothing,) = judged([(math.nan, math.nan)])
    assert nothing == Quality()
