"""What all networks have in common, whatever their family."""

from typing import Any, ClassVar, TypeVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ttt3r.errors import SettingError
from ttt3r.models.base import Capabilities, SetModel, StreamModel, Views, WeightsInfo, only_images
from ttt3r.nn.layers import cast_products

# `typing.Self` cannot be checked by beartype on single methods, hence the variable.
AnyNetwork = TypeVar("AnyNetwork", bound="Network")


class Network(nn.Module):
    """Base of all networks.

    Parameters carry the published names, so released weights load key for key.

    Attributes:
        config: sizes and options, a `NetworkConfig`.
        capabilities: what the network can give.
        preparation: how images are prepared for it.
        weights: what its weights are.
        exact: names of the parts that `set_precision` leaves alone.
    """

    capabilities = Capabilities()
    exact: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
        self.preparation = config.preparation
        self.weights = WeightsInfo("unnamed", "unknown", "unknown", "", trained=False)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def set_precision(self: AnyNetwork, dtype: torch.dtype) -> AnyNetwork:
        """Run the products of encoder and decoders in `dtype`. Returns self.

        States, memories, the residual stream, position embeddings, normalisation and heads stay
        float32.
        """
        parts = self.named_children()
        cast_products((part for name, part in parts if name not in self.exact), dtype)
        return self

    def grid(self, size: tuple[int, int]) -> tuple[int, int]:
        """(rows, columns) of patches of an image of `size`, which is (height, width) in pixels."""
        return size[0] // self.config.patch_size, size[1] // self.config.patch_size

    def check_size(self, size: tuple[int, int]) -> None:
        """Refuse images whose (height, width) are not multiples of the patch.

        Raises:
            SettingError: if they are not.
        """
        patch = self.config.patch_size
        if min(size) < patch or size[0] % patch or size[1] % patch:
            raise SettingError(
                f"the network takes sides that are multiples of {patch} pixels, not "
                f"{size[1]}x{size[0]}; prepare images with ttt3r.sources.prepare first"
            )

    def presence(
        self, content: Tensor | None, mask: Bool[Tensor, " batch"] | None, batch: int
    ) -> Bool[Tensor, " batch"]:
        """Which samples have `content`, on the CPU; without a mask, all or none."""
        if content is None or mask is None:
            return torch.full((batch,), content is not None)
        return mask.cpu()

    def images_of(
        self, views: Views
    ) -> tuple[Float[Tensor, "batch 3 height width"], tuple[int, int], Bool[Tensor, " batch"]]:
        """Return the images of views, their size, and which samples have one.

        Raises:
            SettingError: if there is no image, there are ray maps, or the size does not fit.
        """
        image = only_images(views)
        size = (image.shape[2], image.shape[3])
        self.check_size(size)
        return image, size, self.presence(image, views.has_image, len(image))


class StreamNetwork(Network, StreamModel):
    """A network that carries a state from frame to frame."""


class SetNetwork(Network, SetModel):
    """A network that looks at all views of a set at once."""
