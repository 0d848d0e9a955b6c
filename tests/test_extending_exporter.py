"""An exporter from outside the package: one entry in the registry is all that is needed."""

from collections.abc import Iterable
from pathlib import Path

import pytest

import ttt3r
from tests.exporters.test_exporters import make_run, prediction
from ttt3r.cli import main
from ttt3r.exporters import EXPORTERS, Exporter
from ttt3r.types import Prediction


def write_stamps(predictions: Iterable[Prediction], path: Path, *, every: int = 1) -> str:
    """Write the times of frames as text.

    Args:
        predictions: all of them.
        path: file to write.
        every: take every n-th frame,
            from the first.
    """
    stamps = [str(p.timestamp) for p in predictions][::every]
    path.write_text("\n".join(stamps))
    return f"{len(stamps)} times"


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EXPORTERS, "stamps", Exporter(write_stamps, "times as text"))


def test_the_public_function_and_the_command_take_the_exporter(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path / "run", [prediction(index) for index in range(4)])
    assert ttt3r.export(run, "stamps", tmp_path / "a").what == "4 times"
    words = ["export", str(run.folder), "--to", "stamps", "--out", str(tmp_path / "b")]
    assert main([*words, "--every", "2"]) == 0
    assert "2 times" in capsys.readouterr().out
    assert (tmp_path / "b").read_text() == "0.0\n0.2"
    assert main([*words[:2], "--to", "nothing"]) == 2
    assert "stamps" in capsys.readouterr().err
    assert main(["export", "--help"]) == 0
    help_text = " ".join(capsys.readouterr().out.split())
    assert "stamps (times as text)" in help_text
    assert "stamps: take every n-th frame, from the first." in help_text.lower()
