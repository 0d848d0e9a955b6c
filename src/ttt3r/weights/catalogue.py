"""The weights that are known by name: where they come from, and under which licence."""

import os
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from ttt3r.models.base import WeightsInfo
from ttt3r.models.cut3r_config import Cut3rConfig, DptSizes
from ttt3r.models.fast3r_config import Fast3rConfig
from ttt3r.models.point3r_config import Point3rConfig
from ttt3r.models.vggt_config import StreamVggtConfig, VggtConfig
from ttt3r.models.vggt_track import TrackSizes
from ttt3r.weights.families import Config, family_of

PROJECT = "the ttt3r project"
CUT3R_URL = "https://github.com/CUT3R/CUT3R"
VGGT_URL = "https://huggingface.co/facebook/VGGT-1B"
STREAMVGGT_URL = "https://huggingface.co/lch01/StreamVGGT"
POINT3R_URL = "https://github.com/YkiWu/Point3R"
FAST3R_URL = "https://huggingface.co/jedyang97/Fast3R_ViT_Large_512"
NON_COMMERCIAL = "CC-BY-NC-SA-4.0"
VGGT_LICENCE = "CC-BY-NC-4.0"
FAST3R_LICENCE = "FAIR Noncommercial Research License"
# StreamVGGT was made from VGGT's weights, some of which are in it unchanged.
STREAMVGGT_LICENCE = f"{NON_COMMERCIAL} AND {VGGT_LICENCE}"
UNKNOWN = "unknown"
PACKAGED = Path(__file__).parent / "data"


@dataclass(frozen=True)
class WeightsSpec:
    """A set of weights known by name.

    Attributes:
        name: what `load` calls it.
        family: the network it belongs to.
        title: one line about it.
        licence: SPDX identifier, or the title of a licence without one.
        origin_url: who publishes it, or the project itself.
        image_size: longer side in pixels of the images it was trained on.
        filename: name under which the published file is looked for, in the weights folder; None
            for weights that are made on the spot.
        sha256: of that file; None if it is not published.
        random_config: network to fill with seeded random numbers; None for trained weights.
        packaged: name of the file inside this package; None for weights that are not.
        published_as: names of the published files, where they say too little to be kept.
    """

    name: str
    family: str
    title: str
    licence: str
    origin_url: str
    image_size: int
    filename: str | None = None
    sha256: str | None = None
    random_config: Config | None = None
    packaged: str | None = None
    published_as: tuple[str, ...] = ()

    @property
    def trained(self) -> bool:
        """Whether the output means something."""
        return self.random_config is None

    def info(self, sha256: str) -> WeightsInfo:
        """Describe a copy of these weights."""
        return WeightsInfo(self.name, self.licence, self.origin_url, sha256, self.trained)


def _cut3r(name: str, title: str, image_size: int) -> WeightsSpec:
    return WeightsSpec(
        name, "cut3r", title, NON_COMMERCIAL, CUT3R_URL, image_size, filename=f"{name}.pth"
    )


def _random(name: str, title: str, config: Config) -> WeightsSpec:
    family = family_of(config).name
    return WeightsSpec(
        name, family, title, "Apache-2.0", PROJECT, config.image_size, random_config=config
    )


