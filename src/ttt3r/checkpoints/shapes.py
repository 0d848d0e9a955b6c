"""What the shapes of a network's tensors say about its sizes."""

import re
from collections.abc import Mapping
from typing import Any

from ttt3r.errors import WeightsError

Shapes = Mapping[str, tuple[int, ...]]

# Limits far above any real network; they keep a damaged configuration from filling the memory.
WIDEST, DEEPEST = 65_536, 256


def side(shapes: Shapes, key: str, axis: int, rank: int) -> int | None:
    """Length of an axis of a tensor; None if there is no such tensor of this rank."""
    shape = shapes.get(key, ())
    return shape[axis] if len(shape) == rank else None


def count_blocks(shapes: Shapes, prefix: str) -> int | None:
    """Number of blocks under `prefix`; None if there are none."""
    pattern = re.compile(re.escape(prefix) + r"\.(\d+)\.")
    indices = {match[1] for key in shapes if (match := pattern.match(key))}
    return len(indices) or None


def refuse_contradictions(said: Mapping[str, Any], found: Mapping[str, Any], source: str) -> None:
    """Check that values stated by `source` agree with those that the tensors show.

    Raises:
        WeightsError: naming both values of everything that differs.
    """
    problems = [
        f"{field} is {said[field]} by the {source} but {found[field]} by the tensors"
        for field in said
        if field in found and said[field] != found[field]
    ]
    if problems:
        raise WeightsError(
            f"the {source} and the tensors contradict each other: {'; '.join(problems)}. "
            "They come from different files, or one was edited; get both from one place."
        )
