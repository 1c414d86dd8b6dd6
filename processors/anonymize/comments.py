"""What compressed frames hold beside their samples: comments and application data of JPEG, JPEG-LS and JPEG 2000, photographs' EXIF among
them. Nobody needs it to decode, and it may hold anything: it is blanked where it stands, so that nothing moves and no sample changes.

Segments are looked at in front of the first samples, where encoders and cameras put them, between the scans of JPEG and in the header of
each tile-part of JPEG 2000 (ISO/IEC 10918-1 B.1.1.4, 15444-1 A.4), in frames of several fragments as well.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from mmap import mmap

from processors.anonymize.codestreams import BEGINNINGS, JP2, JPEG, JPEG_2000
from processors.anonymize.profiles import is_profile

#: Boxes of a JP2 file that say how to decode (ISO/IEC 15444-1 I.5), which should not be here at all (PS3.5 A.4.4) and sometimes are.
_BOXES, _CODESTREAM = (b"jP  ", b"ftyp", b"jp2h"), b"jp2c"
#: What is in `jp2h`, which holds boxes itself.
_HEADER, _IN_HEADER, _PROFILE = b"jp2h", (b"ihdr", b"bpcc", b"colr", b"pclr", b"cmap", b"cdef", b"res "), b"\x02"
#: Of a brand and a few that it is compatible with.
_FTYP_BYTES = 32
#: Of JPEG: start of scan, comment, application data, end of image; and what says how to decode: frames and codes (SOF, DHT, DAC), DQT, DNL,
#: DRI, DHP, and the two of JPEG-LS.
_SOS, _COM, _APP0, _APP15, _EOI = 0xDA, 0xFE, 0xE0, 0xEF, 0xD9
_JPEG_NEEDED = frozenset({*range(0xC0, 0xD0), 0xDB, 0xDC, 0xDD, 0xDE, 0xF7, 0xF8, _SOS}) - {0xC8}
#: What is no code of samples, restart or end: behind a byte of ones samples have none of these (ISO/IEC 10918-1 F.1.2.3, 14495-1 A.1).
#: Other codes that JPEG cannot have are none of a segment: `codestreams` has such frames held.
_BETWEEN_SCANS = re.compile(rb"\xff[\xc0-\xcf\xd8\xda-\xfe]")
#: Of JPEG 2000: comment, start of tile-part, start of data; and what says how to decode, of part 1 and of high throughput (part 15).
_COM_2000, _SOT, _SOD = 0x64, 0x90, 0x93
_2000_NEEDED = frozenset({*range(0x50, 0x54), 0x55, 0x56, 0x57, 0x58, 0x59, *range(0x5C, 0x60), 0x60, 0x61, 0x63, _SOT})
#: Application data that say how samples are meant, by how they begin, with the length of theirs at most: density, colour transform, the
#: header and the transform of JPEG-LS, colours.
_NEEDED = ((b"JFIF\0", 16), (b"Adobe", 14), (b"SPIFF\0", 34), (b"\0\0\0\1\xff\xd8", 8), (b"mrfx", 10))
_ICC = b"ICC_PROFILE\0"
#: What encoders say of themselves, which most codestreams of JPEG 2000 have.
_ENCODERS = re.compile(
    rb"(?:Kakadu-v?|Created by (?:GDCM/)?OpenJPEG version |Creator: JasPer Version |LEAD Technologies Inc\. V)[0-9.]{1,12}\0?"
)


def blanks(data: bytes | mmap, start: int, stop: int) -> Iterator[tuple[int, int, bytes]]:
    """From where to where something is blanked in the fragments (PS3.5 A.4) between `start` and `stop`, and by what, of the same length."""
    for fragments in _frames(data, start, stop):
        if len(fragments) == 1:
            found = _comments(data, *fragments[0])
        else:  # a segment may go on in the next one
            whole = b"".join(data[begin:end] for begin, end in fragments)
            found = (place for each in _comments(whole, 0, len(whole)) for place in _placed(fragments, *each))
        yield from ((first, last, b" " * (last - first)) for first, last in found)


def _frames(data: bytes | mmap, start: int, stop: int) -> Iterator[list[tuple[int, int]]]:
    """The fragments of each codestream, from where to where they go; what is none by itself."""
    at = start
    fragments: list[tuple[int, int]] = []
    while at + 8 <= stop:
        begin = at + 8
        at = begin + int.from_bytes(data[at + 4 : begin], "little")
        if at > stop:
            break
        if fragments and (not _begins(data, fragments[0][0]) or _begins(data, begin)):
            yield fragments
            fragments = []
        fragments.append((begin, at))
    if fragments:
        yield fragments


def _begins(data: bytes | mmap, at: int) -> bool:
    return data[at : at + 8].startswith(BEGINNINGS)


def _placed(fragments: list[tuple[int, int]], first: int, last: int) -> Iterator[tuple[int, int]]:
    """Where a part of a frame is in its fragments."""
    for begin, end in fragments:
        size = end - begin
        if first < size and last > 0:
            yield begin + max(first, 0), begin + min(last, size)
        first, last = first - size, last - size


def blanked(fragments: bytes) -> bytes:
    """The same fragments with nothing beside their samples."""
    new = bytearray(fragments)
    for first, last, blank in blanks(fragments, 0, len(fragments)):
        new[first:last] = blank
    return bytes(new)


def _comments(data: bytes | mmap, start: int, stop: int) -> Iterator[tuple[int, int]]:
    if data[start : start + 3] == JPEG:
        return _of_jpeg(data, start + 2, stop)
    if data[start : start + 8] == JP2:
        return _of_jp2(data, start, stop)
    return _of_jpeg_2000(data, start + 2, stop) if data[start : start + 4] == JPEG_2000 else iter(())


def _of_jp2(data: bytes | mmap, at: int, stop: int, known: tuple[bytes, ...] = _BOXES) -> Iterator[tuple[int, int]]:
    while at + 8 <= stop:
        size, kind, begin = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8], at + 8
        if size == 1:
            size, begin = int.from_bytes(data[begin : begin + 8], "big"), begin + 8
        at = at + size if 0 < begin - at <= size <= stop - at else stop
        if kind == _CODESTREAM:
            yield from _of_jpeg_2000(data, begin + 2, at)
        elif kind not in known:
            yield begin, at
        elif kind == _HEADER:
            yield from _of_jp2(data, begin, at, _IN_HEADER)
        elif kind == b"ftyp" and at - begin > _FTYP_BYTES:
            yield begin + _FTYP_BYTES, at
        elif kind == b"colr" and data[begin : begin + 1] == _PROFILE and not is_profile(data[begin + 3 : at]):
            yield begin + 3, at


def _segments(data: bytes | mmap, at: int, stop: int) -> Iterator[tuple[int, int, int]]:
    """Each segment with a length: its marker, and from where to where its content goes."""
    while at + 4 <= stop and data[at] == 0xFF:
        if data[at + 1] == 0xFF:  # fill bytes may stand before a marker
            at += 1
            continue
        length = data[at + 2] << 8 | data[at + 3]
        if length < 2 or at + 2 + length > stop:
            return
        yield data[at + 1], at + 4, at + 2 + length
        at += 2 + length


def _of_jpeg(data: bytes | mmap, at: int, stop: int) -> Iterator[tuple[int, int]]:
    while True:
        for marker, begin, end in _segments(data, at, stop):
            if marker == _EOI:
                return
            at = end
            if marker == _SOS:
                break
            if marker == _COM:
                stays = _ENCODERS.fullmatch(data, begin, end) is not None
            elif _APP0 <= marker <= _APP15:
                stays = _is_needed(data[begin:end])
            else:
                stays = marker in _JPEG_NEEDED
            if not stays:
                yield begin, end
        found = _BETWEEN_SCANS.search(data, at, stop)
        if found is None:
            return
        at = found.start() if found.start() > at else found.end()


def _is_needed(content: bytes) -> bool:
    if content.startswith(_ICC):  # which one of how many, and the profile: one that is cut into several cannot be looked at
        return content[len(_ICC) : len(_ICC) + 2] == b"\1\1" and is_profile(content[len(_ICC) + 2 :])
    return any(content.startswith(beginning) and len(content) + 2 <= most for beginning, most in _NEEDED)


def _of_jpeg_2000(data: bytes | mmap, at: int, stop: int) -> Iterator[tuple[int, int]]:
    while at < stop:
        next_part = stop
        for marker, begin, end in _segments(data, at, stop):
            if marker == _SOD:
                break
            if marker == _SOT:  # which tile, and the length of this part of it; without one it is the last
                length = int.from_bytes(data[begin + 2 : begin + 6], "big")
                next_part = begin - 4 + length if length else stop
            if marker == _COM_2000 and not _ENCODERS.fullmatch(data, begin + 2, end):
                yield begin + 2, end  # behind its kind
            elif marker != _COM_2000 and marker not in _2000_NEEDED:
                yield begin, end
        if next_part <= at:
            return
        at = next_part
