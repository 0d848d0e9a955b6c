"""Sequences that are in memory."""

import numpy as np

from ttt3r.evaluation.sequences import Sequence, TrueFrame, known


def array_sequence(name, image, depth=None, world_from_camera=None, intrinsics=None) -> Sequence:
    """A sequence of arrays, one entry a frame; frame i has the time i seconds.

    A pose that is not finite is unknown.
    """

    def frame(i: int) -> TrueFrame:
        return TrueFrame(
            image=image[i],
            timestamp=float(i),
            depth=None if depth is None else depth[i].astype(np.float32),
            world_from_camera=None if world_from_camera is None else known(world_from_camera[i]),
            intrinsics=None if intrinsics is None else intrinsics[i],
        )

    return Sequence(name, range(len(image)), frame)
