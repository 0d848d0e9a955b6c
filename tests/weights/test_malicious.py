"""Files that try to run code, or to exhaust the machine, must be refused without doing it."""

import argparse
import builtins
import contextlib
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ttt3r.checkpoints.names import is_harmless
from ttt3r.checkpoints.pickles import Instance, PickleError, read_pickle
from ttt3r.checkpoints.reading import read_checkpoint
from ttt3r.errors import WeightsError


class Call:
    """Pickles as a call of `function`."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.content = (function, arguments)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.content


def torch_zip(path: Path, data: bytes, **storages: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", data)
        for key, content in storages.items():
            archive.writestr(f"archive/data/{key}", content)
    return path


def text(value: str) -> bytes:
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    return tmp_path / "executed"


def assert_refused(path: Path, marker: Path, match: str) -> None:
    modules = set(sys.modules)
    with pytest.raises(WeightsError, match=match):
        read_checkpoint(path)
    assert not marker.exists()
    assert {name for name in set(sys.modules) - modules if "encodings" not in name} == set()


CALLS: dict[str, Callable[[Path], Any]] = {
    "system": lambda marker: Call(os.system, f"touch {marker}"),
    "popen": lambda marker: Call(subprocess.Popen, ["touch", str(marker)]),
    "eval": lambda marker: Call(builtins.eval, f"open({str(marker)!r}, 'w')"),
    "exec": lambda marker: Call(builtins.exec, f"open({str(marker)!r}, 'w')"),
    "getattr": lambda marker: Call(getattr, Call(__import__, "os"), "system"),
    "open": lambda marker: Call(open, str(marker), "w"),
    "torch.hub": lambda marker: Call(torch.hub.load, "owner/name", "model"),
    "torch.load": lambda marker: Call(torch.load, str(marker)),
    "pickle": lambda marker: Call(pickle.loads, b"payload"),
    "touch": lambda marker: Call(Path.touch, marker),
}


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("name", CALLS)
def test_calls_are_refused(name: str, protocol: int, tmp_path: Path, marker: Path) -> None:
    data = pickle.dumps({"model": {}, "epoch": CALLS[name](marker)}, protocol)
    path = torch_zip(tmp_path / "a.pth", data)
    assert_refused(path, marker, r"its pickle refers to '.+' *, which has no place")


@pytest.mark.parametrize("name", CALLS)
def test_calls_hidden_in_arguments_are_refused(name: str, tmp_path: Path, marker: Path) -> None:
    arguments = argparse.Namespace(model="ARCroco3DStereo()", deep=[{"x": (CALLS[name](marker),)}])
    path = tmp_path / "a.pth"
    torch.save({"args": arguments, "model": {"a": torch.zeros(2)}}, path)
    assert_refused(path, marker, "its pickle refers to")


@pytest.mark.parametrize("legacy", [False, True])
def test_a_call_instead_of_a_tensor_is_refused(legacy: bool, tmp_path: Path, marker: Path) -> None:
    path = tmp_path / "a.pth"
    content = {"model": {"pose_token": Call(os.system, f"touch {marker}")}}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    assert_refused(path, marker, "posix.system|nt.system")


def test_a_plain_pickle_is_refused(tmp_path: Path, marker: Path) -> None:
    path = tmp_path / "a.pth"
    path.write_bytes(pickle.dumps(Call(os.system, f"touch {marker}")))
    assert_refused(path, marker, "posix.system|nt.system")


def handmade(marker: Path) -> dict[str, bytes]:
    command = text(f"touch {marker}")
    namespace = b"cargparse\nNamespace\n"
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n"
    return {
        "global": b"\x80\x02cposix\nsystem\n" + command + b"\x85R.",
        "stack global": b"\x80\x04\x8c\x05posix\x8c\x06system\x93" + command + b"\x85R.",
        "inst": b"(" + command + b"iposix\nsystem\n.",
        "obj": b"(cposix\nsystem\n" + command + b"o.",
        "new object": b"\x80\x02cposix\nsystem\n" + command + b"\x85\x81.",
        "keywords": b"\x80\x04\x8c\x05posix\x8c\x06system\x93" + command + b"\x85}\x92.",
        "dotted": b"\x80\x04\x8c\x08argparse\x8c\x0bNamespace.x\x93"
        + command + b"\x85R.",
        "omegaconf module": b"\x80\x02comegaconf.os\nsystem\n" + command + b"\x85R.",
        "extension registry": b"\x80\x02\x82\x01.",
        "build on a class": b"\x80\x02" + namespace + b"}" + text("__call__") + command + b"sb.",
        "build on a constant": b"\x80\x02" + command + b"}b.",
        "call of a call's result": b"\x80\x02" + namespace + b")R)R.",
        "call of a text": b"\x80\x02" + command + b")R.",
        "tensor of text": b"\x80\x02}" + text("model") + b"}" + text("a") + tensor + command
        + b"\x85Rss.",
        "tensor of nothing": b"\x80\x02}" + text("model") + b"}" + text("a") + tensor + b")Rss.",
        "wrong storage": b"\x80\x02}" + text("model") + b"}" + text("a") + tensor
        + b"(" + command + b"QK\x00K\x02\x85K\x01\x85\x89}tRss.",
        "stack underflow": b"\x80\x02R.",
        "no stop": b"\x80\x02}",
        "unhashable key": b"\x80\x02}]K\x01s.",
        "missing memo": b"\x80\x02h\x07.",
        "huge text": b"\x80\x04\x8d" + struct.pack("<Q", 2**62) + b"x.",
        "stray backslash": b"S'\\q'\n.",
        "huge number": b"I" + b"9" * 10_000 + b"\n.",
    }  # fmt: skip


@pytest.mark.parametrize("name", handmade(Path()))
def test_handmade_pickles_are_refused(name: str, tmp_path: Path, marker: Path) -> None:
    path = torch_zip(tmp_path / "a.pth", handmade(marker)[name])
    assert_refused(path, marker, "was not read|cannot be read")


def test_state_is_recorded_and_never_applied() -> None:
    data = b"\x80\x02cargparse\nNamespace\n)\x81}" + text("__class__") + text("x") + b"sb."
    value = read_pickle(data, is_harmless)
    assert isinstance(value, Instance)
    assert value.state == {"__class__": "x"}


def test_a_call_of_an_allowed_class_with_odd_arguments_is_inert(tmp_path: Path) -> None:
    arguments = Call(argparse.Namespace, 1, 2, 3)
    path = tmp_path / "a.pth"
    torch.save({"args": arguments, "model": {"a": torch.ones(2)}}, path)
    assert read_checkpoint(path).model_string is None


def test_deep_nesting_does_not_exhaust_the_stack() -> None:
    depth = 30_000
    assert isinstance(
        read_pickle(b"\x80\x02" + b"]" * depth + b"a" * (depth - 1) + b".", bool), list
    )
    with pytest.raises(PickleError, match="nested key"):
        read_pickle(b"\x80\x02})" + b"\x85" * depth + b"K\x01s.", is_harmless)
    small = read_pickle(b"\x80\x02})" + b"\x85" * 50 + b"K\x01s.", is_harmless)
    assert list(small.values()) == [1]


def test_a_tensor_cannot_reach_beyond_its_storage(tmp_path: Path) -> None:
    storage = (
        b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + b"K\x04tQ"
    )

    def checkpoint(tail: bytes) -> Path:
        data = (
            b"\x80\x02}" + text("model") + b"}" + text("a")
            + b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + tail + b"\x89}tRss."
        )  # fmt: skip
        return torch_zip(tmp_path / "a.pth", data, **{"0": bytes(16)})

    assert read_checkpoint(checkpoint(b"K\x00K\x04\x85K\x01\x85")).tensors["a"].shape == (4,)
    for tail in (
        b"K\x00K\x05\x85K\x01\x85",  # too long
        b"K\x01K\x04\x85K\x01\x85",  # starts too late
        b"K\x00K\x02\x85K\x04\x85",  # too wide steps
        b"K\x00J\xff\xff\xff\x7f\x85K\x00\x85",  # one value repeated two billion times
        b"K\x00J\xff\xff\xff\xff\x85K\x01\x85",  # a negative size
        b"J\xff\xff\xff\xffK\x02\x85K\x01\x85",  # a negative offset
        b"K\x00K\x02\x85)",  # no strides
    ):
        with pytest.raises(WeightsError, match="tensor"):
            read_checkpoint(checkpoint(tail))


def test_compressed_entries_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(1_000_000))
    with pytest.raises(WeightsError, match="compressed"):
        read_checkpoint(path)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=80))
def test_random_pickles_raise_nothing_but_pickle_errors(data: bytes) -> None:
    with contextlib.suppress(PickleError):
        read_pickle(b"\x80\x02" + data, is_harmless)
