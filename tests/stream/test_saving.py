"""Saved sessions: what a damaged or foreign file gives is a SessionError, never wrong numbers."""

import json
import os
import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.mutations import counts, mutated
from tests.networks import random_tiny
from tests.stream.test_session import assert_same, images
from ttt3r import weights
from ttt3r.errors import SessionError
from ttt3r.stream import base
from ttt3r.stream.base import SessionBase, Settings
from ttt3r.stream.clips import ClipSession
from ttt3r.stream.session import Session
from ttt3r.tensor_files import KEY, encode_header

# One state of each form: tokens, pointers, caches, images, and what two clips share.
STREAMS = {
    "cut3r": ("tiny-dpt", "damped(ttt3r, 0.5)"),
    "point3r": ("tiny-point3r", "fuse"),
    "streamvggt": ("tiny-streamvggt", "diverse(3)"),
    "vggt": ("tiny-vggt", "window(2)"),
}


def saved(kind: str, path: Path) -> SessionBase:
    """A session that has seen three frames, and is saved at `path`."""
    if kind == "clips":
        session = ClipSession(weights.load("tiny-fast3r", "cpu"), reset=2)
        clip = [torch.rand(3, 32, 48) for _ in range(2)]
        list(session.stream(clip))
    else:
        name, rule = STREAMS[kind]
        model = weights.load(name, "cpu")
        side = 2 * model.preparation.patch
        session = Session(model, rule)
        for _ in range(3):
            session.push(torch.rand(3, side, side))
    session.save(path)
    return session


@pytest.mark.parametrize("count", counts(2_000))
@pytest.mark.parametrize("kind", [*STREAMS, "clips"])
def test_a_damaged_session_is_refused_or_equal(kind, tmp_path, count):
    """Seeded mutations; what still loads is what was saved."""
    path, generator = tmp_path / "session", random.Random(0)
    session = saved(kind, path)
    intact, state = path.read_bytes(), session.state.to_tensors()
    assert type(session).load(path, session.model).index == session.index
    refused = 0
    for _ in range(count):
        content = mutated(intact, generator)
        path.write_bytes(content)
        try:
            loaded = type(session).load(path, session.model)
        except SessionError:
            refused += 1
            continue
        again = loaded.state.to_tensors()
        for name, tensor in state.items():  # a pose that could not be found is NaN
            torch.testing.assert_close(again[name], tensor, rtol=0, atol=0, equal_nan=True)
        assert (loaded.index, loaded.segment) == (session.index, session.segment)
        assert (loaded.rule, loaded.reset, loaded.outputs) == (
            session.rule,
            session.reset,
            session.outputs,
        )
    assert refused > count / 2


def forge(path: Path, **changes) -> None:
    """Write other header fields with a checksum that fits, as another program could."""
    header, tensors = base.read_tensors(path, base._Header)
    forged = replace(header, checksum=0, **changes)
    forged = replace(forged, checksum=base._checksum(forged, tensors))
    save_file(tensors, path, {KEY: encode_header(forged).decode()})


def test_a_session_with_a_rule_that_is_not_known_here_is_refused(tmp_path):
    session = saved("cut3r", tmp_path / "session")
    settings = dict(reset="never", stitch="pose", outputs=("points", "pose"))
    forge(tmp_path / "session", settings=Settings(rule="newest(3)", **settings))
    with pytest.raises(SessionError, match=r"cannot be resumed: unknown rule 'newest'"):
        Session.load(tmp_path / "session", session.model)


def test_a_tilde_stands_for_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    session = saved("cut3r", Path("~/session"))
    assert (tmp_path / "session").is_file()
    assert Session.load("~/session", session.model).index == session.index


def test_a_name_that_cannot_be_read_back_is_refused(tmp_path):
    with pytest.raises(SessionError, match="not valid UTF-8"):
        saved("cut3r", tmp_path / os.fsdecode(b"caf\xe9"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("header", [None, "[]", "{}", "7", json.dumps({"format": "other"})])
def test_files_that_are_no_sessions(header, tmp_path):
    path = tmp_path / "file"
    save_file({"a": torch.zeros(2)}, path, None if header is None else {KEY: header})
    with pytest.raises(SessionError, match="is not a session of this version"):
        Session.load(path, random_tiny())
    assert load_file(path)  # the file itself is fine


@pytest.mark.parametrize("content", [b"", b"\0" * 8, b"\xff" * 64])
def test_files_that_are_no_tensors(content, tmp_path):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(SessionError, match="damaged"):
        Session.load(tmp_path / "file", random_tiny())
    with pytest.raises(SessionError, match="No such file"):
        Session.load(tmp_path / "missing", random_tiny())


def test_a_frame_that_meets_a_fresh_state_has_no_gate(tmp_path):
    """The first that is remembered, and those before it; also when saved in between."""
    model, stream = random_tiny(), images(6)
    session = Session(model, "ttt3r", reset=4)
    remembered = [False, True, True, False, False, True]
    gates = []
    for image, update in zip(stream, remembered, strict=True):
        session.save(tmp_path / "session")
        session = Session.load(tmp_path / "session", model)
        gates.append(session.push(image, update=update).gate is not None)
    # The fourth frame ends the segment unremembered, so the new one starts with nothing too.
    assert gates == [False, False, True, True, False, False]


def test_the_first_pushed_frame_of_a_later_segment_has_a_gate():
    """It is the second that the new state sees: the last frame of the old segment comes first."""
    session = Session(random_tiny(), "ttt3r", reset=2)
    gates = [session.push(image).gate is not None for image in images(5)]
    assert gates == [False, True, True, True, True]


def test_results_lie_on_one_device():
    prediction = Session(random_tiny(), outputs=("points", "pose", "world", "rgb")).push(
        images(1)[0]
    )
    assert {tensor.device.type for tensor in prediction.tensors().values()} == {"cpu"}
    moved = prediction.to("meta")
    assert {tensor.device.type for tensor in moved.tensors().values()} == {"meta"}
    assert moved.image.device.type == "meta" and moved.index == prediction.index
    assert_same(prediction.to("cpu"), prediction)
