"""The pointmap heads of Fast3R, under the published names."""

from jaxtyping import Float
from torch import Tensor, nn

from ttt3r.models.fast3r.config import Fast3rConfig
from ttt3r.nn.activations import confidence_from_raw, points_from_raw
from ttt3r.nn.dpt import Dpt, Levels

Pointmap = tuple[
    Float[Tensor, "batch height width 3"],
    Float[Tensor, "batch height width"],
]


class PointmapHead(nn.Module):
    """A DPT on tokens from four depths that gives a point and a confidence for each pixel."""

    def __init__(self, config: Fast3rConfig) -> None:
        super().__init__()
        dims = (config.encoder_dim, *(config.decoder_dim,) * 3)
        sizes = config.dpt
        self.dpt = Dpt(dims, sizes.layers, sizes.feature, sizes.last, out=4)

    def forward(self, levels: Levels, grid: tuple[int, int]) -> Pointmap:
        """Return points and their confidence, at least 1.

        Args:
            levels: patch tokens of the encoder, and of the fusion transformer at one half, three
                quarters and end.
            grid: (rows, columns) of patches.
        """
        raw = self.dpt(levels, grid).movedim(1, -1)
        points = points_from_raw(raw[..., :3], "exp")
        return points.contiguous(), confidence_from_raw(raw[..., 3], "exp")
