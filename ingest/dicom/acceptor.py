"""The accepting side of an association as a state machine without sockets (PS3.8 9.2, PS3.7 6.3).

Bytes from the peer go in, bytes for the peer come out. Fragments of a data set are handed on as slices of the caller's
buffer, so memory does not grow with the object, and nothing is copied in between.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from enum import Enum

from msgspec import Struct

from hilum import upper_layer as ul
from hilum.dicom.commitment import STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE
from hilum.upper_layer import Pdu, pdu

from .answers import ACTION_TOO_LARGE, NO_DATA_SET, NOT_NEGOTIATED, UNKNOWN_COMMAND, Answer
from .commands import (
    C_CANCEL_RQ,
    C_ECHO_RQ,
    C_STORE_RQ,
    N_ACTION_RQ,
    N_EVENT_REPORT_RQ,
    N_EVENT_REPORT_RSP,
    Command,
    fragments,
    read_command,
    respond,
)
from .negotiation import Context, Negotiate, Titles, read_request, read_titles
from .storage import Storing

#: An A-ASSOCIATE-RQ with 128 contexts of many transfer syntaxes has some 100 kB.
MAX_CONTROL_BYTES = 2**20
MAX_COMMAND_BYTES = 64 * 1024
#: A storage commitment request needs some 100 bytes for each object: this is one for 30,000 of them.
MAX_ACTION_BYTES = 4 * 2**20

# Reasons of an abort by the provider (PS3.8 Table 9-26).
UNRECOGNIZED_PDU = 1
UNEXPECTED_PDU = 2
INVALID_PARAMETER = 6

_KNOWN = frozenset(Pdu)
_PDU_HEAD = struct.Struct(">BxI")
_PDV_HEAD = struct.Struct(">IBB")


class Abort(Struct, frozen=True, kw_only=True):
    """Why the protocol machine ends an association, in words, and when: a reason of PS3.8 Table 9-26 by the service provider.

    Before the association is established the reason is not told: then the source is the service user (PS3.8 Table 9-9, AA-1).
    """

    reason: int
    says: str
    when: str


EARLY_PDU = Abort(
    reason=UNEXPECTED_PDU,
    says="it sent a PDU before it asked for an association",
    when="Another PDU than an A-ASSOCIATE-RQ comes first.",
)
ENDLESS_PDU = Abort(
    reason=INVALID_PARAMETER,
    says="it sent a PDU of impossible length",
    when="A PDU other than P-DATA-TF announces more than 1 MB.",
)
PDU_OUT_OF_PLACE = Abort(
    reason=UNEXPECTED_PDU,
    says="it sent a PDU out of place",
    when="A PDU has no place in an established association, such as a second A-ASSOCIATE-RQ, or a release amid a message (PS3.8 9.2).",
)
UNKNOWN_PDU = Abort(
    reason=UNRECOGNIZED_PDU,
    says="it sent a PDU of unknown type",
    when="The first byte of a PDU is no PDU type.",
)
GARBLED_REQUEST = Abort(
    reason=INVALID_PARAMETER,
    says="its request for an association is garbled",
    when="An item of the A-ASSOCIATE-RQ is cut off or longer than what holds it; a presentation context id is even or there twice.",
)
STRAY_FRAGMENT = Abort(
    reason=INVALID_PARAMETER,
    says="it sent a fragment that fits no PDU or no accepted context",
    when="A fragment is longer than its PDU or leaves too little room for another, or is of a context that was not accepted.",
)
COMMAND_AMID_MESSAGE = Abort(
    reason=UNEXPECTED_PDU,
    says="it sent a command amid a message",
    when="A command comes before the data set of the one before it, or in another presentation context than it began.",
)
ENDLESS_COMMAND = Abort(
    reason=INVALID_PARAMETER,
    says="it sent an endless command",
    when="A command set is longer than 64 kB.",
)
DATA_SET_WITHOUT_COMMAND = Abort(
    reason=UNEXPECTED_PDU,
    says="it sent a data set without a command",
    when="A fragment of a data set comes without a command before it, or in another presentation context than its command.",
)
GARBLED_COMMAND = Abort(
    reason=INVALID_PARAMETER,
    says="it sent a command that cannot be parsed",
    when="A command set is no Implicit VR Little Endian, or lacks its type, message id or data set type.",
)
STRAY_ANSWER = Abort(
    reason=INVALID_PARAMETER,
    says="it answered a report that it was not sent",
    when="A response to an N-EVENT-REPORT that Hilum has not sent.",
)

#: Before an association is established, and in one; each in the order of the reference page.
ABORTS_BEFORE = (EARLY_PDU, ENDLESS_PDU, UNKNOWN_PDU, GARBLED_REQUEST)
ABORTS = (
    ENDLESS_PDU,
    PDU_OUT_OF_PLACE,
    UNKNOWN_PDU,
    STRAY_FRAGMENT,
    COMMAND_AMID_MESSAGE,
    ENDLESS_COMMAND,
    DATA_SET_WITHOUT_COMMAND,
    GARBLED_COMMAND,
    STRAY_ANSWER,
)


class State(Enum):
    """Where an association is (PS3.8 Table 9-1)."""

    REQUESTED = "Sta2"
    ESTABLISHED = "Sta6"
    #: The last PDU is out; what still comes is ignored until the connection is closed.
    CLOSING = "Sta13"


class Acceptor:
    """One association. `store` begins a C-STORE; `settled` hears of each answer to one.

    `act` answers a storage commitment request, or a report on one of Hilum's own: it is called with the command, the id of its
    context, the context and the data set.
    """

    def __init__(
        self,
        negotiate: Negotiate,
        store: Callable[[Command, Context], Storing],
        settled: Callable[[Command, Storing | None, Answer], None],
        act: Callable[[Command, int, Context, bytes], Answer] = lambda *_: UNKNOWN_COMMAND,
    ) -> None:
        self.state = State.REQUESTED
        self.ended = ""  #: how the association ended, in words; empty while it lives
        self.asked = Titles()  #: the AE titles of the request, also of one that is garbled
        self.messages = 0  #: messages that came whole, and reports that were begun
        self.message_bytes = 0  #: bytes of command and data sets, without what is around them
        self._negotiate = negotiate
        self._store = store
        self._settled = settled
        self._act = act
        self._contexts: Mapping[int, Context] = {}
        self._peer_max_pdu_bytes = 0
        self._head = bytearray()
        self._want = _PDU_HEAD.size
        self._then: Callable[[bytes], bytes] = self._pdu_head
        self._control = 0
        self._pdu_left = 0
        self._fragment_left = 0
        self._flags = 0
        self._context_id = 0
        self._command_raw = bytearray()
        self._command: Command | None = None
        self._storing: Storing | None = None
        self._action: bytearray | None = None
        self._action_too_large = False
        self._message_id = 0
        self._report: Callable[[int], None] | None = None

    @property
    def can_report(self) -> bool:
        """Whether `report` may be called: the peer waits for nothing, and has answered the last report."""
        return self.state is State.ESTABLISHED and self.between_messages and self._report is None

    def report(self, context_id: int, event_type: int, data_set: bytes, answered: Callable[[int], None]) -> bytes:
        """The N-EVENT-REPORT-RQ to be sent (PS3.7 10.1.1); `answered` is called with the status, if an answer comes."""
        assert self.can_report
        self._message_id = self._message_id % 65_535 + 1
        self._report = answered
        self.messages += 1
        command = ul.n_event_report_rq(self._message_id, STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE, event_type)
        limit = self._peer_max_pdu_bytes
        return fragments(command, context_id, limit, command=True) + fragments(data_set, context_id, limit, command=False)

    @property
    def between_messages(self) -> bool:
        """Whether no request is under way."""
        return self._command is None and not self._command_raw and not self._pdu_left and not self._head

    def receive(self, data: memoryview) -> bytes:
        """Take all of `data`; the bytes to be sent now. `data` may be reused afterwards."""
        out, at, end = b"", 0, len(data)
        while at < end and self.state is not State.CLOSING:
            if self._fragment_left:
                piece = data[at : at + self._fragment_left]
                at += len(piece)
                self._fragment_left -= len(piece)
                self._pdu_left -= len(piece)
                self.message_bytes += len(piece)
                if self._flags & 1:
                    self._command_raw += piece
                elif self._storing is not None:
                    self._storing.write(piece)
                elif self._action is not None:
                    self._collect(piece)
                if not self._fragment_left:
                    out += self._fragment_end()
                continue
            piece = data[at : at + self._want - len(self._head)]
            at += len(piece)
            self._head += piece
            if len(self._head) == self._want:
                head = bytes(self._head)
                self._head.clear()
                out += self._then(head)
        return out

    def abort(self, says: str) -> bytes:
        """End the association for a reason of Hilum's own; the A-ABORT to be sent (PS3.8 9.3.8, source 0: service user)."""
        self.close(says)
        return pdu(Pdu.ABORT, bytes(4))

    def _abort(self, why: Abort) -> bytes:
        """End an association that is against the protocol (PS3.8 Table 9-9: AA-1 or AA-8). Leaves nothing of an object under way."""
        if self.state is State.REQUESTED:
            return self.abort(why.says)
        self.close(why.says)
        return pdu(Pdu.ABORT, bytes((0, 0, 2, why.reason)))

    def close(self, says: str) -> None:
        """The association is over, for whatever reason. Leaves nothing of an object that is not complete."""
        self.ended = self.ended or says
        self.state = State.CLOSING
        if self._storing is not None:
            self._storing.drop()
            self._storing = None
        self._action = None

    def _pdu_head(self, head: bytes) -> bytes:
        kind, length = _PDU_HEAD.unpack(head)
        if kind not in _KNOWN:
            return self._abort(UNKNOWN_PDU)
        if kind == Pdu.DATA:
            if self.state is not State.ESTABLISHED:
                return self._abort(EARLY_PDU)
            if 0 < length < _PDV_HEAD.size:
                return self._abort(STRAY_FRAGMENT)
            self._pdu_left = length
            self._next()
            return b""
        if length > MAX_CONTROL_BYTES:
            return self._abort(ENDLESS_PDU)
        self._control, self._want, self._then = kind, length, self._control_pdu
        return self._control_pdu(b"") if not length else b""

    def _next(self) -> None:
        """Wait for the next PDV of the PDU, or for the next PDU."""
        if self._pdu_left:
            self._want, self._then = _PDV_HEAD.size, self._pdv_head
        else:
            self._want, self._then = _PDU_HEAD.size, self._pdu_head

    def _control_pdu(self, body: bytes) -> bytes:
        self._next()
        match self._control:
            case Pdu.ASSOCIATE_RQ if self.state is State.REQUESTED:
                return self._associate(body)
            case Pdu.RELEASE_RQ if self.state is State.ESTABLISHED and self._command is None and not self._command_raw:
                self.close("released")
                return pdu(Pdu.RELEASE_RP, bytes(4))
            case Pdu.ABORT:
                self.close("aborted by the peer")
                return b""
            case _:
                return self._abort(EARLY_PDU if self.state is State.REQUESTED else PDU_OUT_OF_PLACE)

    def _associate(self, body: bytes) -> bytes:
        self.asked = read_titles(body)
        try:
            request = read_request(body)
        except ValueError:
            return self._abort(GARBLED_REQUEST)
        contexts, answer = self._negotiate(request)
        if contexts is None:
            self.close("rejected")
            return answer
        self._contexts = contexts
        self._peer_max_pdu_bytes = request.max_pdu_bytes
        self.state = State.ESTABLISHED
        return answer

    def _pdv_head(self, head: bytes) -> bytes:
        length, context_id, self._flags = _PDV_HEAD.unpack(head)
        beyond = self._pdu_left - 4 - length
        if length < 2 or beyond < 0 or 0 < beyond < _PDV_HEAD.size or context_id not in self._contexts:
            return self._abort(STRAY_FRAGMENT)
        self._pdu_left -= _PDV_HEAD.size
        self._fragment_left = length - 2
        if self._flags & 1:
            if self._command is not None or (self._command_raw and context_id != self._context_id):
                return self._abort(COMMAND_AMID_MESSAGE)
            if len(self._command_raw) + self._fragment_left > MAX_COMMAND_BYTES:
                return self._abort(ENDLESS_COMMAND)
            self._context_id = context_id
        elif self._command is None or context_id != self._context_id:
            return self._abort(DATA_SET_WITHOUT_COMMAND)
        return b"" if self._fragment_left else self._fragment_end()

    def _fragment_end(self) -> bytes:
        self._next()
        if not self._flags & 2:
            return b""
        if not self._flags & 1:
            return self._message_end()
        raw = bytes(self._command_raw)
        self._command_raw.clear()
        try:
            self._command = read_command(raw)
        except ValueError:
            return self._abort(GARBLED_COMMAND)
        if self._command.field == N_EVENT_REPORT_RSP and (self._report is None or self._command.message_id != self._message_id):
            return self._abort(STRAY_ANSWER)
        if not self._command.has_data_set:
            return self._message_end()
        if self._command.field == C_STORE_RQ and self._negotiated(self._command):
            self._storing = self._store(self._command, self._contexts[self._context_id])
        elif self._is_commitment_request(self._command):
            self._action, self._action_too_large = bytearray(), False
        return b""

    def _negotiated(self, command: Command) -> bool:
        """Whether the object's class was accepted in some context. Senders that mix up their contexts are served, in the one they use."""
        sop_class_uid = command.sop_class_uid
        return not sop_class_uid or any(context.abstract_syntax == sop_class_uid for context in self._contexts.values())

    def _is_commitment_request(self, command: Command) -> bool:
        """Whether storage commitment is asked for, or reported on."""
        return command.field in (N_ACTION_RQ, N_EVENT_REPORT_RQ) and self._contexts[self._context_id].abstract_syntax == STORAGE_COMMITMENT

    def _collect(self, piece: memoryview) -> None:
        assert self._action is not None
        if len(self._action) + len(piece) > MAX_ACTION_BYTES:
            self._action_too_large = True
            self._action.clear()
        if not self._action_too_large:
            self._action += piece

    def _message_end(self) -> bytes:
        command, storing, action = self._command, self._storing, self._action
        self._command = self._storing = self._action = None
        self.messages += 1
        assert command is not None
        if command.field == C_CANCEL_RQ:
            return b""
        if command.field == N_EVENT_REPORT_RSP:
            assert self._report is not None
            answered, self._report = self._report, None
            answered(command.status)
            return b""
        if command.field == C_ECHO_RQ:
            return respond(command, 0x0000, "", self._context_id, self._peer_max_pdu_bytes)
        answer = UNKNOWN_COMMAND
        if command.field == C_STORE_RQ:
            answer = storing.end() if storing is not None else NO_DATA_SET if self._negotiated(command) else NOT_NEGOTIATED
            self._settled(command, storing, answer)
        elif self._is_commitment_request(command):
            context = self._contexts[self._context_id]
            answer = ACTION_TOO_LARGE if self._action_too_large else self._act(command, self._context_id, context, bytes(action or b""))
            self._action_too_large = False
        return respond(command, answer.status, answer.comment, self._context_id, self._peer_max_pdu_bytes)
