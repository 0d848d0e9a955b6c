"""StreamVGGT: VGGT for streams, with the keys and values of past frames (arXiv 2507.11539).

Each frame's tokens read those of its past. A step therefore needs the past's keys and values only,
which the state keeps; a cache policy says for how long.
"""

from collections.abc import Collection
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ttt3r.errors import SettingError
from ttt3r.masks import along, pick
from ttt3r.models.base import Tokens, Views
from ttt3r.models.growing import Entries, index_tensor
from ttt3r.models.network import StreamNetwork
from ttt3r.models.streamvggt.cache import (
    FRAMES,
    StreamVggtState,
    Writer,
    alive_rows,
    frame_similarity,
    rows_alive,
)
from ttt3r.models.streamvggt.config import StreamVggtConfig
from ttt3r.models.streamvggt.policies import POLICIES, CachePolicy
from ttt3r.models.vggt.aggregator import FrameMix, mix_causally
from ttt3r.models.vggt.heads import CameraMix, VggtReading
from ttt3r.models.vggt.network import VggtNetwork, in_our_terms
from ttt3r.nn.attention import Projected, attend
from ttt3r.types import Reading

Visible = Bool[Tensor, "batch frames"]


class StreamVggt(VggtNetwork, StreamNetwork):
    """The network that takes in one frame at a time.

    What is said of a frame depends on it and on the frames before; with all of them kept, it is
    what the causal pass over all frames says (see `predict`). A stream has one image size.
    """

    config: StreamVggtConfig  # pyright: ignore[reportIncompatibleVariableOverride]

    def parse_rule(self, rule: Any = None) -> CachePolicy:
        """Return a cache policy, see `policies.POLICIES`; "keep_all" if None."""
        return POLICIES.parse(rule)

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
            age=torch.zeros(batch, dtype=torch.int64),
            alive=torch.zeros(batch, 0, dtype=torch.bool),
            cache=cache,
        )

    def reset(
        self, state: StreamVggtState, rule: CachePolicy, which: Bool[Tensor, " batch"]
    ) -> StreamVggtState:
        """Return `state` with the samples of `which` as before their first frame."""
        which = which.cpu()
        if bool(which.all()):
            return self.initial_state(rule, len(state.age))
        return StreamVggtState(
            age=pick(which, torch.zeros_like(state.age), state.age),
            alive=state.alive & ~which[:, None],
            cache=state.cache,
        )

    def encode(self, views: Views) -> Tokens:
        """Turn images into patch tokens.

        Raises:
            SettingError: if there is no image, there is a ray map, or the sides are not multiples
                of the patch.
        """
        image, size, has_image = self.images_of(views)
        return Tokens(self.aggregator.encode(image), size, has_image)

    def step(
        self,
        state: StreamVggtState,
        tokens: Tokens,
        rule: CachePolicy,
        outputs: Collection[str] = ("points", "pose"),
        update: Bool[Tensor, " batch"] | None = None,
    ) -> tuple[StreamVggtState, Reading]:
        """Read the state with one frame per stream and return the next state.

        Args:
            state: state of each stream; what it says never changes.
            tokens: the frame of each stream.
            rule: which frames stay in the cache after this one has joined it.
            outputs: any of "points" (or "self"), "pose", "world"; others are not computed.
            update: streams whose state may change; None means all. Without an image it never does.

        Raises:
            SettingError: if the network cannot give an output, or the image size changes within a
                stream.
        """
        wanted = self.capabilities.check(outputs)
        update = tokens.written(update)
        past, taken, alive = self._prepare(state, tokens, rule, bool(update.any()))
        writer = Writer(past, taken)
        visible = writer.visible(alive)  # a frame sees itself, remembered or not
        features = tokens.features[:, None]
        is_first = along(state.age == 0, features)[:, :, 0, 0]
        x = self.aggregator.assemble(features, is_first)
        kept = self.aggregator(
            x, self.grid(tokens.size), self.levels(wanted), _mix(writer, visible)
        )
        reading = self.read(kept, tokens.size, wanted, self._camera_mix(writer, visible))
        if taken is not None:
            alive = torch.cat((alive, update[:, None]), dim=1)
            cache, alive = self._evict(taken, alive, rule)
            state = StreamVggtState(state.age + update, alive, cache)
        said = in_our_terms(reading, tokens.size, wanted)
        return state, said.map(lambda tensor: tensor[:, 0])

    def predict(
        self,
        images: Float[Tensor, "batch views 3 height width"],
        outputs: Collection[str] = ("points", "pose"),
    ) -> Reading:
        """Look at whole streams at once; each frame sees itself and those before.

        This is the form in which the network was trained. Steps that keep all frames say the same,
        but for the poses where `camera_cache` is "released".

        Args:
            images: RGB in [-1, 1]; sides are multiples of the patch.
            outputs: see `step`.

        Raises:
            SettingError: if the network cannot give an output, the size does not fit, or there is
                no view.
        """
        wanted = self.capabilities.check(outputs)
        reading = self.look_causally(images, wanted)
        return in_our_terms(reading, (images.shape[3], images.shape[4]), wanted)

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
    ) -> tuple[Entries, Entries | None, Visible]:
        """Return the cache, the same with a slot to write to, and which frames of it count.

        There is no such slot if the frame is not to be remembered.
        """
        cache, alive = Entries.of(state.cache, FRAMES), state.alive
        rows = alive_rows(alive)
        per_frame = self.aggregator.special + tokens.features.shape[1]
        is_fresh = not any(rows)
        if not is_fresh and cache.buffer("global0.k").shape[3] != per_frame:
            raise SettingError(
                "the images of a stream must all have the same number of patches; resize this "
                "one like those before, or reset the stream first"
            )
        taken = cache.take() if remember and not is_fresh else None
        if is_fresh or (remember and taken is None):
            sizes = {
                name: (count, cache.buffer(name).shape[4])
                for name, count in self._cache_tokens(per_frame).items()
            }
            cache = cache.moved(rows, rule.frames, sizes)
            alive = rows_alive(rows)
            taken = cache.take() if remember else None
        return cache, taken, alive

    def _evict(
        self, cache: Entries, alive: Visible, rule: CachePolicy
    ) -> tuple[Entries, Bool[Tensor, "batch kept"]]:
        """Drop the frames that the policy does not keep."""
        most, rows = rule.frames, alive_rows(alive)
        if most is None or max(map(len, rows)) <= most:
            return cache, alive
        kept = [
            [row[i] for i in rule.keep(len(row), partial(self._similarity, cache, sample, row))]
            if len(row) > most
            else row
            for sample, row in enumerate(rows)
        ]
        anywhere = sorted(set().union(*kept))
        if len(anywhere) <= most:
            mask = torch.tensor([[i in row for i in anywhere] for row in kept])
            return cache.keep(anywhere), mask
        # Streams of the batch keep different frames: only copies can close the gaps.
        return cache.moved(kept, most), rows_alive(kept)

    def _similarity(
        self, cache: Entries, sample: int, row: list[int]
    ) -> Float[Tensor, "frames frames"]:
        special = self.aggregator.special
        slots = index_tensor([cache.slots[index] for index in row], cache.device)
        keys = (cache.buffer(f"global{pair}.k")[sample] for pair in range(self.config.depth))
        return frame_similarity([block[:, slots, :special] for block in keys])

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
                return attend(query, key, value, visible)
            # Later iterations of this frame are not there yet.
            count = self.config.camera_iterations
            mask = torch.ones(len(query), writer.span, count, dtype=torch.bool, device=query.device)
            if visible is not None:
                mask &= visible[..., None]
            mask[:, writer.slot, iteration + 1 :] = False
            key, value = (tensor.flatten(2, 3) for tensor in both)
            return attend(query, key, value, mask.flatten(1))

        return mix


def _mix(writer: Writer, visible: Visible | None) -> FrameMix:
    """Let all tokens of a frame read those of its past."""

    def mix(block: int, projected: Projected) -> Tensor:
        query, key, value = projected
        mask = None if visible is None else visible.repeat_interleave(key.shape[2], dim=1)
        key = writer.add(f"global{block}.k", key).flatten(2, 3)
        value = writer.add(f"global{block}.v", value).flatten(2, 3)
        return attend(query, key, value, mask)

    return mix
