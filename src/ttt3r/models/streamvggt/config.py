"""Sizes and options of a StreamVGGT network: those of VGGT."""

from dataclasses import dataclass, fields
from typing import Literal

from ttt3r.models.vggt import config as vggt
from ttt3r.types import Preparation


@dataclass(frozen=True)
class StreamVggtConfig(vggt.VggtConfig):
    """Everything that decides the shapes and the arithmetic of a StreamVGGT network.

    Attributes:
        camera_cache: what the camera head reads of past frames at each of its iterations.

            "consistent" (the default): what they wrote at the same iteration. A stream then gives
            the poses of the causal pass over all frames that the network was trained with, and the
            poses do not depend on how the frames arrive.

            "released": what they wrote at every iteration, and what this frame wrote at earlier
            ones, as the published streaming code does. Training never saw such a mixture, and
            poses differ from those of the causal pass from the first frame on; use it to reproduce
            published figures.

    Raises:
        SettingError: if a value cannot be used, or values do not fit each other.
    """

    camera_cache: Literal["consistent", "released"] = "consistent"

    @property
    def preparation(self) -> Preparation:
        """How images are prepared: by their longer side, as in the released evaluation."""
        return Preparation(self.image_size, self.patch_size)


TINY = StreamVggtConfig(**{item.name: getattr(vggt.TINY, item.name) for item in fields(vggt.TINY)})
