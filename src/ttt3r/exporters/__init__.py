"""Writing predictions in the formats of other programs.

A new format is one file beside these and one line in `EXPORTERS`, from which the command line takes
its choices and options. See `Exporter` for what an exporter is.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from ttt3r.errors import RunError, SettingError
from ttt3r.exporters.base import Exporter, Option
from ttt3r.exporters.colmap import write_colmap
from ttt3r.exporters.depth import write_depth
from ttt3r.exporters.glb import write_glb
from ttt3r.exporters.html import write_html
from ttt3r.exporters.mesh import write_mesh
from ttt3r.exporters.nerfstudio import write_nerfstudio
from ttt3r.exporters.ply import write_ply
from ttt3r.exporters.rrd import write_rrd
from ttt3r.exporters.summary import write_summary
from ttt3r.exporters.target import target
from ttt3r.exporters.trajectories import write_euroc, write_kitti, write_tum
from ttt3r.exporters.video import write_video
from ttt3r.files import user_path
from ttt3r.runs.reader import Run
from ttt3r.types import Prediction


def always(path: Path) -> bool:
    """Of `Exporter.y_down`: whatever is written."""
    return True


def is_gltf(path: Path) -> bool:
    """Of `Exporter.y_down`: of glTF, whose y is up."""
    return path.suffix.lower() == ".glb"


EXPORTERS: dict[str, Exporter] = {
    "tum": Exporter(write_tum, "the trajectory as text"),
    "kitti": Exporter(write_kitti, "the trajectory as matrices", suffix=".txt"),
    "euroc": Exporter(write_euroc, "the trajectory as CSV", suffix=".csv"),
    "ply": Exporter(write_ply, "a coloured point cloud"),
    "html": Exporter(write_html, "one page to look at and to send", needs_run=True, y_down=always),
    "colmap": Exporter(
        write_colmap, "cameras, points with tracks, images", folder=True, needs_run=True
    ),
    "nerfstudio": Exporter(
        write_nerfstudio, "transforms.json, images, depth, points", folder=True, needs_run=True
    ),
    "glb": Exporter(write_glb, "a thinned cloud with cameras", y_down=always),
    "mesh": Exporter(write_mesh, "a triangle mesh", suffix="-mesh.ply", y_down=is_gltf),
    "depth": Exporter(write_depth, "a folder of depth maps", folder=True),
    "video": Exporter(write_video, "image, depth and confidence side by side", suffix=".mp4"),
    "rrd": Exporter(write_rrd, "a recording for Rerun", y_down=always),
    "summary": Exporter(
        write_summary, "the run in one picture", needs_run=True, suffix=".png", y_down=always
    ),
}


class Written(NamedTuple):
    """A file or folder that was exported, and what it holds in a few words."""

    path: Path
    what: str


def export(
    predictions: Iterable[Prediction],
    format: str,
    path: str | Path,
    *,
    overwrite: bool = False,
    done: Callable[[int], object] = lambda frames: None,
    **options: Any,
) -> Written:
    """Write predictions in another format; `path` appears once all of it is written.

    Args:
        predictions: a `Run`, or any iterable of predictions, which is gone through once.
        format: one of `EXPORTERS`.
        path: file, or folder for formats that are one, to write; folders on the way are made.
        overwrite: replace what is there. A folder is replaced only if it holds an earlier export
            and nothing else.
        done: called with the number of frames read so far. An error that it raises ends the export,
            and nothing is written.
        options: of the format; see its exporter.

    Returns:
        The path written, and what was written.

    Raises:
        SettingError: if the format or an option is unknown or makes no sense.
        RunError: if the predictions lack what the format needs, or `path` exists or cannot be
            written.
        MissingExtraError: if the format needs a package that is not installed.
    """
    exporter = EXPORTERS.get(format)
    if exporter is None:
        raise SettingError(f"unknown format {format!r}; choose one of: {', '.join(EXPORTERS)}")
    exporter.check_names(format, options)
    path = user_path(path)
    if isinstance(predictions, Run) and exporter.y_down(path):
        predictions = predictions.upright()
    watched = _watched(predictions, format, exporter, done)
    try:
        with target(path, format, folder=exporter.folder, overwrite=overwrite) as place:
            what = exporter.write(watched, place, **options)
    except OSError as error:
        raise RunError(
            f"cannot write {path}: {error.strerror or error}. Make room or fix the permissions, or "
            "choose another place."
        ) from error
    return Written(path, what)


def _watched(
    predictions: Iterable[Prediction],
    format: str,
    exporter: Exporter,
    done: Callable[[int], object],
) -> Iterable[Prediction]:
    """The same predictions, at least one; `done` is called after each has been used."""
    if exporter.needs_run:
        if not isinstance(predictions, Run):
            raise SettingError(
                f"the format {format} needs a run, which knows what it was made from: give "
                "Run.open(FOLDER)"
            )
        if len(predictions) == 0:
            raise _no_frames()
        return _WatchedRun(predictions, done)
    coming = iter(predictions)
    first = next(coming, None)
    if first is None:
        raise _no_frames()
    return _counted(chain([first], coming), done)


class _WatchedRun(Run):
    """A run that tells how far somebody has gone through it."""

    def __init__(self, run: Run, done: Callable[[int], object]) -> None:
        super().__init__(run.folder, run.manifest, run.placement)
        self._known = run._known
        self._done = done

    def __iter__(self) -> Iterator[Prediction]:
        return _counted(super().__iter__(), self._done)

    def stored(self) -> Iterator[Prediction]:
        return _counted(super().stored(), self._done)


def _counted(
    predictions: Iterable[Prediction], done: Callable[[int], object]
) -> Iterator[Prediction]:
    for number, prediction in enumerate(predictions, 1):
        yield prediction
        done(number)


def _no_frames() -> RunError:
    return RunError("the run holds no frames yet, so there is nothing to write")


__all__ = ["EXPORTERS", "Exporter", "Option", "Written", "export"]
