"""Fast3R: one transformer over the tokens of all views of a set at once (arXiv 2501.13928).

Each image is encoded alone; a fusion transformer then lets every token read every other; two heads
read the tokens of each view, one giving its points in the frame of its own camera and one in the
frame of the first. Nothing is carried from set to set. Poses are not predicted but recovered from
the pointmaps.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ttt3r.errors import SettingError
from ttt3r.geometry.camera import default_intrinsics
from ttt3r.geometry.local_global import pose_from_similarity, world_from_local
from ttt3r.geometry.pnp import (
    focal_from_confident_points,
    poses_from_world_points,
    search_focals,
)
from ttt3r.geometry.se3 import similarity_scale
from ttt3r.models.base import Capabilities, SetOutput, WeightsInfo, check_outputs
from ttt3r.models.fast3r_config import Fast3rConfig
from ttt3r.models.fast3r_heads import Pointmap, PointmapHead
from ttt3r.models.fast3r_indices import (
    check_view_count,
    check_view_indices,
    index_embedding,
    random_view_indices,
    sequential_view_indices,
)
from ttt3r.models.fast3r_transformers import Encoder, FusionDecoder, Levels
from ttt3r.nn.layers import cast_products
from ttt3r.types import ImagePolicy

# Images that pass the encoder, and the heads, together. Neither mixes images, so this bounds
# memory alone: a head needs about 0.3 GiB for each image of 512 x 384 pixels.
ENCODED_TOGETHER = 16
READ_TOGETHER = 4

Views = Sequence[Float[Tensor, "batch 3 _ _"]]
Features = Sequence[Float[Tensor, "batch _ encoder_channels"]]


@dataclass(frozen=True)
class ViewMaps:
    """What the heads say of one view, as they say it; None where not asked for.

    Attributes:
        points: 3D point of each pixel in the frame of the view's camera, in a unit of its own.
        confidence: of `points`, at least 1.
        world_points: 3D point of each pixel in the frame of the first camera.
        world_confidence: of `world_points`, at least 1.
    """

    points: Float[Tensor, "batch height width 3"] | None = None
    confidence: Float[Tensor, "batch height width"] | None = None
    world_points: Float[Tensor, "batch height width 3"] | None = None
    world_confidence: Float[Tensor, "batch height width"] | None = None


class Fast3r(nn.Module):
    """The network. Parameters carry the published names, so released weights load key for key."""

    capabilities = Capabilities(pose=True, world_points=True)

    def __init__(self, config: Fast3rConfig) -> None:
        super().__init__()
        self.config = config
        self.image_policy = ImagePolicy(config.image_size, config.patch_size)
        self.weights = WeightsInfo("unnamed", "unknown", "unknown", "", trained=False)
        self.encoder = Encoder(config)
        self.decoder = FusionDecoder(config)
        self.downstream_head = PointmapHead(config)
        self.downstream_head_local = PointmapHead(config)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.decoder.dec_norm.weight.device

    def set_precision(self, dtype: torch.dtype) -> "Fast3r":
        """Run products of encoder and fusion in `dtype`; the rest stays float32. Returns self.

        Residual stream, position embeddings, normalisation and heads are always float32.
        """
        cast_products([self.encoder, self.decoder], dtype)
        return self

    def predict(
        self,
        images: Float[Tensor, "batch views 3 height width"],
        outputs: Collection[str] = ("points", "pose"),
        *,
        seed: int = 0,
        indices: Int[Tensor, "batch views"] | None = None,
        poses: Literal["pnp", "individual", "alignment"] = "pnp",
        own_scale: bool = False,
    ) -> SetOutput:
        """Look at sets of views of one size; the first view of a set is the world.

        The unit of lengths is unknown, but one for all views of a set. Since the local head speaks
        of each view in a unit of its own, its points are brought to that of the global head, which
        is therefore run for "points" too (see `geometry.local_global`).

        Args:
            images: RGB in [-1, 1]; sides are multiples of 16 pixels.
            outputs: any of "points" (or "self"), "pose", "world".
            seed: of the indices by which the network tells views apart, where its configuration
                has them drawn; see `random_view_indices`.
            indices: the indices themselves, 0 to 999, instead of drawn or counted ones.
            poses: "pnp" recovers poses as published: a focal length from the points of the first
                view, taken for all views, and the poses by RANSAC from the global points. With
                "individual" the focal length of each view is searched, as published for views of
                different cameras; it comes out too short in small images, and the camera too near,
                see `geometry.pnp.search_focals`. With "alignment" a pose is the rigid part of the
                similarity from local to global points; it supposes nothing of the cameras, and so
                suits views of different focal lengths too.
            own_scale: leave the points of each view in its own unit, as published, which spares the
                global head where only "points" are asked for.

        Returns:
            What was asked for. Poses are NaN for a view on whose pose no four pixels agree. With
            poses from PnP come the intrinsics that they were found with: poses and intrinsics
            belong together, and together project the global points to their pixels.

        Raises:
            SettingError: if a size or an argument does not suit the network, or there are more
                views than it can tell apart.
            InputError: if pointmaps are so degenerate that they cannot be aligned.
        """
        wanted = _check_wanted(outputs)
        if poses not in ("pnp", "individual", "alignment"):
            raise SettingError(
                f"unknown recovery of poses {poses!r}; choose pnp, individual or alignment"
            )
        align = ("pose" in wanted and poses == "alignment") or (
            "points" in wanted and not own_scale
        )
        levels = self._look(images.unbind(1), indices, seed)
        if "points" in wanted or align:
            points, confidence = self._read_set(levels, images, self.downstream_head_local)
        else:
            points = confidence = None
        if wanted & {"pose", "world"} or align:
            world, world_confidence = self._read_set(levels, images, self.downstream_head)
        else:
            world = world_confidence = None
        del levels
        world_from_camera = intrinsics = None
        if align:
            assert points is not None and world is not None and world_confidence is not None
            similarity = world_from_local(points, world, world_confidence)
            if not own_scale:
                points = points * similarity_scale(similarity)[..., None, None, None]
            world_from_camera = pose_from_similarity(similarity)
        if "pose" in wanted and poses != "alignment":
            assert world is not None and world_confidence is not None
            world_from_camera, intrinsics = _cameras_by_pnp(
                world, world_confidence, shared_focal=poses == "pnp"
            )
        has_points, has_world, has_pose = (name in wanted for name in ("points", "world", "pose"))
        return SetOutput(
            points=points if has_points else None,
            confidence=confidence if has_points else None,
            world_points=world if has_world else None,
            world_confidence=world_confidence if has_world else None,
            world_from_camera=world_from_camera if has_pose else None,
            intrinsics=intrinsics,
        )

    def predict_views(
        self,
        views: Views,
        outputs: Collection[str] = ("points", "world"),
        *,
        seed: int = 0,
        indices: Int[Tensor, "batch views"] | None = None,
    ) -> list[ViewMaps]:
        """Read the heads for views that may differ in size, without any interpretation.

        Args:
            views: images [batch, 3, height, width] of each view, RGB in [-1, 1], first the one
                whose camera is the world.
            outputs: any of "points" (or "self") and "world"; the other head is not run.
            seed: see `predict`.
            indices: see `predict`.

        Raises:
            SettingError: see `predict`; also for "pose", see `geometry.pnp`.
        """
        wanted = _check_wanted(outputs)
        if "pose" in wanted:
            raise SettingError(
                "poses are recovered from pointmaps: ask for 'world' and hand the points to "
                "ttt3r.geometry.pnp.poses_from_world_points"
            )
        levels = self._look(views, indices, seed)
        found: dict[str, dict[int, Pointmap]] = {"points": {}, "world": {}}
        heads = {"points": self.downstream_head_local, "world": self.downstream_head}
        for name in wanted:
            for index, points, confidence in self._read(levels, views, heads[name]):
                found[name][index] = points, confidence
        nothing = (None, None)
        return [
            ViewMaps(
                *found["points"].get(index, nothing),
                *found["world"].get(index, nothing),
            )
            for index in range(len(views))
        ]

    def encode(self, views: Views) -> list[Float[Tensor, "batch _ encoder_channels"]]:
        """Turn the images of each view into tokens, without looking at the other views.

        Raises:
            SettingError: if there is no view, views differ in batch size, or a side is no multiple
                of the patch size.
        """
        self._check_views(views)
        features: list[Tensor] = [torch.empty(0)] * len(views)
        for some in _same_size(views, ENCODED_TOGETHER):
            encoded = self.encoder(torch.cat([views[index] for index in some]))
            for index, tokens in zip(some, encoded.chunk(len(some)), strict=True):
                features[index] = tokens
        return features

    def fuse(self, features: Features, indices: Int[Tensor, "batch views"]) -> Levels:
        """Let the tokens of all views read each other.

        Args:
            features: tokens of each view, see `encode`.
            indices: by which the views are told apart, 0 to 999.

        Raises:
            SettingError: if there is not one index per view, or there are too many views.
        """
        check_view_indices(indices, len(features[0]) if len(features) else 0, len(features))
        counts = torch.tensor([tokens.shape[1] for tokens in features], device=self.device)
        dtype = self.decoder.dec_norm.weight.dtype
        rows = index_embedding(indices.to(self.device), self.config.decoder_dim, dtype)
        return self.decoder(
            torch.cat(tuple(features), dim=1), rows.repeat_interleave(counts, dim=1)
        )

    def _look(self, views: Views, indices: Int[Tensor, "batch views"] | None, seed: int) -> Levels:
        """Encode and fuse the views of a set."""
        check_view_count(len(views))
        if indices is None:
            batch = len(views[0])
            if self.config.random_image_idx_embedding:
                indices = random_view_indices(batch, len(views), seed)
            else:
                indices = sequential_view_indices(batch, len(views))
        check_view_indices(indices, len(views[0]), len(views))
        return self.fuse(self.encode(views), indices)

    def _read_set(
        self,
        levels: Levels,
        images: Float[Tensor, "batch views 3 height width"],
        head: PointmapHead,
    ) -> tuple[
        Float[Tensor, "batch views height width 3"], Float[Tensor, "batch views height width"]
    ]:
        """Run a head for views of one size, straight into the tensors of the result."""
        batch, count, _, height, width = images.shape
        points = levels[3].new_empty(batch, count, height, width, 3)
        confidence = levels[3].new_empty(batch, count, height, width)
        for index, its_points, its_confidence in self._read(levels, images.unbind(1), head):
            points[:, index], confidence[:, index] = its_points, its_confidence
        return points, confidence

    def _read(
        self, levels: Levels, views: Views, head: PointmapHead
    ) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Run a head and yield each view's index, points and confidence."""
        grids = [self._grid(view) for view in views]
        counts = [rows * columns for rows, columns in grids]
        tokens = [level.split(counts, dim=1) for level in levels]
        for some in _same_size(views, READ_TOGETHER):
            of_these = [torch.cat([level[index] for index in some]) for level in tokens]
            points, confidence = (both.chunk(len(some)) for both in head(of_these, grids[some[0]]))
            yield from zip(some, points, confidence, strict=True)

    def _grid(self, view: Float[Tensor, "batch 3 _ _"]) -> tuple[int, int]:
        patch = self.config.patch_size
        return view.shape[2] // patch, view.shape[3] // patch

    def _check_views(self, views: Views) -> None:
        check_view_count(len(views))
        batch, patch = len(views[0]), self.config.patch_size
        if batch < 1:
            raise SettingError("a batch needs at least one set of views")
        for index, view in enumerate(views):
            if len(view) != batch:
                raise SettingError(
                    f"view {index} has {len(view)} samples and view 0 has {batch}; every view "
                    "needs one image for each sample of the batch"
                )
            height, width = view.shape[2:]
            if min(height, width) < patch or height % patch or width % patch:
                raise SettingError(
                    f"the network takes sides that are multiples of {patch} pixels, not "
                    f"{width}x{height}; prepare images with ttt3r.sources.prepare first"
                )


