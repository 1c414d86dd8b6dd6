"""An association that Hilum asks for: connect, negotiate, C-STORE and C-ECHO, release (PS3.7 9.1, PS3.8 7).

One thread, one blocking socket: an object goes out as it lies in the object store, in the largest PDUs that the peer takes.
"""

from __future__ import annotations

import socket
import ssl
import struct
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import NoReturn

from msgspec import Struct

from hilum import upper_layer as ul
from hilum.errors import TryAgain
from hilum.peer import NoAssociation, Peer, addresses, connect, secure
from hilum.upper_layer import Context, Pdu

#: Pieces of a data set, each of the size asked for except the last. Raising ends the association without a last fragment.
Pieces = Callable[[int], Iterator[bytes | memoryview]]

#: Hilum only receives responses, so it offers what every peer can fill.
_OFFERED_PDU_BYTES = 16_384
_UNLIMITED_PDU_BYTES = 262_144
_SEND_BYTES = 1 << 20
_MAX_ANSWER_BYTES = 1 << 20
_SURELY_OPEN_S = 0.1
#: Fewer bytes than this are put together sooner than the kernel is told of each part.
_COPY_BELOW_BYTES = 65_536
#: Most parts that the kernel takes at once (IOV_MAX on Linux and macOS).
_MAX_PARTS = 1024

#: dcmtk writes a response in two pieces and holds the second until the first is acknowledged, which TCP delays by 40 ms unless
#: asked not to; the kernel forgets that soon, so it is asked before each read. Linux only.
_QUICK_ACK: int | None = getattr(socket, "TCP_QUICKACK", None)

#: Why a context was refused (PS3.8 9.3.3.2).
REFUSALS = {
    1: "user rejection",
    2: "no reason given",
    3: "this SOP class is not supported",
    4: "this transfer syntax is not supported",
}


class Answer(Struct, frozen=True, kw_only=True):
    """What the peer answered to one request."""

    status: int
    comment: str = ""


class AssociationLost(TryAgain):
    """The association ended before the answer: whether the peer has the object is not known."""


