"""File Meta Information (PS3.10 7.1): written in front of a received data set, and read back."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from functools import lru_cache

from hilum.upper_layer import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

PREAMBLE = bytes(128) + b"DICM"
#: More than this is not Hilum's.
MAX_META_BYTES = 64 * 1024

VERSION = 0x0001
SOP_CLASS_UID = 0x0002
SOP_INSTANCE_UID = 0x0003
TRANSFER_SYNTAX_UID = 0x0010
SENDING_AET = 0x0017
RECEIVING_AET = 0x0018
SENDING_ADDRESS = 0x0027
PRIVATE_CREATOR_UID = 0x0100
PRIVATE_INFORMATION = 0x0102

_IMPLEMENTATION_CLASS_UID = 0x0012
_IMPLEMENTATION_VERSION_NAME = 0x0013
_VRS = {
    VERSION: b"OB",
    _IMPLEMENTATION_VERSION_NAME: b"SH",
    SENDING_AET: b"AE",
    RECEIVING_AET: b"AE",
    SENDING_ADDRESS: b"UR",
    PRIVATE_INFORMATION: b"OB",
}
#: VRs whose length has 32 bits in explicit VR (PS3.5 7.1.2).
LONG_VRS = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})
#: Values that are remembered encoded: of all objects' File Meta, most elements are the same.
_SHORT = 64
_SHORT_HEAD = struct.Struct("<HH2sH")
_LONG_HEAD = struct.Struct("<HH2s2xI")
_GROUP_LENGTH = struct.Struct("<HH2sHI")


def part10_head(sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str, more: Mapping[int, bytes] | None = None) -> bytes:
    """Preamble and File Meta, for a data set to follow. Equal for equal arguments.

    `more` holds further elements of group 0002, by element number.
    """
    elements = {
        VERSION: b"\0\1",
        SOP_CLASS_UID: sop_class_uid.encode("latin-1", "replace"),
        SOP_INSTANCE_UID: sop_instance_uid.encode("latin-1", "replace"),
        TRANSFER_SYNTAX_UID: transfer_syntax_uid.encode("latin-1", "replace"),
        _IMPLEMENTATION_CLASS_UID: IMPLEMENTATION_CLASS_UID.encode(),
        _IMPLEMENTATION_VERSION_NAME: IMPLEMENTATION_VERSION_NAME.encode(),
        **(more or {}),
    }
    in_order = sorted(elements.items()) if more else elements.items()
    meta = b"".join([_element(element, value) for element, value in in_order])
    return PREAMBLE + _GROUP_LENGTH.pack(2, 0, b"UL", 4, len(meta)) + meta


def _element(element: int, value: bytes) -> bytes:
    return _short_element(element, value) if len(value) <= _SHORT else _encoded(element, value)


@lru_cache(maxsize=1024)
def _short_element(element: int, value: bytes) -> bytes:
    return _encoded(element, value)


def _encoded(element: int, value: bytes) -> bytes:
    vr = _VRS.get(element, b"UI")
    if len(value) % 2:
        value += b" " if vr in (b"AE", b"SH", b"UR") else b"\0"
    head = _LONG_HEAD.pack(2, element, vr, len(value)) if vr in LONG_VRS else _SHORT_HEAD.pack(2, element, vr, len(value))
    return head + value


def read_meta(head: bytes) -> tuple[dict[int, bytes], int]:
    """The elements of group 0002 by element number, unpadded, and where the data set begins.

    `head` holds the first bytes of the file, the whole File Meta among them. Raises `ValueError` if it is none that begins
    with its group length.
    """
    if head[128:132] != b"DICM" or head[132:140] != b"\x02\0\0\0UL\x04\0":
        raise ValueError("no Part 10 file with a group length")
    end = 144 + int.from_bytes(head[140:144], "little")
    if end > len(head):
        raise ValueError("the File Meta is not complete")
    found: dict[int, bytes] = {}
    at = 144
    while at < end:
        _, element, vr, length = _SHORT_HEAD.unpack_from(head, at)
        at += 8
        if vr in LONG_VRS:
            length = int.from_bytes(head[at : at + 4], "little")
            at += 4
        found[element] = head[at : at + length].rstrip(b"\0 ") if vr != b"OB" else head[at : at + length]
        at += length
    return found, end
