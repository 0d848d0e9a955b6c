"""Profiles: which thread did what when, and nothing at all where none is recorded."""

import json
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.networks import random_tiny
from ttt3r import reconstruct
from ttt3r.errors import SettingError
from ttt3r.spans import recording, span, timed

THREADS = {
    "MainThread": {"wait for input", "encode", "step", "heads", "hand over", "wait for writer"},
    "ttt3r-prefetch": {"decode", "prepare"},
    "ttt3r-writer": {"write", "checkpoint"},
}


def by_thread(path: Path) -> dict[str, list[dict[str, Any]]]:
    """The spans of a profile by the name of their thread."""
    events = json.loads(path.read_text("utf-8"))["traceEvents"]
    names = {e["tid"]: e["args"]["name"] for e in events if e["ph"] == "M"}
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in names.values()}
    for event in events:
        if event["ph"] == "X":
            found[names[event["tid"]]].append(event)
    return found


def test_a_run_names_what_its_threads_do(tmp_path: Path):
    images = [np.full((48, 64, 3), value, np.uint8) for value in (10, 90, 200)]
    with recording(tmp_path / "trace.json"):
        list(reconstruct(images, model=random_tiny(), size=64, out=tmp_path / "run"))
    found = by_thread(tmp_path / "trace.json")
    assert {name: {event["name"] for event in spans} for name, spans in found.items()} == THREADS
    main = found["MainThread"]
    assert [event["name"] for event in main].count("encode") == len(images)
    steps, heads = ([e for e in main if e["name"] == name] for name in ("step", "heads"))
    for step, head in zip(steps, heads, strict=True):
        assert step["ts"] <= head["ts"]
        assert head["ts"] + head["dur"] <= step["ts"] + step["dur"] + 1e-3  # microseconds


def test_times_are_microseconds_on_one_clock(tmp_path: Path):
    def other() -> None:
        with span("in another thread"):
            pass

    with recording(tmp_path / "trace.json"):
        with span("outer"), span("inner"):
            time.sleep(0.02)
        assert list(timed("item", "ab")) == ["a", "b"]
        thread = threading.Thread(target=other, name="another")
        thread.start()
        thread.join()
    found = by_thread(tmp_path / "trace.json")
    inner, outer, *items = found["MainThread"]
    assert (inner["name"], outer["name"]) == ("inner", "outer")
    assert [item["name"] for item in items] == ["item"] * 3  # the last finds the end
    assert 2e4 <= inner["dur"] <= outer["dur"]
    assert found["another"][0]["ts"] > items[-1]["ts"]


def test_nothing_is_made_where_nothing_is_recorded():
    assert span("a") is span("b")


def test_an_empty_profile_is_json(tmp_path: Path):
    with recording(tmp_path / "trace.json"):
        pass
    assert by_thread(tmp_path / "trace.json") == {}


def test_what_cannot_be_written_is_refused(tmp_path: Path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "nowhere" / "trace.json", tmp_path / "file" / "trace.json"):
        with pytest.raises(SettingError, match="cannot write the profile"), recording(path):
            pass
    with pytest.raises(SettingError, match="is a folder"), recording(tmp_path):
        pass
    with (
        recording(tmp_path / "a.json"),
        pytest.raises(SettingError, match="already"),
        recording(tmp_path / "b.json"),
    ):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "file"]


def test_a_failure_leaves_an_older_profile(tmp_path: Path):
    path = tmp_path / "trace.json"
    path.write_text("older")
    with pytest.raises(ValueError), recording(path), span("a"):
        raise ValueError
    assert path.read_text() == "older" and span("a") is span("b")
