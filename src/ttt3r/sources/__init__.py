"""Where frames come from: image files, videos, or any iterable; and how they are prepared."""

from ttt3r.sources.base import Selection, Source
from ttt3r.sources.intrinsics import Intrinsics
from ttt3r.sources.opening import open_source
from ttt3r.sources.prefetch import prefetch
from ttt3r.sources.preprocess import prepare, prepare_frame

__all__ = [
    "Intrinsics",
    "Selection",
    "Source",
    "open_source",
    "prefetch",
    "prepare",
    "prepare_frame",
]
