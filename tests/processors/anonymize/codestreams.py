"""Codestreams of JPEG, JPEG-LS and JPEG 2000 as bytes, right or wrong: of 2 rows and 2 columns, one sample of 8 bits a pixel."""

from __future__ import annotations

import struct


def segment(marker: int, content: bytes) -> bytes:
    """A segment of a codestream (ISO/IEC 10918-1 B.1.1.4)."""
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


#: How frames of JPEG and JPEG-LS begin, the size in JPEG 2000, and the begin of a scan.
SOF, SOF_LS = (segment(marker, b"\x08\0\2\0\2\1\1\x11\0") for marker in (0xC0, 0xF7))
SIZ = segment(0x51, struct.pack(">H8IHBBB", 0, 2, 2, 0, 0, 2, 2, 0, 0, 1, 7, 1, 1))
SOS = segment(0xDA, b"\1\1\0\0\x3f\0")


def jpeg(header: bytes = b"", scan: bytes = b"\1", *, sof: bytes = SOF) -> bytes:
    """A frame of JPEG or JPEG-LS with something in its header, or another scan."""
    return b"\xff\xd8" + header + sof + SOS + scan + b"\xff\xd9"


def part(header: bytes = b"", packets: bytes = b"\1\1", number: int = 0) -> bytes:
    """A tile-part of JPEG 2000 (ISO/IEC 15444-1 A.4.2)."""
    body = header + b"\xff\x93" + packets
    return segment(0x90, struct.pack(">HIBB", 0, 12 + len(body), number, 2)) + body


def jpeg_2000(header: bytes = b"", *parts: bytes, siz: bytes = SIZ) -> bytes:
    """A codestream of JPEG 2000 with something in its header, and of these tile-parts."""
    return b"\xff\x4f" + siz + header + b"".join(parts or (part(),)) + b"\xff\xd9"


def jp2(kind: bytes, content: bytes, *, long: bool = False) -> bytes:
    """A JP2 file (ISO/IEC 15444-1 I) with a box of this kind, and next to nothing else."""
    head = struct.pack(">I4sQ", 1, kind, len(content) + 16) if long else struct.pack(">I4s", len(content) + 8, kind)
    stream = jpeg_2000()
    return b"\0\0\0\x0cjP  \r\n\x87\n" + head + content + struct.pack(">I4s", 0, b"jp2c") + stream + b"\0" * (len(content) % 2)
