"""Part 10 files as the second look's reader takes them: in parts, inflated, in one of three encodings (PS3.10 7, PS3.5 7)."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from functools import lru_cache
from mmap import mmap
from typing import Any

from pydicom.datadict import dictionary_VR

Data = bytes | mmap | Sequence[bytes | memoryview]

MAX_INFLATED_BYTES = 512 * 2**20
_MAX_KNOWN = 20_000
_IMPLICIT = frozenset({b"1.2.840.10008.1.2", b"1.2.840.113619.5.2", b"1.2.840.10008.1.20"})
_BIG = b"1.2.840.10008.1.2.2"
DEFLATED = frozenset({b"1.2.840.10008.1.2.1.99", b"1.2.840.10008.1.2.4.95", b"1.2.840.10008.1.2.4.205"})


class Unreadable(Exception):
    """The bytes are no Part 10 file that can be read to its end. Holds no value."""


class Source:
    """Bytes in one or several parts, read from anywhere."""

    def __init__(self, data: Data) -> None:
        self._parts: Sequence[Any] = [data] if isinstance(data, bytes | mmap) else data
        #: All of it where that is in memory in one piece, which then need not be copied.
        self.whole = data if isinstance(data, bytes) else None
        self.size = sum(map(len, self._parts))

    def read(self, at: int, size: int) -> bytes:
        """`size` bytes from `at`, or those that there are."""
        if len(self._parts) == 1:
            return bytes(self._parts[0][at : at + size])
        found: list[bytes | memoryview] = []
        for part in self._parts:
            count = len(part)
            if at >= count:
                at -= count
                continue
            if at or count > size:
                part = part[at : at + size]
                count = len(part)
                at = 0
            found.append(part)
            size -= count
            if size <= 0:
                break
        return b"".join(found)


def encoding_of(syntax: bytes, first: bytes) -> str:
    """As the transfer syntax says, unless the first element says otherwise: some senders name the wrong one."""
    if syntax == _BIG:
        return "big"
    if syntax in _IMPLICIT:
        return "explicit" if first[4:6].isalpha() and first[4:6].isupper() and first[:2] == b"\x08\0" else "implicit"
    return "explicit" if first[4:6].isalpha() and first[4:6].isupper() else "implicit"


@lru_cache(maxsize=_MAX_KNOWN)
def vr_of(tag: int) -> str:
    """The VR of an element in implicit VR (PS3.6); of one of two, the first."""
    if tag >> 16 & 1:
        return "LO" if 0x10 <= tag & 0xFFFF <= 0xFF else "UN"
    if tag & 0xFFFF == 0:
        return "UL"
    try:
        return str(dictionary_VR(tag))[:2]
    except KeyError:
        return "UN"


def inflated(raw: bytes) -> bytes:
    """A data set that was deflated (PS3.5 A.5). Raises `Unreadable`."""
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        found = stream.decompress(raw, MAX_INFLATED_BYTES)
    except zlib.error:
        raise Unreadable("no deflate stream") from None
    if not stream.eof:
        raise Unreadable("a deflate stream that ends too early, or is too long")
    return found
