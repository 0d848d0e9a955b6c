"""The benchmark of the viewer in little: without the client, which is a process of its own."""

import contextlib
import queue
from collections.abc import Iterator

import pytest

from benchmarks import viewer
from ttt3r.runs.facts import Facts
from ttt3r.viewer.live import LiveViewer
from ttt3r.viewer.server import Address


@contextlib.contextmanager
def alone() -> Iterator[LiveViewer]:
    with LiveViewer(Facts("benchmark"), Address(port=0)) as made:
        yield made


def test_in_little(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(viewer, "watched", alone)
    sizes: queue.Queue[list[int]] = queue.Queue()
    viewer.memory(10, sizes)
    assert len(sizes.get()) == 10
    result = viewer.rates(2, 1)
    assert set(result["ratio_medians"]) == {"fps", "cpu_seconds"} and len(result["pairs"]) == 1
    assert "fps" in capsys.readouterr().err
