"""Writing behind: waiting, errors and interrupts."""

import errno
import threading
from pathlib import Path

import pytest
from PIL import Image

from tests.exporters.test_exporters import prediction
from ttt3r.errors import RunError
from ttt3r.exporters import export
from ttt3r.exporters.behind import THREADS, WAITING, behind


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
    def full(*words: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(RunError, match="No space left on device"):
        export([prediction(index) for index in range(3)], "depth", tmp_path / "a")
    assert list(tmp_path.iterdir()) == []
