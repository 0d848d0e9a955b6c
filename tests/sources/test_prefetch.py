"""Running ahead in a thread: same items, bounded, errors in order, and no thread left behind."""

import gc
import subprocess
import sys
import threading
import time

import pytest

from ttt3r.errors import SettingError
from ttt3r.sources import prefetch


def workers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "ttt3r-prefetch"]


def wait_until(condition) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    gc.collect()
    wait_until(lambda: not workers())


class Counter:
    """Counts what was asked of it; can fail at an item, and notes when it is closed."""

    def __init__(self, count: int, fail_at: int | None = None) -> None:
        self.asked = 0
        self.closed = False
        self.count = count
        self.fail_at = fail_at

    def __iter__(self):
        return self

    def __next__(self) -> int:
        if self.asked == self.fail_at:
            raise ValueError("broken item")
        if self.asked == self.count:
            raise StopIteration
        self.asked += 1
        return self.asked - 1

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize("depth", [1, 2, 7])
@pytest.mark.parametrize("count", [0, 1, 50])
def test_same_items_in_the_same_order(depth, count):
    items = Counter(count)
    assert list(prefetch(items, depth)) == list(range(count))
    assert items.closed and not workers()
    assert list(prefetch(range(count), depth)) == list(range(count))


@pytest.mark.parametrize("depth", [1, 3])
def test_never_more_than_depth_items_wait(depth):
    items = Counter(1000)
    ahead = prefetch(items, depth)
    assert items.asked == 0  # nothing runs before the first item is asked for
    for taken in range(1, 30):
        next(ahead)
        wait_until(lambda taken=taken: items.asked == taken + depth)
        time.sleep(0.003)
        assert items.asked == taken + depth
    ahead.close()


def test_an_error_comes_after_the_good_items():
    items = Counter(10, fail_at=4)
    found = []
    with pytest.raises(ValueError, match="broken item"):
        for item in prefetch(items, 2):
            time.sleep(0.005)
            found.append(item)
    assert found == [0, 1, 2, 3]
    assert items.closed and not workers()


def test_something_that_cannot_be_iterated():
    with pytest.raises(TypeError):
        next(prefetch(3))  # type: ignore[arg-type]


def test_closing_stops_the_thread_and_closes_the_items():
    items = Counter(1000)
    ahead = prefetch(items, 3)
    next(ahead)
    wait_until(lambda: items.asked == 4)  # the thread now waits for room
    ahead.close()
    assert items.closed and not workers()
    assert items.asked == 4


def test_dropping_stops_the_thread():
    items = Counter(1000)
    ahead = prefetch(items)
    next(ahead)
    del ahead
    gc.collect()
    wait_until(lambda: items.closed and not workers())


def test_an_error_of_the_consumer_stops_the_thread():
    items = Counter(1000)
    with pytest.raises(KeyboardInterrupt):
        for _ in prefetch(items):
            raise KeyboardInterrupt
    gc.collect()
    wait_until(lambda: items.closed and not workers())


def test_depth_is_checked_at_once():
    with pytest.raises(SettingError, match="at least 1"):
        prefetch([1], 0)


STUCK = """
import threading, time, _thread
from ttt3r.sources.prefetch import prefetch

def camera():
    yield 0
    threading.Event().wait()  # never answers

threading.Timer(0.3, _thread.interrupt_main).start()
try:
    for item in prefetch(camera()):
        pass
except KeyboardInterrupt:
    print("interrupted")
"""


def test_ctrl_c_and_exit_while_the_items_are_stuck():
    result = subprocess.run(
        [sys.executable, "-c", STUCK], capture_output=True, text=True, timeout=120
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "interrupted\n", "")
