"""The weights that are known by name: where they come from, and under which licence."""

import os
from dataclasses import dataclass, replace
from pathlib import Path

from ttt3r.models.base import WeightsInfo
from ttt3r.models.cut3r_config import Cut3rConfig, DptSizes

PROJECT = "the ttt3r project"
CUT3R_URL = "https://github.com/CUT3R/CUT3R"
NON_COMMERCIAL = "CC-BY-NC-SA-4.0"
UNKNOWN = "unknown"
PACKAGED = Path(__file__).parent / "data"


@dataclass(frozen=True)
class WeightsSpec:
    """A set of weights known by name.

    Attributes:
        name: what `load` calls it.
        family: the network it belongs to.
        title: one line about it.
        licence: SPDX identifier.
        origin_url: who publishes it, or the project itself.
        image_size: longer side in pixels of the images it was trained on.
        filename: name of the published file; None for weights that are made on the spot.
        sha256: of that file; None if it is not published.
        random_config: network to fill with seeded random numbers; None for trained weights.
        packaged: name of the file inside this package; None for weights that are not.
    """

    name: str
    family: str
    title: str
    licence: str
    origin_url: str
    image_size: int
    filename: str | None = None
    sha256: str | None = None
    random_config: Cut3rConfig | None = None
    packaged: str | None = None

    @property
    def trained(self) -> bool:
        """Whether the output means something."""
        return self.random_config is None

    def info(self, sha256: str) -> WeightsInfo:
        """Describe a copy of these weights."""
        return WeightsInfo(self.name, self.licence, self.origin_url, sha256, self.trained)


def _published(name: str, title: str, image_size: int) -> WeightsSpec:
    return WeightsSpec(
        name, "cut3r", title, NON_COMMERCIAL, CUT3R_URL, image_size, filename=f"{name}.pth"
    )


def _random(name: str, title: str, config: Cut3rConfig) -> WeightsSpec:
    return WeightsSpec(
        name, "cut3r", title, "Apache-2.0", PROJECT, config.image_size, random_config=config
    )


TINY_DPT = Cut3rConfig(
    image_size=64,
    encoder_dim=64,
    encoder_depth=2,
    encoder_heads=4,
    decoder_dim=32,
    decoder_depth=4,
    decoder_heads=2,
    state_heads=4,
    state_size=27,
    memory_size=16,
    dpt=DptSizes((8, 12, 16, 24), 16, 8),
)
TINY_LINEAR = replace(TINY_DPT, head="linear", state_size=20, dpt=DptSizes())
CATALOGUE: dict[str, WeightsSpec] = {
    spec.name: spec
    for spec in (
        WeightsSpec(
            "builtin",
            "cut3r",
            "In this package: 9.3 M parameters, images of 160 pixels, trained on synthetic scenes.",
            "Apache-2.0",
            PROJECT,
            160,
            packaged="builtin.safetensors",
        ),
        _published("cut3r_512_dpt_4_64", "CUT3R, 793 M parameters, images of 512 pixels.", 512),
        _published("cut3r_224_linear_4", "CUT3R, 748 M parameters, images of 224x224.", 224),
        _random("tiny-dpt", "Random weights for tests, with DPT heads.", TINY_DPT),
        _random("tiny-linear", "Random weights for tests, with linear heads.", TINY_LINEAR),
    )
}


def weights_folder() -> Path:
    """Where downloaded weights are looked for: ``$TTT3R_WEIGHTS`` or ``~/.cache/ttt3r/weights``."""
    chosen = os.environ.get("TTT3R_WEIGHTS")
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "ttt3r" / "weights"


def find_on_disk(spec: WeightsSpec) -> Path | None:
    """Return the packaged file, the converted folder or file, or the published file."""
    if spec.packaged is not None:
        path = PACKAGED / spec.packaged
        return path if path.is_file() else None
    folder = weights_folder()
    candidates = [folder / spec.name / "model.safetensors", folder / f"{spec.name}.safetensors"]
    candidates += [folder / spec.filename] if spec.filename else []
    found = next((path for path in candidates if path.is_file()), None)
    return found.parent if found is not None and found.name == "model.safetensors" else found


def how_to_get(spec: WeightsSpec) -> str:
    """Say where the file of `spec` is published, under which licence, and where it belongs."""
    if spec.packaged is not None:
        return f"this installation lacks {PACKAGED / spec.packaged}; install ttt3r again"
    folder = weights_folder()
    return (
        f"the weights {spec.name} are not on this machine.\n"
        f"  Publisher: {spec.origin_url} (file {spec.filename})\n"
        f"  Licence:   {spec.licence}{_restriction(spec.licence)}\n"
        f"  SHA-256:   {spec.sha256 or 'not published'}\n"
        f"Download the file and put it into {folder}\n"
        "(set TTT3R_WEIGHTS to use another folder), or name the file itself. To have it load "
        "faster, run:\n"
        f"  ttt3r convert {spec.filename} {folder / spec.name}"
    )


def licence_notice(info: WeightsInfo) -> str:
    """Say in a sentence or two what one may do with a set of weights, and expect of it."""
    if info.licence == UNKNOWN:
        text = f"weights {info.name}: the licence is not stated; ask whoever gave you the file"
    else:
        text = f"weights {info.name} by {info.origin}: licence {info.licence}"
        text += _restriction(info.licence)
    if not info.trained:
        text += ". They are random, not trained: the output is not a reconstruction"
    return text + "."


def _restriction(licence: str) -> str:
    return ", no commercial use" if "-NC" in licence else ""
