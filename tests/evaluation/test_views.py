import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.evaluation.trajectories import expected
from tests.geometry.samples import SEEDS
from tests.goldens import load_npz
from ttt3r.errors import InputError, SettingError
from ttt3r.evaluation.sequences import TrueFrame
from ttt3r.evaluation.views import prepare_view, unproject


def pinhole(focal, u, v):
    return np.array([[focal, 0.0, u], [0.0, focal, v], [0.0, 0.0, 1.0]])


def ramps(width, height):
    """An image whose colours say where a pixel is."""
    v, u = np.indices((height, width))
    return np.stack([u * 255 // width, v * 255 // height, u * 0], -1).astype(np.uint8)


def true_frame(width, height, intrinsics):
    """A frame whose depth is a ramp, so that a pixel says where it was."""
    v, u = np.indices((height, width), dtype=np.float32)
    return TrueFrame(
        image=ramps(width, height),
        timestamp=0.0,
        depth=1.0 + (u + 1000.0 * v) * np.float32(1e-3),
        world_from_camera=np.eye(4),
        intrinsics=intrinsics,
    )


# Goldens


def test_golden_views():
    cases = expected("image")["mv_recon_crop_resize"]
    assert len(cases) == 4
    for case in cases:
        width, height = case["src_wh"]
        v, u = np.indices((height, width))
        frame = TrueFrame(
            image=np.zeros((height, width, 3), np.uint8),
            timestamp=0.0,
            depth=(((13 * u + 17 * v) % 4000) / 1000.0).astype(np.float32),
            intrinsics=np.array(case["K"]),
        )
        view = prepare_view(frame, tuple(case["res_wh"]))
        assert view.depth.shape == view.image.shape[:2] == tuple(case["out_wh"][::-1])
        np.testing.assert_allclose(view.intrinsics, case["K_out"], rtol=0, atol=1e-4)
        sample = np.array(case["depth_sample"], np.float32)
        np.testing.assert_array_equal(view.depth[::61, ::67], sample)
        assert view.depth.astype(np.float64).sum() == pytest.approx(case["depth_sum"], rel=1e-12)


def test_golden_pointmap():
    golden = load_npz("eval/image", "unproject")
    points, valid = unproject(golden["depth"], golden["K"], golden["pose"])
    np.testing.assert_array_equal(valid, golden["valid"])
    np.testing.assert_allclose(points, golden["pts3d"], rtol=0, atol=1e-5)


# Pointmaps


@given(SEEDS)
def test_pointmaps_equal_their_definition(seed):
    rng = np.random.default_rng(seed)
    depth = rng.uniform(0.5, 4.0, (3, 4)).astype(np.float32)
    pose = np.eye(4)
    pose[:3] = rng.normal(size=(3, 4))
    matrix = pinhole(rng.uniform(2.0, 9.0), 1.3, 0.8)
    points, valid = unproject(depth, matrix, pose)
    assert valid.all()
    for v, u in np.ndindex(3, 4):
        seen = depth[v, u] * np.linalg.inv(matrix) @ [u, v, 1.0]
        np.testing.assert_allclose(points[v, u], pose[:3, :3] @ seen + pose[:3, 3], rtol=1e-5)


def test_unknown_depth_is_no_point():
    depth = np.array([[1.0, 0.0, -1.0, np.nan, np.inf]])
    points, valid = unproject(depth, np.eye(3), np.eye(4))
    assert valid.tolist() == [[True, False, False, False, False]]
    assert np.isfinite(points).all()
    with pytest.raises(InputError, match="not finite"):
        unproject(depth, np.eye(3), np.eye(4) * np.nan)


# Views


def test_a_view_of_the_same_size_is_the_frame():
    frame = true_frame(160, 112, pinhole(120.0, 80.0, 56.0))
    view = prepare_view(frame, (160, 112))
    np.testing.assert_array_equal(view.image, frame.image)
    np.testing.assert_array_equal(view.depth, frame.depth)
    np.testing.assert_allclose(view.intrinsics, frame.intrinsics, atol=1e-5)
    np.testing.assert_array_equal(view.world_from_camera, np.eye(4))


@given(
    st.integers(20, 90),
    st.integers(20, 90),
    st.floats(0.2, 0.8),
    st.floats(0.2, 0.8),
    st.sampled_from([(32, 24), (160, 112), (24, 24), (16, 64)]),
)
def test_intrinsics_follow_the_pixels(width, height, across, down, size):
    """A pixel's depth says where it was; the intrinsics must say the same, to rounding."""
    matrix = pinhole(50.0, across * width, down * height)
    frame = true_frame(width, height, matrix)
    view = prepare_view(frame, size)
    assert view.image.shape == (size[1], size[0], 3) and view.depth.shape == size[::-1]
    index = np.rint((view.depth.astype(np.float64) - 1.0) * 1e3)
    was = np.stack([index % 1000, index // 1000], -1)
    if height > width and size[0] > size[1]:
        was = was[..., ::-1]
        matrix = matrix[[1, 0, 2]][:, [1, 0, 2]]
    v, u = np.indices(view.depth.shape)
    rays = [
        (pixel - k[[0, 1], [2, 2]]) / k[[0, 1], [0, 1]]
        for pixel, k in ((was, matrix), (np.stack([u, v], -1), view.intrinsics))
    ]
    pixel = 1.0 / min(50.0, view.intrinsics[0, 0])
    assert np.abs(rays[0] - rays[1]).max() < 1.5 * pixel


def test_the_scale_covers_the_view_without_a_margin():
    """Half the width that is left about the principal point decides."""
    view = prepare_view(true_frame(64, 48, pinhole(40.0, 24.0, 24.0)), (48, 48))
    np.testing.assert_allclose(view.intrinsics, pinhole(40.0, 24.0, 24.0), atol=1e-5)
    np.testing.assert_array_equal(view.depth, true_frame(64, 48, np.eye(3)).depth[:, :48])


def test_portrait_frames_are_transposed_and_keep_their_points():
    frame = true_frame(48, 64, pinhole(40.0, 24.0, 32.0))
    view = prepare_view(frame, (64, 48))
    np.testing.assert_array_equal(view.image, frame.image.swapaxes(0, 1))
    np.testing.assert_array_equal(view.depth, frame.depth.T)
    there, _ = unproject(view.depth, view.intrinsics, view.world_from_camera)
    here, _ = unproject(frame.depth, frame.intrinsics, frame.world_from_camera)
    np.testing.assert_allclose(there, here.swapaxes(0, 1), atol=1e-4)
    np.testing.assert_array_equal(frame.world_from_camera, np.eye(4))
    unknown = prepare_view(dataclasses.replace(frame, world_from_camera=None), (64, 48))
    assert unknown.world_from_camera is None


def test_colour_of_another_size_comes_to_the_size_of_depth():
    frame = true_frame(64, 48, pinhole(100.0, 63.5, 47.5))
    object.__setattr__(frame, "image", ramps(128, 96))  # checked only when a frame is made
    view = prepare_view(frame, (64, 48))
    np.testing.assert_array_equal(view.depth, frame.depth)
    np.testing.assert_allclose(view.intrinsics, pinhole(50.0, 31.5, 23.5), atol=1e-5)
    columns = view.image[24, :, 0].astype(np.float64)
    np.testing.assert_allclose(columns, np.arange(64) * 255 / 64, atol=3.0)


# Hostile input


def test_frames_that_lack_something():
    frame = true_frame(64, 48, pinhole(40.0, 32.0, 24.0))
    for missing in ("depth", "intrinsics"):
        with pytest.raises(InputError, match="no true depth or no intrinsics"):
            prepare_view(dataclasses.replace(frame, **{missing: None}), (64, 48))


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (pinhole(40.0, 320.0, 24.0), "not inside of the image of 64x48"),
        (pinhole(40.0, 32.0, 0.2), "not inside"),
        (pinhole(0.0, 32.0, 24.0), "positive focal"),
        (pinhole(40.0, np.nan, 24.0), "not finite"),
    ],
)
def test_unusable_intrinsics(matrix, message):
    with pytest.raises(InputError, match=message):
        prepare_view(true_frame(64, 48, matrix), (64, 48))


def test_unusable_size():
    with pytest.raises(SettingError, match="0x48"):
        prepare_view(true_frame(64, 48, pinhole(40.0, 32.0, 24.0)), (0, 48))
