"""Turn any loadable weights into a folder that loads fast, holds no code and knows its licence."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ttt3r.errors import SettingError, WeightsError
from ttt3r.files import write_atomically
from ttt3r.weights.card import Card
from ttt3r.weights.families import family_of
from ttt3r.weights.network import check_finite, check_fit, expected_shapes, shapes_of
from ttt3r.weights.sources import CARD_FILE, CARD_KEY, TENSORS_FILE, Weights, read_weights

# Name of each type here, in PyTorch, and in a safetensors header.
DTYPES = {
    "float32": (torch.float32, "F32"),
    "float16": (torch.float16, "F16"),
    "bfloat16": (torch.bfloat16, "BF16"),
}


def convert(
    source: str | Path,
    target: str | Path,
    dtype: str = "float32",
    overwrite: bool = False,
    family: str | None = None,
) -> Path:
    """Write weights as ``target/model.safetensors`` and ``target/config.json``.

    Tensors pass through one at a time, so little more memory than the largest is needed. Files
    appear complete or not at all.

    Args:
        source: whatever `load` takes.
        target: folder to write; made if it is not there.
        dtype: how to store the tensors: "float32", "float16" or "bfloat16". What they compute in
            is chosen on loading, so this trades accuracy for space on disk.
        overwrite: replace weights that are in the folder already.
        family: which network the weights belong to, see `load`.

    Returns:
        The folder.

    Raises:
        SettingError: if `dtype` or `family` is unknown.
        WeightsError: if the source cannot be read or does not fit its network, or the target
            cannot be written.
    """
    if dtype not in DTYPES:
        raise SettingError(f"unknown dtype {dtype!r}; choose {', '.join(DTYPES)}")
    target = Path(target).expanduser()
    paths = [target / TENSORS_FILE, target / CARD_FILE]
    existing = next((path for path in paths if path.exists()), None)
    if existing is not None and not overwrite:
        raise WeightsError(
            f"{existing} exists already; choose another folder, or allow it to be overwritten"
        )
    weights = read_weights(source, family)
    expected = _fitting_shapes(weights)
    card = _card(weights).to_json()
    ordered = {key: weights.tensors[key] for key in expected}
    try:
        target.mkdir(parents=True, exist_ok=True)
        metadata = {CARD_KEY: card}
        write_atomically(
            paths[0], lambda path: _write_safetensors(path, ordered, dtype, metadata), sync=True
        )
        write_atomically(paths[1], lambda path: path.write_bytes(card.encode()), sync=True)
    except OSError as error:
        raise WeightsError(
            f"cannot write to {target}: {error.strerror or error}. Free some space, or choose "
            "another folder."
        ) from error
    return target


def _fitting_shapes(weights: Weights) -> Mapping[str, tuple[int, ...]]:
    """Return the shapes of the network that `weights` belong to, after checking that they fit it.

    Raises:
        WeightsError: if they do not.
    """
    family_of(weights.config).check(weights.config, shapes_of(weights.tensors))
    expected = expected_shapes(weights.config)
    check_fit(expected, weights.tensors)
    return expected


def _card(weights: Weights) -> Card:
    info = weights.info
    return Card(
        name=info.name,
        config=weights.config,
        image_policy=weights.image_policy,
        licence=info.licence,
        origin=info.origin,
        trained=info.trained,
        source_file=weights.filename,
        source_sha256=info.sha256,
    )


def _write_safetensors(
    path: Path, tensors: Mapping[str, Tensor], dtype: str, metadata: Mapping[str, str]
) -> None:
    """Write the safetensors format: length of the header, the header, then the raw values."""
    target, code = DTYPES[dtype]
    header: dict[str, object] = {"__metadata__": {"format": "pt", **metadata}}
    position = 0
    for key, tensor in tensors.items():
        end = position + tensor.numel() * target.itemsize
        shape = list(tensor.shape)
        header[key] = {"dtype": code, "shape": shape, "data_offsets": [position, end]}
        position = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for key, tensor in tensors.items():
            exact = tensor.to(torch.float32)
            check_finite(key, exact)
            low, high = exact.aminmax()
            if max(-low, high) > torch.finfo(target).max:
                raise WeightsError(f"{key} holds values too large for {dtype}; choose float32")
            values = exact.to(target).contiguous()
            file.write(values.reshape(-1).view(torch.uint8).numpy().data)
