"""Runs that are moved to known positions, and what is read and exported of them then."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.alignment.photographs import photograph
from tests.cli.conftest import Ttt3r, ttt3r  # noqa: F401 (a fixture)
from tests.exporters.test_exporters import make_run
from tests.exporters.truth import write_run
from tests.geometry.samples import random_similarity
from tests.viewer.room import walk
from ttt3r.alignment.aligning import _nearest, align_to_track
from ttt3r.alignment.tracks import read_track
from ttt3r.errors import RunError
from ttt3r.exporters import export
from ttt3r.geometry import se3
from ttt3r.runs.folder import RunFolder
from ttt3r.runs.placement import PLACEMENT, Placement
from ttt3r.runs.reader import Run
from ttt3r.runs.trajectory import tum_line
from ttt3r.sources import open_source
from ttt3r.types import Frame, Prediction

FRAMES = 20
TRUTH = random_similarity(5, 1)[0]
# Metres in a degree about latitude 47, to 1e-5; the walk is 6 m wide.
NORTH, EAST = 111177.0, 76056.4


@pytest.fixture
def run(tmp_path: Path) -> Path:
    make_run(tmp_path / "run", list(walk(FRAMES, 16, 12)))
    return tmp_path / "run"


def moved(folder: Path, similarity: torch.Tensor, offset: float = 0.0) -> str:
    """The run's trajectory elsewhere, as TUM."""
    lines = [
        tum_line(p.timestamp + offset, se3.place_camera(similarity, p.world_from_camera.double()))
        for p in Run.open(folder)
        if p.world_from_camera is not None
    ]
    return "".join(lines)


def positions(folder: Path) -> torch.Tensor:
    return Run.open(folder).trajectory().world_from_camera[:, :3, 3].double()


def gps(folder: Path, rate: float = 10.0, noise: float = 0.0, offset: float = 0.0) -> str:
    """The walk on the Earth: the run's x to the east, z to the north, y down; 2 m for 1."""
    random = np.random.default_rng(0)
    said, times = positions(folder).numpy(), np.arange(FRAMES) / 10
    lines = ["time,lat,lon,alt"]
    for t in np.arange(0, times[-1] + 1e-9, 1 / rate):
        at = np.array([np.interp(t, times, said[:, k]) for k in range(3)])
        east, down, north = 2 * at + noise * random.standard_normal(3)
        lat, lon = 47 + north / NORTH, 8 + east / EAST
        lines.append(f"{t + offset:.3f},{lat:.10f},{lon:.10f},{400 - down:.5f}")
    return "\n".join(lines) + "\n"


def test_a_run_comes_to_its_true_trajectory(run: Path, ttt3r: Ttt3r) -> None:  # noqa: F811
    Path("poses.tum").write_text(moved(run, TRUTH))
    before = list(Run.open(run))
    result = ttt3r("align", run, "poses.tum")
    assert (result.status, result.err) == (0, "")
    assert "20 of 20 frames matched, 20 used, rms" in result.out
    wanted = read_track(Path("poses.tum")).places
    # float32 poses of some metres, and nine digits in the file
    np.testing.assert_allclose(positions(run).numpy(), wanted, atol=1e-5)
    for was, now in zip(before, Run.open(run), strict=True):
        expected = se3.apply(TRUTH.float(), se3.apply(was.world_from_camera, was.points))
        got = se3.apply(now.world_from_camera, now.points)
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-4)
    assert ttt3r("export", run, "--to", "tum", "--out", "out.tum").status == 0
    np.testing.assert_allclose(read_track(Path("out.tum")).places, wanted, atol=1e-5)


