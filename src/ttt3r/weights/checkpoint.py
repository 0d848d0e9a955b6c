"""Read PyTorch checkpoints (``.pth``) without executing anything that is in them.

The pickle inside is read as data (see `pickles`); tensors are views of the memory-mapped file, so a
checkpoint costs no memory until its values are used.
"""

import math
import mmap
import re
import struct
import sys
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from ttt3r.errors import WeightsError
from ttt3r.weights.pickles import (
    Instance,
    Persistent,
    PickleError,
    RefusedGlobalError,
    Symbol,
    read_pickle,
)

STORAGE_DTYPES = {
    "torch.DoubleStorage": torch.float64,
    "torch.FloatStorage": torch.float32,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.ShortStorage": torch.int16,
    "torch.CharStorage": torch.int8,
    "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool,
}
TENSOR = "torch._utils._rebuild_tensor_v2"
PARAMETER = "torch._utils._rebuild_parameter"
PLAIN_CLASSES = (
    *("bool", "bytearray", "bytes", "complex", "dict", "float", "frozenset"),
    *("int", "list", "long", "set", "str", "tuple", "unicode"),
)
NUMPY_NAMES = ("dtype", "core.multiarray.scalar", "_core.multiarray.scalar")

# Names that training code leaves in checkpoints. None of them is imported or called.
HARMLESS = frozenset(
    {
        *STORAGE_DTYPES,
        *(f"builtins.{name}" for name in PLAIN_CLASSES),
        *(f"__builtin__.{name}" for name in PLAIN_CLASSES),
        *(f"numpy.{name}" for name in NUMPY_NAMES),
        *(f"pathlib.{name}" for name in ("Path", "PosixPath", "PurePosixPath", "WindowsPath")),
        TENSOR,
        PARAMETER,
        "_codecs.encode",
        "argparse.Namespace",
        "collections.OrderedDict",
        "collections.defaultdict",
        "torch.Size",
        "torch.device",
        "typing.Any",
    }
)

OMEGACONF = re.compile(r"omegaconf\.(base|nodes|dictconfig|listconfig)\.[A-Z]\w*")
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
DAMAGED = "Download it again, and compare its size or checksum with the publisher's."


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds for inference.

    Attributes:
        tensors: the network's tensors under the names in the file.
        model_string: the constructor call that upstream would evaluate, if the file has one.
        entries: names at the top level of the file.
    """

    tensors: dict[str, Tensor]
    model_string: str | None
    entries: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Archive:
    """An opened checkpoint: its pickled content, and where its storages are in the file."""

    root: Any
    mapping: mmap.mmap
    locate: Callable[[str, int], int]


def is_harmless(name: str) -> bool:
    """Whether a checkpoint may mention this dotted name."""
    return name in HARMLESS or OMEGACONF.fullmatch(name) is not None


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint; its tensors are backed by the file, which must stay in place.

    Raises:
        WeightsError: if the file is missing, damaged, of another kind, or names code.
    """
    check_is_file(path)
    try:
        with path.open("rb") as file:
            archive = _open(path, file)
        return _interpret(archive)
    except RefusedGlobalError as error:
        raise WeightsError(
            f"{path} was not read: its pickle refers to {error.name[:100]!r}, which has no place "
            "in a weight file and could run code. Get the file from its publisher; or, if you "
            "trust it, save only its tensors, as safetensors."
        ) from error
    except PickleError as error:
        raise WeightsError(f"{path} cannot be read: {error}. {DAMAGED}") from error
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}") from error


def check_is_file(path: Path) -> None:
    """Check that there is a file with content.

    Raises:
        WeightsError: if `path` is absent, a folder, or empty.
    """
    if path.is_dir():
        raise WeightsError(f"{path} is a folder; name the weight file in it")
    if not path.exists():
        raise WeightsError(f"there is no weight file at {path}; check the path")
    if not path.is_file():
        raise WeightsError(f"{path} is not a regular file; copy the weights into one")
    if path.stat().st_size == 0:
        raise WeightsError(f"{path} is empty. {DAMAGED}")


def _open(path: Path, file: BinaryIO) -> _Archive:
    head = file.read(64)
    file.seek(0)
    if head[:2] == b"PK":
        return _open_zip(file)
    if head[:1] == b"\x80":
        return _open_legacy(file)
    kind = "not a PyTorch checkpoint"
    if head.startswith(b"version https://git-lfs"):
        kind = "a Git LFS pointer, which stands for a file that was not downloaded"
    elif head.lstrip()[:1] == b"<":
        kind = "a web page, probably the answer of a download that needs a confirmation"
    raise WeightsError(f"{path} is {kind}. {DAMAGED}")


