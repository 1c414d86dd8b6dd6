"""What Hilum agrees to when an association is asked for (PS3.8 9.3.2 to 9.3.4).

Storage of every SOP class that has a patient's study, standard, retired or private, in every transfer syntax; Verification;
Storage Commitment; and, where the settings say so, Modality Worklist and Modality Performed Procedure Step. Nothing else: who
proposes Query/Retrieve is told so, context by context.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import lru_cache

from msgspec import Struct, field
from msgspec.structs import replace
from pydicom.config import IGNORE
from pydicom.uid import UID

from hilum.dicom import uid_is_usable
from hilum.dicom.commitment import STORAGE_COMMITMENT
from hilum.kinds import is_ae_title
from hilum.settings import Dicom
from hilum.upper_layer import (
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION_NAME,
    IMPLICIT_VR_LITTLE_ENDIAN,
    VERIFICATION,
    Pdu,
    pdu,
)

APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
#: Modality Worklist Information Model - FIND (PS3.4 K.7), and Modality Performed Procedure Step (PS3.4 F.7).
MODALITY_WORKLIST = "1.2.840.10008.5.1.4.31"
PERFORMED_STEP = "1.2.840.10008.3.1.2.3.3"
_BIG_ENDIAN = "1.2.840.10008.1.2.2"
_UNCOMPRESSED = (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN, _BIG_ENDIAN)
_LITTLE_ENDIAN = (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN)
_STANDARD = "1.2.840.10008."
_STANDARD_STORAGE = "1.2.840.10008.5.1.4.1.1."
#: Storage classes of objects that belong to no patient (PS3.4 GG), and the directory of a medium: not for an archive of studies.
_WITHOUT_STUDY = frozenset(
    {
        "1.2.840.10008.1.3.10",  # Media Storage Directory Storage
        "1.2.840.10008.5.1.4.38.1",  # Hanging Protocol Storage
        "1.2.840.10008.5.1.4.39.1",  # Color Palette Storage
        "1.2.840.10008.5.1.4.43.1",  # Generic Implant Template Storage
        "1.2.840.10008.5.1.4.44.1",  # Implant Assembly Template Storage
        "1.2.840.10008.5.1.4.45.1",  # Implant Template Group Storage
        "1.2.840.10008.5.1.4.1.1.200.1",  # CT Defined Procedure Protocol Storage
        "1.2.840.10008.5.1.4.1.1.200.3",  # Protocol Approval Storage
        "1.2.840.10008.5.1.4.1.1.200.7",  # XA Defined Procedure Protocol Storage
        "1.2.840.10008.5.1.4.1.1.201.1",  # Inventory Storage
    }
)


#: As an SCP of Storage, Hilum keeps all attributes (level 2) bit by bit (signature level 3) and coerces none (PS3.4 B.3.1).
_STORAGE_SUPPORT = bytes((2, 0, 3, 0, 0, 0))
#: In a record, the result of each context of an association that was refused before it came to that (`hilum.events.ContextResult`).
NOT_NEGOTIATED = -1
_IDENTITIES = {1: "username", 2: "username and passcode", 3: "Kerberos", 4: "SAML", 5: "JWT"}


class Proposed(Struct, frozen=True, kw_only=True):
    """One presentation context as the peer proposes it."""

    id: int
    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...]
    #: Whether the peer wants to be the SCU of it, as it does unless it selects roles otherwise (PS3.7 D.3.3.4).
    as_scu: bool = True


class Request(Struct, frozen=True, kw_only=True):
    """An A-ASSOCIATE-RQ (PS3.8 9.3.2). Without anything: one that was never made, or could not be read."""

    calling_aet: str = ""
    called_aet: str = ""
    contexts: tuple[Proposed, ...] = ()
    application_context: str = ""
    protocol_version: int = 0
    #: Largest P-DATA-TF that the peer takes, without its first 6 bytes; 0 means no limit.
    max_pdu_bytes: int = 0
    implementation_class_uid: str = ""
    implementation_version_name: str = ""
    #: Roles that the peer proposes for itself, SCU and SCP, by abstract syntax (PS3.7 D.3.3.4).
    roles: Mapping[str, tuple[bool, bool]] = field(default_factory=dict)
    #: Abstract syntaxes of which the peer says more about itself (PS3.7 D.3.3.5).
    extended: frozenset[str] = frozenset()
    #: Whether it proposes how many operations may be under way at once (PS3.7 D.3.3.3).
    asynchronous: bool = False
    #: How its user would identify himself (PS3.7 D.3.3.7), such as `username`; who he is, is not kept. Empty: not at all.
    user_identity: str = ""
    #: Called and calling AE title as they came, with the reserved bytes behind: an answer repeats them.
    titles: bytes = b""


class Titles(Struct, frozen=True, kw_only=True):
    """The AE titles of a request, each empty if it is none."""

    called: str = ""
    calling: str = ""


class Context(Struct, frozen=True, kw_only=True):
    """One presentation context that was accepted."""

    abstract_syntax: str
    transfer_syntax: str


class Rejection(Struct, frozen=True, kw_only=True):
    """Why an association is rejected: result, source and reason of PS3.8 Table 9-21."""

    result: int
    source: int
    reason: int
    says: str


PROTOCOL_VERSION = Rejection(result=1, source=2, reason=2, says="its protocol version is not supported")
APPLICATION_CONTEXT_NAME = Rejection(result=1, source=1, reason=2, says="its application context is not supported")
CALLED_INVALID = Rejection(result=1, source=1, reason=7, says="the called AE title is empty or has characters that no AE title has")
CALLING_INVALID = Rejection(result=1, source=1, reason=3, says="the calling AE title is empty or has characters that no AE title has")
CALLED_AET = Rejection(result=1, source=1, reason=7, says="the called AE title is not recognised")
CALLING_AET = Rejection(result=1, source=1, reason=3, says="the calling AE title is not recognised")
BLOCKED = Rejection(result=1, source=1, reason=3, says="the sender is blocked")
WRONG_ADDRESS = Rejection(result=1, source=1, reason=3, says="the sender may not call from its address")
WRONG_TITLE = Rejection(result=1, source=1, reason=7, says="the sender may not call this title")
LOCAL_LIMIT = Rejection(result=2, source=3, reason=2, says="as many associations as dicom.max_associations are open")


def read_request(body: bytes) -> Request:
    """Read an A-ASSOCIATE-RQ's body. What it does not know it leaves out. Raises `ValueError` if it is cut off or garbled."""
    if len(body) < 68:
        raise ValueError("an A-ASSOCIATE-RQ is too short")
    application_context, max_pdu_bytes, class_uid, version_name = "", 0, "", ""
    contexts = []
    roles: dict[str, tuple[bool, bool]] = {}
    extended: set[str] = set()
    asynchronous, user_identity = False, ""
    for kind, item in _items(body, 68):
        if kind == 0x10:
            application_context = _text(item)
        elif kind == 0x20:
            contexts.append(_context(item))
        elif kind == 0x50:
            for sub, value in _items(item, 0):
                if sub == 0x51 and len(value) == 4:
                    max_pdu_bytes = int.from_bytes(value, "big")
                elif sub == 0x52:
                    class_uid = _text(value)
                elif sub == 0x55:
                    version_name = _text(value)
                elif sub == 0x54 and len(value) >= 4:
                    roles[_text(value[2:-2])] = (value[-2] == 1, value[-1] == 1)
                elif sub == 0x53:
                    asynchronous = True
                elif sub == 0x56 and len(value) >= 2:
                    extended.add(_text(value[2 : 2 + int.from_bytes(value[:2], "big")]))
                elif sub == 0x58 and value:
                    user_identity = _IDENTITIES.get(value[0], f"type {value[0]}")
    if len({context.id for context in contexts}) < len(contexts):
        raise ValueError("two presentation contexts have one id")
    return Request(
        called_aet=_text(body[4:20]),
        calling_aet=_text(body[20:36]),
        contexts=tuple(replace(each, as_scu=False) if not roles.get(each.abstract_syntax, (True, False))[0] else each for each in contexts),
        application_context=application_context,
        protocol_version=int.from_bytes(body[:2], "big"),
        max_pdu_bytes=max_pdu_bytes,
        implementation_class_uid=class_uid,
        implementation_version_name=version_name,
        roles=roles,
        extended=frozenset(extended),
        asynchronous=asynchronous,
        user_identity=user_identity,
        titles=body[4:68],
    )