_TINY: dict[str, Any] = {
    "image_size": 64,
    "encoder_dim": 64,
    "encoder_depth": 2,
    "encoder_heads": 4,
    "decoder_depth": 4,
    "dpt": DptSizes((8, 12, 16, 24), 16, 8),
}
TINY_DPT = Cut3rConfig(
    **_TINY, decoder_dim=32, decoder_heads=2, state_heads=4, state_size=27, memory_size=16
)
TINY_LINEAR = replace(TINY_DPT, head="linear", state_size=20, dpt=DptSizes())
TINY_VGGT = VggtConfig(
    image_size=70,
    dim=32,
    encoder_depth=2,
    encoder_heads=2,
    depth=4,
    heads=2,
    levels=(0, 1, 2, 3),
    camera_depth=1,
    camera_heads=4,
    dpt_widths=(8, 12, 16, 24),
    dpt_features=16,
    track=TrackSizes(
        layers=(8, 12, 16, 24),
        features=16,
        levels=4,
        radius=2,
        hidden=32,
        heads=2,
        rounds=2,
        virtual_tracks=8,
    ),
)
TINY_STREAMVGGT = StreamVggtConfig(
    **{item.name: getattr(TINY_VGGT, item.name) for item in fields(TINY_VGGT)}
)
TINY_FAST3R = Fast3rConfig(**_TINY, decoder_dim=48, decoder_heads=3)
TINY_POINT3R = Point3rConfig(
    **_TINY,
    decoder_dim=48,
    decoder_heads=3,
    pointer_heads=4,
    value_depth=2,
    value_heads=4,
    memory_size=16,
)
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
        _cut3r("cut3r_512_dpt_4_64", "CUT3R, 793 M parameters, images of 512 pixels.", 512),
        _cut3r("cut3r_224_linear_4", "CUT3R, 748 M parameters, images of 224x224.", 224),
        WeightsSpec(
            "vggt-1b",
            "vggt",
            "VGGT: sets of views in one pass, 1257 M parameters, images of 518 pixels.",
            VGGT_LICENCE,
            VGGT_URL,
            518,
            filename="vggt-1b.pt",
            published_as=("model.pt",),
        ),
        WeightsSpec(
            "streamvggt",
            "streamvggt",
            "StreamVGGT: streams with a growing cache, 1257 M parameters, images of 518 pixels.",
            STREAMVGGT_LICENCE,
            STREAMVGGT_URL,
            518,
            filename="streamvggt.pth",
            published_as=("checkpoints.pth",),
        ),
        WeightsSpec(
            "point3r_512",
            "point3r",
            "Point3R: streams with a memory in space, 828 M parameters, images of 512 pixels.",
            NON_COMMERCIAL,
            POINT3R_URL,
            512,
            filename="point3r_512.pth",
        ),
        WeightsSpec(
            "fast3r_vit_large_512",
            "fast3r",
            "Fast3R: sets of many views in one pass, 648 M parameters, images of 512 pixels.",
            FAST3R_LICENCE,
            FAST3R_URL,
            512,
            filename="fast3r_vit_large_512/model.safetensors",
            published_as=("model.safetensors", "config.json"),
        ),
        _random("tiny-dpt", "Random weights for tests, with DPT heads.", TINY_DPT),
        _random("tiny-linear", "Random weights for tests, with linear heads.", TINY_LINEAR),
        _random("tiny-vggt", "Random weights for tests, with a track head.", TINY_VGGT),
        _random("tiny-streamvggt", "Random weights for tests of streams.", TINY_STREAMVGGT),
        _random("tiny-point3r", "Random weights for tests of memories in space.", TINY_POINT3R),
        _random("tiny-fast3r", "Random weights for tests of sets of views.", TINY_FAST3R),
    )
}


# A family's name stands for its released weights, the first of several.
RELEASED = {spec.family: spec for spec in reversed(CATALOGUE.values()) if spec.filename is not None}


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
    folder, filename = weights_folder(), str(spec.filename)
    names = spec.published_as or (filename,)
    files = f"file{'s' if len(names) > 1 else ''} {' and '.join(names)}"
    text = (
        f"the weights {spec.name} are not on this machine.\n"
        f"  Publisher: {spec.origin_url} ({files})\n"
        f"  Licence:   {spec.licence}{_restriction(spec.licence)}\n"
        f"  SHA-256:   {spec.sha256 or 'not published'}\n"
    )
    if filename.endswith(".safetensors"):
        return (
            f"{text}Download these files and put them into {(folder / filename).parent}\n"
            "(set TTT3R_WEIGHTS to use another folder than the one it is in), or name their folder."
        )
    how = f"save it as {folder / filename}" if spec.published_as else f"put it into {folder}"
    source = spec.name if spec.published_as else filename
    return (
        f"{text}Download the file and {how}\n"
        "(set TTT3R_WEIGHTS to use another folder), or name the file itself. To have it load "
        "faster, run:\n"
        f"  ttt3r convert {source} {folder / spec.name}"
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
    is_restricted = "-NC" in licence or licence == FAST3R_LICENCE
    return ", no commercial use" if is_restricted else ""
