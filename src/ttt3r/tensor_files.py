"""Files of tensors with a header of checked types: the frames of runs, and saved sessions."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TypeVar

import msgspec
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from ttt3r.files import write_atomically

Header = TypeVar("Header")

KEY = "ttt3r"  # the only one: several would be written in an order that changes from run to run
# What reading a damaged file raises, depending on where the damage is.
_FAULTS = (
    OSError,
    safetensors.SafetensorError,
    ValueError,
    msgspec.MsgspecError,  # a ValueError from msgspec 0.21 on only
    KeyError,
    TypeError,
    AttributeError,
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
        tensors: by name; on any device.
        header: a dataclass of plain values.
        sync: also wait until the file is on the disk.

    Raises:
        OSError: if the file cannot be written; an older file there is left as it was.
    """
    here = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
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
        small: copy the tensors instead of mapping the whole file into memory, which takes a third
            of the time where they are a few numbers.

    Raises:
        ValueError: if the file cannot be read, is damaged, or has another header. The message says
            why, without the file's name.
    """
    try:
        with safetensors.safe_open(path, framework="np" if small else "pt") as file:
            header = msgspec.json.decode((file.metadata() or {}).get(KEY, "{}"), type=kind)
            names = [name for name in file.keys() if only is None or name in only]  # noqa: SIM118
            return header, {name: torch.as_tensor(file.get_tensor(name)) for name in names}
    except _FAULTS as error:
        raise ValueError(str(error) or type(error).__name__) from error
