"""CUT3R weights; `published` reads their configuration."""

import logging

from torch import Tensor

from ttt3r.models.cut3r.config import TINY_DPT, TINY_LINEAR, Cut3rConfig
from ttt3r.models.cut3r.network import Cut3r
from ttt3r.models.cut3r.published import NETWORK_CLASS, found_sizes, stated_sizes, untold_sizes
from ttt3r.models.family import Family, Tiny, points_output, pose_output

logger = logging.getLogger("ttt3r.weights")


def _complete(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Start the state's decoder from the image's where a checkpoint is older than the former."""
    has_state_decoder = any(key.startswith("dec_blocks_state.") for key in tensors)
    image_decoder = {key: item for key, item in tensors.items() if key.startswith("dec_blocks.")}
    if has_state_decoder or not image_decoder:
        return tensors
    logger.warning("the weights have no state decoder; it starts as a copy of the image's")
    copies = {
        key.replace("dec_blocks.", "dec_blocks_state.", 1): tensor.clone()
        for key, tensor in image_decoder.items()
    }
    return tensors | copies


FAMILY = Family(
    name="cut3r",
    title="CUT3R",
    config=Cut3rConfig,
    network=Cut3r,
    marks=(
        "register_tokens.",
        "patch_embed_ray_map.",
        "enc_blocks_ray_map.",
        "enc_norm_ray_map.",
        "masked_img_token",
        "masked_ray_map_token",
        "decoder_embed_state.",
        "dec_blocks_state.",
        "dec_norm_state.",
    ),
    found=found_sizes,
    needed=("encoder_dim", "encoder_depth", "decoder_dim", "decoder_depth", "state_size", "head"),
    stated=stated_sizes,
    untold=untold_sizes,
    tiny=(
        Tiny("tiny-dpt", "Random weights for tests, with DPT heads.", TINY_DPT),
        Tiny("tiny-linear", "Random weights for tests, with linear heads.", TINY_LINEAR),
    ),
    outputs=(
        pose_output(r"downstream_head\.pose_head\.mlp\.fc2"),
        points_output(r"downstream_head\.(dpt_(self|cross)\.head\.4|(cross_)?proj\.fc2)"),
    ),
    complete=_complete,
    constructor=NETWORK_CLASS,
)
