"""Pixels that are not square, and colours that are not those of ordinary video."""

import logging
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from tests.sources.clips import field, picture, write_clip
from ttt3r.sources import colour, open_source, prepare_frame
from ttt3r.sources.pictures import upright_rgb
from ttt3r.types import Preparation

KINDS = [(colour.PQ, 9), (colour.HLG, 9), (colour.PQ, 1), (1, 9)]


def disc(width: int, height: int) -> np.ndarray:
    """A white disc that touches the border of a black picture."""
    y, x = np.mgrid[:height, :width]
    inside = ((x + 0.5) / width - 0.5) ** 2 + ((y + 0.5) / height - 0.5) ** 2 < 0.2
    return np.repeat((255 * inside).astype(np.uint8)[..., None], 3, axis=2)


def extent(image: np.ndarray) -> tuple[int, int]:
    """(width, height) of the white part."""
    bright = image.mean(axis=2) > 127
    return int(bright.any(axis=0).sum()), int(bright.any(axis=1).sum())


def sar(text: str) -> dict[str, str]:
    return {"x264-params": f"sar={text}"}


@pytest.mark.parametrize(
    "aspect, stored, shown",
    [("4/3", (96, 96), (128, 96)), ("1/2", (96, 48), (96, 96)), ("1/1", (64, 48), (64, 48))],
)
def test_pixels_become_square(tmp_path, aspect, stored, shown):
    path = write_clip(tmp_path / "disc.mp4", [disc(*stored)] * 2, options=sar(aspect))
    frame = next(open_source(path).frames())
    assert frame.image.shape == (shown[1], shown[0], 3)
    assert frame.stored_size == (None if shown == stored else stored)
    assert frame.image.flags.c_contiguous and frame.image.flags.writeable


def test_turned_videos_keep_their_stored_size_upright(tmp_path):
    images, turn = [disc(96, 48)] * 2, (90, False, False)
    path = write_clip(tmp_path / "disc.mp4", images, options=sar("1/2"), rotation=turn)
    frame = next(open_source(path).frames())
    assert frame.image.shape == (96, 96, 3) and frame.stored_size == (48, 96)
    again = next(open_source(path, rotate=90).frames())
    assert again.stored_size == (96, 48)
    assert next(open_source(path, crop="2:1").frames()).stored_size is None


def test_a_pixel_aspect_that_is_a_mistake_is_ignored():
    frame = av.VideoFrame.from_ndarray(picture(3), format="rgb24")
    for aspect in (None, Fraction(0), Fraction(1000), Fraction(1, 1000)):
        image, stored = upright_rgb(frame, aspect)
        assert np.array_equal(image, picture(3)) and stored is None


def test_a_real_circle_is_round_and_intrinsics_map_back():
    source = open_source(field("anamorphic_sar_64_45_circle.mp4"))
    frame = prepare_frame(next(source.frames()), Preparation())
    image = frame.image if frame.image.mean() < 127 else 255 - frame.image
    width, height = extent(image)
    assert abs(width - height) <= 2  # pixels, of some 280
    assert frame.transform is not None and frame.transform.original_size == (720, 576)
    scale = frame.transform.processed_from_original
    assert scale[0, 0] / scale[1, 1] == pytest.approx(64 / 45)


# --- colours ------------------------------------------------------------------------------------


def from_sdr(sdr: np.ndarray, kind: tuple[int, int]) -> np.ndarray:
    """The slow inverse of `to_sdr` for colours below its knee, by bisection of its own formulas."""
    transfer, primaries = kind
    if transfer == colour.HLG:
        light = np.where(sdr < 0.081, sdr / 4.5, ((sdr + 0.099) / 1.099) ** (1 / 0.45))
    else:
        light = sdr**2.4
    if primaries == 9:
        light = light @ np.linalg.inv(colour.BT709_FROM_BT2020).T
    if transfer == colour.PQ:
        power = (light * 203 / 10000) ** 0.1593017578125
        return ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375
    if transfer == colour.HLG:
        scene = light * (np.exp((0.75 - 0.55991073) / 0.17883277) + 0.28466892) / 12
        log = 0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073
        return np.where(scene <= 1 / 12, np.sqrt(3 * scene), log)
    return light ** (1 / 2.4)


@pytest.mark.parametrize("kind", KINDS)
def test_the_colours_of_sdr_come_back(kind):
    sdr = np.random.default_rng(0).uniform(0, 0.85, (1000, 3))
    assert np.abs(colour.to_sdr(from_sdr(sdr, kind), kind) - sdr).max() < 1e-3  # constants' digits


@pytest.mark.parametrize("kind", KINDS)
def test_the_filter_is_the_formula(kind):
    """Between two entries of the table the curve is taken for straight.

    It is not near black and where colours leave BT.709; there the difference is larger.
    """
    signal = np.random.default_rng(1).integers(20, 256, (40, 50, 3), np.uint8)
    found = np.asarray(Image.fromarray(signal).filter(colour.table(kind)))
    expected = 255 * colour.to_sdr(signal / 255, kind)
    assert np.percentile(np.abs(found - expected), 99) <= 6
    assert np.abs(found - expected).mean() <= 0.5


@pytest.mark.parametrize("kind", KINDS[:3])
def test_what_is_brighter_stays_brighter_and_below_white(kind):
    grey = np.linspace(0, 1, 500)[:, None].repeat(3, axis=1)
    found = colour.to_sdr(grey, kind)
    assert (np.diff(found, axis=0) >= -1e-12).all()  # float64
    assert found.min() >= 0 and found.max() <= 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_video_is_converted_with_one_note(tmp_path, caplog, kind):
    sdr = np.full((48, 64, 3), (60, 120, 180), np.uint8)
    signal = (255 * from_sdr(sdr / 255, kind)).round().astype(np.uint8)
    path = write_clip(tmp_path / "a.mkv", [signal] * 4, "ffv1", "bgr0", colours=kind)
    source = open_source(path)
    with caplog.at_level(logging.INFO, "ttt3r.sources"):
        for frame in [*source.frames(), *source.frames()]:
            assert np.abs(frame.image.astype(int) - sdr).max() <= 3  # of 8-bit PQ, and the table
    notes = [record.getMessage() for record in caplog.records]
    assert len(notes) == 1 and "converted to SDR" in notes[0]


def test_ordinary_colours_stay_bit_for_bit(tmp_path, caplog):
    images = [np.random.default_rng(i).integers(0, 255, (48, 64, 3), np.uint8) for i in range(2)]
    for number, colours in enumerate([None, (1, 1), (13, 1), (6, 6)]):
        path = write_clip(tmp_path / f"{number}.mkv", images, "ffv1", "bgr0", colours=colours)
        with caplog.at_level(logging.INFO, "ttt3r.sources"):
            assert np.array_equal([f.image for f in open_source(path).frames()], images)
    assert caplog.text == ""


def test_a_real_hdr_video_is_close_to_its_reference():
    image = next(open_source(field("hdr_hlg.mov")).frames()).image
    with Image.open(field("hdr_hlg_reference_sdr.png")) as opened:
        reference = np.asarray(opened.convert("RGB")).astype(int)
    # A lossy video, and a curve of our own near white; without the conversion the mean is 10.8.
    assert np.abs(image - reference).mean() < 5
