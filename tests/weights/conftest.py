"""Small weight files, made on the spot."""

import argparse
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.weights.published import PLAIN_VGGT
from ttt3r.weights.catalogue import CATALOGUE
from ttt3r.weights.random import random_weights

TINY_ARGUMENTS = (
    "freeze='encoder', state_pe='2d', pos_embed='RoPE100', rgb_head=True, pose_head=True, "
    "img_size=(64, 64), output_mode='pts3d+pose', depth_mode=('exp', -inf, inf), "
    "conf_mode=('exp', 1, inf), pose_mode=('exp', -inf, inf), enc_embed_dim=64, enc_depth=2, "
    "enc_num_heads=4, dec_embed_dim=32, dec_depth=4, dec_num_heads=2, state_dec_num_heads=4, "
    "local_mem_size=16"
)


def constructor(arguments: str) -> str:
    return f"ARCroco3DStereo(ARCroco3DStereoConfig({arguments}))"


TINY_LINEAR = constructor(f"{TINY_ARGUMENTS}, head_type='linear', state_size=20")
TINY_DPT = constructor(
    f"{TINY_ARGUMENTS}, head_type='dpt', state_size=27, landscape_only=False, "
    "patch_embed_cls='ManyAR_PatchEmbed'"
)


def tiny_tensors(name: str) -> dict[str, Tensor]:
    config = CATALOGUE[name].random_config
    assert config is not None
    return random_weights(config)


def save(path: Path, tensors: object, model_string: object) -> Path:
    arguments = argparse.Namespace(model=model_string, lr=1e-6)
    torch.save({"args": arguments, "model": tensors, "epoch": 3}, path)
    return path


def with_hash(monkeypatch: pytest.MonkeyPatch, name: str, sha256: str | None) -> None:
    """Give published weights another hash, or none, so that small ones can stand for them."""
    spec = CATALOGUE[name]
    files = (replace(spec.files[0], sha256=sha256), *spec.files[1:])
    monkeypatch.setitem(CATALOGUE, name, replace(spec, files=files, also=()))


@pytest.fixture(scope="session")
def tiny_linear_pth(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiny") / "linear.pth"
    return save(path, tiny_tensors("tiny-linear"), TINY_LINEAR)


@pytest.fixture(scope="session")
def tiny_dpt_pth(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tensors = tiny_tensors("tiny-dpt")
    for key in [key for key in tensors if "scratch.layer" in key]:
        level = int(key[key.index("scratch.layer") + len("scratch.layer")])
        alias = key.replace(f"layer{level}_rn", f"layer_rn.{level - 1}")
        tensors[alias] = tensors[key]
    return save(tmp_path_factory.mktemp("tiny") / "dpt.pth", tensors, TINY_DPT)


@pytest.fixture(scope="session")
def vggt_tensors() -> dict[str, Tensor]:
    return random_weights(PLAIN_VGGT)


@pytest.fixture(scope="session")
def vggt_pt(vggt_tensors: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As VGGT is published: a flat state dict."""
    path = tmp_path_factory.mktemp("vggt") / "model.pt"
    torch.save(vggt_tensors, path)
    return path
