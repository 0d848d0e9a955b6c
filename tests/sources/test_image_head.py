"""Heads of image files against what Pillow says of them."""

import random
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PillowImage

from tests.mutations import mutated
from ttt3r.sources.image_head import ORIENTATION, Head, ordinary_head

XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a tiff:Orientation="6"/></x:xmpmeta>'


def pictures(folder: Path) -> list[Path]:
    """Files of all kinds that `ordinary_head` knows."""
    colours = np.random.default_rng(0).integers(0, 255, (30, 50, 4), np.uint8)
    paths = []
    for number, (mode, suffix) in enumerate(
        [(mode, suffix) for mode in ("L", "RGB", "RGBA") for suffix in ("jpg", "png")]
    ):
        if (mode, suffix) == ("RGBA", "jpg"):
            continue
        picture = PillowImage.fromarray(colours).convert(mode)
        for orientation in (None, 1, 3, 6, 8, 9):
            exif = PillowImage.Exif()
            if orientation is not None:
                exif[ORIENTATION] = orientation
                exif[0x010F] = "a camera"
            path = folder / f"{number}-{orientation}.{suffix}"
            picture.save(path, exif=exif)
            paths.append(path)
    picture = PillowImage.fromarray(colours[..., :3])
    for name, options in {
        "a.jpg": {"progressive": True, "comment": b"a comment"},
        "b.jpg": {"icc_profile": bytes(70_000), "quality": 100, "subsampling": 0},
    }.items():
        picture.save(folder / name, **options)
        paths.append(folder / name)
    return paths


def by_pillow(path: Path) -> Head:
    with PillowImage.open(path) as image:
        return Head(image.size, image.getexif().get(ORIENTATION, 1))


def test_what_pillow_says(tmp_path: Path):
    for path in pictures(tmp_path):
        assert ordinary_head(path) == by_pillow(path), path


def test_what_is_left_to_pillow(tmp_path: Path):
    """None for all of these; Pillow finds a turn in some."""
    grey = PillowImage.fromarray(np.arange(600, dtype=np.uint8).reshape(20, 30))
    paths = [tmp_path / name for name in ("a.bmp", "b.png", "c.png", "d.jpg", "e.jpg", "f.txt")]
    grey.save(paths[0])
    grey.convert("P").save(paths[1])
    grey.convert("I;16").save(paths[2])
    grey.convert("CMYK").save(paths[3])
    grey.save(paths[4], xmp=XMP)
    assert by_pillow(paths[4]).orientation == 6
    paths[5].write_text("no image")
    for path in paths:
        assert ordinary_head(path) is None, path


def test_a_turn_in_the_text_of_a_png(tmp_path: Path):
    path = tmp_path / "a.png"
    PillowImage.new("L", (4, 3)).save(path)
    content = path.read_bytes()
    text = b"XML:com.adobe.xmp\0\0\0\0\0" + XMP
    chunk = struct.pack(">I4s", len(text), b"iTXt") + text + bytes(4)
    path.write_bytes(content[:33] + chunk + content[33:])
    assert ordinary_head(path) is None


@pytest.mark.parametrize("kind", ["1-6.png", "2-6.jpg"])
def test_damaged_files(tmp_path: Path, kind: str):
    """Nothing is raised, and what is still read is what Pillow reads, if that reads it at all."""
    pictures(tmp_path)
    intact, path = (tmp_path / kind).read_bytes(), tmp_path / "damaged"
    generator, agreed = random.Random(0), 0
    for _ in range(600):
        path.write_bytes(mutated(intact, generator))
        found = ordinary_head(path)
        if found is None:
            continue
        try:
            wanted = by_pillow(path)
        except Exception:  # Pillow raises almost anything
            continue
        assert found == wanted
        agreed += 1
    assert agreed > 20
