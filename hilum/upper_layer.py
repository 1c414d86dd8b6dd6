"""The DICOM upper layer and C-STORE/C-ECHO as bytes (PS3.8 9.3, PS3.7 6.3 and 9.3), for the side that asks. No sockets here."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from enum import IntEnum

from msgspec import Struct

IMPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2"
EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
VERIFICATION = "1.2.840.10008.1.1"
#: Proposed contexts have the odd ids 1 to 255 (PS3.8 9.3.2.2).
MAX_CONTEXTS = 128

#: Hilum in the negotiation (PS3.7 D.3.3.2): UIDs under 2.25 need no registration (PS3.5 B.2).
IMPLEMENTATION_CLASS_UID = "2.25.65675523194859300406767503550941765081"
IMPLEMENTATION_VERSION_NAME = "HILUM"

_APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
_HEADER = struct.Struct(">BxI")
_ITEM = struct.Struct(">BxH")
_PDV = struct.Struct(">IBB")
_ELEMENT = struct.Struct("<HHI")


class Pdu(IntEnum):
    """Kinds of PDU (PS3.8 9.3.1)."""

    ASSOCIATE_RQ = 1
    ASSOCIATE_AC = 2
    ASSOCIATE_RJ = 3
    DATA = 4
    RELEASE_RQ = 5
    RELEASE_RP = 6
    ABORT = 7


class Garbled(ValueError):
    """The peer's bytes are not what the standard says. The text names no value of theirs."""


class Context(Struct, frozen=True, kw_only=True):
    """One presentation context that is proposed: one abstract syntax in one transfer syntax, so that the answer tells of that one alone."""

    abstract_syntax: str
    transfer_syntax: str


class Accepted(Struct, frozen=True, kw_only=True):
    """What an A-ASSOCIATE-AC says (PS3.8 9.3.3)."""

    #: Result of each context by id: 0 accepted, 1 user rejection, 2 no reason, 3 abstract syntax, 4 transfer syntax not supported.
    results: Mapping[int, int]
    #: Longest P-DATA-TF that the peer takes, without its first 6 bytes (PS3.8 D.1); 0 means no limit.
    max_pdu_bytes: int
    implementation_version: str
    #: What the peer answered to the role SCP that was proposed, by abstract syntax (PS3.7 D.3.3.4); absent if it did not answer.
    may_be_scp: Mapping[str, bool]


class Response(Struct, frozen=True, kw_only=True):
    """The answer to a C-STORE or C-ECHO (PS3.7 9.3.1.2)."""

    answers: int
    status: int
    #: ErrorComment (0000,0902), in the peer's words; at most 64 characters.
    comment: str
    has_data_set: bool


def associate_rq(
    calling_aet: str, called_aet: str, contexts: Sequence[Context], max_pdu_bytes: int, *, scp_of: Sequence[str] = ()
) -> bytes:
    """An A-ASSOCIATE-RQ (PS3.8 9.3.2). The context at index n has the id 2n + 1.

    For the abstract syntaxes in `scp_of` the role of SCP is proposed, and not that of SCU (PS3.7 D.3.3.4).
    """
    assert len(contexts) <= MAX_CONTEXTS
    items = [_item(0x10, _APPLICATION_CONTEXT.encode())]
    for n, context in enumerate(contexts):
        syntaxes = _item(0x30, context.abstract_syntax.encode()) + _item(0x40, context.transfer_syntax.encode())
        items.append(_item(0x20, struct.pack(">B3x", context_id(n)) + syntaxes))
    user = _item(0x51, struct.pack(">I", max_pdu_bytes)) + _item(0x52, IMPLEMENTATION_CLASS_UID.encode())
    user += b"".join(_item(0x54, struct.pack(">H", len(uid)) + uid.encode() + bytes((0, 1))) for uid in scp_of)
    user += _item(0x55, IMPLEMENTATION_VERSION_NAME.encode())
    items.append(_item(0x50, user))
    titles = called_aet.encode("ascii").ljust(16) + calling_aet.encode("ascii").ljust(16)
    return pdu(Pdu.ASSOCIATE_RQ, struct.pack(">H2x", 1) + titles + bytes(32) + b"".join(items))


def context_id(index: int) -> int:
    """The id of the proposed context at `index`."""
    return 2 * index + 1


def read_associate_ac(body: bytes) -> Accepted:
    """Read an A-ASSOCIATE-AC's body. Raises `Garbled`."""
    results: dict[int, int] = {}
    may_be_scp: dict[str, bool] = {}
    max_pdu_bytes, version = 0, ""
    for kind, item in _items(body, 68):
        if kind == 0x21:
            if len(item) < 4:
                raise Garbled("a presentation context item is too short")
            results[item[0]] = item[2]
        elif kind == 0x50:
            for sub, value in _items(item, 0):
                if sub == 0x51 and len(value) == 4:
                    max_pdu_bytes = int.from_bytes(value, "big")
                elif sub == 0x55:
                    version = printable(value, 16)
                elif sub == 0x54 and len(value) >= 4:
                    may_be_scp[value[2:-2].decode("latin-1").strip(" \0")] = value[-1] == 1
    return Accepted(results=results, max_pdu_bytes=max_pdu_bytes, implementation_version=version, may_be_scp=may_be_scp)


def pdu(kind: Pdu, body: bytes) -> bytes:
    """A whole PDU."""
    return _HEADER.pack(kind, len(body)) + body


def read_header(header: bytes) -> tuple[int, int]:
    """Kind and length of the PDU that starts with these 6 bytes."""
    kind, length = _HEADER.unpack(header)
    return kind, length


