"""CUT3R's step the long way: the slow twin of `ttt3r.models.cut3r.network`.

It follows the published computation where the package takes a shortcut: attention is formed
explicitly, the logits of every decoder attention are kept until the frame is done, the gate of
TTT3R is the mean over their concatenation, all heads run, the DPT applies its 1x1 convolution
after the upsampling, and the pose memory is written with ordinary attention. All of it is float32
and reads the parameters by name, without the package's own layers.

The test-suite compares the package with it, and `benchmarks.step` takes it as the baseline.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isqrt

import torch
import torch.nn.functional as F
from torch import Tensor

from ttt3r.models.cut3r.network import Cut3r, Cut3rState
from ttt3r.types import Reading

Grid = tuple[int, int]


@dataclass(frozen=True)
class KeptLogits:
    """Scaled logits before softmax of every decoder layer, [batch, heads, queries, keys] each."""

    image_self: list[Tensor] = field(default_factory=list)
    image_cross: list[Tensor] = field(default_factory=list)
    state_self: list[Tensor] = field(default_factory=list)
    state_cross: list[Tensor] = field(default_factory=list)


class DenseCut3r:
    """The network of `model`, computed densely; shares the parameters and holds no others.

    Args:
        model: a float32 network with the published activations.
    """

    def __init__(self, model: Cut3r) -> None:
        config = model.config
        published = ("exp", "exp", "exp", (1.0, float("inf")), True)
        assert published == (
            config.points_mode,
            config.pose_mode,
            config.confidence_mode,
            config.confidence_range,
            config.rgb_head,
        ), "the dense twin knows the published activations only"
        self.config = config
        self.weights = model.state_dict()

    # One frame

    def initial_state(self, batch: int = 1) -> Cut3rState:
        """State before the first frame."""
        tokens = self.linear("decoder_embed_state", self.weights["register_tokens.weight"])
        memory = self.weights["pose_retriever.mem"]
        return Cut3rState(
            tokens=tokens.expand(batch, -1, -1),
            pose_memory=memory.expand(batch, -1, -1),
            age=torch.zeros(batch, dtype=torch.int64, device=tokens.device),
        )

    def step(
        self, state: Cut3rState, features: Tensor, grid: Grid, gated: bool = True
    ) -> tuple[Cut3rState, Reading, KeptLogits]:
        """Read the state with one frame and return the next state.

        Args:
            state: state of each stream.
            features: what `encode` made of the frame.
            grid: (rows, columns) of patches.
            gated: TTT3R's rule; otherwise the state is overwritten.
        """
        first = (state.age == 0)[:, None, None]
        feature = features.mean(dim=1, keepdim=True)
        remembered = self.read_memory(feature, state.pose_memory)
        pose_token = torch.where(first, self.weights["pose_token"], remembered)
        layers, candidate, logits = self.decode(state.tokens, features, pose_token, grid)
        memory = self.write_memory(state.pose_memory, feature, layers[-1][:, :1])
        gate = self.gate(logits) if gated else torch.ones_like(candidate[..., 0])
        gate = torch.where(first[..., 0], torch.ones_like(gate), gate)
        beta = gate[..., None]
        tokens = beta * candidate + (1 - beta) * state.tokens
        output = self.read_heads(layers, grid, gate)
        return Cut3rState(tokens, memory, state.age + 1), output, logits

    def gate(self, logits: KeptLogits) -> Tensor:
        """Sigmoid of the mean cross-attention logit of each state token."""
        whole = torch.cat([layer[:, None] for layer in logits.state_cross], dim=1)
        by_token = whole.permute(0, 3, 4, 1, 2).flatten(2)  # a copy: [batch, tokens, rest]
        return by_token.mean(dim=2).sigmoid()

    # Networks

    def encode(self, image: Tensor) -> Tensor:
        """Turn images [batch, 3, height, width] into patch tokens."""
        patch, config = self.config.patch_size, self.config
        grid = (image.shape[2] // patch, image.shape[3] // patch)
        at = patch_positions(grid, image.device)
        x = self.conv("patch_embed.proj", image, stride=patch).flatten(2).transpose(1, 2)
        for layer in range(config.encoder_depth):
            name = f"enc_blocks.{layer}"
            x = x + self.encoder_attention(f"{name}.attn", self.norm(f"{name}.norm1", x), at)
            x = x + self.mlp(f"{name}.mlp", self.norm(f"{name}.norm2", x))
        return self.norm("enc_norm", x)

    def decode(
        self, state: Tensor, features: Tensor, pose_token: Tensor, grid: Grid
    ) -> tuple[list[Tensor], Tensor, KeptLogits]:
        """Run both decoders; return image layers (the first is `features`), candidate, logits."""
        config, logits = self.config, KeptLogits()
        patches = patch_positions(grid, state.device)
        image_at = torch.cat((patches.new_full((1, 2), -1), patches))
        state_at = token_positions(config.state_size, config.state_positions, state.device)
        image = torch.cat((pose_token, self.linear("decoder_embed", features)), dim=1)
        layers = [features]
        for layer in range(config.decoder_depth):
            # Both blocks read what the layer before left.
            image, state = (
                self.decoder_block(
                    f"dec_blocks.{layer}",
                    (image, state),
                    (image_at, state_at),
                    config.decoder_heads,
                    (logits.image_self, logits.image_cross),
                ),
                self.decoder_block(
                    f"dec_blocks_state.{layer}",
                    (state, image),
                    (state_at, image_at),
                    config.state_heads,
                    (logits.state_self, logits.state_cross),
                ),
            )
            layers.append(image)
        layers[-1] = self.norm("dec_norm", image)
        return layers, self.norm("dec_norm_state", state), logits

    def read_memory(self, feature: Tensor, memory: Tensor) -> Tensor:
        """Pose token that the memory recalls for a frame's global feature."""
        query = self.linear("pose_retriever.proj_q", feature)
        masked = self.weights["pose_retriever.masked_token"].expand_as(query)
        x = torch.cat((query, masked), dim=-1)
        for block in range(self.config.memory_depth):
            x = self.decoder_block(f"pose_retriever.read_blocks.{block}", (x, memory))
        return x[..., query.shape[-1] :]

    def write_memory(self, memory: Tensor, feature: Tensor, pose_token: Tensor) -> Tensor:
        """Memory after it has seen a frame's global feature and refined pose token."""
        entry = torch.cat((self.linear("pose_retriever.proj_q", feature), pose_token), dim=-1)
        for block in range(self.config.memory_depth):
            memory = self.decoder_block(f"pose_retriever.write_blocks.{block}", (memory, entry))
        return memory

    def read_heads(self, layers: Sequence[Tensor], grid: Grid, gate: Tensor) -> Reading:
        """Run every head."""
        depth = self.config.decoder_depth
        pose_token, tokens = layers[-1][:, 0], layers[-1][:, 1:]
        levels = [layers[0], *(layers[depth * part // 4][:, 1:] for part in (2, 3)), tokens]
        world = tokens
        at = patch_positions(grid, tokens.device)
        for block in range(2):
            world = self.modulated_block(f"final_transform.{block}", world, pose_token, at)
        if self.config.head == "dpt":
            raw = self.dpt("dpt_self", levels, grid)
            raw_world = self.dpt("dpt_cross", [*levels[:3], world], grid)
            raw_rgb = self.dpt("dpt_rgb", levels, grid)
        else:
            raw = self.patches("proj", tokens, grid)
            raw_world = self.patches("cross_proj", world, grid)
            raw_rgb = self.patches("rgb_proj", tokens, grid)
        points, confidence = activate_points(raw, self.config.head == "linear")
        world_points, world_confidence = activate_points(raw_world, False)
        return Reading(
            points=points,
            confidence=confidence,
            world_points=world_points,
            world_confidence=world_confidence,
            rgb=2 * (raw_rgb.permute(0, 2, 3, 1).sigmoid() * (1 - 2e-6) + 1e-6 - 0.5),
            pose_encoding=activate_pose(self.mlp("downstream_head.pose_head.mlp", pose_token)),
            gate=gate,
        )

    # Blocks

    def encoder_attention(self, name: str, x: Tensor, at: Tensor) -> Tensor:
        """Self-attention of the encoder; with the published rounding if the network has it."""
        query, key, value = self.split_qkv(name, x, self.config.encoder_heads)
        if self.config.half_rope_in_encoder:
            query, key = (
                rotate(part.half().float(), at, self.config.rope_base).half().float()
                for part in (query, key)
            )
        else:
            query, key = (rotate(part, at, self.config.rope_base) for part in (query, key))
        return self.linear(f"{name}.proj", merge(attend(query, key, value)))

    def decoder_block(
        self,
        name: str,
        streams: tuple[Tensor, Tensor],
        positions: tuple[Tensor, Tensor] | None = None,
        heads: int | None = None,
        kept: tuple[list[Tensor], list[Tensor]] = ([], []),
    ) -> Tensor:
        """Self-attention, cross-attention to the second stream, MLP. No positions: no rotation."""
        (x, y), (kept_self, kept_cross) = streams, kept
        heads = heads or self.config.decoder_heads
        base = self.config.rope_base
        query, key, value = self.split_qkv(f"{name}.attn", self.norm(f"{name}.norm1", x), heads)
        if positions is not None:
            query, key = rotate(query, positions[0], base), rotate(key, positions[0], base)
        keep = None if positions is None else kept_self
        mixed = merge(attend(query, key, value, keep))
        x = x + self.linear(f"{name}.attn.proj", mixed)

        cross, other = f"{name}.cross_attn", self.norm(f"{name}.norm_y", y)
        query = split(self.linear(f"{cross}.projq", self.norm(f"{name}.norm2", x)), heads)
        key = split(self.linear(f"{cross}.projk", other), heads)
        value = split(self.linear(f"{cross}.projv", other), heads)
        if positions is not None:
            query, key = rotate(query, positions[0], base), rotate(key, positions[1], base)
        keep = None if positions is None else kept_cross
        x = x + self.linear(f"{cross}.proj", merge(attend(query, key, value, keep)))
        return x + self.mlp(f"{name}.mlp", self.norm(f"{name}.norm3", x))

    def modulated_block(self, name: str, x: Tensor, condition: Tensor, at: Tensor) -> Tensor:
        """Encoder block whose norms are shifted and scaled by a condition."""
        name, base = f"downstream_head.{name}", self.config.rope_base

        def norm(part: str) -> Tensor:
            change = self.linear(f"{name}.{part}.mlp.1", F.silu(condition))[:, None]
            shift, scale = change.chunk(2, dim=-1)
            return self.norm(f"{name}.{part}.norm", x) * (1 + scale) + shift

        query, key, value = self.split_qkv(f"{name}.attn", norm("norm1"), self.config.decoder_heads)
        mixed = attend(rotate(query, at, base), rotate(key, at, base), value)
        x = x + self.linear(f"{name}.attn.proj", merge(mixed))
        return x + self.mlp(f"{name}.mlp", norm("norm2"))

    def patches(self, name: str, tokens: Tensor, grid: Grid) -> Tensor:
        """Linear head: each token becomes the pixels of its patch."""
        pixels = self.mlp(f"downstream_head.{name}", tokens)
        return F.pixel_shuffle(image_of(pixels, grid), self.config.patch_size)

    def dpt(self, name: str, levels: Sequence[Tensor], grid: Grid) -> Tensor:
        """DPT head: four levels of tokens become one map of 16 times the grid."""
        name = f"downstream_head.{name}"
        maps = [
            self.conv(f"{name}.act_postprocess.{level}.0", image_of(tokens, grid))
            for level, tokens in enumerate(levels)
        ]
        for level, stride in ((0, 4), (1, 2)):
            part = f"{name}.act_postprocess.{level}.1"
            weight, bias = self.weights[f"{part}.weight"], self.weights[f"{part}.bias"]
            maps[level] = F.conv_transpose2d(maps[level], weight, bias, stride=stride)
        maps[3] = self.conv(f"{name}.act_postprocess.3.1", maps[3], stride=2, padding=1)
        maps = [
            self.conv(f"{name}.scratch.layer{level + 1}_rn", x, padding=1)
            for level, x in enumerate(maps)
        ]
        x = self.fuse(f"{name}.scratch.refinenet4", maps[3])[:, :, : grid[0], : grid[1]]
        for level in (3, 2, 1):
            x = self.fuse(f"{name}.scratch.refinenet{level}", x, maps[level - 1])
        x = double(self.conv(f"{name}.head.0", x, padding=1))
        x = self.conv(f"{name}.head.2", x, padding=1).relu()
        return self.conv(f"{name}.head.4", x)

    def fuse(self, name: str, x: Tensor, skip: Tensor | None = None) -> Tensor:
        """Add a refined skip map, refine, double the resolution, and mix channels."""
        if skip is not None:
            x = x + self.refine(f"{name}.resConfUnit1", skip)
        return self.conv(f"{name}.out_conv", double(self.refine(f"{name}.resConfUnit2", x)))

    def refine(self, name: str, x: Tensor) -> Tensor:
        """x + conv(relu(conv(relu(x))))."""
        inner = self.conv(f"{name}.conv1", x.relu(), padding=1)
        return x + self.conv(f"{name}.conv2", inner.relu(), padding=1)

    # Layers

    def linear(self, name: str, x: Tensor) -> Tensor:
        """Affine map under its name."""
        return F.linear(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def norm(self, name: str, x: Tensor) -> Tensor:
        """Layer normalisation under its name."""
        weight, bias = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        return F.layer_norm(x, x.shape[-1:], weight, bias, eps=1e-6)

    def mlp(self, name: str, x: Tensor) -> Tensor:
        """Linear, GELU, linear."""
        return self.linear(f"{name}.fc2", F.gelu(self.linear(f"{name}.fc1", x)))

    def conv(self, name: str, x: Tensor, stride: int = 1, padding: int = 0) -> Tensor:
        """Convolution under its name."""
        weight, bias = self.weights[f"{name}.weight"], self.weights.get(f"{name}.bias")
        return F.conv2d(x, weight, bias, stride, padding)

    def split_qkv(self, name: str, x: Tensor, heads: int) -> list[Tensor]:
        """Query, key and value of self-attention."""
        return [split(part, heads) for part in self.linear(f"{name}.qkv", x).chunk(3, dim=-1)]


def attend(query: Tensor, key: Tensor, value: Tensor, kept: list[Tensor] | None = None) -> Tensor:
    """softmax(QKᵀ / √d) V; appends a copy of the scaled logits to `kept`."""
    logits = query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5
    if kept is not None:
        kept.append(logits.clone())
    return logits.softmax(dim=-1) @ value


def split(x: Tensor, heads: int) -> Tensor:
    """[batch, tokens, channels] to [batch, heads, tokens, channels / heads]."""
    batch, tokens, channels = x.shape
    return x.reshape(batch, tokens, heads, channels // heads).transpose(1, 2)


def merge(x: Tensor) -> Tensor:
    """The reverse of `split`."""
    return x.transpose(1, 2).flatten(2)


def rotate(x: Tensor, positions: Tensor, base: float) -> Tensor:
    """Rotary embedding in two dimensions: the first half of a head turns by row, then column."""
    turned = []
    for half, position in zip(x.chunk(2, dim=-1), positions.float().T, strict=True):
        u, v = half.chunk(2, dim=-1)
        count = u.shape[-1]
        frequency = base ** (-torch.arange(count, device=x.device, dtype=torch.float32) / count)
        angle = position[:, None] * frequency
        cos, sin = angle.cos(), angle.sin()
        turned += [u * cos - v * sin, v * cos + u * sin]
    return torch.cat(turned, dim=-1)


def patch_positions(grid: Grid, device: torch.device) -> Tensor:
    """(row, column) of each patch, row by row."""
    index = torch.arange(grid[0] * grid[1], device=device)
    return torch.stack((index // grid[1], index % grid[1]), dim=1)


def token_positions(count: int, kind: str, device: torch.device) -> Tensor:
    """(row, column) of each state token: on a grid of even width, or (i, i)."""
    index = torch.arange(count, device=device)
    width = isqrt(count) + isqrt(count) % 2
    parts = (index, index) if kind == "1d" else (index // width, index % width)
    return torch.stack(parts, dim=1)


def image_of(tokens: Tensor, grid: Grid) -> Tensor:
    """Tokens as a map [batch, channels, rows, columns]."""
    return tokens.transpose(1, 2).reshape(tokens.shape[0], tokens.shape[2], *grid)


def double(x: Tensor) -> Tensor:
    """Twice the resolution, bilinear, corners kept."""
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)


def activate_points(raw: Tensor, positive_depth: bool) -> tuple[Tensor, Tensor]:
    """Points and confidence of a raw map of four channels."""
    xyz, confidence = raw.permute(0, 2, 3, 1).split((3, 1), dim=-1)
    if positive_depth:
        xyz = xyz * xyz[..., 2:].sign()
    length = xyz.norm(dim=-1, keepdim=True)
    return xyz / length.clamp(min=1e-8) * length.expm1(), 1 + confidence[..., 0].exp()


def activate_pose(raw: Tensor) -> Tensor:
    """Translation and unit quaternion, real part first and not negative."""
    translation, quaternion = raw[..., :3], raw[..., 3:]
    length = translation.norm(dim=-1, keepdim=True)
    translation = translation * length.expm1() / length.clamp(min=1e-8)
    quaternion = quaternion / quaternion.norm(dim=-1, keepdim=True).clamp(min=1e-12)
    flipped = torch.where(quaternion[..., :1] < 0, -quaternion, quaternion)
    return torch.cat((translation, flipped), dim=-1)
