"""Fast3R: one transformer over the tokens of all views of a set at once (arXiv 2501.13928).

Each image is encoded alone; a fusion transformer then lets every token read every other; two heads
read the tokens of each view, one giving its points in the frame of its own camera and one in the
frame of the first. Nothing is carried from set to set. Poses are not predicted but recovered from
the pointmaps.
"""

from collections.abc import Collection, Iterator, Sequence
from typing import Literal, NamedTuple, get_args, overload

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ttt3r.errors import SettingError
from ttt3r.geometry.camera import default_intrinsics
from ttt3r.geometry.local_global import pose_from_similarity, world_from_local
from ttt3r.geometry.pnp import (
    focal_from_confident_points,
    poses_from_world_points,
    search_focals,
)
from ttt3r.geometry.se3 import similarity_scale
from ttt3r.models.fast3r.config import Fast3rConfig
from ttt3r.models.fast3r.heads import PointmapHead
from ttt3r.models.fast3r.indices import (
    check_view_count,
    check_view_indices,
    index_embedding,
    random_view_indices,
    sequential_view_indices,
)
from ttt3r.models.fast3r.transformers import Encoder, FusionDecoder
from ttt3r.models.network import SetNetwork
from ttt3r.nn.dpt import Levels
from ttt3r.spans import span
from ttt3r.types import Reading

# Images that pass the encoder, and the heads, together. Neither mixes images, so this bounds
# memory alone: a head needs about 0.3 GiB for each image of 512 x 384 pixels.
ENCODED_TOGETHER = 16
READ_TOGETHER = 4

ImageList = Sequence[Float[Tensor, "batch 3 _ _"]]
Features = Sequence[Float[Tensor, "batch _ encoder_channels"]]


Recovery = Literal["pnp", "individual", "alignment"]
# Of each view: one tensor [batch, views, ...] if the images were one, else a list of [batch, ...].
PerView = Tensor | list[Tensor]


class Pointmaps(NamedTuple):
    """What a head says of all views."""

    points: PerView
    confidence: PerView