def data_header(context: int, size_bytes: int, *, last: bool, command: bool = False) -> bytes:
    """The 12 bytes before a fragment of `size_bytes` that is sent as a P-DATA-TF with this one PDV (PS3.8 9.3.5, E.2)."""
    return _HEADER.pack(Pdu.DATA, size_bytes + 6) + _PDV.pack(size_bytes + 2, context, last << 1 | command)


def pdvs(body: bytes) -> Iterator[tuple[int, bool, bool, bytes]]:
    """The PDVs of a P-DATA-TF's body: (context id, is of the command, is the last, bytes). Raises `Garbled`."""
    at = 0
    while at < len(body):
        if at + 6 > len(body):
            raise Garbled("a presentation data value is cut off")
        length, context, flags = _PDV.unpack_from(body, at)
        if length < 2 or at + 4 + length > len(body):
            raise Garbled("a presentation data value is longer than its PDU")
        yield context, bool(flags & 1), bool(flags & 2), body[at + 6 : at + 4 + length]
        at += 4 + length


def c_store_rq(message_id: int, sop_class_uid: str, sop_instance_uid: str) -> bytes:
    """The command set of a C-STORE-RQ of medium priority, with a data set to follow (PS3.7 9.3.1.1)."""
    return _command(
        _uid(0x0002, sop_class_uid)
        + _us(0x0100, 0x0001)
        + _us(0x0110, message_id)
        + _us(0x0700, 0x0000)
        + _us(0x0800, 0x0001)
        + _uid(0x1000, sop_instance_uid)
    )


def c_echo_rq(message_id: int) -> bytes:
    """The command set of a C-ECHO-RQ (PS3.7 9.3.5.1)."""
    return _command(_uid(0x0002, VERIFICATION) + _us(0x0100, 0x0030) + _us(0x0110, message_id) + _us(0x0800, 0x0101))


def n_event_report_rq(message_id: int, sop_class_uid: str, sop_instance_uid: str, event_type: int) -> bytes:
    """The command set of an N-EVENT-REPORT-RQ, with a data set to follow (PS3.7 10.3.1.1)."""
    return _command(
        _uid(0x0002, sop_class_uid)
        + _us(0x0100, 0x0100)
        + _us(0x0110, message_id)
        + _us(0x0800, 0x0001)
        + _uid(0x1000, sop_instance_uid)
        + _us(0x1002, event_type)
    )


def n_action_rq(message_id: int, sop_class_uid: str, sop_instance_uid: str, action_type: int) -> bytes:
    """The command set of an N-ACTION-RQ, with a data set to follow (PS3.7 10.3.4.1)."""
    return _command(
        _uid(0x0003, sop_class_uid)
        + _us(0x0100, 0x0130)
        + _us(0x0110, message_id)
        + _us(0x0800, 0x0001)
        + _uid(0x1001, sop_instance_uid)
        + _us(0x1008, action_type)
    )


def n_event_report_rsp(message_id: int, status: int) -> bytes:
    """The command set of an N-EVENT-REPORT-RSP, without a data set (PS3.7 10.3.1.2)."""
    return _command(_us(0x0100, 0x8100) + _us(0x0120, message_id) + _us(0x0800, 0x0101) + _us(0x0900, status))


def read_elements(command: bytes) -> dict[int, bytes]:
    """The values of a command set by element number (Implicit VR Little Endian, PS3.7 6.3.1). Raises `Garbled`."""
    found: dict[int, bytes] = {}
    at = 0
    while at + 8 <= len(command):
        group, element, length = _ELEMENT.unpack_from(command, at)
        at += 8
        if group != 0 or at + length > len(command):
            raise Garbled("a command set cannot be parsed")
        found[element] = command[at : at + length]
        at += length
    return found


def read_response(command: bytes) -> Response:
    """Read a response's command set. Raises `Garbled`."""
    found = read_elements(command)
    try:
        status, answers = (int.from_bytes(found[element][:2], "little") for element in (0x0900, 0x0120))
    except KeyError:
        raise Garbled("a response's command set has no status or names no request") from None
    return Response(
        answers=answers,
        status=status,
        comment=printable(found.get(0x0902, b""), 64),
        has_data_set=found.get(0x0800, b"\x01\x01") != b"\x01\x01",
    )


def printable(text: bytes, limit: int) -> str:
    """A peer's text as one line of at most `limit` printable ASCII characters."""
    line = "".join(chr(byte) if 32 <= byte < 127 else " " for byte in text[: 4 * limit])
    return " ".join(line.split())[:limit]


def _items(body: bytes, at: int) -> Iterator[tuple[int, bytes]]:
    while at < len(body):
        if at + 4 > len(body):
            raise Garbled("an item is cut off")
        kind, length = _ITEM.unpack_from(body, at)
        if at + 4 + length > len(body):
            raise Garbled("an item is longer than its PDU")
        yield kind, body[at + 4 : at + 4 + length]
        at += 4 + length


def _item(kind: int, body: bytes) -> bytes:
    return _ITEM.pack(kind, len(body)) + body


def _command(elements: bytes) -> bytes:
    return _ELEMENT.pack(0, 0, 4) + struct.pack("<I", len(elements)) + elements


def _uid(element: int, uid: str) -> bytes:
    value = uid.encode("ascii")
    value += b"\0" * (len(value) % 2)
    return _ELEMENT.pack(0, element, len(value)) + value


def _us(element: int, value: int) -> bytes:
    return _ELEMENT.pack(0, element, 2) + struct.pack("<H", value)
