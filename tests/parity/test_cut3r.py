"""The network against numbers of the reference implementation, frame by frame."""

import numpy as np
import pytest
import torch

from tests.goldens import load_npz
from tests.networks import reference_tiny
from ttt3r import rules
from ttt3r.models.base import Views
from ttt3r.models.cut3r.state import state_positions
from ttt3r.models.evidence import LogitProbe
from ttt3r.nn.activations import (
    confidence_from_raw,
    points_from_raw,
    pose_from_raw,
    rgb_from_raw,
)
from ttt3r.nn.rope import grid_positions, rotary
from ttt3r.types import OUTPUTS

NETWORKS = ("tiny_dpt", "tiny_linear")
NAMES = {
    "points": "pts3d_in_self_view",
    "confidence": "conf_self",
    "world_points": "pts3d_in_other_view",
    "world_confidence": "conf",
    "rgb": "rgb",
    "pose_encoding": "camera_pose",
}


def close(actual, expected, rtol=1e-4, atol=1e-4, outliers=0.0, what=""):
    """Assert closeness, allowing a share of outliers (the linear head flips signs near z = 0)."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape, (what, actual.shape, expected.shape)
    wrong = ~np.isclose(actual, expected, rtol=rtol, atol=atol)
    assert wrong.mean() <= outliers, (what, wrong.mean(), np.abs(actual - expected).max())


def close_points(actual, expected, tolerance=1e-4, outliers=0.0, what=""):
    """Assert that points [..., 3] lie close, in proportion to their distance from the origin.

    A rotation mixes the coordinates, so that a small one is the difference of large ones: rounding
    of one library moves every coordinate by a share of the distance.
    """
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape, (what, actual.shape, expected.shape)
    apart = np.linalg.norm(actual - expected, axis=-1)
    wrong = apart > tolerance * (1 + np.linalg.norm(expected, axis=-1))
    assert wrong.mean() <= outliers, (what, wrong.mean(), apart.max())


def frames(key: str = "frames") -> torch.Tensor:
    images = load_npz("cut3r", "frames.npz")[key]
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1


def check_dense(output, golden, index, name, position=None):
    """Compare all maps of frame `index` with a golden's dense or subsampled arrays."""
    for field, key in NAMES.items():
        if field == "pose_encoding":
            continue
        value = getattr(output, field)[0].numpy()
        outliers = 1e-3 if (name, field) == ("tiny_linear", "points") else 0.0
        if f"{key}_sub4" in golden:
            sampled = value[1::4, 2::4]
            close(sampled, golden[f"{key}_sub4"][index], outliers=outliers, what=key)
        if position is not None and key in golden:
            close(value, golden[key][position], outliers=outliers, what=key)


def run(model, images, rule, golden, name, resets=(), updates=None):
    """Step through `images` and compare everything that the golden holds of each view."""
    rule = rules.parse(rule)
    state = model.initial_state(rule)
    if "state_before" in golden:
        close(state.tokens[0], golden["state_before"])
        close(state.pose_memory[0], golden["mem_before"])
    dense = golden.get("dense_frames", np.empty(0)).tolist()
    for index, image in enumerate(images):
        update = None if updates is None else torch.tensor([bool(updates[index])])
        tokens = model.encode(Views(image[None]))
        state, output = model.step(state, tokens, rule, OUTPUTS, update)
        if len(resets) and resets[index]:
            state = model.reset(state, rule, torch.tensor([True]))
        close(output.pose_encoding[0], golden["camera_pose"][index], what=f"pose {index}")
        close(output.gate[0], golden["beta"][index], atol=1e-5, what=f"gate {index}")
        close(state.tokens[0], golden["state_after"][index], what=f"state {index}")
        if "mem_after" in golden:
            close(state.pose_memory[0], golden["mem_after"][index], rtol=1e-3, atol=1e-3)
        check_dense(output, golden, index, name, dense.index(index) if index in dense else None)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("rule", ["ttt3r", "overwrite"])
def test_stream(name, rule):
    golden = load_npz("cut3r", f"run_{name}_{'cut3r' if rule == 'overwrite' else rule}.npz")
    run(reference_tiny(name), frames(), rule, golden, name)


@pytest.mark.parametrize("name", NETWORKS)
def test_portrait(name):
    golden = load_npz("cut3r", f"run_{name}_ttt3r_portrait.npz")
    run(reference_tiny(name), frames("portrait"), "ttt3r", golden, name)


@pytest.mark.parametrize("name", NETWORKS)
def test_reset(name):
    golden = load_npz("cut3r", f"run_{name}_ttt3r_reset5.npz")
    images = frames()[golden["view_frame_index"].tolist()]
    run(reference_tiny(name), images, "ttt3r", golden, name, resets=golden["reset"])


