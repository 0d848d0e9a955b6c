"""Nodes as bytes for the page: records of a JSON head and numbers.

A record is two lengths (uint32, little-endian), a head as JSON and a body. Bodies:

* `points`: positions as uint16 [n, 3], 0 being `low` and 65535 `low + size`; colours as
  uint8 [n, 3]; levels as uint8 [n].
* `path`: float32 [n, 17]: frame, seconds after `began`, segment, the upper 3 × 4 of the pose row by
  row, and the two slopes.
* `picture`: JPEG.
* `gone` and `meta`: nothing.
"""

import struct
from typing import Any

import numpy as np

from ttt3r.files import to_json
from ttt3r.viewer.scene import Gone, Node, Path, Picture, Points

STEPS = 65535
BYTES_PER_POINT = 10


def record(head: dict[str, Any], body: bytes = b"") -> bytes:
    """Put a record together."""
    text = to_json(head).encode("utf-8")
    return struct.pack("<II", len(text), len(body)) + text + body


def encoded(name: str, node: Node) -> bytes:
    """A node as a record."""
    if isinstance(node, Points):
        return _points(name, node)
    if isinstance(node, Path):
        began = node.poses[0].timestamp
        rows = [
            [p.frame, p.timestamp - began, p.segment, *p.world_from_camera[:3].ravel(), *p.slopes]
            for p in node.poses
        ]
        body = np.array(rows, "<f4").tobytes()
        return record({"kind": "path", "name": name, "count": len(rows), "began": began}, body)
    if isinstance(node, Picture):
        return record({"kind": "picture", "name": name, "frame": node.frame}, node.jpeg)
    assert isinstance(node, Gone)
    return record({"kind": "gone", "name": name})


def _points(name: str, node: Points) -> bytes:
    low, high = node.positions.min(axis=0), node.positions.max(axis=0)
    size = np.maximum(high - low, 1e-12)
    steps = ((node.positions - low) / size * STEPS).round().astype("<u2")
    head = {
        "kind": "points",
        "name": name,
        "frame": node.frame,
        "segment": node.segment,
        "count": len(steps),
        "low": low.tolist(),
        "size": size.tolist(),
    }
    return record(head, steps.tobytes() + node.colours.tobytes() + node.levels.tobytes())
