"""VGGT: cameras, depth and points of a set of views in one pass (arXiv 2503.11651).

Every frame's tokens alternate between looking at their own frame and at all frames. The first view
is the world; the order of the others does not matter.
"""

from collections.abc import Collection

import torch
from jaxtyping import Float
from torch import Tensor

from ttt3r.errors import SettingError
from ttt3r.models.network import Network, SetNetwork
from ttt3r.models.vggt.aggregator import Aggregator, FrameMix, mix_all
from ttt3r.models.vggt.config import VggtConfig
from ttt3r.models.vggt.heads import (
    CameraHead,
    CameraMix,
    VggtReading,
    cameras_from_raw,
    depth_from_raw,
    mix_cameras,
    points_from_raw,
)
from ttt3r.models.vggt.track import TrackHead, Tracks, check_queries
from ttt3r.nn.vggt_dpt import VggtDpt
from ttt3r.spans import span
from ttt3r.types import Reading


class VggtNetwork(Network):
    """What VGGT and StreamVGGT share: all of the weights, and the way to the heads."""

    config: VggtConfig
    exact = frozenset({"camera_head", "depth_head", "point_head", "track_head"})

    def __init__(self, config: VggtConfig) -> None:
        super().__init__(config)
        self.aggregator = Aggregator(config)
        self.camera_head = CameraHead(config)
        self.depth_head = self._dense_head(2)
        self.point_head = self._dense_head(4)
        self.track_head: TrackHead | None = None
        if config.track is not None:
            self.track_head = TrackHead(2 * config.dim, config.track, patch=config.patch_size)

    def _dense_head(self, out: int) -> VggtDpt:
        c = self.config
        return VggtDpt(2 * c.dim, c.dpt_widths, c.dpt_features, out, patch=c.patch_size)

    def levels(self, wanted: frozenset[str]) -> frozenset[int]:
        """Pairs of blocks whose outputs the heads of `wanted` read."""
        dense = self.config.levels if {"points", "world"} & wanted else ()
        return frozenset((*dense, self.config.depth - 1))

    def camera_tokens(
        self, kept: dict[int, Float[Tensor, "batch frames tokens wide"]]
    ) -> Float[Tensor, "batch frames wide"]:
        """Return what the camera head reads of the trunk's outputs."""
        return kept[self.config.depth - 1][:, :, 0]

    def read(
        self,
        kept: dict[int, Float[Tensor, "batch frames tokens wide"]],
        size: tuple[int, int],
        outputs: Collection[str],
        mix: CameraMix = mix_cameras,
        chunk: int = 8,
    ) -> VggtReading:
        """Run the heads that `outputs` ask for; the camera head always runs.

        Args:
            kept: outputs of the trunk, at least those of `levels`.
            size: (height, width) of the images in pixels.
            outputs: "points" for depth, "world" for points of the world.
            mix: how camera tokens of different frames mix.
            chunk: frames that the dense heads work on at a time; it bounds memory.
        """
        depth = points = (None, None)
        with span("heads"):
            raw = self.camera_head(self.camera_tokens(kept), mix)
            if "points" in outputs:
                depth = depth_from_raw(self._dense(self.depth_head, kept, size, chunk))
            if "world" in outputs:
                points = points_from_raw(self._dense(self.point_head, kept, size, chunk))
            return VggtReading(cameras_from_raw(raw), *depth, *points)

    def _dense(
        self, head: VggtDpt, kept: dict[int, Tensor], size: tuple[int, int], chunk: int
    ) -> Tensor:
        tokens = self.patch_tokens(kept)
        shape = tokens[0].shape[:2]
        return head([x.flatten(0, 1) for x in tokens], size, chunk).unflatten(0, shape)

    def patch_tokens(
        self, kept: dict[int, Float[Tensor, "batch frames tokens wide"]]
    ) -> list[Float[Tensor, "batch frames patches wide"]]:
        """Return what the dense heads and the track head read of the trunk's outputs."""
        special = self.aggregator.special
        return [kept[level][:, :, special:] for level in self.config.levels]

    def look(
        self,
        images: Float[Tensor, "batch frames 3 height width"],
        outputs: Collection[str],
        mix: FrameMix = mix_all,
        camera_mix: CameraMix = mix_cameras,
        chunk: int = 8,
    ) -> VggtReading:
        """Return what the heads say of sets of views, in the network's own terms.

        Args:
            images: RGB in [-1, 1].
            outputs: see `read`.
            mix: how tokens of different frames mix in the trunk.
            camera_mix: how camera tokens of different frames mix in the camera head.
            chunk: see `read`.

        Raises:
            SettingError: if the sides are not multiples of the patch, or there is no view.
        """
        kept = self.trunk(images, self.levels(frozenset(outputs)), mix)
        return self.read(kept, (images.shape[3], images.shape[4]), outputs, camera_mix, chunk)

    def trunk(
        self,
        images: Float[Tensor, "batch frames 3 height width"],
        levels: frozenset[int],
        mix: FrameMix = mix_all,
    ) -> dict[int, Float[Tensor, "batch frames tokens wide"]]:
        """Return the tokens of sets of views after the pairs of blocks in `levels`.

        Args:
            images: RGB in [-1, 1].
            levels: pairs of blocks, from 0.
            mix: how tokens of different frames mix.

        Raises:
            SettingError: see `look`.
        """
        batch, frames, _, *sides = images.shape
        size = (sides[0], sides[1])
        self.check_size(size)
        if not batch or not frames:
            raise SettingError("there are no views to look at; pass at least one image per set")
        patches = self.aggregator.encode(images.flatten(0, 1)).unflatten(0, (batch, frames))
        first = torch.arange(frames, device=self.device).expand(batch, -1) == 0
        tokens = self.aggregator.assemble(patches, first)
        return self.aggregator(tokens, self.grid(size), levels, mix)


