"""VGGT against numbers of the reference implementation: every tensor of every golden."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from safetensors.torch import load_file

from tests.goldens import goldens
from tests.vggt_networks import TINY, reference_tiny, reference_weights
from ttt3r.geometry import fov_pose, se3
from ttt3r.geometry.camera import unproject
from ttt3r.models.vggt.config import VggtConfig
from ttt3r.models.vggt.heads import depth_from_raw, points_from_raw
from ttt3r.models.vggt.network import Vggt
from ttt3r.nn.dinov2 import resample_positions
from ttt3r.nn.dpt import ResidualUnit
from ttt3r.nn.rope import rotary
from ttt3r.nn.vggt_dpt import VggtDpt, pixel_places, position_code

FOLDER = goldens("vggt")
FUNCTIONS = load_file(FOLDER / "functions.safetensors")
CASES = ("case_s6_42x56", "case_b2_s3_56x42", "case_s1_70x70")
TOLERANCE = 2e-5  # of the largest value of a tensor; what independent implementations can reach


def close(actual: torch.Tensor, expected: torch.Tensor, tolerance: float = TOLERANCE) -> None:
    assert actual.shape == expected.shape
    error = (actual - expected).abs().max() / expected.abs().max()
    assert error <= tolerance, float(error)


@contextmanager
def watched(modules: dict[str, torch.nn.Module]) -> Iterator[dict[str, torch.Tensor]]:
    """What each module returned last."""
    seen = {}
    handles = [
        module.register_forward_hook(lambda _m, _i, out, name=name: seen.update({name: out}))
        for name, module in modules.items()
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def check_reading(reading, golden: dict[str, torch.Tensor]) -> None:
    close(reading.cameras, golden["pose_enc_list"])
    close(reading.cameras[-1], golden["pose_enc"])
    close(reading.depth[..., None], golden["depth"])
    close(reading.depth_confidence, golden["depth_conf"])
    close(reading.world_points, golden["world_points"])
    close(reading.world_confidence, golden["world_points_conf"])


def check_intermediates(model, golden, look, mix=None) -> None:
    """Compare what lies between images and outputs; `look` runs the whole network."""
    trunk, depth = model.aggregator, model.depth_head
    modules = {
        "vit.patch_conv": trunk.patch_embed.patch_embed,
        "vit.x_norm_patchtokens": trunk.patch_embed,
        "agg.frame0": trunk.frame_blocks[0],
        "agg.global0": trunk.global_blocks[0],
        "raw cameras": model.camera_head,
        "depth.output_conv1": depth.scratch.output_conv1,
        "depth.output_conv2": depth.scratch.output_conv2,
    }
    modules |= {f"depth.resize{i}": layer for i, layer in enumerate(depth.resize_layers)}
    fusions = {f"depth.refinenet{i}": getattr(depth.scratch, f"refinenet{i}") for i in range(1, 5)}
    with watched(modules | fusions) as seen:
        look()
    raw = seen.pop("raw cameras")
    close(torch.diff(raw, dim=0, prepend=torch.zeros_like(raw[:1])), golden["camera.deltas"])
    for name, tensor in seen.items():
        close(tensor, golden[name])
    patches = trunk.encode(2 * golden["images"][0] - 1)[None]
    tokens = trunk.assemble(patches, torch.arange(6)[None] == 0)
    close(tokens[0], golden["agg.tokens_in"])
    kept = trunk(tokens, (3, 4), range(5), *(() if mix is None else (mix,)))
    for pair in range(5):
        close(kept[pair], golden[f"agg.out{pair}"])


def check_manifest(network: type, config: VggtConfig, family: str) -> None:
    """The released names and shapes, on no memory at all."""
    keys = json.loads((goldens(family) / "full.keys.json").read_text())
    assert len(keys) == 1797
    with torch.device("meta"):
        found = network(config).state_dict()
    expected = {key: shape for key, (shape, _) in keys.items()}
    assert {key: list(tensor.shape) for key, tensor in found.items()} == expected
    assert {dtype for _, dtype in keys.values()} == {"float32"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("case", CASES)
def test_outputs(case, dtype):
    golden = load_file(FOLDER / f"{case}.safetensors")
    model = reference_tiny("vggt", dtype)
    reading = model.look(2 * golden["images"].to(dtype) - 1, ("points", "world"))
    assert reading.depth.dtype == dtype
    check_reading(reading, golden)


def test_intermediates():
    golden = load_file(FOLDER / "case_s6_42x56.safetensors")
    model = reference_tiny("vggt")
    check_intermediates(
        model, golden, lambda: model.look(2 * golden["images"] - 1, ("points", "world"))
    )


def test_features_of_the_track_head():
    golden = load_file(FOLDER / "case_s6_42x56.safetensors")
    head = VggtDpt(96, TINY["dpt_widths"], TINY["dpt_features"], down_ratio=2)
    prefix = "track_head.feature_extractor."
    weights = reference_weights().items()
    head.load_state_dict({k[len(prefix) :]: v for k, v in weights if k.startswith(prefix)})
    tokens = [golden[f"agg.out{level}"][0, :, 5:] for level in TINY["levels"]]
    with torch.no_grad():
        close(head(tokens, (42, 56))[None], golden["track.features"])


def test_the_network_has_exactly_the_released_tensors():
    check_manifest(Vggt, VggtConfig(), "vggt")


def test_the_order_of_the_other_frames_does_not_matter():
    images = 2 * load_file(FOLDER / "case_s6_42x56.safetensors")["images"] - 1
    model, order = reference_tiny("vggt"), [0, 3, 1, 5, 2, 4]
    straight, shuffled = (model.predict(x, ("points", "pose")) for x in (images, images[:, order]))
    close(shuffled.world_from_camera, straight.world_from_camera[:, order], 1e-5)
    close(shuffled.points, straight.points[:, order], TOLERANCE)


@pytest.mark.parametrize("name", ["rope", "rope2"])
def test_rotary_embedding(name):
    x, positions = FUNCTIONS[f"{name}.in"], FUNCTIONS[f"{name}.positions"]
    assert (positions == positions[:1]).all()
    table = rotary(positions[0], x.shape[-1], 100.0)
    close(table.turn(x), FUNCTIONS[f"{name}.out"])


@pytest.mark.parametrize("name", [key for key in FUNCTIONS if key.startswith("pos_embed.out")])
def test_position_embedding(name):
    height, width = (int(side) // 14 for side in name.removeprefix("pos_embed.out_").split("x"))
    close(resample_positions(FUNCTIONS["pos_embed.in"], (height, width)), FUNCTIONS[name], 1e-6)


def test_cameras():
    size = (392, 518)
    extrinsics, intrinsics = FUNCTIONS["pose.extrinsics"], FUNCTIONS["pose.intrinsics"]
    poses = se3.assemble(extrinsics[..., :3], extrinsics[..., 3])
    encoding = fov_pose.encode(poses, intrinsics, size)
    close(encoding, FUNCTIONS["pose.encoding"], 1e-6)
    for kind, given in (("dec", "encoding"), ("raw", "raw_encoding")):
        decoded, matrices = fov_pose.decode(FUNCTIONS[f"pose.{given}"], size)
        close(decoded[..., :3, :], FUNCTIONS[f"pose.{kind}_extrinsics"], 1e-6)
        close(matrices, FUNCTIONS[f"pose.{kind}_intrinsics"], 1e-6)
    inverse = FUNCTIONS["se3.inverse"]
    close(se3.invert(poses[0])[..., : inverse.shape[-2], :], inverse, 1e-6)


def test_unprojection():
    extrinsics = FUNCTIONS["unproject.extrinsics"]
    depth = FUNCTIONS["unproject.depth"][..., 0]
    points = unproject(depth, FUNCTIONS["unproject.intrinsics"])
    pose = se3.invert(se3.assemble(extrinsics[..., :3], extrinsics[..., 3]))
    close(se3.apply(pose, points), FUNCTIONS["unproject.points"], 1e-6)


def test_activations():
    raw = FUNCTIONS["act.in"]
    points, confidence = points_from_raw(raw)
    close(points, FUNCTIONS["act.inv_log"], 1e-6)
    close(confidence, FUNCTIONS["act.expp1"], 1e-6)
    depth, confidence = depth_from_raw(raw[:, :2])
    close(depth[..., None], FUNCTIONS["act.exp"], 1e-6)
    close(confidence, FUNCTIONS["act.exp_conf"], 1e-6)


def test_places_in_maps():
    expected = FUNCTIONS["uv.grid_w7_h5"]
    columns, rows = pixel_places((5, 7), 518 / 392)
    close(columns.expand(5, 7).float(), expected[..., 0], 1e-6)
    close(rows[:, None].expand(5, 7).float(), expected[..., 1], 1e-6)


def test_position_code_of_maps():
    expected = FUNCTIONS["uv.embed_16"]
    columns, rows = position_code((5, 7), 16, 518 / 392)
    close(columns.mT.expand(5, -1, -1).float(), expected[..., :8], 1e-6)
    close(rows.mT[:, None].expand(-1, 7, -1).float(), expected[..., 8:], 1e-6)


def test_rectified_unit():
    unit = ResidualUnit(FUNCTIONS["rcu.in"].shape[1], rectified=True)
    unit.load_state_dict(
        {
            key.removeprefix("rcu."): tensor
            for key, tensor in FUNCTIONS.items()
            if key.startswith("rcu.conv")
        }
    )
    with torch.no_grad():
        close(unit(FUNCTIONS["rcu.in"]), FUNCTIONS["rcu.out"], 1e-6)
