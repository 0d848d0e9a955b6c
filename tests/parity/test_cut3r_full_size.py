"""The two released sizes: names, shapes, and a run on weights made by a recipe."""

import json
import zlib

import numpy as np
import pytest
import torch

from tests.goldens import goldens, load_npz
from tests.parity.test_cut3r import NAMES, close, close_points
from ttt3r import rules
from ttt3r.models.base import Views
from ttt3r.models.cut3r.config import Cut3rConfig
from ttt3r.models.cut3r.network import Cut3r
from ttt3r.types import OUTPUTS

SIZES = {
    "full_512_dpt": (Cut3rConfig(), (384, 512)),
    "full_224_linear": (Cut3rConfig(image_size=224, head="linear"), (224, 224)),
}
PLAIN = (
    "pose_token",
    "masked_img_token",
    "masked_ray_map_token",
    "pose_retriever.masked_token",
    "pose_retriever.mem",
    "register_tokens.weight",
)


@pytest.mark.parametrize("name", SIZES)
def test_keys_and_shapes(name):
    expected = json.loads((goldens("cut3r") / f"{name}.keys.json").read_text())
    with torch.device("meta"):
        network = Cut3r(SIZES[name][0])
    actual = {key: list(value.shape) for key, value in network.state_dict().items()}
    assert actual == {key: shape for key, (shape, _) in expected.items()}
    parameters = sum(value.numel() for value in network.parameters())
    assert parameters == {"full_512_dpt": 793_307_858, "full_224_linear": 748_443_655}[name]


def recipe(key: str, shape: torch.Size) -> torch.Tensor:
    """Weights from the key alone; see the README beside the goldens."""
    count = shape.numel()
    raw = np.random.PCG64(zlib.crc32(key.encode())).random_raw(count)
    value = (raw >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-23) - np.float32(1)
    if key in PLAIN:
        pass
    elif len(shape) >= 2:
        value *= np.float32(np.sqrt(3 / (count // shape[0])))
    elif key.endswith("weight"):
        value = 1 + np.float32(0.25) * value
    else:
        value *= np.float32(0.1)
    last = ("proj", "cross_proj", "rgb_proj")
    if ".head.4." in key or any(f"downstream_head.{part}.fc2." in key for part in last):
        value *= np.float32(0.25)
    if "downstream_head.pose_head.mlp.fc2." in key:
        value *= np.float32(0.5)
    return torch.from_numpy(value.reshape(shape))


def recipe_network(config: Cut3rConfig) -> Cut3r:
    with torch.device("meta"):
        network = Cut3r(config)
    made: dict[torch.Tensor, torch.Tensor] = {}
    tensors = {}
    for key, value in network.state_dict(keep_vars=True).items():
        if value not in made and ".layer_rn." not in key:
            made[value] = recipe(key, value.shape)
        tensors[key] = value
    tensors = {key: made[value] for key, value in tensors.items()}
    network.load_state_dict(tensors, assign=True)
    return network.eval().requires_grad_(False)


def test_recipe():
    checks = {
        "pose_token": ([1, 1, 768], [0.17473173, -0.41212392, -0.8587098]),
        "patch_embed.proj.weight": ([1024, 3, 16, 16], [0.03443643, 0.05527212, -0.02635347]),
        "enc_norm.weight": ([1024], [0.9029541, 0.84135276, 0.83236039]),
        "dec_blocks.3.cross_attn.projk.bias": ([768], [0.00182931, -0.0067416, 0.0058916]),
    }
    for key, (shape, expected) in checks.items():
        # Sines of large float32 numbers, which each library reduces in its own way: 80 eps.
        close(recipe(key, torch.Size(shape)).flatten()[:3], expected, rtol=1e-5, atol=1e-7)


def recipe_frame(index: int, height: int, width: int) -> torch.Tensor:
    x = np.arange(width)[None] + 5 * index
    y = np.arange(height)[:, None] + 3 * index
    rgb = np.stack(((x * x // 64 + 3 * y) % 256, ((5 * x) ^ (3 * y)) % 256, (x + 2 * y) * 3 % 256))
    return (torch.from_numpy(rgb.astype(np.float32)) / 255 - 0.5) / 0.5


@pytest.mark.slow
@pytest.mark.usefixtures("all_threads")
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", SIZES)
def test_recipe_run(name):
    golden = load_npz("cut3r", f"{name}.recipe_run.npz")
    config, size = SIZES[name]
    # 36 layers of float32 products, which each library sums in its own order: about 2,000 eps.
    check_run(recipe_network(config), size, golden, tolerance=2e-4)


@pytest.mark.slow
@pytest.mark.usefixtures("all_threads")
@pytest.mark.timeout(900)
def test_recipe_run_with_half_precision_rope():
    golden = load_npz("cut3r", "full_224_linear.recipe_run_halfrope.npz")
    config = Cut3rConfig(image_size=224, head="linear", half_rope_in_encoder=True)
    check_run(recipe_network(config), (224, 224), golden, tolerance=2e-4)


def check_run(network: Cut3r, size: tuple[int, int], golden: dict, tolerance: float):
    rule = rules.parse("ttt3r")
    state = network.initial_state(rule)
    for index in range(3):
        tokens = network.encode(Views(recipe_frame(index, *size)[None]))
        before = state
        state, output = network.step(state, tokens, rule, OUTPUTS)
        probes = {
            "feat_probe": tokens.features[0],
            "state_in_probe": before.tokens[0],
            "mem_in_probe": before.pose_memory[0],
            "mem_new_probe": state.pose_memory[0],
        }
        for key, value in probes.items():
            if key in golden:
                rtol = 1e-3 if key.startswith("mem") else tolerance
                close(value[::97, ::13], golden[key][index], rtol, tolerance * 5, what=key)
        logit = torch.logit(output.gate[0].double())
        if index:  # the first frame replaces the state, so its gate says nothing of the logits
            close(logit, golden["gate_logit"][index], tolerance, tolerance, what="gate")
        close(output.pose_encoding[0], golden["camera_pose"][index], tolerance, tolerance)
        for field, key in NAMES.items():
            if f"{key}_sub16" in golden:
                value = getattr(output, field)[0][5::16, 7::16]
                outliers = 5e-3 if "linear" in network.config.head and field == "points" else 0
                expected = golden[f"{key}_sub16"][index]
                if "points" in field:
                    close_points(value, expected, tolerance, outliers, key)
                else:
                    close(value, expected, tolerance, tolerance, outliers, key)
