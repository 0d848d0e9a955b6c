"""Whatever ``torch.load(weights_only=True)`` takes, our reader takes, with the same tensors."""

import contextlib
import logging
import sys
import types
import warnings
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.weights.conftest import TINY_LINEAR, save, tiny_tensors
from ttt3r.checkpoints.reading import Checkpoint, read_checkpoint
from ttt3r.errors import WeightsError
from ttt3r.weights import load, read_weights


class OwnParameter(nn.Parameter):
    """A class of a training's own; ``torch.save`` writes it as a plain parameter."""


class TrainingState:
    """A class that only the training's own code knows."""


def with_attribute() -> Tensor:
    tensor = torch.ones(3)
    tensor.note = "scaled"  # pyright: ignore[reportAttributeAccessIssue]
    return tensor


def parameter_with_attribute() -> nn.Parameter:
    parameter = nn.Parameter(torch.ones(3))
    parameter.shared = True  # pyright: ignore[reportAttributeAccessIssue]
    return parameter


def quantised() -> Tensor:
    return torch.quantize_per_tensor(torch.ones(4), 0.1, 0, torch.qint8)


# What lies in a checkpoint beside its tensors, or among them.
OBJECTS: dict[str, Callable[[], Any]] = {
    "dtypes": lambda: [torch.float32, torch.bfloat16, torch.float8_e4m3fn, torch.uint4, torch.bool],
    "quantised types": lambda: [torch.qint8, torch.quint4x2, torch.per_tensor_affine],
    "complex types": lambda: [torch.complex64, torch.complex32],
    "Size": lambda: torch.Size([1, 2]),
    "device": lambda: torch.device("cuda:1"),
    "layout": lambda: torch.sparse_coo,
    "Counter": lambda: Counter("abca"),
    "OrderedDict": lambda: OrderedDict(a=1, b=(2, 3)),
    "set": lambda: {1, 2},
    "bytearray": lambda: bytearray(b"ab"),
    "bytes": lambda: b"ab\xff",
    "complex": lambda: 1j,
    "nested key": lambda: {((1, 2), 3): 4},
    "large integer": lambda: 2**80,
    "OwnParameter": lambda: OwnParameter(torch.ones(2)),
    "Buffer": lambda: nn.Buffer(torch.ones(2)),
    "with attribute": with_attribute,
    "parameter with attribute": parameter_with_attribute,
    "float8": lambda: torch.tensor([0.5, 1.0]).to(torch.float8_e4m3fn),
    "uint16": lambda: torch.tensor([1, 40_000], dtype=torch.uint16),
    "complex tensor": lambda: torch.tensor([1 + 2j]),
    "conjugated": lambda: torch.tensor([1 + 2j]).conj(),
    "negated": lambda: torch.tensor([1 + 2j]).conj().imag,
    "sparse": lambda: torch.eye(3).to_sparse(),
    "sparse rows": lambda: torch.eye(3).to_sparse_csr(),
    "quantised": quantised,
    "nested tensor": lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
    "meta": lambda: torch.empty(3, device="meta"),
    "typed storage": lambda: torch.zeros(3).storage(),
    "untyped storage": lambda: torch.zeros(3).untyped_storage(),
}
# Harmless too, although PyTorch's own reader wants them named first.
MORE: dict[str, Callable[[], Any]] = {
    "defaultdict": lambda: defaultdict(list, a=[1]),
    "defaultdict of integers": lambda: defaultdict(int, a=1),
    "frozenset": lambda: frozenset({1}),
    "Path": lambda: Path("runs/1"),
}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Odd tensors are deprecated, prototypes or in beta, but people's files have them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def make(name: str) -> Any:
    with quiet():
        return OBJECTS[name]()


def write(content: Any, path: Path, legacy: bool = False) -> Path:
    with quiet():
        torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    return path


def oracle(path: Path) -> Any:
    with quiet():
        return torch.load(path, weights_only=True, map_location="cpu")


