"""Small weights in the layouts of their publishers, and how networks are compared."""

import argparse
import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.networks import random_images
from ttt3r.models.base import StreamModel, Views
from ttt3r.models.point3r.config import TINY as TINY_POINT3R
from ttt3r.models.vggt.config import TINY as TINY_VGGT
from ttt3r.weights import CATALOGUE

RANDOM = [name for name, spec in CATALOGUE.items() if not spec.trained]
OURS = {name: CATALOGUE[name] for name in RANDOM if CATALOGUE[name].family != "cut3r"}
# What the tensors of a small VGGT do not tell must be as released, or it could not be read.
PLAIN_VGGT = replace(
    TINY_VGGT,
    dim=64,
    encoder_depth=1,
    encoder_heads=16,
    depth=24,
    heads=16,
    levels=(4, 11, 17, 23),
    camera_heads=16,
    track=replace(TINY_VGGT.track, levels=7, radius=4, heads=8),
)
POINT3R_CALL = (
    "Network(Config(freeze='encoder', pos_embed='RoPE100', img_size=(64, 64), head_type='dpt', "
    "depth_mode=('exp', -inf, inf), conf_mode=('exp', 1, inf), enc_embed_dim=64, enc_depth=2, "
    "enc_num_heads=4, dec_embed_dim=48, dec_depth=4, dec_num_heads=3, memory_dec_num_heads=4, "
    "local_mem_size=16, landscape_only=False))"
)
POINT3R_SHOWN = replace(TINY_POINT3R, value_heads=16)  # heads that nothing tells
FAST3R_PUBLISHED: dict[str, Any] = {
    "encoder_args": {
        "encoder_type": "croco",
        "img_size": 512,
        "patch_size": 16,
        "patch_embed_cls": "PatchEmbedDust3R",
        "embed_dim": 1024,
        "num_heads": 16,
        "depth": 24,
        "mlp_ratio": 4,
        "pos_embed": "RoPE100",
        "attn_implementation": "flash_attention",
    },
    "decoder_args": {
        "decoder_type": "fast3r",
        "random_image_idx_embedding": True,
        "enc_embed_dim": 1024,
        "embed_dim": 1024,
        "num_heads": 16,
        "depth": 24,
        "mlp_ratio": 4.0,
        "qkv_bias": True,
        "attn_bias_for_inference_enabled": False,
    },
    "head_args": {
        "head_type": "dpt",
        "output_mode": "pts3d",
        "landscape_only": False,
        "depth_mode": ["exp", "-Infinity", "Infinity"],
        "conf_mode": ["exp", 1, "inf"],
        "with_local_head": True,
    },
}


def published_fast3r(**changes: Any) -> dict[str, Any]:
    """The released configuration with "part.key" changed, or absent if None."""
    values = json.loads(json.dumps(FAST3R_PUBLISHED))
    for name, value in changes.items():
        part, key = name.split("__")
        if value is None:
            del values[part][key]
        else:
            values[part][key] = value
    return values


FAST3R_CONFIG = published_fast3r(
    encoder_args__img_size=64,
    encoder_args__embed_dim=64,
    encoder_args__num_heads=4,
    encoder_args__depth=2,
    decoder_args__enc_embed_dim=64,
    decoder_args__embed_dim=48,
    decoder_args__num_heads=3,
    decoder_args__depth=4,
)


def look(network: Any) -> dict[str, Tensor]:
    """Everything that a network says of three images."""
    patch = network.preparation.patch
    images = random_images(3, 3 * patch, 4 * patch)
    wanted = ("points", "pose", "world")
    if isinstance(network, StreamModel):
        rule = network.parse_rule()
        state, output = network.initial_state(rule), None
        for image in images:
            tokens = network.encode(Views(image=image[None]))
            state, output = network.step(state, tokens, rule, wanted)
    else:
        output = network.predict(images[None], wanted)
    values = {item.name: getattr(output, item.name) for item in fields(output)}
    return {name: value for name, value in values.items() if isinstance(value, Tensor)}


def assert_same(a: Any, b: Any) -> None:
    one, other = a.state_dict(), b.state_dict()
    assert one.keys() == other.keys()
    for key, tensor in one.items():
        assert torch.equal(tensor, other[key]), key


def with_aliases(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    both = dict(tensors)
    for key in tensors:
        for level in range(1, 5):
            if f"scratch.layer{level}_rn" in key and "layer_rn" not in key:
                both[key.replace(f"layer{level}_rn", f"layer_rn.{level - 1}")] = tensors[key]
    return both


def prefixed(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + key: tensor for key, tensor in tensors.items()}


def save_point3r(path: Path, tensors: dict[str, Tensor], call: str | None = POINT3R_CALL) -> Path:
    content = {"model": prefixed("module.", with_aliases(tensors)), "epoch": 1}
    torch.save(content | {"args": argparse.Namespace(model=call, lr=1e-5)}, path)
    return path


def save_fast3r(folder: Path, tensors: dict[str, Tensor], config: Any = FAST3R_CONFIG) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    return folder
