"""Which files of a folder or pattern are images, and in what order they come."""

import glob
import logging
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from PIL import Image as PillowImage

from ttt3r.errors import InputError

log = logging.getLogger(__name__)

# Formats that Pillow decodes itself; for others it may start a program (EPS) or only name them.
FORMATS = ("JPEG", "MPO", "PNG", "BMP", "DIB", "WEBP", "TIFF", "AVIF", "JPEG2000", "PPM", "TGA")
# Of these, files without a suffix, or with a number for one, are known by their first bytes.
KNOWN_BY_CONTENT = ("JPEG", "PNG", "WEBP", "TIFF", "AVIF")
HEAD = 32  # bytes
# Listed, not probed: FFmpeg would also take text files, playlists and images for a video.
_VIDEO = """
    .mp4 .m4v .mov .mkv .webm .avi .ts .mts .m2ts .mpg .mpeg .m2v .wmv .asf .flv .f4v .3gp .3g2
    .ogv .mxf .vob .dv .ivf .gif .y4m .mjpeg .mjpg .h264 .264 .h265 .265 .hevc .obu
"""
VIDEO_SUFFIXES = tuple(_VIDEO.split())

HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
DECIMAL_NUMBER = re.compile(r"\d+\.(\d+)")


def _image_suffixes() -> tuple[str, ...]:
    PillowImage.init()
    known = PillowImage.registered_extensions()
    common = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".heic", ".heif")
    return (*common, *sorted(s for s, f in known.items() if f in FORMATS and s not in common))


IMAGE_SUFFIXES = _image_suffixes()
KNOWN = f"{' '.join(IMAGE_SUFFIXES[:9])} …"  # for messages


def natural_key(name: str) -> list[Any]:
    """Sort key that compares runs of digits as numbers: img2 < img10, 1.2 < 1.10."""
    parts = re.split(r"([0-9]+)", name.casefold())
    return [int(part) if position % 2 else part for position, part in enumerate(parts)] + [name]


def visible(paths: Iterable[Path]) -> list[Path]:
    """The paths whose name does not begin with a dot, such as the `._*` files of macOS."""
    return [path for path in paths if not path.name.startswith(".")]


def is_image(path: Path) -> bool:
    """Whether a file is to be read as an image.

    Its suffix decides. Where it has none, or a number for one (frame.0001), its content does; other
    suffixes may mean a copy kept aside (a.jpg_original), a thumbnail or the raw data of a camera.
    """
    suffix = path.suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        return True
    if suffix and not suffix[1:].isdigit():
        return False
    head = _head(path)
    accepts = [PillowImage.OPEN[name][1] for name in KNOWN_BY_CONTENT if name in PillowImage.OPEN]
    return _is_heif(head) or any(accept and accept(head) is True for accept in accepts)


def is_heif(path: Path) -> bool:
    """Whether the content, not the name, is HEIC; False if the file cannot be read."""
    return _is_heif(_head(path))


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(HEAD)
    except OSError:
        return b""


def _is_heif(head: bytes) -> bool:
    return head[4:8] == b"ftyp" and head[8:12] in HEIF_BRANDS and b"avif" not in head


def sorted_images(entries: Iterable[Path]) -> list[Path]:
    """The visible image files among `entries`: by time if the names are times, else natural."""
    images = [path for path in visible(entries) if path.is_file() and is_image(path)]
    if are_times([path.stem for path in images]):
        return sorted(images, key=lambda path: float(path.stem))
    return sorted(images, key=lambda path: natural_key(path.as_posix()))


def are_times(stems: Iterable[str]) -> bool:
    """Whether names are times in seconds, as in the TUM data sets (1311868164.3631).

    Times differ, and have the same number of decimals or more than two; 1.2 and 1.10 are the
    second and the tenth part of something.
    """
    stems = list(stems)
    matches = [DECIMAL_NUMBER.fullmatch(stem) for stem in stems]
    decimals = {len(match[1]) for match in matches if match}
    if not stems or not all(matches) or (len(decimals) > 1 and max(decimals) < 3):
        return False
    return len({float(stem) for stem in stems}) == len(stems)


def left_out(entries: Iterable[Path]) -> str:
    """Count and reason of the visible files that are not read as images; empty if there are none.

    Subfolders are not counted.
    """
    reasons: Counter[str] = Counter()
    for path in visible(entries):
        if path.is_symlink() and not path.exists():
            reasons["broken link"] += 1
        elif not path.is_file():
            reasons["pipe or device"] += not path.is_dir()
        elif not is_image(path):
            reasons[path.suffix.lower() or "no suffix"] += 1
    return ", ".join(f"{count} x {why}" for why, count in sorted(reasons.items()) if count)


def _say_left_out(place: Path, entries: Iterable[Path]) -> None:
    if others := left_out(entries):
        log.warning("%s: files that are not images are left out: %s", place, others)


def image_files(folder: Path) -> list[Path]:
    """Return the images in `folder` (not in its subfolders) in order; hidden files are left out.

    Raises:
        InputError: if there is none.
    """
    try:
        entries = visible(folder.iterdir())
    except OSError as error:
        raise InputError(f"the folder {folder} cannot be read: {error.strerror}") from None
    images = sorted_images(entries)
    if images:
        _say_left_out(folder, entries)
        return images
    wanted = f"accepted are {KNOWN}"
    if not entries:
        raise InputError(f"the folder {folder} is empty; put images into it ({wanted})")
    others = left_out(entries)
    hint = f"left out: {others}; check the path" if others else "check the path"
    if videos := sorted(path.name for path in entries if path.suffix.lower() in VIDEO_SUFFIXES):
        hint = f"to read a video, give its own path, {folder / videos[0]}"
    elif folders := sorted(path.name for path in entries if path.is_dir()):
        hint = f"subfolders are not searched: give one of them, such as {folder / folders[0]}"
    raise InputError(f"the folder {folder} holds no images ({wanted}); {hint}")


def matching_images(pattern: Path) -> list[Path]:
    """Return the images that match a glob pattern (`**` spans folders) in order.

    Raises:
        InputError: if there is none.
    """
    # Path.glob would take neither an absolute pattern nor leave hidden files out.
    entries = [
        Path(match)
        for match in glob.glob(_escaped(pattern), recursive=True)  # noqa: PTH207
    ]
    images = sorted_images(entries)
    if not images:
        found = f"the {len(entries)} matches of {pattern} are" if entries else f"{pattern} matches"
        raise InputError(
            f"{found} no images (accepted are {KNOWN}); check the pattern, and quote "
            "it so that the shell does not expand it"
        )
    _say_left_out(pattern, entries)
    return images


def _escaped(pattern: Path) -> str:
    """The pattern, with the special characters in its existing folders taken literally."""
    existing = next((folder for folder in pattern.parents if folder.is_dir()), Path())
    return str(Path(glob.escape(str(existing))) / pattern.relative_to(existing))
