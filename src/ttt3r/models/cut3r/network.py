"""CUT3R: a recurrent network whose whole past is a fixed set of state tokens (arXiv 2501.12387).

One `step` serves streams, offline runs and training alike. Frames are encoded without the state;
two interleaved decoders then let state and frame read each other, heads read the frame's tokens,
and an update rule decides what becomes of the state.
"""

from collections.abc import Collection
from dataclasses import replace
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ttt3r import rules
from ttt3r.errors import SettingError
from ttt3r.masks import pick
from ttt3r.models.base import Capabilities, Tokens, Views
from ttt3r.models.cut3r.config import Cut3rConfig
from ttt3r.models.cut3r.heads import DptHeads, LinearHeads
from ttt3r.models.cut3r.state import Cut3rState, Decoded, state_rotary
from ttt3r.models.evidence import LogitProbe
from ttt3r.models.network import StreamNetwork
from ttt3r.nn.attention import Probe
from ttt3r.nn.blocks import Block, DecoderBlock
from ttt3r.nn.layers import LayerNorm, Linear, PatchEmbed, at_least_float32
from ttt3r.nn.memory import PoseMemory
from ttt3r.nn.rope import Half, Rotary, absolute_positions, grid_rotary
from ttt3r.rules.base import Rule, RuleMemory, advance
from ttt3r.spans import span
from ttt3r.types import Reading


