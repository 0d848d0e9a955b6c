"""The Bonn recordings, paired by number as published results were and by stamp."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.evaluation.datasets.miniatures_rgbd import START, write_bonn
from tests.goldens import goldens
from ttt3r.errors import InputError
from ttt3r.evaluation.datasets.base import Selection
from ttt3r.evaluation.datasets.bonn import Bonn, nearest

FOLDER = "rgbd_bonn_balloon2"
PUBLISHED, CORRECTED = Selection("depth"), Selection("depth", variant="corrected")
HELP = r"(?s:.)*depth/<stamp>\.png(?s:.)*ipb\.uni-bonn\.de"
IMAGES = [i / 30 for i in range(40)]
# The 32nd depth map was dropped, so from there on number i belongs to image i + 1.
DEPTHS = [s + 0.004 for i, s in enumerate(IMAGES) if i != 31]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_bonn(tmp_path / FOLDER, IMAGES, DEPTHS)
    return tmp_path


def pairs(sequence) -> list[tuple[int, int]]:
    """(image, depth map) as the miniature numbers them, read from the pixels."""
    return [
        (int(frame.image[0, 0, 0]), round(1000 * float(frame.depth[1, 1])) - 1)
        for frame in sequence
    ]


def test_frames(root: Path):
    sequence = Bonn().open(root, "balloon2", PUBLISHED)
    assert (sequence.name, len(sequence)) == ("balloon2", 9)
    first = next(iter(sequence))
    assert first.timestamp == START + 1.0
    assert first.depth.dtype == np.float64 and first.depth[0, 0] == 0
    np.testing.assert_allclose(first.depth.ravel()[1:], 5 * 31 / 5000, rtol=1e-6)
    expected = [[542.822841, 0, 315.593520], [0, 542.576870, 237.756098], [0, 0, 1]]
    np.testing.assert_array_equal(first.intrinsics, expected)
    assert first.world_from_camera is None


def test_pairing_by_number_and_by_stamp(root: Path):
    published = pairs(Bonn().open(root, "balloon2", PUBLISHED))
    assert published == [(i, i) for i in range(30, 39)]
    corrected = pairs(Bonn().open(root, "balloon2", CORRECTED))
    # Image 31 has lost its depth map; the next is more than 0.02 s away.
    assert corrected == [(30, 30)] + [(i, i - 1) for i in range(32, 40)]


@pytest.mark.parametrize(
    "stride, frames, published, corrected",
    [
        (1, 3, [30, 31, 32], [30, 32, 33]),
        (2, None, [30, 32, 34, 36, 38], [30, 33, 35, 37, 39]),
        (4, 2, [30, 34], [30, 35]),
        (1, 500, list(range(30, 39)), [30, *range(32, 40)]),
    ],
)
def test_stride_and_number(root: Path, stride, frames, published, corrected):
    for variant, chosen in (("published", published), ("corrected", corrected)):
        selection = Selection("depth", stride, frames, variant)
        assert [i for i, _ in pairs(Bonn().open(root, "balloon2", selection))] == chosen


def test_published_lengths_end_with_the_shortest_list(tmp_path: Path):
    write_bonn(tmp_path / FOLDER, IMAGES, IMAGES, poses=35)
    assert len(Bonn().open(tmp_path, "balloon2", PUBLISHED)) == 5
    (tmp_path / FOLDER / "groundtruth.txt").unlink()
    assert len(Bonn().open(tmp_path, "balloon2", CORRECTED)) == 10  # opens no poses


def test_the_published_recordings(root: Path):
    assert Bonn().sequences(root, "depth") == (
        *("balloon2", "crowd2", "crowd3", "person_tracking2", "synchronous"),
    )
    assert Bonn().open(root, FOLDER, PUBLISHED).name == "balloon2"


def test_recordings_may_lie_where_the_archive_has_them(tmp_path: Path):
    write_bonn(tmp_path / "rgbd_bonn_dataset" / FOLDER, IMAGES, DEPTHS)
    assert len(Bonn().open(tmp_path, "balloon2", PUBLISHED)) == 9


def test_nearest_is_that_of_the_slow_twin():
    random = np.random.default_rng(0)
    stamps = random.choice(60, 25, replace=False) / 64
    found = 0
    for stamp in np.arange(-8, 68) / 64:
        near = [abs(s - stamp) for s in stamps if abs(s - stamp) <= 1 / 64]
        expected = [abs(s - stamp) for s in stamps].index(min(near)) if near else None
        assert nearest(float(stamp), stamps, most_apart=1 / 64) == expected
        found += expected is not None
    assert 25 < found < 76
    assert nearest(0.0, np.zeros(0)) is None


@pytest.mark.parametrize("frames", [5, 50])
def test_golden_selection(tmp_path: Path, frames: int):
    golden = json.loads((goldens("eval") / "preprocess" / "expected.json").read_text())["bonn"]
    assert frames in golden["targets"]
    prefix = f"long_bonn_s1/rgbd_bonn_dataset/{FOLDER}/"
    outputs = dict(sorted(golden["outputs"].items()))
    expected = {
        what: [v for n, v in outputs.items() if n.startswith(f"{prefix}{what}_{frames}/")]
        for what in ("rgb", "depth")
    }
    # The raw streams: an image every 1/30 s, a depth map 0.01 s later.
    for what, count, offset in (("rgb", 45, 0.0), ("depth", 42, 0.01)):
        (tmp_path / FOLDER / what).mkdir(parents=True)
        for i in range(count):
            (tmp_path / FOLDER / what / f"{1548266480.1 + offset + i / 30:.5f}.png").touch()
    rows = [f"{1548266480 + i / 100:.5f} {i} {2 * i} {3 * i} 0 0 0 1" for i in range(200)]
    (tmp_path / FOLDER / "groundtruth.txt").write_text("\n".join(rows))
    items = Bonn().open(tmp_path, "balloon2", Selection("depth", frames=frames)).items
    assert [i.image.relative_to(tmp_path).as_posix() for i in items] == expected["rgb"]
    assert [i.depth.relative_to(tmp_path).as_posix() for i in items] == expected["depth"]


def test_a_missing_root_or_recording(root: Path):
    with pytest.raises(InputError, match=f"nowhere does not exist{HELP}"):
        Bonn().open(root / "nowhere", "balloon2", PUBLISHED)
    with pytest.raises(InputError, match=f"rgbd_bonn_crowd2 does not exist{HELP}"):
        Bonn().open(root, "crowd2", PUBLISHED)


@pytest.mark.parametrize("name", ["rgb", "depth", "groundtruth.txt"])
def test_a_missing_file(root: Path, name: str):
    (root / FOLDER / name).rename(root / "elsewhere")
    with pytest.raises(InputError, match=rf"{name} does not exist{HELP}"):
        Bonn().open(root, "balloon2", PUBLISHED)


@pytest.mark.parametrize("variant", ["published", "corrected"])
def test_too_short(tmp_path: Path, variant):
    write_bonn(tmp_path / FOLDER, IMAGES[:30], IMAGES[:30])
    message = f"30 images and 30 depth maps, of which no pair remains after the first 30{HELP}"
    with pytest.raises(InputError, match=message):
        Bonn().open(tmp_path, "balloon2", Selection("depth", variant=variant))


def test_no_depth_map_is_near(tmp_path: Path):
    write_bonn(tmp_path / FOLDER, IMAGES, [s + 100 for s in IMAGES])
    with pytest.raises(InputError, match=f"no pair remains{HELP}"):
        Bonn().open(tmp_path, "balloon2", CORRECTED)
    write_bonn(tmp_path / "rgbd_bonn_crowd2", IMAGES, [])
    with pytest.raises(InputError, match=f"0 depth maps{HELP}"):
        Bonn().open(tmp_path, "crowd2", CORRECTED)


def test_other_names_and_damaged_files(root: Path):
    path = root / FOLDER / "groundtruth.txt"
    path.write_text(f"# timestamp\n{START} 1 2 3 0 0 0\n")
    with pytest.raises(InputError, match=f"line 2 of .* is not 8 numbers{HELP}"):
        Bonn().open(root, "balloon2", PUBLISHED)
    depth = sorted((root / FOLDER / "depth").iterdir())[30]
    depth.write_bytes(depth.read_bytes()[:40])
    with pytest.raises(InputError, match=f"{depth.name} cannot be read as a depth map{HELP}"):
        next(iter(Bonn().open(root, "balloon2", CORRECTED)))
    image = sorted((root / FOLDER / "rgb").iterdir())[30]
    image.write_bytes(b"")
    with pytest.raises(InputError, match=f"{image.name} cannot be read as an image"):
        next(iter(Bonn().open(root, "balloon2", CORRECTED)))
    (root / FOLDER / "depth" / "preview.png").touch()
    with pytest.raises(InputError, match=rf"preview\.png is not named by a time stamp{HELP}"):
        Bonn().open(root, "balloon2", CORRECTED)
