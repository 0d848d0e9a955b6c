"""Reading tensors against the package `safetensors`, which writes them."""

import random
from dataclasses import dataclass
from pathlib import Path

import pytest
import safetensors
import safetensors.torch
import torch
from safetensors import safe_open

from tests.mutations import counts, mutated
from ttt3r.tensor_files import KEY, TYPES, read_tensors, write_tensors


@dataclass(frozen=True)
class Header:
    name: str = ""


def theirs(path: Path) -> dict[str, torch.Tensor]:
    """What the package reads."""
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def assert_equal(got: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    assert got.keys() == wanted.keys()
    for name, tensor in got.items():
        assert tensor.dtype == wanted[name].dtype and tensor.shape == wanted[name].shape
        # As bytes: what damage made of floats may be no number.
        flat, other = tensor.reshape(-1), wanted[name].reshape(-1)
        assert torch.equal(flat.view(torch.uint8), other.view(torch.uint8)), name


@pytest.mark.parametrize("small", [False, True])
def test_all_types_and_shapes(tmp_path: Path, small: bool):
    path = tmp_path / "a"
    tensors = {
        f"{name} {rank}": torch.randint(0, 2, (2, 3, 5)[:rank]).to(dtype)
        for name, dtype in TYPES.items()
        for rank in (0, 1, 3)
    }
    tensors["nothing"] = torch.empty(0, 3)
    write_tensors(path, tensors, Header("a"))
    header, got = read_tensors(path, Header, small=small)
    assert header == Header("a")
    assert_equal(got, theirs(path))
    header, got = read_tensors(path, Header, ("F16 3", "not there"), small=small)
    assert header == Header("a") and list(got) == ["F16 3"]
    got["F16 3"][:] = 7  # reaches the file never
    assert_equal(read_tensors(path, Header)[1], theirs(path))


def test_tensors_between_the_boundaries_of_their_type(tmp_path: Path):
    """As another program may write them."""
    path = tmp_path / "a"
    wanted = {"a": torch.tensor([1, 2, 3], dtype=torch.uint8), "b": torch.tensor([4.0, 5.0])}
    head = b'{"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},'
    head += b'"b":{"dtype":"F32","shape":[2],"data_offsets":[3,11]}}'
    numbers = b"".join(tensor.numpy().tobytes() for tensor in wanted.values())
    path.write_bytes(len(head).to_bytes(8, "little") + head + numbers)
    for small in (False, True):
        assert_equal(read_tensors(path, Header, small=small)[1], wanted)


@pytest.mark.parametrize("count", counts(4_000))
def test_damage_that_is_read_is_harmless(tmp_path: Path, count: int):
    """What is read of damaged files is what the package reads, or the package refuses them."""
    generator = random.Random(0)
    tensors = {"a": torch.rand(3, 2).half(), "b": torch.rand(100), "c": torch.zeros(2).byte()}
    intact = safetensors.torch.save(tensors, {KEY: "{}"})
    refused = agreed = 0
    for number in range(count):
        path = tmp_path / str(number % 2)  # a file that is mapped is not written over
        path.unlink(missing_ok=True)
        path.write_bytes(mutated(intact, generator))
        found = []
        for small in (False, True):
            try:
                found.append(read_tensors(path, Header, small=small)[1])
            except ValueError:
                refused += 1
        assert len(found) != 1
        try:
            wanted = theirs(path)
        except (safetensors.SafetensorError, OSError, RuntimeError):
            continue
        for got in found:
            assert_equal(got, wanted)
            agreed += 1
    assert refused > count / 2 and agreed > count / 20


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"1234567",
        bytes(8),
        (2**63).to_bytes(8, "little") + b"{}",
        b"\x02" + bytes(7) + b"{}more",
        b"\x02" + bytes(7) + b"[]",
    ],
    ids=["empty", "short", "no header", "huge header", "more than it says", "a list"],
)
@pytest.mark.parametrize("small", [False, True])
def test_other_files(tmp_path: Path, content: bytes, small: bool):
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(ValueError, match=r"."):
        read_tensors(tmp_path / "a", Header, small=small)
