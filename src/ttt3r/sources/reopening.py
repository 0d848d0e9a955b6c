"""Find again what a run was made from."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ttt3r.errors import InputError, Ttt3rError
from ttt3r.sources.arrange import Arrangement
from ttt3r.sources.base import Source
from ttt3r.sources.files import matching_images
from ttt3r.sources.intrinsics import Intrinsics
from ttt3r.sources.lens import Calibrated
from ttt3r.sources.opening import open_source
from ttt3r.sources.stills import ImageSource


def reopen(
    description: dict[str, Any], inputs: Sequence[str], place: Path | None = None
) -> tuple[Source, list[Arrangement]]:
    """Open a source again by its description.

    Args:
        description: what `Source.describe` gave, without "inputs".
        inputs: that list: "SIZE NAME" of each image file; empty for videos.
        place: where the folder or the video lies now; None: where it did.

    Returns:
        The source without what was turned and cut, `Calibrated` if its intrinsics were given; and
        what was turned and cut.

    Raises:
        InputError: if it is not there, is not what it was, or cannot be opened.
        Ttt3rError: if the description is that of another version, or an extra is missing.
    """
    arranged = Arrangement.parse(description.get("arranged", []))
    source = _plain(description, inputs, place)
    if description.get("intrinsics") is not None:
        source = Calibrated(source, Intrinsics.of_description(description["intrinsics"]))
    return source, arranged


def _plain(description: dict[str, Any], inputs: Sequence[str], place: Path | None) -> Source:
    """The source as it was before its camera was known."""
    kind, path = description.get("kind"), description.get("path")
    if kind == "images":
        return ImageSource.of_files(_files(path, inputs, place))
    file = place if place is not None else None if path is None else Path(path)
    if kind not in ("video", "pages") or file is None:
        raise InputError("the frames came from a program, which cannot be asked again")
    if not file.is_file():
        raise InputError(f"{file} is not there any more")
    size = description.get("bytes")
    if size is not None and file.stat().st_size != size:
        raise InputError(
            f"{file} has {file.stat().st_size:,} bytes, and had {size:,} when the run was made"
        )
    stride, start, end = (description.get(name) for name in ("stride", "start", "end"))
    fps, stream = (description.get(name) for name in ("fps", "video_stream"))
    return open_source(
        file,
        stride=stride or 1,
        start=start,
        end=end,
        fps=fps if kind == "video" else None,
        video_stream=stream,
    )


def _files(path: str | None, inputs: Sequence[str], place: Path | None) -> list[Path]:
    """The image files, each of the size it had."""
    folder = place if place is not None else None if path is None else Path(path)
    if folder is None:
        raise InputError("the run was made from a list of images, whose folders were not noted")
    wanted = [_split(line) for line in inputs]
    found: dict[str, Path] = {}
    if folder.is_file() and len(wanted) == 1:
        found = {wanted[0][1]: folder}
    elif not folder.is_dir():
        try:
            found = {file.name: file for file in matching_images(folder)}
        except Ttt3rError as error:
            raise InputError(f"{folder} is not there any more ({error})") from None
        if len(found) < len(wanted):
            raise InputError(f"{folder} matches files of the same name, or fewer than it did")
    files = [found.get(name, folder / name) for _, name in wanted]
    for file, (size, _) in zip(files, wanted, strict=True):
        if not file.is_file():
            raise InputError(f"{file} is not there any more")
        if file.stat().st_size != size:
            raise InputError(f"{file} has another size than when the run was made")
    return files


def _split(line: str) -> tuple[int, str]:
    size, _, name = line.partition(" ")
    return int(size), name
