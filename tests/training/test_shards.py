"""Shards of rendered clips: what is in them, going on after a stop, and reading while they come."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.processes import started, wait_until
from ttt3r.errors import InputError, RunError, SettingError
from ttt3r.files import lock
from ttt3r.scenes import make_clip
from ttt3r.training import shards
from ttt3r.training.commands import main
from ttt3r.training.seeds import LAST_SEED, TEST_SEEDS, TRAINING_SEEDS, VALIDATION_SEEDS
from ttt3r.training.shards import Settings, Shards, render_shards, shards_of

SMALL = Settings(2, (16, 24), samples=1, per_shard=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("shards")
    render_shards(path, SMALL, shards_of(SMALL, 0, 3))
    return path


def test_what_is_in_a_shard(folder: Path):
    found = Shards(folder)
    assert (len(found), found.frames, found.size) == (4, 2, (16, 24))  # whole shards
    for number in range(len(found)):
        seed, clip = TRAINING_SEEDS + number, found[number]
        pace = SMALL.pace(seed)
        path = make_clip(seed, pace + 1, SMALL.size, renderer="fast")
        assert clip.image.dtype == np.uint8 and clip.depth.dtype == np.float16
        expected = path.image[::pace].movedim(-1, 1).numpy()
        assert np.array_equal(clip.image, expected)
        assert np.array_equal(clip.depth, path.depth[::pace].clamp(max=6e4).half().numpy())
        np.testing.assert_allclose(clip.pose, path.world_from_camera[::pace], atol=1e-6)
        assert clip.pose.dtype == np.float64 and clip.intrinsics.dtype == np.float32
        f, cx, cy = clip.intrinsics
        k = path.intrinsics[0]
        assert (f, f, cx, cy) == (k[0, 0], k[1, 1], k[0, 2], k[1, 2])


def test_images_stay_on_disk(folder: Path):
    clip = Shards(folder)[1]
    assert isinstance(clip.image, np.memmap) and isinstance(clip.depth, np.memmap)
    assert not clip.image.flags.writeable


def test_going_on_renders_only_what_is_missing(tmp_path: Path, folder: Path):
    first, second = shards_of(SMALL, 0, 4)
    render_shards(tmp_path, SMALL, [first])
    reader = Shards(tmp_path)
    (tmp_path / f"{second}.image.npy").write_bytes(b"left by a program that was killed")
    assert len(reader) == 2 and reader.refresh() == 0
    stamp = (tmp_path / f"{first}.npz").stat().st_mtime_ns
    seen = []
    render_shards(tmp_path, SMALL, [first, second], done=lambda seed, _: seen.append(seed))
    assert seen == [second] and (tmp_path / f"{first}.npz").stat().st_mtime_ns == stamp
    assert reader.refresh() == 2 and len(reader) == 4
    other = Shards(folder)
    for i in range(4):
        assert np.array_equal(reader[i].image, other[i].image)


def test_what_is_half_written_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def broken(*_: object, **__: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(np, "savez", broken)
    with pytest.raises(OSError, match="no space left"):
        render_shards(tmp_path, SMALL, shards_of(SMALL, 0, 1))
    assert not list(tmp_path.glob("*.npz")) and not list(tmp_path.glob(".*.tmp"))
    with pytest.raises(InputError, match="no shards"):
        Shards(tmp_path)


def test_one_kind_of_clips_and_one_writer_per_folder(folder: Path, tmp_path: Path):
    assert json.loads((folder / shards.SETTINGS).read_text())["size"] == [16, 24]
    with pytest.raises(SettingError, match="other settings"):
        render_shards(folder, replace(SMALL, frames=3), shards_of(SMALL, 0, 1))
    held = lock(tmp_path / ".lock")
    assert held is not None
    with held, pytest.raises(RunError, match="another program"):
        render_shards(tmp_path, SMALL, shards_of(SMALL, 0, 1))
    (tmp_path / shards.SETTINGS).write_text("{")
    with pytest.raises(RunError, match="damaged"):
        render_shards(tmp_path, SMALL, shards_of(SMALL, 0, 1))


@pytest.mark.parametrize("ending", ["npz", "image.npy"])
def test_damaged_files(tmp_path: Path, folder: Path, ending: str):
    for path in folder.glob(f"{TRAINING_SEEDS}.*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    path = tmp_path / f"{TRAINING_SEEDS}.{ending}"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(InputError, match=f"shard {TRAINING_SEEDS} .* is damaged; delete its files"):
        Shards(tmp_path)[0]


def test_seeds_are_kept_apart():
    assert shards_of(SMALL, 4, 5) == [TRAINING_SEEDS + i for i in (4, 6, 8)]
    assert shards_of(SMALL, 0, 2, validation=True) == [VALIDATION_SEEDS]
    last = LAST_SEED - TRAINING_SEEDS - 2
    assert shards_of(SMALL, last, 2) == [LAST_SEED - 2]
    for seed, clips, validation in ((last, 3, False), (TEST_SEEDS - VALIDATION_SEEDS, 1, True)):
        with pytest.raises(SettingError, match="000000 seeds"):
            shards_of(SMALL, seed, clips, validation=validation)
    for seed, clips in ((1, 2), (-2, 2), (0, 0)):
        with pytest.raises(SettingError):
            shards_of(SMALL, seed, clips)


def test_paces_differ_from_clip_to_clip():
    paces = [SMALL.pace(seed) for seed in range(300)]
    assert set(paces) == set(range(1, 8))
    assert paces.count(1) > paces.count(6)
    assert {replace(SMALL, fastest=1).pace(seed) for seed in range(50)} == {1}


@pytest.mark.parametrize(
    "changes",
    [{"frames": 0}, {"size": (15, 24)}, {"samples": 0}, {"fastest": 0}, {"moving": 2.0},
     {"renderer": "slow"}, {"per_shard": 0}],
    ids=str,
)  # fmt: skip
def test_settings_that_make_no_sense(changes: dict):
    with pytest.raises(SettingError):
        replace(SMALL, **changes)


WORDS = ["--frames", "2", "--size", "16x24", "--samples", "1", "--per-shard", "2"]


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], folder: Path):
    words = ["render", str(tmp_path / "a"), "--clips", "2", *WORDS, "--seed", "2"]
    assert main(words) == 0
    assert "rendered 1 of 1" in capsys.readouterr().out
    assert np.array_equal(Shards(tmp_path / "a")[0].image, Shards(folder)[2].image)
    assert main([*words, "--validation"]) == 0
    assert len(Shards(tmp_path / "a")) == 4
    assert main([*words, "--size", "16"]) == 2
    assert "such as 96x128" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="sends a signal as a terminal does")
def test_ctrl_c_stops_the_processes(tmp_path: Path):
    """And a second call goes on; the processes are given far more than they can finish."""
    command = [sys.executable, "-m", "ttt3r.training", "render", str(tmp_path), "--workers", "2"]
    with started(
        [*command, "--clips", "20000", *WORDS], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:  # fmt: skip
        wait_until(lambda: list(tmp_path.glob("*.npz")), process)
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors and "the same command goes on" in errors
    assert not list(tmp_path.glob(".*.tmp"))
    assert len(Shards(tmp_path)) >= 2
    assert Shards(tmp_path)[0].image.any()
