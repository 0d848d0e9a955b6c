"""Image files: order, times, orientation, pixel formats, and broken files."""

import sys
import types
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.sources.clips import number_of, picture, write_images
from ttt3r.errors import InputError, MissingExtraError
from ttt3r.sources import images, open_source


def names(source) -> list[str]:
    return [frame.name for frame in source.frames()]


def test_natural_order(tmp_path):
    ordered = ["a2b10.png", "img1.png", "img2.JPG", "IMG3.png", "img10.png", "img10b.png", "z.bmp"]
    write_images(tmp_path / "photos", ordered[::-1])
    (tmp_path / "photos" / ".img4.png").write_bytes(b"hidden")
    (tmp_path / "photos" / "notes.txt").write_text("not an image")
    (tmp_path / "photos" / "folder.png").mkdir()
    assert names(open_source(tmp_path / "photos")) == ordered
    assert names(open_source(f"{tmp_path}/photos/img*.png")) == [
        name for name in ordered if name.startswith("img") and name.endswith("png")
    ]
    assert names(open_source(f"{tmp_path}/**/img1*.png")) == ["img1.png", "img10.png", "img10b.png"]


def test_a_list_keeps_its_order(tmp_path):
    paths = write_images(tmp_path / "photos", ["b.png", "a.png", "c.png"])
    assert names(open_source(paths)) == ["b.png", "a.png", "c.png"]
    assert open_source(paths).describe()["path"] is None


def test_times_from_the_frame_rate(tmp_path):
    write_images(tmp_path / "photos", [f"{number:06d}.png" for number in range(10)])
    source = open_source(tmp_path / "photos", fps=10.0, start=0.3, end=0.8, stride=2)
    frames = list(source.frames())
    assert source.length == 3
    assert [frame.timestamp for frame in frames] == [0.3, 0.5, 0.7]
    assert [number_of(frame.image) for frame in frames] == [3, 5, 7]
    assert [frame.index for frame in frames] == [0, 1, 2]


def test_times_from_the_names(tmp_path):
    stems = ["1311868164.3631", "1311868164.40", "1311868165.1", "1311868170.000001"]
    write_images(tmp_path / "rgb", [f"{stem}.png" for stem in stems[::-1]])
    frames = list(open_source(tmp_path / "rgb").frames())
    assert [frame.timestamp for frame in frames] == [float(stem) for stem in stems]
    frames = list(open_source(tmp_path / "rgb", start=0.5, end=5.0).frames())
    assert [frame.name for frame in frames] == ["1311868165.1.png"]


@pytest.mark.parametrize(
    "files", [["1.0.png", "b.png"], ["1.0.png", "1.00.png"], ["10.png", "11.png"], ["nan.5.png"]]
)
def test_names_that_are_no_times(tmp_path, files):
    write_images(tmp_path / "photos", files)
    times = [frame.timestamp for frame in open_source(tmp_path / "photos", fps=2.0).frames()]
    assert times == [0.0, 0.5][: len(files)]


def test_frames_left_out_are_not_opened(tmp_path, monkeypatch):
    write_images(tmp_path / "photos", [f"{number}.png" for number in range(8)])
    opened = []
    monkeypatch.setattr(
        images, "read_image", lambda path: opened.append(path.name) or np.zeros((2, 2, 3), np.uint8)
    )
    list(open_source(tmp_path / "photos", stride=3).frames(start=1))
    assert opened == ["3.png", "6.png"]


def test_description(tmp_path):
    write_images(tmp_path / "photos", ["b.png", "a.png"])
    source = open_source(tmp_path / "photos", fps=5.0)
    assert source.describe() == {
        "kind": "images",
        "path": str((tmp_path / "photos").resolve()),
        "files": 2,
        "first": "a.png",
        "last": "b.png",
        "fps": 5.0,
        "stride": 1,
        "start": None,
        "end": None,
    }
    with pytest.raises(InputError, match="no frame between 9 s and its end"):
        open_source(tmp_path / "photos", start=9.0)


# --- pixel formats ------------------------------------------------------------------------------


def gradient() -> np.ndarray:
    rows, columns = np.mgrid[:48, :64]
    return np.stack([4 * columns, 5 * rows, 255 - 4 * columns], axis=2).astype(np.uint8)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path, orientation):
    turn = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, -1),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(gradient()).save(tmp_path / "turned.png", exif=exif)
    frame = next(open_source(tmp_path / "turned.png").frames())
    assert np.array_equal(frame.image, turn(gradient()))


