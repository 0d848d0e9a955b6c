"""Point3R against numbers of the reference implementation."""

import json
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.goldens import goldens
from ttt3r.evaluation.metrics.points import point_errors
from ttt3r.geometry import se3
from ttt3r.geometry.align import align_points
from ttt3r.geometry.focal import focal_from_points
from ttt3r.models.base import Views
from ttt3r.models.point3r.config import TINY, Point3rConfig
from ttt3r.models.point3r.memory import Append, Fuse, MemoryRule, Pointers
from ttt3r.models.point3r.network import Point3r, patch_means
from ttt3r.nn.activations import confidence_from_raw, points_from_raw, pose_from_raw
from ttt3r.nn.rope import rotary
from ttt3r.nn.rope3d import spatial_rotary
from ttt3r.sources.preprocess import prepare
from ttt3r.types import Preparation

FOLDER = goldens("point3r")
FUNCTIONS = load_file(FOLDER / "functions.safetensors")
DESCRIPTION = json.loads((FOLDER / "functions.json").read_text())
TINY_DESCRIPTION = json.loads((FOLDER / "tiny.config.json").read_text())
FRAMES = load_file(FOLDER / "tiny.input.safetensors")["frames_norm"]
PUBLISHED_NAMES = {
    "img_size": "image_size",
    "enc_embed_dim": "encoder_dim",
    "enc_depth": "encoder_depth",
    "enc_num_heads": "encoder_heads",
    "dec_embed_dim": "decoder_dim",
    "dec_depth": "decoder_depth",
    "dec_num_heads": "decoder_heads",
    "memory_dec_num_heads": "pointer_heads",
    "mlp_ratio": "mlp_ratio",
    "local_mem_size": "memory_size",
    "value_depth": "value_depth",
    "value_num_heads": "value_heads",
}
OUTPUTS = {
    "points": "pts3d_in_self_view",
    "confidence": "conf_self",
    "world_points": "pts3d_in_other_view",
    "world_confidence": "conf",
    "pose_encoding": "camera_pose",
}
STATE = {
    "positions": "memory_pos",
    "features": "memory_feat",
    "pose_memory": "pose_mem",
    "patch_positions": "patch_pos",
}


# After a whole network, and a memory carried through frames. In which order a kernel sums is its
# own choice: two kernels differ by up to 1.6e-5, 130 times float32's eps. Four times that.
NETWORK = 6e-5


def close(actual, expected, tolerance=1e-5, what=""):
    """Compare float32 numbers of about 1; for one function, 100 times their eps of 1.2e-7."""
    torch.testing.assert_close(
        actual, expected, rtol=tolerance, atol=tolerance, msg=lambda text: f"{what}: {text}"
    )


@cache
def reference_tiny(half_rope: bool = False) -> Point3r:
    """The tiny network with the reference's random weights."""
    network = Point3r(replace(TINY, half_rope_in_encoder=half_rope))
    tensors = load_file(FOLDER / "tiny.weights.bf16.safetensors")
    network.load_state_dict({k: v.float() for k, v in tensors.items()}, strict=True)
    return network.eval().requires_grad_(False)


def run(name: str, rule: MemoryRule, tolerance: float, half_rope: bool = False) -> list[int]:
    """Compare every output and state of a golden's frames; return the numbers of pointers."""
    golden = load_file(FOLDER / f"tiny.outputs.{name}.safetensors")
    model, compared, counts = reference_tiny(half_rope), set(), []
    state = model.initial_state(rule)
    for index in range(sum(key.startswith("conf.") for key in golden)):
        tokens = model.encode(Views(FRAMES[index : index + 1]))
        found = {"enc_feat": tokens.features}
        if index:
            found["img_pos_used"] = state.patch_positions.flatten(1, 2)
        state, output = model.step(state, tokens, rule, ("points", "pose", "world"))
        found |= {key: getattr(output, field) for field, key in OUTPUTS.items()}
        found |= {key: getattr(state, field) for field, key in STATE.items()}
        found["patch_pos"] = found["patch_pos"].flatten(1, 2)
        counts.append(int(state.count))
        for key in [f"{key}.{index}" for key in found if f"{key}.{index}" in golden]:
            close(found[key.split(".")[0]][0], golden[key], tolerance, key)
            compared.add(key)
    inner = {"pose_query", "dec_first_block", "dec_last", "mem_stream_last"}
    assert {key.split(".")[0] for key in set(golden) - compared} <= inner
    return counts


