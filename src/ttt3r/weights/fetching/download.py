"""Get one file from one place: it goes on where it stopped, and is whole or not there at all."""

import email.utils
import logging
import random
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ttt3r.errors import WeightsError
from ttt3r.files import bytes_text
from ttt3r.weights.fetching.part import Origin, Part
from ttt3r.weights.fetching.places import Place
from ttt3r.weights.fetching.web import TEMPORARY, Answer, CutError, Patience, RefusedError
from ttt3r.weights.hashes import remember

MOST_TRIES = 1000
_RANGE = re.compile(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)")
logger = logging.getLogger("ttt3r.weights")

Progress = Callable[[int, int | None], None]
"""Called with the number of bytes so far and of all of them, if that is known."""


@dataclass(frozen=True)
class Wanted:
    """What a file must be.

    Attributes:
        size: in bytes; None if it is not known.
        sha256: in hexadecimal; None if it is not known.
    """

    size: int | None = None
    sha256: str | None = None


def download(
    place: Place, wanted: Wanted, target: Path, progress: Progress, patience: Patience
) -> str:
    """Get a file, taking up what an earlier attempt left in ``NAME.part``.

    Args:
        place: where it is.
        wanted: what is known of it.
        target: the file to make; its folder must be there.
        progress: is told how far it is.
        patience: how long to wait, and how often to try again.

    Returns:
        The SHA-256 of the file.

    Raises:
        RefusedError: if the place does not give this file.
        WeightsError: if the disk is full or cannot be written to.
    """
    with Part(target, wanted.sha256 is not None) as part:
        expected = _fill(place, wanted, part, progress, patience)
        if part.resumed and expected not in (None, part.sha256):
            logger.info("the parts do not fit together; starting over")
            part.begin(Origin())
            expected = _fill(place, wanted, part, progress, patience)
        if expected not in (None, part.sha256):
            found = part.sha256
            part.begin(Origin())
            raise RefusedError(
                f"the file is another one: its SHA-256 is {found}, but {expected} was expected"
            )
        sha256 = part.finish()
    remember(target, sha256)
    return sha256


def _fill(
    place: Place, wanted: Wanted, part: Part, progress: Progress, patience: Patience
) -> str | None:
    """Ask until everything is there; return the hash it must have, as far as it is known."""
    idle, expected = 0, wanted.sha256
    for _ in range(MOST_TRIES):
        if part.length and part.length == wanted.size and wanted.sha256:
            return expected  # all but the check was done before
        before = part.length
        try:
            linked = _ask(place, wanted, part, progress, patience)
            return expected or linked
        except CutError as cut:
            idle = 0 if part.length > before else idle + 1
            if idle >= patience.tries:
                raise RefusedError(f"{cut}; tried {idle} times") from cut
            pause = cut.wait if cut.wait is not None else patience.pause * 2 ** max(idle - 1, 0)
            pause = min(pause, patience.longest_pause) * random.uniform(0.8, 1.0)
            logger.info(
                "%s, with %s here; trying again in %.1f s", cut, bytes_text(part.length), pause
            )
            time.sleep(pause)
    raise RefusedError(f"the connection was cut {MOST_TRIES} times")


def _ask(
    place: Place, wanted: Wanted, part: Part, progress: Progress, patience: Patience
) -> str | None:
    """Send one request, and write what comes.

    Returns:
        The hash that the server says the file has; None if it does not.

    Raises:
        CutError: if it must be asked again.
        RefusedError: if this place does not give the file.
    """
    with place.open(_headers(place, wanted, part), patience) as answer:
        if answer.status in TEMPORARY:
            raise CutError(f"the server answers with status {answer.status}", _retry_after(answer))
        if answer.status == 416:  # nothing is left to send, or it is another file
            if part.length and part.length == _range(answer)[1]:
                return answer.linked_sha256
            part.begin(Origin())
            raise CutError("what was fetched earlier is not a part of this file")
        if answer.status not in (200, 206):
            raise RefusedError(f"the server answers with status {answer.status}")
        if answer.is_page():
            raise RefusedError("the server answers with a web page instead of the file")
        if answer.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise RefusedError("the server sends the file in an encoding that was not asked for")
        total = _check_begin(answer, place, wanted, part)
        _check_space(part, total)
        progress(part.length, total)
        for block in answer.blocks():
            part.write(block)
            if total is not None and part.length > total:
                part.begin(Origin())
                raise CutError("the server sends more than the file is long")
            progress(part.length, total)
        if total is not None and part.length < total:
            raise CutError("the connection ended early")
        return answer.linked_sha256


