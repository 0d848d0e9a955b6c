"""Track head of VGGT (arXiv 2503.11651, section 3.3), under the published names."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from ttt3r.errors import InputError
from ttt3r.models.config import Sizes, heads_rule
from ttt3r.nn.tracker import Tracker
from ttt3r.nn.vggt_dpt import VggtDpt


@dataclass(frozen=True)
class TrackSizes(Sizes):
    """Everything that decides the shapes and the arithmetic of a track head.

    The defaults are the released network.

    Attributes:
        layers: channels of the four levels of the feature extractor.
        features: channels of the feature maps, a multiple of 4.
        stride: pixels of the image per pixel of a feature map.
        iterations: times that the tracks are refined.
        levels: resolutions at which features are compared, each half the one before.
        radius: of the square in which features are compared, in pixels of each level.
        hidden: channels of the transformer that refines the tracks.
        heads: of its attentions.
        rounds: times that it looks over frames and then over tracks.
        virtual_tracks: learned tracks through which it lets the others exchange.
        flow_scale: displacement, in pixels of the feature maps, that it sees as 1.

    Raises:
        SettingError: if a value cannot be used, or values do not fit each other.
    """

    layers: tuple[int, int, int, int] = (256, 512, 1024, 1024)
    features: int = 128
    stride: int = 2
    iterations: int = 4
    levels: int = 7
    radius: int = 4
    hidden: int = 384
    heads: int = 8
    rounds: int = 6
    virtual_tracks: int = 64
    flow_scale: float = 518.0

    def rules(self) -> list[tuple[Any, str]]:
        """See `Sizes.rules`."""
        return [
            (self.features % 4, f"features={self.features} must be a multiple of 4"),
            heads_rule(self.hidden, self.heads, "heads", 1),
        ]


@dataclass(frozen=True)
class Tracks:
    """Where the points of the first frame are in all frames.

    Attributes:
        positions: (x, y) in pixels of the images that the network sees; in the first frame the
            queries themselves. A position may lie outside the image.
        visibility: how likely the point is visible, 0 to 1.
        confidence: how far `positions` can be trusted, 0 to 1.
    """

    positions: Float[Tensor, "batch frames points 2"]
    visibility: Float[Tensor, "batch frames points"]
    confidence: Float[Tensor, "batch frames points"]


def check_queries(queries: Tensor, batch: int, size: tuple[int, int]) -> None:
    """Make sure that queries are points of an image, within half a pixel of some pixel's centre.

    Args:
        queries: what should be (x, y) in pixels, [batch, points, 2].
        batch: number of sequences.
        size: (height, width) of the images in pixels.

    Raises:
        InputError: if the shape differs, there is no point, or one is not finite or outside.
    """
    shape = tuple(queries.shape)
    if len(shape) != 3 or shape[0] != batch or shape[1] == 0 or shape[2] != 2:
        raise InputError(
            f"query points have the shape {list(shape)}; give at least one (x, y) for each of the "
            f"{batch} sequences, [{batch}, points, 2]"
        )
    last = queries.new_tensor([size[1] - 1, size[0] - 1])
    outside = ~((queries >= -0.5) & (queries <= last + 0.5)).all(dim=-1)  # true for NaN, too
    if outside.any():
        sequence, point = outside.nonzero()[0].tolist()
        x, y = queries[sequence, point].tolist()
        raise InputError(
            f"query point {point} of sequence {sequence}, ({x:g}, {y:g}), does not lie in the "
            f"first image. Give (x, y) in pixels of the image that the network sees: "
            f"0 to {size[1] - 1} and 0 to {size[0] - 1}."
        )


class TrackHead(nn.Module):
    """Follows points of the first frame through a sequence.

    It sees all frames at once, so it does not serve streams, and knows no other query frame than
    the first. It was trained on rigid scenes.

    Args:
        dim: channels of the tokens.
        sizes: of everything else.
        patch: side of a patch in pixels.
    """

    def __init__(self, dim: int, sizes: TrackSizes | None = None, *, patch: int = 14) -> None:
        super().__init__()
        self.sizes = sizes = TrackSizes() if sizes is None else sizes
        self.feature_extractor = VggtDpt(
            dim, sizes.layers, sizes.features, patch=patch, down_ratio=sizes.stride
        )
        self.tracker = Tracker(
            sizes.features,
            sizes.hidden,
            heads=sizes.heads,
            rounds=sizes.rounds,
            virtual_tracks=sizes.virtual_tracks,
            stride=sizes.stride,
            iterations=sizes.iterations,
            levels=sizes.levels,
            radius=sizes.radius,
            flow_scale=sizes.flow_scale,
        )

    def forward(
        self,
        tokens: Sequence[Float[Tensor, "batch frames patches channels"]],
        size: tuple[int, int],
        queries: Float[Tensor, "batch points 2"],
    ) -> Tracks:
        """Track the queries through all frames.

        Tracks influence each other: they are estimated together.

        Args:
            tokens: patch tokens of four depths, shallowest first.
            size: (height, width) of the images in pixels, multiples of the patch.
            queries: (x, y) in pixels of the first image.

        Raises:
            InputError: if a query does not lie in the image, or images are too small to track in.
        """
        check_queries(queries, len(tokens[0]), size)
        frames = tokens[0].shape[:2]
        maps = self.feature_extractor([x.flatten(0, 1) for x in tokens], size)
        return Tracks(*self.tracker(maps.unflatten(0, frames), queries))
