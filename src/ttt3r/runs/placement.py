"""Where a finished run was moved: corrected segments, and a similarity of the whole.

Frames on disk stay as the stream gave them. `Run` moves each one as it is read, so that exports,
pictures and viewers all show the corrected run.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ttt3r.errors import RunError
from ttt3r.files import to_json, write_atomically, write_text
from ttt3r.geometry import se3
from ttt3r.types import Prediction

PLACEMENT = "placement.json"
FORMAT = 1


@dataclass(frozen=True)
class Placement:
    """How a run is moved.

    Attributes:
        segments: one similarity for each segment, float64 [4, 4]: where the segment belongs in the
            run's world, from where the stream placed it. Segments beyond the last one stay.
        segments_text: how the segments were corrected, for people; "" if they were not.
        world: similarity that moves the whole run after that, float64 [4, 4].
        world_text: how the run was moved as a whole, for people; "" if it was not.
        metric: whether the run's lengths are metres because of `world`; None if `world` says
            nothing about lengths, and the weights decide.
        up: unit vector that points up in the moved world; None: what was up for the first camera.
    """

    segments: tuple[Float[Tensor, "4 4"], ...] = ()
    segments_text: str = ""
    world: Float[Tensor, "4 4"] | None = None
    world_text: str = ""
    metric: bool | None = None
    up: tuple[float, float, float] | None = None

    def of(self, segment: int) -> Float[Tensor, "4 4"] | None:
        """Return the similarity that moves a segment; None if it stays."""
        corrected = self.segments[segment] if segment < len(self.segments) else None
        if corrected is None or self.world is None:
            return self.world if corrected is None else corrected
        return self.world @ corrected

    def move(self, prediction: Prediction) -> Prediction:
        """Return a prediction in its corrected place, with lengths in the corrected unit."""
        similarity = self.of(prediction.segment)
        if similarity is None:
            return prediction
        scale = float(se3.similarity_scale(similarity))
        points, world, pose = (
            prediction.points,
            prediction.world_points,
            prediction.world_from_camera,
        )
        return replace(
            prediction,
            points=None if points is None else points * scale,
            world_points=None if world is None else se3.apply(similarity.to(world), world),
            world_from_camera=None if pose is None else self.move_pose(prediction.segment, pose),
            scale=prediction.scale * scale,
        )

    def move_pose(self, segment: int, pose: Float[Tensor, "4 4"]) -> Float[Tensor, "4 4"]:
        """Return the corrected pose of a camera; its type stays."""
        similarity = self.of(segment)
        if similarity is None:
            return pose
        return se3.place_camera(similarity.to(pose.device), pose.double()).to(pose.dtype)

    @property
    def scale(self) -> float:
        """What `world` multiplies lengths by."""
        return 1.0 if self.world is None else float(se3.similarity_scale(self.world))

    @property
    def is_aligned(self) -> bool:
        """Whether known positions say where the run is; its text begins with "aligned" then."""
        return self.world is not None and self.world_text.startswith("aligned")

    @property
    def turn_upright(self) -> Float[Tensor, "4 4"]:
        """The shortest turn of the moved world after which y points down, as in the run's own.

        Programs that show a run, and formats with a fixed up, count on that.
        """
        if self.world is None:
            return torch.eye(4, dtype=torch.float64)
        if self.up is None:
            down = self.world[:3, 1] / se3.similarity_scale(self.world)
        else:
            down = -torch.tensor(self.up, dtype=torch.float64)
        return se3.assemble(_shortest_turn(down), torch.zeros(3).double())

    def upright(self) -> "Placement":
        """Return the placement after `turn_upright`."""
        if self.world is None:
            return self
        return replace(self, world=self.turn_upright @ self.world, up=(0.0, -1.0, 0.0))

    @classmethod
    def read(cls, folder: Path) -> "Placement":
        """Read the placement of the run in `folder`; one that moves nothing if there is none.

        Raises:
            RunError: if it is damaged, or this version cannot read it.
        """
        path = folder / PLACEMENT
        try:
            said = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return cls()
        except (OSError, ValueError) as error:
            raise _damaged(path, error) from error
        try:
            if said["format"] != FORMAT:
                raise ValueError(f"it has format {said['format']}; this version reads {FORMAT}")
            world, metric = said["world"], said["metric"]
            if metric not in (None, True, False):
                raise ValueError(f"metric is {metric!r}")
            up = said.get("up")
            return cls(
                tuple(_similarity(matrix) for matrix in said["segments"]),
                str(said["segments_text"]),
                None if world is None else _similarity(world),
                str(said["world_text"]),
                metric,
                None if up is None else _direction(up),
            )
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise _damaged(path, error) from error

    def write(self, folder: Path) -> None:
        """Write the placement of the run in `folder`, atomically.

        Raises:
            OSError: if it cannot be written.
        """
        said = {
            "format": FORMAT,
            "segments": [matrix.tolist() for matrix in self.segments],
            "segments_text": self.segments_text,
            "world": None if self.world is None else self.world.tolist(),
            "world_text": self.world_text,
            "metric": self.metric,
            "up": self.up,
        }
        text = to_json(said, indent=2) + "\n"
        write_atomically(folder / PLACEMENT, lambda path: write_text(path, text), sync=True)


def _similarity(matrix: Any) -> Float[Tensor, "4 4"]:
    """Read [[s R, t], [0, 1]].

    Raises:
        ValueError: if it is not a similarity.
    """
    similarity = torch.tensor(matrix, dtype=torch.float64)
    if similarity.shape != (4, 4) or not bool(similarity.isfinite().all()):
        raise ValueError("a matrix is not 4x4, or not finite")
    scale = float(se3.similarity_scale(similarity))
    rotation = similarity[:3, :3] / scale if scale > 0 else torch.zeros(3, 3, dtype=torch.float64)
    # Written with all digits; what was computed in float32 is orthogonal to about 1e-6.
    right = torch.allclose(rotation @ rotation.mT, torch.eye(3).double(), atol=1e-5)
    if not right or float(rotation.det()) < 0 or similarity[3].tolist() != [0, 0, 0, 1]:
        raise ValueError("a matrix is not a rotation, a scale and a shift")
    return similarity


def _direction(numbers: Any) -> tuple[float, float, float]:
    """Read a unit vector.

    Raises:
        ValueError: if it is not one.
    """
    x, y, z = map(float, numbers)
    if not abs(x * x + y * y + z * z - 1) < 1e-5:
        raise ValueError("up is not a unit vector")
    return x, y, z


def _shortest_turn(down: Float[Tensor, "3"]) -> Float[Tensor, "3 3"]:
    """The rotation by the smallest angle that brings a unit vector to the y axis.

    I + [v]× + [v]×² / (1 + c), where v is the vector product of both and c their scalar product.
    """
    c = float(down[1])
    if c < -1 + 1e-12:  # half a turn, about x for want of a shortest way
        return torch.diag(torch.tensor([1.0, -1.0, -1.0])).double()
    x, _, z = (float(number) for number in down)
    rows = [[0.0, -x, 0.0], [x, 0.0, z], [0.0, -z, 0.0]]
    cross = torch.tensor(rows, dtype=torch.float64)
    return torch.eye(3).double() + cross + cross @ cross / (1 + c)


def _damaged(path: Path, reason: object) -> RunError:
    return RunError(f"{path} is damaged ({reason}); delete it to use the run as it was made")
