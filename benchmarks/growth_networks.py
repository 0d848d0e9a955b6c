"""The families of the growth figure: their sizes, with random weights."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from ttt3r.models.config import DptSizes
from ttt3r.models.cut3r.config import Cut3rConfig
from ttt3r.models.cut3r.network import Cut3r
from ttt3r.models.fast3r.config import Fast3rConfig
from ttt3r.models.fast3r.network import Fast3r
from ttt3r.models.point3r.config import Point3rConfig
from ttt3r.models.point3r.network import Point3r
from ttt3r.models.streamvggt.config import StreamVggtConfig
from ttt3r.models.streamvggt.network import StreamVggt
from ttt3r.models.vggt.config import VggtConfig
from ttt3r.models.vggt.network import Vggt


@dataclass(frozen=True)
class Widths:
    """One size of all families.

    Attributes:
        configs: by class of the network.
        sizes: (height, width) of the images, by side of a patch.
    """

    configs: dict[type[nn.Module], Any]
    sizes: dict[int, tuple[int, int]]

    def size(self, network: type[nn.Module]) -> tuple[int, int]:
        """(height, width) of the images that a network takes."""
        return self.sizes[getattr(self.configs[network], "patch_size", 16)]


def widths_of(
    dim: int, depth: int, tokens: tuple[int, int], state_size: int, dpt: DptSizes
) -> Widths:
    """Give all families the same channels, blocks per stack and tokens per image."""
    heads, rows, columns = dim // 32, *tokens
    shared: dict[str, Any] = {
        "encoder_dim": dim,
        "encoder_depth": depth,
        "encoder_heads": heads,
        "decoder_dim": dim,
        "decoder_depth": depth,
        "decoder_heads": heads,
        "dpt": dpt,
    }
    vggt: dict[str, Any] = {
        "image_size": 14 * columns,
        "dim": dim,
        "encoder_depth": depth,
        "encoder_heads": heads,
        "depth": depth,
        "heads": heads,
        "levels": tuple(range(depth - 4, depth)),
        "camera_depth": 2,
        "camera_heads": heads,
        "dpt_widths": dpt.layers,
        "dpt_features": dpt.feature,
        "track": None,
    }
    shared["image_size"] = 16 * columns
    return Widths(
        configs={
            Cut3r: Cut3rConfig(
                **shared,
                ray_encoder_heads=heads,
                state_heads=heads,
                state_size=state_size,
                memory_size=state_size,
            ),
            Point3r: Point3rConfig(
                **shared,
                pointer_heads=heads,
                value_depth=2,
                value_heads=heads,
                memory_size=state_size,
            ),
            StreamVggt: StreamVggtConfig(**vggt),
            Vggt: VggtConfig(**vggt),
            Fast3r: Fast3rConfig(**shared),
        },
        sizes={patch: (patch * rows, patch * columns) for patch in (16, 14)},
    )


WIDTHS = {
    "tiny": widths_of(32, 4, (2, 2), 16, DptSizes((8, 8, 8, 8), 8, 8)),
    "small": widths_of(128, 4, (6, 8), 64, DptSizes((16, 32, 64, 64), 32, 16)),
    "full": Widths(  # without VGGT's head that follows points, which no stream asks
        configs={
            Cut3r: Cut3rConfig(),
            Point3r: Point3rConfig(),
            StreamVggt: StreamVggtConfig(track=None),
            Vggt: VggtConfig(track=None),
            Fast3r: Fast3rConfig(),
        },
        sizes={16: (384, 512), 14: (392, 518)},
    ),
}


@dataclass(frozen=True)
class Family:
    """One line of the figure: a network and how its state is updated."""

    title: str
    network: type[nn.Module]
    rule: str


FAMILIES = {
    "overwrite": Family("CUT3R, overwrite", Cut3r, "overwrite"),
    "ttt3r": Family("CUT3R, ttt3r", Cut3r, "ttt3r"),
    "point3r": Family("Point3R, fuse", Point3r, "fuse"),
    "streamvggt": Family("StreamVGGT, keep_all", StreamVggt, "keep_all"),
    "window": Family("StreamVGGT, window(32)", StreamVggt, "window(32)"),
    "vggt": Family("VGGT, keep_all", Vggt, "keep_all"),
    "vggt_once": Family("VGGT, once", Vggt, "once"),
    "fast3r": Family("Fast3R, keep_all", Fast3r, "keep_all"),
    "fast3r_once": Family("Fast3R, once", Fast3r, "once"),
}


def build(
    family: Family,
    widths: Widths,
    dtype: torch.dtype = torch.float32,
    device: torch.device | None = None,
) -> Any:
    """Return a family's network as training would find it, the same in every process.

    Args:
        family: which one.
        widths: its size.
        dtype: that its encoder and decoders compute in.
        device: where it runs; None is the CPU, where its weights are made in any case.
    """
    torch.manual_seed(0)
    network: Any = family.network(widths.configs[family.network])
    return network.set_precision(dtype).eval().requires_grad_(False).to(device or "cpu")


def resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return an image, uint8 [height, width, 3], in another size."""
    if image.shape[:2] == size:
        return image
    height, width = size
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))
