"""The accepting side of an association as a state machine without sockets (PS3.8 9.2, PS3.7 6.3).

Bytes from the peer go in, bytes for the peer come out. Fragments of a data set are handed on as slices of the caller's
buffer, so memory does not grow with the object, and nothing is copied in between.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from enum import Enum

from msgspec import Struct

from hilum import upper_layer as ul
from hilum.dicom.commitment import STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE
from hilum.upper_layer import Pdu, pdu

from .aborts import (
    COMMAND_AMID_ANSWERS,
    COMMAND_AMID_MESSAGE,
    DATA_SET_WITHOUT_COMMAND,
    EARLY_PDU,
    ENDLESS_COMMAND,
    ENDLESS_PDU,
    GARBLED_COMMAND,
    GARBLED_REQUEST,
    PDU_OUT_OF_PLACE,
    STRAY_ANSWER,
    STRAY_FRAGMENT,
    UNKNOWN_PDU,
    Abort,
)
from .answers import ACTION_TOO_LARGE, CANCELLED, NO_DATA_SET, NOT_NEGOTIATED, UNKNOWN_COMMAND, Answer
from .commands import (
    C_CANCEL_RQ,
    C_ECHO_RQ,
    C_FIND_RQ,
    C_STORE_RQ,
    N_ACTION_RQ,
    N_CREATE_RQ,
    N_EVENT_REPORT_RQ,
    N_EVENT_REPORT_RSP,
    N_SET_RQ,
    Command,
    fragments,
    read_command,
    respond,
)
from .negotiation import MODALITY_WORKLIST, PERFORMED_STEP, Context, Negotiate, Titles, read_request, read_titles
from .storage import Storing

#: An A-ASSOCIATE-RQ with 128 contexts of many transfer syntaxes has some 100 kB.
MAX_CONTROL_BYTES = 2**20
MAX_COMMAND_BYTES = 64 * 1024
#: A storage commitment request needs some 100 bytes for each object, and so does a performed step: this is one for 30,000 of them.
MAX_ACTION_BYTES = 4 * 2**20
#: Answers to a query that are put together before the connection is looked at again, for a C-CANCEL.
_ANSWERS_BYTES = 32 * 1024
#: Requests with a data set that are taken up whole and then answered, beside C-STORE, by abstract syntax.
_SERVICES: Mapping[str, tuple[int, ...]] = {
    STORAGE_COMMITMENT: (N_ACTION_RQ, N_EVENT_REPORT_RQ),
    PERFORMED_STEP: (N_CREATE_RQ, N_SET_RQ),
    MODALITY_WORKLIST: (C_FIND_RQ,),
}

_KNOWN = frozenset(Pdu)
_PDU_HEAD = struct.Struct(">BxI")
_PDV_HEAD = struct.Struct(">IBB")


#: The answers to a query, each with its data set; the last one has none.
Answers = Iterator[tuple[Answer, bytes | None]]


class _Finding(Struct):
    """A C-FIND that is being answered."""

    command: Command
    context_id: int
    answers: Answers
    cancelled: bool = False


class State(Enum):
    """Where an association is (PS3.8 Table 9-1)."""

    REQUESTED = "Sta2"
    ESTABLISHED = "Sta6"
    #: The last PDU is out; what still comes is ignored until the connection is closed.
    CLOSING = "Sta13"


class Acceptor:
    """One association. `store` begins a C-STORE; `settled` hears of each answer to one.

    `act` answers a storage commitment request, a report on one of Hilum's own, or what is said of a performed step: it is called with
    the command, the id of its context, the context and the data set. `find` answers a query, one match after the other.
    """

    def __init__(
        self,
        negotiate: Negotiate,
        store: Callable[[Command, Context], Storing],
        settled: Callable[[Command, Storing | None, Answer], None],
        act: Callable[[Command, int, Context, bytes], Answer] = lambda *_: UNKNOWN_COMMAND,
        find: Callable[[Command, Context, bytes], Answers] = lambda *_: iter([(UNKNOWN_COMMAND, None)]),
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
        self._find = find
        self._finding: _Finding | None = None
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
        return self._command is None and not self._command_raw and not self._pdu_left and not self._head and self._finding is None

    @property
    def finding(self) -> bool:
        """Whether a query is being answered: `more` has its next answers, unless a C-CANCEL comes first."""
        return self._finding is not None and self.state is State.ESTABLISHED

    def more(self) -> bytes:
        """The next answers to the query, some 32 KB of them (PS3.7 9.1.2)."""
        finding, out, size = self._finding, [], 0
        assert finding is not None
        while size < _ANSWERS_BYTES and self._finding is not None:
            answer, data_set = (CANCELLED, None) if finding.cancelled else next(finding.answers)
            if data_set is None:
                self._finding = None
            out.append(respond(finding.command, answer.status, answer.comment, finding.context_id, self._peer_max_pdu_bytes, data_set))
            size += len(out[-1])
        return b"".join(out)

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
        self._action = self._finding = None

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
        if self._finding is not None and self._command.field != C_CANCEL_RQ:
            return self._abort(COMMAND_AMID_ANSWERS)
        if not self._command.has_data_set:
            return self._message_end()
        if self._command.field == C_STORE_RQ and self._negotiated(self._command):
            self._storing = self._store(self._command, self._contexts[self._context_id])
        elif self._is_served(self._command):
            self._action, self._action_too_large = bytearray(), False
        return b""

    def _negotiated(self, command: Command) -> bool:
        """Whether the object's class was accepted in some context. Senders that mix up their contexts are served, in the one they use."""
        sop_class_uid = command.sop_class_uid
        return not sop_class_uid or any(context.abstract_syntax == sop_class_uid for context in self._contexts.values())

    def _is_served(self, command: Command) -> bool:
        """Whether it is a request of a service that its context is for."""
        return command.field in _SERVICES.get(self._contexts[self._context_id].abstract_syntax, ())

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
        if command.field == C_CANCEL_RQ:  # of a query that is answered already it means nothing (PS3.7 9.3.2.3)
            if self._finding is not None and command.message_id == self._finding.command.message_id:
                self._finding.cancelled = True
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
        elif self._is_served(command):
            context = self._contexts[self._context_id]
            if command.field == C_FIND_RQ and not self._action_too_large:
                self._finding = _Finding(command, self._context_id, self._find(command, context, bytes(action or b"")))
                return b""
            answer = ACTION_TOO_LARGE if self._action_too_large else self._act(command, self._context_id, context, bytes(action or b""))
            self._action_too_large = False
        return respond(command, answer.status, answer.comment, self._context_id, self._peer_max_pdu_bytes, error_id=answer.error_id)
