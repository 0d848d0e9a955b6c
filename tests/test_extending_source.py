"""A source from outside the package: three members are all that is needed, and no registration."""

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ttt3r
from ttt3r.errors import RunError, SettingError
from ttt3r.runs.folder import RunFolder
from ttt3r.runs.reader import Run
from ttt3r.sources import Source, open_source

PACKAGE = Path(ttt3r.__file__).parent


@dataclass(frozen=True)
class Noise:
    """A few frames of noise, the same ones each time."""

    seed: int = 0
    length: int = 4

    def describe(self) -> dict[str, Any]:
        return {"kind": "noise", "seed": self.seed}

    def frames(self, start: int = 0) -> Iterator[ttt3r.Frame]:
        for index in range(start, self.length):
            rng = np.random.default_rng((self.seed, index))
            image = rng.integers(0, 255, (48, 64, 3), np.uint8)
            yield ttt3r.Frame(image, index, index / 10, name=f"noise {index}")


def test_it_opens_and_can_be_turned_and_cropped():
    assert isinstance(Noise(), Source)
    assert open_source(Noise()) == Noise()
    turned = open_source(Noise(), rotate=90, crop="1:1")
    assert next(turned.frames(2)).image.shape == (48, 48, 3)
    assert turned.describe() == {"kind": "noise", "seed": 0, "arranged": ["rotate 90", "crop 1:1"]}


@pytest.mark.parametrize(
    "settings", [{"stride": 2}, {"start": 1.0}, {"end": 1.0}, {"fps": 10.0}, {"video_stream": 0}]
)
def test_what_belongs_to_the_source_is_refused(settings):
    with pytest.raises(SettingError, match="belong to the source"):
        open_source(Noise(), **settings)


def test_a_run_takes_it_stops_and_goes_on(tmp_path):
    model, out = ttt3r.load("tiny-linear"), tmp_path / "run"
    with ttt3r.reconstruct(Noise(), model=model, size=64, out=out) as first:
        assert [next(first).index, next(first).index] == [0, 1]
    with pytest.raises(RunError, match="seed"):
        ttt3r.reconstruct(Noise(seed=1), model=model, size=64, out=RunFolder(out, resume=True))
    rest = list(ttt3r.reconstruct(Noise(), model=model, size=64, out=RunFolder(out, resume=True)))
    assert [prediction.index for prediction in rest] == [2, 3]
    whole = Run.open(out)
    assert len(whole) == 4 and [round(p.timestamp, 6) for p in whole] == [0, 0.1, 0.2, 0.3]


def test_no_file_of_the_package_names_it():
    words = ["grep", "-rlw", "Noise(", str(PACKAGE), "--include=*.py"]
    assert subprocess.run(words, check=False, capture_output=True, text=True).stdout == ""
