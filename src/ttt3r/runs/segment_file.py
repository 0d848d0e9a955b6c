"""What a network remembered at the end of a segment: a file beside the frames of a run."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ttt3r.errors import RunError
from ttt3r.tensor_files import read_tensors, write_tensors

SEGMENTS = "segments"
# More segments, and larger states, are made again from the frames where they are needed.
MOST_KEPT, LARGEST_KEPT = 256, 64_000_000
_PLACE = "world_from_segment"


@dataclass(frozen=True)
class _Header:
    """What a file says of itself: the segment's number, and what its state belongs to."""

    segment: int
    sha256: str
    rule: str


def segment_path(folder: Path, segment: int) -> Path:
    """Where the state at the end of a segment is stored."""
    return folder / SEGMENTS / f"{segment:03d}.safetensors"


def write_segment(
    path: Path,
    segment: int,
    state: Mapping[str, Tensor],
    world_from_segment: Tensor,
    sha256: str,
    rule: str,
) -> None:
    """Write the state at the end of a segment atomically.

    Args:
        path: the file, see `segment_path`.
        segment: its number.
        state: tensors by name.
        world_from_segment: similarity that places the segment, float64 [4, 4].
        sha256: of the weights.
        rule: how the state was updated, as text.

    Raises:
        OSError: if the file cannot be written.
    """
    path.parent.mkdir(exist_ok=True)
    tensors = {f"state.{name}": item for name, item in state.items()}
    write_tensors(path, tensors | {_PLACE: world_from_segment}, _Header(segment, sha256, rule))


def read_segment(
    folder: Path, segment: int, sha256: str, rule: str
) -> tuple[dict[str, Tensor], Tensor] | None:
    """Read what `write_segment` wrote: the state's tensors, and the segment's place.

    Returns:
        None if there is no such file, or it is from other weights or another rule.

    Raises:
        RunError: if it is damaged.
    """
    path = segment_path(folder, segment)
    if not path.exists():
        return None
    try:
        header, tensors = read_tensors(path, _Header)
        if header != _Header(segment, sha256, rule):
            return None
        place = tensors.pop(_PLACE)
    except (KeyError, ValueError) as error:
        raise RunError(f"{path} is damaged ({error}); delete it, it is made again") from error
    return {name.removeprefix("state."): item for name, item in tensors.items()}, place
