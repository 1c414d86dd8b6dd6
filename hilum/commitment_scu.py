"""Ask a peer for storage commitment (PS3.4 J.3.2), and take its report if it comes on the same association (PS3.4 J.3.3)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from hilum import upper_layer as ul
from hilum.association import REFUSALS, Answer, Association, AssociationLost
from hilum.dicom.commitment import (
    REQUEST_COMMITMENT,
    STORAGE_COMMITMENT,
    STORAGE_COMMITMENT_INSTANCE,
    Reference,
    Report,
    read_report,
    write_report,
)
from hilum.errors import TryAgain
from hilum.peer import Peer
from hilum.upper_layer import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN, Context, Pdu

_CONTEXTS = [
    Context(abstract_syntax=STORAGE_COMMITMENT, transfer_syntax=syntax) for syntax in (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN)
]
_N_EVENT_REPORT_RQ = b"\0\1"
_NO_DATA_SET = b"\1\1"
#: A report has some 100 bytes for each object.
_MAX_BYTES = 16 * 2**20


class NotOffered(TryAgain):
    """The peer takes the association, and no storage commitment on it."""


class Asking(Association):
    """An association for storage commitment alone. Raises `NoAssociation`, and `NotOffered` if the peer refuses the SOP class."""

    def __init__(self, peer: Peer) -> None:
        super().__init__(peer, _CONTEXTS)
        found = next((each for each in _CONTEXTS if each in self.accepted), None)
        if found is None:
            self.release()
            reason = REFUSALS.get(self.refused[_CONTEXTS[0]], "refused")
            fix = "Turn its storage commitment on, or set `commit` to false."
            raise NotOffered(f"{peer.aet} offers no storage commitment: {reason}.", fix=fix)
        self._context = found
        self._report: Report | None = None

    def ask(self, transaction_uid: str, references: Sequence[Reference]) -> Answer:
        """Ask by N-ACTION (PS3.7 10.1.4). Raises `AssociationLost`."""
        _, data_set = write_report(transaction_uid, references, (), self._context.transfer_syntax)  # a request looks like a report
        message_id = self._next_message_id()
        command = ul.n_action_rq(message_id, STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE, REQUEST_COMMITMENT)
        self._send(*self._parts(command, data_set))
        try:
            while True:
                command, data_set = self._message()
                if not self._is_report(command, data_set):
                    response = ul.read_response(command)
                    if response.answers != message_id:
                        raise ul.Garbled("a response answers another request")
                    return Answer(status=response.status, comment=response.comment)
        except (EOFError, OSError, ul.Garbled) as error:
            self._lost(error)

    def report(self, within_s: float) -> Report | None:
        """The report that has come on this association, or comes within this time, if one does; it is answered."""
        with suppress(EOFError, OSError, ul.Garbled, AssociationLost):
            self._socket.settimeout(within_s)
            while self._report is None and self._is_report(*self._message()):
                pass
        return self._report

    def _is_report(self, command: bytes, data_set: bytes) -> bool:
        """Whether the message is a report, which is then answered; it may come before the answer to the request."""
        elements = ul.read_elements(command)
        if elements.get(0x0100, b"") != _N_EVENT_REPORT_RQ:
            return False
        try:
            self._report, status = read_report(data_set, self._context.transfer_syntax), 0x0000
        except ValueError:
            status = 0x0115
        answer = ul.n_event_report_rsp(int.from_bytes(elements.get(0x0110, b"")[:2], "little"), status)
        self._send(ul.data_header(self.accepted[self._context], len(answer), last=True, command=True), answer)
        return True

    def _parts(self, command: bytes, data_set: bytes) -> list[bytes | memoryview]:
        number = self.accepted[self._context]
        parts: list[bytes | memoryview] = [ul.data_header(number, len(command), last=True, command=True), command]
        for at in range(0, len(data_set), self._fragment_bytes):
            piece = memoryview(data_set)[at : at + self._fragment_bytes]
            parts += (ul.data_header(number, len(piece), last=at + len(piece) == len(data_set)), piece)
        return parts

    def _message(self) -> tuple[bytes, bytes]:
        """The next message: its command set and its data set. Raises `EOFError`, `OSError`, `Garbled`."""
        command, data_set, complete = b"", b"", False
        while True:
            kind, body = self._read_pdu()
            if kind != Pdu.DATA:
                raise ul.Garbled("the association ended before its time")
            for _, of_command, last, value in ul.pdvs(body):
                if of_command == complete:
                    raise ul.Garbled("a command and its data set are mixed up")
                if of_command:
                    command += value
                    complete = last
                else:
                    data_set += value
                if len(command) + len(data_set) > _MAX_BYTES:
                    raise ul.Garbled("a message is too long")
                if last and (not of_command or ul.read_elements(command).get(0x0800, _NO_DATA_SET) == _NO_DATA_SET):
                    return command, data_set
