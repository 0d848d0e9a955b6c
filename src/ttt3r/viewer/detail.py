"""What the live viewer shows of one frame besides the scene: image, depth, confidence, gate."""

import base64
import io
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from ttt3r.drawing.colours import (
    Range,
    confidence_colours,
    depth_colours,
    paint,
    robust_range,
)
from ttt3r.drawing.frames import depth_of
from ttt3r.types import Prediction
from ttt3r.viewer.scene import jpeg

SIDE = 320  # pixels of the longer side of the image
MAP = 160  # and of the maps, at most; they are sampled


def detail(prediction: Prediction) -> dict[str, Any]:
    """Pictures of a frame as data URLs, and what their colours mean, as JSON values."""
    said: dict[str, Any] = {"index": prediction.index}
    if prediction.image is not None:
        said["image"] = _url(prediction.image.detach().cpu().numpy())
    if prediction.points is not None:
        depth = depth_of(_sampled(prediction.points))
        shown = robust_range(depth, logarithmic=True)
        said |= {"depth": _url(depth_colours(depth, shown)), "depth_range": _text(shown)}
    if prediction.confidence is not None:
        confidence = _sampled(prediction.confidence).cpu().float().numpy()
        shown = robust_range(confidence, logarithmic=True)
        said["confidence"] = _url(confidence_colours(confidence, shown))
        said["confidence_range"] = _text(shown)
    if prediction.gate is not None:
        gate = prediction.gate.detach().cpu().float().numpy()
        said |= {"gate": _png(_square(gate)), "gate_range": f"mean {gate.mean():.2f}"}
    return said


def _sampled(values: Float[Tensor, "height width *last"]) -> Float[Tensor, "rows columns *last"]:
    """Every n-th pixel of a map."""
    step = -(-max(values.shape[:2]) // MAP)
    return values[::step, ::step]


def _square(gate: Float[np.ndarray, " tokens"]) -> UInt8[np.ndarray, "rows columns 3"]:
    """The gate of each token in rows that make about a 3:4 picture."""
    columns = max(1, round((len(gate) * 4 / 3) ** 0.5))
    rows = -(-len(gate) // columns)
    full = np.full(rows * columns, np.nan)
    full[: len(gate)] = gate
    return paint(full.reshape(rows, columns))


def _text(shown: Range) -> str:
    return f"{shown.low:.3g} to {shown.high:.3g}"


def _url(image: UInt8[np.ndarray, "height width 3"]) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(jpeg(image, SIDE, 80)).decode("ascii")


def _png(image: UInt8[np.ndarray, "height width 3"]) -> str:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
