"""What a file is, by its first bytes: a DICOM object, the directory of a medium, or something else."""

from __future__ import annotations

from pathlib import PurePosixPath

from msgspec import Struct

from hilum.dicom import uid_is_usable
from hilum.dicom.dataset import read_header
from hilum.dicom.encoding import EXPLICIT_BIG, DataSetError, encoding_of
from hilum.dicom.file_meta import LONG_VRS
from hilum.media.errors import Skipped, Unreadable, Why
from hilum.media.sources import is_archive
from hilum.upper_layer import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN

#: What is looked at. File Meta Information is some hundred bytes; the UIDs of a data set without it are near its beginning.
HEAD_BYTES = 128 * 1024
_MEDIA_STORAGE_DIRECTORY = "1.2.840.10008.1.3.10"
_SOP_CLASS_UID, _SOP_INSTANCE_UID, _TRANSFER_SYNTAX_UID = 0x0002, 0x0003, 0x0010
#: Names that promise an object: if there is none inside, people want to know.
_SUFFIXES = frozenset({".dcm", ".dicom", ".dcm30", ".dc3", ".ima"})


class Head(Struct, frozen=True, kw_only=True):
    """What the beginning of a DICOM file says."""

    transfer_syntax_uid: str
    #: Where the data set begins.
    data_set_at: int
    #: As File Meta Information names them; empty if it does not, or not by a usable UID.
    sop_class_uid: str = ""
    sop_instance_uid: str = ""
    #: Whether there is no File Meta Information: how the data set is encoded was found out, not said.
    bare: bool = False
    #: Whether it is a DICOMDIR (PS3.10 8), not an object.
    directory: bool = False


def recognise(head: bytes, name: str) -> Head:
    """What the file with this name is that begins with `head` (`HEAD_BYTES`, or all of it).

    Raises `Skipped` if it is no DICOM file, `Unreadable` if it is one, or is named like one, and cannot be taken.
    """
    if not head:
        raise Unreadable(Why.EMPTY, fix="Have it copied again.")
    if is_archive(head, name):
        raise Skipped(Why.NESTED_ARCHIVE)
    if head[128:132] == b"DICM":
        return _part10(head, 132)
    if head[:4] == b"DICM":  # old exports without the preamble
        return _part10(head, 4)
    if head[:4] in (b"\x02\0\0\0", b"\x02\0\1\0", b"\x02\0\2\0"):
        return _part10(head, 0)
    if head[:2] in (b"\x08\0", b"\0\x08"):
        return _bare(head, name)
    raise _none(name)


def _none(name: str) -> Skipped | Unreadable:
    if PurePosixPath(name).suffix.lower() in _SUFFIXES:
        return Unreadable(Why.NO_DICOM, "It is named like a DICOM file and is none.", fix="Have it copied or exported again.")
    return Skipped(Why.NO_DICOM)


def _part10(head: bytes, meta_at: int) -> Head:
    """A file with File Meta Information, whatever is odd about that (PS3.10 7.1)."""
    meta, data_set_at = _meta(head, meta_at)
    if data_set_at >= len(head):
        sentence = (
            f"There is no data set in its first {HEAD_BYTES} bytes." if len(head) >= HEAD_BYTES else "The file ends before its data set."
        )
        raise Unreadable(Why.TRUNCATED, sentence, fix="Have it copied or exported again.")
    data_set = head[data_set_at : data_set_at + 8]
    syntax = meta[_TRANSFER_SYNTAX_UID]
    directory = meta[_SOP_CLASS_UID] == _MEDIA_STORAGE_DIRECTORY or data_set[:2] == b"\x04\0"
    return Head(
        transfer_syntax_uid=syntax or _guessed(head, data_set_at),
        data_set_at=data_set_at,
        sop_class_uid=meta[_SOP_CLASS_UID],
        sop_instance_uid=meta[_SOP_INSTANCE_UID],
        bare=not syntax,
        directory=directory,
    )


def _meta(head: bytes, at: int) -> tuple[dict[int, str], int]:
    """The UIDs of File Meta Information, empty where there is none that is usable, and where the data set begins.

    Group length is not trusted: the data set begins with the first element of another group. Some write the group in implicit VR.
    """
    uids = {_SOP_CLASS_UID: "", _SOP_INSTANCE_UID: "", _TRANSFER_SYNTAX_UID: ""}
    while head[at : at + 2] == b"\x02\0":
        element, vr = int.from_bytes(head[at + 2 : at + 4], "little"), head[at + 4 : at + 6]
        if not (vr.isalpha() and vr.isupper()):
            value_at, length = at + 8, int.from_bytes(head[at + 4 : at + 8], "little")
        elif vr in LONG_VRS:
            value_at, length = at + 12, int.from_bytes(head[at + 8 : at + 12], "little")
        else:
            value_at, length = at + 8, int.from_bytes(head[at + 6 : at + 8], "little")
        at = value_at + length
        if element in uids:
            uid = head[value_at:at].decode("latin-1").strip(" \0")
            uids[element] = uid if uid_is_usable(uid) else ""
    return uids, at


def _guessed(head: bytes, at: int) -> str:
    """The transfer syntax of an uncompressed data set that begins at `at`. Raises `Unreadable` if it does not begin as one."""
    first = head[at : at + 8]
    if first[:1] == b"\0" and first[4:6].isalpha():
        return EXPLICIT_BIG
    try:
        encoding = encoding_of(first, len(head) - at, IMPLICIT_VR_LITTLE_ENDIAN)
    except DataSetError:
        raise Unreadable(Why.UNREADABLE, "It names no transfer syntax, and none fits.", fix="Have it exported again.") from None
    return EXPLICIT_VR_LITTLE_ENDIAN if encoding.explicit else IMPLICIT_VR_LITTLE_ENDIAN


def _bare(head: bytes, name: str) -> Head:
    """A data set without File Meta Information, if it is plainly one."""
    try:
        syntax = _guessed(head, 0)
    except Unreadable:
        raise _none(name) from None
    header = read_header(head, syntax).json
    if len(header) < 3:  # a coincidence
        raise _none(name)
    sop_instance_uid = header.get("00080018", {}).get("Value")
    if not sop_instance_uid:
        raise Unreadable(
            Why.IDENTIFIER_MISSING,
            "It is a data set without File Meta Information and without SOPInstanceUID, as before DICOM 3.0.",
            fix="Have it converted to a DICOM file at its source.",
        )
    return Head(transfer_syntax_uid=syntax, data_set_at=0, bare=True)