def assert_like_torch(path: Path, name: str) -> Checkpoint:
    """Compare the tensors of "model"; what was left out is never a plain tensor."""
    expected, found = oracle(path)["model"], read_checkpoint(path)
    assert found.tensors.keys() | found.left_out.keys() == expected.keys()
    for key, tensor in found.tensors.items():
        assert tensor.dtype == expected[key].dtype
        assert torch.equal(tensor.view(torch.uint8), expected[key].view(torch.uint8)), name
    return found


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("name", OBJECTS)
def test_objects_beside_and_among_the_tensors(name: str, legacy: bool, tmp_path: Path) -> None:
    plain = {"a": torch.arange(3.0)}
    value = make(name)
    if legacy and name == "nested tensor":  # its sizes are written from memory never set
        path = write({"model": plain | {"odd": value}}, tmp_path / "a.pth", legacy)
        assert torch.equal(read_checkpoint(path).tensors["a"], plain["a"])
        return
    try:
        path = write({"side": value, "model": plain}, tmp_path / "a.pth", legacy)
        oracle(path)
    except (RuntimeError, NotImplementedError, AttributeError) as error:
        assert legacy, error  # the older format cannot hold everything
        return
    assert_like_torch(path, name)
    path = write({"model": plain | {"odd": value}}, tmp_path / "b.pth", legacy)
    found = assert_like_torch(path, name)
    assert "a" in found.tensors
    readable = {"OwnParameter", "Buffer", "with attribute", "parameter with attribute", "float8"}
    assert ("odd" in found.tensors) == (name in readable | {"uint16", "complex tensor"})


@pytest.mark.parametrize("name", MORE)
def test_more_is_harmless(name: str, tmp_path: Path) -> None:
    path = write({"side": MORE[name](), "model": {"a": torch.ones(1)}}, tmp_path / "a.pth")
    assert set(read_checkpoint(path).tensors) == {"a"}


@pytest.mark.parametrize("kind", ["PosixPath", "WindowsPath", "PurePosixPath"])
def test_paths_of_python_3_13_are_harmless(kind: str, tmp_path: Path) -> None:
    class Written:
        def __reduce__(self) -> Any:
            return stand_in, ("runs", "1")

    stand_in = type(kind, (), {})
    stand_in.__module__ = "pathlib._local"

    module = types.ModuleType("pathlib._local")
    setattr(module, kind, stand_in)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "pathlib._local", module)
        path = write({"out": Written(), "model": {"a": torch.ones(1)}}, tmp_path / "a.pth")
    assert b"pathlib._local" in path.read_bytes()
    assert set(read_checkpoint(path).tensors) == {"a"}


LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.binary(min_size=1, max_size=5),
) | st.sampled_from([name for name in OBJECTS if "storage" not in name]).map(make)
KEYS = st.one_of(st.integers(), st.text(max_size=3), st.tuples(st.integers(), st.text(max_size=2)))
TREES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner, inner),
        st.dictionaries(KEYS, inner, max_size=3),
        st.dictionaries(KEYS, inner, max_size=3).map(OrderedDict),
    ),
    max_leaves=8,
)


@settings(max_examples=100, deadline=None)
@given(TREES)
def test_trees_of_them(tmp_path_factory: pytest.TempPathFactory, tree: Any) -> None:
    path = tmp_path_factory.getbasetemp() / "tree.pth"
    write({"side": tree, "model": {"a": torch.arange(3.0), "odd": tree}}, path)
    assert_like_torch(path, "tree")


@pytest.mark.parametrize(
    "content",
    [
        {"model": "name", "state_dict": {"a": torch.ones(1)}},
        {"model": {"name": "x"}, "state_dict": {"a": torch.ones(1)}},
        {"model": {"a": torch.ones(1)}, "state_dict": {"b": torch.ones(1)}},
        {"a": torch.ones(1), "version": 2, "name": "x"},
    ],
)
def test_the_tensors_are_found(content: Any, tmp_path: Path) -> None:
    assert set(read_checkpoint(write(content, tmp_path / "a.pth")).tensors) == {"a"}


def test_classes_of_a_training_are_refused_without_accusing_them(tmp_path: Path) -> None:
    path = write({"model": {"a": torch.ones(1)}, "x": TrainingState()}, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match="Nothing in the file was executed"):
        read_checkpoint(path)


def test_what_is_left_out_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """An entry the network does not need is left out; one that it needs is an error."""
    tensors: dict[str, Any] = {f"module.{k}": v for k, v in tiny_tensors("tiny-linear").items()}
    path = save(tmp_path / "a.pth", tensors | {"module.scale": make("quantised")}, TINY_LINEAR)
    with caplog.at_level(logging.WARNING, "ttt3r.weights"):
        load(path, "cpu")
    assert (
        "left out, since they are not plain tensors: module.scale (a tensor of the form qtensor)"
        in caplog.text
    )
    tensors["module.enc_norm.bias"] = tensors["module.enc_norm.bias"].to_sparse()
    save(path, tensors, TINY_LINEAR)
    with pytest.raises(WeightsError, match=r"stores module\.enc_norm\.bias as a tensor of"):
        read_weights(path)