def test_stream():
    growth = [entry["n_after"] for entry in TINY_DESCRIPTION["memory_log"]]
    assert run("fp32rope", Fuse(), NETWORK) == [12, *growth]


def test_half_precision_rope():
    growth = [entry["n_after"] for entry in TINY_DESCRIPTION["memory_log"]]
    assert run("fp16rope", Fuse(), 2e-4, half_rope=True) == [12, *growth]
    with pytest.raises(AssertionError, match="enc_feat"):  # the tolerance tells the two apart
        run("fp16rope", Fuse(), 2e-4)


def test_append_only():
    assert run("append_only", Append(), NETWORK) == [12, 24, 36, 48]


@pytest.mark.parametrize(("name", "rule"), [("fp32rope", Fuse()), ("append_only", Append())])
def test_layers(name, rule):
    """What passes between the parts, and what the block that is never run would make."""
    golden = load_file(FOLDER / f"tiny.outputs.{name}.safetensors")
    model = reference_tiny()
    state = model.initial_state(rule)
    for index in range(sum(key.startswith("conf.") for key in golden)):
        trace, kept = {}, {}
        decoders = model.dec_blocks, model.dec_blocks_memory
        handles = [
            decoders[0][0].register_forward_hook(
                lambda module, args, out, trace=trace: trace.update(
                    pose_query=args[0][:, :1], dec_first_block=out
                )
            ),
            model.dec_norm.register_forward_hook(
                lambda module, args, out, trace=trace: trace.update(dec_last=out)
            ),
            decoders[0][-1].register_forward_hook(
                lambda module, args, out, kept=kept: kept.update(image=args[0], memory=args[1])
            ),
            decoders[1][-2].register_forward_hook(
                lambda module, args, out, kept=kept: kept.update(places=args[2:])
            ),
        ]
        tokens = model.encode(Views(FRAMES[index : index + 1]))
        state, _ = model.step(state, tokens, rule)
        for handle in handles:
            handle.remove()
        last = decoders[1][-1](kept["memory"], kept["image"], *kept["places"])
        trace["mem_stream_last"] = model.dec_norm_memory(last)
        for key, value in trace.items():
            close(value[0], golden[f"{key}.{index}"], NETWORK, f"{key}.{index}")


def test_released_keys_and_shapes():
    expected = json.loads((FOLDER / "full.keys.json").read_text())
    with torch.device("meta"):
        network = Point3r(Point3rConfig())
    actual = {key: list(value.shape) for key, value in network.state_dict().items()}
    assert actual == {key: shape for key, (shape, _) in expected.items()}
    assert {dtype for _, dtype in expected.values()} == {"float32"}
    assert round(sum(value.numel() for value in network.parameters()) / 1e6, 1) == 828.0


def test_the_published_sizes_are_known_by_other_names():
    published = TINY_DESCRIPTION["config"]
    for theirs, ours in PUBLISHED_NAMES.items():
        value = published[theirs]
        assert getattr(TINY, ours) == (value[0] if theirs == "img_size" else value), ours
    assert published["len_unit"] == Fuse().units
    assert published["value_dim"] == published["enc_embed_dim"]
    dpt = [published[f"dpt_{part}"] for part in ("layer_dims", "feature_dim", "last_dim")]
    assert dpt == [list(TINY.dpt.layers), TINY.dpt.feature, TINY.dpt.last]


@pytest.mark.parametrize("dim", [64, 48, 16, 12])
@pytest.mark.parametrize("tokens", [7, 8])
def test_rope3d(dim, tokens):
    """Of eight tokens and seven positions the first token is the pose token's, at the origin."""
    case = {k: FUNCTIONS[f"rope3d.hd{dim}.n{tokens}.{k}"] for k in ("tokens", "positions", "out")}
    positions = torch.nn.functional.pad(case["positions"], (0, 0, tokens - 7, 0))
    out = spatial_rotary(positions, dim).turn(case["tokens"])
    close(out, case["out"])
    if tokens == 8:
        assert torch.equal(out[:, :, 0], case["tokens"][:, :, 0])


