"""The weights that are known by name: where they come from, and under which licence."""

import os
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ttt3r.errors import SettingError
from ttt3r.files import bytes_text
from ttt3r.models.base import WeightsInfo
from ttt3r.models.config import NetworkConfig
from ttt3r.models.family import Family
from ttt3r.models.registry import FAMILIES

PROJECT = "the ttt3r project"
UNKNOWN = "unknown"
PACKAGED = Path(__file__).parent / "data"
TENSORS_FILE = "model.safetensors"  # of a folder of weights, ours or a hub's
ORIGINALS = "original"
ACCEPTED = "accepted-sha256"  # a file with hashes that the user took
ENDINGS = (".safetensors", ".pth", ".pt")


@dataclass(frozen=True)
class PublishedFile:
    """A file as its publisher offers it.

    Attributes:
        name: of the file, as published.
        places: where it can be had, tried in this order; see `fetching.places.Place`.
        size: in bytes; None if it is not known.
        sha256: in hexadecimal; None if it is not known.
    """

    name: str
    places: Sequence[str]
    size: int | None = None
    sha256: str | None = None


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
        licence_url: where the text of the licence is; empty for what needs no fetching.
        files: what is fetched, the weights first; none for weights that are not published.
        also: other published files of the same weights, each whole by itself, which are used where
            they are on this machine already.
        random_config: network to fill with seeded random numbers; None for trained weights.
        packaged: name of the file inside this package; None for weights that are not.
    """

    name: str
    family: str
    title: str
    licence: str
    origin_url: str
    image_size: int
    licence_url: str = ""
    files: Sequence[PublishedFile] = ()
    also: Sequence[PublishedFile] = ()
    random_config: NetworkConfig | None = None
    packaged: str | None = None

    @property
    def trained(self) -> bool:
        """Whether the output means something."""
        return self.random_config is None

    @property
    def download_size(self) -> int | None:
        """Bytes of all files that are fetched; None if that is not known."""
        sizes = [file.size for file in self.files]
        return None if None in sizes or not sizes else sum(size or 0 for size in sizes)

    @property
    def folder(self) -> Path:
        """Where these weights are kept, and all that belongs to them."""
        return weights_folder() / self.name

    @property
    def originals(self) -> Path:
        """Where the published files are kept, until they are converted."""
        return self.folder / ORIGINALS

    def info(self, sha256: str) -> WeightsInfo:
        """Describe a copy of these weights."""
        return WeightsInfo(self.name, self.licence, self.origin_url, sha256, self.trained)


def _catalogue() -> dict[str, WeightsSpec]:
    """Read the published weights from the package's data, and add the families' tiny networks."""
    entries = tomllib.loads((PACKAGED / "catalogue.toml").read_text("utf-8"))
    specs = []
    for name, entry in entries.items():
        for kind in ("files", "also"):
            entry[kind] = tuple(PublishedFile(**file) for file in entry.get(kind, ()))
        specs.append(WeightsSpec(name, **entry))
    specs += [spec for family in FAMILIES.values() for spec in _tiny_specs(family)]
    return {spec.name: spec for spec in specs}


def _tiny_specs(family: Family) -> list[WeightsSpec]:
    """The networks of a family that are filled with random numbers."""
    return [
        WeightsSpec(
            tiny.name,
            family.name,
            tiny.title,
            "Apache-2.0",
            PROJECT,
            tiny.config.image_size,
            random_config=tiny.config,
        )
        for tiny in family.tiny
    ]


def add_family(family: Family) -> None:
    """Make a family from outside this package known everywhere, the command line included.

    Raises:
        SettingError: if its name, or the name of one of its tiny networks, is taken.
    """
    specs = {spec.name: spec for spec in _tiny_specs(family)}
    taken = sorted({family.name} & FAMILIES.keys() | specs.keys() & CATALOGUE.keys())
    if taken:
        raise SettingError(f"the name {taken[0]!r} is taken; choose another for the new family")
    FAMILIES[family.name] = family
    CATALOGUE.update(specs)


CATALOGUE = _catalogue()
# A family's name stands for its released weights, the first of several.
RELEASED = {spec.family: spec for spec in reversed(CATALOGUE.values()) if spec.files}


def weights_folder() -> Path:
    """Where weights are kept: ``$TTT3R_WEIGHTS``, or ``ttt3r/weights`` in the user's cache."""
    chosen = os.environ.get("TTT3R_WEIGHTS")
    if chosen:
        return Path(chosen).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "ttt3r" / "weights"