@pytest.mark.parametrize(
    "mode, suffix",
    [
        ("1", "png"),
        ("L", "png"),
        ("LA", "png"),
        ("P", "png"),
        ("P", "bmp"),
        ("RGB", "jpg"),
        ("RGB", "webp"),
        ("RGBA", "webp"),
        ("RGBA", "png"),
        ("CMYK", "jpg"),
        ("CMYK", "tiff"),
        ("YCbCr", "jpg"),
        ("LAB", "tif"),
    ],
)
def test_any_mode_becomes_rgb(tmp_path, mode, suffix):
    original = Image.fromarray(gradient()).convert("RGB")
    grey_lab = Image.new("LAB", (64, 48), (128, 128, 128))
    saved = grey_lab if mode == "LAB" else original.convert(mode)
    saved.save(tmp_path / f"image.{suffix}")
    image = next(open_source(tmp_path / f"image.{suffix}").frames()).image
    assert image.shape == (48, 64, 3) and image.dtype == np.uint8 and image.flags.writeable
    if mode not in ("1", "LAB"):
        grey = mode in ("L", "LA")
        expected = np.asarray(original.convert("L").convert("RGB") if grey else original)
        assert np.abs(image.astype(int) - expected).mean() < 20  # the palette of mode P is coarse


def test_alpha_is_dropped_not_blended(tmp_path):
    rgba = np.dstack([gradient(), np.zeros((48, 64), np.uint8)])
    Image.fromarray(rgba).save(tmp_path / "clear.png")
    assert np.array_equal(next(open_source(tmp_path / "clear.png").frames()).image, gradient())


def test_a_palette_with_transparency_gives_no_warning(tmp_path):
    image = Image.fromarray(gradient()).quantize(16)
    image.info["transparency"] = bytes([0, 128] + [255] * 14)
    image.save(tmp_path / "palette.png")
    assert next(open_source(tmp_path / "palette.png").frames()).image.shape == (48, 64, 3)


@pytest.mark.parametrize("suffix", ["png", "tiff"])
@pytest.mark.parametrize("kind", [np.uint16, np.int32])
def test_sixteen_bit_grey_is_scaled(tmp_path, suffix, kind):
    if kind is np.int32 and suffix == "png":
        pytest.skip("PNG has no 32-bit grey")
    values = np.arange(48 * 64, dtype=kind).reshape(48, 64) * 21
    Image.fromarray(values).save(tmp_path / f"deep.{suffix}")
    image = next(open_source(tmp_path / f"deep.{suffix}").frames()).image
    assert np.abs(image - (values / 257)[..., None]).max() <= 0.51
    assert (images.to_rgb(Image.fromarray(values)) == values.clip(0, 255)[..., None]).all()


# --- broken files -------------------------------------------------------------------------------


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def garbage(path: Path) -> None:
    path.write_bytes(b"this is no image" * 20)


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "webp", "tiff"])
@pytest.mark.parametrize("damage", [truncated, garbage, Path.unlink, lambda p: p.write_bytes(b"")])
def test_a_broken_file_in_the_middle(tmp_path, suffix, damage):
    folder = tmp_path / "photos"
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    for number in range(5):
        Image.fromarray(noise).save(folder / f"{number}.{suffix}")
    source = open_source(folder)
    damage(folder / f"3.{suffix}")
    found = []
    message = rf"3\.{suffix} cannot be read as an image.*The 3 frames before.*resume the run"
    with pytest.raises(InputError, match=message):
        found.extend(iter_into(found, source))
    assert len(found) == 3
    assert [frame.index for frame in source.frames(start=4)] == [4]


def iter_into(found, source):
    for frame in source.frames():
        found.append(frame)
    return []


def test_images_that_claim_too_many_pixels(tmp_path, monkeypatch):
    write_images(tmp_path / "photos", ["a.png"])
    for limit in (100, 2000):  # beyond twice the limit Pillow raises, below it warns
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(InputError, match=f"more than {limit} pixels.*make it smaller"):
            next(open_source(tmp_path / "photos").frames())
    monkeypatch.setattr(Image, "_decompression_bomb_check", lambda size: None)
    with pytest.raises(InputError, match="more than 2000 pixels"):
        next(open_source(tmp_path / "photos").frames())
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert next(open_source(tmp_path / "photos").frames()).index == 0


def test_only_the_named_formats_are_decoded(tmp_path):
    Image.fromarray(picture(1)).save(tmp_path / "image.ppm")
    (tmp_path / "image.ppm").rename(tmp_path / "image.png")
    with pytest.raises(InputError, match="cannot identify"):
        next(open_source(tmp_path / "image.png").frames())


def test_heic_needs_an_extra(tmp_path, monkeypatch):
    (tmp_path / "a.HEIC").write_bytes(b"heic")
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'ttt3r\[heic\]'"):
        open_source(tmp_path)
    registered = []
    module = types.SimpleNamespace(register_heif_opener=lambda: registered.append(True))
    monkeypatch.setitem(sys.modules, "pillow_heif", module)
    assert open_source(tmp_path).length == 1
    assert registered
