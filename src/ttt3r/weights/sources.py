"""Find weights and read them: a catalogue name, a folder, a safetensors file, or a checkpoint."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from ttt3r.errors import WeightsError
from ttt3r.models.base import WeightsInfo
from ttt3r.models.cut3r_config import Cut3rConfig
from ttt3r.types import ImagePolicy
from ttt3r.weights.card import Card, is_card, read_card
from ttt3r.weights.catalogue import CATALOGUE, UNKNOWN, WeightsSpec, find_on_disk, how_to_get
from ttt3r.weights.checkpoint import DAMAGED, check_is_file, read_checkpoint
from ttt3r.weights.constructor import config_from_checkpoint
from ttt3r.weights.network import clean_tensors, shapes_of
from ttt3r.weights.random import random_weights, tensors_sha256

TENSORS_FILE = "model.safetensors"
CARD_FILE = "config.json"
CARD_KEY = "config"


@dataclass(frozen=True)
class Weights:
    """Weights that were read, and what is known about them.

    Attributes:
        config: the network's configuration.
        tensors: by the network's names, each once; backed by the file where there is one.
        info: where they come from.
        image_policy: how images are prepared for them.
        filename: name of the file; empty if there is none.
    """

    config: Cut3rConfig
    tensors: dict[str, Tensor]
    info: WeightsInfo
    image_policy: ImagePolicy
    filename: str = ""


def read_weights(source: str | Path) -> Weights:
    """Read weights without making a network of them.

    Args:
        source: a name of the catalogue, or a path: a folder that ``ttt3r convert`` made, a
            ``.safetensors`` file, or an upstream checkpoint.

    Raises:
        WeightsError: if they cannot be found or read.
    """
    if isinstance(source, str) and source in CATALOGUE:
        return _from_catalogue(CATALOGUE[source])
    path = Path(source).expanduser()
    if not str(source) or not path.exists():
        raise WeightsError(
            f"there are no weights {str(source)!r}: it is neither a file or folder nor a known "
            f"name. Known names are: {', '.join(CATALOGUE)}"
        )
    if path.is_dir():
        return _from_folder(path)
    return _from_file(path)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _from_catalogue(spec: WeightsSpec) -> Weights:
    if spec.random_config is not None:
        tensors = random_weights(spec.random_config)
        info = spec.info(tensors_sha256(tensors))
        return Weights(spec.random_config, tensors, info, _policy(spec.random_config))
    path = find_on_disk(spec)
    if path is None:
        raise WeightsError(how_to_get(spec))
    return _from_folder(path) if path.is_dir() else _from_file(path)


def _from_folder(folder: Path) -> Weights:
    path = folder / TENSORS_FILE
    if not path.is_file():
        raise WeightsError(
            f"the folder {folder} has no {TENSORS_FILE}. Name a folder that 'ttt3r convert' made, "
            "or the weight file itself."
        )
    card = folder / CARD_FILE
    if card.is_file():
        return _from_safetensors(path, read_card(_read_text(card), str(card)))
    return _from_safetensors(path)


def _from_file(path: Path) -> Weights:
    check_is_file(path)
    if path.suffix.lower() == ".safetensors":
        return _from_safetensors(path)
    checkpoint = read_checkpoint(path)
    return _undescribed(path, clean_tensors(checkpoint.tensors), checkpoint.model_string)


def _from_safetensors(path: Path, card: Card | None = None) -> Weights:
    check_is_file(path)
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, RuntimeError, ValueError) as error:
        raise WeightsError(
            f"{path} is no complete safetensors file ({error}). {DAMAGED}"
        ) from error
    tensors = clean_tensors(tensors)
    card = card or _card_of(path, metadata.get(CARD_KEY))
    if card is None:
        return _undescribed(path, tensors, None)
    info = card.info(file_sha256(path))
    return Weights(card.config, tensors, info, card.image_policy, path.name)


def _card_of(path: Path, embedded: str | None) -> Card | None:
    """Return the card in a file's metadata, or the one beside the file."""
    if embedded is not None:
        return read_card(embedded, f"the metadata of {path}")
    beside = path.with_name(CARD_FILE)
    # Other programs use the same file name; theirs say nothing about this file.
    if beside.is_file() and is_card(text := _read_text(beside)):
        return read_card(text, str(beside))
    return None


def _undescribed(path: Path, tensors: dict[str, Tensor], model_string: str | None) -> Weights:
    """Describe weights that come without a card, by the file's name and the tensors' shapes."""
    config = config_from_checkpoint(shapes_of(tensors), model_string)
    sha256 = file_sha256(path)
    spec = CATALOGUE.get(path.stem)
    if spec is None or spec.filename is None:
        info = WeightsInfo(path.stem, UNKNOWN, UNKNOWN, sha256)
    else:
        info = spec.info(sha256)
        if spec.filename == path.name and spec.sha256 not in (None, sha256):
            raise WeightsError(
                f"{path} is not the published file: its SHA-256 is {sha256}, but {spec.sha256} was "
                f"expected. {DAMAGED}"
            )
    return Weights(config, tensors, info, _policy(config), path.name)


def _policy(config: Cut3rConfig) -> ImagePolicy:
    return ImagePolicy(size=config.image_size, patch=config.patch_size)


def _read_text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise WeightsError(f"{path} cannot be read: {error}. Convert the weights again.") from error
