"""Clips that are rendered once for all tests of training."""

import pytest

from tests.training.toy import Memory


@pytest.fixture(scope="session")
def clips() -> Memory:
    return Memory.render(first_seed=5, count=6, frames=4)
