"""Giving back the memory of files that are mapped."""

import mmap
from collections.abc import Callable


def releaser(mapping: mmap.mmap) -> Callable[[], None]:
    """Return what gives back the memory of a mapped file, where the system can be told so.

    Values that were written to the memory meanwhile are lost.
    """
    advice = getattr(mmap, "MADV_DONTNEED", None)

    def release() -> None:
        if advice is not None:
            mapping.madvise(advice)

    return release
