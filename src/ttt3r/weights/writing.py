"""Write a large safetensors file tensor by tensor, resume after a stop, and read it back."""

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from ttt3r.errors import WeightsError
from ttt3r.files import lock, sync_folder
from ttt3r.weights.network import PRECISIONS, check_finite

# What the header of a safetensors file calls each precision.
CODES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}
RELEASE_EVERY = 16_000_000  # bytes of tensors after which memory is given back
PIECE = 1 << 21  # numbers that are handled at a time

Progress = Callable[[int, int], None]
"""Called with the number of bytes so far and of all of them."""


def write_safetensors(
    path: Path,
    tensors: Mapping[str, Tensor],
    dtype: str,
    metadata: Mapping[str, str],
    release: Callable[[], None],
    progress: Progress,
) -> str:
    """Write tensors one by one to ``NAME.part``, compare the file with them, give it its name.

    An interrupted write is gone on with where the same tensors are written again.

    Args:
        path: the file to make or replace.
        tensors: by name.
        dtype: how to store them, see `CODES`.
        metadata: texts for the header.
        release: gives back the memory of tensors that were used; they are read again if needed.
        progress: is told how far it is, counting what is written and what is compared.

    Returns:
        The SHA-256 of the file.

    Raises:
        WeightsError: if a value is not finite or does not fit into `dtype`, the disk gives back
            something else than was written, or another process writes the file.
        OSError: if the disk is full or fails; nothing is left then.
    """
    header = _header(tensors, dtype, metadata)
    part, guard = (path.with_name(name) for name in (f"{path.name}.part", f".{path.name}.lock"))
    held = lock(guard)
    if held is None:
        raise WeightsError(f"another program is writing {path}; wait until it is done")
    writer = _Writer(tensors, dtype, release, progress, len(header))
    try:
        with part.open("r+b" if part.exists() else "w+b") as file:
            is_resumed = writer.write(file, header)
            digest = writer.compare(file, header)
            if digest is None and is_resumed:  # what was there was not from these tensors
                file.truncate(0)
                writer.write(file, header)
                digest = writer.compare(file, header)
        if digest is None:
            raise WeightsError(f"{part} is not what was written to it; check the disk")
        part.replace(path)
    except (WeightsError, OSError):
        part.unlink(missing_ok=True)
        raise
    finally:
        with contextlib.suppress(OSError):  # Windows does not remove what is open
            guard.unlink()
        held.close()
    sync_folder(path.parent)
    return digest


class _Writer:
    """Turns tensors into the bytes of the file."""

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        dtype: str,
        release: Callable[[], None],
        progress: Progress,
        header: int,
    ) -> None:
        self._tensors, self._dtype = tensors, dtype
        self._release, self._progress = release, progress
        itemsize = PRECISIONS[dtype].itemsize
        self._sizes = {key: tensor.numel() * itemsize for key, tensor in tensors.items()}
        self._whole = header + sum(self._sizes.values())

    def write(self, file: BinaryIO, header: bytes) -> bool:
        """Write what is not there yet; return whether something was."""
        file.seek(0)
        is_begun = file.read(len(header)) == header
        position = len(header)
        if not is_begun:
            file.seek(0)
            file.truncate()
            file.write(header)
        length = file.seek(0, os.SEEK_END)
        missing = []
        for key, size in self._sizes.items():
            if missing or position + size > length:
                missing.append(key)
            else:
                position += size
        file.seek(position)
        file.truncate()
        for values in self._stored(missing):
            file.write(values)
            position += len(values)
            self._progress(position, 2 * self._whole)
        file.flush()
        os.fsync(file.fileno())
        return is_begun

    def compare(self, file: BinaryIO, header: bytes) -> str | None:
        """Hash the file; None if it differs from the tensors."""
        file.seek(0)
        digest = hashlib.sha256(found := file.read(len(header)))
        if found != header:
            return None
        position = len(header)
        for values in self._stored(self._tensors):
            found = file.read(len(values))
            if found != bytes(values):
                return None
            digest.update(found)
            position += len(found)
            self._progress(self._whole + position, 2 * self._whole)
        return None if file.read(1) else digest.hexdigest()

    def _stored(self, keys: Iterable[str]) -> Iterator[memoryview]:
        """Yield tensors as they are stored, a piece at a time; give back memory now and then."""
        used = 0
        self._release()
        for key in keys:
            for piece in self._tensors[key].reshape(-1).split(PIECE):
                yield _stored(key, piece, self._dtype)
                used += piece.nbytes
                if used >= RELEASE_EVERY:
                    self._release()
                    used = 0
        self._release()


def _header(tensors: Mapping[str, Tensor], dtype: str, metadata: Mapping[str, str]) -> bytes:
    """Length of the header, and the header: where each tensor is."""
    header: dict[str, object] = {"__metadata__": {"format": "pt", **metadata}}
    position = 0
    for key, tensor in tensors.items():
        end = position + tensor.numel() * PRECISIONS[dtype].itemsize
        shape = list(tensor.shape)
        header[key] = {"dtype": CODES[dtype], "shape": shape, "data_offsets": [position, end]}
        position = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _stored(key: str, tensor: Tensor, dtype: str) -> memoryview:
    """Bytes of a piece of a tensor in another precision.

    Raises:
        WeightsError: if a value is not finite, or too large.
    """
    target = PRECISIONS[dtype]
    exact = tensor.to(torch.float32)
    check_finite(key, exact)
    low, high = exact.aminmax()
    if max(-low, high) > torch.finfo(target).max:
        raise WeightsError(f"{key} holds values too large for {dtype}; choose float32")
    return exact.to(target).contiguous().view(torch.uint8).numpy().data
