"""Streaming 3D reconstruction from video: poses, depth and points in constant memory.

The names below are imported when they are first used, so that ``import ttt3r`` costs nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

from ttt3r.version import __version__

if TYPE_CHECKING:
    from ttt3r import rules
    from ttt3r.comparison.compare import compare
    from ttt3r.errors import Ttt3rError
    from ttt3r.exporters import export
    from ttt3r.models.tracking import track
    from ttt3r.runs.folder import RunFolder
    from ttt3r.runs.reader import Run
    from ttt3r.sources import Intrinsics, open_source, prepare_frame
    from ttt3r.stream import resets
    from ttt3r.stream.reconstruct import reconstruct
    from ttt3r.stream.session import Session
    from ttt3r.types import Camera, Frame, Prediction
    from ttt3r.weights import load
    from ttt3r.weights.fetching import fetch


# Where each public name lives; a module under its own name is marked by an empty second part.
_HOMES = {
    "Camera": ("ttt3r.types", "Camera"),
    "Frame": ("ttt3r.types", "Frame"),
    "Intrinsics": ("ttt3r.sources", "Intrinsics"),
    "Prediction": ("ttt3r.types", "Prediction"),
    "Run": ("ttt3r.runs.reader", "Run"),
    "RunFolder": ("ttt3r.runs.folder", "RunFolder"),
    "Session": ("ttt3r.stream.session", "Session"),
    "Ttt3rError": ("ttt3r.errors", "Ttt3rError"),
    "compare": ("ttt3r.comparison.compare", "compare"),
    "export": ("ttt3r.exporters", "export"),
    "fetch": ("ttt3r.weights.fetching", "fetch"),
    "load": ("ttt3r.weights", "load"),
    "open_source": ("ttt3r.sources", "open_source"),
    "prepare_frame": ("ttt3r.sources", "prepare_frame"),
    "reconstruct": ("ttt3r.stream.reconstruct", "reconstruct"),
    "resets": ("ttt3r.stream.resets", ""),
    "rules": ("ttt3r.rules", ""),
    "track": ("ttt3r.models.tracking", "track"),
}

__all__ = [
    "Camera",
    "Frame",
    "Intrinsics",
    "Prediction",
    "Run",
    "RunFolder",
    "Session",
    "Ttt3rError",
    "__version__",
    "compare",
    "export",
    "fetch",
    "load",
    "open_source",
    "prepare_frame",
    "reconstruct",
    "resets",
    "rules",
    "track",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home, attribute = _HOMES[name]
    module = importlib.import_module(home)
    globals()[name] = getattr(module, attribute) if attribute else module
    return globals()[name]


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
