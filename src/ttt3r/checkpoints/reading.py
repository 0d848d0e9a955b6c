"""Read weight files without executing anything that is in them.

The pickle inside a PyTorch checkpoint is read as data (see `pickles`). Tensors are views of the
memory-mapped file, so a checkpoint costs no memory until its values are used.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from torch import Tensor

from ttt3r.checkpoints.archive import open_archive
from ttt3r.checkpoints.mapping import releaser
from ttt3r.checkpoints.pickles import Instance, PickleError, RefusedGlobalError
from ttt3r.checkpoints.tensors import Archive, is_tensor, read_tensor, unreadable_form
from ttt3r.errors import WeightsError
from ttt3r.files import has_text_name
from ttt3r.tensor_files import map_file, mapped_tensors

DAMAGED = "Download it again, and compare its size or checksum with the publisher's."


def nothing() -> None:
    """Do nothing."""


@dataclass(frozen=True)
class Checkpoint:
    """What a weight file held: tensors, and what it says of them.

    Attributes:
        tensors: under the names in the file; backed by the file, which must stay in place.
        left_out: entries beside them that are not plain tensors, and what each one is.
        model_string: the constructor call that upstream would evaluate, if the file has one.
        metadata: texts in the header of a safetensors file.
        config: content of the publisher's ``config.json`` beside the file, if there is one.
        release: gives back the memory of what was read so far, which is read again if needed. Not
            for tensors that were written to.
    """

    tensors: dict[str, Tensor] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    model_string: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    config: Mapping[str, Any] | None = None
    release: Callable[[], None] = nothing


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a ``.safetensors`` file, or a checkpoint that ``torch.save`` wrote.

    Raises:
        WeightsError: if the file is missing, damaged, of another kind, or names code.
    """
    check_is_file(path)
    if path.suffix.lower() == ".safetensors":
        return _read_safetensors(path)
    try:
        with path.open("rb") as file:
            archive = open_archive(file)
            if archive is None:
                file.seek(0)
                raise WeightsError(f"{path} is {_kind(file.read(64))}. {DAMAGED}")
        return _interpret(archive)
    except RefusedGlobalError as error:
        raise WeightsError(
            f"{path} was not read: its pickle refers to {error.name[:100]!r}, which has no place "
            "in a weight file. Nothing in the file was executed. Get the file from its publisher; "
            "or, if you trust it, save only its tensors, as safetensors."
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


def _kind(head: bytes) -> str:
    """Say what a file is that begins like no checkpoint."""
    if head.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, which stands for a file that was not downloaded"
    if head.lstrip()[:1] == b"<":
        return "a web page, probably the answer of a download that needs a confirmation"
    return "not a PyTorch checkpoint"


def _read_safetensors(path: Path) -> Checkpoint:
    if not has_text_name(path):
        raise WeightsError(
            f"{path} cannot be read, since its name is not valid UTF-8; rename the file or folder"
        )
    try:
        with path.open("rb") as file:
            mapping = map_file(file)
        metadata, tensors = mapped_tensors(mapping)
    except (msgspec.MsgspecError, OSError, RuntimeError, ValueError) as error:
        raise WeightsError(
            f"{path} is not a complete safetensors file ({error}). {DAMAGED}"
        ) from error
    return Checkpoint(tensors, metadata=metadata, release=releaser(mapping))


def _interpret(archive: Archive) -> Checkpoint:
    root = archive.root
    if not isinstance(root, dict):
        raise PickleError("it holds no dictionary, so it is not a checkpoint of a network")
    named = _named_tensors(root)
    if named is None:
        entries = sorted(key for key in root if isinstance(key, str))
        raise PickleError(
            "it has no dictionary of tensors under 'model' or 'state_dict'; its entries are "
            + (", ".join(entries[:10]) or "none")
        )
    forms = {str(key): unreadable_form(item) for key, item in named.items()}
    return Checkpoint(
        {key: read_tensor(archive, item) for key, item in named.items() if forms[str(key)] is None},
        {key: form for key, form in forms.items() if form is not None},
        _model_string(root.get("args")),
        release=releaser(archive.mapping),
    )


def _named_tensors(root: dict[Any, Any]) -> dict[str, Any] | None:
    """Find the dictionary of the network's tensors: under a name, or the file's content itself."""
    for item in (root.get("model"), root.get("state_dict"), root):
        # The content of a training's file holds dictionaries; that of a network's does not.
        is_file = item is root and any(isinstance(value, dict) for value in root.values())
        if isinstance(item, dict) and not is_file and any(map(is_tensor, item.values())):
            return {key: value for key, value in item.items() if isinstance(key, str)} or None
    return None


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
