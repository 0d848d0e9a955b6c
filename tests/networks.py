"""Small networks for tests."""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import torch
from safetensors.torch import load_file

from tests.goldens import goldens
from ttt3r.models.cut3r.config import TINY_DPT, TINY_LINEAR, Cut3rConfig
from ttt3r.models.cut3r.network import Cut3r


def tiny_config(name: str, **changes) -> Cut3rConfig:
    """Configuration of "tiny_dpt" or "tiny_linear"; the goldens were made with the same."""
    return replace({"tiny_dpt": TINY_DPT, "tiny_linear": TINY_LINEAR}[name], **changes)


@cache
def reference_tiny(name: str, half_rope: bool = False) -> Cut3r:
    """A tiny network with the reference's random weights; skips without goldens."""
    folder = goldens("cut3r")
    tensors = {k: v.float() for k, v in load_file(folder / f"{name}.safetensors").items()}
    aliases = json.loads((folder / f"{name}.config.json").read_text()).get("aliases", {})
    tensors |= {alias: tensors[key] for alias, key in aliases.items()}
    network = Cut3r(tiny_config(name, half_rope_in_encoder=half_rope))
    network.load_state_dict(tensors, strict=True)
    return network.eval().requires_grad_(False)


@cache
def random_tiny(name: str = "tiny_dpt", seed: int = 0, **changes) -> Cut3r:
    """A tiny network with random weights of our own."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Cut3r(tiny_config(name, **changes))
        for name, parameter in network.named_parameters():
            if parameter.ndim == 3 or name.startswith("masked"):  # learned tokens start at zero
                torch.nn.init.normal_(parameter, std=0.5)
    return network.eval().requires_grad_(False)


def random_images(count: int, height: int = 48, width: int = 64, seed: int = 0) -> torch.Tensor:
    """Smooth random images in [-1, 1], [count, 3, height, width]."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 6, 8, generator=generator)
    return 2 * torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic") - 1


def check_double_precision(
    look: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor
) -> None:
    """Assert that nothing on the way is rounded to float32: tiny changes show in proportion."""
    generator = torch.Generator().manual_seed(0)
    change = 1e-8 * torch.randn(images.shape, generator=generator, dtype=torch.float64)
    plain, once, twice = (look(images.double() + times * change) for times in range(3))
    assert plain.dtype == torch.float64
    moved = (once - plain).norm()
    assert 0 < (twice - plain - 2 * (once - plain)).norm() < 1e-4 * moved