def read_titles(body: bytes) -> Titles:
    """The AE titles where an A-ASSOCIATE-RQ has them (PS3.8 Table 9-11), as far as `body` goes and they are AE titles. Never fails."""
    called, calling = (_text(body[at : at + 16]) if len(body) >= at + 16 else "" for at in (4, 20))
    return Titles(called=called if is_ae_title(called) else "", calling=calling if is_ae_title(calling) else "")


def _context(item: bytes) -> Proposed:
    if len(item) < 4 or not item[0] % 2:
        raise ValueError("a presentation context has no odd id")
    syntaxes = [(kind, _text(value)) for kind, value in _items(item, 4)]
    return Proposed(
        id=item[0],
        abstract_syntax=next((uid for kind, uid in syntaxes if kind == 0x30), ""),
        transfer_syntaxes=tuple(uid for kind, uid in syntaxes if kind == 0x40),
    )


def reason_to_reject(request: Request) -> Rejection | None:
    """Why `request` is none that the standard allows, None if it is; whether its sender is welcome is for `senders` to say."""
    if not request.protocol_version & 1:
        return PROTOCOL_VERSION
    if request.application_context != APPLICATION_CONTEXT:
        return APPLICATION_CONTEXT_NAME
    if not is_ae_title(request.called_aet):
        return CALLED_INVALID
    if not is_ae_title(request.calling_aet):
        return CALLING_INVALID
    return None


