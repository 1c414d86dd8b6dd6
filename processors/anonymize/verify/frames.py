"""Text at the edges of compressed fragments (PS3.5 A.4), where encoders, cameras and whoever wants to hide something put it: comments
and application data in front of the samples, whatever is behind their end, tables of offsets.

Samples are not decoded: of each fragment its beginning and its end are read, and what follows an end of image within it, where only what
pads a frame may be. Text is what stands in ASCII; among samples, fewer characters together come about by chance.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise

_BEGINNING_BYTES, _END_BYTES = 4096, 1024
_TEXT, _SHORT_TEXT = re.compile(rb"[\x20-\x7e]{10,}"), re.compile(rb"[\x20-\x7e]{4,}")
_PIECE_BYTES = 2**20
#: The end of an image (ISO/IEC 10918-1 B.2.1, 15444-1 A.4.4) and whatever zeros follow it.
_ENDS = re.compile(rb"\xff\xd9\0*")
#: Of the Huffman tables that most of JPEG has (ISO/IEC 10918-1 K.3.3): as text they have digits and letters in a row.
_TABLES = re.compile(rb"(?:[\x20-\x7e]{0,12}456789:CDEFGHIJSTUVWXYZ[\x20-\x7e]{0,60})")


def edges(read: Callable[[int, int], bytes], places: Iterable[tuple[int, int]]) -> bytes:
    """Text at both ends of fragments, which are at places of some length, `b""` if there is none; `read` takes a place and a size."""
    found: list[bytes] = []
    for at, length in places:
        if length <= _BEGINNING_BYTES + _END_BYTES:
            ends = read(at, length)
        else:
            ends = read(at, _BEGINNING_BYTES) + b"\x01" + read(at + length - _END_BYTES, _END_BYTES)
        found += _TEXT.findall(_TABLES.sub(b"\x01", ends))
        for behind in _behind(read, at, at + length):
            found += _SHORT_TEXT.findall(behind)
            found += _SHORT_TEXT.findall(behind.replace(b"\0", b""))  # text in UTF-16
    return b"\x01".join(found)


def _behind(read: Callable[[int, int], bytes], start: int, stop: int) -> Iterator[bytes]:
    """What follows each end of an image and its zeros, however many they are."""
    goes_on = False
    for begin in range(start, stop, _PIECE_BYTES):
        piece = read(begin, min(_PIECE_BYTES + 1, stop - begin))  # the two bytes of an end may be apart
        places = [each.end() for each in _ENDS.finditer(piece)]
        if goes_on:  # behind the byte that was seen already
            places.insert(0, len(piece) - len(piece[1:].lstrip(b"\0")))
        goes_on = places[-1:] == [len(piece)]
        for place, following in pairwise([*places, stop - begin]):
            size = min(_END_BYTES, following - place, stop - begin - place)  # no text goes over an end
            if place < len(piece):
                yield piece[place : place + size] if place + size <= len(piece) else read(begin + place, size)
