"""Files of tensors with a header of checked types: the frames of runs, and saved sessions.

They are safetensors files. Reading maps a file into memory: of a large tensor, only the pages that
are looked at are read. The package `safetensors` can do the same, in four times as long for a frame
of a run.
"""

import math
import mmap
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, BinaryIO, TypeVar

import msgspec
import safetensors.torch
import torch
from torch import Tensor

from ttt3r.files import write_atomically

Header = TypeVar("Header")
Natural = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]

KEY = "ttt3r"  # the only one: several would be written in an order that changes from run to run
LONGEST_HEADER = 100_000_000  # bytes; the package `safetensors` reads no longer one either
# What the headers of safetensors files call the types of PyTorch.
TYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "C64": torch.complex64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}


class _Entry(msgspec.Struct):
    """What the header says of a tensor; offsets count from the end of the header."""

    dtype: str
    shape: tuple[Natural, ...]
    data_offsets: tuple[Natural, Natural]


_PARTS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ENTRY = msgspec.json.Decoder(_Entry)
_TEXTS = msgspec.json.Decoder(dict[str, str])
# What reading a damaged file raises, depending on where the damage is.
_FAULTS = (
    OSError,
    ValueError,
    msgspec.MsgspecError,  # a ValueError from msgspec 0.21 on only
    OverflowError,
    RecursionError,
    RuntimeError,
)


def encode_header(header: object) -> bytes:
    """Write a dataclass as JSON; the same for equal values."""
    return msgspec.json.encode(header, order="deterministic")


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], header: object, *, sync: bool = False
) -> None:
    """Write a safetensors file atomically.

    Args:
        path: the file to create or replace.
        tensors: by name; on any device. They may share memory.
        header: a dataclass of plain values.
        sync: also wait until the file is on the disk.

    Raises:
        OSError: if the file cannot be written; an older file there is left as it was.
    """
    here: dict[str, Tensor] = {}
    places: set[int] = set()
    for name, tensor in tensors.items():
        plain = tensor.detach().cpu().contiguous()
        place = plain.untyped_storage().data_ptr()
        here[name] = plain.clone() if place in places else plain  # safetensors refuses shared ones
        places.add(place)
    content = safetensors.torch.save(here, {KEY: encode_header(header).decode()})
    write_atomically(path, lambda file: file.write_bytes(content), sync=sync)


def read_tensors(
    path: Path,
    kind: type[Header],
    only: Collection[str] | None = None,
    *,
    small: bool = False,
) -> tuple[Header, dict[str, Tensor]]:
    """Read what `write_tensors` wrote.

    Args:
        path: the file.
        kind: the header's class; its annotations are checked.
        only: names of the tensors to read; None reads all of them.
        small: copy the tensors, so that those that are kept do not keep the whole file mapped.

    Raises:
        ValueError: if the file cannot be read, is damaged, or has another header. The message says
            why, without the file's name.
    """
    try:
        with open(path, "rb") as file:  # noqa: PTH123 (`Path.open` takes longer)
            if small:
                metadata, tensors = _copied_tensors(file, only)
            else:
                metadata, tensors = mapped_tensors(map_file(file), only)
        return msgspec.json.decode(metadata.get(KEY, "{}"), type=kind), tensors
    except _FAULTS as error:
        raise ValueError(str(error) or type(error).__name__) from error


def map_file(file: BinaryIO) -> mmap.mmap:
    """Map a file into memory; nothing that happens to a tensor can reach the file."""
    return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)


def mapped_tensors(
    mapping: mmap.mmap, only: Collection[str] | None = None
) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Return the metadata and the tensors of a safetensors file without reading the tensors.

    Args:
        mapping: the file.
        only: names of the tensors to return; None means all of them.

    Raises:
        ValueError: if the file is damaged, or a tensor has a type that is not known.
        msgspec.MsgspecError: if the header is not what it must be.
        RuntimeError: if a tensor of no numbers has a shape that cannot be.
    """
    begin = 8 + int.from_bytes(mapping[:8], "little")
    metadata, entries = _checked(mapping[8 : min(begin, 8 + LONGEST_HEADER)], begin, len(mapping))
    tensors: dict[str, Tensor] = {}
    for name, entry in entries.items():
        if only is not None and name not in only:
            continue
        dtype = TYPES[entry.dtype]
        first, last = (begin + offset for offset in entry.data_offsets)
        if first == last:
            tensors[name] = torch.empty(entry.shape, dtype=dtype)
        elif first % dtype.itemsize == 0:
            count = (last - first) // dtype.itemsize
            flat = torch.frombuffer(mapping, dtype=dtype, count=count, offset=first)
            tensors[name] = flat.view(entry.shape)
        else:
            tensors[name] = _tensor(bytearray(mapping[first:last]), entry)
    return metadata, tensors


def _copied_tensors(
    file: BinaryIO, only: Collection[str] | None
) -> tuple[dict[str, str], dict[str, Tensor]]:
    """As `mapped_tensors`, but reads the tensors; nothing else of the file is read."""
    length = int.from_bytes(file.read(8), "little")
    content = file.read(min(length, LONGEST_HEADER))
    metadata, entries = _checked(content, 8 + length, os.fstat(file.fileno()).st_size)
    tensors: dict[str, Tensor] = {}
    for name, entry in entries.items():
        if only is None or name in only:
            first, last = entry.data_offsets
            file.seek(8 + length + first)
            tensors[name] = _tensor(bytearray(file.read(last - first)), entry)
    return metadata, tensors


def _tensor(content: bytearray, entry: _Entry) -> Tensor:
    if not content:
        return torch.empty(entry.shape, dtype=TYPES[entry.dtype])
    return torch.frombuffer(content, dtype=TYPES[entry.dtype]).view(entry.shape)


def _checked(header: bytes, begin: int, size: int) -> tuple[dict[str, str], dict[str, _Entry]]:
    """Metadata, and what is said of each tensor.

    Args:
        header: the text between the first eight bytes and the tensors.
        begin: where it should end.
        size: of the file.
    """
    if not header or len(header) != begin - 8:
        raise ValueError("it is cut off in its header, or is not a safetensors file")
    parts = _PARTS.decode(header)
    metadata = _TEXTS.decode(parts.pop("__metadata__", b"{}"))
    entries = {name: _ENTRY.decode(part) for name, part in parts.items()}
    end = 0
    for name, entry in sorted(entries.items(), key=_offsets):
        dtype, (first, last) = TYPES.get(entry.dtype), entry.data_offsets
        if dtype is None:
            raise ValueError(f"{name} is of the type {entry.dtype}, which is not known")
        if first != end or last - first != math.prod(entry.shape) * dtype.itemsize:
            raise ValueError(f"{name} is not where, or not as large as, the header says")
        end = last
    if begin + end != size:
        raise ValueError(f"it has {size:,} bytes instead of {begin + end:,}")
    return metadata, entries


def _offsets(item: tuple[str, _Entry]) -> tuple[int, int]:
    return item[1].data_offsets