def _headers(place: Place, wanted: Wanted, part: Part) -> dict[str, str]:
    """Ask for the rest, on condition that it is of the same file, or for the whole."""
    if not part.length:
        return {}
    same_place = part.origin.place == place.text
    if part.origin.validator is not None and same_place:
        return {"Range": f"bytes={part.length}-", "If-Range": part.origin.validator}
    if wanted.sha256 is not None:  # the hash of the whole will tell
        return {"Range": f"bytes={part.length}-"}
    logger.info("nothing says that what was fetched earlier is of the same file; starting over")
    part.begin(Origin())
    return {}


def _check_begin(answer: Answer, place: Place, wanted: Wanted, part: Part) -> int | None:
    """Check that what comes is this file, from where we are, and return its whole length.

    Raises:
        CutError: if a part came that was not asked for.
        RefusedError: if it is another file.
    """
    validator = _validator(answer)
    if answer.status == 206:
        start, total = _range(answer)
        known = part.origin
        same_place = known.place == place.text
        is_changed = same_place and _differ(validator, known.validator)
        other_length = None not in (total, known.total) and total != known.total
        if not part.length or start != part.length or is_changed or other_length:
            part.begin(Origin())
            raise CutError(
                "the file has changed meanwhile"
                if is_changed or other_length
                else "the server sent another part than was asked for"
            )
        total = known.total if total is None else total
        part.resumed = True
    else:
        total = answer.number("Content-Length")
    if total is None:
        total = wanted.size
    if None not in (total, wanted.size) and total != wanted.size:
        raise RefusedError(
            f"the file is another one: it has {total} bytes, but {wanted.size} were expected"
        )
    if total is None and wanted.sha256 is None and answer.linked_sha256 is None:
        raise RefusedError("the server does not say how long the file is")
    if answer.status == 200:
        if part.length:
            logger.info("the file has changed, or the server cannot go on in it; starting over")
        part.begin(Origin(place.text, validator, total))
    return total


def _validator(answer: Answer) -> str | None:
    """What the server calls this version of the file: a strong tag, or the time of its change."""
    tag = answer.headers.get("ETag", "")
    return tag if tag.startswith('"') else answer.headers.get("Last-Modified")


def _differ(one: str | None, other: str | None) -> bool:
    """Whether two validators are of one kind and not the same."""
    if one is None or other is None or one.startswith('"') != other.startswith('"'):
        return False
    return one != other


def _check_space(part: Part, total: int | None) -> None:
    """Check that the rest fits on the disk.

    Raises:
        WeightsError: if it does not.
    """
    free = shutil.disk_usage(part.path.parent).free
    if total is not None and total - part.length > free:
        raise WeightsError(
            f"{part.target.parent} has {bytes_text(free)} free, but {part.target.name} needs "
            f"{bytes_text(total - part.length)} more. Free some space, or set TTT3R_WEIGHTS to a "
            "folder on another disk."
        )


def _range(answer: Answer) -> tuple[int | None, int | None]:
    """First byte and length of the whole, as far as ``Content-Range`` says."""
    found = _RANGE.fullmatch(answer.headers.get("Content-Range", "").strip())
    if found is None:
        return None, None
    return int(found[1]) if found[1] else None, None if found[2] == "*" else int(found[2])


def _retry_after(answer: Answer) -> float | None:
    """Seconds that the server asks to wait, given as a number or as a date."""
    text = answer.headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError, IndexError):
        return None