def in_our_terms(reading: VggtReading, size: tuple[int, int], wanted: frozenset[str]) -> Reading:
    """Bring a reading into the conventions of this package."""
    poses, intrinsics = reading.cameras_of(size)
    return Reading(
        points=reading.unprojected(intrinsics),
        confidence=reading.depth_confidence,
        world_points=reading.world_points,
        world_confidence=reading.world_confidence,
        world_from_camera=poses if "pose" in wanted else None,
        intrinsics=intrinsics if {"pose", "points"} & wanted else None,
    )


class Vggt(VggtNetwork, SetNetwork):
    """The network that looks at all views at once.

    Poses and points are as predicted: the first camera's pose is close to the identity, not exactly
    it, and lengths share one unknown scale.
    """

    def predict(
        self,
        images: Float[Tensor, "batch views 3 height width"],
        outputs: Collection[str] = ("points", "pose"),
    ) -> Reading:
        """Look at sets of views; the first view is the world.

        Args:
            images: RGB in [-1, 1]; sides are multiples of the patch.
            outputs: any of "points" (or "self"), "pose", "world"; others are not computed.

        Raises:
            SettingError: if the network cannot give an output, the size does not fit, or there is
                no view.
        """
        wanted = self.capabilities.check(outputs)
        reading = self.look(images, wanted)
        return in_our_terms(reading, (images.shape[3], images.shape[4]), wanted)

    def track(
        self,
        images: Float[Tensor, "batch views 3 height width"],
        queries: Float[Tensor, "batch points 2"],
    ) -> Tracks:
        """Follow points of the first view through the others.

        Args:
            images: RGB in [-1, 1]; sides are multiples of the patch.
            queries: (x, y) in pixels of the first image.

        Raises:
            SettingError: if the network has no track head, the size does not fit, or there is
                no view.
            InputError: if a query does not lie in the image, or images are too small to track in.
        """
        if self.track_head is None:
            raise SettingError(
                "this network has no track head; build it with `track` sizes in its configuration, "
                "or load weights that include one"
            )
        size = (images.shape[3], images.shape[4])
        check_queries(queries, len(images), size)
        kept = self.trunk(images, frozenset(self.config.levels))
        return self.track_head(self.patch_tokens(kept), size, queries)
