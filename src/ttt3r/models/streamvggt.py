"""StreamVGGT: VGGT for streams, with the keys and values of past frames (arXiv 2507.11539).

Each frame's tokens read those of its past. A step therefore needs the past's keys and values only,
which the state keeps; a cache policy says for how long.
"""

from collections.abc import Collection
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from ttt3r.errors import SettingError
from ttt3r.geometry import se3
from ttt3r.models.base import SetOutput, StepOutput, Tokens, Views, check_outputs
from ttt3r.models.streamvggt_cache import (
    FrameCache,
    StreamVggtState,
    Writer,
    alive_rows,
    frame_similarity,
    rows_alive,
)
from ttt3r.models.streamvggt_policies import CachePolicy, KeepAll, parse
from ttt3r.models.vggt import VggtNetwork, set_output
from ttt3r.models.vggt_aggregator import FrameMix, mix_causally
from ttt3r.models.vggt_config import StreamVggtConfig, VggtConfig
from ttt3r.models.vggt_heads import CameraMix, VggtReading
from ttt3r.nn.scaled import Projected, attend_where
from ttt3r.types import ImagePolicy

Visible = Bool[Tensor, "batch frames"]


class StreamVggt(VggtNetwork):
    """The network that takes in one frame at a time.

    What is said of a frame depends on it and on the frames before; with all of them kept, it is
    what the causal pass over all frames says (see `predict`). A stream has one image size.
    """

    config: StreamVggtConfig

    @staticmethod
    def policy(config: VggtConfig) -> ImagePolicy:
        """Return how images are prepared: by their longer side, as in the released evaluation."""
        return ImagePolicy(config.image_size, config.patch_size)

    def __init__(self, config: StreamVggtConfig) -> None:
        super().__init__(config)

    def parse_rule(self, rule: str | CachePolicy | None = None) -> CachePolicy:
        """Return a cache policy, see `streamvggt_policies.parse`; "keep_all" if None."""
        return KeepAll() if rule is None else parse(rule)

    def initial_state(self, rule: CachePolicy, batch: int = 1) -> StreamVggtState:
        """State of `batch` streams before their first frame."""
        c, device = self.config, self.device
        across = self.aggregator.global_blocks[0].get_parameter("attn.qkv.weight")
        camera = self.camera_head.empty_pose_tokens
        cache = {}
        for name, tokens in self._cache_tokens(0).items():
            inside = name.startswith("global")
            heads, channels = (c.heads, c.dim) if inside else (c.camera_heads, 2 * c.dim)
            shape = batch, heads, 0, tokens, channels // heads
            cache[name] = torch.zeros(shape, dtype=(across if inside else camera).dtype).to(device)
        return StreamVggtState(
            age=torch.zeros(batch, dtype=torch.int64, device=device),
            alive=torch.zeros(batch, 0, dtype=torch.bool, device=device),
            cache=cache,
        )

    def reset(
        self, state: StreamVggtState, rule: CachePolicy, which: Bool[Tensor, " batch"]
    ) -> StreamVggtState:
        """Return `state` with the samples of `which` as before their first frame."""
        if bool(which.all()):
            return self.initial_state(rule, len(state.age))
        return StreamVggtState(
            age=state.age.masked_fill(which, 0),
            alive=state.alive & ~which[:, None],
            cache=state.cache,
        )

    def encode(self, views: Views) -> Tokens:
        """Turn images into patch tokens.

        Raises:
            SettingError: if there is no image, there is a ray map, or the sides are no multiples
                of the patch.
        """
        if views.image is None or views.ray_map is not None:
            raise SettingError("StreamVGGT takes images and no ray maps; CUT3R takes both")
        size = (views.image.shape[2], views.image.shape[3])
        self.check_size(size)
        present = views.has_image
        if present is None:
            present = torch.ones(len(views.image), dtype=torch.bool)
        return Tokens(self.aggregator.encode(views.image), size, present.to(self.device))

    def step(
        self,
        state: StreamVggtState,
        tokens: Tokens,
        rule: CachePolicy,
        outputs: Collection[str] = ("points", "pose"),
        update: Bool[Tensor, " batch"] | None = None,
    ) -> tuple[StreamVggtState, StepOutput]:
        """Read the state with one frame per stream and return the next state.

        Args:
            state: state of each stream; what it says never changes.
            tokens: the frame of each stream.
            rule: which frames stay in the cache after this one has joined it.
            outputs: any of "points" (or "self"), "pose", "world"; others are not computed. "rgb"
                is not to be had and stays None.
            update: streams whose state may change; None means all. Without an image it never does.

        Raises:
            SettingError: if an output is unknown, or the image size changes within a stream.
        """
        wanted = check_outputs(outputs)
        update = tokens.has_image if update is None else tokens.has_image & update
        updates = update.tolist()
        cache, alive, rows = self._prepare(state, tokens, rule, any(updates))
        # A frame sees itself, remembered or not. Without a mask the kernels are faster.
        every = all(len(row) == cache.frames for row in rows)
        visible = None if every else F.pad(alive, (0, 1), value=True)
        writer = Writer(cache, any(updates))
        x = self.aggregator.assemble(tokens.features[:, None], (state.age == 0)[:, None])
        kept = self.aggregator(
            x, self.grid(tokens.size), self.levels(wanted), _mix(writer, visible)
        )
        reading = self.read(kept, tokens.size, wanted, self._camera_mix(writer, visible))
        if any(updates):
            rows = [
                [*row, cache.frames] if new else row for row, new in zip(rows, updates, strict=True)
            ]
            alive = torch.cat((alive, update[:, None]), dim=1)
            cache, alive = self._evict(cache.longer(), alive, rows, rule)
            state = StreamVggtState(state.age + update, alive, cache)
        return state, _step_output(reading, tokens.size, wanted)

    def predict(
        self,
        images: Float[Tensor, "batch views 3 height width"],
        outputs: Collection[str] = ("points", "pose"),
    ) -> SetOutput:
        """Look at whole streams at once; each frame sees itself and those before.

        This is the form in which the network was trained. Steps that keep all frames say the same,
        but for the poses where `camera_cache` is "released".

        Args:
            images: RGB in [-1, 1]; sides are multiples of the patch.
            outputs: see `step`.

        Raises:
            SettingError: if an output is unknown, the size does not fit, or there is no view.
        """
        wanted = check_outputs(outputs)
        reading = self.look_causally(images, wanted)
        return set_output(reading, (images.shape[3], images.shape[4]), wanted)

    def look_causally(
        self, images: Float[Tensor, "batch frames 3 height width"], outputs: Collection[str]
    ) -> VggtReading:
        """Return what `predict` says in the network's own terms; see `VggtNetwork.look`."""
        mix = mix_causally(images.shape[1])
        return self.look(images, outputs, mix, lambda _, block, projected: mix(block, projected))

    def _cache_tokens(self, per_frame: int) -> dict[str, int]:
        """Tokens of a frame in each tensor of the cache."""
        c = self.config
        blocks = {f"global{i}": per_frame for i in range(c.depth)}
        blocks |= {f"camera{i}": c.camera_iterations for i in range(c.camera_depth)}
        return {f"{name}.{kind}": n for name, n in blocks.items() for kind in ("k", "v")}

    def _prepare(
        self, state: StreamVggtState, tokens: Tokens, rule: CachePolicy, remember: bool
    ) -> tuple[FrameCache, Visible, list[list[int]]]:
        """Return the cache, and which of its frames count, as a mask and as numbers.

        If the frame is to be remembered, the slot after the last one is free to write to.
        """
        cache, alive = FrameCache.of(state.cache), state.alive
        rows = alive_rows(alive)
        per_frame = self.aggregator.special + tokens.features.shape[1]
        if any(rows) and cache["global0.k"].shape[3] != per_frame:
            raise SettingError(
                "the images of a stream must all have the same number of patches; resize this "
                "one like those before, or reset the stream first"
            )
        if not any(rows) or (remember and not cache.claim()):
            cache = cache.moved(rows, rule.frames, self._cache_tokens(per_frame))
            cache.claim()
            alive = rows_alive(rows, alive.device)
            rows = [list(range(len(row))) for row in rows]
        return cache, alive, rows

    def _evict(
        self, cache: FrameCache, alive: Visible, rows: list[list[int]], rule: CachePolicy
    ) -> tuple[FrameCache, Bool[Tensor, "batch kept"]]:
        """Drop what the policy does not keep of the frames `rows`, which are those of `alive`."""
        most = rule.frames
        if most is None or max(map(len, rows)) <= most:
            return cache, alive
        kept = [
            [row[i] for i in rule.keep(len(row), partial(self._similarity, cache, sample, row))]
            if len(row) > most
            else row
            for sample, row in enumerate(rows)
        ]
        tokens = self._cache_tokens(cache["global0.k"].shape[3])
        return cache.moved(kept, most, tokens), rows_alive(kept, alive.device)

    def _similarity(
        self, cache: FrameCache, sample: int, row: list[int]
    ) -> Float[Tensor, "frames frames"]:
        special = self.aggregator.special
        return frame_similarity(
            [
                cache[f"global{pair}.k"][sample][:, row, :special]
                for pair in range(self.config.depth)
            ]
        )

    def _camera_mix(self, writer: Writer, visible: Visible | None) -> CameraMix:
        """Let the camera token of a frame read those of its past."""

        def mix(iteration: int, block: int, projected: Projected) -> Tensor:
            query, key, value = projected
            both = [
                writer.add_token(f"camera{block}.{kind}", iteration, entry)
                for kind, entry in (("k", key), ("v", value))
            ]
            if self.config.camera_cache == "consistent":
                key, value = (tensor[..., iteration, :] for tensor in both)
                return attend_where(query, key, value, visible)
            # Later iterations of this frame come last, and are not there yet.
            future = self.config.camera_iterations - iteration - 1
            key, value = (x.flatten(2, 3)[:, :, : x.shape[2] * x.shape[3] - future] for x in both)
            mask = None
            if visible is not None:
                mask = visible.repeat_interleave(self.config.camera_iterations, dim=1)
                mask = mask[:, : key.shape[2]]
            return attend_where(query, key, value, mask)

        return mix


def _mix(writer: Writer, visible: Visible | None) -> FrameMix:
    """Let all tokens of a frame read those of its past."""

    def mix(block: int, projected: Projected) -> Tensor:
        query, key, value = projected
        mask = None if visible is None else visible.repeat_interleave(key.shape[2], dim=1)
        key = writer.add(f"global{block}.k", key).flatten(2, 3)
        value = writer.add(f"global{block}.v", value).flatten(2, 3)
        return attend_where(query, key, value, mask)

    return mix


def _step_output(reading: VggtReading, size: tuple[int, int], wanted: frozenset[str]) -> StepOutput:
    """Bring a reading of one frame per stream into the conventions of this package."""
    output = set_output(reading, size, wanted)
    poses = output.world_from_camera
    points, confidence, world_points, world_confidence, intrinsics = (
        None if tensor is None else tensor[:, 0]
        for tensor in (
            output.points,
            output.confidence,
            output.world_points,
            output.world_confidence,
            output.intrinsics,
        )
    )
    return StepOutput(
        points=points,
        confidence=confidence,
        world_points=world_points,
        world_confidence=world_confidence,
        pose_encoding=None if poses is None else se3.encoding_from_pose(poses[:, 0]),
        intrinsics=intrinsics,
    )
