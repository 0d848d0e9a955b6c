"""A session with resets against what the reference's demo makes of its predictions."""

import pytest
import torch

from tests.goldens import load_npz
from tests.networks import reference_tiny
from tests.parity.test_cut3r import NETWORKS, close
from ttt3r.geometry import se3
from ttt3r.stream.session import Session


@pytest.mark.parametrize("name", NETWORKS)
def test_poses_focals_and_world_points_over_resets(name):
    golden = load_npz("cut3r", f"run_{name}_ttt3r_reset5.npz")
    images = load_npz("cut3r", "frames.npz")["frames"]
    session = Session(reference_tiny(name), rule="ttt3r", reset=5)
    predictions = [session.push(image) for image in images]
    assert [p.segment for p in predictions] == [0] * 5 + [1] * 5 + [2] * 2
    for index, p in enumerate(predictions):
        close(p.world_from_camera[:3, :3], golden["demo_R"][index], what=f"R {index}")
        close(p.world_from_camera[:3, 3], golden["demo_t"][index], what=f"t {index}")
        close(p.intrinsics[:2, 2], golden["demo_pp"][index])
        # A few flipped points of the linear head move the focal length a little.
        rtol = 1e-3 if name == "tiny_linear" else 1e-4
        close(p.intrinsics[0, 0], golden["demo_focal"][index], rtol=rtol, atol=1e-2)
        assert torch.equal(p.intrinsics[0, 0], p.intrinsics[1, 1])
        assert p.scale == 1.0
    world = se3.apply(predictions[7].world_from_camera, predictions[7].points)
    outliers = 1e-2 if name == "tiny_linear" else 0.0
    expected = golden["demo_world_pts_frame7_sub4"]
    close(world[1::4, 2::4], expected, rtol=1e-3, atol=1e-3, outliers=outliers)
    last = predictions[11]
    close(last.world_from_camera, golden["demo_saved_pose_11"])
    close(last.depth, golden["demo_saved_depth_11"], rtol=1e-3, atol=1e-3, outliers=outliers)
    close(last.confidence, golden["demo_saved_conf_11"], rtol=1e-3)
    # The reference truncates 255 · (x + 1) / 2, which may lose one step to rounding.
    assert (
        last.image.int() - torch.from_numpy(golden["demo_saved_color_11"]).int()
    ).abs().max() <= 1
    close(last.intrinsics[:2, 2], golden["demo_saved_intrinsics_11"][:2, 2])
