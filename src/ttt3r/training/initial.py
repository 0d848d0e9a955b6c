"""Weights before training: a network that compares, before it has learned what.

A network that starts from plain random values spends most of a training on a plateau where it
claims that the camera never moves. One whose cross-attention starts as a comparison of tokens, and
whose state starts by keeping the first frame's tokens where they were, is off it at once.
"""

import torch
from torch import Tensor, nn

from ttt3r.models.cut3r.network import Cut3r
from ttt3r.models.cut3r.state import state_positions
from ttt3r.nn.attention import CrossAttention
from ttt3r.nn.blocks import DecoderBlock, LinearHead, ModulatedNorm, PoseHead
from ttt3r.nn.layers import ConvBlock
from ttt3r.nn.rope import grid_positions, rotary

QUIET = 0.2  # factor on what the decoders' blocks add to their tokens at first
WRITE = 2.0  # gain with which the last state block writes the frame's tokens into the state
GATE_LOGIT = -0.3  # mean logit of the state's attention at first; β has its median near 0.6


@torch.no_grad()
def initialise(model: Cut3r, seed: int) -> None:
    """Fill a network with starting values.

    Products keep their scale; the modulated normalisation starts as plain normalisation, and the
    last layers of the heads start small, so that the first predictions are moderate everywhere.
    """
    generator = torch.Generator().manual_seed(seed)
    _random_values(model, generator)
    _moderate_heads(model)
    for block in model.dec_blocks:
        assert isinstance(block, DecoderBlock)
        look_at_own_place(block.cross_attn)
    if model.config.decoder_heads == model.config.state_heads:
        model.dec_blocks_state.load_state_dict(model.dec_blocks.state_dict())
    _compare_content(model)
    _keep_content(model)
    for block in model.dec_blocks_state:
        assert isinstance(block, DecoderBlock)
        centre_gate(model, block.cross_attn)


def _random_values(model: Cut3r, generator: torch.Generator) -> None:
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight, generator=generator)
        elif isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="linear", generator=generator)
        elif isinstance(module, nn.Embedding):
            module.weight.normal_(std=0.02, generator=generator)
        if isinstance(module, nn.Linear | nn.Conv2d) and module.bias is not None:
            nn.init.zeros_(module.bias)
    for name, parameter in model.named_parameters():
        if name.endswith(("pose_token", "masked_token", "img_token", "ray_map_token", ".mem")):
            parameter.normal_(std=0.02, generator=generator)
    for module in model.modules():
        if isinstance(module, ConvBlock):
            module.conv2.weight.mul_(0.1)
        elif isinstance(module, ModulatedNorm):
            nn.init.zeros_(module.mlp[1].weight)  # pyright: ignore[reportArgumentType]


def _moderate_heads(model: Cut3r) -> None:
    for name, module in model.downstream_head.named_modules():
        if isinstance(module, LinearHead):
            module.fc2.weight.mul_(0.2)
            if name != "rgb_proj":  # about 2.3 m straight ahead
                module.fc2.bias.view(4, -1)[2] = 1.2
        elif isinstance(module, PoseHead):
            module.mlp.fc2.weight.mul_(0.2)
            module.mlp.fc2.bias[3] = 1.0  # no rotation


