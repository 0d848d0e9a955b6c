"""Point3R: a recurrent network whose past is a list of points in space (arXiv 2507.02863).

Each pointer of the memory has a place in the world and a feature. A frame is encoded without the
memory; two interleaved decoders then let frame and pointers read each other, every token placed in
space; heads read the frame's tokens; and a memory rule decides how the frame's patches join the
pointers. What the decoder makes of the pointers themselves is only read by the frame: their
features are written by the memory rule alone.
"""

from collections.abc import Collection
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ttt3r.masks import along, pick
from ttt3r.models.base import Capabilities, Tokens, Views
from ttt3r.models.cut3r.heads import DptHeads
from ttt3r.models.network import StreamNetwork
from ttt3r.models.point3r.config import Point3rConfig
from ttt3r.models.point3r.memory import (
    MEMORY_RULES,
    MemoryRule,
    Point3rState,
    Pointers,
    choose,
)
from ttt3r.nn.blocks import Block, DecoderBlock
from ttt3r.nn.layers import LayerNorm, Linear, PatchEmbed
from ttt3r.nn.memory import PoseMemory
from ttt3r.nn.rope import Half, Rotary, grid_rotary
from ttt3r.nn.rope3d import spatial_rotary
from ttt3r.spans import span
from ttt3r.types import Reading


class DecodedFrame(NamedTuple):
    """What the two decoders make of a frame and a memory.

    Attributes:
        levels: patch tokens of the encoder, and of the decoder at one half, three quarters and end.
        pose_token: refined pose token.
        global_feature: mean of the frame's encoder tokens.
    """

    levels: tuple[Tensor, Tensor, Tensor, Tensor]
    pose_token: Float[Tensor, "batch 1 channels"]
    global_feature: Float[Tensor, "batch 1 encoder_channels"]