class Fast3r(SetNetwork):
    """The network."""

    config: Fast3rConfig
    exact = frozenset({"downstream_head", "downstream_head_local"})

    def __init__(self, config: Fast3rConfig) -> None:
        super().__init__(config)
        self.encoder = Encoder(config)
        self.decoder = FusionDecoder(config)
        self.downstream_head = PointmapHead(config)
        self.downstream_head_local = PointmapHead(config)

    @overload
    def predict(
        self,
        images: Float[Tensor, "batch views 3 height width"],
        outputs: Collection[str] = ...,
        *,
        seed: int = ...,
        indices: Int[Tensor, "batch views"] | None = ...,
        poses: Recovery = ...,
        own_scale: bool = ...,
    ) -> Reading: ...

    @overload
    def predict(
        self,
        images: ImageList,
        outputs: Collection[str] = ...,
        *,
        seed: int = ...,
        indices: Int[Tensor, "batch views"] | None = ...,
        poses: Recovery = ...,
        own_scale: bool = ...,
    ) -> list[Reading]: ...

    def predict(
        self,
        images: Float[Tensor, "batch views 3 height width"] | ImageList,
        outputs: Collection[str] = ("points", "pose"),
        *,
        seed: int = 0,
        indices: Int[Tensor, "batch views"] | None = None,
        poses: Recovery = "pnp",
        own_scale: bool = False,
    ) -> Reading | list[Reading]:
        """Look at sets of views; the first view of a set is the world.

        The unit of lengths is unknown, but one for all views of a set. Since the local head speaks
        of each view in a unit of its own, its points are brought to that of the global head, which
        is therefore run for "points" too (see `geometry.local_global`).

        Args:
            images: RGB in [-1, 1]; sides are multiples of 16 pixels. Views that differ in size are
                given as a list of [batch, 3, height, width].
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
            What was asked for; for a list of views, a list with that of each view. Poses are NaN
            for a view on whose pose no four pixels agree. With poses from PnP come the intrinsics
            that they were found with: poses and intrinsics belong together, and together project
            the global points to their pixels.

        Raises:
            SettingError: if a size or an argument does not suit the network, or there are more
                views than it can tell apart.
            InputError: if pointmaps are so degenerate that they cannot be aligned.
        """
        wanted = self.capabilities.check(outputs)
        views = _each(images)
        self._check_views(views)
        if "pose" in wanted:
            _check_recovery(poses, views)
        align = ("pose" in wanted and poses == "alignment") or (
            "points" in wanted and not own_scale
        )
        levels = self._look(views, indices, seed)
        local = world = None
        if "points" in wanted or align:
            with span("heads"):
                local = self._read(levels, images, self.downstream_head_local)
        if wanted & {"pose", "world"} or align:
            with span("heads"):
                world = self._read(levels, images, self.downstream_head)
        del levels
        said: dict[str, list[Tensor]] = {}
        if align:
            assert local is not None and world is not None
            said = _align(local, world, own_scale=own_scale)
        if "pose" in wanted and poses != "alignment":
            assert world is not None
            said = _cameras_by_pnp(world, shared_focal=poses == "pnp")
        found: dict[str, PerView] = {
            name: values if isinstance(images, list | tuple) else torch.stack(values, dim=1)
            for name, values in said.items()
        }
        if local is not None:
            found |= {"points": local.points, "confidence": local.confidence}
        if world is not None:
            found |= {"world_points": world.points, "world_confidence": world.confidence}
        if isinstance(images, Tensor):
            return Reading(**found).only(wanted)  # pyright: ignore[reportArgumentType]
        return [
            Reading(**{name: values[index] for name, values in found.items()}).only(wanted)
            for index in range(len(views))
        ]

    def encode(self, views: ImageList) -> list[Float[Tensor, "batch _ encoder_channels"]]:
        """Turn the images of each view into tokens, without looking at the other views.

        Raises:
            SettingError: if there is no view, views differ in batch size, or a side is not a
                multiple of the patch size.
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
        dtype = self.decoder.dec_norm.weight.dtype
        there = indices.to(self.device, non_blocking=True)
        rows = index_embedding(there, self.config.decoder_dim, dtype).split(1, dim=1)
        of_view = [
            row.expand(-1, tokens.shape[1], -1) for row, tokens in zip(rows, features, strict=True)
        ]
        return self.decoder(torch.cat(tuple(features), dim=1), torch.cat(of_view, dim=1))

    def _look(
        self, views: ImageList, indices: Int[Tensor, "batch views"] | None, seed: int
    ) -> Levels:
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

    def _read(
        self,
        levels: Levels,
        images: Float[Tensor, "batch views 3 height width"] | ImageList,
        head: PointmapHead,
    ) -> Pointmaps:
        """Run a head for a few views at a time, straight into the tensors of the result."""
        views = _each(images)
        new = levels[3].new_empty
        shapes = [(len(view), view.shape[2], view.shape[3]) for view in views]
        if isinstance(images, Tensor):
            batch, count, _, height, width = images.shape
            maps = Pointmaps(new(batch, count, height, width, 3), new(batch, count, height, width))
        else:
            maps = Pointmaps([new(*shape, 3) for shape in shapes], [new(shape) for shape in shapes])
        all_points, all_confidence = map(_each, maps)
        grids = [self.grid((height, width)) for _, height, width in shapes]
        counts = [rows * columns for rows, columns in grids]
        tokens = [level.split(counts, dim=1) for level in levels]
        for some in _same_size(views, READ_TOGETHER):
            of_these = [torch.cat([level[index] for index in some]) for level in tokens]
            points, confidence = (both.chunk(len(some)) for both in head(of_these, grids[some[0]]))
            for index, its_points, its_confidence in zip(some, points, confidence, strict=True):
                all_points[index].copy_(its_points)
                all_confidence[index].copy_(its_confidence)
        return maps

    def _check_views(self, views: ImageList) -> None:
        check_view_count(len(views))
        batch = len(views[0])
        if batch < 1:
            raise SettingError("a batch needs at least one set of views")
        for index, view in enumerate(views):
            if len(view) != batch:
                raise SettingError(
                    f"view {index} has {len(view)} samples and view 0 has {batch}; every view "
                    "needs one image for each sample of the batch"
                )
            self.check_size((view.shape[2], view.shape[3]))


def _same_size(views: ImageList, images: int) -> Iterator[list[int]]:
    """Indices of views of one size, so many at a time that they hold about `images` images."""
    by_size: dict[tuple[int, int], list[int]] = {}
    for index, view in enumerate(views):
        by_size.setdefault((view.shape[2], view.shape[3]), []).append(index)
    step = max(1, images // len(views[0]))
    for indices in by_size.values():
        yield from (indices[start : start + step] for start in range(0, len(indices), step))


def _each(views: PerView | ImageList) -> list[Tensor]:
    """The tensor of each view; writing to a tensor writes to the whole."""
    return list(views.unbind(1) if isinstance(views, Tensor) else views)


def _check_recovery(poses: str, views: ImageList) -> None:
    if poses not in get_args(Recovery):
        raise SettingError(
            f"unknown recovery of poses {poses!r}; choose {', '.join(get_args(Recovery))}"
        )
    if poses == "pnp" and len({view.shape[2:] for view in views}) > 1:
        raise SettingError(
            "poses by pnp take one focal length for all views, but these differ in size; choose "
            "individual or alignment"
        )


def _align(local: Pointmaps, world: Pointmaps, *, own_scale: bool) -> dict[str, list[Tensor]]:
    """Poses of all views; unless `own_scale`, their points change to the unit of the world."""
    poses: list[Tensor] = []
    for points, *of_world in zip(_each(local.points), *map(_each, world), strict=True):
        similarity = world_from_local(points, *of_world)
        poses.append(pose_from_similarity(similarity))
        if not own_scale:
            points.mul_(similarity_scale(similarity)[:, None, None, None])
    return {"world_from_camera": poses}


def _cameras_by_pnp(world: Pointmaps, *, shared_focal: bool) -> dict[str, list[Tensor]]:
    """Poses and intrinsics of all views, as published."""
    said: dict[str, list[Tensor]] = {"world_from_camera": [], "intrinsics": []}
    focals = None
    for points, confidence in zip(*map(_each, world), strict=True):
        usable = confidence > 1.0
        if not shared_focal:
            focals = search_focals(points, usable)
        elif focals is None:  # the world is the frame of view 0, so that its points tell the focal
            focals = focal_from_confident_points(points, confidence)
        intrinsics = default_intrinsics((points.shape[1], points.shape[2]), focals)
        said["world_from_camera"].append(poses_from_world_points(points, intrinsics, usable))
        said["intrinsics"].append(intrinsics)
    return said
