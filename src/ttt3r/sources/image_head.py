"""Size and orientation of ordinary JPEG and PNG files, without decoding them.

Pillow says the same of any image file, but takes five times as long for a JPEG file, and decodes
the whole of a PNG file to find out how it is turned. The layouts are those of ITU-T T.81, annex B,
of the PNG specification (third edition), and of TIFF 6.0 for EXIF data.
"""

import struct
from pathlib import Path
from typing import BinaryIO, NamedTuple

ORIENTATION = 0x0112  # EXIF
JPEG, PNG = b"\xff\xd8", b"\x89PNG\r\n\x1a\n"
# Markers of a JPEG file. Frames of other kinds are not what cameras write.
FRAME_HEADERS, START_OF_SCAN, APP1 = (0xC0, 0xC1, 0xC2), 0xDA, 0xE1
OTHER_FRAMES = set(range(0xC0, 0xD0)) - {*FRAME_HEADERS, 0xC4}
EXIF, XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"
GREY, RGB, RGBA = 0, 2, 6  # colour types of PNG
TEXTS = (b"tEXt", b"zTXt", b"iTXt")
HIDDEN_EXIF = (b"Raw profile type", b"XML:com.adobe.xmp")  # texts of PNG that may say a turn
SHORT = 3  # a type of TIFF


class Head(NamedTuple):
    """What an image file says of itself.

    Attributes:
        size: (width, height) as it is stored.
        orientation: of EXIF; 1 where the file says nothing.
    """

    size: tuple[int, int]
    orientation: int


class _Unusual(Exception):
    """The file is damaged, or one that Pillow should look at."""


def ordinary_head(path: Path) -> Head | None:
    """Read the head of a JPEG or PNG file that is grey, RGB or (PNG) RGBA, of 8 bits.

    Returns:
        None if the file is not such a one, is damaged, or says its orientation in an unusual
        place; Pillow can tell then.

    Raises:
        OSError: if the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            start = file.read(8)
            if start == PNG:
                return _png(file)
            if start[:2] == JPEG:
                file.seek(2)
                return _jpeg(file)
    except _Unusual:
        pass
    return None


def _jpeg(file: BinaryIO) -> Head:
    """All segments before the first scan; the file is at the first of them."""
    size = orientation = None
    has_exif = has_xmp = False
    while True:
        marker = _marker(file)
        if marker == START_OF_SCAN:
            break
        (length,) = struct.unpack(">H", _exactly(file, 2))
        if marker in FRAME_HEADERS and size is None:
            bits, height, width, components = struct.unpack(">BHHB", _exactly(file, 6))
            if bits != 8 or components not in (1, 3):
                raise _Unusual
            size, length = (width, height), length - 6
        elif marker in OTHER_FRAMES or marker in FRAME_HEADERS:
            raise _Unusual
        elif marker == APP1:
            content = _exactly(file, length - 2)
            if content.startswith(EXIF):
                if has_exif:
                    raise _Unusual
                has_exif, orientation = True, _orientation(content[len(EXIF) :])
            has_xmp |= content.startswith(XMP)
            continue
        if length < 2:
            raise _Unusual
        file.seek(length - 2, 1)
    return _head(size, orientation, has_xmp)


def _marker(file: BinaryIO) -> int:
    first, marker = _exactly(file, 2)
    while marker == 0xFF:  # fill bytes
        (marker,) = _exactly(file, 1)
    if first != 0xFF or marker == 0x01 or 0xD0 <= marker <= 0xD9 or marker == 0:
        raise _Unusual
    return marker


def _png(file: BinaryIO) -> Head:
    """All chunks, since that of the orientation may be the last; the file is at the first."""
    size = orientation = None
    while True:
        length, kind = struct.unpack(">I4s", _exactly(file, 8))
        if kind == b"IHDR":
            width, height, bits, colours = struct.unpack(">IIBB", _exactly(file, 10))
            if size is not None or bits != 8 or colours not in (GREY, RGB, RGBA):
                raise _Unusual
            size, length = (width, height), length - 10
        elif kind == b"IEND":
            break
        elif kind == b"eXIf" and orientation is None:
            orientation, length = _orientation(_exactly(file, length)), 0
        elif kind == b"acTL" or kind == b"eXIf":
            raise _Unusual
        elif kind in TEXTS:
            if _exactly(file, length).startswith(HIDDEN_EXIF):
                raise _Unusual
            length = 0
        if length < 0:
            raise _Unusual
        file.seek(length + 4, 1)  # a checksum follows
    return _head(size, orientation, False)


def _head(size: tuple[int, int] | None, orientation: int | None, has_xmp: bool) -> Head:
    if size is None or min(size) < 1 or (orientation is None and has_xmp):
        raise _Unusual
    return Head(size, 1 if orientation is None else orientation)


def _orientation(exif: bytes) -> int | None:
    """Of the first directory of TIFF data; None if there is none."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None:
        raise _Unusual
    try:
        (start,) = struct.unpack_from(f"{order}I", exif, 4)
        (count,) = struct.unpack_from(f"{order}H", exif, start)
        for at in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind, values, value = struct.unpack_from(f"{order}HHIH", exif, at)
            if tag == ORIENTATION:
                if (kind, values) != (SHORT, 1):
                    raise _Unusual
                return int(value)
    except struct.error:
        raise _Unusual from None
    return None


def _exactly(file: BinaryIO, count: int) -> bytes:
    content = file.read(count) if count >= 0 else b""
    if len(content) != count:
        raise _Unusual
    return content
