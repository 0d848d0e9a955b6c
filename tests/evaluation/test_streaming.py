"""Scoring a session: what is kept, perfect and broken predictions, and sequences without truth."""

import math

import numpy as np
import pytest
import torch

from tests.evaluation.test_sequences import write_sequence
from tests.evaluation.trajectories import random_trajectory
from tests.networks import random_tiny
from ttt3r.errors import InputError, SettingError
from ttt3r.evaluation.metrics.depth import depth_errors
from ttt3r.evaluation.placement import placement_error
from ttt3r.evaluation.sequences import ArraySequence, FolderSequence, TrueFrame
from ttt3r.evaluation.streaming import (
    EstimateRecorder,
    Record,
    TruthRecorder,
    collect,
    depth_in_network,
    measure,
    score,
)
from ttt3r.geometry.camera import unproject
from ttt3r.sources import prepare
from ttt3r.stream.session import Session
from ttt3r.types import ImagePolicy, ImageTransform


def scene(frames: int = 6, size=(48, 64), seed: int = 3) -> ArraySequence:
    """A sequence with random truth at the network's own size."""
    random = np.random.default_rng(seed)
    matrix = np.array([[60.0, 0, 31.5], [0, 60.0, 23.5], [0, 0, 1]])
    depth = random.uniform(1, 4, (frames, *size)).astype(np.float32)
    depth[:, :3] = 0
    return ArraySequence(
        "random",
        random.integers(0, 256, (frames, *size, 3), np.uint8),
        depth,
        random_trajectory(seed, frames),
        np.tile(matrix, (frames, 1, 1)),
    )


def told(sequence, scale=1.0, spoil=lambda frame, pose, points: None) -> Record:
    """A record in which the truth was predicted, with every length multiplied, then spoiled."""
    truth = TruthRecorder(sequence.name, len(sequence), ImagePolicy(64, 16))
    estimate = EstimateRecorder(truth)
    for i, frame in enumerate(sequence):
        truth.take(frame)
        pose = torch.from_numpy(frame.world_from_camera.copy()).float()
        pose[:3, 3] *= scale
        depth = torch.from_numpy(np.where(frame.depth > 0, frame.depth, 1.0)).float()
        points = scale * unproject(depth, torch.from_numpy(frame.intrinsics).float())
        spoil(i, pose, points)
        estimate.take(pose, points)
    return estimate.record()


def test_the_truth_has_no_error():
    record = told(scene(), scale=0.5)
    result = score(record)
    assert (result.frames, result.known_poses, result.size) == (6, 6, (48, 64))
    assert result.notes == () and not result.failed
    assert result.trajectory.ate == pytest.approx(0, abs=1e-5)
    assert result.trajectory.scale == pytest.approx(2, rel=1e-4)
    assert result.ate_percent == pytest.approx(0, abs=1e-3)
    assert result.rotation_deg == pytest.approx(0, abs=1e-3)
    assert result.depth_scale.abs_rel == pytest.approx(0, abs=1e-6)
    assert result.depth_scale.affine.scale == pytest.approx(2)
    assert result.depth_metric.abs_rel == pytest.approx(0.5, abs=1e-6)
    assert result.depth_metric.delta_1 == 0
    assert placement_error(record, record.estimate, 2.0, 2.0) == pytest.approx(0, abs=1e-5)
    assert placement_error(record, record.truth, 2.0, 1.0) == pytest.approx(0, abs=1e-5)
    still = np.tile(np.eye(4), (6, 1, 1))
    assert placement_error(record, still, 2.0, 1.0) > 0.05


def test_a_session_is_measured():
    sequence, model = scene(), random_tiny()
    result = measure(Session(model, "ttt3r"), sequence)
    assert result.trajectory is not None and result.rotation_deg > 0
    assert result.frames_per_second > 0
    session = Session(model, "ttt3r")
    predictions = [session.push(frame.image) for frame in sequence]
    depth = np.stack([p.depth.numpy() for p in predictions])
    truth = np.stack([frame.depth for frame in sequence])
    whole = depth_errors(depth, truth, "scale", compat=False)
    assert result.depth_scale.abs_rel == pytest.approx(whole.abs_rel, rel=1e-6)
    assert result.depth_scale.valid_pixels == whole.valid_pixels


def test_memory_is_bounded():
    sequence, model = scene(frames=8), random_tiny()
    all_of_it = collect(Session(model), sequence)
    some = collect(Session(model), sequence, most_values=1000)
    assert some.kept_one_of == math.ceil(8 * 48 * 64 / 1000)
    assert len(some.depth) <= 1000 + 8 and len(all_of_it.depth) == 8 * 45 * 64
    frames = list(sequence)
    for value, frame, pixel in zip(some.depth, some.frame, some.pixel, strict=True):
        assert frames[frame].depth.ravel()[pixel] == value
    assert len(np.unique(some.pixel)) > 2 * len(some.pixel) / 8  # the pixels shift