@pytest.mark.parametrize("name", NETWORKS)
def test_frozen_revisit(name):
    golden = load_npz("cut3r", f"run_{name}_ttt3r_revisit2_frozen.npz")
    images = frames()[[0, 1, 2, 3] * 2]
    assert not golden["update"][4:].any()
    run(reference_tiny(name), images, "ttt3r", golden, name, updates=golden["update"])


@pytest.mark.parametrize("name", NETWORKS)
def test_half_precision_rope(name):
    """Float16 rounding amplifies last-digit differences: 1e-4 is what can be reproduced."""
    golden = load_npz("cut3r", f"run_{name}_ttt3r_halfrope.npz")
    model, rule = reference_tiny(name, half_rope=True), rules.parse("ttt3r")
    state = model.initial_state(rule)
    for index, image in enumerate(frames()):
        tokens = model.encode(Views(image[None]))
        if index == 0:
            close(tokens.features[0], golden["feat_frame0"], atol=2e-4)
            plain = reference_tiny(name).encode(Views(image[None])).features[0]
            assert not np.allclose(plain, golden["feat_frame0"], atol=2e-4)
        state, output = model.step(state, tokens, rule, OUTPUTS)
        close(output.pose_encoding[0], golden["camera_pose"][index], atol=3e-4)
        close(output.gate[0], golden["beta"][index], atol=1e-4)
        close(state.tokens[0], golden["state_after"][index], atol=5e-4)
        for field, key in NAMES.items():
            if f"{key}_sub4" in golden:
                value = getattr(output, field)[0][1::4, 2::4]
                outliers = 2e-2 if name == "tiny_linear" else 0.0
                close(value, golden[f"{key}_sub4"][index], 2e-3, 2e-3, outliers, what=key)


@pytest.mark.parametrize("name", NETWORKS)
def test_layers(name):
    golden = load_npz("cut3r", f"trace_{name}.npz")
    model, rule = reference_tiny(name), rules.parse("ttt3r")
    close(state_positions(model.config.state_size), golden["state_pos"])
    close(grid_positions(3, 4), golden["img_pos"])
    state = model.initial_state(rule)
    for index, image in enumerate(frames()[:2]):
        trace = {}

        def keep(key, trace=trace):
            return lambda module, args, out: trace.__setitem__(key, out[0])

        modules = {"patch_embed": model.patch_embed, "enc_norm": model.enc_norm}
        modules |= {f"enc_block{i}": block for i, block in enumerate(model.enc_blocks)}
        modules |= {f"dec{i + 1}": block for i, block in enumerate(model.dec_blocks)}
        modules |= {f"dec{len(model.dec_blocks)}": model.dec_norm}
        modules |= {"dec_embed": model.decoder_embed}
        handles = [module.register_forward_hook(keep(key)) for key, module in modules.items()]
        logits = []
        for block in model.dec_blocks_state:
            attention = block.cross_attn

            def watch(module, args, out, logits=logits):
                x, y, at_x, at_y = args[:4]
                query, key = (
                    p(v).unflatten(-1, (module.heads, -1)).transpose(1, 2)
                    for p, v in ((module.projq, x), (module.projk, y))
                )
                scores = at_x.turn(query) @ at_y.turn(key).mT / query.shape[-1] ** 0.5
                logits.append(scores[0])

            handles.append(attention.register_forward_hook(watch))
        tokens = model.encode(Views(image[None]))
        state, _ = model.step(state, tokens, rule, ("pose",))
        for handle in handles:
            handle.remove()
        trace["dec0"] = tokens.features[0]
        trace["global_feat"] = tokens.features[0].mean(0)
        for key in (k for k in golden if k.startswith(f"f{index}.")):
            short = key.split(".", 1)[1]
            if short.startswith("state_cross_logits"):
                close(logits[int(short[-1])], golden[key], what=key)
            else:
                close(trace[short], golden[key], what=key)