class Cut3r(StreamNetwork):
    """The network."""

    config: Cut3rConfig
    exact = frozenset({"downstream_head"})

    def __init__(self, config: Cut3rConfig) -> None:
        super().__init__(config)
        self.capabilities = Capabilities(
            outputs=("points", "pose", "world", *(("rgb",) if config.rgb_head else ())),
            metric_scale=True,
            constant_memory=True,
        )
        c, encoder, decoder = config, config.encoder_dim, config.decoder_dim
        self.patch_embed = PatchEmbed(3, encoder, c.patch_size, c.stem, c.stem_blocks)
        self.enc_blocks = nn.ModuleList(
            Block(encoder, c.encoder_heads, c.mlp_ratio) for _ in range(c.encoder_depth)
        )
        self.enc_norm = LayerNorm(encoder)
        self.masked_img_token = nn.Parameter(torch.zeros(1, encoder))
        if c.ray_encoder_depth:
            self.patch_embed_ray_map = PatchEmbed(6, encoder, c.patch_size)
            self.enc_blocks_ray_map = nn.ModuleList(
                Block(encoder, c.ray_encoder_heads, c.mlp_ratio) for _ in range(c.ray_encoder_depth)
            )
            self.enc_norm_ray_map = LayerNorm(encoder)
            self.masked_ray_map_token = nn.Parameter(torch.zeros(1, encoder))
        self.decoder_embed = Linear(encoder, decoder)
        self.dec_blocks = nn.ModuleList(
            DecoderBlock(decoder, c.decoder_heads, c.mlp_ratio) for _ in range(c.decoder_depth)
        )
        self.dec_norm = LayerNorm(decoder)
        self.register_tokens = nn.Embedding(c.state_size, encoder)
        self.decoder_embed_state = Linear(encoder, decoder)
        self.dec_blocks_state = nn.ModuleList(
            DecoderBlock(decoder, c.state_heads, c.mlp_ratio) for _ in range(c.decoder_depth)
        )
        self.dec_norm_state = LayerNorm(decoder)
        self.pose_token = nn.Parameter(torch.zeros(1, 1, decoder))
        self.pose_retriever = PoseMemory(
            encoder, decoder, c.memory_size, c.memory_depth, c.decoder_heads, c.mlp_ratio
        )
        self.downstream_head = DptHeads(c) if c.head == "dpt" else LinearHeads(c)

    def parse_rule(self, rule: Any = None) -> Rule:
        """Return an update rule, see `ttt3r.rules.parse`; "ttt3r" if None.

        Raises:
            SettingError: if the text names no update rule, or the value is not a registered one.
        """
        return rules.parse(rule)

    def initial_state(self, rule: Rule, batch: int = 1) -> Cut3rState:
        """State of `batch` streams before their first frame; the same for every stream."""
        tokens = at_least_float32(self.decoder_embed_state(self.register_tokens.weight))
        tokens = tokens.expand(batch, -1, -1).clone()
        return Cut3rState(
            tokens=tokens,
            pose_memory=self.pose_retriever.initial(batch),
            age=torch.zeros(batch, dtype=torch.int64),
        )

    def reset(self, state: Cut3rState, rule: Rule, which: Bool[Tensor, " batch"]) -> Cut3rState:
        """Return `state` with the samples of `which` as before their first frame."""
        fresh = replace(
            self.initial_state(rule, len(state.age)),
            rule_memory=_zeros(state.rule_memory),
            pose_rule_memory=_zeros(state.pose_rule_memory),
        )
        which = which.cpu()
        return state.map(lambda old, new: pick(which, new, old), fresh)

    def encode(self, views: Views, absent: Literal["zero", "token"] = "zero") -> Tokens:
        """Turn views into tokens.

        Args:
            views: images, ray maps, or both; what a sample has of both is added up.
            absent: what stands for an input that a sample lacks: nothing, as in the published
                recurrent inference, or the learned mask token, as in training.

        Raises:
            SettingError: if the size is not a multiple of the patch size, there is no input, or
                there are ray maps and the network has no encoder for them.
        """
        image, rays = views.image, views.ray_map
        if image is None and rays is None:
            raise SettingError("a view needs an image, a ray map, or both")
        if rays is not None and not self.config.ray_encoder_depth:
            raise SettingError("these weights take no ray maps; load others, such as the published")
        batch, size = (
            (len(image), (image.shape[2], image.shape[3]))
            if image is not None
            else (len(rays), (rays.shape[1], rays.shape[2]))  # pyright: ignore
        )
        self.check_size(size)
        has_image = self.presence(image, views.has_image, batch)
        has_rays = self.presence(rays, views.has_ray_map, batch)
        inputs: list[Tensor] = []
        if image is not None or absent == "token":
            encoded = None if image is None else self._encode_image(image, size)
            token = self.masked_img_token if absent == "token" else None
            inputs.append(self._one_input(encoded, has_image, token))
        if rays is not None:
            token = self.masked_ray_map_token if absent == "token" else None
            inputs.append(self._one_input(self._encode_rays(rays, size), has_rays, token))
        features = inputs[0] if len(inputs) == 1 else inputs[0] + inputs[1]
        return Tokens(features, size, has_image)

    def step(
        self,
        state: Cut3rState,
        tokens: Tokens,
        rule: Rule,
        outputs: Collection[str] = ("points", "pose"),
        update: Bool[Tensor, " batch"] | None = None,
        image_probe: Probe | None = None,
    ) -> tuple[Cut3rState, Reading]:
        """Read the state with one frame per stream and return the next state.

        Args:
            state: state of each stream; not modified.
            tokens: the frame of each stream.
            rule: how the candidate becomes the next state.
            outputs: any of "points" (or "self"), "pose", "world", "rgb"; others are not computed.
            update: streams whose state may change; None means all. Without an image it never does.
            image_probe: called in each layer with the queries of the frame (pose token first) and
                the keys of the state.
        """
        wanted = self.capabilities.check(outputs)
        update = tokens.written(update)
        is_first = rule.begins(state.age == 0)
        probe = LogitProbe(rule.evidence)
        decoded = self._decode(state, tokens, is_first, probe, rule, image_probe)
        evidence = probe.evidence(
            rule.evidence, decoded.levels[0], decoded.projected, decoded.levels[-1]
        )
        tokens_next, gate, rule_memory = advance(
            rule, state.tokens, decoded.candidate, evidence, state.rule_memory, is_first, update
        )
        pose_memory, pose_rule_memory = self._remember_pose(state, decoded, rule, update)
        next_state = Cut3rState(
            tokens=tokens_next,
            pose_memory=pose_memory,
            age=state.age + update,
            rule_memory=rule_memory,
            pose_rule_memory=pose_rule_memory,
        )
        with span("heads"):
            return next_state, self._read(decoded, tokens.size, wanted, gate)

    def _remember_pose(
        self, state: Cut3rState, decoded: Decoded, rule: Rule, update: Bool[Tensor, " batch"]
    ) -> tuple[Float[Tensor, "batch slots wide"], RuleMemory]:
        """Return the pose memory after the frame, and what its rule remembers."""
        rule = rules.pose_memory_rule(rule)
        probe = LogitProbe(rule.evidence)
        written = self.pose_retriever.write(
            state.pose_memory,
            decoded.global_feature,
            decoded.pose_token,
            probe if probe.wanted else None,
        )
        step = advance(
            rule,
            state.pose_memory,
            written,
            probe.evidence(rule.evidence),
            state.pose_rule_memory,
            rule.begins(state.age == 0),
            update,
        )
        return step.state, step.memory

    def query(
        self, state: Cut3rState, tokens: Tokens, outputs: Collection[str] = ("points", "rgb")
    ) -> Reading:
        """Ask what a view would show, without touching the state (CUT3R, section 3.3)."""
        wanted = self.capabilities.check(outputs)
        is_first = torch.zeros_like(state.age, dtype=torch.bool)
        decoded = self._decode(state, tokens, is_first, LogitProbe(()))
        return self._read(decoded, tokens.size, wanted, gate=None)

    def _decode(
        self,
        state: Cut3rState,
        tokens: Tokens,
        is_first: Bool[Tensor, " batch"],
        probe: LogitProbe,
        rule: Rule | None = None,
        image_probe: Probe | None = None,
    ) -> Decoded:
        """Run the interleaved decoders; each layer's two blocks read the layer before.

        A `rule` may confine what the pose token reads of the state.
        """
        config = self.config
        feature = tokens.features.mean(dim=1, keepdim=True)
        remembered = self.pose_retriever.read(feature, state.pose_memory)
        pose_token = pick(is_first, self.pose_token, remembered)
        projected = at_least_float32(self.decoder_embed(tokens.features))
        image = torch.cat((pose_token, projected), dim=1)
        memory = state.tokens
        pose_reads = None if rule is None else rule.pose_reads(memory, projected)

        # Each block rotates queries and keys with its own head size.
        (image_in_image, state_in_image), (image_in_state, state_in_state) = (
            (
                self._rotary(tokens.size, config.decoder_dim // heads, before=1),
                self._state_rotary(config.decoder_dim // heads),
            )
            for heads in (config.decoder_heads, config.state_heads)
        )

        middle: dict[int, Tensor] = {}
        for layer, (image_block, state_block) in enumerate(
            zip(self.dec_blocks, self.dec_blocks_state, strict=True), start=1
        ):
            image, memory = (
                image_block(image, memory, image_in_image, state_in_image, image_probe, pose_reads),
                state_block(
                    memory,
                    image,
                    state_in_state,
                    image_in_state,
                    probe if probe.wanted else None,
                ),
            )
            middle[layer] = image
        depth = config.decoder_depth
        last = self.dec_norm(image)
        return Decoded(
            levels=(
                tokens.features,
                middle[depth * 2 // 4][:, 1:],
                middle[depth * 3 // 4][:, 1:],
                last[:, 1:],
            ),
            pose_token=last[:, :1],
            candidate=self.dec_norm_state(memory),
            global_feature=feature,
            projected=projected,
        )

    def _read(
        self,
        decoded: Decoded,
        size: tuple[int, int],
        wanted: frozenset[str],
        gate: Float[Tensor, "batch tokens"] | None,
    ) -> Reading:
        """Run the heads that were asked for."""
        heads, grid = self.downstream_head, self.grid(size)
        pose_token = decoded.pose_token[:, 0]
        points = confidence = world_points = world_confidence = None
        if "points" in wanted:
            points, confidence = heads.points(decoded.levels, grid)
        if "world" in wanted:
            head_dim = self.config.decoder_dim // self.config.decoder_heads
            positions = self._rotary(size, head_dim)
            world_points, world_confidence = heads.world(
                decoded.levels, pose_token, positions, grid
            )
        return Reading(
            points=points,
            confidence=confidence,
            pose_encoding=heads.pose(pose_token) if "pose" in wanted else None,
            world_points=world_points,
            world_confidence=world_confidence,
            rgb=heads.rgb(decoded.levels, grid) if "rgb" in wanted else None,
            gate=gate,
        )

    def _encode_image(self, image: Tensor, size: tuple[int, int]) -> Tensor:
        config = self.config
        half: Half | None = "operands" if config.half_rope_in_encoder else None
        at = self._rotary(size, config.encoder_dim // config.encoder_heads, half=half)
        x = self.patch_embed(image)
        if config.absolute_positions:
            grid, dim, skipped = self.grid(size), config.encoder_dim, config.content_channels
            x = x + absolute_positions(*grid, dim, self.device, skipped=skipped)
        for block in self.enc_blocks:
            x = block(x, at)
        return self.enc_norm(x)

    def _encode_rays(self, rays: Tensor, size: tuple[int, int]) -> Tensor:
        at = self._rotary(size, self.config.encoder_dim // self.config.ray_encoder_heads)
        x = self.patch_embed_ray_map(rays.movedim(-1, 1))
        for block in self.enc_blocks_ray_map:
            x = block(x, at)
        return self.enc_norm_ray_map(x)

    def _rotary(
        self, size: tuple[int, int], head_dim: int, before: int = 0, half: Half | None = None
    ) -> Rotary:
        """Rotations of the patches of an image, in the dtype of the residual stream."""
        like, base = self.pose_token, self.config.rope_base
        return grid_rotary(
            self.grid(size), head_dim, base, like.dtype, like.device, before=before, half=half
        )

    def _state_rotary(self, head_dim: int) -> Rotary:
        """Rotations of the state's tokens, in the dtype of the residual stream."""
        c, like = self.config, self.pose_token
        kind, width = c.state_positions, c.state_width
        return state_rotary(
            c.state_size, kind, width, head_dim, c.rope_base, like.dtype, like.device
        )

    @staticmethod
    def _one_input(
        encoded: Tensor | None, present: Bool[Tensor, " batch"], absent: Tensor | None
    ) -> Tensor:
        """Features of one kind of input where it is present, and its stand-in elsewhere."""
        if encoded is None:
            assert absent is not None
            return absent
        stand_in = encoded.new_zeros(1, 1, 1) if absent is None else absent[None]
        return pick(present, encoded, stand_in)


def _zeros(memory: RuleMemory) -> RuleMemory:
    return {name: torch.zeros_like(item) for name, item in memory.items()}
