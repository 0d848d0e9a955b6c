"""Checkpoints in upstream's layout load to the values and the configuration they were made with."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.goldens import goldens
from tests.networks import tiny_config
from ttt3r.checkpoints.reading import Checkpoint, read_checkpoint
from ttt3r.errors import WeightsError
from ttt3r.models.cut3r import FAMILY
from ttt3r.models.cut3r.config import Cut3rConfig
from ttt3r.weights import build, convert, load
from ttt3r.weights.network import canonical_key, clean_tensors, expected_shapes, shapes_of

FOLDER = goldens("cut3r")
RELEASED = (
    "ARCroco3DStereo(ARCroco3DStereoConfig(freeze='encoder', state_size=768, state_pe='2d', "
    "pos_embed='RoPE100', rgb_head=True, pose_head=True, img_size=({size}, {size}), "
    "head_type='{head}', output_mode='pts3d+pose', depth_mode=('exp', -inf, inf), "
    "conf_mode=('exp', 1, inf), pose_mode=('exp', -inf, inf), enc_embed_dim=1024, enc_depth=24, "
    "enc_num_heads=16, dec_embed_dim=768, dec_depth=12, dec_num_heads=12{more}))"
)
CONFIGS = {
    "full_512_dpt": Cut3rConfig(),
    "full_224_linear": Cut3rConfig(image_size=224, head="linear"),
}
STRINGS = {
    "full_512_dpt": RELEASED.format(
        size=512, head="dpt", more=", patch_embed_cls='ManyAR_PatchEmbed', landscape_only=False"
    ),
    "full_224_linear": RELEASED.format(size=224, head="linear", more=""),
}
TINY = tiny_config("tiny_dpt")


def description(name: str) -> dict[str, Any]:
    return json.loads((FOLDER / f"{name}.config.json").read_text())


def released_tensors(name: str) -> dict[str, torch.Tensor]:
    keys = json.loads((FOLDER / f"{name}.keys.json").read_text())
    return {
        key: torch.empty(shape, dtype=getattr(torch, dtype), device="meta")
        for key, (shape, dtype) in keys.items()
    }


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("has_text", [True, False])
def test_the_released_configurations_are_recognised(
    name: str, has_text: bool, caplog: pytest.LogCaptureFixture
) -> None:
    tensors = clean_tensors(released_tensors(name))
    text = STRINGS[name] if has_text else None
    with caplog.at_level(logging.WARNING, "ttt3r.weights"):
        assert FAMILY.configure(shapes_of(tensors), Checkpoint(model_string=text)) == CONFIGS[name]
    # Sizes of the default network leave no doubt; all others say what is a guess.
    assert bool(caplog.records) == (not has_text and CONFIGS[name] != Cut3rConfig())


@pytest.mark.parametrize("name", CONFIGS)
def test_the_network_has_exactly_the_released_tensors(name: str) -> None:
    tensors = released_tensors(name)
    assert expected_shapes(CONFIGS[name]) == shapes_of(clean_tensors(tensors))
    parameters = sum(tensor.numel() for tensor in clean_tensors(tensors).values())
    assert parameters == {"full_512_dpt": 793_307_858, "full_224_linear": 748_443_655}[name]


def test_the_checkpoint_gives_the_values_of_the_plain_file() -> None:
    checkpoint = read_checkpoint(FOLDER / "tiny_dpt.pth")
    assert checkpoint.model_string == description("tiny_dpt")["model_string"]
    plain = load_file(FOLDER / "tiny_dpt.safetensors")
    aliases = description("tiny_dpt")["aliases"]
    assert set(checkpoint.tensors) == set(plain) | set(aliases)
    for key, tensor in checkpoint.tensors.items():
        assert canonical_key(key) == aliases.get(key, key)
        assert torch.equal(tensor, plain[canonical_key(key)].float()), key


def test_the_checkpoint_loads() -> None:
    network = load(FOLDER / "tiny_dpt.pth")
    assert network.config == TINY
    state = network.state_dict()
    for key, tensor in load_file(FOLDER / "tiny_dpt.safetensors").items():
        assert torch.equal(state[key], tensor.float()), key


@pytest.mark.parametrize("name", ["tiny_dpt", "tiny_linear"])
def test_plain_files_load_with_their_constructor(name: str) -> None:
    tensors = load_file(FOLDER / f"{name}.safetensors")
    config = FAMILY.configure(
        shapes_of(tensors), Checkpoint(model_string=description(name)["model_string"])
    )
    for key, tensor in build(config, tensors).state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, tensors[canonical_key(key)].float()), key


@pytest.mark.slow
def test_conversion_to_half_precision_loses_nothing_here(tmp_path: Path) -> None:
    source = FOLDER / "tiny_dpt.pth"
    a, b = load(source), load(convert(source, tmp_path, "float16"))
    assert a.config == b.config
    for key, tensor in a.state_dict().items():
        assert torch.equal(tensor, b.state_dict()[key]), key


def test_arguments_of_hydra_are_read_without_omegaconf() -> None:
    checkpoint = read_checkpoint(FOLDER / "loader_omegaconf_args.pth")
    assert checkpoint.model_string == description("tiny_linear")["model_string"]
    tensors = clean_tensors(checkpoint.tensors)
    plain = load_file(FOLDER / "tiny_linear.safetensors")
    assert len(tensors) == 4
    for key, tensor in tensors.items():
        assert torch.equal(tensor, plain[key].float()), key


def test_an_incomplete_checkpoint_lists_what_is_missing() -> None:
    with pytest.raises(WeightsError) as caught:
        load(FOLDER / "loader_omegaconf_args.pth")
    assert str(caught.value) == (
        "the weights do not fit the network:\n"
        "  404 missing: masked_img_token, masked_ray_map_token, patch_embed.proj.weight, "
        "patch_embed.proj.bias, enc_blocks.0.norm1.weight, enc_blocks.0.norm1.bias, "
        "enc_blocks.0.attn.qkv.weight, enc_blocks.0.attn.qkv.bias, enc_blocks.0.attn.proj.weight, "
        "enc_blocks.0.attn.proj.bias, and 394 more\n"
        "The file is incomplete, or belongs to another network or configuration."
    )
