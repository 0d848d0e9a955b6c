"""Find weights and read them: a catalogue name, a folder, a safetensors file, or a checkpoint."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from ttt3r.errors import SettingError, WeightsError
from ttt3r.models.base import WeightsInfo
from ttt3r.types import ImagePolicy
from ttt3r.weights.card import Card, is_card, read_card
from ttt3r.weights.catalogue import (
    CATALOGUE,
    RELEASED,
    UNKNOWN,
    WeightsSpec,
    find_on_disk,
    how_to_get,
)
from ttt3r.weights.checkpoint import DAMAGED, check_is_file, read_checkpoint
from ttt3r.weights.constructor import NETWORK_CLASS
from ttt3r.weights.families import (
    Config,
    Family,
    Published,
    choose,
    family_named,
    family_of,
    recognise,
)
from ttt3r.weights.families.cut3r import CUT3R
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

    config: Config
    tensors: dict[str, Tensor]
    info: WeightsInfo
    image_policy: ImagePolicy
    filename: str = ""


def read_weights(source: str | Path, family: str | None = None) -> Weights:
    """Read weights without making a network of them.

    Args:
        source: a name of the catalogue, or a path: a folder that ``ttt3r convert`` made, a
            ``.safetensors`` file, or an upstream checkpoint; or else the name of a family, which
            stands for its released weights.
        family: which network they belong to; None leaves it to what is said of them or, where
            nothing is, to the names of the tensors.

    Raises:
        WeightsError: if they cannot be found or read, or belong to another family.
        SettingError: if there is no such family.
    """
    wanted = None if family is None else family_named(family)
    weights = _find(source, wanted)
    found = family_of(weights.config)
    if wanted not in (None, found):
        raise WeightsError(
            f"{source} is described as weights of {found.title}, not of {wanted.title}. Leave the "
            "family out; or, if the description is wrong, convert the published file again."
        )
    return weights


def _find(source: str | Path, wanted: Family | None) -> Weights:
    if isinstance(source, str) and source in CATALOGUE:
        return _from_catalogue(CATALOGUE[source], wanted)
    path = Path(source).expanduser()
    if not str(source) or not path.exists():
        if str(source) in RELEASED:
            return _from_catalogue(RELEASED[str(source)], wanted)
        families = ", ".join(sorted(RELEASED.keys() - CATALOGUE.keys()))
        raise WeightsError(
            f"there are no weights {str(source)!r}: it is neither a file or folder nor a known "
            f"name. Known names are: {', '.join(CATALOGUE)}; and families: {families}"
        )
    return _from_path(path, wanted)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _from_catalogue(spec: WeightsSpec, wanted: Family | None) -> Weights:
    if spec.random_config is not None:
        config = spec.random_config
        tensors = random_weights(config)
        info = spec.info(tensors_sha256(tensors))
        return Weights(config, tensors, info, family_of(config).policy(config))
    path = find_on_disk(spec)
    if path is None:
        raise WeightsError(how_to_get(spec))
    return _from_path(path, wanted)


def _from_path(path: Path, wanted: Family | None) -> Weights:
    if path.is_dir():
        return _from_folder(path, wanted)
    check_is_file(path)
    if path.suffix.lower() == ".safetensors":
        return _from_safetensors(path, wanted)
    checkpoint = read_checkpoint(path)
    published = Published(checkpoint.model_string)
    return _undescribed(path, clean_tensors(checkpoint.tensors), published, wanted)


def _from_folder(folder: Path, wanted: Family | None) -> Weights:
    path = folder / TENSORS_FILE
    if not path.is_file():
        raise WeightsError(
            f"the folder {folder} has no {TENSORS_FILE}. Name a folder that 'ttt3r convert' made, "
            "or the weight file itself."
        )
    return _from_safetensors(path, wanted, is_folder=True)


def _from_safetensors(path: Path, wanted: Family | None, is_folder: bool = False) -> Weights:
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
    embedded = metadata.get(CARD_KEY)
    card = _card_in_folder(path, embedded, tensors) if is_folder else _card_of(path, embedded)
    if card is None:
        return _undescribed(path, tensors, Published(config=_config_beside(path)), wanted)
    tensors = family_of(card.config).complete(tensors)
    info = card.info(file_sha256(path))
    return Weights(card.config, tensors, info, card.image_policy, path.name)


def _card_in_folder(path: Path, embedded: str | None, tensors: Mapping[str, Tensor]) -> Card | None:
    """Return the card of a folder, whose description must be one or come from the publisher."""
    beside = path.with_name(CARD_FILE)
    if not beside.is_file():
        return _card_of(path, embedded)
    text = _read_text(beside)
    is_published = any(family.has_config_file for family in recognise(tensors))
    if embedded is None and is_published and not is_card(text):
        return None
    return read_card(text, str(beside))


def _card_of(path: Path, embedded: str | None) -> Card | None:
    """Return the card in a file's metadata, or the one beside the file."""
    if embedded is not None:
        return read_card(embedded, f"the metadata of {path}")
    beside = path.with_name(CARD_FILE)
    # Other programs use the same file name; theirs say nothing about this file.
    if beside.is_file() and is_card(text := _read_text(beside)):
        return read_card(text, str(beside))
    return None


def _config_beside(path: Path) -> dict[str, Any] | None:
    """Return the published description beside a file, if it is one; the family judges it."""
    beside = path.with_name(CARD_FILE)
    if not beside.is_file():
        return None
    try:
        content = json.loads(_read_text(beside))
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def _undescribed(
    path: Path, tensors: dict[str, Tensor], published: Published, wanted: Family | None
) -> Weights:
    """Describe weights that come without a card, by names, tensors and what the publisher says."""
    spec = _published_spec(path)
    if wanted is None and spec is not None:
        wanted = family_named(spec.family)
    if wanted is None and (published.model_string or "").lstrip().startswith(NETWORK_CLASS):
        wanted = CUT3R  # whatever is missing
    family = choose(tensors, wanted)
    tensors = family.complete(tensors)
    try:
        config = family.configure(shapes_of(tensors), published)
    except SettingError as error:
        raise WeightsError(
            f"the sizes of this {family.title} network do not fit together: {error}. The file is "
            "incomplete, or not of the published form; get it again."
        ) from error
    sha256 = file_sha256(path)
    if spec is None or spec.family != family.name:
        info = WeightsInfo(path.stem, UNKNOWN, UNKNOWN, sha256)
    else:
        info = spec.info(sha256)
        if spec.filename == path.name and spec.sha256 not in (None, sha256):
            raise WeightsError(
                f"{path} is not the published file: its SHA-256 is {sha256}, but {spec.sha256} was "
                f"expected. {DAMAGED}"
            )
    return Weights(config, tensors, info, family.policy(config), path.name)


def _published_spec(path: Path) -> WeightsSpec | None:
    """The entry of the catalogue that a file is named after, or its folder where that tells."""
    name = path.parent.name if path.name == TENSORS_FILE else path.stem
    spec = CATALOGUE.get(name)
    return None if spec is None or spec.filename is None else spec


def _read_text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise WeightsError(f"{path} cannot be read: {error}. Convert the weights again.") from error
