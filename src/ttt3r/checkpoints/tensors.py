"""Tensors of a pickle that was read as data: their forms, and the bytes they stand for."""

import math
import mmap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ttt3r.checkpoints.pickles import Instance, Persistent, PickleError, Symbol

STORAGE_DTYPES = {
    "Double": torch.float64,
    "Float": torch.float32,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
    "ComplexDouble": torch.complex128,
    "ComplexFloat": torch.complex64,
    "QInt8": torch.qint8,
    "QInt32": torch.qint32,
    "QUInt8": torch.quint8,
    "QUInt4x2": torch.quint4x2,
    "QUInt2x4": torch.quint2x4,
    "Untyped": torch.uint8,
}
# Types without a storage class of their own; tensors of them name the type themselves.
NEWER_DTYPES = {
    str(dtype): dtype
    for dtype in (
        torch.uint16,
        torch.uint32,
        torch.uint64,
        torch.float8_e4m3fn,
        torch.float8_e4m3fnuz,
        torch.float8_e5m2,
        torch.float8_e5m2fnuz,
    )
}
REBUILD = "torch._utils._rebuild_"
PLAIN = {f"{REBUILD}{name}" for name in ("tensor", "tensor_v2", "tensor_v3")}
PARAMETERS = {
    f"{REBUILD}parameter",
    f"{REBUILD}parameter_with_state",
    "torch.nn.parameter.Parameter",
}
FROM_TYPE = "torch._tensor._rebuild_from_type_v2"


@dataclass(frozen=True)
class Archive:
    """An opened checkpoint.

    Attributes:
        root: what its pickle holds.
        mapping: the file's bytes.
        locate: where the storage of a key begins, in bytes; raises `PickleError` where it is
            missing or shorter than a number of bytes.
    """

    root: Any
    mapping: mmap.mmap
    locate: Callable[[str, int], int]


def plain_form(item: Any) -> Any:
    """Return the tensor inside a parameter, or inside a tensor with attributes."""
    while isinstance(item, Instance):
        if item.symbol.name in PARAMETERS and item.arguments:
            item = item.arguments[0]
            continue
        match item.symbol.name, item.arguments:
            case str(name), (Symbol() as rebuild, _, tuple() as arguments, *_) if name == FROM_TYPE:
                item = Instance(rebuild, arguments)
            case _:
                return item
    return item


def is_tensor(item: Any) -> bool:
    """Whether an object of a pickle is a tensor, of whatever form."""
    item = plain_form(item)
    return isinstance(item, Instance) and item.symbol.name.startswith(REBUILD)


def unreadable_form(item: Any) -> str | None:
    """Say what an object is that `read_tensor` does not read; None if it does read it."""
    item = plain_form(item)
    if not is_tensor(item):
        return "not a tensor"
    name = item.symbol.name
    if name not in PLAIN:
        return f"a tensor of the form {name.removeprefix(REBUILD)}"
    has_type = name.endswith("v3")
    if len(item.arguments) > 6 + has_type and item.arguments[6 + has_type]:
        return "a tensor marked as negated or conjugated"
    match item.arguments:
        case (_, _, _, _, _, _, Symbol(dtype), *_) if has_type and dtype not in NEWER_DTYPES:
            return f"a tensor of the type {dtype}"
        case (Persistent(("storage", Symbol(kind), *_)), *_) if kind.startswith("torch.Q"):
            return "a quantised tensor"
    return None


def storage_of(reference: Any) -> tuple[torch.dtype, str, int]:
    """Type, key and number of elements of a storage that a pickle refers to.

    Raises:
        PickleError: if the reference is of another form.
    """
    match reference:
        case Persistent(("storage", Symbol(name), str(key), _, int(count), *views)):
            kind = name.rpartition(".")[2].removesuffix("Storage")
            # Views of storages are from before PyTorch 0.4.
            if kind in STORAGE_DTYPES and count >= 0 and not any(views):
                return STORAGE_DTYPES[kind], key, count
    raise PickleError("a tensor's storage has an unknown form")


def read_tensor(archive: Archive, item: Any) -> Tensor:
    """Make a tensor of the bytes that `item` describes; a view of the file where that is possible.

    Raises:
        PickleError: if `item` is damaged, or describes more than the file holds.
    """
    item = plain_form(item)
    if not isinstance(item, Instance) or item.symbol.name not in PLAIN or len(item.arguments) < 4:
        raise PickleError("a tensor has an unknown form")
    storage, offset, size, stride = item.arguments[:4]
    dtype, key, count = storage_of(storage)
    if item.symbol.name.endswith("v3"):  # its storage counts bytes
        named = item.arguments[6] if len(item.arguments) > 6 else None
        if dtype != torch.uint8 or not isinstance(named, Symbol) or named.name not in NEWER_DTYPES:
            raise PickleError("a tensor has an unknown form")
        dtype = NEWER_DTYPES[named.name]
        count //= dtype.itemsize
    if not _is_sizes((offset,)) or not _is_sizes(size) or not _is_sizes(stride):
        raise PickleError("a tensor has an unknown form")
    elements = math.prod(size)
    reach = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=False)) + 1
    if len(size) != len(stride) or elements > count or (elements and reach > count):
        raise PickleError("a tensor is larger than its storage")
    if elements == 0:
        return torch.empty(size, dtype=dtype)
    span = count * dtype.itemsize
    start = archive.locate(key, span)
    flat = (
        torch.frombuffer(archive.mapping, dtype=dtype, count=count, offset=start)
        if start % dtype.itemsize == 0
        else torch.frombuffer(bytearray(archive.mapping[start : start + span]), dtype=dtype)
    )
    return flat.as_strided(size, stride, offset)


def _is_sizes(item: Any) -> bool:
    return isinstance(item, tuple) and all(type(n) is int and 0 <= n < 2**48 for n in item)
