"""The data sets of Storage Commitment (PS3.4 J.3.2 and J.3.3, PS3.3 C.14): a request is read, a report is written."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from enum import IntEnum
from typing import Any

from msgspec import Struct

from hilum.dicom.dataset import read_header
from hilum.dicom.header import uid_is_usable
from hilum.upper_layer import IMPLICIT_VR_LITTLE_ENDIAN

STORAGE_COMMITMENT = "1.2.840.10008.1.20.1"
#: The well-known instance of which every request and report is (PS3.4 J.3.5).
STORAGE_COMMITMENT_INSTANCE = "1.2.840.10008.1.20.1.1"
#: N-ACTION: request storage commitment (PS3.4 J.3.2.1).
REQUEST_COMMITMENT = 1
#: N-EVENT-REPORT: all committed, or failures exist (PS3.4 J.3.3.1).
ALL_COMMITTED, FAILURES_EXIST = 1, 2

_TRANSACTION_UID, _FAILED_SEQUENCE, _REFERENCED_SEQUENCE = 0x00081195, 0x00081198, 0x00081199
_SOP_CLASS_UID, _SOP_INSTANCE_UID, _FAILURE_REASON = 0x00081150, 0x00081155, 0x00081197


class FailureReason(IntEnum):
    """Why one reference is not committed (PS3.3 C.14.1.1)."""

    PROCESSING_FAILURE = 0x0110
    NO_SUCH_INSTANCE = 0x0112
    RESOURCE_LIMITATION = 0x0213
    CLASS_NOT_SUPPORTED = 0x0122
    CLASS_INSTANCE_CONFLICT = 0x0119
    DUPLICATE_TRANSACTION = 0x0131


def reason_text(reason: int) -> str:
    """A failure reason for people and metrics: `no-such-instance` for 0112H; another number as such, `0123H`."""
    known = FailureReason._value2member_map_.get(reason)
    return known.name.lower().replace("_", "-") if isinstance(known, FailureReason) else f"{reason:04X}H"


class Reference(Struct, frozen=True, array_like=True):
    """One object that is asked for."""

    sop_class_uid: str
    sop_instance_uid: str


class Failure(Struct, frozen=True, array_like=True):
    """One object that is not committed, and why: a `FailureReason`, or in an old record a number that is none any more."""

    reference: Reference
    reason: int


class Asked(Struct, frozen=True, kw_only=True):
    """What an N-ACTION asks for."""

    transaction_uid: str
    references: tuple[Reference, ...]


def read_request(data_set: bytes, transfer_syntax_uid: str) -> Asked:
    """Read the Action Information (PS3.4 Table J.3-1). Raises `ValueError`, without a value in its text, if it asks for nothing.

    A reference that is there twice is taken once.
    """
    header = read_header(data_set, transfer_syntax_uid, full=True)
    if header.fault:
        raise ValueError("the data set cannot be parsed")
    transaction_uid = header.uid(f"{_TRANSACTION_UID:08X}")
    if not uid_is_usable(transaction_uid):
        raise ValueError("TransactionUID is missing or no UID")
    items = header.json.get(f"{_REFERENCED_SEQUENCE:08X}", {}).get("Value") or []
    references = tuple(dict.fromkeys(Reference(_uid(item, _SOP_CLASS_UID), _uid(item, _SOP_INSTANCE_UID)) for item in items))
    if not references:
        raise ValueError("ReferencedSOPSequence is missing or empty")
    if not all(uid_is_usable(reference.sop_class_uid) and uid_is_usable(reference.sop_instance_uid) for reference in references):
        raise ValueError("a reference has no SOP class or instance")
    return Asked(transaction_uid=transaction_uid, references=references)


class Report(Struct, frozen=True, kw_only=True):
    """What an N-EVENT-REPORT says."""

    transaction_uid: str
    #: SOP instance UIDs.
    committed: tuple[str, ...]
    #: Failure reason by SOP instance UID.
    failed: dict[str, int]


def read_report(data_set: bytes, transfer_syntax_uid: str) -> Report:
    """Read the Event Information (PS3.4 Table J.3-2). Raises `ValueError`, without a value in its text, if it names no transaction."""
    header = read_header(data_set, transfer_syntax_uid, full=True)
    transaction_uid = header.uid(f"{_TRANSACTION_UID:08X}")
    if header.fault or not uid_is_usable(transaction_uid):
        raise ValueError("the data set cannot be parsed, or TransactionUID is missing or no UID")
    committed = header.json.get(f"{_REFERENCED_SEQUENCE:08X}", {}).get("Value") or []
    failed = header.json.get(f"{_FAILED_SEQUENCE:08X}", {}).get("Value") or []
    reasons = {_uid(item, _SOP_INSTANCE_UID): (item.get(f"{_FAILURE_REASON:08X}", {}).get("Value") or [0])[0] for item in failed}
    return Report(
        transaction_uid=transaction_uid,
        committed=tuple(_uid(item, _SOP_INSTANCE_UID) for item in committed),
        failed={uid: reason if isinstance(reason, int) else 0 for uid, reason in reasons.items()},
    )


def _uid(item: dict[str, Any], tag: int) -> str:
    values = item.get(f"{tag:08X}", {}).get("Value")
    return str(values[0] or "") if values else ""


def write_report(
    transaction_uid: str, committed: Sequence[Reference], failures: Sequence[Failure], transfer_syntax_uid: str
) -> tuple[int, bytes]:
    """Event type and Event Information of a report (PS3.4 Table J.3-2), in Implicit or Explicit VR Little Endian."""
    explicit = transfer_syntax_uid != IMPLICIT_VR_LITTLE_ENDIAN
    failed = [_reference(failure.reference, explicit) + _us(_FAILURE_REASON, failure.reason, explicit) for failure in failures]
    data_set = _ui(_TRANSACTION_UID, transaction_uid, explicit)
    if failed:
        data_set += _sequence(_FAILED_SEQUENCE, failed, explicit)
    if committed:
        data_set += _sequence(_REFERENCED_SEQUENCE, [_reference(reference, explicit) for reference in committed], explicit)
    return FAILURES_EXIST if failed else ALL_COMMITTED, data_set


def is_taken(status: int) -> bool:
    """Whether the answer to a report says that the SCU has it: success, or a warning (PS3.7 C)."""
    return status in (0x0000, 0x0001, 0x0107, 0x0116) or status >> 12 == 0xB


def _reference(reference: Reference, explicit: bool) -> bytes:
    return _ui(_SOP_CLASS_UID, reference.sop_class_uid, explicit) + _ui(_SOP_INSTANCE_UID, reference.sop_instance_uid, explicit)


def _sequence(tag: int, items: Sequence[bytes], explicit: bool) -> bytes:
    value = b"".join(struct.pack("<HHI", 0xFFFE, 0xE000, len(item)) + item for item in items)
    head = struct.pack("<HH2s2xI", tag >> 16, tag & 0xFFFF, b"SQ", len(value)) if explicit else _implicit_head(tag, len(value))
    return head + value


def _ui(tag: int, uid: str, explicit: bool) -> bytes:
    value = uid.encode("ascii")
    return _short(tag, b"UI", value + b"\0" * (len(value) % 2), explicit)


def _us(tag: int, number: int, explicit: bool) -> bytes:
    return _short(tag, b"US", struct.pack("<H", number), explicit)


def _short(tag: int, vr: bytes, value: bytes, explicit: bool) -> bytes:
    head = struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr, len(value)) if explicit else _implicit_head(tag, len(value))
    return head + value


def _implicit_head(tag: int, size_bytes: int) -> bytes:
    return struct.pack("<HHI", tag >> 16, tag & 0xFFFF, size_bytes)
