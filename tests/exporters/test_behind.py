"""Writing behind: pictures as Pillow reads them, waiting, errors and interrupts."""

import errno
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PillowImage

from tests.exporters.test_exporters import prediction
from ttt3r.errors import RunError
from ttt3r.exporters import depth, export
from ttt3r.exporters.behind import THREADS, WAITING, behind
from ttt3r.exporters.png import write_png16


@pytest.mark.parametrize("shape", [(1, 1), (5, 3), (64, 48)])
def test_pillow_reads_the_picture(tmp_path: Path, shape: tuple[int, int]):
    values = np.random.default_rng(0).integers(0, 2**16, shape, np.uint16)
    for number, item in enumerate((values, values[:, ::-1], np.full(shape, 700, np.uint16))):
        write_png16(tmp_path / f"{number}.png", item)
        with PillowImage.open(tmp_path / f"{number}.png") as picture:
            assert picture.mode == "I;16"
            np.testing.assert_array_equal(np.asarray(picture), item)


def test_all_is_done_and_no_more_than_a_few_wait():
    done, gate, given = [], threading.Event(), 0

    def slow(number: int) -> None:
        assert gate.wait(10)
        done.append(number)

    with behind() as calls:
        for number in range(WAITING):
            calls.do(lambda number=number: slow(number))
            given += 1
        assert done == []
        gate.set()
        for number in range(WAITING, 20):
            calls.do(lambda number=number: slow(number))
            given += 1
            assert given - len(done) <= WAITING + THREADS
    assert sorted(done) == list(range(20))


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "no room"), KeyboardInterrupt()])
def test_what_a_call_raises_comes_out_and_nothing_runs_on(error: BaseException):
    def fail() -> None:
        raise error

    before = threading.active_count()
    with pytest.raises(type(error)), behind() as calls:
        calls.do(fail)
    with pytest.raises(type(error)), behind() as calls:
        for _ in range(10):
            calls.do(lambda: None)
        raise error
    assert threading.active_count() == before


def test_a_full_disk_while_writing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(path: Path, values: np.ndarray) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(depth, "write_png16", full)
    with pytest.raises(RunError, match="No space left on device"):
        export([prediction(index) for index in range(3)], "depth", tmp_path / "a")
    assert list(tmp_path.iterdir()) == []
