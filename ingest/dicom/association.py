"""One association on one connection, in a thread of its own: moves bytes between its socket and its `Acceptor`."""

from __future__ import annotations

import secrets
import select
import socket
import ssl
import struct
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from hilum import telemetry
from hilum.events import AssociationEnded, ContextResult
from hilum.tls import ServerTls, subject_of

from .acceptor import Acceptor, Answers, State
from .answers import UNKNOWN_COMMAND, Answer
from .commands import N_EVENT_REPORT_RQ, Command
from .commitment import Reports, Scu
from .negotiation import NOT_NEGOTIATED, PERFORMED_STEP, Context, Request
from .pace import Pace, TooSlow
from .senders import Terms
from .storage import Storing

if TYPE_CHECKING:
    from .listener import Listener

log = telemetry.logger("dicom")

#: A peer must have asked for its association within this time (the ARTIM timer, PS3.8 9.1.5).
ARTIM_S = 30.0
TLS_FAILED = "its TLS handshake failed"
NO_ROOM = "there were too many connections that asked for nothing"
#: After our last PDU the peer gets this long to close the connection.
LINGER_S = 2.0
#: Transfer syntaxes of one context that are remembered; nobody means more.
MOST_SYNTAXES = 64
_RECEIVE_BYTES = 256 * 1024
#: dcmtk leaves Nagle's algorithm on and so waits for our acknowledgements, which TCP delays by 40 ms unless asked not to.
_QUICK_ACK: int | None = getattr(socket, "TCP_QUICKACK", None)


