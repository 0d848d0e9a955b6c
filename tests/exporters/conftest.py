"""A rendered clip that several tests export."""

import pytest

from tests.exporters.truth import render
from ttt3r.scenes.clip import Clip


@pytest.fixture(scope="session")
def clip() -> Clip:
    return render()