@pytest.mark.parametrize("name", NETWORKS)
def test_virtual_view(name):
    golden = load_npz("cut3r", f"raymap_{name}.npz")
    model, rule = reference_tiny(name), rules.parse("ttt3r")
    state = model.initial_state(rule)
    for image in frames()[:8]:
        state, _ = model.step(state, model.encode(Views(image[None])), rule, ())
    before = state.to_tensors()
    tokens = model.encode(Views(ray_map=torch.from_numpy(golden["ray_map"])[None]))
    output = model.query(state, tokens, OUTPUTS)
    for field, key in NAMES.items():
        outliers = 1e-3 if (name, field) == ("tiny_linear", "points") else 0.0
        value = getattr(output, field)[0]
        close(value, golden[f"query_after_frame7.{key}"], outliers=outliers, what=key)
    assert all(torch.equal(before[k], v) for k, v in state.to_tensors().items())


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("convention", ["lighter", "forward"])
def test_mixed_inputs(name, convention):
    """Images, a ray map alone, and both; absent inputs count as nothing or as mask tokens."""
    golden = load_npz("cut3r", f"raymap_{name}.npz")
    model, rule = reference_tiny(name), rules.parse("ttt3r")
    rays = torch.full((5, 48, 64, 6), float("nan"))
    rays[2] = torch.from_numpy(golden["ray_map"])
    rays[3] = torch.from_numpy(golden["ray_map_view3"])
    views = Views(
        image=frames()[:5],
        ray_map=rays,
        has_image=torch.tensor([True, True, False, True, True]),
        has_ray_map=torch.tensor([False, False, True, True, False]),
    )
    tokens = model.encode(views, absent="zero" if convention == "lighter" else "token")
    expected = {k.split(".", 1)[1]: v for k, v in golden.items() if f"_{convention}." in k}
    close(tokens.features, expected["feat"])
    state = model.initial_state(rule)
    for index in range(5):
        one = type(tokens)(
            tokens.features[index : index + 1], tokens.size, tokens.has_image[index : index + 1]
        )
        state, output = model.step(state, one, rule, OUTPUTS)
        close(output.pose_encoding[0], expected["camera_pose"][index])
        close(output.gate[0], expected["beta"][index], atol=1e-5)
        close(state.tokens[0], expected["state_after"][index])
        close(state.pose_memory[0], expected["mem_after"][index], rtol=1e-3, atol=1e-3)
        if index in (2, 3):
            outliers = 1e-3 if name == "tiny_linear" else 0.0
            points = expected["pts3d_in_self_view"][index - 2]
            close(output.points[0], points, outliers=outliers)
            close(output.confidence[0], expected["conf_self"][index - 2])


@pytest.mark.parametrize("dim", [4, 16, 48, 64])
def test_rope(dim):
    golden = {k: v for k, v in load_npz("cut3r", "small_functions.npz").items()}
    for query, positions, out, half in zip(
        *(golden[f"rope{dim}.{k}"] for k in ("q", "pos", "out", "out_half_in_half_out")),
        strict=True,
    ):
        query = torch.from_numpy(query)[None]
        table = rotary(torch.from_numpy(positions), dim)
        close(table.turn(query)[0], out, atol=2e-6)
        table = rotary(torch.from_numpy(positions), dim, half="operands")
        close(table.turn(query)[0], half.astype(np.float32), atol=2e-3)


def test_state_positions():
    golden = load_npz("cut3r", "small_functions.npz")
    keys = [key for key in golden if key.startswith("state_pos")]
    assert len(keys) == 18
    for key in keys:
        _, _, kind, count = key.split("_")
        assert np.array_equal(state_positions(int(count), kind), golden[key])
    assert np.array_equal(grid_positions(3, 4), golden["patch_pos_3x4"])


def test_activations():
    golden = load_npz("cut3r", "small_functions.npz")

    def of(key):
        return torch.from_numpy(golden[key])

    for mode in ("linear", "square", "exp"):
        for positive in (0, 1):
            actual = points_from_raw(of("depth.x"), mode, positive_depth=bool(positive))
            close(actual, golden[f"depth.{mode}.pos_z{positive}"], rtol=1e-5, atol=1e-6)
    close(confidence_from_raw(of("conf.x")), golden["conf.exp_1_inf"], rtol=1e-6)
    close(confidence_from_raw(of("conf.x"), "exp", 1.0, 50.0), golden["conf.exp_1_50"], rtol=1e-6)
    actual = confidence_from_raw(of("conf.x"), "sigmoid", 1.0, 9.0)
    close(actual, golden["conf.sigmoid_1_9"], rtol=1e-6)
    close(rgb_from_raw(of("rgb.x")).permute(0, 2, 3, 1), golden["rgb.out"], rtol=1e-6)
    close(pose_from_raw(of("pose.raw")), golden["pose.enc"], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", NETWORKS)
def test_inside_each_frame(name):
    """Gate logits by q · mean(k), pose tokens, and the candidates before gating."""
    golden = load_npz("cut3r", f"run_{name}_ttt3r.npz")
    model, rule = reference_tiny(name), rules.parse("ttt3r")
    memory = model.pose_retriever
    state = model.initial_state(rule)
    for index, image in enumerate(frames()):
        tokens = model.encode(Views(image[None]))
        probe = LogitProbe({"mean_logit"})
        decoded = model._decode(state, tokens, state.age == 0, probe)
        logit = probe.evidence({"mean_logit"}, tokens.features, decoded.projected).mean_logit
        close(logit[0], golden["gate_logit"][index], rtol=0, atol=5e-6)
        read = memory.read(decoded.global_feature, state.pose_memory)
        pose_token = read if index else model.pose_token
        close(pose_token[0, 0], golden["pose_token_in"][index])
        close(decoded.pose_token[0, 0], golden["pose_token_out"][index])
        close(decoded.candidate[0], golden["state_candidate"][index])
        written = memory.write(state.pose_memory, decoded.global_feature, decoded.pose_token)
        close(written[0], golden["mem_candidate"][index], rtol=1e-3, atol=1e-3)
        state, _ = model.step(state, tokens, rule, ())