def _map(file: BinaryIO) -> mmap.mmap:
    # A private copy on write: nothing that happens to a tensor can reach the file.
    return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)


def _open_zip(file: BinaryIO) -> _Archive:
    try:
        with zipfile.ZipFile(file) as archive:
            entries = {entry.filename: entry for entry in archive.infolist()}
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise PickleError(f"it is a truncated or damaged archive ({error})") from error
    roots = [name for name in entries if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(roots) != 1:
        raise PickleError("it is a zip archive but not a PyTorch checkpoint")
    prefix = roots[0].removesuffix("data.pkl")
    mapping = _map(file)

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
    return _Archive(read_pickle(mapping[start : start + size], is_harmless), mapping, locate)


def _open_legacy(file: BinaryIO) -> _Archive:
    """Open the format before PyTorch 1.6: five pickles, then the storages one after another."""
    if read_pickle(file, is_harmless) != LEGACY_MAGIC:
        raise PickleError("it is a pickle but not a PyTorch checkpoint")
    read_pickle(file, is_harmless)
    system = read_pickle(file, is_harmless)
    _check_byte_order(isinstance(system, dict) and bool(system.get("little_endian", True)))
    root = read_pickle(file, is_harmless)
    keys = read_pickle(file, is_harmless)
    position, mapping = file.tell(), _map(file)
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

    return _Archive(root, mapping, locate)


def _legacy_sizes(root: Any) -> dict[str, int]:
    """Bytes per element of every storage that the content mentions."""
    sizes: dict[str, int] = {}
    pending, seen = [root], set()
    while pending:
        item = pending.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, Persistent):
            dtype, key, _ = _storage(item)
            sizes[key] = dtype.itemsize
        elif isinstance(item, Instance):
            pending += [item.arguments, item.state]
        elif isinstance(item, Mapping):
            pending += item.values()
        elif isinstance(item, list | tuple):
            pending += item
    return sizes


def _check_byte_order(little: bool) -> None:
    if little != (sys.byteorder == "little"):
        raise PickleError("it was written on a machine of the other byte order")


def _interpret(archive: _Archive) -> Checkpoint:
    root = archive.root
    if not isinstance(root, dict):
        raise PickleError("it holds no dictionary, so it is no checkpoint of a network")
    entries = tuple(key for key in root if isinstance(key, str))
    named = root.get("model", root.get("state_dict", root))
    if (
        not isinstance(named, dict)
        or not named
        or not all(isinstance(key, str) and _is_tensor(item) for key, item in named.items())
    ):
        raise PickleError(
            "it has no dictionary of tensors under 'model' or 'state_dict'; its entries are "
            + (", ".join(sorted(entries)[:10]) or "none")
        )
    tensors = {key: _tensor(archive, item) for key, item in named.items()}
    return Checkpoint(tensors, _model_string(root.get("args")), entries)


def _model_string(arguments: Any) -> str | None:
    """Read `args.model` out of a Namespace, a DictConfig or a dictionary."""
    arguments = _attributes(arguments)
    if isinstance(arguments, dict) and "_content" in arguments:
        arguments = arguments["_content"]
    value = arguments.get("model") if isinstance(arguments, dict) else None
    node = _attributes(value)
    if isinstance(node, dict):
        value = node.get("_val")
    return value if isinstance(value, str) else None


def _attributes(item: Any) -> Any:
    return item.state if isinstance(item, Instance) else item


def _is_tensor(item: Any) -> bool:
    return isinstance(item, Instance) and item.symbol.name in (TENSOR, PARAMETER)


def _storage(item: Any) -> tuple[torch.dtype, str, int]:
    """Type, key and number of elements of a storage reference."""
    match item:
        case Persistent(("storage", Symbol(name), str(key), _, int(count), *_)):
            if name in STORAGE_DTYPES and count >= 0:
                return STORAGE_DTYPES[name], key, count
    raise PickleError("a tensor's storage has an unknown form")


def _is_sizes(item: Any) -> bool:
    return isinstance(item, tuple) and all(type(n) is int and 0 <= n < 2**48 for n in item)


def _tensor(archive: _Archive, item: Any) -> Tensor:
    """Make a tensor of the bytes that `item` describes."""
    if not _is_tensor(item):
        raise PickleError("a parameter is no tensor")
    if item.symbol.name == PARAMETER:
        inner = item.arguments[0] if item.arguments else None
        if isinstance(inner, Instance) and inner.symbol.name == TENSOR:
            return _tensor(archive, inner)
    if item.symbol.name != TENSOR or len(item.arguments) < 4:
        raise PickleError("a tensor has an unknown form")
    storage, offset, size, stride = item.arguments[:4]
    dtype, key, count = _storage(storage)
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
