"""A rendered clip that several tests export."""

import pytest

from tests.exporters.truth import render
from ttt3r.scenes.clip import Clip


@pytest.fixture(scope="session")
def clip() -> Clip:
    return render()


@pytest.fixture(autouse=True)
def rerun_is_installed_where_it_writes(request: pytest.FixtureRequest) -> None:
    """Skips what exports to `rrd` where rerun-sdk is not installed."""
    callspec = getattr(request.node, "callspec", None)
    if callspec is not None and "rrd" in callspec.params.values():
        pytest.importorskip("rerun", reason="rerun-sdk is not installed")
