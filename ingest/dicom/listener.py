"""The listener: accepts connections, and runs one association a thread on a blocking socket."""

from __future__ import annotations

import errno
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping

from hilum import telemetry
from hilum.errors import Misconfigured
from hilum.records import Records
from hilum.settings import Dicom
from hilum.spool import Arrival, Spool
from hilum.tls import ServerTls

from . import negotiation
from .association import LINGER_S, NO_ROOM, Association, shut
from .commands import Command
from .commitment import Committing
from .crowd import Crowd, one_to_give_way
from .negotiation import Context, Request
from .senders import Senders
from .services import Services
from .storage import Storing
from .strangers import Strangers

log = telemetry.logger("dicom")

#: Associations in the middle of an object get this long to finish it when Hilum stops.
DRAIN_S = 3.0


class Listener:
    """Listens from construction on; `serve` accepts associations until `stop`.

    Raises `Misconfigured` if an address cannot be listened on.
    """

    def __init__(
        self,
        settings: Dicom,
        spool: Spool,
        senders: Senders,
        records: Records,
        tls: ServerTls | None = None,
        committing: Committing | None = None,
        services: Services | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """With `tls`, listen on the settings' `tls_port` too, and speak TLS there; with `committing`, serve storage commitment;
        and `services`.

        `clock` tells seconds; by it the time of peers is measured.
        """
        self._settings = settings
        self._spool = spool
        self._senders = senders
        self._records = records
        self.committing = committing
        self.services = services or Services()
        self._clock = clock
        self._strangers = Strangers(clock)
        self.crowd = Crowd(clock)
        self._stopping = threading.Event()
        self._open: dict[Association, None] = {}  # oldest first
        self._lock = threading.Lock()
        self._doors: list[tuple[socket.socket, ServerTls | None]] = []
        try:
            self._doors.append((_listening(settings, settings.port, "dicom.port"), None))
            if tls is not None:
                self._doors.append((_listening(settings, settings.tls_port, "dicom.tls_port"), tls))
        except Misconfigured:
            for door, _ in self._doors:
                door.close()
            raise
        self.port: int = self._doors[0][0].getsockname()[1]

    @property
    def associations(self) -> int:
        """How many connections are open."""
        return len(self._open)

    def serve(self) -> None:
        """Accept until `stop` is called."""
        threads = [threading.Thread(target=self._accept, args=door, name="dicom door", daemon=True) for door in self._doors]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _accept(self, door: socket.socket, tls: ServerTls | None) -> None:
        while not self._stopping.is_set():
            try:
                connection, address = door.accept()
            except OSError:
                if not self._stopping.is_set():
                    time.sleep(0.05)  # out of file descriptors: those who are here go on
                continue
            peer = str(address[0])
            with self._lock:
                has_room = self._make_room(peer)
                if has_room:
                    association = Association(self, connection, peer, self._settings.idle_timeout_s, tls, self._clock)
                    self._open[association] = None
            if not has_room:
                self._closed_for_room(peer)
                connection.close()
                continue
            threading.Thread(target=association.run, name=f"association {association.id}", daemon=True).start()

    def _make_room(self, newcomer: str) -> bool:
        """Whether there is room for a connection from the address `newcomer`. One that has asked for nothing yet gives way, if it must.

        Who comes over `max_associations` is told so in an answer to his request: this is about who asks for nothing.
        """
        limit = 2 * self._settings.max_associations + 16
        silent = one_to_give_way(self._open, newcomer, limit)
        if silent is not None:
            del self._open[silent]
            silent.give_way()
            self._closed_for_room(silent.peer)
        return len(self._open) < limit

    def _closed_for_room(self, peer: str) -> None:
        telemetry.ASSOCIATIONS_REFUSED.labels(reason=NO_ROOM).inc()
        if self.crowd.closed(peer):
            log.warning("connections_closed_for_room", says=self.crowd.says(), peer=peer)

    def stop(self, drain_s: float = DRAIN_S) -> None:
        """Accept no more, let objects under way arrive, then end every association. Returns within `drain_s` and a little."""
        self._stopping.set()
        for door, _ in self._doors:
            shut(door, socket.SHUT_RDWR)
            door.close()
        deadline = time.monotonic() + drain_s
        while self._open and time.monotonic() < deadline:
            for association in list(self._open):
                association.wake_if_idle()
            time.sleep(0.02)
        for association in list(self._open):
            association.wake()
        deadline = time.monotonic() + LINGER_S
        while self._open and time.monotonic() < deadline:
            time.sleep(0.02)

    @property
    def stopping(self) -> bool:
        """Whether associations are to end as soon as nothing is under way in them."""
        return self._stopping.is_set()

    def slow_down(self, calling_aet: str, per_second: float) -> None:
        """Return when a sender that may send so many objects a second may have its answer: it then waits for us, and none is refused."""
        ahead_s = self._senders.ahead_s(calling_aet, per_second)
        if ahead_s > 0:
            telemetry.SENDERS_SLOWED_SECONDS.inc(ahead_s)
            self._stopping.wait(ahead_s)

    def negotiate(self, association: Association, request: Request) -> tuple[Mapping[int, Context] | None, bytes]:
        """Accept or reject (see `ingest.dicom.negotiation`)."""
        rejection = negotiation.reason_to_reject(request) or self._senders.reason_to_reject(request, association.peer)
        with self._lock:
            established = sum(each.established for each in self._open)
            if rejection is None and established >= self._settings.max_associations:
                rejection = negotiation.LOCAL_LIMIT
            association.established = rejection is None
        told = {
            "association": association.id,
            "calling_aet": association.calling_aet,
            "called_aet": association.called_aet,
            "peer": association.peer,
        }
        if rejection is not None:
            association.refused = f"{rejection.says} ({rejection.result}/{rejection.source}/{rejection.reason})"
            telemetry.ASSOCIATIONS_REFUSED.labels(reason=rejection.says).inc()
            if not association.is_strangers:  # those are told of at their end, a few of them
                log.warning("association_rejected", says=rejection.says, **told)
            return None, negotiation.reject(rejection)
        association.terms = self._senders.terms(request.calling_aet, request.called_aet)
        contexts, answer = negotiation.accept(request, self._settings, self.services.abstract_syntaxes)
        log.info("association_opened", count=len(contexts), **told)
        return contexts, answer

    def results(self, request: Request) -> list[tuple[negotiation.Proposed, int, str]]:
        """Each context that was proposed with its result, and the transfer syntax if it was accepted."""
        syntaxes, services = self._settings.transfer_syntaxes, self.services.abstract_syntaxes
        return [(each, *negotiation.choose(each, syntaxes, services)) for each in request.contexts]

    def begin(self, association: Association, command: Command, context: Context) -> Storing:
        """Begin to store an object."""
        arrival = Arrival(
            adapter="dicom",
            transfer_syntax_uid=context.transfer_syntax,
            sop_class_uid=command.sop_class_uid,
            sop_instance_uid=command.sop_instance_uid,
            calling_aet=association.calling_aet,
            called_aet=association.called_aet,
            peer=association.peer,
            association=association.id,
        )
        limit = association.terms.max_object_bytes if association.terms is not None else self._settings.max_object_bytes
        return Storing(self._spool, arrival, limit)

    def closed(self, association: Association) -> None:
        """Called by an association as its last act."""
        with self._lock:
            self._open.pop(association, None)
        record = association.record()
        if record is not None and (not association.is_strangers or self._is_told(association)):
            try:
                self._records.put(record)
            except OSError as error:
                log.warning("association_not_recorded", association=association.id, says=error.strerror or "")

    def _is_told(self, association: Association) -> bool:
        """Count what came of a stranger's attempt; whether it is to be recorded."""
        if not association.requested and association.refused != NO_ROOM:
            telemetry.ASSOCIATIONS_REFUSED.labels(reason=association.refused.partition(" (")[0]).inc()
        if not self._strangers.is_remembered(association.peer):
            telemetry.ATTEMPTS_NOT_RECORDED.inc()
            return False
        log.warning(
            "association_not_asked_for" if not association.requested else "association_rejected",
            says=association.refused,
            association=association.id,
            calling_aet=association.calling_aet,
            called_aet=association.called_aet,
            peer=association.peer,
        )
        return True


def _listening(settings: Dicom, port: int, setting: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, port), family=family, backlog=128, reuse_port=settings.reuse_port)
    except OSError as error:
        raise Misconfigured(
            "dicom-port-taken" if error.errno == errno.EADDRINUSE else "dicom-address",
            f"DICOM cannot listen on {settings.host}:{port}: {os.strerror(error.errno or 0)}.",
            fix=f"Stop the program that has this port, or set {setting} (0 picks a free one for dicom.port) and dicom.host.",
        ) from None