def find_on_disk(spec: WeightsSpec) -> Path | None:
    """Return the packaged file, the converted folder or file, or the published file or folder."""
    if spec.packaged is not None:
        path = PACKAGED / spec.packaged
        return path if path.is_file() else None
    if (spec.folder / TENSORS_FILE).is_file():
        return spec.folder
    for ending in ENDINGS:
        path = weights_folder() / f"{spec.name}{ending}"
        if path.is_file():
            return path
    return find_originals(spec)


def find_originals(spec: WeightsSpec) -> Path | None:
    """Return the published weights that were fetched, if all files that belong to them are here."""
    for files in (spec.files, *((file,) for file in spec.also)):
        paths = [spec.originals / file.name for file in files]
        if paths and all(path.is_file() for path in paths):
            return spec.originals if paths[0].name == TENSORS_FILE else paths[0]
    return None


def named_by(path: Path) -> WeightsSpec | None:
    """The published weights that a file must be, by its name or the folder it was fetched to."""
    name = path.parent.parent.name if path.parent.name == ORIGINALS else path.stem
    spec = CATALOGUE.get(name)
    return spec if spec is not None and spec.files else None


def hashes_of(spec: WeightsSpec, ending: str) -> set[str]:
    """The SHA-256 that are known of the published weights with this ending of their name."""
    weights = [*spec.files[:1], *spec.also]
    return {file.sha256 for file in weights if file.sha256 and file.name.endswith(ending)}


def accepted_hashes(spec: WeightsSpec) -> set[str]:
    """The SHA-256 that the user took instead of the known ones."""
    try:
        return set((spec.originals / ACCEPTED).read_text("ascii").split())
    except (OSError, UnicodeDecodeError):
        return set()


def how_to_get(spec: WeightsSpec) -> str:
    """Say where the files of `spec` are published, under which licence, and how to get them."""
    if spec.packaged is not None:
        return f"this installation lacks {PACKAGED / spec.packaged}; install ttt3r again"
    size = spec.download_size
    names = " and ".join(file.name for file in spec.files)
    return (
        f"the weights {spec.name} are not on this machine.\n"
        f"  Publisher: {spec.origin_url} ({names})\n"
        f"  Licence:   {spec.licence}{restriction(spec.licence)}\n"
        f"  Size:      {'not known' if size is None else bytes_text(size)}\n"
        f"Get them with:\n  ttt3r fetch {spec.name}\n"
        f"or put what you have downloaded yourself into {spec.originals}"
    )


def licence_notice(info: WeightsInfo) -> str:
    """Say in a sentence or two what one may do with a set of weights, and expect of it."""
    if info.licence == UNKNOWN:
        text = f"weights {info.name}: the licence is not stated; ask whoever gave you the file"
    else:
        origin = "" if info.origin == UNKNOWN else f" by {info.origin}"
        text = f"weights {info.name}{origin}: licence {info.licence}{restriction(info.licence)}"
    if not info.trained:
        text += ". They are random, not trained: the output is not a reconstruction"
    return text + "."


def restriction(licence: str) -> str:
    """What a licence forbids, to be put after its name."""
    is_restricted = re.search(r"-nc\b|non-?commercial", licence, re.IGNORECASE)
    return ", no commercial use" if is_restricted else ""
