"""Weights before training."""

import torch
from torch import nn

from ttt3r.models.cut3r import Cut3r
from ttt3r.nn.blocks import DecoderBlock, LinearHead, ModulatedNorm, PoseHead


@torch.no_grad()
def initialise(model: Cut3r, seed: int) -> None:
    """Fill a network with starting values.

    Products keep their scale; the modulated normalisation starts as plain normalisation, and the
    last layers of the heads start small, so that the first predictions are moderate everywhere.
    Cross-attention starts as a comparison: queries and keys are projected alike, so that equal
    tokens attend to each other, most of all at equal places.
    """
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight, generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="linear", generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            module.weight.normal_(std=0.02, generator=generator)
    for name, parameter in model.named_parameters(recurse=True):
        if name.endswith(("pose_token", "masked_token", "img_token", "ray_map_token", ".mem")):
            parameter.normal_(std=0.02, generator=generator)
    for module in model.modules():
        if isinstance(module, ModulatedNorm):
            nn.init.zeros_(module.mlp[1].weight)  # pyright: ignore[reportArgumentType]
    for name, module in model.downstream_head.named_modules():
        if isinstance(module, LinearHead):
            module.fc2.weight.mul_(0.2)
            if name != "rgb_proj":  # about 2.3 m straight ahead
                module.fc2.bias.view(4, -1)[2] = 1.2
        elif isinstance(module, PoseHead):
            module.mlp.fc2.weight.mul_(0.2)
            module.mlp.fc2.bias[3] = 1.0  # no rotation
    for block in model.dec_blocks:
        assert isinstance(block, DecoderBlock)
        attention = block.cross_attn
        bias = locality_bias(attention.heads, len(attention.projq.bias) // attention.heads)
        attention.projq.bias.copy_(bias)
        attention.projk.load_state_dict(attention.projq.state_dict())
    # Both streams begin alike, so that the same content has the same tokens in both.
    model.decoder_embed_state.load_state_dict(model.decoder_embed.state_dict())
    if model.config.decoder_heads == model.config.state_heads:
        model.dec_blocks_state.load_state_dict(model.dec_blocks.state_dict())


def locality_bias(heads: int, head_dim: int, strength: float = 2.0) -> torch.Tensor:
    """A bias of queries and keys by which half of the heads look at their own place at first.

    With the rotary embedding, equal constant queries and keys have the product Σ cos(θ_j Δ), which
    is largest where the positions agree; the faster half of the frequencies makes it sharp. Frames
    of a video overlap, so the place of a patch is where its match most likely is, and a network
    that begins there learns to match many times sooner.
    """
    quarter = head_dim // 4
    bias = torch.zeros(heads, 4, quarter)
    bias[: (heads + 1) // 2, :, : (quarter + 1) // 2] = strength
    return bias.flatten()
