"""What the manifest of a run holds, as types: the reader checks them, and the schema shows them."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal, Required, TypedDict

import msgspec
from msgspec import Meta

from ttt3r.errors import RunError
from ttt3r.types import PoseFrom

MANIFEST = "manifest.json"
FORMAT = 1


class Weights(TypedDict, total=False):
    """The weights that a run was made with."""

    name: Annotated[str, Meta(description="as `ttt3r models` lists them, or of the file")]
    sha256: Annotated[str, Meta(description="of their file")]
    licence: Annotated[str, Meta(description="of the weights")]
    origin: Annotated[str, Meta(description="who made them")]
    trained: Annotated[bool, Meta(description="whether they were trained at all")]
    metric: Annotated[bool, Meta(description="whether lengths are metres by these weights")]


class Manifest(TypedDict, total=False):
    """What was run on what, with which settings, and how it ended."""

    format: Required[Annotated[Literal[1], Meta(description="readers refuse other formats")]]
    status: Annotated[
        Literal["running", "complete", "interrupted", "failed"],
        Meta(description="`running` without a process that writes means that it was killed"),
    ]
    model: Annotated[Weights, Meta(description="the weights")]
    rule: Annotated[str, Meta(description="the update rule, for example `damped(ttt3r, 0.5)`")]
    reset: Annotated[str, Meta(description="when a segment ends, for example `every(100)`")]
    stitch: Annotated[str, Meta(description="how segments are joined, for example `pose`")]
    outputs: Annotated[list[str], Meta(description="what was computed")]
    size: Annotated[int, Meta(description="longer image side in pixels", ge=1)]
    trace: Annotated[bool, Meta(description="whether the run holds a trace; absent if not")]
    pose_from: Annotated[
        PoseFrom, Meta(description="where poses come from; absent if from the pose head")
    ]
    refine: Annotated[
        bool, Meta(description="whether poses were refined against key frames; absent if not")
    ]
    refined_frames: Annotated[
        int, Meta(description="number of frames whose pose was refined", ge=0)
    ]
    source: Annotated[
        dict[str, Any],
        Meta(
            description="the input: `kind` (`video`, `images`, `pages`, `frames`, or that of a "
            "source of your own), `path`, and the settings of that kind"
        ),
    ]
    versions: Annotated[dict[str, str], Meta(description="of ttt3r and torch")]


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read the manifest of a run; keys that `Manifest` does not know stay in it.

    Raises:
        RunError: if there is none, it is damaged, or this version cannot read it.
    """
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunError(
            f"{folder} is not a run: it holds no {MANIFEST}. Give the folder that "
            "`ttt3r run … --out FOLDER` wrote."
        ) from None
    except (OSError, ValueError) as error:
        raise RunError(f"cannot read {path}: {error}") from error
    found = manifest.get("format") if isinstance(manifest, dict) else None
    if found != FORMAT:
        raise RunError(f"{path} has format {found}; this version of ttt3r reads {FORMAT}")
    try:
        msgspec.convert(manifest, Manifest)
    except msgspec.ValidationError as error:
        raise RunError(f"{path} is damaged ({error}); process the input again") from error
    return manifest


def schema() -> str:
    """Return the JSON Schema (draft 2020-12) of a manifest, as text."""
    return json.dumps(msgspec.json.schema(Manifest), indent=2, ensure_ascii=False) + "\n"
