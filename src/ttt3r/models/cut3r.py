"""CUT3R: a recurrent network whose whole past is a fixed set of state tokens (arXiv 2501.12387).

One `step` serves streams, offline runs and training alike. Frames are encoded without the state;
two interleaved decoders then let state and frame read each other, heads read the frame's tokens,
and an update rule decides what becomes of the state.
"""

from collections.abc import Collection
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ttt3r import rules
from ttt3r.errors import SettingError
from ttt3r.models.base import (
    Capabilities,
    StepOutput,
    Tokens,
    Views,
    WeightsInfo,
    check_outputs,
)
from ttt3r.models.cut3r_config import Cut3rConfig
from ttt3r.models.cut3r_heads import DptHeads, LinearHeads
from ttt3r.models.cut3r_state import Cut3rState, Decoded, state_positions
from ttt3r.models.evidence import LogitProbe
from ttt3r.nn.attention import Probe
from ttt3r.nn.blocks import DecoderBlock, EncoderBlock
from ttt3r.nn.layers import LayerNorm, Linear, PatchEmbed, at_least_float32, cast_products
from ttt3r.nn.memory import PoseMemory
from ttt3r.nn.rope import Rotary, absolute_positions, grid_positions, rotary
from ttt3r.rules.base import Rule, advance, broadcast_to_rank
from ttt3r.types import ImagePolicy

DEFAULT_RULE = "ttt3r"


