import itertools
from pathlib import Path

import numpy as np
import pytest

from ttt3r.errors import InputError
from ttt3r.evaluation.datasets.base import Selection
from ttt3r.evaluation.datasets.synthetic import FRAMES, PATH_FRAMES, Synthetic
from ttt3r.evaluation.sequences import Sequence

SYNTHETIC = Synthetic()
NOWHERE = Path("nowhere")


def open_stream(name="stream-0", **selected):
    return SYNTHETIC.open(NOWHERE, name, Selection(**{"task": "recon"} | selected))


def assert_same(one, other):
    for field in ("image", "timestamp", "depth", "world_from_camera", "intrinsics"):
        np.testing.assert_array_equal(getattr(one, field), getattr(other, field))


def test_no_folder_is_needed():
    assert not SYNTHETIC.needs_root
    names = SYNTHETIC.sequences(NOWHERE, "pose")
    assert names == tuple(f"stream-{i}" for i in range(8))
    with pytest.raises(InputError, match=r"no stream 'stream-8'; choose one of stream-0, stream-1"):
        open_stream("stream-8")


def test_frames():
    sequence = open_stream(frames=2)
    assert isinstance(sequence, Sequence)
    frames = list(sequence)
    assert (sequence.name, len(sequence), len(frames)) == ("stream-0", 2, 2)
    for i, frame in enumerate(frames):
        assert frame.timestamp == pytest.approx(i / 30)
        assert frame.image.shape == (120, 160, 3) and frame.image.dtype == np.uint8
        assert frame.image.std() > 5
        assert frame.depth.shape == (120, 160) and frame.depth.dtype == np.float32
        assert (frame.depth > 0).all()  # a room is closed
        rotation = frame.world_from_camera[:3, :3]
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-9)
        np.testing.assert_array_equal(frame.intrinsics[:, 2], [79.5, 59.5, 1.0])


def test_lengths():
    assert len(open_stream()) == len(open_stream(stride=7)) == FRAMES
    assert len(open_stream(frames=5000)) == 5000
    assert len(open_stream(frames=FRAMES, stride=1000)) == PATH_FRAMES // 1000


def test_a_frame_does_not_depend_on_the_others_shown():
    few, many = list(open_stream("stream-3", frames=3)), open_stream("stream-3", frames=10_000)
    again = list(itertools.islice(many, 5))
    for one, other in zip(few, again[:3], strict=True):
        assert_same(one, other)
    strided = list(open_stream("stream-3", stride=4, frames=2))
    assert_same(strided[0], again[0])
    assert_same(strided[1], again[4])


def test_depth_is_told_to_those_who_ask():
    for task, told in (("pose", False), ("depth", True), ("recon", True)):
        frame = next(iter(open_stream(task=task)))
        assert (frame.depth is not None) == told


def test_streams_differ_and_move():
    firsts, displacements = [], []
    for name in SYNTHETIC.sequences(NOWHERE, "pose"):
        first, later = open_stream(name, task="pose", stride=40, frames=2)
        firsts.append(first.image)
        displacements.append(np.abs(first.world_from_camera - later.world_from_camera).max())
    assert min(displacements) > 0.01
    for one, other in itertools.combinations(firsts, 2):
        assert not np.array_equal(one, other)


def test_depth_poses_and_intrinsics_belong_together():
    """Points of one frame, seen from the next, are about as deep as that frame says."""
    one, other = open_stream("stream-0", frames=2)
    v, u = np.mgrid[:120:7, :160:7].reshape(2, -1)
    rays = np.linalg.inv(one.intrinsics) @ np.stack([u, v, np.ones_like(u)])
    points = np.concatenate([one.depth[v, u] * rays, np.ones((1, u.size))])
    moved = (np.linalg.inv(other.world_from_camera) @ one.world_from_camera @ points)[:3]
    column, row, _ = np.rint(other.intrinsics @ moved / moved[2]).astype(int)
    seen = (column >= 0) & (column < 160) & (row >= 0) & (row < 120)
    assert seen.mean() > 0.8
    error = np.abs(moved[2, seen] / other.depth[row[seen], column[seen]] - 1)
    assert np.median(error) < 0.005 and np.percentile(error, 90) < 0.03