def test_aligning_twice_changes_nothing(run: Path, ttt3r: Ttt3r) -> None:  # noqa: F811
    Path("poses.tum").write_text(moved(run, TRUTH))
    segments = (random_similarity(9, 1)[0],)
    Placement(segments, "loops").write(run)
    Path("poses.tum").write_text(moved(run, TRUTH))
    assert ttt3r("align", run, "poses.tum").status == 0
    first = (run / PLACEMENT).read_text()
    assert ttt3r("align", run, "poses.tum").status == 0
    assert (run / PLACEMENT).read_text() == first
    placement = Placement.read(run)
    assert placement.segments_text == "loops" and torch.equal(placement.segments[0], segments[0])
    assert placement.metric and placement.world_text.startswith("aligned to poses.tum: 20 of 20")
    undone = ttt3r("align", run, "--undo")
    assert undone.out.startswith("no longer aligned to poses.tum")
    after = Placement.read(run)
    assert after.world is None and after.metric is None and after.segments_text == "loops"
    assert ttt3r("align", run, "--undo").out == "nothing to undo\n"


def test_wrong_poses_are_left_out(run: Path, ttt3r: Ttt3r) -> None:  # noqa: F811
    lines = moved(run, TRUTH).splitlines()
    for number in (3, 8, 9, 15):
        stamp, *_, w = lines[number].split()
        lines[number] = f"{stamp} 100 -50 {number} 0 0 0 {w}"
    Path("poses.tum").write_text("\n".join(lines))
    assert "20 of 20 frames matched, 16 used" in ttt3r("align", run, "poses.tum").out
    world = Placement.read(run).world
    torch.testing.assert_close(world, TRUTH, rtol=0, atol=1e-5)


def test_clocks_that_differ(run: Path, ttt3r: Ttt3r) -> None:  # noqa: F811
    Path("poses.tum").write_text(moved(run, TRUTH, 1305031910.765))
    result = ttt3r("align", run, "poses.tum")
    assert result.status == 2 and "0 of 20 frames have a position within 0.02 s" in result.err
    assert "it is 1305031910.765000 if both begin together" in result.err
    assert not (run / PLACEMENT).exists()
    assert ttt3r("align", run, "poses.tum", "--offset", "1305031910.765").status == 0
    # Between the stamps: as near as 0.05 s, which needs asking for.
    assert ttt3r("align", run, "poses.tum", "--offset", "1305031910.815").status == 2
    assert ttt3r(
        "align", run, "poses.tum", "--offset", "1305031910.815", "--tolerance", "0.051"
    ).status == 0  # fmt: skip


def test_the_nearest_pose_counts(run: Path) -> None:
    """The slow twin of the search: every frame looks at every pose."""
    track = read_track_of(run, moved(run, TRUTH))
    dense = np.sort(np.random.default_rng(0).uniform(-0.5, 2.5, 300))
    track = replace(track, times=dense, places=np.random.default_rng(1).normal(size=(300, 3)))
    times = np.linspace(-1, 3, 57)
    which, places = _nearest(times, track, 0.01)
    for k, t in enumerate(times):
        away = np.abs(dense - t)
        assert which[k] == (away.min() <= 0.01)
        if which[k]:
            row = places[which[:k].sum()]
            np.testing.assert_array_equal(row, track.places[away.argmin()])


def read_track_of(run: Path, text: str):
    path = run.parent / "some.tum"
    path.write_text(text)
    return read_track(path)


@pytest.mark.parametrize(("rate", "noise"), [(10.0, 0.0), (5.0, 0.0), (10.0, 0.05)])
def test_gps(run: Path, ttt3r: Ttt3r, rate: float, noise: float) -> None:  # noqa: F811
    was = positions(run)
    Path("gps.csv").write_text(gps(run, rate, noise))
    result = ttt3r("align", run, "gps.csv")
    assert (result.status, result.err) == (0, "")
    assert "axes east, north, up from latitude 47" in result.out
    placement = Placement.read(run)
    # Of a circle, fixes 36 degrees apart cut off up to 5 % of the radius, of 3.6 m.
    bound = {10.0: 2e-3 + 4 * noise, 5.0: 0.15}[rate]
    assert float(se3.similarity_scale(placement.world)) == pytest.approx(2, rel=bound / 3)
    expected = 2 * torch.stack([was[:, 0], was[:, 2], -was[:, 1]], 1)
    expected = expected - expected[0]
    torch.testing.assert_close(positions(run) - positions(run)[0], expected, rtol=0, atol=2 * bound)
    assert placement.up == (0.0, 0.0, 1.0)


