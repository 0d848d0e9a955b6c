"""Files as memory: tensors that are read when they are used, and memory that is given back."""

import json
import mmap
from collections.abc import Callable
from typing import BinaryIO

import torch
from torch import Tensor

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


def map_file(file: BinaryIO) -> mmap.mmap:
    """Map a file into memory; nothing that happens to a tensor can reach the file."""
    return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)


def releaser(mapping: mmap.mmap) -> Callable[[], None]:
    """Return what gives back the memory of a mapped file, where the system can be told so.

    Values that were written to the memory meanwhile are lost.
    """
    advice = getattr(mmap, "MADV_DONTNEED", None)

    def release() -> None:
        if advice is not None:
            mapping.madvise(advice)

    return release


def mapped_tensors(mapping: mmap.mmap) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file whose header was checked, without reading them.

    Raises:
        ValueError: if a tensor has a type that is not known.
    """
    begin = 8 + int.from_bytes(mapping[:8], "little")
    header = json.loads(mapping[8:begin])
    header.pop("__metadata__", None)
    tensors: dict[str, Tensor] = {}
    for key, entry in header.items():
        dtype, shape = TYPES.get(entry["dtype"]), entry["shape"]
        if dtype is None:
            raise ValueError(f"{key} is of the type {entry['dtype']}, which is not known")
        first, last = entry["data_offsets"]
        count, offset = (last - first) // dtype.itemsize, begin + first
        if count == 0:
            tensors[key] = torch.empty(shape, dtype=dtype)
        elif offset % dtype.itemsize == 0:
            flat = torch.frombuffer(mapping, dtype=dtype, count=count, offset=offset)
            tensors[key] = flat.reshape(shape)
        else:
            copy = bytearray(mapping[offset : begin + last])
            tensors[key] = torch.frombuffer(copy, dtype=dtype).reshape(shape)
    return tensors
