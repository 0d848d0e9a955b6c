"""Open the two formats of ``torch.save``: a zip archive, and pickles one after another."""

import struct
import sys
import zipfile
from collections.abc import Mapping
from typing import Any, BinaryIO

from ttt3r.checkpoints.names import is_harmless
from ttt3r.checkpoints.pickles import Instance, Persistent, PickleError, read_pickle
from ttt3r.checkpoints.tensors import Archive, storage_of
from ttt3r.tensor_files import map_file

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C


def open_archive(file: BinaryIO) -> Archive | None:
    """Open a file that ``torch.save`` wrote; None if its first bytes are of another kind.

    Raises:
        PickleError: if it is damaged, or refers to something else than data.
    """
    head = file.read(2)
    file.seek(0)
    if head == b"PK":
        return _open_zip(file)
    return _open_legacy(file) if head[:1] == b"\x80" else None


def _open_zip(file: BinaryIO) -> Archive:
    try:
        with zipfile.ZipFile(file) as archive:
            entries = {entry.filename: entry for entry in archive.infolist()}
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise PickleError(f"it is a truncated or damaged archive ({error})") from error
    roots = [name for name in entries if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(roots) != 1:
        raise PickleError("it is a zip archive but not a PyTorch checkpoint")
    prefix = roots[0].removesuffix("data.pkl")
    mapping = map_file(file)

    def span(name: str) -> tuple[int, int]:
        entry = entries.get(name)
        if entry is None or entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
            raise PickleError(f"its entry {name} is missing or compressed")
        header = mapping[entry.header_offset : entry.header_offset + 30]
        if len(header) != 30 or header[:4] != b"PK\x03\x04":
            raise PickleError("it is a damaged archive")
        start = entry.header_offset + 30 + sum(struct.unpack("<HH", header[26:30]))
        if start + entry.file_size > len(mapping):
            raise PickleError("it is a truncated archive")
        return start, entry.file_size

    def locate(key: str, size: int) -> int:
        start, available = span(f"{prefix}data/{key}")
        if size > available:
            raise PickleError(f"the storage {key} is shorter than its tensors")
        return start

    if f"{prefix}byteorder" in entries:
        start, size = span(f"{prefix}byteorder")
        _check_byte_order(mapping[start : start + size] == b"little")
    start, size = span(roots[0])
    return Archive(read_pickle(mapping[start : start + size], is_harmless), mapping, locate)


def _open_legacy(file: BinaryIO) -> Archive:
    """Open the format before PyTorch 1.6: five pickles, then the storages one after another."""
    if read_pickle(file, is_harmless) != LEGACY_MAGIC:
        raise PickleError("it is a pickle but not a PyTorch checkpoint")
    read_pickle(file, is_harmless)
    system = read_pickle(file, is_harmless)
    _check_byte_order(isinstance(system, dict) and bool(system.get("little_endian", True)))
    root = read_pickle(file, is_harmless)
    keys = read_pickle(file, is_harmless)
    position, mapping = file.tell(), map_file(file)
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise PickleError("its list of storages is damaged")
    sizes = _legacy_sizes(root)
    spans: dict[str, tuple[int, int]] = {}
    for key in keys:
        header = mapping[position : position + 8]
        if len(header) != 8 or key not in sizes:
            raise PickleError("it is truncated")
        size = struct.unpack("<q", header)[0] * sizes[key]
        if size < 0 or position + 8 + size > len(mapping):
            raise PickleError("it is truncated")
        spans[key] = (position + 8, size)
        position += 8 + size

    def locate(key: str, size: int) -> int:
        start, available = spans.get(key, (0, -1))
        if size > available:
            raise PickleError(f"the storage {key} is missing or shorter than its tensors")
        return start

    return Archive(root, mapping, locate)


def _legacy_sizes(root: Any) -> dict[str, int]:
    """Bytes per element of every storage that the content mentions."""
    sizes: dict[str, int] = {}
    pending: list[Any] = [root]
    seen: set[int] = set()
    while pending:
        item = pending.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, Persistent):
            dtype, key, _ = storage_of(item)
            sizes[key] = dtype.itemsize
        elif isinstance(item, Instance):
            pending += [item.arguments, item.state]
        elif isinstance(item, Mapping):
            pending += [*item, *item.values()]
        elif isinstance(item, list | tuple | set | frozenset):
            pending += item
    return sizes


def _check_byte_order(little: bool) -> None:
    if little != (sys.byteorder == "little"):
        raise PickleError("it was written on a machine of the other byte order")
