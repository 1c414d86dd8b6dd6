"""The beginning of a DICOM file that comes in pieces: preamble and File Meta Information (PS3.10 7.1) of any maker."""

from __future__ import annotations

from msgspec import Struct

from hilum.dicom.values import LITTLE

#: With private information it may be large; more than this is none.
MAX_BYTES = 2**20
_BEGIN = 132
_GROUP_LENGTH, _SOP_CLASS_UID, _SOP_INSTANCE_UID, _TRANSFER_SYNTAX_UID = 0x0000, 0x0002, 0x0003, 0x0010


class FileMeta(Struct, frozen=True, kw_only=True):
    """What a file says of itself, `""` where it does not, and where its data set begins."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    data_set_at: int


def read_file_meta(head: bytes, *, whole: bool = False) -> FileMeta | None:
    """The File Meta of a file that begins with `head`; None if more of it is needed. `whole`: there is no more.

    A group length that is absent or wrong does no harm. Raises `ValueError` if this is no DICOM file.
    """
    if head[128:_BEGIN] != b"DICM"[: max(len(head) - 128, 0)] or (whole and len(head) < _BEGIN):
        raise ValueError("no preamble")
    found: dict[int, str] = {}
    announced_end = -1
    at = _BEGIN
    while True:
        # Without a transfer syntax it cannot be over, whatever its group length says.
        if (at == announced_end and _TRANSFER_SYNTAX_UID in found) or (whole and at == len(head) > announced_end):
            break
        if len(head) < at + 12 and not (whole and len(head) >= at + 8):
            return _wait(head, whole=whole)
        if head[at : at + 2] != b"\x02\0":
            break
        element = int.from_bytes(head[at + 2 : at + 4], "little")
        vr = LITTLE.get(head[at + 4 : at + 6].decode("latin-1"))
        if vr is None:
            raise ValueError("an unknown VR")
        length = int.from_bytes(head[at + 8 : at + 12] if vr.long else head[at + 6 : at + 8], "little")
        at += 12 if vr.long else 8
        if at + length > MAX_BYTES:
            raise ValueError("too long")
        if at + length > len(head):
            return _wait(head, whole=whole)
        value = head[at : at + length]
        at += length
        if element == _GROUP_LENGTH and length == 4:
            announced_end = at + int.from_bytes(value, "little")
        found[element] = value.decode("latin-1").strip(" \0")
    if not found:
        raise ValueError("no File Meta Information")
    return FileMeta(
        sop_class_uid=found.get(_SOP_CLASS_UID, ""),
        sop_instance_uid=found.get(_SOP_INSTANCE_UID, ""),
        transfer_syntax_uid=found.get(_TRANSFER_SYNTAX_UID, ""),
        data_set_at=at,
    )


def _wait(head: bytes, *, whole: bool) -> FileMeta | None:
    if whole or len(head) > MAX_BYTES:
        raise ValueError("it is cut off")
    return None
