"""Iterative point tracker of VGGT (arXiv 2503.11651), in the manner of CoTracker2 (2307.07635).

Every query starts at its own place in all frames. Each iteration compares the track's feature with
the feature maps around its estimate, and a transformer says how estimates and features must change.
Positions are (x, y) in pixels of the feature maps, whose centres are at integers.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ttt3r.errors import InputError, SettingError
from ttt3r.nn import backend
from ttt3r.nn.layers import Linear, Mlp
from ttt3r.nn.tables import sines_and_cosines
from ttt3r.nn.update_former import UpdateFormer


def flow_code(
    flow: Float[Tensor, "*batch 2"], channels: int, scale: float
) -> Float[Tensor, "*batch coded"]:
    """Sines and cosines of a displacement, followed by twice the displacement over `scale`.

    Frequencies are linear, k · 1000/m for even k below m = channels/2, up to nearly 1000 radians
    per pixel. Each coordinate gives m numbers, sine and cosine in turn; x comes first.

    Args:
        flow: displacement in pixels.
        channels: sines and cosines of both coordinates together, a multiple of 4.
        scale: displacement in pixels that counts as 1.
    """
    each = channels // 2
    frequencies = torch.arange(0, each, 2, device=flow.device, dtype=flow.dtype) * (1000 / each)
    angles = flow[..., None] * frequencies
    waves = torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(-3)
    return torch.cat((waves, flow / scale, flow / scale), dim=-1)


def place_code(
    positions: Float[Tensor, "*batch 2"], size: tuple[int, int], channels: int
) -> Float[Tensor, "*batch channels"]:
    """Sines and cosines of where a point lies, [sin x | cos x | sin y | cos y].

    They are known at whole pixels and interpolated in between. That of a pixel depends on the
    column or on the row alone, so the bilinear sample of the published two-dimensional table is
    two linear ones. Frequencies are 10000^(−k / quarter), k = 0 … quarter − 1.

    Args:
        positions: (x, y) in pixels; those outside count as on the border.
        size: (height, width) of the map.
        channels: a multiple of 4.
    """
    codes = []
    for coordinate, count in zip(positions.unbind(-1), reversed(size), strict=True):
        pixels = sines_and_cosines(count, channels // 2, positions.dtype, positions.device)
        coordinate = coordinate.clamp(0, count - 1)
        low = coordinate.long()
        high = (low + 1).clamp(max=count - 1)
        codes.append(torch.lerp(pixels[low], pixels[high], (coordinate - low)[..., None]))
    return torch.cat(codes, dim=-1)


def sample(
    maps: Float[Tensor, "batch height width channels"],
    positions: Float[Tensor, "batch points 2"],
) -> Float[Tensor, "batch points channels"]:
    """Bilinear values of the maps; positions outside read the border."""
    height, width = maps.shape[1:3]
    last = positions.new_tensor([width - 1, height - 1])
    grid = 2 * positions / last.clamp(min=1) - 1
    values = F.grid_sample(
        maps.permute(0, 3, 1, 2), grid[:, :, None], padding_mode="border", align_corners=True
    )
    return values[..., 0].mT


def pyramid(
    maps: Float[Tensor, "images height width channels"], levels: int
) -> list[Float[Tensor, "images _ _ channels"]]:
    """The maps and their 2 x 2 averages, again and again; an odd last row or column is dropped."""
    found = [maps]
    for _ in range(levels - 1):
        halved = F.avg_pool2d(found[-1].permute(0, 3, 1, 2), 2)
        found.append(halved.permute(0, 2, 3, 1).contiguous())
    return found


def _neighbours(
    centres: Float[Tensor, " points"], radius: int, count: int
) -> tuple[Int[Tensor, "points near"], Float[Tensor, "points near"], Float[Tensor, " points"]]:
    """The 2 · radius + 2 pixels along one axis between which all samples around a centre lie.

    Returns:
        Their indices, moved into the axis; 1 where they were in it and 0 elsewhere; and how far
        (0 to 1) the samples lie towards the next pixel.
    """
    if count == 1:  # the published sampling maps any position on an axis of one pixel to it
        index = centres.new_zeros(len(centres), 2 * radius + 2, dtype=torch.int64)
        return index, torch.ones_like(index, dtype=centres.dtype), torch.zeros_like(centres)
    # Far outside all is zero alike; this keeps indices of estimates gone astray from overflowing.
    centres = centres.clamp(-radius - 2, count + radius + 1)
    low = centres.floor()
    around = torch.arange(-radius, radius + 2, device=centres.device)
    index = low.long()[:, None] + around
    inside = (index >= 0) & (index < count)
    return index.clamp(0, count - 1), inside.to(centres.dtype), centres - low


def local_correlation(
    features: Float[Tensor, "points channels"],
    maps: Float[Tensor, "images height width channels"],
    image: Int[Tensor, " points"],
    centres: Float[Tensor, "points 2"],
    radius: int,
) -> Float[Tensor, "points window"]:
    """Compare each feature with a square of samples of its map, ⟨feature, map⟩ / √channels.

    The published network correlates each feature with its whole map and samples the result. Both
    steps are linear, so comparing with the few pixels between which the samples lie, and then
    interpolating, gives the same at a cost that does not depend on the size of the map.

    Args:
        features: what to look for.
        maps: where to look for it; zero outside.
        image: which map each feature is compared with.
        centres: (x, y) of the middle of each square, in pixels of `maps`.
        radius: the square has 2 · radius + 1 samples per side, one pixel apart.

    Returns:
        One value per sample; x varies slowest.
    """
    height, width, channels = maps.shape[1:]
    pixels = maps.reshape(-1, channels)
    results = []
    rows = max(1, backend.gathered_at_once(maps) // ((2 * radius + 2) ** 2 * channels))
    for part in torch.arange(len(features), device=features.device).split(rows):
        x, inside_x, right = _neighbours(centres[part, 0], radius, width)
        y, inside_y, down = _neighbours(centres[part, 1], radius, height)
        index = (image[part, None, None] * height + y[:, None, :]) * width + x[:, :, None]
        near = pixels.index_select(0, index.flatten()).unflatten(0, (len(part), -1))
        product = (near @ features[part, :, None]).view_as(index)
        product = product * (inside_x[:, :, None] * inside_y[:, None, :])
        product = torch.lerp(product[:, :-1], product[:, 1:], right[:, None, None])
        product = torch.lerp(product[:, :, :-1], product[:, :, 1:], down[:, None, None])
        results.append(product.flatten(1) * channels**-0.5)
    return torch.cat(results)


class Tracker(nn.Module):
    """Follow points of the first frame through all frames (VGGT, section 3.3).

    Args:
        channels: of the feature maps, a multiple of 4.
        hidden: channels inside the transformer.
        heads: of its attentions.
        rounds: of the transformer, see `UpdateFormer`.
        virtual_tracks: of the transformer.
        stride: pixels of an image per pixel of its feature map.
        iterations: times that the estimates are refined.
        levels: resolutions at which features are compared.
        radius: of the square of samples that are compared, in pixels of each level.
        flow_scale: displacement, in pixels of the maps, that counts as 1.

    Raises:
        SettingError: if `channels` is not a multiple of 4 or `hidden` none of `heads`.
    """

    def __init__(
        self,
        channels: int,
        hidden: int,
        *,
        heads: int,
        rounds: int,
        virtual_tracks: int,
        stride: int,
        iterations: int,
        levels: int,
        radius: int,
        flow_scale: float,
    ) -> None:
        super().__init__()
        if channels % 4:
            raise SettingError(f"a tracker needs a multiple of 4 channels, not {channels}")
        self.channels, self.stride, self.iterations = channels, stride, iterations
        self.levels, self.radius, self.flow_scale = levels, radius, flow_scale
        described = 3 * channels + 4
        self.corr_mlp = Mlp(levels * (2 * radius + 1) ** 2, hidden, channels)
        self.query_ref_token = nn.Parameter(torch.zeros(1, 2, described))
        self.updateformer = UpdateFormer(
            described,
            2 + channels,
            dim=hidden,
            heads=heads,
            rounds=rounds,
            virtual_tracks=virtual_tracks,
        )
        self.fmap_norm = nn.LayerNorm(channels)
        # Published as a group norm of one group, which on single vectors is a layer norm.
        self.ffeat_norm = nn.LayerNorm(channels)
        self.ffeat_updater = nn.Sequential(Linear(channels, channels), nn.GELU())
        self.vis_predictor = nn.Sequential(Linear(channels, 1))
        self.conf_predictor = nn.Sequential(Linear(channels, 1))

    def forward(
        self,
        maps: Float[Tensor, "batch frames channels height width"],
        queries: Float[Tensor, "batch points 2"],
    ) -> tuple[
        Float[Tensor, "batch frames points 2"],
        Float[Tensor, "batch frames points"],
        Float[Tensor, "batch frames points"],
    ]:
        """Track the queries.

        Args:
            maps: features of all frames; the tracker must see them at once.
            queries: (x, y) in pixels of the first image, `stride` times those of the maps.

        Returns:
            Positions in pixels of the images, the queries themselves in the first frame; how
            likely each point is visible; and how far its position can be trusted, both 0 to 1.

        Raises:
            InputError: if the maps are too small for the levels of the pyramid.
        """
        frames, (height, width) = maps.shape[1], maps.shape[-2:]
        least = 2 ** (self.levels - 1)
        if min(height, width) < least:
            raise InputError(
                f"feature maps of {width} x {height} pixels are too small to track points in: "
                f"their sides must have {least}. Use images with sides of at least "
                f"{self.stride * least} pixels."
            )
        normalised = self.fmap_norm(maps.movedim(2, -1))
        levels = pyramid(normalised.flatten(0, 1), self.levels)
        start = queries.to(maps) / self.stride
        feature = sample(normalised[:, 0], start)[:, :, None].expand(-1, -1, frames, -1)
        place = place_code(start, (height, width), self.query_ref_token.shape[-1])
        role = self.query_ref_token[:, [0] + [1] * (frames - 1)]
        constant = place[:, :, None] + role[:, None]

        start = start[:, :, None]
        position = start.expand(-1, -1, frames, -1)
        for _ in range(self.iterations):
            seen = self.corr_mlp(self._correlation(feature, levels, position))
            flow = flow_code(position - start, self.channels, self.flow_scale)
            update = self.updateformer(torch.cat((flow, seen, feature), dim=-1) + constant)
            moved = position + update[..., :2]
            position = torch.cat((start, moved[:, :, 1:]), dim=2)
            feature = feature + self.ffeat_updater(self.ffeat_norm(update[..., 2:]))

        visibility, confidence = (
            head(feature)[..., 0].sigmoid().mT for head in (self.vis_predictor, self.conf_predictor)
        )
        return position.transpose(1, 2) * self.stride, visibility, confidence

    def _correlation(
        self,
        feature: Float[Tensor, "batch points frames channels"],
        levels: Sequence[Float[Tensor, "images _ _ channels"]],
        position: Float[Tensor, "batch points frames 2"],
    ) -> Float[Tensor, "batch points frames compared"]:
        """How like its feature each track finds its surroundings, at all levels."""
        batch, points, frames, _ = feature.shape
        image = torch.arange(batch * frames, device=feature.device).view(batch, 1, frames)
        image = image.expand(-1, points, -1).flatten()
        feature, position = feature.flatten(0, 2), position.flatten(0, 2)
        found = [
            local_correlation(feature, maps, image, position / 2**level, self.radius)
            for level, maps in enumerate(levels)
        ]
        return torch.cat(found, dim=-1).unflatten(0, (batch, points, frames))
