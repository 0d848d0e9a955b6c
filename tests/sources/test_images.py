"""Image files: order, times, orientation, pixel formats, and broken files."""

import os
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.sources.clips import field, number_of, picture, write_images
from ttt3r.errors import InputError, MissingExtraError, SettingError
from ttt3r.runs.reader import Run
from ttt3r.sources import images, open_source, stills
from ttt3r.stream.reconstruct import reconstruct
from ttt3r.types import Frame


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
    assert open_source(paths).describe()["path"] == str(tmp_path / "photos")


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
        stills,
        "read_pixels",
        lambda path, levels: opened.append(path.name) or (np.zeros((2, 2, 3), np.uint8), None),
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
        "inputs": [f"{(tmp_path / 'photos' / n).stat().st_size} {n}" for n in ("a.png", "b.png")],
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
    message = rf"3\.{suffix} cannot be read as an image.*The 3 frames before.*Put an intact copy"
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
    monkeypatch.setattr(images, "MOST_PIXELS", 2000)
    with pytest.raises(InputError, match=r"64x48 pixels, .*make it smaller"):
        next(open_source(tmp_path / "photos").frames())


def test_large_photographs_are_read_and_pillows_limit_is_left_alone(tmp_path, monkeypatch):
    write_images(tmp_path / "photos", ["a.png", "b.jpg"])
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # Pillow's own open would refuse them
    assert len(names(open_source(tmp_path / "photos"))) == 2
    assert Image.MAX_IMAGE_PIXELS == 100


def test_only_the_named_formats_are_decoded(tmp_path):
    Image.fromarray(picture(1)).save(tmp_path / "image.eps")
    (tmp_path / "image.eps").rename(tmp_path / "image.png")
    with pytest.raises(InputError, match="cannot identify"):
        next(open_source(tmp_path / "image.png").frames())


def test_the_content_decides_not_the_name(tmp_path):
    for suffix in ("jfif", "jpe", "avif", "jp2", "ppm", "mpo"):
        Image.fromarray(picture(1)).save(tmp_path / f"a.{suffix}")
    Image.fromarray(picture(1)).save(tmp_path / "photo.jpg")
    (tmp_path / "photo.jpg").rename(tmp_path / "photo.HEIC")
    assert len(list(open_source(tmp_path).frames())) == 7


def test_a_heic_file_named_jpg_asks_for_the_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    (tmp_path / "a.jpg").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    with pytest.raises(MissingExtraError, match="heic"):
        open_source(tmp_path)


def test_what_a_folder_leaves_out_is_said_once(tmp_path, caplog):
    write_images(tmp_path / "photos", ["a.png"])
    (tmp_path / "photos" / "notes.txt").write_text("notes")
    (tmp_path / "photos" / "b.png").symlink_to("nowhere")
    (tmp_path / "photos" / "._a.png").write_bytes(b"resource fork")
    os.mkfifo(tmp_path / "photos" / "c.png")
    for given in (tmp_path / "photos", f"{tmp_path}/photos/*"):
        caplog.clear()
        assert names(open_source(given)) == ["a.png"]
        assert [record.getMessage().partition("left out: ")[2] for record in caplog.records] == [
            "1 x .txt, 1 x broken link, 1 x pipe or device"
        ]


def test_numbered_parts_are_not_times(tmp_path):
    ordered = ["1.1.png", "1.2.png", "1.9.png", "1.10.png", "2.1.png"]
    write_images(tmp_path / "parts", ordered[::-1])
    assert names(open_source(tmp_path / "parts")) == ordered
    write_images(tmp_path / "two", ["1.2.png", "1.10.png"])
    assert names(open_source(tmp_path / "two")) == ["1.2.png", "1.10.png"]


def test_an_image_of_several_pages_is_refused_with_the_count(tmp_path):
    pages = [Image.fromarray(picture(number)) for number in range(3)]
    pages[0].save(tmp_path / "pages.tiff", save_all=True, append_images=pages[1:])
    with pytest.raises(InputError, match="holds 3 images"):
        next(open_source([tmp_path / "pages.tiff"]).frames())


def test_brackets_in_existing_names(tmp_path):
    folder = tmp_path / "shots [set 1]"
    write_images(folder, ["a [x].png", "b.png"])
    assert names(open_source(f"{folder}/*.png")) == ["a [x].png", "b.png"]
    assert names(open_source(f"{folder}/a [x].png")) == ["a [x].png"]


