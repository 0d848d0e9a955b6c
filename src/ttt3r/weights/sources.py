"""Find weights and read them: a catalogue name, a folder, a safetensors file, or a checkpoint."""

import json
import logging
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from ttt3r.checkpoints.reading import DAMAGED, Checkpoint, nothing, read_checkpoint
from ttt3r.errors import WeightsError
from ttt3r.models.base import WeightsInfo
from ttt3r.models.family import Family
from ttt3r.models.registry import FAMILIES, choose, family_named, family_of, recognise
from ttt3r.weights.card import is_card, read_card
from ttt3r.weights.catalogue import (
    CATALOGUE,
    RELEASED,
    TENSORS_FILE,
    UNKNOWN,
    WeightsSpec,
    accepted_hashes,
    find_on_disk,
    hashes_of,
    how_to_get,
    named_by,
)
from ttt3r.weights.hashes import file_sha256
from ttt3r.weights.hub import HUB, repository, stated_licence
from ttt3r.weights.network import (
    canonical_key,
    clean_tensors,
    common_prefix,
    expected_shapes,
    shapes_of,
)
from ttt3r.weights.random import random_weights, tensors_sha256

CARD_FILE = "config.json"
CARD_KEY = "config"
logger = logging.getLogger("ttt3r.weights")


class Weights(NamedTuple):
    """What a source holds.

    Attributes:
        info: what the weights are.
        tensors: by the network's names; of files, they are read when they are used.
        release: gives back the memory of what was read so far, which is read again if needed. Not
            for tensors that were written to.
    """

    info: WeightsInfo
    tensors: dict[str, Tensor]
    release: Callable[[], None] = nothing


def read_weights(
    source: str | Path, family: str | None = None
) -> tuple[WeightsInfo, dict[str, Tensor]]:
    """Read weights without making a network of them: what they are, and their tensors.

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
    weights = open_weights(source, family)
    return weights.info, weights.tensors


def open_weights(source: str | Path, family: str | None = None) -> Weights:
    """Do what `read_weights` does, and say how the memory of tensors is given back."""
    wanted = None if family is None else family_named(family)
    weights = _find(source, wanted)
    found = family_of(weights.info.config)
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


def _from_catalogue(spec: WeightsSpec, wanted: Family | None) -> Weights:
    if spec.random_config is not None:
        config = spec.random_config
        tensors = random_weights(config)
        info = spec.info(tensors_sha256(tensors))
        info = replace(info, config=config, preparation=config.preparation)
        return Weights(info, tensors)
    path = find_on_disk(spec)
    if path is None:
        raise WeightsError(how_to_get(spec))
    return _from_path(path, wanted)


def _from_path(path: Path, wanted: Family | None) -> Weights:
    is_folder = path.is_dir()
    if is_folder:
        path, folder = path / TENSORS_FILE, path
        if not path.is_file():
            raise WeightsError(
                f"the folder {folder} has no {TENSORS_FILE}. Name a folder that 'ttt3r convert' "
                "made or that was downloaded from a hub, or the weight file itself."
            )
    held = read_checkpoint(path)
    tensors = clean_tensors(held.tensors)
    embedded = held.metadata.get(CARD_KEY)
    card = None
    if path.suffix.lower() == ".safetensors":
        card = _card_in_folder(path, embedded, tensors) if is_folder else _card_of(path, embedded)
    if card is not None:
        tensors = family_of(card.config).complete(tensors)
        info = replace(card, sha256=file_sha256(path), filename=path.name)
        return Weights(info, tensors, held.release)
    held = replace(held, config=_config_beside(path))
    weights = _undescribed(path, tensors, held, wanted)
    config = weights.info.config
    _report_left_out(path, held, expected_shapes(config) if held.left_out else ())
    return weights


def _report_left_out(path: Path, held: Checkpoint, needed: Collection[str]) -> None:
    """Say which entries of a file are not plain tensors.

    Raises:
        WeightsError: if the network needs one of them.
    """
    prefix = common_prefix(held.tensors)
    for key, form in held.left_out.items():
        if canonical_key(key.removeprefix(prefix)) in needed:
            raise WeightsError(
                f"{path} stores {key} as {form}, which ttt3r does not read. Get or save these "
                "weights as plain floating-point tensors."
            )
    if held.left_out:
        listed = ", ".join(f"{key} ({form})" for key, form in [*held.left_out.items()][:5])
        logger.warning(
            "%d entries of %s were left out, since they are not plain tensors: %s",
            len(held.left_out),
            path,
            listed,
        )


def _card_in_folder(path: Path, embedded: str | None, keys: Collection[str]) -> WeightsInfo | None:
    """Return the card of a folder, whose description must be one or come from the publisher."""
    beside = path.with_name(CARD_FILE)
    if not beside.is_file():
        return _card_of(path, embedded)
    text = _read_text(beside)
    is_published = any(family.has_config_file for family in recognise(keys))
    if embedded is None and is_published and not is_card(text):
        return None
    return read_card(text, str(beside))


def _card_of(path: Path, embedded: str | None) -> WeightsInfo | None:
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
    path: Path, tensors: dict[str, Tensor], held: Checkpoint, wanted: Family | None
) -> Weights:
    """Describe weights that come without a card, by names, tensors and what the publisher says."""
    sha256 = file_sha256(path)
    spec = _published_spec(path, sha256)
    if wanted is None and spec is not None:
        wanted = family_named(spec.family)
    call = (held.model_string or "").lstrip()
    if wanted is None:  # a call that names a network, so that errors list what its tensors lack
        named = (f for f in FAMILIES.values() if f.constructor and call.startswith(f.constructor))
        wanted = next(named, None)
    family = choose(tensors, wanted)
    tensors = family.complete(tensors)
    config = family.configure(shapes_of(tensors), held)
    if spec is None or spec.family != family.name:
        info = _downloaded(path, sha256)
    else:
        info = spec.info(sha256)
        known = hashes_of(spec, path.suffix)
        if named_by(path) is spec and known and sha256 not in known | accepted_hashes(spec):
            raise WeightsError(
                f"{path} is not the published file: its SHA-256 is {sha256}, but "
                f"{' or '.join(sorted(known))} was expected. {DAMAGED} If you trust the file, give "
                "it another name."
            )
    preparation = config.preparation
    info = replace(info, config=config, preparation=preparation, filename=path.name)
    return Weights(info, tensors, held.release)


def _downloaded(path: Path, sha256: str) -> WeightsInfo:
    """Describe weights that the catalogue does not have, by what lies beside them."""
    name = repository(path)
    if name is None and path.name != TENSORS_FILE:  # other files in its folder may be of others
        return WeightsInfo(path.stem, UNKNOWN, UNKNOWN, sha256)
    licence = stated_licence(path.parent) or UNKNOWN
    origin = UNKNOWN if name is None else f"{HUB}/{name}"
    return WeightsInfo(name or path.absolute().parent.name, licence, origin, sha256)


def _published_spec(path: Path, sha256: str) -> WeightsSpec | None:
    """The entry of the catalogue that a file is of, by its content, its download or its name."""
    origin = f"{HUB}/{repository(path)}"
    for spec in CATALOGUE.values():
        if sha256 in hashes_of(spec, path.suffix) or spec.origin_url == origin:
            return spec
    if path.name == TENSORS_FILE and path.parent.name in CATALOGUE:
        spec = CATALOGUE[path.parent.name]
        return spec if spec.files else None
    return named_by(path)


def _read_text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise WeightsError(f"{path} cannot be read: {error}. Convert the weights again.") from error
