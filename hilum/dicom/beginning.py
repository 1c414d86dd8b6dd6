"""Which object a data set is, by its first elements, without parsing the rest."""

from __future__ import annotations

import struct

from hilum.dicom.encoding import Encoding
from hilum.dicom.values import LITTLE

SOP_CLASS_UID, SOP_INSTANCE_UID = 0x00080016, 0x00080018


def sop_uids(head: bytes, encoding: Encoding) -> dict[int, str]:
    """SOPClassUID and SOPInstanceUID, by tag, as far as they can be seen in `head`; `""` where the data set is without.

    A tag is absent where `head` ends, or cannot be read, before that is known.
    """
    order = encoding.order
    found: dict[int, str] = {}
    at = 0
    while at + 8 <= len(head):
        group, element, length = struct.unpack_from(order + "HHI", head, at)
        tag = group << 16 | element
        if tag > SOP_INSTANCE_UID:
            return {SOP_CLASS_UID: "", SOP_INSTANCE_UID: ""} | found
        at += 8
        if encoding.explicit:
            vr = LITTLE.get(head[at - 4 : at - 2].decode("latin-1"))
            if vr is None:
                break
            (length,) = struct.unpack_from(order + "H", head, at - 2)
            if vr.long:
                length = int.from_bytes(head[at : at + 4], "big" if order == ">" else "little")
                at += 4
        if tag in (SOP_CLASS_UID, SOP_INSTANCE_UID) and at + length <= len(head):
            found[tag] = head[at : at + length].decode("latin-1").strip(" \0")
        at += length  # a sequence without length ends the look: no UID lies behind 4 GB
    return found
