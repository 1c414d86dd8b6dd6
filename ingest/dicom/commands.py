"""Command sets of requests, and responses to them (PS3.7 6.3.1, 9.3.1, 9.3.2, 9.3.5, 10.3)."""

from __future__ import annotations

import struct

from msgspec import Struct

from hilum.upper_layer import data_header

C_STORE_RQ = 0x0001
C_FIND_RQ = 0x0020
C_ECHO_RQ = 0x0030
N_SET_RQ = 0x0120
N_ACTION_RQ = 0x0130
N_CREATE_RQ = 0x0140
C_CANCEL_RQ = 0x0FFF
N_EVENT_REPORT_RQ = 0x0100
#: The one response that comes to an acceptor: to its own report.
N_EVENT_REPORT_RSP = 0x8100
_RESPONSE = 0x8000
_NO_DATA_SET = 0x0101
_ELEMENT = struct.Struct("<HHI")


class Command(Struct, frozen=True, kw_only=True):
    """The command set of a request, or of the response to a report."""

    field: int
    #: Of a response and of a C-CANCEL: that of the request that it answers or ends.
    message_id: int
    has_data_set: bool
    sop_class_uid: str
    sop_instance_uid: str
    #: Of an N-ACTION (0000,1008); 0 if there is none.
    action_type: int = 0
    #: Of a response.
    status: int = 0


def read_command(raw: bytes) -> Command:
    """Read a command set. Raises `ValueError` if it cannot be parsed, or is neither a request nor the response to a report."""
    found: dict[int, bytes] = {}
    at = 0
    while at < len(raw):
        if at + 8 > len(raw):
            raise ValueError("a command set is cut off")
        group, element, length = _ELEMENT.unpack_from(raw, at)
        at += 8
        if group != 0 or at + length > len(raw):
            raise ValueError("a command set cannot be parsed")
        found[element] = raw[at : at + length]
        at += length
    field, message_id, data_set = (_number(found, element) for element in (0x0100, 0x0110, 0x0800))
    if field & _RESPONSE:
        if field != N_EVENT_REPORT_RSP:
            raise ValueError("a response came where a request is expected")
        message_id = _number(found, 0x0120)
    elif field == C_CANCEL_RQ:
        message_id = _number(found, 0x0120) if 0x0120 in found else 0
    return Command(
        field=field,
        message_id=message_id,
        has_data_set=data_set != _NO_DATA_SET,
        sop_class_uid=_uid(found, 0x0002, 0x0003),
        sop_instance_uid=_uid(found, 0x1000, 0x1001),
        action_type=_number(found, 0x1008) if 0x1008 in found else 0,
        status=_number(found, 0x0900) if field & _RESPONSE else 0,
    )


def _number(found: dict[int, bytes], element: int) -> int:
    value = found.get(element, b"" if element != 0x0110 else b"\0\0")
    if len(value) != 2:
        raise ValueError(f"a command set has no (0000,{element:04X})")
    return int.from_bytes(value, "little")


def _uid(found: dict[int, bytes], affected: int, requested: int) -> str:
    return (found.get(affected) or found.get(requested) or b"").decode("latin-1").strip(" \0")


def respond(
    request: Command, status: int, comment: str, context_id: int, max_pdu_bytes: int, data_set: bytes | None = None, *, error_id: int = 0
) -> bytes:
    """The P-DATA-TF PDUs of the response to `request`, in fragments that the peer takes; with a data set, if there is one."""
    elements = [
        (0x0002, _padded(request.sop_class_uid)),
        (0x0100, struct.pack("<H", request.field | _RESPONSE)),
        (0x0120, struct.pack("<H", request.message_id)),
        (0x0800, struct.pack("<H", _NO_DATA_SET if data_set is None else 0x0001)),
        (0x0900, struct.pack("<H", status)),
        (0x0902, comment.encode("ascii") + b" " * (len(comment) % 2)),
        (0x0903, struct.pack("<H", error_id) if error_id else b""),
        (0x1000, _padded(request.sop_instance_uid)),
        (0x1008, struct.pack("<H", request.action_type) if request.field == N_ACTION_RQ else b""),
    ]
    body = b"".join(_ELEMENT.pack(0, element, len(value)) + value for element, value in elements if value)
    sent = fragments(_ELEMENT.pack(0, 0, 4) + struct.pack("<I", len(body)) + body, context_id, max_pdu_bytes, command=True)
    return sent if data_set is None else sent + fragments(data_set, context_id, max_pdu_bytes, command=False)


def fragments(message: bytes, context_id: int, max_pdu_bytes: int, *, command: bool) -> bytes:
    """A command set or a data set as P-DATA-TF PDUs that a peer takes; 0 is no limit."""
    piece = max(max_pdu_bytes - 6, 1) if max_pdu_bytes else len(message)
    sent = []
    for at in range(0, len(message), piece):
        fragment = message[at : at + piece]
        sent += [data_header(context_id, len(fragment), last=at + piece >= len(message), command=command), fragment]
    return b"".join(sent)


def _padded(uid: str) -> bytes:
    value = uid.encode("latin-1")
    return value + b"\0" * (len(value) % 2)