def _check_wanted(outputs: Collection[str]) -> frozenset[str]:
    wanted = check_outputs(outputs)
    if "rgb" in wanted:
        raise SettingError("Fast3R has no colour head; drop 'rgb' from outputs")
    return wanted


def _same_size(views: Views, images: int) -> Iterator[list[int]]:
    """Indices of views of one size, so many at a time that they hold about `images` images."""
    by_size: dict[tuple[int, int], list[int]] = {}
    for index, view in enumerate(views):
        by_size.setdefault((view.shape[2], view.shape[3]), []).append(index)
    step = max(1, images // len(views[0]))
    for indices in by_size.values():
        yield from (indices[start : start + step] for start in range(0, len(indices), step))


def _cameras_by_pnp(
    world: Float[Tensor, "batch views height width 3"],
    confidence: Float[Tensor, "batch views height width"],
    *,
    shared_focal: bool,
) -> tuple[Float[Tensor, "batch views 4 4"], Float[Tensor, "batch views 3 3"]]:
    """Poses and intrinsics, as published."""
    usable = confidence > 1.0
    if shared_focal:  # the world is the frame of view 0, so that its points tell the focal length
        focals = focal_from_confident_points(world[:, 0], confidence[:, 0])
        focals = focals[:, None].expand(-1, world.shape[1])
    else:
        focals = search_focals(world, usable)
    intrinsics = default_intrinsics((world.shape[2], world.shape[3]), focals)
    return poses_from_world_points(world, intrinsics, usable), intrinsics
