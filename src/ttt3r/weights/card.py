"""The description that travels with converted weights: ``config.json``, also kept in the file."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from ttt3r.errors import WeightsError
from ttt3r.models.base import WeightsInfo
from ttt3r.models.config import NetworkConfig
from ttt3r.models.registry import FAMILIES, Family, family_of
from ttt3r.types import POSE_SOURCES, Preparation
from ttt3r.version import __version__

FORMAT = "ttt3r-weights"
VERSION = 1


def card_text(info: WeightsInfo) -> str:
    """Write the card of weights that are converted from the file that `info` describes."""
    content = {
        "format": FORMAT,
        "format_version": VERSION,
        "family": family_of(info.config).name,
        "name": info.name,
        "trained": info.trained,
        "licence": info.licence,
        "origin": info.origin,
        "image_policy": None if info.preparation is None else asdict(info.preparation),
        **({} if info.pose_from is None else {"pose_from": info.pose_from}),
        "config": info.config.to_dict(),
        "source": {"file": info.filename, "sha256": info.sha256},
        "converter": f"ttt3r {__version__}",
    }
    return json.dumps(content, indent=1) + "\n"


def is_card(text: str) -> bool:
    """Whether a text is a card, of whatever version."""
    return _parse(text).get("format") == FORMAT


def read_card(text: str, where: str) -> WeightsInfo:
    """Read what `card_text` wrote; name and digest of the file are those of the source.

    Args:
        text: the card.
        where: what to call it in messages.

    Raises:
        WeightsError: if it is not a card, of an unknown version or family, or incomplete.
    """
    content = _parse(text)
    if content.get("format") != FORMAT:
        raise WeightsError(
            f"{where} is not a description of ttt3r weights; make one with: ttt3r convert"
        )
    name = content.get("family")
    family = FAMILIES.get(name) if isinstance(name, str) else None
    if content.get("format_version") != VERSION or family is None:
        raise WeightsError(
            f"{where} describes {name!r} weights in format {content.get('format_version')!r}, but "
            f"this version of ttt3r reads {', '.join(FAMILIES)} in format {VERSION}. Upgrade "
            "ttt3r, or convert the weights again."
        )
    try:
        source = content["source"]
        return WeightsInfo(
            name=_text(content["name"]),
            config=_config(family, content["config"], where),
            preparation=_preparation(content["image_policy"]),
            licence=_text(content["licence"]),
            origin=_text(content["origin"]),
            trained=bool(content["trained"]),
            filename=_text(source["file"]),
            sha256=_text(source["sha256"]),
            pose_from=None if "pose_from" not in content else _pose_from(content["pose_from"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"{where} is damaged ({error}); convert the weights again") from error


def _config(family: Family, values: Any, where: str) -> NetworkConfig:
    try:
        return family.config.from_dict(values)
    except WeightsError as error:
        raise WeightsError(f"{where} describes {family.name!r} weights, but {error}") from error


def _parse(text: str) -> Mapping[str, Any]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not text")
    return value


def _pose_from(value: Any) -> str:
    if value not in POSE_SOURCES:
        raise ValueError(f"pose_from is {value!r}, not one of {', '.join(POSE_SOURCES)}")
    return value


def _preparation(values: Any) -> Preparation:
    found = Preparation(**values)
    sizes, flags = (found.size, found.patch), (found.square_ok, found.by_width)
    if (
        not all(type(size) is int for size in sizes)
        or not all(isinstance(flag, bool) for flag in flags)
        or not 1 <= found.patch <= found.size
    ):
        raise ValueError(f"the image policy {values!r} has no usable sizes")
    return found