@lru_cache(4096)
def is_storage(sop_class_uid: str) -> bool:
    """Whether Hilum stores objects of this class: of the standard, retired, private, or newer than this release."""
    known = UID(sop_class_uid, validation_mode=IGNORE)
    if known.type and known.name:  # two retired classes have lost their names; they are taken for unknown ones
        return known.type == "SOP Class" and "Storage" in known.name and "Commitment" not in known.name and known not in _WITHOUT_STUDY
    return uid_is_usable(sop_class_uid) and (not sop_class_uid.startswith(_STANDARD) or sop_class_uid.startswith(_STANDARD_STORAGE))


def choose(proposed: Proposed, preferred: Sequence[str] = (), services: Collection[str] = ()) -> tuple[int, str]:
    """The result for one context, and its transfer syntax: the first of `preferred` that the sender offers, else its own first choice.

    Of worklist and performed steps those are served that `services` has.

    0: accepted, 1: refused for its role, 3: abstract syntax not supported, 4: transfer syntaxes not supported (PS3.8 9.3.3.2).
    """
    if not proposed.as_scu and is_storage(proposed.abstract_syntax):
        return 1, ""  # it wants to send to us what we ask nobody for
    offered = tuple(uid for uid in proposed.transfer_syntaxes if uid_is_usable(uid))
    if proposed.abstract_syntax in services and not proposed.as_scu:
        return 1, ""
    if proposed.abstract_syntax == STORAGE_COMMITMENT or proposed.abstract_syntax in services:
        offered = tuple(uid for uid in offered if uid in _LITTLE_ENDIAN)
    elif proposed.abstract_syntax == VERIFICATION:
        offered = tuple(uid for uid in offered if uid in _UNCOMPRESSED)
    elif not is_storage(proposed.abstract_syntax):
        return 3, ""
    if not offered:
        return 4, ""
    for uid in preferred:
        if uid in offered:
            return 0, uid
    # The sender's first choice, so that it need not convert; but among uncompressed ones the one that keeps every VR.
    if offered[0] in _UNCOMPRESSED:
        return 0, next(uid for uid in _UNCOMPRESSED if uid in offered)
    return 0, offered[0]


def accept(request: Request, settings: Dicom, services: Collection[str] = ()) -> tuple[dict[int, Context], bytes]:
    """The accepted contexts by id, and the A-ASSOCIATE-AC that says so (PS3.8 9.3.3)."""
    accepted: dict[int, Context] = {}
    items = [_item(0x10, APPLICATION_CONTEXT.encode())]
    for proposed in request.contexts:
        result, transfer_syntax = choose(proposed, settings.transfer_syntaxes, services)
        if result == 0:
            accepted[proposed.id] = Context(abstract_syntax=proposed.abstract_syntax, transfer_syntax=transfer_syntax)
        # The sub-item must be there in any case; where the context is refused it means nothing.
        syntax = _item(0x40, (transfer_syntax or IMPLICIT_VR_LITTLE_ENDIAN).encode())
        items.append(_item(0x21, bytes((proposed.id, 0, result, 0)) + syntax))
    user = _item(0x51, struct.pack(">I", settings.max_pdu_bytes))
    user += _item(0x52, IMPLEMENTATION_CLASS_UID.encode())
    if request.asynchronous:
        user += _item(0x53, struct.pack(">HH", 1, 1))  # one after the other
    agreed = {context.abstract_syntax for context in accepted.values()}
    for uid, (as_scu, as_scp) in request.roles.items():
        if uid in agreed:
            # The peer is its SCU and not its SCP, whatever else it proposed; unless it comes to report on storage commitment.
            role = (0, 1) if uid == STORAGE_COMMITMENT and as_scp and not as_scu else (1, 0)
            user += _item(0x54, struct.pack(">H", len(uid)) + uid.encode() + bytes(role))
    user += _item(0x55, IMPLEMENTATION_VERSION_NAME.encode())
    for uid in sorted(request.extended & agreed):
        if is_storage(uid):
            user += _item(0x56, struct.pack(">H", len(uid)) + uid.encode() + _STORAGE_SUPPORT)
    items.append(_item(0x50, user))
    return accepted, pdu(Pdu.ASSOCIATE_AC, struct.pack(">H2x", 1) + request.titles + b"".join(items))


def reject(rejection: Rejection) -> bytes:
    """The A-ASSOCIATE-RJ (PS3.8 9.3.4)."""
    return pdu(Pdu.ASSOCIATE_RJ, bytes((0, rejection.result, rejection.source, rejection.reason)))


#: Decides on an association: the accepted contexts (None: rejected) and the PDU to send.
Negotiate = Callable[[Request], tuple[Mapping[int, Context] | None, bytes]]


def _items(body: bytes, at: int) -> Iterator[tuple[int, bytes]]:
    while at < len(body):
        if at + 4 > len(body):
            raise ValueError("an item is cut off")
        kind, length = struct.unpack_from(">BxH", body, at)
        at += 4
        if at + length > len(body):
            raise ValueError("an item is longer than what holds it")
        yield kind, body[at : at + length]
        at += length


def _item(kind: int, body: bytes) -> bytes:
    return struct.pack(">BxH", kind, len(body)) + body


def _text(raw: bytes) -> str:
    return raw.decode("latin-1").strip(" \0")