def locality_bias(heads: int, head_dim: int, told: int, strength: float = 2.0) -> Tensor:
    """A bias of queries and keys by which the first `told` heads look at their own place at first.

    With the rotary embedding, equal constant queries and keys have the product Σ cos(θ_j Δ), which
    is largest where the positions agree; the faster half of the frequencies makes it sharp. Frames
    of a video overlap, so the place of a patch is where its match most likely is, and a network
    that begins there learns to match many times sooner.
    """
    quarter = head_dim // 4
    bias = torch.zeros(heads, 4, quarter)
    bias[:told, :, : (quarter + 1) // 2] = strength
    return bias.flatten()


def look_at_own_place(attention: CrossAttention) -> None:
    """Half of the heads look at their own place; queries and keys are projected alike."""
    heads, channels = attention.heads, len(attention.projq.bias)
    attention.projq.bias.copy_(locality_bias(heads, channels // heads, (heads + 1) // 2))
    attention.projk.load_state_dict(attention.projq.state_dict())


def _compare_content(model: Cut3r) -> None:
    """The first head of each cross-attention compares the first channels of the tokens themselves.

    Both decoders take over the encoder's tokens as they are; the encoder's blocks change little.
    """
    head = model.config.decoder_dim // model.config.decoder_heads
    same = torch.eye(model.config.decoder_dim, model.config.encoder_dim)
    for embed in (model.decoder_embed, model.decoder_embed_state):
        embed.weight.copy_(same)
        embed.bias.zero_()
    for block in model.enc_blocks:
        block.attn.proj.weight.mul_(0.3)  # pyright: ignore
        block.mlp.fc2.weight.mul_(0.3)  # pyright: ignore
    first = torch.eye(head, model.config.decoder_dim)
    for block in model.dec_blocks:
        assert isinstance(block, DecoderBlock)
        for projection in (block.cross_attn.projq, block.cross_attn.projk):
            projection.weight[:head] = first
            projection.bias[:head] *= 0.5


def _keep_content(model: Cut3r) -> None:
    """Decoders start near the identity; the last state block writes tokens to their own places."""
    for blocks in (model.dec_blocks, model.dec_blocks_state):
        for block in blocks:
            assert isinstance(block, DecoderBlock)
            block.attn.proj.weight.mul_(QUIET)
            block.mlp.fc2.weight.mul_(QUIET)
            if blocks is model.dec_blocks_state:
                block.cross_attn.proj.weight.mul_(QUIET)
    last = model.dec_blocks_state[-1]
    assert isinstance(last, DecoderBlock)
    attention, heads = last.cross_attn, model.config.state_heads
    same = torch.eye(model.config.decoder_dim)
    attention.projv.weight.copy_(same)
    attention.proj.weight.copy_(WRITE * same)
    for projection in (attention.projv, attention.proj):
        projection.bias.zero_()
    # Every head of the block that writes looks at its own place.
    bias = locality_bias(heads, len(same) // heads, heads, strength=4.0)
    for projection in (attention.projq, attention.projk):
        projection.bias.copy_(bias)
        projection.weight.mul_(0.3)


def centre_gate(model: Cut3r, attention: CrossAttention) -> None:
    """Give the state's attention the mean logit `GATE_LOGIT` where tokens are all alike.

    The locality bias adds a constant to every logit, which would open the gate of the update rule
    everywhere. That constant is taken off by the slowest channels of the rotary embedding, which
    hardly depend on the place.
    """
    config = model.config
    head = config.decoder_dim // config.state_heads
    quarter = head // 4
    slow = torch.zeros(4, quarter)
    slow[:, quarter - max(1, quarter // 4) :] = 1
    slow = slow.flatten()
    state = state_positions(config.state_size, config.state_positions, config.state_width)
    patches = grid_positions(
        config.image_size * 3 // 4 // config.patch_size, config.image_size // config.patch_size
    )
    image = torch.cat((patches.new_full((1, 2), -1), patches))
    at_state = rotary(state, head, config.rope_base)
    at_image = rotary(image, head, config.rope_base)

    def mean_logit(query: Tensor, key: Tensor) -> float:
        queries = at_state.turn(query.expand(1, 1, len(state), head))[0, 0]
        keys = at_image.turn(key.expand(1, 1, len(image), head))[0, 0]
        return float((queries @ keys.T).mean() * head**-0.5)

    unit = -mean_logit(slow, -slow)
    query_bias = attention.projq.bias.view(config.state_heads, head)
    key_bias = attention.projk.bias.view(config.state_heads, head)
    for query, key in zip(query_bias, key_bias, strict=True):
        excess = mean_logit(query, key) - GATE_LOGIT
        size = abs(excess / unit) ** 0.5
        query += size * slow
        key -= (size if excess > 0 else -size) * slow
