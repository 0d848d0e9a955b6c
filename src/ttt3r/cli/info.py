"""``ttt3r info``: what a run holds."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from ttt3r.cli.command import Command, Debug, Flag, duration_text, option, print_pairs
from ttt3r.files import bytes_text

if TYPE_CHECKING:
    from ttt3r.runs.reader import Run

MEANING = {
    "complete": "",
    "running": "being written, or its program was killed; --resume goes on",
    "interrupted": "stopped early; --resume goes on",
    "failed": "stopped by an error; --resume goes on once its cause is fixed",
}


@dataclass(frozen=True)
class InfoCommand(Command):
    """Say what a run holds: status, frames, model and licence, settings, trajectory, size."""

    run: Annotated[tyro.conf.Positional[Path], option("RUN")]
    """Folder that ttt3r run wrote."""

    json: Flag = False
    """Print JSON, for programs."""

    debug: Debug = False

    def main(self) -> int:
        """Print the summary."""
        from ttt3r.errors import RunError
        from ttt3r.files import to_json
        from ttt3r.runs.manifest import MANIFEST
        from ttt3r.runs.reader import Run

        run = Run.open(self.run)
        try:
            facts = summary(run)
            lines = _lines(facts)
        except (KeyError, TypeError, AttributeError) as error:
            raise RunError(
                f"{run.folder / MANIFEST} is damaged ({error!r}); process the input again"
            ) from error
        if self.json:
            print(to_json(facts, indent=2))
        else:
            print_pairs(lines)
        return 0


def summary(run: "Run") -> dict[str, Any]:
    """All that is known about a run, as JSON values.

    `duration` is the time between the first and the last frame in seconds; `trajectory_length` the
    way of the camera through the frames that have a pose, in metres if `scale` says so; both None
    if unknown. `scale` says whether lengths are metres, and why. `segments`: see
    `segment_scales`.
    """
    from ttt3r.runs.facts import is_metric, scale_text

    sizes = _sizes(run.folder)
    placement = run.placement
    return {
        "folder": str(run.folder),
        **{key: value for key, value in run.manifest.items() if key != "format"},
        "frames": len(run),
        "duration": _duration(run),
        "trajectory_length": trajectory_length(run),
        "segments": segment_scales(run),
        "scale": {
            "metric": is_metric(run.manifest, placement),
            "from": scale_text(run.manifest, placement),
        },
        "bytes": {**sizes, "total": sum(sizes.values())},
    }


def trajectory_length(run: "Run") -> float | None:
    """Length of the camera's way in the run's units; None if the run has no poses."""
    if "pose" not in run.manifest["outputs"] or len(run) == 0:
        return None
    positions = run.trajectory().world_from_camera[:, :3, 3].double()
    return float(positions.diff(dim=0).norm(dim=1).sum())


def segment_scales(run: "Run") -> dict[str, Any]:
    """How many segments a run has, and how the scale of lengths changes over them.

    `first` and `last` are the factors that lengths of these segments were multiplied with,
    `largest_ratio` that between any two segments, `last_error` the standard error of the logarithm
    of the last against the first; None where it is not known, or there is no segment.
    """
    found = run.scales()
    scales = [item.scale for item in found]
    return {
        "count": len(found),
        "first": scales[0] if found else None,
        "last": scales[-1] if found else None,
        "largest_ratio": max(scales) / min(scales) if found else None,
        "last_error": found[-1].error if found else None,
    }


def length_unit(run: "Run") -> str:
    """What lengths of this run are measured in."""
    from ttt3r.runs.facts import is_metric

    return "m" if is_metric(run.manifest, run.placement) else "units"


def _duration(run: "Run") -> float | None:
    """Seconds from the first to the last frame; None if there are no frames."""
    count = len(run)
    return run.stamp(count - 1) - run.stamp(0) if count else None


def _sizes(folder: Path) -> dict[str, int]:
    """Bytes on disk of each part of the run."""
    sizes: dict[str, int] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.name.startswith("."):
            part = path.relative_to(folder).parts[0]
            sizes[part] = sizes.get(part, 0) + path.stat().st_size
    return sizes


def _lines(facts: dict[str, Any]) -> list[tuple[str, str]]:
    model, source = facts["model"], facts["source"]
    meaning = MEANING.get(facts["status"], "")
    name = str(source.get("path") or source.get("kind"))
    trained = "" if model["trained"] else ", not trained: the output is not a reconstruction"
    lines = [
        ("run", facts["folder"]),
        ("status", facts["status"] + (f" ({meaning})" if meaning else "")),
        ("frames", f"{facts['frames']:,}"),
        ("model", f"{model['name']} by {model['origin']}{trained}"),
        ("licence", f"{model['licence']} (of the weights)"),
        ("rule", facts["rule"]),
        ("reset", facts["reset"]),
        ("stitch", facts["stitch"]),
        *([("poses", f"from {facts['pose_from']}")] if "pose_from" in facts else []),
        *([("refined", _refined_text(facts))] if facts.get("refine") else []),
        ("outputs", ", ".join(facts["outputs"])),
        ("image size", f"{facts['size']} pixels"),
        ("source", ", ".join([name, *source.get("arranged", [])])),
    ]
    if camera := source.get("intrinsics"):
        lines.append(("intrinsics", _camera_text(camera)))
    if facts["duration"] is not None:
        lines.append(("duration", duration_text(facts["duration"])))
    if facts["trajectory_length"] is not None:
        length = f"{facts['trajectory_length']:.3f} {'m' if facts['scale']['metric'] else 'units'}"
        lines.append(("path length", length))
    if (segments := facts["segments"])["count"] > 1:
        lines.append(("segments", _segments_text(segments)))
    lines.append(("scale", facts["scale"]["from"]))
    parts = ", ".join(f"{part} {bytes_text(size)}" for part, size in facts["bytes"].items())
    return [*lines, ("on disk", parts)]


def _refined_text(facts: dict[str, Any]) -> str:
    if "refined_frames" not in facts:
        return "poses, against key frames"
    return f"{facts['refined_frames']} of {facts['frames']} poses, against key frames"


def _segments_text(segments: dict[str, Any]) -> str:
    text = str(segments["count"])
    if segments["largest_ratio"] == 1.0:
        return f"{text}, all of one scale"
    error = segments["last_error"]
    sure = "" if error is None else f" (± {100 * error:.1f} %)"
    return (
        f"{text}, scale {segments['first']:.3f} in the first, {segments['last']:.3f}{sure} in the "
        f"last, at most {segments['largest_ratio']:.3f} times another"
    )


def _camera_text(camera: dict[str, Any]) -> str:
    """The known camera, as it was given."""
    numbers = " ".join(f"{name} {camera[name]:.12g}" for name in ("fx", "fy", "cx", "cy"))
    lens = ", undistorted" if any(camera["distortion"]) else ""
    return f"{numbers} (given{lens})"