def test_fixes_too_far_apart(run: Path, ttt3r: Ttt3r) -> None:  # noqa: F811
    Path("gps.csv").write_text(gps(run, 10))
    lines = Path("gps.csv").read_text().splitlines()
    Path("gps.csv").write_text("\n".join([lines[0], lines[1], lines[-1]]))
    assert "does not fit gps.csv well" in ttt3r("align", run, "gps.csv").err  # 1.9 s apart
    result = ttt3r("align", run, "gps.csv", "--tolerance", "0.5")
    assert result.status == 2 and "2 of 20 frames have a position between fixes" in result.err


def test_exports_and_views_know_what_is_up(run: Path, ttt3r: Ttt3r) -> None:  # noqa: F811
    """The run's y was down, and the world's z is up now; what has a fixed up is turned."""
    was = Run.open(run).trajectory().world_from_camera.double()
    Path("gps.csv").write_text(gps(run))
    assert ttt3r("align", run, "gps.csv").status == 0
    moved_run = Run.open(run)
    ply = export(moved_run, "ply", "a.ply", voxel=0.05).path
    assert ply.exists()
    upright = moved_run.upright().trajectory().world_from_camera.double()
    # Turned from z up the shortest way: east stays x, north becomes z, as the walk was made.
    difference = upright[:, :3, 3] - 2 * was[:, :3, 3]
    torch.testing.assert_close(difference, difference[:1].expand_as(difference), rtol=0, atol=1e-2)
    torch.testing.assert_close(upright[:, :3, :3], was[:, :3, :3], rtol=0, atol=1e-3)
    export(moved_run, "nerfstudio", "nerf", min_confidence=0.0)
    said = json.loads(Path("nerf/transforms.json").read_text())
    # The world is z-up already, so nothing is applied.
    np.testing.assert_allclose(said["applied_transform"], np.eye(4)[:3], atol=1e-12)
    there = np.array([frame["transform_matrix"] for frame in said["frames"]])[:, :3, 3]
    np.testing.assert_allclose(there, positions(run).numpy(), atol=1e-5)


@pytest.mark.parametrize("up", [None, (0.0, 0.0, 1.0), (0.6, 0.0, -0.8), (0.0, 1.0, 0.0)])
def test_upright_puts_down_along_y(up: tuple[float, float, float] | None) -> None:
    placement = Placement(world=TRUTH, up=up)
    turn = placement.turn_upright[:3, :3]
    torch.testing.assert_close(turn @ turn.T, torch.eye(3).double(), rtol=0, atol=1e-9)
    assert float(turn.det()) == pytest.approx(1)
    first_down = TRUTH[:3, 1] / se3.similarity_scale(TRUTH)
    down = first_down if up is None else -torch.tensor(up, dtype=torch.float64)
    expected = torch.tensor([0.0, 1.0, 0.0]).double()
    torch.testing.assert_close(turn @ down, expected, rtol=0, atol=1e-7)
    again = placement.upright()
    torch.testing.assert_close(again.turn_upright, torch.eye(4).double(), rtol=0, atol=1e-7)


def test_a_straight_walk(tmp_path: Path, ttt3r: Ttt3r) -> None:  # noqa: F811
    """Along z, level; GPS turns it upright by the cameras, a trajectory cannot."""
    frames = [straight(item) for item in walk(FRAMES, 16, 12)]
    make_run(tmp_path / "run", frames)
    Path("gps.csv").write_text(gps(tmp_path / "run"))
    result = ttt3r("align", "run", "gps.csv")
    assert result.status == 0 and "on a straight line, upright by the cameras" in result.out
    turn = Run.open("run").trajectory().world_from_camera[:, :3, :3].double()
    expected = torch.tensor([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]]).double()
    torch.testing.assert_close(turn, expected.expand(FRAMES, 3, 3), rtol=0, atol=1e-4)
    assert ttt3r("align", "run", "--undo").status == 0
    Path("poses.tum").write_text(moved(Path("run"), TRUTH))
    result = ttt3r("align", "run", "poses.tum")
    assert result.status == 2 and "lie on a straight line" in result.err
    scale = float(se3.similarity_scale(TRUTH))
    assert f"ttt3r scale RUN {scale:.6g}" in result.err


