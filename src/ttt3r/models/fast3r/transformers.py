"""The two transformers of Fast3R: one for each image alone, one for all views together."""

from math import log, sqrt

from jaxtyping import Float
from torch import Tensor, nn

from ttt3r.models.fast3r.config import Fast3rConfig
from ttt3r.nn.blocks import Block
from ttt3r.nn.dpt import Levels
from ttt3r.nn.layers import LayerNorm, Linear, PatchEmbed
from ttt3r.nn.rope import grid_rotary

# Attention over more tokens than in training is softer. The published factor on its logits stands
# for 137 views after a training on 20, however many there are.
INFERENCE_GAIN = sqrt(log(137) / log(20))


class Encoder(nn.Module):
    """Vision transformer that turns an image into tokens."""

    def __init__(self, config: Fast3rConfig) -> None:
        super().__init__()
        self.config = config
        dim = config.encoder_dim
        self.patch_embed = PatchEmbed(3, dim, config.patch_size)
        self.enc_blocks = nn.ModuleList(
            Block(dim, config.encoder_heads, config.mlp_ratio) for _ in range(config.encoder_depth)
        )
        self.enc_norm = LayerNorm(dim)

    def forward(
        self, images: Float[Tensor, "images 3 height width"]
    ) -> Float[Tensor, "images patches channels"]:
        """Return one token per patch, row by row."""
        config, like = self.config, self.enc_norm.weight
        grid = (images.shape[2] // config.patch_size, images.shape[3] // config.patch_size)
        head_dim = config.encoder_dim // config.encoder_heads
        positions = grid_rotary(grid, head_dim, config.rope_base, like.dtype, like.device)
        x = self.patch_embed(images).to(like.dtype)
        for block in self.enc_blocks:
            x = block(x, positions)
        return self.enc_norm(x)


class FusionDecoder(nn.Module):
    """Transformer over the tokens of all views; attention joins every token with every other."""

    def __init__(self, config: Fast3rConfig) -> None:
        super().__init__()
        self.config = config
        dim = config.decoder_dim
        gain = INFERENCE_GAIN if config.attn_bias_for_inference_enabled else 1.0
        self.decoder_embed = Linear(config.encoder_dim, dim)
        self.dec_blocks = nn.ModuleList(
            Block(dim, config.decoder_heads, config.mlp_ratio, eps=1e-5, gain=gain)
            for _ in range(config.decoder_depth)
        )
        self.dec_norm = LayerNorm(dim)

    def forward(
        self,
        features: Float[Tensor, "batch tokens encoder_channels"],
        of_view: Float[Tensor, "batch tokens channels"],
    ) -> Levels:
        """Return the four levels that the heads read; no other layer's output is kept.

        Args:
            features: tokens of all views, one after the other.
            of_view: for each token, the embedding of its view's index.
        """
        depth = self.config.decoder_depth
        x = self.decoder_embed(features) + of_view
        middle: dict[int, Tensor] = {}
        for layer, block in enumerate(self.dec_blocks, start=1):
            x = block(x)
            if layer in (depth * 2 // 4, depth * 3 // 4):
                middle[layer] = x
        return features, middle[depth * 2 // 4], middle[depth * 3 // 4], self.dec_norm(x)
