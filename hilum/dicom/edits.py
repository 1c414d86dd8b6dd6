"""Attributes of an object that are another value on the way out, with what they were before (PS3.3 C.12.1.1.9).

The object in the store stays as it came. Each set of edits adds an item to Original Attributes Sequence (0400,0561): the values before,
from whom, when, and why. Digital signatures would not hold any more, and are left out (PS3.15 C).
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from mmap import mmap

from msgspec import Struct

from hilum.dicom.character_sets import python_encoding
from hilum.dicom.dataset import read_header
from hilum.dicom.encoding import DEFLATED, EXPLICIT_BIG, UNDEFINED, DataSetError, encoding_of
from hilum.dicom.file_meta import LONG_VRS
from hilum.dicom.header import Header
from hilum.dicom.recode import CannotRecode, Change, OtherCharacters, Parts, recoded

#: What may be another value, by keyword: its tag, its VR, and the longest value in characters (PS3.5 6.2); of PN in each group.
EDITABLE: Mapping[str, tuple[int, bytes, int]] = {
    "AccessionNumber": (0x00080050, b"SH", 16),
    "ReferringPhysicianName": (0x00080090, b"PN", 64),
    "StudyDescription": (0x00081030, b"LO", 64),
    "PatientName": (0x00100010, b"PN", 64),
    "PatientID": (0x00100020, b"LO", 64),
    "IssuerOfPatientID": (0x00100021, b"LO", 64),
    "PatientBirthDate": (0x00100030, b"DA", 8),
    "PatientSex": (0x00100040, b"CS", 16),
    "RequestingService": (0x00321033, b"LO", 64),
    "RequestedProcedureDescription": (0x00321060, b"LO", 64),
    "AdmissionID": (0x00380010, b"LO", 64),
}
SIGNATURES = {0x4FFE0001: "MACParametersSequence", 0xFFFAFFFA: "DigitalSignaturesSequence"}
_ORIGINAL_ATTRIBUTES = 0x04000561
UTF8 = "ISO_IR 192"


class Edits(Struct, frozen=True, kw_only=True):
    """Values by keyword of `EDITABLE`, and why. The same edits of the same object give the same bytes."""

    values: Mapping[str, str]
    #: Where the values come from, such as `order`: SourceOfPreviousValues stays empty, since nobody knows who wrote them.
    reason: str = "COERCE"
    system: str = "HILUM"
    at: datetime
    #: What is said of them in the ledger, such as the order that they are of.
    says: str = ""
    #: In which character sets the object may be written if a value is not of its own, the first that holds all of its text.
    character_sets: tuple[str, ...] = (UTF8,)
    #: The transfer syntax in which the object is stored, if it is to be written in Explicit VR Little Endian first; else empty.
    stored_as: str = ""


class Edited(Struct, frozen=True):
    """A data set with its edits made."""

    parts: Parts
    #: Keywords of what is another value now.
    changed: tuple[str, ...]
    #: The character set in which all text was written, because a value is not of the one that the object has; else empty.
    character_set: str
    signatures_dropped: bool


def edited(part10: bytes | mmap, data_set_at: int, transfer_syntax_uid: str, edits: Edits) -> Edited | None:
    """The data set of a Part 10 file with these edits, in its own transfer syntax; None if it has all these values already.

    Raises `CannotRecode`: it is deflated or in big endian (write it in another transfer syntax first), or cannot be read, or its text is
    of none of the character sets in which it may be written.
    """
    if transfer_syntax_uid in DEFLATED or transfer_syntax_uid == EXPLICIT_BIG:
        raise CannotRecode("no edits are made in a deflated or big endian data set")
    data = memoryview(part10)[data_set_at:]
    tags = {f"{EDITABLE[keyword][0]:08X}" for keyword in edits.values}
    signed = {f"{tag:08X}" for tag in SIGNATURES}
    try:
        encoding = encoding_of(bytes(data[:8]), len(data), transfer_syntax_uid)
        found = read_header(part10, transfer_syntax_uid, start=data_set_at, keep=frozenset({*tags, *signed, "00080005"}))
    except DataSetError as error:
        raise CannotRecode(f"it cannot be read ({error})") from None
    if found.fault:
        raise CannotRecode("it cannot be read to its end")
    header = Header(found.json, cut=frozenset(found.cut))
    before = {keyword: _text(header, keyword) for keyword in edits.values}
    changed = {keyword: value for keyword, value in edits.values.items() if value != before[keyword] and _fits(keyword, value)}
    if not changed:
        return None
    said = header.values("SpecificCharacterSet")
    texts = [*changed.values(), *(before[keyword] for keyword in changed)]
    dropped = any(f"{tag:08X}" in found.json or f"{tag:08X}" in found.cut for tag in SIGNATURES)

    def made(codec: str, character_set: str) -> Edited:
        changes: dict[int, Change | None] = {
            EDITABLE[keyword][0]: Change(EDITABLE[keyword][1], _padded(value, EDITABLE[keyword][1], codec))
            for keyword, value in changed.items()
        }
        changes |= dict.fromkeys(SIGNATURES)
        item = _item(before, changed, edits, codec, explicit=encoding.explicit)
        changes[_ORIGINAL_ATTRIBUTES] = Change(b"SQ", item, appended=True)
        parts = recoded(data, encoding, explicit=encoding.explicit, changes=changes, character_set=character_set)
        return Edited(parts, tuple(sorted(changed)), character_set, dropped)

    own = _own_codec(said)
    if all(_holds(own, text) for text in texts):
        return made(own, "")
    for each in edits.character_sets:
        if all(_holds(python_encoding[each], text) for text in texts):
            with suppress(OtherCharacters):  # what else the object says is not of it
                return made(python_encoding[each], "" if said == [each] else each)
    raise CannotRecode(f"not all of its text is of {_alternatives(edits.character_sets)}, and the destination takes no other character set")


def _item(before: Mapping[str, str], changed: Iterable[str], edits: Edits, encoding: str, *, explicit: bool) -> bytes:
    """An item of Original Attributes Sequence: what was there before, who changed it, when and why."""
    values = sorted((EDITABLE[keyword], before[keyword]) for keyword in changed)
    modified = b"".join(_element(tag, vr, _padded(value, vr, encoding), explicit) for (tag, vr, _), value in values)
    at = edits.at.astimezone(UTC).strftime("%Y%m%d%H%M%S+0000")
    return _in_item(
        _sequence(0x04000550, _in_item(modified), explicit)
        + _element(0x04000562, b"DT", _padded(at, b"DT", encoding), explicit)
        + _element(0x04000563, b"LO", _padded(edits.system, b"LO", encoding), explicit)
        + _element(0x04000564, b"LO", b"", explicit)
        + _element(0x04000565, b"CS", _padded(edits.reason, b"CS", encoding), explicit)
    )


def _element(tag: int, vr: bytes, value: bytes, explicit: bool) -> bytes:
    group, element = tag >> 16, tag & 0xFFFF
    if not explicit:
        return struct.pack("<HHI", group, element, len(value)) + value
    if vr in LONG_VRS:
        return struct.pack("<HH2s2xI", group, element, vr, len(value)) + value
    return struct.pack("<HH2sH", group, element, vr, len(value)) + value


def _sequence(tag: int, items: bytes, explicit: bool) -> bytes:
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF) + (b"SQ\0\0" if explicit else b"") + struct.pack("<I", UNDEFINED)
    return head + items + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)


def _in_item(content: bytes) -> bytes:
    return struct.pack("<HHI", 0xFFFE, 0xE000, UNDEFINED) + content + struct.pack("<HHI", 0xFFFE, 0xE00D, 0)


def _padded(value: str, vr: bytes, encoding: str) -> bytes:
    raw = value.encode(encoding)
    del vr  # all of them are text, which is padded with a space
    return raw + b" " * (len(raw) % 2)


def _text(header: Header, keyword: str) -> str:
    """All values of an attribute as they stand in the data set."""
    values = []
    for value in header.values(keyword):
        if isinstance(value, dict):
            value = "=".join(value.get(group, "") for group in ("Alphabetic", "Ideographic", "Phonetic")).rstrip("=")
        values.append("" if value is None else str(value))
    return "\\".join(values)


def _fits(keyword: str, value: str) -> bool:
    """Whether the attribute can hold the value; one that is too long is never cut."""
    _, vr, longest = EDITABLE[keyword]
    parts = value.split("=") if vr == b"PN" else [value]
    return bool(value) and "\\" not in value and all(len(part) <= longest for part in parts)


def _own_codec(terms: list[str | None]) -> str:
    """Python's name of the object's character set. Of one with code extensions (PS3.5 6.1.2.5) only ASCII is written as it is."""
    own = "ascii" if not terms or not terms[0] else python_encoding.get(terms[0], "ascii")
    return "ascii" if len(terms) > 1 or own.startswith(("iso2022", "iso_ir_58", "euc")) else own


def _holds(codec: str, text: str) -> bool:
    try:
        text.encode(codec)
    except UnicodeEncodeError:
        return False
    return True


def _alternatives(terms: Collection[str]) -> str:
    return " or ".join(terms) or "its own character set"
