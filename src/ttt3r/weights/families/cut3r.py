"""CUT3R weights; `shapes` and `constructor` read their configuration."""

import logging

from torch import Tensor

from ttt3r.models.cut3r import Cut3r
from ttt3r.models.cut3r_config import Cut3rConfig
from ttt3r.types import ImagePolicy
from ttt3r.weights.constructor import config_from_checkpoint
from ttt3r.weights.families.base import Family, Published, points_output, pose_output
from ttt3r.weights.shapes import Shapes, check_config

logger = logging.getLogger("ttt3r.weights")


def _configure(shapes: Shapes, published: Published) -> Cut3rConfig:
    return config_from_checkpoint(shapes, published.model_string)


def _policy(config: Cut3rConfig) -> ImagePolicy:
    return ImagePolicy(config.image_size, config.patch_size)


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


CUT3R = Family(
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
    configure=_configure,
    check=check_config,
    policy=_policy,
    outputs=(
        pose_output(r"downstream_head\.pose_head\.mlp\.fc2"),
        points_output(r"downstream_head\.(dpt_(self|cross)\.head\.4|(cross_)?proj\.fc2)"),
    ),
    complete=_complete,
)
