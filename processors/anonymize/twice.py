"""Whether an element is there twice in a data set or an item of it (PS3.5 7.1: at most once), wherever the second one stands.

The walk over bytes sees it by the order of elements. pydicom, which the plain engine reads with, keeps the last of them and says nothing.
"""

from __future__ import annotations

import struct

from hilum.dicom.encoding import UNDEFINED
from hilum.dicom.file_meta import LONG_VRS
from processors.anonymize.about import behind_items
from processors.anonymize.held import shown
from processors.anonymize.rules import Act, Level
from processors.anonymize.source import Source, truncated, unreadable

_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD


def check_once(source: Source, top: Level) -> None:
    """Raise `Held` if an element is twice among those of the top level, or of an item that stays. What is removed is not looked into."""
    try:
        _elements(source, source.start, len(source.data), top, explicit=source.explicit, delimited=False)
    except struct.error:
        raise truncated() from None


def _elements(source: Source, at: int, end: int, level: Level, *, explicit: bool, delimited: bool) -> int:
    data, order, seen = source.data, ">" if source.big_endian else "<", set()
    while at < end:
        group, element, length = struct.unpack_from(order + "HHI", data, at)
        tag, start, vr = group << 16 | element, at + 8, bytes(data[at + 4 : at + 6]) if explicit else b""
        if tag == _ITEM_END and delimited:
            return start
        if tag in seen:
            raise unreadable("The same element is there twice.", shown(tag))
        seen.add(tag)
        if vr in LONG_VRS:
            (length,) = struct.unpack_from(order + "I", data, at + 8)
            start = at + 12
        elif explicit:
            (length,) = struct.unpack_from(order + "H", data, at + 6)
        decision = level.decide(tag, vr.decode("latin-1"))
        if decision.act is Act.DESCEND and vr in (b"", b"SQ", b"UN"):  # what is in UN is in implicit VR (PS3.5 6.2.2)
            at = _items(source, start, end if length == UNDEFINED else start + length, level.inside(decision), explicit=vr == b"SQ")
        elif length == UNDEFINED:
            at = behind_items(source, start, vr == b"SQ", 0)
        else:
            at = start + length
    if delimited or at != end:
        raise truncated()
    return at


def _items(source: Source, at: int, end: int, level: Level, *, explicit: bool) -> int:
    while at < end:
        group, element, length = struct.unpack_from((">" if source.big_endian else "<") + "HHI", source.data, at)
        at += 8
        if (tag := group << 16 | element) == _SEQUENCE_END:
            return at
        if tag != _ITEM:
            raise unreadable("A sequence holds something else than items.", shown(tag))
        undefined = length == UNDEFINED
        at = _elements(source, at, end if undefined else at + length, level, explicit=explicit, delimited=undefined)
    return at
