"""Settings for all tests."""

import os

import pytest
import torch
from hypothesis import settings

# Small networks are fastest on one thread. The variable is for the processes that tests start.
THREADS = torch.get_num_threads()
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"

settings.register_profile("ttt3r", deadline=None, derandomize=True)
settings.load_profile("ttt3r")


@pytest.fixture(autouse=True)
def all_threads_for_slow_tests(request):
    """Full-size networks get every core."""
    slow = request.node.get_closest_marker("slow")
    torch.set_num_threads(THREADS if slow else 1)
    yield
    torch.set_num_threads(1)
