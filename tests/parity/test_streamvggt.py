"""StreamVGGT against numbers of the reference implementation, frame by frame and all at once."""

import pytest
import torch
from safetensors.torch import load_file

from tests.goldens import goldens
from tests.parity.test_vggt import (
    check_intermediates,
    check_manifest,
    check_reading,
    close,
    watched,
)
from tests.vggt_networks import reference_tiny
from ttt3r.geometry import fov_pose, se3
from ttt3r.models.base import Views
from ttt3r.models.streamvggt.config import StreamVggtConfig
from ttt3r.models.streamvggt.network import StreamVggt
from ttt3r.models.streamvggt.policies import KeepAll
from ttt3r.models.vggt.aggregator import mix_causally
from ttt3r.models.vggt.heads import cameras_from_raw

FOLDER = goldens("streamvggt")
SIZE = (42, 56)
CAUSAL = load_file(FOLDER / "case_causal_s6_42x56.safetensors")
STREAM = load_file(FOLDER / "case_stream_s6_42x56.safetensors")
OUTPUTS = ("points", "pose", "world")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_all_frames_at_once(dtype):
    model = reference_tiny("streamvggt", dtype)
    reading = model.look_causally(2 * CAUSAL["images"].to(dtype) - 1, OUTPUTS)
    assert reading.depth.dtype == dtype
    check_reading(reading, CAUSAL)


def test_intermediates():
    model, images = reference_tiny("streamvggt"), 2 * CAUSAL["images"] - 1
    check_intermediates(
        model, CAUSAL, lambda: model.look_causally(images, OUTPUTS), mix_causally(6)
    )


def test_the_first_frames_alone():
    model, images = reference_tiny("streamvggt"), 2 * CAUSAL["images"] - 1
    every, some = (model.look_causally(x, OUTPUTS) for x in (images, images[:, :3]))
    close(some.cameras, every.cameras[:, :, :3], 1e-5)
    close(some.depth, every.depth[:, :3], 1e-5)


@pytest.mark.parametrize(
    ("camera_cache", "key"),
    [("released", "pose_enc_list"), ("consistent", "pose_enc_list_consistent")],
)
def test_stream(camera_cache, key):
    model = reference_tiny("streamvggt", camera_cache=camera_cache)
    trunk, state = model.aggregator, model.initial_state(KeepAll())
    modules = {f"frame{i}": block for i, block in enumerate(trunk.frame_blocks)}
    modules |= {f"global{i}": block for i, block in enumerate(trunk.global_blocks)}
    modules["cameras"] = model.camera_head
    for time in range(6):
        tokens = model.encode(Views(2 * STREAM["images"][:, time] - 1))
        with watched(modules) as seen:
            state, output = model.step(state, tokens, KeepAll(), OUTPUTS)
        for pair in range(5):
            both = torch.cat((seen[f"frame{pair}"], seen[f"global{pair}"]), dim=-1)
            close(both, STREAM[f"agg.out{pair}"][:, time])
        close(cameras_from_raw(seen["cameras"])[:, :, 0], STREAM[key][:, :, time])
        poses, intrinsics = fov_pose.decode(STREAM[key][-1, :, time], SIZE)
        close(output.world_from_camera, se3.invert(poses))
        close(output.intrinsics, intrinsics)
        close(output.points[..., 2:], STREAM["depth"][:, time])
        close(output.confidence, STREAM["depth_conf"][:, time])
        close(output.world_points, STREAM["world_points"][:, time])
        close(output.world_confidence, STREAM["world_points_conf"][:, time])
    if camera_cache == "released":
        assert torch.equal(STREAM["pose_enc"], STREAM["pose_enc_list"][-1])
        check_cache(model, state)


def check_cache(model, state):
    """Ours holds keys after normalisation and rotation, the published one before."""
    table = model.aggregator.positions((3, 4))
    for block in range(5):
        attention = model.aggregator.global_blocks[block].attn
        raw = STREAM[f"kv.global{block}.k"]
        for time in range(6):
            keys = table.turn(attention.k_norm(raw[:, :, time]))
            close(state.cache[f"global{block}.k"][:, :, time], keys)
        close(state.cache[f"global{block}.v"], STREAM[f"kv.global{block}.v"])
    for block in range(2):
        for kind in "kv":
            published = STREAM[f"kv.camera{block}.{kind}"][:, :, :, 0]
            close(state.cache[f"camera{block}.{kind}"].flatten(2, 3), published)


def test_the_network_has_exactly_the_released_tensors():
    check_manifest(StreamVggt, StreamVggtConfig(), "streamvggt")