def test_the_first_frames_of_a_record():
    sequence, model = scene(), random_tiny()
    short = ArraySequence(
        "random",
        *(
            np.stack([getattr(frame, name) for frame in sequence])[:4]
            for name in ("image", "depth", "world_from_camera", "intrinsics")
        ),
    )
    expected = score(collect(Session(model), short))
    found = score(collect(Session(model), sequence).first(4))
    assert found.trajectory == expected.trajectory and found.frames == 4
    assert found.depth_scale == expected.depth_scale


def test_what_is_not_finite_is_a_failure():
    def spoil(frame, pose, points):
        if frame == 2:
            pose[0, 3] = math.nan
        if frame == 4:
            points[10, 10] = math.inf

    record = told(scene(), spoil=spoil)
    result = score(record)
    assert result.failed and result.trajectory is None and result.depth_scale is None
    assert result.notes == (
        "1 predicted poses are not finite, the first of frame 2",
        "1 predicted depths are not finite",
    )
    before = score(record.first(2))
    assert not before.failed and before.depth_scale is not None


def test_no_truth(tmp_path):
    images = np.stack([frame.image for frame in scene()])
    result = measure(Session(random_tiny()), ArraySequence("bare", images))
    assert result.trajectory is result.rotation_deg is result.ate_percent is None
    assert result.depth_metric is result.depth_scale is result.path_length is None
    assert not result.failed and result.known_poses == 0
    assert result.notes == ("no true pose is known", "no true depth is known")


def test_a_camera_that_stands_still():
    sequence = scene()
    images = np.stack([frame.image for frame in sequence])
    still = ArraySequence("still", images, world_from_camera=np.tile(np.eye(4), (6, 1, 1)))
    result = measure(Session(random_tiny()), still)
    assert result.trajectory is None and result.ate_percent is None and result.rotation_deg > 0
    assert any("cannot be aligned" in note for note in result.notes)


def test_unknown_poses_are_left_out(tmp_path):
    folder = write_sequence(tmp_path / "tiny", frames=6, size=(48, 64))
    lines = (folder / "poses.txt").read_text().splitlines()
    lines[3] = "1.0 nan nan nan nan nan nan nan"
    (folder / "poses.txt").write_text("\n".join(lines))
    result = measure(Session(random_tiny()), FolderSequence(folder))
    assert (result.frames, result.known_poses) == (6, 5)
    assert result.trajectory.frames == 5


def test_truth_follows_resizing_and_cropping():
    """Depth that encodes the source pixel, seen through the transform of the image."""
    policy = ImagePolicy(64, 16)
    rows, columns = np.mgrid[:120, :150].astype(np.float32)
    image = np.zeros((120, 150, 3), np.uint8)
    _, transform = prepare(image, policy)
    seen_rows, seen_columns = (depth_in_network(m, transform) for m in (rows, columns))
    height, width = transform.crop[3], transform.crop[2]
    assert seen_rows.shape == (height, width)
    v, u = np.mgrid[:height, :width]
    original = np.linalg.inv(transform.processed_from_original)
    assert np.abs(original[0, 0] * u + original[0, 2] - seen_columns).max() <= 0.5 + 1e-6
    assert np.abs(original[1, 1] * v + original[1, 2] - seen_rows).max() <= 0.5 + 1e-6
    same = ImageTransform.identity(150, 120)
    np.testing.assert_array_equal(depth_in_network(rows, same), rows)


def test_what_is_refused():
    session = Session(random_tiny())
    session.push(next(iter(scene())).image)
    with pytest.raises(SettingError, match="fresh session"):
        measure(session, scene())
    with pytest.raises(SettingError, match="fresh session"):
        measure(Session(random_tiny(), outputs=("pose",)), scene())
    with pytest.raises(InputError, match="no frames"):
        measure(Session(random_tiny()), ArraySequence("none", np.zeros((0, 48, 64, 3), np.uint8)))

    class Growing:
        name = "growing"

        def __len__(self):
            return 2

        def __iter__(self):
            for size in (48, 96):
                yield TrueFrame(np.zeros((size, 64, 3), np.uint8), 0.0)

    with pytest.raises(InputError, match="another size"):
        measure(Session(random_tiny()), Growing())
    record = told(scene())
    with pytest.raises(InputError, match="true depth, poses and intrinsics"):
        placement_error(record, record.truth, 1.0, 1.0, max_depth=0.5)
