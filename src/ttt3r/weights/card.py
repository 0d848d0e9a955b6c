"""The description that travels with converted weights: ``config.json``, also kept in the file."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ttt3r import __version__
from ttt3r.errors import WeightsError
from ttt3r.models.base import WeightsInfo
from ttt3r.types import ImagePolicy
from ttt3r.weights.families import FAMILIES, Config, Family, family_of

FORMAT = "ttt3r-weights"
VERSION = 1


@dataclass(frozen=True)
class Card:
    """What must be known about a set of weights besides the weights.

    Attributes:
        name: what to call them.
        config: the network's configuration.
        image_policy: how images are prepared for it.
        licence: SPDX identifier or "unknown".
        origin: who published them.
        trained: False for random weights.
        source_file: name of the file they were converted from.
        source_sha256: of that file.
    """

    name: str
    config: Config
    image_policy: ImagePolicy
    licence: str
    origin: str
    trained: bool
    source_file: str
    source_sha256: str

    def info(self, sha256: str) -> WeightsInfo:
        """Describe a file of these weights."""
        return WeightsInfo(self.name, self.licence, self.origin, sha256, self.trained)

    def to_json(self) -> str:
        """Write the card."""
        content = {
            "format": FORMAT,
            "format_version": VERSION,
            "family": family_of(self.config).name,
            "name": self.name,
            "trained": self.trained,
            "licence": self.licence,
            "origin": self.origin,
            "image_policy": asdict(self.image_policy),
            "config": self.config.to_dict(),
            "source": {"file": self.source_file, "sha256": self.source_sha256},
            "converter": f"ttt3r {__version__}",
        }
        return json.dumps(content, indent=1) + "\n"


def is_card(text: str) -> bool:
    """Whether a text is a card, of whatever version."""
    return _parse(text).get("format") == FORMAT


def read_card(text: str, where: str) -> Card:
    """Read what `Card.to_json` wrote.

    Args:
        text: the card.
        where: what to call it in messages.

    Raises:
        WeightsError: if it is no card, of an unknown version or family, or incomplete.
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
        return Card(
            name=_text(content["name"]),
            config=_config(family, content["config"], where),
            image_policy=_image_policy(content["image_policy"]),
            licence=_text(content["licence"]),
            origin=_text(content["origin"]),
            trained=bool(content["trained"]),
            source_file=_text(source["file"]),
            source_sha256=_text(source["sha256"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"{where} is damaged ({error}); convert the weights again") from error


def _config(family: Family, values: Any, where: str) -> Config:
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
        raise TypeError(f"{value!r} is no text")
    return value


def _image_policy(values: Any) -> ImagePolicy:
    policy = ImagePolicy(**values)
    if type(policy.size) is not int or type(policy.patch) is not int or policy.patch < 1:
        raise ValueError(f"the image policy {values!r} has no usable sizes")
    if policy.size < policy.patch or not all(
        isinstance(flag, bool) for flag in (policy.square_ok, policy.by_width)
    ):
        raise ValueError(f"the image policy {values!r} has no usable sizes")
    return policy
