"""Writing runs in the formats of other programs.

A new format is one file beside these and one line in `EXPORTERS`. An exporter is a function
``(run, path, *, option=default, …) -> str``: it writes `path` atomically, keeps at most one frame
in memory, and returns what it wrote in a few words, such as "1,204 points".
"""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from ttt3r.errors import RunError, SettingError
from ttt3r.export.ply import write_ply
from ttt3r.export.tum import write_tum
from ttt3r.stream.run import Run

EXPORTERS: dict[str, Callable[..., str]] = {
    "tum": write_tum,
    "ply": write_ply,
}


class Written(NamedTuple):
    """A file that was exported, and what it holds in a few words."""

    path: Path
    what: str


def export(run: Run, format: str, path: str | Path, **options: Any) -> Path:
    """Write a run in another format, replacing the file at `path` once the new one is complete.

    Args:
        run: the run; if it is still being written, the frames that are complete.
        format: one of `EXPORTERS`.
        path: file to write; folders on the way are made.
        options: of the format; see its exporter.

    Returns:
        The path written.

    Raises:
        SettingError: if the format or an option is unknown or makes no sense.
        RunError: if the run lacks what the format needs, or the file cannot be written.
    """
    return write(run, format, path, **options).path


def write(run: Run, format: str, path: str | Path, **options: Any) -> Written:
    """Do the same as `export`, and also say what was written."""
    exporter = EXPORTERS.get(format)
    if exporter is None:
        raise SettingError(f"unknown format {format!r}; choose one of: {', '.join(EXPORTERS)}")
    _check_names(format, exporter, options)
    if len(run) == 0:
        raise RunError(f"the run in {run.folder} holds no frames yet, so there is nothing to write")
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return Written(path, exporter(run, path, **options))
    except OSError as error:
        raise RunError(
            f"cannot write {path}: {error.strerror or error}. Make room or fix the permissions, or "
            "choose another file."
        ) from error


def _check_names(format: str, exporter: Callable[..., str], options: dict[str, Any]) -> None:
    known = [
        name
        for name, parameter in inspect.signature(exporter).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    ]
    unknown = [name for name in options if name not in known]
    if unknown:
        raise SettingError(
            f"the format {format} has no option {', '.join(unknown)}; "
            f"it takes {', '.join(known) or 'none'}"
        )


__all__ = ["EXPORTERS", "Written", "export", "write", "write_ply", "write_tum"]
