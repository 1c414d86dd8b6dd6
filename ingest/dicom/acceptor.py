"""The accepting side of an association as a state machine without sockets (PS3.8 9.2, PS3.7 6.3).

Bytes from the peer go in, bytes for the peer come out. Fragments of a data set are handed on as slices of the caller's
buffer, so memory does not grow with the object, and nothing is copied in between.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from enum import Enum

from hilum.upper_layer import Pdu, pdu

from .answers import NO_DATA_SET, NOT_NEGOTIATED, UNKNOWN_COMMAND, Answer
from .commands import C_CANCEL_RQ, C_ECHO_RQ, C_STORE_RQ, Command, read_command, respond
from .negotiation import Context, Negotiate, read_request
from .storage import Storing

#: An A-ASSOCIATE-RQ with 128 contexts of many transfer syntaxes has some 100 kB.
MAX_CONTROL_BYTES = 2**20
MAX_COMMAND_BYTES = 64 * 1024

# Reasons of an abort by the provider (PS3.8 Table 9-26).
UNRECOGNIZED_PDU = 1
UNEXPECTED_PDU = 2
INVALID_PARAMETER = 6

_KNOWN = frozenset(Pdu)
_PDU_HEAD = struct.Struct(">BxI")
_PDV_HEAD = struct.Struct(">IBB")


class State(Enum):
    """Where an association is (PS3.8 Table 9-1)."""

    REQUESTED = "Sta2"
    ESTABLISHED = "Sta6"
    #: The last PDU is out; what still comes is ignored until the connection is closed.
    CLOSING = "Sta13"


class Acceptor:
    """One association. `store` begins a C-STORE; `settled` hears of each answer to one."""

    def __init__(
        self,
        negotiate: Negotiate,
        store: Callable[[Command, Context], Storing],
        settled: Callable[[Command, Storing | None, Answer], None],
    ) -> None:
        self.state = State.REQUESTED
        self.ended = ""  #: how the association ended, in words; empty while it lives
        self._negotiate = negotiate
        self._store = store
        self._settled = settled
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
                if self._flags & 1:
                    self._command_raw += piece
                elif self._storing is not None:
                    self._storing.write(piece)
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

    def abort(self, reason: int, says: str, *, by_user: bool = False) -> bytes:
        """End the association; the A-ABORT to be sent (PS3.8 9.3.8). Leaves nothing of an object that is not complete."""
        self.close(says)
        return pdu(Pdu.ABORT, bytes((0, 0, 0 if by_user else 2, 0 if by_user else reason)))

    def close(self, says: str) -> None:
        """The association is over, for whatever reason. Leaves nothing of an object that is not complete."""
        self.ended = self.ended or says
        self.state = State.CLOSING
        if self._storing is not None:
            self._storing.drop()
            self._storing = None

    def _pdu_head(self, head: bytes) -> bytes:
        kind, length = _PDU_HEAD.unpack(head)
        if kind == Pdu.DATA:
            if self.state is not State.ESTABLISHED:
                return self.abort(UNEXPECTED_PDU, "it sent data before the association was established")
            self._pdu_left = length
            self._next()
            return b""
        if length > MAX_CONTROL_BYTES:
            return self.abort(INVALID_PARAMETER, "it sent a PDU of impossible length")
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
            case Pdu.RELEASE_RQ if self.state is State.ESTABLISHED and self._command is None:
                self.close("released")
                return pdu(Pdu.RELEASE_RP, bytes(4))
            case Pdu.ABORT:
                self.close("aborted by the peer")
                return b""
            case kind if kind in _KNOWN:
                return self.abort(UNEXPECTED_PDU, "it sent a PDU out of place")
            case _:
                return self.abort(UNRECOGNIZED_PDU, "it sent a PDU of unknown type")

    def _associate(self, body: bytes) -> bytes:
        try:
            request = read_request(body)
        except ValueError:
            return self.abort(INVALID_PARAMETER, "its request for an association is garbled")
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
        if length < 2 or length + 4 > self._pdu_left or context_id not in self._contexts:
            return self.abort(INVALID_PARAMETER, "it sent a fragment that fits no PDU or no accepted context")
        self._pdu_left -= _PDV_HEAD.size
        self._fragment_left = length - 2
        if self._flags & 1:
            if self._command is not None or (self._command_raw and context_id != self._context_id):
                return self.abort(UNEXPECTED_PDU, "it sent a command amid a message")
            if len(self._command_raw) + self._fragment_left > MAX_COMMAND_BYTES:
                return self.abort(INVALID_PARAMETER, "it sent an endless command")
            self._context_id = context_id
        elif self._command is None or context_id != self._context_id:
            return self.abort(UNEXPECTED_PDU, "it sent a data set without a command")
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
            return self.abort(INVALID_PARAMETER, "it sent a command that cannot be parsed")
        if not self._command.has_data_set:
            return self._message_end()
        if self._command.field == C_STORE_RQ and self._negotiated(self._command):
            self._storing = self._store(self._command, self._contexts[self._context_id])
        return b""

    def _negotiated(self, command: Command) -> bool:
        """Whether the object's class was accepted in some context. Senders that mix up their contexts are served, in the one they use."""
        sop_class_uid = command.sop_class_uid
        return not sop_class_uid or any(context.abstract_syntax == sop_class_uid for context in self._contexts.values())

    def _message_end(self) -> bytes:
        command, storing = self._command, self._storing
        self._command = self._storing = None
        assert command is not None
        if command.field == C_CANCEL_RQ:
            return b""
        if command.field == C_ECHO_RQ:
            return respond(command, 0x0000, "", self._context_id, self._peer_max_pdu_bytes)
        answer = UNKNOWN_COMMAND
        if command.field == C_STORE_RQ:
            answer = storing.end() if storing is not None else NO_DATA_SET if self._negotiated(command) else NOT_NEGOTIATED
            self._settled(command, storing, answer)
        return respond(command, answer.status, answer.comment, self._context_id, self._peer_max_pdu_bytes)