class Association:
    """An open association. Not for several threads at once. Close it with `release`, or `abort`."""

    def __init__(
        self, peer: Peer, contexts: Sequence[Context], connection: socket.socket | None = None, *, scp_of: Sequence[str] = ()
    ) -> None:
        """Ask `peer` for an association with these contexts, at most 128. Raises `NoAssociation`.

        A `connection` that is given has TLS on it, if the peer has (`hilum.peer.secure`).

        For the abstract syntaxes in `scp_of` Hilum proposes to be the SCP (PS3.7 D.3.3.4).
        """
        self.peer = peer
        self._socket = connection or secure(peer, connect(peer, addresses(peer)))
        self._unread = bytearray()
        self._message_id = 0
        self._open = True
        #: Id of each context that the peer accepted.
        self.accepted: dict[Context, int] = {}
        #: Why it refused the others: a key of `REFUSALS`.
        self.refused: dict[Context, int] = {}
        #: What it answered where Hilum proposes to be the SCP, by abstract syntax; it need not answer.
        self.may_be_scp: Mapping[str, bool] = {}
        try:
            self._negotiate(contexts, scp_of)
        except BaseException:
            self.abort()
            raise
        self.used_at = time.monotonic()
        #: Requests answered on it.
        self.answers = 0

    def _negotiate(self, contexts: Sequence[Context], scp_of: Sequence[str]) -> None:
        peer = self.peer
        try:
            self._socket.settimeout(peer.association_timeout_s)
            self._socket.sendall(ul.associate_rq(peer.calling_aet, peer.aet, contexts, _OFFERED_PDU_BYTES, scp_of=scp_of))
            kind, body = self._read_pdu()
            if kind in (Pdu.ASSOCIATE_RJ, Pdu.ABORT):  # the peer has ended it: nothing is left to be said
                self._close()
            if kind == Pdu.ASSOCIATE_RJ:
                raise _rejection(peer, body)
            if kind == Pdu.ABORT:
                raise NoAssociation(f"{peer.address} aborted the association request.", fix="The peer's own log says why.")
            if kind != Pdu.ASSOCIATE_AC:
                raise ul.Garbled(f"PDU type {kind} came instead of an answer")
            answer = ul.read_associate_ac(body)
        except TimeoutError:
            sentence = f"{peer.address} takes connections, but did not answer the association request in {peer.association_timeout_s:g} s."
            raise NoAssociation(sentence, fix="The peer is overloaded or hangs; its own log says more.") from None
        except ssl.SSLError as error:  # with TLS 1.3 the peer looks at Hilum's certificate after the handshake
            reason = (error.reason or "no reason").replace("_", " ").lower()
            fix = "Set `tls_certificate` and `tls_key` to what the peer admits; its own log says why."
            raise NoAssociation(f"{peer.address} ended TLS instead of answering the association request: {reason}.", fix=fix) from None
        except (EOFError, OSError):
            sentence = f"{peer.address} closed the connection instead of answering the association request."
            fix = "Check that this port is a DICOM port, with TLS only if `tls` is set, and that the peer admits this address."
            raise NoAssociation(sentence, fix=fix) from None
        except ul.Garbled as error:
            sentence = f"{peer.address} does not speak DICOM: {error}."
            raise NoAssociation(sentence, fix="Check that `port` is the peer's DICOM port.") from None
        for n, context in enumerate(contexts):
            result = answer.results.get(ul.context_id(n), 2)
            if result == 0:
                self.accepted[context] = ul.context_id(n)
            else:
                self.refused[context] = result
        self.may_be_scp = answer.may_be_scp
        limits = [limit for limit in (answer.max_pdu_bytes, peer.max_pdu_bytes, _UNLIMITED_PDU_BYTES) if limit]
        self._fragment_bytes = max(2, min(limits) - 6) & ~1
        self._socket.settimeout(peer.response_timeout_s)

    def is_open(self, *, wary: bool = False) -> bool:
        """Whether the association can be used: false once it ended here, or the peer has released, aborted or closed it meanwhile.

        Shortly after an answer the peer is not asked, unless `wary`.
        """
        if not self._open:
            return False
        if not wary and time.monotonic() - self.used_at < _SURELY_OPEN_S:
            return True
        try:
            self._socket.settimeout(0)
            self._unread += self._socket.recv(4096)
            self._socket.settimeout(self.peer.response_timeout_s)
        except (BlockingIOError, ssl.SSLWantReadError):
            self._socket.settimeout(self.peer.response_timeout_s)
            return True
        except OSError:
            self.abort()
            return False
        # Whatever comes between requests ends it: a release, which wants an answer, an abort, or the connection's end.
        with suppress(EOFError, OSError, ul.Garbled):
            if self._read_pdu()[0] == Pdu.RELEASE_RQ:
                self._socket.sendall(ul.pdu(Pdu.RELEASE_RP, bytes(4)))
        self.abort()
        return False

    def c_echo(self) -> Answer:
        """Ask for C-ECHO (PS3.7 9.1.5). Raises `AssociationLost`."""
        context = self.accepted[Context(abstract_syntax=ul.VERIFICATION, transfer_syntax=ul.IMPLICIT_VR_LITTLE_ENDIAN)]
        message_id = self._next_message_id()
        command = ul.c_echo_rq(message_id)
        self._send(ul.data_header(context, len(command), last=True, command=True), command)
        return self._response(message_id)

    def c_store(self, context: Context, sop_instance_uid: str, pieces: Pieces) -> Answer:
        """Send one object by C-STORE (PS3.7 9.1.1): `pieces` are its data set in the transfer syntax of `context`, which must be accepted.

        The last fragment goes out only after `pieces` has ended, so an object whose pieces end with an error is never complete at
        the peer: the association is aborted and the error goes on. Raises `AssociationLost` if the peer ended it.
        """
        number = self.accepted[context]
        message_id = self._next_message_id()
        command = ul.c_store_rq(message_id, context.abstract_syntax, sop_instance_uid)
        waiting: list[bytes | memoryview] = [ul.data_header(number, len(command), last=True, command=True), command]
        fragment = self._fragment_bytes
        full = ul.data_header(number, fragment, last=False)
        held: memoryview | None = None
        try:
            for piece in pieces(max(1, _SEND_BYTES // fragment) * fragment):
                if held is not None:
                    _cut(waiting, held, fragment, full)
                    self._send(*waiting)
                    waiting = []
                held = memoryview(piece)
        except AssociationLost:
            raise
        except BaseException:
            self.abort()
            raise
        held = memoryview(b"") if held is None else held
        start = max(0, (len(held) - 1) // fragment * fragment)
        _cut(waiting, held[:start], fragment, full)
        waiting += [ul.data_header(number, len(held) - start, last=True), held[start:]]
        self._send(*waiting)
        return self._response(message_id)

    def n_event_report(self, context: Context, sop_instance_uid: str, event_type: int, data_set: bytes) -> Answer:
        """Report an event by N-EVENT-REPORT (PS3.7 10.1.1), with its data set in the transfer syntax of `context`, which must be accepted.

        What the peer replies beside its status is read and left. Raises `AssociationLost`.
        """
        number = self.accepted[context]
        message_id = self._next_message_id()
        command = ul.n_event_report_rq(message_id, context.abstract_syntax, sop_instance_uid, event_type)
        parts: list[bytes | memoryview] = [ul.data_header(number, len(command), last=True, command=True), command]
        for at in range(0, len(data_set), self._fragment_bytes):
            piece = memoryview(data_set)[at : at + self._fragment_bytes]
            parts += (ul.data_header(number, len(piece), last=at + len(piece) == len(data_set)), piece)
        self._send(*parts)
        return self._response(message_id, may_have_data_set=True)

    def release(self) -> None:
        """End the association in order (PS3.8 7.2); whatever the peer does, it is closed afterwards."""
        if self._open:
            with suppress(EOFError, OSError, ul.Garbled):
                self._socket.settimeout(min(5.0, self.peer.association_timeout_s))
                self._socket.sendall(ul.pdu(Pdu.RELEASE_RQ, bytes(4)))
                while self._read_pdu()[0] not in (Pdu.RELEASE_RP, Pdu.ABORT):
                    pass
                self._close()
        self.abort()

    def abort(self) -> None:
        """End the association at once (PS3.8 7.3). May be repeated."""
        if self._open:
            with suppress(OSError):
                self._socket.settimeout(1.0)
                self._socket.sendall(ul.pdu(Pdu.ABORT, bytes(4)))
            self._close()

    def _close(self) -> None:
        self._open = False
        self._socket.close()

    def _next_message_id(self) -> int:
        self._message_id = self._message_id % 65_535 + 1
        return self._message_id

    def _send(self, *parts: bytes | memoryview) -> None:
        try:
            if isinstance(self._socket, ssl.SSLSocket):  # has no sendmsg, and copies what it encrypts anyway
                self._socket.sendall(b"".join(parts))
            else:
                _send_parts(self._socket, parts)
        except OSError as error:
            self._lost(error)

    def _response(self, message_id: int, *, may_have_data_set: bool = False) -> Answer:
        try:
            command, answer = b"", None
            while True:
                kind, body = self._read_pdu()
                if kind == Pdu.ABORT:
                    raise _Aborted(body)
                if kind != Pdu.DATA:
                    raise ul.Garbled(f"PDU type {kind} came instead of a response")
                for _, of_command, last, value in ul.pdvs(body):
                    if answer is not None and not of_command:
                        if last:
                            return answer
                        continue
                    if not of_command or answer is not None:
                        raise ul.Garbled("a data set came instead of a response")
                    command += value
                    if len(command) > _MAX_ANSWER_BYTES:
                        raise ul.Garbled("a response is too long")
                    if last:
                        response = ul.read_response(command)
                        if response.answers != message_id:
                            raise ul.Garbled("a response answers another request")
                        self.used_at = time.monotonic()
                        self.answers += 1
                        answer = Answer(status=response.status, comment=response.comment)
                        if not (may_have_data_set and response.has_data_set):
                            return answer
        except (EOFError, OSError, ul.Garbled, _Aborted) as error:
            self._lost(error)

    def _read_pdu(self) -> tuple[int, bytes]:
        """The next PDU. Raises `EOFError`, `TimeoutError`, `OSError`, `Garbled`."""
        kind, length = ul.read_header(self._read(6))
        if not 1 <= kind <= 7 or length > _MAX_ANSWER_BYTES:
            raise ul.Garbled("its answer is no DICOM PDU")
        return kind, self._read(length)

    def _read(self, size: int) -> bytes:
        while len(self._unread) < size:
            if _QUICK_ACK is not None:
                self._socket.setsockopt(socket.IPPROTO_TCP, _QUICK_ACK, 1)
            received = self._socket.recv(65_536)
            if not received:
                raise EOFError
            self._unread += received
        found = bytes(self._unread[:size])
        del self._unread[:size]
        return found

    def _lost(self, error: Exception) -> NoReturn:
        """Close, and say how the association ended; after a failed send the peer's abort may lie unread."""
        if isinstance(error, OSError) and not isinstance(error, TimeoutError):
            with suppress(EOFError, OSError, ul.Garbled):
                self._socket.settimeout(1.0)
                while True:
                    kind, body = self._read_pdu()
                    if kind == Pdu.ABORT:
                        error = _Aborted(body)
                        break
        if isinstance(error, _Aborted | EOFError):
            self._close()
        self.abort()
        where = self.peer.address
        if isinstance(error, _Aborted):
            raise AssociationLost(f"{where} aborted the association{error}.", fix="The peer's own log says why.") from None
        if isinstance(error, TimeoutError):
            sentence = f"{where} did not answer within {self.peer.response_timeout_s:g} s."
            raise AssociationLost(sentence, fix="Raise `response_timeout_s` if it needs longer.") from None
        if isinstance(error, ul.Garbled):
            raise AssociationLost(f"{where} answered against the standard: {error}.", fix="The peer's vendor must correct this.") from None
        raise AssociationLost(f"{where} closed the connection without an answer.", fix="The peer's own log says why.") from None


def echo(peer: Peer) -> Answer:
    """C-ECHO on an association of its own. Raises `NoAssociation`, also if the peer takes no C-ECHO, and `AssociationLost`."""
    verification = Context(abstract_syntax=ul.VERIFICATION, transfer_syntax=ul.IMPLICIT_VR_LITTLE_ENDIAN)
    association = Association(peer, [verification])
    try:
        if verification not in association.accepted:
            reason = REFUSALS.get(association.refused[verification], "refused")
            raise NoAssociation(f"{peer.address} takes the association, but no C-ECHO: {reason}.")
        return association.c_echo()
    finally:
        association.release()


class _Aborted(Exception):
    """An A-ABORT came (PS3.8 9.3.8)."""

    def __str__(self) -> str:
        body = self.args[0]
        source, reason = (body[2], body[3]) if len(body) == 4 else (0, 0)
        if source != 2:
            return ""
        reasons = ("", "unrecognised PDU", "unexpected PDU", "", "unrecognised parameter", "unexpected parameter", "invalid parameter")
        text = reasons[reason] if reason < len(reasons) else ""
        return f" ({text or f'reason {reason}'})"


def _send_parts(connection: socket.socket, parts: Sequence[bytes | memoryview]) -> None:
    """Send all parts, from where they lie. Raises `OSError`."""
    if sum(map(len, parts)) < _COPY_BELOW_BYTES:
        connection.sendall(b"".join(parts))
        return
    waiting, at = [memoryview(part) for part in parts], 0
    while at < len(waiting):
        sent = connection.sendmsg(waiting[at : at + _MAX_PARTS])
        while at < len(waiting) and sent >= len(waiting[at]):
            sent -= len(waiting[at])
            at += 1
        if sent:
            waiting[at] = waiting[at][sent:]


def _cut(parts: list[bytes | memoryview], piece: memoryview, fragment: int, header: bytes) -> None:
    """Add `piece`, whose length is a multiple of `fragment`, to `parts` as fragments, each behind `header`."""
    for at in range(0, len(piece), fragment):
        parts += (header, piece[at : at + fragment])


#: (result source, reason) of an A-ASSOCIATE-RJ (PS3.8 9.3.4), and what to do.
_REJECTIONS = {
    (1, 1): ("no reason given", "The peer's own log says why."),
    (1, 2): ("application context not supported", "Check that `port` is the peer's DICOM port."),
    (1, 3): ("calling AE title not recognised", "Ask its administrator to add {calling} with Hilum's address, or set `calling_aet`."),
    (1, 7): ("called AE title not recognised", "Correct `aet`: the peer does not go by the name {called}."),
    (2, 1): ("no reason given", "The peer's own log says why."),
    (2, 2): ("protocol version not supported", "Check that `port` is the peer's DICOM port."),
    (3, 1): ("it is busy", "Hilum tries again; if it goes on, ask for more associations at the peer."),
    (3, 2): ("too many associations", "Hilum tries again; if it goes on, ask for more associations at the peer."),
}


def _rejection(peer: Peer, body: bytes) -> NoAssociation:
    result, source, reason = struct.unpack(">xBBB", body) if len(body) == 4 else (1, 1, 1)
    words, fix = _REJECTIONS.get((source, reason), (f"source {source}, reason {reason}", "The peer's own log says why."))
    for_now = " for now" if result == 2 else ""
    sentence = f"{peer.address} refused the association{for_now}: {words}."
    return NoAssociation(sentence, fix=fix.format(calling=peer.calling_aet, called=peer.aet))