def test_an_address_of_a_file_opens(tmp_path):
    (path,) = write_images(tmp_path / "my photos", ["a.png"])
    assert names(open_source(path.as_uri())) == ["a.png"]


def test_a_pipe_is_named(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(InputError, match=r"pipe or a device.*save it to a file"):
        open_source(tmp_path / "pipe.mp4")


def test_heic_needs_an_extra(tmp_path, monkeypatch):
    (tmp_path / "a.HEIC").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'ttt3r\[heic\]'"):
        open_source(tmp_path)
    registered = []
    module = types.SimpleNamespace(register_heif_opener=lambda: registered.append(True))
    monkeypatch.setitem(sys.modules, "pillow_heif", module)
    assert open_source(tmp_path).length == 1
    assert registered


# --- levels, transparency, names ------------------------------------------------------------------


@pytest.mark.parametrize("kind, low, high", [(np.uint16, 7301, 8206), (np.float32, -3.1, 3.1)])
def test_narrow_ranges_are_stretched_by_the_first_image(tmp_path, caplog, kind, low, high):
    values = np.linspace(low, high, 48 * 64).reshape(48, 64).astype(kind)
    middle = kind((low + high) / 2)
    for number, grey in enumerate([values, np.full_like(values, middle)]):
        Image.fromarray(grey).save(tmp_path / f"{number}.tiff")
    source = open_source(tmp_path)
    with caplog.at_level("INFO", "ttt3r.sources"):
        first, second = (frame.image for frame in source.frames())
    assert first.min() == 0 and first.max() == 255
    assert (np.abs(second.astype(int) - 127) <= 1).all()
    notes = [record.getMessage() for record in caplog.records]
    assert len(notes) == 1 and "become black to white" in notes[0]
    assert np.array_equal(next(source.frames(start=1)).image, second)


@pytest.mark.parametrize("kind", [np.uint16, np.float32])
def test_a_flat_image_is_not_stretched(tmp_path, kind):
    Image.fromarray(np.full((48, 64), 100, kind)).save(tmp_path / "flat.tiff")
    image = next(open_source(tmp_path / "flat.tiff").frames()).image
    assert (image == (100 if kind is np.float32 else 0)).all()


@pytest.mark.parametrize("name", ["float.tiff", "thermal_14bit.tiff"])
def test_real_images_of_a_narrow_range_are_not_flat(name):
    image = next(open_source(field(name)).frames()).image
    assert image.min() == 0 and image.max() == 255 and image.std() > 20


def test_opacity_comes_along(tmp_path):
    alpha = np.arange(48 * 64, dtype=np.uint8).reshape(48, 64)
    Image.fromarray(np.dstack([gradient(), alpha])).save(tmp_path / "a.png")
    Image.fromarray(gradient()).save(tmp_path / "b.png")
    first, second = open_source(tmp_path).frames()
    assert np.array_equal(first.alpha, alpha) and second.alpha is None
    turned = next(open_source(tmp_path, rotate=90, crop="1:1").frames())
    assert turned.alpha.shape == turned.image.shape[:2]
    assert np.array_equal(turned.alpha, np.rot90(alpha, -1)[8:56])


def test_fps_is_refused_where_names_are_times(tmp_path):
    write_images(tmp_path / "rgb", ["1.100.png", "1.200.png"])
    with pytest.raises(SettingError, match="are the times of the images"):
        open_source(tmp_path / "rgb", fps=10.0)
    with pytest.raises(SettingError, match="has a time of its own"):
        list(open_source([Frame(picture(1))], fps=10.0).frames())


def test_files_without_a_suffix_are_known_by_content(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, kind in enumerate(["JPEG", "PNG", "WEBP", "TIFF"]):
        Image.fromarray(picture(number)).save(folder / f"frame.{number:04d}", kind)
    (folder / "frame.0004").write_bytes(b"text")
    assert [number_of(frame.image) for frame in open_source(folder).frames()] == [0, 1, 2, 3]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_names_may_be_any_bytes(tmp_path):
    """Of input files; an output folder must be valid UTF-8."""
    bad = os.fsdecode(b"photo-\xff.png")
    write_images(tmp_path / "photos", ["a.png"])
    (tmp_path / "photos" / "a.png").rename(tmp_path / "photos" / bad)
    out = tmp_path / "run"
    frames = reconstruct(tmp_path / "photos", model="tiny-linear", size=64, out=out)
    assert len(list(frames)) == 1 and len(Run.open(out)) == 1
