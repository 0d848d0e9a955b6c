"""Wide and bright colours (HDR, BT.2020) brought to those of ordinary video (SDR, BT.709).

The steps: undo the transfer function, so that 1 is reference white (ITU-R BT.2408: 203 cd/m² in PQ,
75 % of the signal in HLG); go from the primaries of BT.2020 to those of BT.709 (BT.2087); bend what
is brighter than `KNEE` below white; apply the transfer function of SDR. PQ describes the light of
the display, so that of a display is undone and applied (BT.1886, gamma 2.4). HLG describes the
light of the scene, so the camera's is applied (BT.709). The formulas of PQ and HLG are in BT.2100.
"""

from functools import cache

import numpy as np
from av.video.frame import VideoFrame
from jaxtyping import Float
from PIL import ImageFilter

PQ, HLG = 16, 18  # transfer functions, as ITU-T H.273 numbers them
BT2020 = 9  # primaries, likewise
WHITE_NITS, WHITE_HLG = 203.0, 0.75
KNEE = 0.8
GAMMA = 2.4
GRID = 65  # the most that Pillow takes
BT709_FROM_BT2020 = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]]
)

Colours = Float[np.ndarray, "*points 3"]


def kind_of(picture: VideoFrame) -> tuple[int, int] | None:
    """The transfer function and primaries of a picture that is not SDR; None for ordinary ones."""
    transfer, primaries = int(picture.color_trc or 0), int(picture.color_primaries or 0)
    return (transfer, primaries) if transfer in (PQ, HLG) or primaries == BT2020 else None


def name_of(kind: tuple[int, int]) -> str:
    """What a kind of colours is called."""
    return {PQ: "HDR (PQ)", HLG: "HDR (HLG)"}.get(kind[0], "in the colours of BT.2020")


@cache
def table(kind: tuple[int, int]) -> ImageFilter.Color3DLUT:
    """`to_sdr` as a filter for Pillow images, interpolated between `GRID` values a channel."""
    steps = np.linspace(0.0, 1.0, GRID)
    blue, green, red = np.meshgrid(steps, steps, steps, indexing="ij")
    points = np.stack([red, green, blue], axis=-1).reshape(-1, 3)
    return ImageFilter.Color3DLUT(GRID, to_sdr(points, kind).astype(np.float32).ravel())


def to_sdr(signal: Colours, kind: tuple[int, int]) -> Colours:
    """Bring colours to BT.709.

    Args:
        signal: RGB as it is stored, 0 to 1.
        kind: the transfer function and primaries, numbered as in ITU-T H.273.

    Returns:
        RGB of SDR, 0 to 1.
    """
    transfer, primaries = kind
    if transfer == PQ:
        light = _pq_nits(signal) / WHITE_NITS
    elif transfer == HLG:
        light = _hlg_light(signal) / _hlg_light(np.array(WHITE_HLG))
    else:
        light = signal**GAMMA
    if primaries == BT2020:
        light = np.clip(light @ BT709_FROM_BT2020.T, 0.0, None)
    if transfer in (PQ, HLG):
        brightest = np.maximum(light.max(axis=-1, keepdims=True), 1e-9)
        light = light * (_bent(brightest) / brightest)
    light = np.clip(light, 0.0, 1.0)
    if transfer == HLG:
        return np.where(light < 0.018, 4.5 * light, 1.099 * light**0.45 - 0.099)
    return light ** (1 / GAMMA)


def _bent(light: np.ndarray) -> np.ndarray:
    """Unchanged up to `KNEE`; beyond, ever slower towards 1."""
    beyond = np.maximum(light - KNEE, 0.0)
    return np.minimum(light, KNEE) + (1 - KNEE) * (1 - np.exp(-beyond / (1 - KNEE)))


def _pq_nits(signal: np.ndarray) -> np.ndarray:
    """Light of the display in cd/m² (BT.2100, table 4)."""
    m1, m2, c1, c2, c3 = 0.1593017578125, 78.84375, 0.8359375, 18.8515625, 18.6875
    power = signal ** (1 / m2)
    return 10000 * (np.maximum(power - c1, 0) / (c2 - c3 * power)) ** (1 / m1)


def _hlg_light(signal: np.ndarray) -> np.ndarray:
    """Light of the scene, 0 to 1 (BT.2100, table 5)."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
