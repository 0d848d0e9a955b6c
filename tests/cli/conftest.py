"""Running the command line in this process, and a run to look at."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from tests.sources.clips import write_clip
from ttt3r.cli import main

TINY = ("--model", "tiny-dpt", "--device", "cpu", "--no-summary")


class Result(NamedTuple):
    status: int
    out: str
    err: str

    @property
    def errors(self) -> list[str]:
        return [line for line in self.err.splitlines() if line.startswith("error: ")]


Ttt3r = Callable[..., Result]


@pytest.fixture
def ttt3r(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Ttt3r:
    """Runs `main` in an empty folder; returns its status and what it printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TTT3R_DEBUG", raising=False)

    def run(*words: object) -> Result:
        capsys.readouterr()
        status = main([str(word) for word in words])
        return Result(status, *capsys.readouterr())

    return run


def make_clip(path: Path, count: int) -> Path:
    """Moving stripes at 10 frames per second."""
    stripes = np.indices((48, 64)).sum(0)
    pictures = [
        np.stack([(stripes * 4 + 9 * number) % 256] * 3, axis=2).astype(np.uint8)
        for number in range(count)
    ]
    return write_clip(path, pictures)


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a clip of 12 frames and its run; not to be changed."""
    folder = tmp_path_factory.mktemp("shared")
    clip = make_clip(folder / "walk.mp4", 12)
    out = folder / "run"
    assert main(["run", str(clip), *TINY, "--out", str(out), "--reset", "5", "--quiet"]) == 0
    return folder


@pytest.fixture
def clip(shared: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(shared / "walk.mp4", tmp_path / "walk.mp4"))


@pytest.fixture
def finished(shared: Path, tmp_path: Path) -> Path:
    """A run of 12 frames."""
    return Path(shutil.copytree(shared / "run", tmp_path / "finished"))
