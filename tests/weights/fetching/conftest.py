"""Servers, a weights folder, and no patience."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.weights.fetching.servers import Server, serving
from ttt3r.weights.fetching import obtain
from ttt3r.weights.fetching.web import Patience

HASTE = Patience(silence=5.0, window=5.0, least=1, tries=3, pause=0.0, longest_pause=0.0)
FOREIGN = ("HF_ENDPOINT", "HF_TOKEN", "HF_HUB_OFFLINE", "HF_HUB_CACHE", "HF_HOME", "TORCH_HOME")
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty weights folder; nothing of the user is seen, and nothing waits for long."""
    for name in (*FOREIGN, *PROXIES, *(name.upper() for name in PROXIES)):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("TTT3R_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setattr(obtain, "PATIENCE", HASTE)
    return tmp_path / "weights"


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


@pytest.fixture(scope="session")
def content() -> bytes:
    return random.Random(0).randbytes(1_500_000)
