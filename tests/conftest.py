"""Settings for all tests."""

import os
import signal
from functools import lru_cache

import pytest
import torch
from hypothesis import settings

# Small networks are fastest on one thread, unless the variable asks for more. It also reaches the
# processes that tests start.
ALL_THREADS = torch.get_num_threads()
THREADS = int(os.environ.setdefault("OMP_NUM_THREADS", "1"))
torch.set_num_threads(THREADS)

# Shells start background commands (`make test &`) with Ctrl-C ignored, and children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("ttt3r", deadline=None, derandomize=True, max_examples=40)
settings.load_profile("ttt3r")


@pytest.fixture(scope="session", autouse=True)
def synthetic_frames_are_drawn_once():
    """Many tests evaluate on the first frames of the same streams."""
    from ttt3r.evaluation.datasets import synthetic

    drawn = synthetic._frame
    synthetic._frame = lru_cache(maxsize=256)(drawn)
    yield
    synthetic._frame = drawn


@pytest.fixture
def all_threads():
    """Full-size networks get every core."""
    torch.set_num_threads(ALL_THREADS)
    yield
    torch.set_num_threads(THREADS)


@pytest.fixture(autouse=True)
def as_many_threads_as_before():
    """Tests may change the number; results depend on it to the last bit."""
    yield
    torch.set_num_threads(THREADS)
