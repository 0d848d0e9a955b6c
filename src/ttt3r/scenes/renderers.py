"""Which code renders: the plain torch ray caster, or compiled kernels that are faster on a CPU."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ttt3r.errors import SettingError
from ttt3r.scenes.render import Lighting, Rendering, render
from ttt3r.scenes.solids import Geometry
from ttt3r.scenes.textures import Materials

MOST_SAMPLES = 8
Renderer = Callable[..., Rendering]  # takes and gives what `render.render` does


def _torch() -> Renderer:
    return render


def _fast() -> Renderer:
    from ttt3r.scenes.fast.front import render as fast

    return fast


RENDERERS: dict[str, Callable[[], Renderer]] = {"torch": _torch, "fast": _fast}


def get_renderer(name: str, samples: int = 1) -> Renderer:
    """The function that renders, with the arguments of `render.render`.

    Args:
        name: one of `RENDERERS`. "fast" needs numba and works on the CPU only; its images differ
            from those of "torch" by rounding.
        samples: rays along each side of a pixel, whose light is averaged. Depth and motion stay
            those of the ray through the pixel's centre.

    Raises:
        SettingError: if the name is unknown, or the samples are not 1 to 8.
        MissingExtraError: if the renderer needs a package that is not installed.
    """
    if name not in RENDERERS:
        raise SettingError(f"unknown renderer {name!r}; choose from {', '.join(RENDERERS)}")
    if not 1 <= samples <= MOST_SAMPLES:
        raise SettingError(f"a pixel has 1 to {MOST_SAMPLES} samples along a side, not {samples}")
    chosen = RENDERERS[name]()
    if samples == 1:
        return chosen

    def render_finely(
        geometry: Geometry,
        materials: Materials,
        lighting: Lighting,
        volume: Float[Tensor, "cells cells cells"],
        poses: Float[Tensor, "frames 4 4"],
        intrinsics: Float[Tensor, "3 3"],
        size: tuple[int, int],
        **settings: Any,
    ) -> Rendering:
        scene = (geometry, materials, lighting, volume, poses)
        finer = (size[0] * samples, size[1] * samples)
        fine = chosen(*scene, refined(intrinsics, samples), finer, **settings)
        light = F.avg_pool2d(fine.light, samples)
        return replace(chosen(*scene, intrinsics, size, **settings), light=light)

    return render_finely


def refined(intrinsics: Float[Tensor, "3 3"], samples: int) -> Float[Tensor, "3 3"]:
    """Intrinsics of the image that has `samples` pixels along each side of a pixel."""
    scale = torch.diag(intrinsics.new_tensor([samples, samples, 1]))
    scale[:2, 2] = (samples - 1) / 2  # pixel centres are integers
    return scale @ intrinsics
