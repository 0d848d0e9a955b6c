"""Exact predictions of a rendered room, shared by the tests of formats."""

from functools import cache

import torch

from ttt3r.geometry.camera import unproject
from ttt3r.geometry.se3 import invert
from ttt3r.scenes import Clip, SceneOptions, make_clip
from ttt3r.types import Prediction

SIZE = (48, 64)


@cache
def clip() -> Clip:
    return make_clip(3, 8, SIZE, SceneOptions(world="room", moving=0.0))


def room() -> list[Prediction]:
    """What a perfect network would say; the world is the first camera."""
    seen = clip()
    first = invert(seen.world_from_camera[0])
    return [
        Prediction(
            index=index,
            timestamp=index / 10,
            image=seen.image[index],
            points=unproject(seen.depth[index], seen.intrinsics[index]),
            confidence=torch.where(seen.valid[index], 3.0, 1.0),
            world_from_camera=first @ seen.world_from_camera[index],
            intrinsics=seen.intrinsics[index],
        )
        for index in range(len(seen))
    ]
