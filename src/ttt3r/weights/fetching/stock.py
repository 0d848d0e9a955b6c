"""What is on this machine of weights that are known by name; checking it, and removing it."""

import contextlib
from dataclasses import dataclass
from pathlib import Path

from ttt3r.errors import WeightsError
from ttt3r.weights.catalogue import (
    ENDINGS,
    ORIGINALS,
    TENSORS_FILE,
    WeightsSpec,
    find_on_disk,
    hashes_of,
    weights_folder,
)
from ttt3r.weights.fetching.consent import note_path as consent_path
from ttt3r.weights.fetching.found import find_elsewhere
from ttt3r.weights.fetching.obtain import LOCK, only_one, original_files
from ttt3r.weights.fetching.part import part_path
from ttt3r.weights.hashes import hash_file, note_path, remember, remembered
from ttt3r.weights.sources import CARD_FILE


@dataclass(frozen=True)
class Stock:
    """Where weights are.

    Attributes:
        state: "packaged", "random" (made when they are used), "here", "partly", "elsewhere"
            (downloaded by another program) or "absent".
        path: the file or folder; None if there is none.
        size: bytes of it; of what is partly here, those that are here.
    """

    state: str
    path: Path | None = None
    size: int | None = None


def stock(spec: WeightsSpec) -> Stock:
    """Say where the weights of `spec` are. Nothing is read but names and sizes."""
    if spec.random_config is not None:
        return Stock("random")
    here = find_on_disk(spec)
    if here is not None:
        size = sum(path.stat().st_size for path in _weights_in(here))
        return Stock("packaged" if spec.packaged else "here", here, size)
    parts = [part_path(spec.originals / file.name) for file in spec.files]
    parts += [spec.originals / file.name for file in spec.files]
    begun = [path for path in parts if path.is_file()]
    if begun:
        return Stock("partly", spec.folder, sum(path.stat().st_size for path in begun))
    found = find_elsewhere(spec)
    if found:
        paths = [*found.values()]
        return Stock("elsewhere", paths[0], sum(path.stat().st_size for path in paths))
    return Stock("absent")


@dataclass(frozen=True)
class Checked:
    """A file that was hashed anew.

    Attributes:
        path: the file.
        sha256: its hash now.
        known: what it may be; empty if nothing is known.
    """

    path: Path
    sha256: str
    known: frozenset[str]


def verify(spec: WeightsSpec) -> list[Checked]:
    """Hash the files of `spec` anew; what nothing is known of is remembered from now on.

    Raises:
        WeightsError: if a file cannot be read.
    """
    here = find_on_disk(spec)
    results: list[Checked] = []
    for path in [] if here is None else _weights_in(here):
        try:
            found = hash_file(path)
        except OSError as error:
            raise WeightsError(f"{path} cannot be read: {error.strerror or error}") from error
        known = _known_hashes(spec, path)
        if not known or found in known:
            remember(path, found)
        results.append(Checked(path, found, frozenset(known)))
    return results


def remove(spec: WeightsSpec) -> tuple[list[Path], int]:
    """Remove all that was fetched and made of `spec`, links to files of other programs included.

    Returns:
        What was removed, and how many bytes that frees.

    Raises:
        WeightsError: if another process is fetching it, or a file cannot be removed.
    """
    if not spec.folder.is_dir() and not any(path.is_file() for path in _own(spec)):
        return [], 0
    with only_one(spec):
        freed, removed = 0, []
        try:
            for path in (*_own(spec), *original_files(spec)):
                if path.is_symlink() or path.is_file():
                    freed += 0 if path.is_symlink() else path.stat().st_size
                    path.unlink()
                    removed.append(path)
        except OSError as error:
            raise WeightsError(
                f"{error.filename} cannot be removed: {error.strerror or error}"
            ) from error
        with contextlib.suppress(OSError):  # Windows does not remove what is open
            (spec.folder / LOCK).unlink()
    for folder in (spec.originals, spec.folder):
        with contextlib.suppress(OSError):  # something of the user is in it
            folder.rmdir()
    return [path for path in removed if not path.name.startswith(".")], freed


def _known_hashes(spec: WeightsSpec, path: Path) -> set[str]:
    """What the hash of a file may be: what was remembered, else what the catalogue knows."""
    noted = remembered(path, even_if_changed=True)
    if noted is not None:
        return {noted}
    files = (*spec.files, *spec.also)
    if path.parent.name == ORIGINALS:
        return {file.sha256 for file in files if file.sha256 and file.name == path.name}
    return hashes_of(spec, path.suffix) if path.stem == spec.name else set()


def _weights_in(here: Path) -> list[Path]:
    """Files of weights that `find_on_disk` found; of published folders, all files."""
    if here.is_file():
        return [here]
    names = [TENSORS_FILE, CARD_FILE] if here.name == ORIGINALS else [TENSORS_FILE]
    return [here / name for name in names if (here / name).is_file()]


def _own(spec: WeightsSpec) -> list[Path]:
    """Files that were made for these weights, or put into the weights folder under their name."""
    made = [spec.folder / TENSORS_FILE, *(weights_folder() / f"{spec.name}{e}" for e in ENDINGS)]
    made += [part_path(spec.folder / TENSORS_FILE), spec.folder / CARD_FILE, consent_path(spec)]
    return [*made, *map(note_path, made)]