def test_rope2d():
    tokens, positions = FUNCTIONS["rope2d.tokens"], FUNCTIONS["rope2d.positions"]
    assert torch.equal(positions[0], positions[1])
    close(rotary(positions[0], 16).turn(tokens), FUNCTIONS["rope2d.out"])
    half = rotary(positions[0], 16, half="everything").turn(tokens)
    assert half.dtype == torch.float32
    # Where a processor's cosine falls between two float16 numbers, one step (eps 1e-3) may differ.
    golden = FUNCTIONS["rope2d.out_fp16"]
    close(half.half(), golden, 2e-3)
    assert (half.half() == golden).double().mean() > 0.99


FUSIONS = sorted({key.split(".")[1] for key in FUNCTIONS if key.startswith("fuse.")})


@pytest.mark.parametrize("case", FUSIONS)
def test_fusion(case):
    golden = {k.split(".")[2]: v for k, v in FUNCTIONS.items() if k.startswith(f"fuse.{case}.")}
    # Means of some hundred float32 points, summed in another order: 30 eps.
    close(golden["patch_pos_grid"].flatten(0, 1), golden["patch_pos"], 4e-6)
    positions, features = golden["patch_pos"][None], golden["new_feat"][None]
    before = golden.get("mem_pos", positions[0, :0]), golden.get("mem_feat", features[0, :0])
    known = Pointers(before[0][None], before[1][None], torch.tensor([len(before[0])]))
    after = Fuse().remember(known, positions, features)
    assert after.count.tolist() == [DESCRIPTION[f"fuse.{case}"]["n_after"]]
    close(after.positions[0], golden["out_pos"])
    close(after.features[0], golden["out_feat"])


def test_patch_means():
    means = patch_means(FUNCTIONS["patchmean.pts3d"][None], 16)
    close(means.flatten(1, 2)[0], FUNCTIONS["patchmean.out"])


def test_activations():
    raw = FUNCTIONS["act.raw"].movedim(0, -1)
    close(points_from_raw(raw[..., :3]), FUNCTIONS["act.pts3d"])
    close(confidence_from_raw(raw[..., 3]), FUNCTIONS["act.conf"])


def test_pose():
    encoding = pose_from_raw(FUNCTIONS["pose.raw"])
    close(encoding, FUNCTIONS["pose.out7"])
    close(se3.pose_from_encoding(encoding), FUNCTIONS["pose.mat"])
    close(se3.encoding_from_pose(FUNCTIONS["pose.mat"]), FUNCTIONS["pose.back7"])


def test_focal():
    focal = focal_from_points(FUNCTIONS["focal.pts3d"])
    close(focal[None], FUNCTIONS["focal.weiszfeld"], 1e-4)


def test_procrustes():
    source, target, weights = (FUNCTIONS[f"procrustes.{name}"] for name in "ABw")
    found = align_points(source, target, weights, with_scale=False)
    close(found, FUNCTIONS["procrustes.T"], 1e-4)


def test_point_errors():
    clouds = {k: FUNCTIONS[f"pcmetric.{k}"].numpy() for k in ("rec", "gt", "rec_n", "gt_n")}
    errors = point_errors(*clouds.values())
    figures = DESCRIPTION["pcmetric"]
    assert figures["accuracy"] == pytest.approx(
        [
            errors.accuracy,
            errors.accuracy_median,
            errors.normal_consistency_1,
            errors.normal_consistency_1_median,
        ]
    )
    assert figures["completion"] == pytest.approx(
        [
            errors.completeness,
            errors.completeness_median,
            errors.normal_consistency_2,
            errors.normal_consistency_2_median,
        ]
    )


PREPARED = sorted(key.removeprefix("prep.") for key in DESCRIPTION if key.startswith("prep."))


@pytest.mark.parametrize("case", PREPARED)
def test_preparation(case):
    image = FUNCTIONS[f"prep.{case.split('.')[0]}.in"].numpy()
    about, way = DESCRIPTION[f"prep.{case}"], case.split(".")[1]
    policy = Preparation(about["size"], square_ok=way == "sq_ok")
    prepared, _ = prepare(image, policy, crop=way != "eval_nocrop")
    if "error" in about:  # the published code fails; ours squeezes to the size of the crop
        assert list(prepared.shape[:2]) == DESCRIPTION["prep.square.crop"]["true_shape"][0]
        return
    assert list(prepared.shape[:2]) == about["true_shape"][0]
    expected = FUNCTIONS[f"prep.{case}"].permute(1, 2, 0).numpy()
    assert np.abs(prepared.astype(int) - expected).max() <= 1