def straight(item: Prediction) -> Prediction:
    pose = torch.eye(4)
    pose[2, 3] = 0.3 * item.index
    return replace(item, world_from_camera=pose)


def test_frames_without_a_place_are_not_matched(tmp_path: Path, ttt3r: Ttt3r) -> None:  # noqa: F811
    frames = list(walk(6, 16, 12))
    frames[2] = replace(frames[2], world_from_camera=torch.full((4, 4), float("nan")))
    make_run(tmp_path / "run", frames)
    Path("poses.tum").write_text("".join(f"{k / 10} {k} {3 * (k % 2)} {k % 3}\n" for k in range(6)))
    assert "5 of 5 frames matched" in ttt3r("align", "run", "poses.tum").out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give one of"),
        (["poses.tum", "--exif"], "give one of"),
        (["poses.tum", "--offset", "nan"], "--offset must be a number"),
        (["poses.tum", "--tolerance", "-1"], "--tolerance must be 0 or more"),
        (["nothing.tum"], "cannot be read"),
        (["--exif"], "was not made from photographs|came from a program"),
    ],
)
def test_senseless_words(run: Path, ttt3r: Ttt3r, words: list[str], message: str) -> None:  # noqa: F811
    Path("poses.tum").write_text(moved(run, TRUTH))
    result = ttt3r("align", run, *words)
    assert result.status == 2
    assert re.search(message, result.err), result.err


def test_a_run_that_is_being_written_is_left_alone(run: Path) -> None:
    held = RunFolder(run).hold()
    try:
        with pytest.raises(RunError, match="still writing the run"):
            align_to_track(run, read_track_of(run, moved(run, TRUTH)))
    finally:
        held.close()


def test_photographs_of_a_drone(tmp_path: Path, ttt3r: Ttt3r) -> None:  # noqa: F811
    """South and west, below the sea; one photograph says nothing, another one is wrong."""
    folder = tmp_path / "drone"
    folder.mkdir()
    places = [np.array([3.0 * k, 2.0 * (k % 3), 1.0 * (k % 2)]) for k in range(8)]
    for k, (east, north, up) in enumerate(places):
        fix = (33.5 - north / 110923, 70.25 - east / 92893, -20 + up)
        if k == 5:
            fix = (33.6, 70.35, -20.0)
        photograph(folder / f"shot{k}.jpg", None if k == 2 else fix, refs="SW")

    def predict(frame: Frame) -> Prediction:
        pose = torch.eye(4)
        pose[:3, 3] = torch.from_numpy(places[frame.index]) / 2
        return Prediction(index=frame.index, timestamp=0.0, world_from_camera=pose)

    write_run(open_source(folder), tmp_path / "run", predict)
    result = ttt3r("align", "run", "--exif")
    assert result.status == 0, result.err
    assert "aligned to the photographs' GPS: 7 of 8 frames matched, 6 used" in result.out
    assert "latitude -33.5, longitude -70.25, altitude -20 m" in result.out
    # Metres in a degree are taken at one latitude, and EXIF holds fractions: some millimetres.
    wanted = np.stack(places)
    np.testing.assert_allclose(positions(Path("run")).numpy(), wanted, atol=0.02)
    folder.rename(tmp_path / "moved")
    assert "--images PATH" in ttt3r("align", "run", "--exif").err
    assert ttt3r("align", "run", "--exif", "--images", "moved").status == 0
    for file in sorted((tmp_path / "moved").iterdir())[2:]:
        size = file.stat().st_size
        photograph(file, None)
        file.write_bytes(file.read_bytes().ljust(size, b"\0"))
    result = ttt3r("align", "run", "--exif", "--images", "moved")
    assert result.status == 2 and "2 of 8 photographs say in their EXIF" in result.err
