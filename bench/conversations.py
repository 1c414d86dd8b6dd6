"""What a storage SCU may send over one connection, and what bad luck or malice makes of it. The same seed gives the same bytes.

`valid` builds a conversation as the standard wants it: association, C-STOREs, C-ECHOs and others, release. `stream` changes one
or more things in it, or sends something that is no DICOM at all.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from dataclasses import dataclass, field

from hilum import upper_layer as ul
from hilum.dicom.commitment import STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE

#: In every data set as PatientName: must never be seen outside the spool.
PATIENT = b"CANARY^FUZZED"
CT, MR, PRIVATE, QUERY = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4", "1.3.12.2.1107.5.9.1", "1.2.840.10008.5.1.4.1.2.2.1"
_STORAGE = (CT, MR, PRIVATE)
_OTHERS = (ul.VERIFICATION, STORAGE_COMMITMENT, QUERY)
_SYNTAXES = (ul.EXPLICIT_VR_LITTLE_ENDIAN, ul.IMPLICIT_VR_LITTLE_ENDIAN)
_JPEG = "1.2.840.10008.1.2.4.70"
_LIES = (0, 1, 2, 3, 5, 6, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
_PDU_HEAD, _PDV_HEAD = 6, 6
_OTHER_PROTOCOLS = (
    b"GET / HTTP/1.1\r\nHost: hilum\r\n\r\n",
    bytes.fromhex("16030100c8010000c40303") + bytes(range(200)),
    b"MSH|^~\\&|A|B|C|D|20260101||ADT^A01|1|P|2.5\r",
    b"SSH-2.0-OpenSSH_9.2\r\n",
    b"\0" * 64,
    b"",
)


@dataclass
class Conversation:
    """PDUs in order, and the data sets of its C-STOREs."""

    pdus: list[bytes] = field(default_factory=list)
    data_sets: list[bytes] = field(default_factory=list)


@dataclass(frozen=True)
class Stream:
    """What goes over one connection."""

    pieces: tuple[bytes, ...]  #: as they are handed to the socket
    changes: tuple[str, ...]  #: what was done to a valid conversation, in words; empty: nothing
    breaks_off: bool  #: whether the connection is reset after the last piece, and no answer waited for
    data_sets: tuple[bytes, ...]  #: those of the conversation before it was changed

    @property
    def raw(self) -> bytes:
        """All bytes."""
        return b"".join(self.pieces)


def stream(seed: object) -> Stream:
    """The stream of a seed: one in twenty is a valid conversation, one in ten was never one."""
    rng = random.Random(str(seed))
    kind = rng.random()
    if kind < 0.05:
        conversation = valid(rng)
        return Stream(pieces(rng, b"".join(conversation.pdus)), (), breaks_off=False, data_sets=tuple(conversation.data_sets))
    if kind < 0.15:
        return Stream(pieces(rng, _noise(rng)), ("noise",), breaks_off=rng.random() < 0.1, data_sets=())
    conversation = valid(rng, odd=True)
    changes = []
    for _ in range(rng.choice((1, 1, 1, 2, 3, 5))):
        name, change = rng.choice(_CHANGES)
        change(rng, conversation.pdus)
        changes.append(name)
    raw = b"".join(conversation.pdus)
    if rng.random() < 0.25:
        raw = raw[: rng.randrange(len(raw) + 1)]
        changes.append("cut")
    return Stream(pieces(rng, raw), tuple(changes), breaks_off=rng.random() < 0.1, data_sets=tuple(conversation.data_sets))


def valid(rng: random.Random, *, odd: bool = False) -> Conversation:
    """A conversation without a fault: every request in it is answered, and every data set stored with Success.

    With `odd` it may hold what a receiver need not accept: storage commitment requests, and the proposal to be SCP where it sends.
    """
    contexts = [ul.Context(abstract_syntax=CT, transfer_syntax=ul.EXPLICIT_VR_LITTLE_ENDIAN)]
    for _ in range(rng.choice((0, 1, 2, 5, 127))):
        abstract_syntax = rng.choice(_STORAGE + _OTHERS)
        contexts.append(ul.Context(abstract_syntax=abstract_syntax, transfer_syntax=rng.choice((*_SYNTAXES, _JPEG))))
    max_pdu_bytes = rng.choice((0, 16_384, 131_072, 4096, 64))
    request = ul.associate_rq("FUZZ", "HILUM", contexts, max_pdu_bytes, scp_of=[CT] if rng.random() < 0.1 and odd else [])
    conversation = Conversation([request])
    storing = [
        (n, context) for n, context in enumerate(contexts) if context.abstract_syntax in _STORAGE and context.transfer_syntax != _JPEG
    ]
    for message_id in range(1, rng.choice((1, 2, 3, 5)) + 1):
        n, context = rng.choice(storing)
        what = rng.random()
        if what < 0.7:
            _store(rng, conversation, ul.context_id(n), context, message_id)
        elif what < 0.8:
            _message(rng, conversation, ul.context_id(n), ul.c_echo_rq(message_id), None)
        elif what < 0.9 or not odd:
            _find(rng, conversation, ul.context_id(n), message_id)
        else:
            _commit(rng, conversation, contexts, message_id)
    if rng.random() < 0.8:
        conversation.pdus.append(ul.pdu(ul.Pdu.RELEASE_RQ, bytes(4)))
    return conversation


def _store(rng: random.Random, conversation: Conversation, context_id: int, context: ul.Context, message_id: int) -> None:
    instance = f"2.25.{rng.getrandbits(120)}"
    explicit = context.transfer_syntax == ul.EXPLICIT_VR_LITTLE_ENDIAN
    size = rng.choice((0, 10, 500, 5000, 50_000, 300_000)) & ~1
    elements = (
        (0x0008, 0x0016, b"UI", _even(context.abstract_syntax.encode())),
        (0x0008, 0x0018, b"UI", _even(instance.encode())),
        (0x0010, 0x0010, b"PN", _even(PATIENT)),
        (0x0020, 0x000D, b"UI", _even(b"2.25.1")),
        (0x7FE0, 0x0010, b"OW", rng.randbytes(min(size, 64)) + bytes(max(size - 64, 0))),
    )
    data_set = b"".join(_element(explicit, *each) for each in elements)
    conversation.data_sets.append(data_set)
    _message(rng, conversation, context_id, ul.c_store_rq(message_id, context.abstract_syntax, instance), data_set)


def _find(rng: random.Random, conversation: Conversation, context_id: int, message_id: int) -> None:
    """A request that is not served, with a data set, and perhaps its C-CANCEL."""
    find = ul.c_store_rq(message_id, CT, "2.25.3").replace(b"\0\x01\x02\0\0\0\x01\0", b"\0\x01\x02\0\0\0\x20\0")
    _message(rng, conversation, context_id, find, bytes(rng.randrange(2, 200)))
    if rng.random() < 0.5:
        cancel = ul.c_echo_rq(message_id).replace(b"\0\x01\x02\0\0\0\x30\0", b"\0\x01\x02\0\0\0\xff\x0f")
        _message(rng, conversation, context_id, cancel, None)


def _commit(rng: random.Random, conversation: Conversation, contexts: list[ul.Context], message_id: int) -> None:
    """A storage commitment request for one object that never came (PS3.4 J.3), on its own context or on one where it is out of place."""
    fitting = [
        n for n, context in enumerate(contexts) if context.abstract_syntax == STORAGE_COMMITMENT and context.transfer_syntax != _JPEG
    ]
    n = rng.choice(fitting or [0])
    explicit = contexts[n].transfer_syntax == ul.EXPLICIT_VR_LITTLE_ENDIAN
    reference = _element(explicit, 0x0008, 0x1150, b"UI", _even(CT.encode())) + _element(explicit, 0x0008, 0x1155, b"UI", _even(b"2.25.9"))
    item = struct.pack("<HHI", 0xFFFE, 0xE000, len(reference)) + reference
    transaction = _even(f"2.25.{rng.getrandbits(120)}".encode())
    data_set = _element(explicit, 0x0008, 0x1195, b"UI", transaction) + _element(explicit, 0x0008, 0x1199, b"SQ", item)
    command = ul.n_action_rq(message_id, STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE, 1)
    _message(rng, conversation, ul.context_id(n), command, data_set)


def _message(rng: random.Random, conversation: Conversation, context_id: int, command: bytes, data_set: bytes | None) -> None:
    """A command set and perhaps a data set as P-DATA-TF PDUs, cut as a strange peer might."""
    conversation.pdus += _fragments(rng, context_id, command, command=True)
    if data_set is not None:
        conversation.pdus += _fragments(rng, context_id, data_set, command=False)


def _fragments(rng: random.Random, context_id: int, message: bytes, *, command: bool) -> list[bytes]:
    largest = rng.choice((50, 1000, 16_378, 131_066)) if len(message) < 100_000 else rng.choice((16_378, 131_066))
    cuts = list(range(0, len(message), largest)) or [0]
    if len(message) < 1000 and rng.random() < 0.1:
        cuts = list(range(len(message)))  # a byte each
    pdvs = []
    for at, end in zip(cuts, [*cuts[1:], len(message)], strict=True):
        flags = (end == len(message)) << 1 | command
        pdvs.append(struct.pack(">IBB", end - at + 2, context_id, flags) + message[at:end])
    pdus = []
    while pdvs:
        together = rng.choice((1, 1, 1, 2, 5)) if largest <= 1000 else 1
        pdus.append(ul.pdu(ul.Pdu.DATA, b"".join(pdvs[:together])))
        pdvs = pdvs[together:]
    return pdus


def _element(explicit: bool, group: int, element: int, vr: bytes, value: bytes) -> bytes:
    if not explicit:
        return struct.pack("<HHI", group, element, len(value)) + value
    if vr in (b"OW", b"SQ"):
        return struct.pack("<HH2s2xI", group, element, vr, len(value)) + value
    return struct.pack("<HH2sH", group, element, vr, len(value)) + value


def _even(value: bytes) -> bytes:
    return value + b"\0" * (len(value) % 2)


# Changes: each takes the PDUs, of which there may be none left, and changes them in place


def _flip(rng: random.Random, pdus: list[bytes]) -> None:
    for _ in range(rng.choice((1, 1, 2, 8))):
        n, pdu = _any(rng, pdus)
        if pdu:
            at = rng.randrange(min(len(pdu), rng.choice((12, 100, len(pdu)))))
            pdus[n] = pdu[:at] + bytes([pdu[at] ^ 1 << rng.randrange(8)]) + pdu[at + 1 :]


def _drop(rng: random.Random, pdus: list[bytes]) -> None:
    if pdus:
        del pdus[rng.randrange(len(pdus))]


def _duplicate(rng: random.Random, pdus: list[bytes]) -> None:
    n, pdu = _any(rng, pdus)
    pdus.insert(rng.choice((n, rng.randrange(len(pdus) + 1))), pdu)


def _swap(rng: random.Random, pdus: list[bytes]) -> None:
    if pdus:
        a, b = rng.randrange(len(pdus)), rng.randrange(len(pdus))
        pdus[a], pdus[b] = pdus[b], pdus[a]


def _shorten(rng: random.Random, pdus: list[bytes]) -> None:
    """A PDU loses its end, and its length still counts it: what follows is taken for it."""
    n, pdu = _any(rng, pdus)
    if pdu:
        pdus[n] = pdu[: rng.randrange(len(pdu))]


def _insert(rng: random.Random, pdus: list[bytes]) -> None:
    pdus.insert(rng.randrange(len(pdus) + 1), rng.randbytes(rng.choice((1, 6, 50, 500))))


def _kind(rng: random.Random, pdus: list[bytes]) -> None:
    n, pdu = _any(rng, pdus)
    pdus[n] = bytes([rng.choice((0, 1, 2, 3, 4, 5, 6, 7, 8, 255))]) + pdu[1:]


def _lie_pdu(rng: random.Random, pdus: list[bytes]) -> None:
    n, pdu = _any(rng, pdus)
    if len(pdu) >= _PDU_HEAD:
        pdus[n] = pdu[:2] + struct.pack(">I", _lie(rng, len(pdu) - _PDU_HEAD)) + pdu[_PDU_HEAD:]


def _lie_pdv(rng: random.Random, pdus: list[bytes]) -> None:
    n, pdu = _any_data(rng, pdus)
    if pdu:
        pdus[n] = pdu[:6] + struct.pack(">I", _lie(rng, len(pdu) - _PDU_HEAD - 4)) + pdu[10:]


def _lie_command(rng: random.Random, pdus: list[bytes]) -> None:
    """In an element of a command set, or in the data set."""
    n, pdu = _any_data(rng, pdus)
    at = _PDU_HEAD + _PDV_HEAD + rng.choice((4, 16, 16 + 8 * rng.randrange(1, 20)))
    if at + 4 <= len(pdu):
        pdus[n] = pdu[:at] + struct.pack("<I", _lie(rng, 4)) + pdu[at + 4 :]


def _lie_item(rng: random.Random, pdus: list[bytes]) -> None:
    """In an item of the request for an association."""
    if pdus and len(pdus[0]) > 80:
        heads = [
            at
            for at in range(74, len(pdus[0]) - 4)
            if pdus[0][at] in (0x10, 0x20, 0x30, 0x40, 0x50, 0x51, 0x52, 0x54) and not pdus[0][at + 1]
        ]
        at = rng.choice(heads or [74])
        pdus[0] = pdus[0][: at + 2] + struct.pack(">H", _lie(rng, 20) & 0xFFFF) + pdus[0][at + 4 :]


def _context(rng: random.Random, pdus: list[bytes]) -> None:
    """A fragment of another presentation context."""
    n, pdu = _any_data(rng, pdus)
    if pdu:
        pdus[n] = pdu[:10] + bytes([rng.choice((0, 1, 2, 3, 5, 255))]) + pdu[11:]


def _flags(rng: random.Random, pdus: list[bytes]) -> None:
    """A fragment that says of itself what it is not: command or data, last or not."""
    n, pdu = _any_data(rng, pdus)
    if pdu:
        pdus[n] = pdu[:11] + bytes([rng.choice((0, 1, 2, 3, 4, 0xFF))]) + pdu[12:]


def _empty(rng: random.Random, pdus: list[bytes]) -> None:
    """PDUs or fragments without content."""
    empty = rng.choice((ul.pdu(ul.Pdu.DATA, b""), ul.data_header(1, 0, last=False), ul.data_header(1, 0, last=True, command=True)))
    pdus.insert(rng.randrange(len(pdus) + 1), empty * rng.choice((1, 2, 1000)))


def _interleave(rng: random.Random, pdus: list[bytes]) -> None:
    """Another conversation amid this one."""
    for other in valid(rng).pdus[rng.choice((0, 1)) :]:
        pdus.insert(rng.randrange(len(pdus) + 1), other)


def _text(rng: random.Random, pdus: list[bytes]) -> None:
    """Strange text in the request: AE titles and UIDs that are none."""
    if pdus and len(pdus[0]) > 80:
        at = rng.choice((10, 26, rng.randrange(74, len(pdus[0]))))
        text = rng.choice((b"\0" * 16, b"\xff" * 16, b"\r\n{}%s../..\\", b" " * 16, b"9" * 16))
        pdus[0] = pdus[0][:at] + text + pdus[0][at + len(text) :]


_CHANGES: tuple[tuple[str, Callable[[random.Random, list[bytes]], None]], ...] = tuple(
    (change.__name__.strip("_").replace("_", " "), change)
    for change in (
        _flip,
        _drop,
        _duplicate,
        _swap,
        _shorten,
        _insert,
        _kind,
        _lie_pdu,
        _lie_pdv,
        _lie_command,
        _lie_item,
        _context,
        _flags,
        _empty,
        _interleave,
        _text,
    )
)


def _any(rng: random.Random, pdus: list[bytes]) -> tuple[int, bytes]:
    if not pdus:
        pdus.append(b"")
    n = rng.randrange(len(pdus))
    return n, pdus[n]


def _any_data(rng: random.Random, pdus: list[bytes]) -> tuple[int, bytes]:
    """A P-DATA-TF with a whole head; no bytes if there is none."""
    found = [n for n, pdu in enumerate(pdus) if pdu[:1] == b"\4" and len(pdu) >= _PDU_HEAD + _PDV_HEAD]
    if not found:
        return 0, b""
    n = rng.choice(found)
    return n, pdus[n]


def _lie(rng: random.Random, truth: int) -> int:
    lies = (*_LIES, truth - 1, truth + 1, truth - 2, truth + 2, truth + 4, 2 * truth, truth // 2, rng.getrandbits(32))
    return max(0, rng.choice(lies)) & 0xFFFFFFFF


def _noise(rng: random.Random) -> bytes:
    noise = rng.randbytes(rng.choice((1, 5, 6, 7, 74, 300, 5000)))
    kind = rng.random()
    if kind < 0.4:
        return noise
    if kind < 0.7:
        return struct.pack(">BBI", rng.choice((1, 1, 1, 4, 5, 7)), 0, _lie(rng, len(noise))) + noise
    if kind < 0.9:
        return rng.choice(_OTHER_PROTOCOLS)
    return valid(rng).pdus[0] + noise


def pieces(rng: random.Random, raw: bytes) -> tuple[bytes, ...]:
    """How the bytes are handed to the socket: mostly at once, at times in many pieces."""
    kind = rng.random()
    if kind < 0.6 or not raw:
        return (raw,)
    if kind < 0.7:
        return (*(raw[at : at + 1] for at in range(min(len(raw), 300))), raw[300:])
    cuts = sorted(rng.randrange(len(raw) + 1) for _ in range(rng.choice((1, 3, 20))))
    return tuple(raw[a:b] for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True))
