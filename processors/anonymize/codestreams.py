"""Where a codestream of JPEG, JPEG-LS or JPEG 2000 ends, and what it says of its image: read from its markers, nothing is decoded.

The end is the one that its own syntax says, and not what stands last in a fragment: of JPEG and JPEG-LS the first end of image that is not
within a segment (ISO/IEC 10918-1 B.1.1, 14495-1 C.1.1), of JPEG 2000 what follows the last tile-part (ISO/IEC 15444-1 A.4).
"""

from __future__ import annotations

import re
import struct
from mmap import mmap
from typing import NamedTuple

JPEG, JPEG_2000, JP2 = b"\xff\xd8\xff", b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  "
#: How a codestream begins: JPEG and JPEG-LS (SOI and the next marker), JPEG 2000 (SOC and SIZ), and its file format.
BEGINNINGS = (JPEG, JPEG_2000, JP2)
_END = b"\xff\xd9"
_SOI, _EOI, _SOS, SOF_LS = 0xD8, 0xD9, 0xDA, 0xF7
#: How a frame of JPEG and JPEG-LS begins (SOF): what says of what size it is.
_SOF = frozenset({*range(0xC0, 0xD0), SOF_LS}) - {0xC4, 0xC8, 0xCC}
#: Segments begin from here on; markers below have no length, and none of them stands between segments.
_FIRST_SEGMENT = 0xC0
#: What is no code of samples or restart: behind a byte of ones samples of JPEG have zero (ISO/IEC 10918-1 F.1.2.3), those of JPEG-LS
#: no more than seven bits (14495-1 A.1). At the first other code decoders stop, whether it is a marker that may stand there or not.
_BEHIND_SCAN, _BEHIND_SCAN_LS = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]"), re.compile(rb"\xff[\x80-\xcf\xd8-\xfe]")
_SOT, _SOD = 0x90, 0x93
_FRAME, _SIZE, _TILE_PART = struct.Struct(">BHHB").unpack_from, struct.Struct(">2x4I16xH").unpack_from, struct.Struct(">2xI").unpack_from
_COMPONENTS_AT = 36


class Codestream(NamedTuple):
    """What a codestream says of its image, and where it is over."""

    rows: int
    columns: int
    #: Of a pixel.
    samples: int
    #: The most that a sample has.
    bits: int
    #: How its samples are compressed: the marker of a frame of JPEG or JPEG-LS, 0 for JPEG 2000.
    process: int
    #: The position behind it.
    end: int


def codestream_of(data: bytes | mmap, start: int, stop: int) -> Codestream | None:
    """The codestream that begins at `start`; None if it cannot be followed to its end, or has none in front of `stop`."""
    try:
        if data[start : start + 3] == JPEG:
            return _of_jpeg(data, start + 2, stop)
        if data[start : start + 4] == JPEG_2000:
            return _of_jpeg_2000(data, start + 2, stop)
        return _of_jp2(data, start, stop) if data[start : start + 8] == JP2 else None
    except (struct.error, IndexError):  # it is over within a segment
        return None


def _of_jpeg(data: bytes | mmap, at: int, stop: int) -> Codestream | None:
    found: tuple[int, ...] = ()
    while at + 2 <= stop and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # fill bytes may stand before a marker
            at += 1
            continue
        if marker == _EOI:
            bits, rows, columns, samples, process = found or (0,) * 5
            return Codestream(rows, columns, samples, bits, process, at + 2) if found else None
        length = data[at + 2] << 8 | data[at + 3]
        behind = at + 2 + length
        if marker < _FIRST_SEGMENT or 0xD0 <= marker <= _SOI or length < 2 or behind > stop:
            return None
        if marker in _SOF:
            if found or length < 8:  # images of several resolutions, which nothing in DICOM has
                return None
            found = (*_FRAME(data, at + 4), marker)
        at = behind
        if marker == _SOS:
            if not found:
                return None
            ended = (_BEHIND_SCAN_LS if found[-1] == SOF_LS else _BEHIND_SCAN).search(data, at, stop)
            if ended is None:
                return None
            at = ended.start()
    return None


def _of_jpeg_2000(data: bytes | mmap, at: int, stop: int) -> Codestream | None:
    columns, rows, left, top, samples = _SIZE(data, at + 4)
    components = data[at + 4 + _COMPONENTS_AT : at + 4 + _COMPONENTS_AT + 3 * samples]
    across, down = min(components[1::3], default=0), min(components[2::3], default=0)  # every which sample there is
    if len(components) != 3 * samples or not across or not down or left >= columns or top >= rows:
        return None
    parts, part_end, part_at = 0, 0, at
    while at + 4 <= stop and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == _SOD:
            if not parts or 0 < part_end < at + 2:
                return None
            end = data.find(_END, at + 2, part_end or stop)  # which is nowhere within a tile-part
            if (end < 0) != bool(part_end):
                return None
            at = part_end or end
            if at <= part_at or at > stop:
                return None
            if data[at : at + 2] == b"\xff\x90" and at + 2 <= stop:
                continue
            size = -(-rows // down) - -(-top // down), -(-columns // across) - -(-left // across)
            bits = max(each & 0x7F for each in components[::3]) + 1
            return Codestream(*size, samples, bits, 0, at + 2 if data[at : min(at + 2, stop)] == _END else at)
        length = data[at + 2] << 8 | data[at + 3]
        if marker == 0xFF or length < 2 or at + 2 + length > stop:
            return None
        if marker == _SOT:
            (size_of_part,) = _TILE_PART(data, at + 4)
            parts, part_at, part_end = parts + 1, at, at + size_of_part if size_of_part else 0
        at += 2 + length
    return None


def _of_jp2(data: bytes | mmap, at: int, stop: int) -> Codestream | None:
    while at + 8 <= stop:
        size, kind, begin = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8], at + 8
        if size == 1:
            size, begin = int.from_bytes(data[begin : begin + 8], "big"), begin + 8
        end = at + size if size else stop
        if not begin <= end <= stop:
            return None
        if kind == b"jp2c":
            return _of_jpeg_2000(data, begin + 2, end) if data[begin : begin + 4] == JPEG_2000 else None
        at = end
    return None