class Cut3r(nn.Module):
    """The network. Parameters carry the published names, so released weights load key for key."""

    capabilities = Capabilities(
        metric_scale=True,
        pose=True,
        world_points=True,
        rgb=True,
        constant_memory=True,
    )

    def __init__(self, config: Cut3rConfig) -> None:
        super().__init__()
        if config.head == "dpt" and config.patch_size != 16:
            raise SettingError("the DPT head upsamples by 16 and needs patch_size=16")
        self.config = config
        self.image_policy = ImagePolicy(config.image_size, config.patch_size)
        self.weights = WeightsInfo("unnamed", "unknown", "unknown", "", trained=False)
        c, encoder, decoder = config, config.encoder_dim, config.decoder_dim
        self.patch_embed = PatchEmbed(3, encoder, c.patch_size, c.stem)
        self.enc_blocks = nn.ModuleList(
            EncoderBlock(encoder, c.encoder_heads, c.mlp_ratio, half_rope=c.half_rope_in_encoder)
            for _ in range(c.encoder_depth)
        )
        self.enc_norm = LayerNorm(encoder)
        self.patch_embed_ray_map = PatchEmbed(6, encoder, c.patch_size)
        self.enc_blocks_ray_map = nn.ModuleList(
            EncoderBlock(encoder, c.ray_encoder_heads, c.mlp_ratio)
            for _ in range(c.ray_encoder_depth)
        )
        self.enc_norm_ray_map = LayerNorm(encoder)
        self.masked_img_token = nn.Parameter(torch.zeros(1, encoder))
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

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.pose_token.device

    def set_precision(self, dtype: torch.dtype) -> "Cut3r":
        """Run encoder and decoder products in `dtype`; the rest stays float32. Returns self.

        State, pose memory, position embedding, gate, normalisation and heads are always float32.
        """
        parts = (part for part in self.children() if part is not self.downstream_head)
        cast_products(parts, dtype)
        return self

    def parse_rule(self, rule: str | Rule | None = None) -> Rule:
        """Return an update rule, see `ttt3r.rules.parse`; "ttt3r" if None."""
        return rules.parse(DEFAULT_RULE if rule is None else rule)

    def initial_state(self, rule: Rule, batch: int = 1) -> Cut3rState:
        """State of `batch` streams before their first frame; the same for every stream."""
        tokens = at_least_float32(self.decoder_embed_state(self.register_tokens.weight))
        tokens = tokens.expand(batch, -1, -1).clone()
        return Cut3rState(
            tokens=tokens,
            pose_memory=self.pose_retriever.initial(batch),
            age=torch.zeros(batch, dtype=torch.int64, device=self.device),
            rule_memory=rule.start(tokens),
        )

    def reset(self, state: Cut3rState, rule: Rule, which: Bool[Tensor, " batch"]) -> Cut3rState:
        """Return `state` with the samples of `which` as before their first frame."""
        fresh = self.initial_state(rule, len(state.age))
        return state.map(
            lambda old, new: torch.where(broadcast_to_rank(which, old.ndim), new, old), fresh
        )

    def encode(self, views: Views, absent: Literal["zero", "token"] = "zero") -> Tokens:
        """Turn views into tokens.

        Args:
            views: images, ray maps, or both; what a sample has of both is added up.
            absent: what stands for an input that a sample lacks: nothing, as in the published
                recurrent inference, or the learned mask token, as in training.

        Raises:
            SettingError: if the size is no multiple of the patch size, or there is no input.
        """
        image, rays = views.image, views.ray_map
        if image is None and rays is None:
            raise SettingError("a view needs an image, a ray map, or both")
        batch, size = (
            (len(image), (image.shape[2], image.shape[3]))
            if image is not None
            else (len(rays), (rays.shape[1], rays.shape[2]))  # pyright: ignore
        )
        self._check_size(size)
        has_image = self._presence(image, views.has_image, batch)
        has_rays = self._presence(rays, views.has_ray_map, batch)
        features = torch.zeros((), device=self.device)
        if image is not None or absent == "token":
            features = features + self._one_input(
                None if image is None else self._encode_image(image, size),
                has_image,
                self.masked_img_token if absent == "token" else None,
            )
        if rays is not None:
            features = features + self._one_input(
                self._encode_rays(rays, size),
                has_rays,
                self.masked_ray_map_token if absent == "token" else None,
            )
        return Tokens(features, size, has_image)

    def step(
        self,
        state: Cut3rState,
        tokens: Tokens,
        rule: Rule,
        outputs: Collection[str] = ("points", "pose"),
        update: Bool[Tensor, " batch"] | None = None,
        image_probe: Probe | None = None,
    ) -> tuple[Cut3rState, StepOutput]:
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
        wanted = check_outputs(outputs)
        update = tokens.has_image if update is None else tokens.has_image & update
        first = state.age == 0
        probe = LogitProbe(rule.evidence)
        decoded = self._decode(state, tokens, first, probe, image_probe=image_probe)
        evidence = probe.evidence(rule.evidence, decoded.levels[0], decoded.projected)
        tokens_next, gate, rule_memory = advance(
            rule, state.tokens, decoded.candidate, evidence, state.rule_memory, first, update
        )
        written = self.pose_retriever.write(
            state.pose_memory, decoded.global_feature, decoded.pose_token
        )
        next_state = Cut3rState(
            tokens=tokens_next,
            pose_memory=torch.where(update[:, None, None], written, state.pose_memory),
            age=state.age + 1,
            rule_memory=rule_memory,
        )
        return next_state, self._read(decoded, tokens.size, wanted, gate)

    def query(
        self, state: Cut3rState, tokens: Tokens, outputs: Collection[str] = ("points", "rgb")
    ) -> StepOutput:
        """Ask what a view would show, without touching the state (CUT3R, section 3.3)."""
        wanted = check_outputs(outputs)
        first = torch.zeros_like(state.age, dtype=torch.bool)
        decoded = self._decode(state, tokens, first, LogitProbe(()))
        return self._read(decoded, tokens.size, wanted, gate=None)

    def compare(
        self,
        first: Tokens,
        second: Tokens,
        outputs: Collection[str] = ("points", "pose", "world"),
        probe: Probe | None = None,
    ) -> StepOutput:
        """Read the second frame of a pair against the first, whose tokens stand for the state.

        This is the network's two-view ancestor (DUSt3R, arXiv 2312.14132), whose world is the first
        camera. Training begins with it, since matching must be learned before memory.

        Args:
            first: the frame whose camera is the world.
            second: the frame that is read.
            outputs: as in `step`.
            probe: called in each layer with the queries of the second frame (pose token first) and
                the keys of the first.
        """
        wanted = check_outputs(outputs)
        batch = len(first.features)
        state = Cut3rState(
            tokens=at_least_float32(self.decoder_embed_state(first.features)),
            pose_memory=self.pose_retriever.initial(batch),
            age=torch.zeros(batch, dtype=torch.int64, device=self.device),
        )
        decoded = self._decode(
            state, second, state.age == 0, LogitProbe(()), self._grid(first.size), probe
        )
        return self._read(decoded, second.size, wanted, gate=None)

    def _decode(
        self,
        state: Cut3rState,
        tokens: Tokens,
        first: Bool[Tensor, " batch"],
        probe: LogitProbe,
        state_at: Int[Tensor, "tokens 2"] | None = None,
        image_probe: Probe | None = None,
    ) -> Decoded:
        """Run the interleaved decoders; each layer's two blocks read the layer before."""
        config = self.config
        feature = tokens.features.mean(dim=1, keepdim=True)
        remembered = self.pose_retriever.read(feature, state.pose_memory)
        pose_token = torch.where(first[:, None, None], self.pose_token, remembered)
        projected = at_least_float32(self.decoder_embed(tokens.features))
        image = torch.cat((pose_token, projected), dim=1)
        memory = state.tokens

        grid = self._grid(tokens.size)
        if state_at is None:
            state_at = state_positions(config.state_size, config.state_positions).to(self.device)
        image_at = torch.cat((grid.new_full((1, 2), -1), grid))
        image_dim = config.decoder_dim // config.decoder_heads
        state_dim = config.decoder_dim // config.state_heads
        # Each block rotates queries and keys with its own head size.
        in_image = [self._rotary(at, image_dim) for at in (image_at, state_at)]
        in_state = [self._rotary(at, state_dim) for at in (state_at, image_at)]

        middle: dict[int, Tensor] = {}
        for layer, (image_block, state_block) in enumerate(
            zip(self.dec_blocks, self.dec_blocks_state, strict=True), start=1
        ):
            image, memory = (
                image_block(image, memory, *in_image, image_probe),
                state_block(memory, image, *in_state, probe if probe.wanted else None),
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
    ) -> StepOutput:
        """Run the heads that were asked for."""
        heads, patch = self.downstream_head, self.config.patch_size
        grid = (size[0] // patch, size[1] // patch)
        pose_token = decoded.pose_token[:, 0]
        points = confidence = world_points = world_confidence = rgb = None
        if "points" in wanted:
            points, confidence = heads.points(decoded.levels, grid)
        if "world" in wanted:
            head_dim = self.config.decoder_dim // self.config.decoder_heads
            positions = self._rotary(self._grid(size), head_dim)
            world_points, world_confidence = heads.world(
                decoded.levels, pose_token, positions, grid
            )
        if "rgb" in wanted:
            if not self.config.rgb_head:
                raise SettingError("these weights have no colour head; drop 'rgb' from outputs")
            rgb = heads.rgb(decoded.levels, grid)
        pose = heads.pose(pose_token) if "pose" in wanted else None
        return StepOutput(points, confidence, world_points, world_confidence, rgb, pose, gate)

    def _encode_image(self, image: Tensor, size: tuple[int, int]) -> Tensor:
        config = self.config
        at = self._encoder_positions(size, config.encoder_heads)
        x = self.patch_embed(image)
        if config.absolute_positions:
            grid = (size[0] // config.patch_size, size[1] // config.patch_size)
            x = x + absolute_positions(*grid, config.encoder_dim, self.device)
        for block in self.enc_blocks:
            x = block(x, at)
        return self.enc_norm(x)

    def _encode_rays(self, rays: Tensor, size: tuple[int, int]) -> Tensor:
        at = self._encoder_positions(size, self.config.ray_encoder_heads)
        x = self.patch_embed_ray_map(rays.movedim(-1, 1))
        for block in self.enc_blocks_ray_map:
            x = block(x, at)
        return self.enc_norm_ray_map(x)

    def _encoder_positions(self, size: tuple[int, int], heads: int) -> Rotary:
        return self._rotary(self._grid(size), self.config.encoder_dim // heads)

    def _rotary(self, positions: Int[Tensor, "positions 2"], head_dim: int) -> Rotary:
        """Rotations in the dtype of the residual stream."""
        return rotary(positions, head_dim, self.config.rope_base, self.pose_token.dtype)

    def _grid(self, size: tuple[int, int]) -> Int[Tensor, "patches 2"]:
        patch = self.config.patch_size
        return grid_positions(size[0] // patch, size[1] // patch, self.device)

    def _check_size(self, size: tuple[int, int]) -> None:
        patch = self.config.patch_size
        if min(size) < patch or size[0] % patch or size[1] % patch:
            raise SettingError(
                f"the network takes sides that are multiples of {patch} pixels, not "
                f"{size[1]}x{size[0]}; prepare images with ttt3r.sources.prepare first"
            )

    def _presence(
        self, content: Tensor | None, mask: Bool[Tensor, " batch"] | None, batch: int
    ) -> Bool[Tensor, " batch"]:
        if content is None or mask is None:
            return torch.full((batch,), content is not None, device=self.device)
        return mask.to(self.device)

    @staticmethod
    def _one_input(
        encoded: Tensor | None, present: Bool[Tensor, " batch"], absent: Tensor | None
    ) -> Tensor:
        """Features of one kind of input where it is present, and its stand-in elsewhere."""
        if encoded is None:
            assert absent is not None
            return absent
        stand_in = encoded.new_zeros(()) if absent is None else absent
        return torch.where(present[:, None, None], encoded, stand_in)
