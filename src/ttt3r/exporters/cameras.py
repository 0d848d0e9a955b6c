"""Intrinsics of the frames of a run: each its own, or one for all images of the same size."""

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
from jaxtyping import Float

from ttt3r.errors import RunError, SettingError
from ttt3r.exporters.placed import is_placed
from ttt3r.runs.frame_file import read_intrinsics
from ttt3r.runs.reader import Run, frame_path
from ttt3r.types import ImageTransform, Prediction

Matrix = Float[np.ndarray, "3 3"]


@dataclass(frozen=True)
class Cameras:
    """Which intrinsics a frame has.

    Attributes:
        shared: those of all images that have this (width, height) before they are resized and cut,
            in their pixels; frames of which the run does not know that are under None, in
            processed pixels. None: each frame has its own.
    """

    shared: dict[tuple[int, int] | None, Matrix] | None = None
    _processed: dict[ImageTransform, Matrix] = field(default_factory=dict, compare=False)

    @staticmethod
    def own() -> "Cameras":
        """Each frame has its own."""
        return Cameras()

    @staticmethod
    def of(run: Run) -> "Cameras":
        """The median over all frames, for each size of images.

        Raises:
            RunError: if a frame has no intrinsics.
        """
        found: dict[ImageTransform | None, array[float]] = {}
        for index in range(len(run)):
            transform, intrinsics = read_intrinsics(frame_path(run.folder, index))
            if intrinsics is None:
                raise _no_intrinsics(index)
            found.setdefault(transform, array("d")).extend(intrinsics.flatten().tolist())
        of_size: dict[tuple[int, int] | None, list[np.ndarray]] = {}
        for transform, numbers in found.items():
            together = np.array(numbers).reshape(-1, 3, 3)
            placed = together[np.isfinite(together).all(axis=(1, 2))]
            size = None if transform is None else transform.original_size
            if len(placed):
                of_size.setdefault(size, []).append(_original_from(transform) @ placed)
        return Cameras(
            {size: np.median(np.concatenate(all_), axis=0) for size, all_ in of_size.items()}
        )

    def intrinsics(self, prediction: Prediction) -> Matrix:
        """Those of a frame, in pixels of the processed image; the same array for the same camera.

        Raises:
            RunError: if the frame has none.
        """
        if prediction.intrinsics is None:
            raise _no_intrinsics(prediction.index)
        transform = prediction.transform
        size = None if transform is None else transform.original_size
        if self.shared is None or size not in self.shared:
            return prediction.intrinsics.double().numpy()
        shared = self.shared[size]
        if transform is None:
            return shared
        if transform not in self._processed:
            self._processed[transform] = transform.processed_from_original @ shared
        return self._processed[transform]


def checked_camera(camera: str, **counts: int) -> None:
    """Refuse senseless options that formats with cameras have.

    Raises:
        SettingError: if `camera` is none of the choices, or a count is below 1.
    """
    if camera not in ("shared", "per-image"):
        raise SettingError(f"camera is shared or per-image, not {camera!r}")
    for name, value in counts.items():
        if not isinstance(value, int) or value < 1:
            raise SettingError(f"{name} must be a whole number, at least 1, not {value!r}")


def placed_frames(run: Run, every: int, left_out: list[int]) -> Iterator[Prediction]:
    """Every n-th frame as it is stored, see `Run.stored`.

    Frames that could not be placed are left out, and their indices noted.
    """
    for prediction in islice(run.stored(), 0, None, every):
        if is_placed(prediction):
            yield prediction
        else:
            left_out.append(prediction.index)


def _original_from(transform: ImageTransform | None) -> Matrix:
    return np.eye(3) if transform is None else np.linalg.inv(transform.processed_from_original)


def _no_intrinsics(index: int) -> RunError:
    return RunError(
        f"frame {index} of this run has no intrinsics; run again with the outputs 'points' and "
        "'pose'"
    )
