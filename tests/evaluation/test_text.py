"""Folders and text files as people really have them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ttt3r.errors import InputError
from ttt3r.evaluation.datasets.base import Selection
from ttt3r.evaluation.datasets.folders import Folders
from ttt3r.evaluation.text import list_files, read_numbers, read_rows
from ttt3r.sources.files import sorted_images

ROWS = np.array([[0.0, 1.5, -2.0], [1.0, 2.5, 3e-4]])
PLAIN = "0 1.5 -2\n1 2.5 3e-4\n"


@pytest.mark.parametrize(
    "content",
    [
        PLAIN.encode(),
        PLAIN.encode("utf-8-sig"),
        PLAIN.encode("utf-16"),
        "\ufeff".encode("utf-16-be") + PLAIN.encode("utf-16-be"),
        PLAIN.replace("\n", "\r\n").encode(),
        PLAIN.replace("\n", "\r").encode(),
        PLAIN.replace(" ", ", ").encode(),
        PLAIN.replace(" ", ";").encode(),
        PLAIN.replace(" ", "\t").encode(),
        b"timestamp tx ty\n" + PLAIN.encode(),
        b"timestamp,tx,ty\r\n" + PLAIN.replace(" ", ",").encode(),
        b"# a comment\n\n  \n" + PLAIN.encode() + b"\n\n",
    ],
    ids=range(12),
)
def test_numbers_are_read_however_they_are_written(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "poses.txt"
    path.write_bytes(content)
    np.testing.assert_array_equal(read_numbers(path, 3), ROWS)


@pytest.mark.parametrize("content", [b"0 1\n", b"0 1 x\n", b"0 1 2\na b c\n", b"\xff\x00\x81"])
def test_what_is_not_a_table_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "poses.txt"
    path.write_bytes(content)
    with pytest.raises(InputError, match="poses"):
        read_numbers(path, 3)


def test_unknown_poses_are_numbers_and_not_a_heading(tmp_path: Path) -> None:
    path = tmp_path / "poses.txt"
    path.write_text("nan nan\n1 2\n")
    assert [number for number, _ in read_rows(path)] == [1, 2]


def test_files_come_in_natural_order_without_hidden_ones(tmp_path: Path) -> None:
    names = [
        "1.png",
        "2.png",
        "10.png",
        "1.1.png",
        "1.10.png",
        "1.2.png",
        "._1.png",
        ".a.png",
        "b.txt",
    ]
    for name in names:
        (tmp_path / name).write_text("")
    found = [path.name for path in list_files(tmp_path, (".png",))]
    assert found == ["1.1.png", "1.2.png", "1.10.png", "1.png", "2.png", "10.png"]
    assert list_files(tmp_path / "nothing", (".png",)) == []


@pytest.mark.parametrize(
    "names", [(".05", ".17321", ".2"), ("1.05", "1.172", "1.2"), ("9.999", "10.0001")]
)
def test_files_named_by_times_come_in_the_order_of_time(tmp_path: Path, names) -> None:
    stamps = [f"1548266469{name}" if name.startswith(".") else name for name in names]
    files = [tmp_path / f"{stamp}.png" for stamp in stamps]
    for path in files:
        path.write_text("")
    assert list_files(tmp_path, (".png",)) == sorted_images(files) == files


def test_images_without_leading_zeros_keep_their_poses(tmp_path: Path) -> None:
    folder = tmp_path / "walk"
    (folder / "rgb").mkdir(parents=True)
    lines = []
    for index in range(12):
        pixels = np.full((4, 4, 3), 20 * index, np.uint8)
        Image.fromarray(pixels).save(folder / "rgb" / f"{index}.png")
        (folder / "rgb" / f"._{index}.png").write_bytes(b"macOS")
        lines.append(f"{index} {index} 0 0 0 0 0 1")
    (folder / "poses.txt").write_text("\n".join(lines))
    for index, frame in enumerate(Folders().open(folder, "walk", Selection("pose"))):
        assert frame.image[0, 0, 0] == 20 * index
        assert frame.world_from_camera is not None and frame.world_from_camera[0, 3] == index
