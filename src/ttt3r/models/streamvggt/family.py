"""StreamVGGT weights: a flat state dict of the same names as VGGT's."""

from dataclasses import replace

from ttt3r.models import vggt
from ttt3r.models.family import Tiny
from ttt3r.models.streamvggt.config import TINY, StreamVggtConfig
from ttt3r.models.streamvggt.network import StreamVggt

FAMILY = replace(
    vggt.FAMILY,
    name="streamvggt",
    title="StreamVGGT",
    config=StreamVggtConfig,
    network=StreamVggt,
    tiny=(Tiny("tiny-streamvggt", "Random weights for tests of streams.", TINY),),
)
