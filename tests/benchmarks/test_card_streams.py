"""Streams in step say what a session says of each of them; and what is rendered for them."""

import numpy as np
import pytest
import torch

from benchmarks import card_data
from benchmarks.card_data import RenderedStream
from benchmarks.card_streams import Gates, Variant, run_streams
from tests.evaluation.test_streaming import scene
from tests.networks import random_tiny
from ttt3r.evaluation.streaming import collect
from ttt3r.stream.session import Session

VARIANTS = [
    Variant(rule, reset)
    for rule in ("overwrite", "ttt3r", "damped(ttt3r, 0.5)")
    for reset in ("never", "every(4)")
]
LENGTH = 11


@pytest.mark.parametrize("network", ["tiny_dpt", "tiny_linear"])
def test_lanes_do_what_sessions_do(network):
    model = random_tiny(network)
    streams = [scene(frames=LENGTH, seed=seed) for seed in range(3)]
    records, gates = run_streams(model, streams, VARIANTS, Variant("ttt3r"))
    for variant in VARIANTS:
        for i, stream in enumerate(streams):
            alone = collect(
                Session(model, variant.rule, variant.reset), stream, most_values=256 * LENGTH
            )
            together = records[variant.name][i]
            np.testing.assert_allclose(together.estimate, alone.estimate, atol=2e-5)
            np.testing.assert_allclose(together.points, alone.points, rtol=1e-4, atol=1e-5)
            for name in ("truth", "depth", "pixel", "frame"):
                np.testing.assert_array_equal(getattr(together, name), getattr(alone, name))
    # The reset makes a difference, so the comparison above means something.
    kept, lost = (records[name][0].estimate for name in ("ttt3r", "ttt3r, reset every(4)"))
    np.testing.assert_allclose(kept[:4], lost[:4], atol=1e-6)
    assert np.abs(kept[4:] - lost[4:]).max() > 1e-3

    session = Session(model, "ttt3r")
    alone = [session.push(frame.image).gate for frame in streams[1]]
    assert len(gates.frames) == LENGTH - 1
    expected = torch.stack(alone[1:]).numpy()
    np.testing.assert_allclose([g[1] for g in gates.frames], expected, atol=1e-5)


def test_gate_statistics():
    gates = Gates([np.array([[0.0, 1.0]]), np.array([[0.5, 0.5]])])
    found = gates.statistics(0)
    assert found["median"] == 0.5
    assert found["spread_over_tokens"] == pytest.approx(0.25)
    assert found["spread_over_frames"] == pytest.approx(0.25)


def test_streams_are_rendered_once_and_go_on(tmp_path, monkeypatch):
    monkeypatch.setattr(card_data, "PART", 3)
    stream = RenderedStream(tmp_path / "streams", card_data.STREAM_SEEDS, (16, 24), 7)
    assert stream.options.world in card_data.WORLDS and stream.options.moving == 0
    stream.render()
    assert stream.missing() == [] and len(stream) == 7
    frames = list(stream)
    assert len(frames) == 7 and frames[6].timestamp == 6
    assert frames[0].image.shape == (16, 24, 3) and frames[0].depth.dtype == np.float32
    assert all(frame.world_from_camera.dtype == np.float64 for frame in frames)
    stream.path(3).unlink()
    assert stream.missing() == [3]
    kept = stream.path(0).stat().st_mtime_ns
    stream.render()  # as after an interruption: the same again, and nothing else touched
    assert stream.path(0).stat().st_mtime_ns == kept
    for before, after in zip(frames, stream, strict=True):
        np.testing.assert_array_equal(before.image, after.image)
        np.testing.assert_array_equal(before.depth, after.depth)
        np.testing.assert_array_equal(before.world_from_camera, after.world_from_camera)
    shorter = RenderedStream(stream.folder, stream.seed, stream.size, 2)
    np.testing.assert_array_equal(list(shorter)[1].image, frames[1].image)