class Point3r(StreamNetwork):
    """The network.

    The last block and the last normalisation of the decoder of pointers, ``dec_blocks_memory`` and
    ``dec_norm_memory``, exist for that reason only: nothing reads what they make.
    """

    config: Point3rConfig
    capabilities = Capabilities(metric_scale=True)
    # World coordinates may exceed the range of float16.
    exact = frozenset({"downstream_head", "pts_patch_embed"})

    def __init__(self, config: Point3rConfig) -> None:
        super().__init__(config)
        c, encoder, decoder = config, config.encoder_dim, config.decoder_dim
        self.patch_embed = PatchEmbed(3, encoder, c.patch_size)
        self.enc_blocks = nn.ModuleList(
            Block(encoder, c.encoder_heads, c.mlp_ratio) for _ in range(c.encoder_depth)
        )
        self.enc_norm = LayerNorm(encoder)
        self.decoder_embed = Linear(encoder, decoder)
        self.dec_blocks = nn.ModuleList(
            DecoderBlock(decoder, c.decoder_heads, c.mlp_ratio) for _ in range(c.decoder_depth)
        )
        self.dec_norm = LayerNorm(decoder)
        self.decoder_embed_memory = Linear(encoder, decoder)
        self.dec_blocks_memory = nn.ModuleList(
            DecoderBlock(decoder, c.pointer_heads, c.mlp_ratio) for _ in range(c.decoder_depth)
        )
        self.dec_norm_memory = LayerNorm(decoder)
        self.pose_token = nn.Parameter(torch.zeros(1, 1, decoder))
        self.pose_retriever = PoseMemory(
            encoder, decoder, c.memory_size, c.memory_depth, c.decoder_heads, c.mlp_ratio
        )
        self.memory_attn_head = nn.Sequential(
            Linear(encoder + decoder, encoder + decoder),
            nn.GELU(),
            Linear(encoder + decoder, encoder),
        )
        self.pts_patch_embed = PatchEmbed(3, encoder, c.patch_size)
        self.value_encoder = nn.ModuleList(
            Block(encoder, c.value_heads, c.mlp_ratio) for _ in range(c.value_depth)
        )
        self.value_norm = LayerNorm(encoder)
        self.value_out = Linear(encoder, encoder)
        self.downstream_head = DptHeads(c.heads)

    def parse_rule(self, rule: Any = None) -> MemoryRule:
        """Return a memory rule, see `memory.MEMORY_RULES`; "fuse" if None."""
        return MEMORY_RULES.parse(rule)

    def initial_state(self, rule: MemoryRule, batch: int = 1) -> Point3rState:
        """State of `batch` streams before their first frame, without pointers; any `rule`."""
        pose_memory = self.pose_retriever.initial(batch)
        zeros = torch.zeros(batch, dtype=torch.int64)
        return Point3rState(
            positions=pose_memory.new_zeros(batch, 0, 3),
            features=pose_memory.new_zeros(batch, 0, self.config.decoder_dim),
            count=zeros,
            pose_memory=pose_memory,
            patch_positions=pose_memory.new_zeros(batch, 0, 0, 3),
            age=zeros.clone(),
        )

    def reset(
        self, state: Point3rState, rule: MemoryRule, which: Bool[Tensor, " batch"]
    ) -> Point3rState:
        """Return `state` with the samples of `which` as before their first frame."""
        fresh, which = self.initial_state(rule, len(state.age)), which.cpu()
        pointers = choose(which, fresh.pointers, state.pointers)
        return Point3rState(
            positions=pointers.positions,
            features=pointers.features,
            count=pointers.count,
            pose_memory=pick(which, fresh.pose_memory, state.pose_memory),
            patch_positions=pick(
                which, torch.zeros_like(state.patch_positions), state.patch_positions
            ),
            age=pick(which, fresh.age, state.age),
        )

    def encode(self, views: Views) -> Tokens:
        """Turn images into tokens.

        Raises:
            SettingError: if the size is not a multiple of the patch size, there is no image, or
                there are ray maps, which this network cannot read.
        """
        image, size, has_image = self.images_of(views)
        config = self.config
        half: Half | None = "everything" if config.half_rope_in_encoder else None
        at = self._rotary(size, config.encoder_dim // config.encoder_heads, half)
        x = self.patch_embed(image)
        for block in self.enc_blocks:
            x = block(x, at)
        features = self.enc_norm(x)
        if not bool(has_image.all()):
            features = features.masked_fill(~along(has_image, features), 0.0)
        return Tokens(features, size, has_image)

    def step(
        self,
        state: Point3rState,
        tokens: Tokens,
        rule: MemoryRule,
        outputs: Collection[str] = ("points", "pose"),
        update: Bool[Tensor, " batch"] | None = None,
    ) -> tuple[Point3rState, Reading]:
        """Read the memory with one frame per stream and return the next state.

        Tokens of the frame are placed where the patches of the last remembered frame lie, which
        guesses that the camera moves little. Where frames change their size, those places are
        resampled bilinearly to the new grid; the published network has one size per stream. Streams
        of a batch share one grid, so places are resampled for all as soon as one is updated.

        Args:
            state: state of each stream; not modified.
            tokens: the frame of each stream.
            rule: how the frame's patches join the pointers.
            outputs: any of "points" (or "self"), "pose", "world"; others are not computed. What
                changes the memory needs the world's points too.
            update: streams whose state may change; None means all. Without an image it never does.

        Raises:
            SettingError: if the network cannot give an output.
        """
        wanted = self.capabilities.check(outputs)
        update = tokens.written(update)
        grid = self.grid(tokens.size)
        places = _resample(state.patch_positions, grid)
        decoded = self._decode(state, tokens, places)
        heads, pose_token = self.downstream_head, decoded.pose_token[:, 0]
        points = confidence = world = world_confidence = None
        if "points" in wanted:
            with span("heads"):
                points, confidence = heads.points(decoded.levels, grid)
        remembers = bool(update.any())
        if remembers or "world" in wanted:
            head_dim = self.config.decoder_dim // self.config.decoder_heads
            at = self._rotary(tokens.size, head_dim)
            with span("heads"):
                world, world_confidence = heads.world(decoded.levels, pose_token, at, grid)
        if remembers:
            assert world is not None
            state = self._remember(state, decoded, world, places, rule, update)
        reading = Reading(
            points=points,
            confidence=confidence,
            pose_encoding=heads.pose(pose_token) if "pose" in wanted else None,
            world_points=world,
            world_confidence=world_confidence,
        )
        return state, reading.only(wanted)

    def _decode(
        self,
        state: Point3rState,
        tokens: Tokens,
        places: Float[Tensor, "batch rows columns 3"],
    ) -> DecodedFrame:
        """Run the interleaved decoders; each layer's two blocks read the layer before."""
        config, is_first = self.config, state.age == 0
        feature = tokens.features.mean(dim=1, keepdim=True)
        remembered = self.pose_retriever.read(feature, state.pose_memory)
        pose_token = pick(is_first, self.pose_token, remembered)
        projected = self.decoder_embed(tokens.features).to(feature.dtype)
        image = torch.cat((pose_token, projected), dim=1)
        pointers = self._readable(state.pointers, tokens, is_first)
        memory = pointers.features

        # At the origin, tokens are not turned: so is the pose token, and so are first frames.
        image_at = F.pad(places.flatten(1, 2), (0, 0, 1, 0))
        mask = pointers.present  # without a mask attention has faster kernels
        image_dim = config.decoder_dim // config.decoder_heads
        memory_dim = config.decoder_dim // config.pointer_heads
        in_image = (
            spatial_rotary(image_at, image_dim),
            spatial_rotary(pointers.positions, image_dim, mask),
        )
        in_memory = (
            spatial_rotary(pointers.positions, memory_dim, mask),
            spatial_rotary(image_at, memory_dim),
        )

        middle: dict[int, Tensor] = {}
        depth = config.decoder_depth
        for layer, (image_block, memory_block) in enumerate(
            zip(self.dec_blocks, self.dec_blocks_memory, strict=True), start=1
        ):
            image, memory = (
                image_block(image, memory, *in_image),
                memory if layer == depth else memory_block(memory, image, *in_memory),
            )
            middle[layer] = image
        last = self.dec_norm(image)
        levels = (
            tokens.features,
            middle[depth * 2 // 4][:, 1:],
            middle[depth * 3 // 4][:, 1:],
            last[:, 1:],
        )
        return DecodedFrame(levels, last[:, :1], feature)

    def _readable(
        self, known: Pointers, tokens: Tokens, is_first: Bool[Tensor, " batch"]
    ) -> Pointers:
        """What the frame reads: the memory, or itself where there is none yet."""
        if not bool(is_first.any()):
            return known
        features = self.decoder_embed_memory(tokens.features).to(known.features.dtype)
        batch, patches = features.shape[:2]
        own = Pointers(
            positions=features.new_zeros(batch, patches, 3),
            features=features,
            count=torch.full_like(known.count, patches),
        )
        return choose(is_first, own, known)

    def _remember(
        self,
        state: Point3rState,
        decoded: DecodedFrame,
        world: Float[Tensor, "batch height width 3"],
        places: Float[Tensor, "batch rows columns 3"],
        rule: MemoryRule,
        update: Bool[Tensor, " batch"],
    ) -> Point3rState:
        """Return the state after the frame; streams outside `update` keep theirs."""
        at = patch_means(world, self.config.patch_size)
        features = self._features(decoded, world)
        remembered = rule.remember(state.pointers, at.flatten(1, 2), features)
        pointers = choose(update, remembered, state.pointers)
        written = self.pose_retriever.write(
            state.pose_memory, decoded.global_feature, decoded.pose_token
        )
        return Point3rState(
            positions=pointers.positions,
            features=pointers.features,
            count=pointers.count,
            pose_memory=pick(update, written, state.pose_memory),
            patch_positions=pick(update, at, places),
            age=state.age + update,
        )

    def _features(
        self, decoded: DecodedFrame, world: Float[Tensor, "batch height width 3"]
    ) -> Float[Tensor, "batch patches channels"]:
        """Features of new pointers: what a patch looks like, and the shape it has in the world."""
        config, size = self.config, (world.shape[1], world.shape[2])
        at = self._rotary(size, config.encoder_dim // config.value_heads)
        appearance = self.memory_attn_head(
            torch.cat((decoded.levels[0], decoded.levels[3]), dim=-1)
        )
        x = self.pts_patch_embed(world.movedim(-1, 1))
        for block in self.value_encoder:
            x = block(x, at)
        shape = self.value_out(self.value_norm(x))
        return self.decoder_embed_memory(appearance + shape).to(decoded.pose_token.dtype)

    def _rotary(self, size: tuple[int, int], head_dim: int, half: Half | None = None) -> Rotary:
        """Rotations of the patches of an image, in the dtype of the residual stream."""
        like, base = self.pose_token, self.config.rope_base
        return grid_rotary(self.grid(size), head_dim, base, like.dtype, like.device, half=half)


def patch_means(
    points: Float[Tensor, "batch height width 3"], patch: int
) -> Float[Tensor, "batch rows columns 3"]:
    """Place of each patch: the mean of its points, however uncertain."""
    return F.avg_pool2d(points.movedim(-1, 1), patch).movedim(1, -1)


def _resample(
    places: Float[Tensor, "batch rows columns 3"], grid: tuple[int, int]
) -> Float[Tensor, "batch new_rows new_columns 3"]:
    """Bring the places of patches to another grid; before the first frame all are the origin."""
    if places.shape[1:3] == grid:
        return places
    if not places.numel():
        return places.new_zeros(len(places), *grid, 3)
    resampled = F.interpolate(places.movedim(-1, 1), grid, mode="bilinear", align_corners=False)
    return resampled.movedim(1, -1)
