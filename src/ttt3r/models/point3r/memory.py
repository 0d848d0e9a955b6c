"""What Point3R remembers of a stream, and how frames enter its memory.

The memory is a list of pointers: points of the world, each with a feature. It grows with what the
stream has explored; a memory rule decides how the patches of a new frame join it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ttt3r import values
from ttt3r.errors import SessionError, SettingError
from ttt3r.masks import pick
from ttt3r.models.base import State

BLOCK = 4096  # pointers whose distances are held at a time


@dataclass(frozen=True)
class Pointers:
    """The pointers of each stream, padded with zeros to the longest stream of the batch.

    Attributes:
        positions: in the world, in the network's unit of length.
        features: what was seen there.
        count: pointers that each stream holds, on the CPU; the rows after them mean nothing.
    """

    positions: Float[Tensor, "batch pointers 3"]
    features: Float[Tensor, "batch pointers channels"]
    count: Int[Tensor, " batch"]

    @property
    def present(self) -> Bool[Tensor, "batch pointers"] | None:
        """Which rows hold a pointer; None if all do."""
        rows = torch.arange(self.positions.shape[1])
        if bool((self.count == len(rows)).all()):
            return None
        return (rows < self.count[:, None]).to(self.positions.device, non_blocking=True)


def choose(which: Bool[Tensor, " batch"], yes: Pointers, no: Pointers) -> Pointers:
    """Take the streams of `which` from `yes` and the others from `no`."""
    count = pick(which, yes.count, no.count)
    width = int(count.max())
    positions, features = (
        pick(which, _resize(a, width), _resize(b, width))
        for a, b in ((yes.positions, no.positions), (yes.features, no.features))
    )
    return Pointers(positions, features, count)


def _resize(rows: Float[Tensor, "batch rows _"], count: int) -> Float[Tensor, "batch count _"]:
    """Cut rows off the end, or add rows of zeros."""
    return rows if rows.shape[1] == count else F.pad(rows, (0, 0, 0, count - rows.shape[1]))


@dataclass(frozen=True)
class Point3rState(State):
    """All that Point3R remembers of a stream. It grows with the space that the stream explores.

    Attributes:
        positions: of the pointers, see `Pointers`.
        features: of the pointers.
        count: pointers that each stream holds, on the CPU.
        pose_memory: slots of the pose memory.
        patch_positions: place in the world of each patch of the last frame that was remembered;
            rows and columns are 0 before the first one.
        age: frames remembered since the segment began, on the CPU.
    """

    positions: Float[Tensor, "batch pointers 3"]
    features: Float[Tensor, "batch pointers channels"]
    count: Int[Tensor, " batch"]
    pose_memory: Float[Tensor, "batch slots wide"]
    patch_positions: Float[Tensor, "batch rows columns 3"]
    age: Int[Tensor, " batch"]

    grows: ClassVar[frozenset[str]] = frozenset({"positions", "features", "patch_positions"})
    on_host: ClassVar[frozenset[str]] = frozenset({"count", "age"})

    @property
    def pointers(self) -> Pointers:
        """The pointers alone."""
        return Pointers(self.positions, self.features, self.count)

    def with_tensors(self, named: Mapping[str, Tensor]) -> "Point3rState":
        """Return a state of this form filled with `named`, on this state's device.

        Raises:
            SessionError: if the tensors do not fit this model, or contradict each other.
        """
        own = self.to_tensors()
        if own.keys() == named.keys() and all(named[k].ndim == own[k].ndim for k in own):
            problem = self._contradiction(named)
            if problem:
                raise SessionError(
                    f"the saved state cannot be used: {problem}. The file is damaged, or was saved "
                    "with another model; start again, or load that model."
                )
        return super().with_tensors(named)

    def _contradiction(self, named: Mapping[str, Tensor]) -> str:
        """What is wrong with the sizes of tensors that grow, which the base leaves open; or ""."""
        positions, features, patches = (
            list(named[name].shape) for name in ("positions", "features", "patch_positions")
        )
        counts, ages = named["count"].tolist(), named["age"].tolist()
        channels = self.features.shape[-1]
        if [positions[-1], features[-1], patches[-1]] != [3, channels, 3]:
            return (
                f"positions {positions}, features {features} and patch_positions {patches} do not "
                f"end in 3, {channels} and 3"
            )
        if positions[1] != features[1] or max(counts, default=0) != positions[1]:
            return f"{positions[1]} positions, {features[1]} features and counts {counts} disagree"
        if len(counts) != len(ages) or any(
            count < 0 or (count > 0) != (age > 0) for count, age in zip(counts, ages, strict=True)
        ):
            return f"counts {counts} and ages {ages} disagree"
        if any(ages) and 0 in patches:
            return "the places of the last frame's patches are missing"
        return ""


@runtime_checkable
class MemoryRule(Protocol):
    """How the patches of a frame join the memory. Implementations are frozen dataclasses."""

    name: ClassVar[str]

    def remember(
        self,
        known: Pointers,
        positions: Float[Tensor, "batch patches 3"],
        features: Float[Tensor, "batch patches channels"],
    ) -> Pointers:
        """Return the pointers after a frame whose patches lie at `positions`; pure."""
        ...


@dataclass(frozen=True)
class Fuse(values.Value):
    """Patches near a pointer replace it; the others become pointers (the published rule).

    A patch is near its nearest pointer if that is closer than the diagonal of the box around all
    pointers and patches, divided by `units`. A pointer takes the mean position and the mean
    feature of the patches that chose it, and forgets its own. Patches of one frame are not
    compared with each other, and no pointer is ever removed (arXiv 2507.02863, "memory fusion
    mechanism").

    Args:
        units: cells along each side of the box, whose diagonal is the distance; 20 is published.

    Raises:
        SettingError: if `units` is below 1.
    """

    units: int = 20

    name: ClassVar[str] = "fuse"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.units < 1:
            raise SettingError(f"fuse needs at least 1 unit per side of the box, not {self.units}")

    def remember(
        self,
        known: Pointers,
        positions: Float[Tensor, "batch patches 3"],
        features: Float[Tensor, "batch patches channels"],
    ) -> Pointers:
        """Replace near pointers, then append what is left, in the order of the patches."""
        distance, nearest = nearest_pointers(positions, known)
        near = distance < self.threshold(known, positions)[:, None]
        count = known.count + (~near).sum(dim=1).cpu()  # the one value that a frame waits for
        row = torch.where(near, nearest, _rows_behind(known, ~near))
        return _write(known, positions, features, row, count)

    def threshold(
        self, known: Pointers, positions: Float[Tensor, "batch patches 3"]
    ) -> Float[Tensor, " batch"]:
        """Distance at which a patch no longer joins a pointer."""
        high = low = known.positions
        if (present := known.present) is not None:
            absent, inf = ~present[..., None], float("inf")
            high, low = high.masked_fill(absent, -inf), low.masked_fill(absent, inf)
        high = torch.cat((high, positions), dim=1).amax(1)
        low = torch.cat((low, positions), dim=1).amin(1)
        return torch.linalg.vector_norm((high - low) / self.units, dim=-1)


@dataclass(frozen=True)
class Append(values.Value):
    """Every patch of every frame becomes a pointer, as in the published first training stage."""

    name: ClassVar[str] = "append"

    def remember(
        self,
        known: Pointers,
        positions: Float[Tensor, "batch patches 3"],
        features: Float[Tensor, "batch patches channels"],
    ) -> Pointers:
        """Append all patches in order."""
        every = torch.ones(positions.shape[:2], dtype=torch.bool, device=positions.device)
        count = known.count + positions.shape[1]
        return _write(known, positions, features, _rows_behind(known, every), count)


MEMORY_RULES = values.Registry("memory rule", [Fuse, Append], default=Fuse())


def nearest_pointers(
    positions: Float[Tensor, "batch patches 3"], known: Pointers, block: int = BLOCK
) -> tuple[Float[Tensor, "batch patches"], Int[Tensor, "batch patches"]]:
    """Distance to the nearest pointer of each patch, and its row; infinity and 0 if there is none.

    Differences are squared directly: the expanded square, which is faster for many points, loses
    the small distances that decide. Of several nearest pointers the first is taken.

    Args:
        positions: of the patches.
        known: the pointers.
        block: pointers whose distances are held at a time.
    """
    distance = positions.new_full(positions.shape[:2], float("inf"))
    nearest = torch.zeros_like(distance, dtype=torch.int64)
    present = known.present
    for start in range(0, known.positions.shape[1], block):
        rows = slice(start, start + block)
        apart = torch.cdist(
            positions, known.positions[:, rows], compute_mode="donot_use_mm_for_euclid_dist"
        )
        if present is not None:
            apart = apart.masked_fill(~present[:, None, rows], float("inf"))
        least, row = apart.min(dim=-1)
        closer = least < distance
        distance = torch.where(closer, least, distance)
        nearest = torch.where(closer, row + start, nearest)
    return distance, nearest


def _rows_behind(
    known: Pointers, chosen: Bool[Tensor, "batch patches"]
) -> Int[Tensor, "batch patches"]:
    """Row of each chosen patch if these are put behind each stream's pointers, in order."""
    before = known.count[:, None].to(chosen.device, non_blocking=True)
    return before + chosen.cumsum(dim=1) - 1


def _write(
    known: Pointers,
    positions: Float[Tensor, "batch patches 3"],
    features: Float[Tensor, "batch patches channels"],
    row: Int[Tensor, "batch patches"],
    count: Int[Tensor, " batch"],
) -> Pointers:
    """Give each row the mean of the patches that go there; the others keep what they have.

    Args:
        known: the pointers before.
        positions: of the patches.
        features: of the patches.
        row: where each patch goes.
        count: pointers of each stream afterwards.
    """
    width = int(count.max())
    hits = positions.new_zeros(len(row), width).scatter_add(
        1, row, torch.ones_like(row, dtype=positions.dtype)
    )[..., None]

    def mean(old: Tensor, new: Tensor) -> Tensor:
        total = new.new_zeros(len(new), width, new.shape[2])
        total = total.scatter_add(1, row[..., None].expand_as(new), new)
        return torch.where(hits > 0, total / hits.clamp(min=1), _resize(old, width))

    return Pointers(mean(known.positions, positions), mean(known.features, features), count)
