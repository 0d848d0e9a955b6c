"""Renders with the compiled kernels; numba has to be installed."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ttt3r.errors import SettingError
from ttt3r.scenes.fast.tables import pack
from ttt3r.scenes.fast.tiles import SIDE, new_tile, render_rows
from ttt3r.scenes.render import Lighting, Rendering
from ttt3r.scenes.solids import Geometry
from ttt3r.scenes.textures import Materials

BAND = 4 * SIDE  # rows of one piece of work


def render(
    geometry: Geometry,
    materials: Materials,
    lighting: Lighting,
    volume: Float[Tensor, "cells cells cells"],
    poses: Float[Tensor, "frames 4 4"],
    intrinsics: Float[Tensor, "3 3"],
    size: tuple[int, int],
    *,
    threads: int | None = None,
) -> Rendering:
    """Follow one ray through each pixel's centre; the twin of `scenes.render.render`.

    Results do not depend on the number of threads. From those of the twin they differ by rounding,
    which moves borders of solids and of textures' cells by a pixel here and there.

    Args:
        geometry: solids of each frame, on the CPU as everything else.
        materials: materials of each frame.
        lighting: lights of all frames.
        volume: a periodic cube of random numbers in [0, 1], for textures.
        poses: world from camera.
        intrinsics: of all frames.
        size: (height, width).
        threads: how many work; by default as many as torch uses.

    Raises:
        SettingError: if the tensors are on another device.
    """
    if poses.device.type != "cpu":
        raise SettingError(f"the fast renderer works on the CPU only, not on {poses.device}")
    tables = pack(geometry, materials, lighting, volume, poses, intrinsics)
    height, width = size
    light = np.empty((len(poses), 3, height, width), np.float32)
    depth = np.empty((len(poses), height, width), np.float32)
    moving = np.empty((len(poses), height, width), np.bool_)
    work = [(frame, top) for frame in range(len(poses)) for top in range(0, height, BAND)]

    def some(part: list[tuple[int, int]]) -> None:
        tile = new_tile()
        for frame, top in part:
            end = min(top + BAND, height)
            render_rows(tables, frame, top, end, tile, light[frame], depth[frame], moving[frame])

    count = max(1, min(threads or torch.get_num_threads(), len(work)))
    if count == 1:
        some(work)
    else:
        with ThreadPoolExecutor(count) as pool:
            list(pool.map(some, (work[i::count] for i in range(count))))
    return Rendering(torch.from_numpy(light), torch.from_numpy(depth), torch.from_numpy(moving))
