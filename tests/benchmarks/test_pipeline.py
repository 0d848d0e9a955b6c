"""What the pipeline benchmark reads from a profile, and the command in little."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from benchmarks import pipeline


def event(name: str, start: float, length: float, thread: int = 1) -> dict[str, Any]:
    return {
        "name": name,
        "ph": "X",
        "pid": 0,
        "tid": thread,
        "ts": 1e6 * start,
        "dur": 1e6 * length,
    }


def named(thread: int, name: str) -> dict[str, Any]:
    return {"name": "thread_name", "ph": "M", "tid": thread, "args": {"name": name}}


def test_time_is_split_between_work_and_waiting():
    """The first frame does not count; heads are a part of the step and not time of their own."""
    trace = {
        "traceEvents": [
            named(1, pipeline.NETWORK), named(2, "ttt3r-writer"),
            event("encode", 0, 5), event("hand over", 5, 1),
            event("wait for input", 6, 1), event("encode", 7, 2), event("heads", 10, 1),
            event("step", 9, 3), event("hand over", 12, 1), event("wait for writer", 14, 2),
            event("write", 6, 9, thread=2),
        ]
    }  # fmt: skip
    found = pipeline.digest(trace)
    assert (found["frames"], found["seconds"]) == (1, 10)
    assert found["network"] == {
        "encode": 2, "step": 3, "hand over": 1, "wait for input": 1, "wait for writer": 2, "rest": 1
    }  # fmt: skip
    assert found["waiting"] == pytest.approx(0.3) and found["heads"] == 1
    assert found["beside"]["write"] == 9


def test_the_command_runs_ttt3r(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    kept = tmp_path / "kept.json"
    words = ["--model", "tiny-dpt", "--no-summary", "--size", "32"]
    pipeline.main(["--frames", "3", "--json", str(kept), "--", *words])
    printed = capsys.readouterr().out
    assert "after the first of 3; the network waits" in printed
    found = json.loads(kept.read_text())
    assert found["frames"] == 2 and found["processor_seconds"] > 0
    assert found["network"]["step"] > 0 and found["beside"]["write"] > 0


def test_one_frame_is_too_few(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        pipeline.main(["--frames", "1"])
    assert "two frames" in capsys.readouterr().err


def test_a_failing_command_is_no_measurement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    failed = subprocess.CompletedProcess([], 2)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(RuntimeError, match="status 2"):
        pipeline.run_command([str(tmp_path / "nothing.mp4")], tmp_path / "trace.json")