class Association:
    """One connection: moves bytes between its socket and its `Acceptor`."""

    def __init__(
        self,
        listener: Listener,
        connection: socket.socket,
        peer: str,
        idle_timeout_s: float,
        tls: ServerTls | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`clock` tells seconds; by it the peer's time is measured."""
        self.id = secrets.token_hex(8)
        self.peer = peer
        self.calling_aet = ""
        self.called_aet = ""
        self.established = False
        self.refused = ""
        self.terms: Terms | None = None
        self._tls = tls
        self._certificate = ""
        self._request: Request | None = None
        self._statuses: Counter[str] = Counter()
        self._opened_at = datetime.now(UTC)
        self._clock = clock
        self._began = clock()
        self._heard = False
        self._ending = False
        self._listener = listener
        self._socket = connection
        self._idle_timeout_s = idle_timeout_s
        self._acceptor = Acceptor(
            self._negotiate, lambda command, context: listener.begin(self, command, context), self._settled, self._act, self._find
        )
        self._reports: Reports | None = None
        self._objects = 0
        self._bytes = 0

    def _negotiate(self, request: Request) -> tuple[Mapping[int, Context] | None, bytes]:
        self._request = request
        self._take_titles()
        answer = self._listener.negotiate(self, request)
        if self.established:
            _time_out(self._socket, self._idle_timeout_s)
        return answer

    def _take_titles(self) -> None:
        """From a request, also a garbled one. What is no AE title is not repeated anywhere."""
        self.calling_aet, self.called_aet = self._acceptor.asked.calling, self._acceptor.asked.called

    def _settled(self, command: Command, storing: Storing | None, answer: Answer) -> None:
        self._statuses[f"0x{answer.status:04X}"] += 1
        telemetry.OBJECTS_RECEIVED.labels(status=f"0x{answer.status:04X}").inc()
        if storing is not None and storing.receipt:
            self._objects += 1
            self._bytes += storing.size_bytes
        if answer.status:
            log.warning(
                "object_not_plainly_stored",
                status=f"0x{answer.status:04X}",
                says=answer.comment,
                association=self.id,
                calling_aet=self.calling_aet,
                instance=command.sop_instance_uid,
                receipt=storing.receipt if storing is not None else "",
            )
        if self.terms is not None and self.terms.max_objects_per_s:
            self._listener.slow_down(self.calling_aet, self.terms.max_objects_per_s)

    def _scu(self) -> Scu:
        return Scu(self.id, self.calling_aet, self.called_aet, self.peer)

    def _find(self, _: Command, context: Context, data_set: bytes) -> Answers:
        finder = self._listener.services.finder
        assert finder is not None
        return finder.find(self.calling_aet, data_set, context.transfer_syntax)

    def _act(self, command: Command, context_id: int, context: Context, data_set: bytes) -> Answer:
        performing = self._listener.services.performing
        if context.abstract_syntax == PERFORMED_STEP and performing is not None:
            return performing.take(self._scu(), command, context, data_set)
        return self._asked_commitment(command, context_id, context, data_set)

    def _asked_commitment(self, command: Command, context_id: int, context: Context, data_set: bytes) -> Answer:
        if self._listener.committing is None:
            return UNKNOWN_COMMAND
        if command.field == N_EVENT_REPORT_RQ:
            return self._listener.committing.reported(self.calling_aet, context, data_set)
        if self._reports is None:
            self._reports = self._listener.committing.on(self._scu())
        return self._reports.ask(command, context_id, context, data_set)

    @property
    def requested(self) -> bool:
        """Whether the peer has asked for it, in a request that could be read."""
        return self._request is not None

    @property
    def is_strangers(self) -> bool:
        """Whether there was no request that could be read, or none with a calling AE title: a port scanner's, say."""
        return self._request is None or not self.calling_aet

    def record(self) -> AssociationEnded | None:
        """What is to be remembered of it; None if not a word was said on this connection."""
        if not self._heard:
            return None
        request = self._request or Request()
        results = self._listener.results(request) if self.established else [(each, NOT_NEGOTIATED, "") for each in request.contexts]
        return AssociationEnded(
            association=self.id,
            calling_aet=self.calling_aet,
            called_aet=self.called_aet,
            peer=self.peer,
            implementation_class_uid=request.implementation_class_uid[:64],
            implementation_version_name=request.implementation_version_name[:16],
            max_pdu_bytes=request.max_pdu_bytes,
            certificate=self._certificate,
            user_identity=request.user_identity,
            contexts=tuple(
                ContextResult(
                    id=proposed.id,
                    abstract_syntax=proposed.abstract_syntax[:64],
                    transfer_syntaxes=tuple(uid[:64] for uid in proposed.transfer_syntaxes[:MOST_SYNTAXES]),
                    result=result,
                    transfer_syntax=transfer_syntax,
                )
                for proposed, result, transfer_syntax in results
            ),
            refused=self.refused,
            ended=self._acceptor.ended,
            objects=self._objects,
            size_bytes=self._bytes,
            statuses=dict(self._statuses),
            opened_at=self._opened_at,
            ended_at=datetime.now(UTC),
        )

    def run(self) -> None:
        """Serve the association to its end."""
        acceptor = self._acceptor
        try:
            self._serve()
        except TimeoutError as error:
            if acceptor.state is State.REQUESTED:
                acceptor.close("it asked for no association in time")  # AA-2 of PS3.8 Table 9-9: nothing is sent
            else:
                says = "too little came from the peer in time" if isinstance(error, TooSlow) else "no byte came from the peer in time"
                self._send_last(acceptor.abort(says))
        except OSError:
            acceptor.close("the connection broke")
        except Exception as error:  # one association must not take the others with it
            log.error("association_failed", association=self.id, error=telemetry.described(error))
            self._send_last(acceptor.abort("it failed"))
        finally:
            acceptor.close("closed by the peer" if self.requested else "it closed the connection before it asked for an association")
            self._socket.close()
            if not self.requested:
                self._take_titles()
                self.refused = acceptor.ended
            if self._reports is not None:
                self._reports.close()
            self._listener.closed(self)
            if self.established:
                log.info(
                    "association_closed",
                    says=acceptor.ended,
                    association=self.id,
                    count=self._objects,
                    size_bytes=self._bytes,
                    seconds=round(self._clock() - self._began, 3),
                )

    def _serve(self) -> None:
        acceptor = self._acceptor
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._tls is not None:
            _time_out(self._socket, ARTIM_S)
            if not self._socket.recv(1, socket.MSG_PEEK):
                return  # one that only looks whether somebody listens
            self._heard = True
            self._secure(self._tls)
        connection = self._socket
        buffer = memoryview(bytearray(_RECEIVE_BYTES))
        pace = Pace(acceptor)
        while acceptor.state is not State.CLOSING:
            if acceptor.state is State.REQUESTED:
                _time_out(connection, self._artim_s())
            within_s, waits_from = self._idle_timeout_s, self._clock()
            if self._reports is not None and self._reports.waiting:
                within_s = max(within_s, self._reports.patience_s)
                self._reports.until_readable(acceptor, connection)
            size = _receive(connection, buffer)
            waited_s = self._clock() - waits_from
            if not size:
                if self._listener.stopping:
                    self._send_last(acceptor.abort("Hilum stops"))
                return
            self._heard = True
            if out := acceptor.receive(buffer[:size]):
                connection.sendall(out)
            if acceptor.finding:
                self._answer(connection)
            if acceptor.state is State.ESTABLISHED:
                pace.waited(waited_s, within_s)
            if self._ending or (self._listener.stopping and acceptor.between_messages and acceptor.state is State.ESTABLISHED):
                self._send_last(acceptor.abort("Hilum stops"))
                return
        self._linger()

    def _answer(self, connection: socket.socket) -> None:
        """Send the answers to a query, until there are no more or the peer says something, such as C-CANCEL. Raises `OSError`."""
        readable = select.poll()
        readable.register(connection, select.POLLIN)
        while self._acceptor.finding:
            if (isinstance(connection, ssl.SSLSocket) and connection.pending()) or readable.poll(0):
                return
            connection.sendall(self._acceptor.more())

    def _artim_s(self) -> float:
        """What is left of the ARTIM timer, in seconds. Raises `TimeoutError` if nothing is (PS3.8 9.1.5)."""
        left = self._began + ARTIM_S - self._clock()
        if left <= 0:
            raise TimeoutError
        return left

    def _secure(self, tls: ServerTls) -> None:
        """Speak TLS from now on, after a handshake within the ARTIM timer. Raises `OSError` if the peer is not the one to speak to."""
        connection = tls.context.wrap_socket(self._socket, server_side=True, do_handshake_on_connect=False)
        self._socket = connection
        _time_out(connection, self._artim_s())
        try:
            connection.do_handshake()
        except TimeoutError:
            raise
        except OSError as error:
            why = (getattr(error, "reason", "") or error.strerror or type(error).__name__).replace("_", " ").lower()
            self._acceptor.close(f"{TLS_FAILED} ({why})")
            raise
        self._certificate = subject_of(connection.getpeercert(binary_form=True) or b"")

    def _send_last(self, out: bytes) -> None:
        with suppress(OSError):  # the peer is gone: nothing is left to tell
            self._socket.sendall(out)
            self._linger()

    def _linger(self) -> None:
        """Let the peer close first, so that it reads our last PDU and not a reset."""
        deadline = time.monotonic() + LINGER_S
        _time_out(self._socket, LINGER_S)
        if isinstance(self._socket, ssl.SSLSocket):
            with suppress(OSError, ValueError):  # it has no TLS yet, or breaks it off
                self._socket = self._socket.unwrap()
        buffer = memoryview(bytearray(65536))
        shut(self._socket, socket.SHUT_WR)
        with suppress(OSError):  # it does not: closed anyway
            while time.monotonic() < deadline and self._socket.recv_into(buffer):
                pass

    def wake_if_idle(self) -> None:
        """Called from another thread: end a wait for the next request."""
        if self._acceptor.between_messages:
            shut(self._socket, socket.SHUT_RD)

    def give_way(self) -> None:
        """Called from another thread: end it before it has asked for an association, since others need the room."""
        self._acceptor.ended = self._acceptor.ended or NO_ROOM
        shut(self._socket, socket.SHUT_RDWR)

    def wake(self) -> None:
        """Called from another thread: end it, whatever is under way."""
        self._ending = True
        shut(self._socket, socket.SHUT_RD)


def _receive(connection: socket.socket, buffer: memoryview) -> int:
    """Some bytes; their number, 0 at the end. Raises `TimeoutError`."""
    try:
        size = connection.recv_into(buffer)
    except BlockingIOError:
        raise TimeoutError from None
    if _QUICK_ACK is not None:
        connection.setsockopt(socket.IPPROTO_TCP, _QUICK_ACK, 1)
    return size


def _time_out(connection: socket.socket, seconds: float) -> None:
    """Let reads and writes fail after `seconds`. In the kernel, but for TLS: Python's own timeouts cost a poll a read."""
    if isinstance(connection, ssl.SSLSocket):
        connection.settimeout(seconds)
        return
    seconds = max(seconds, 0.001)  # 0 is no limit
    limit = struct.pack("ll", int(seconds), int(seconds % 1 * 1e6))
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)


def shut(connection: socket.socket, how: int) -> None:
    """Close one direction of the connection under whatever it carries: TLS, told of it, would go on in plain text."""
    with suppress(OSError):  # the other side was faster
        socket.socket.shutdown(connection, how)
