"""Storage commitment on the receiver's side: a request becomes durable before it is answered, and its report may go out on the
same association while that lives (PS3.4 J.3). What is committed, the role `commitment` decides."""

from __future__ import annotations

import errno
import select
import socket
import ssl
import time
from datetime import UTC, datetime
from typing import NamedTuple

from hilum import telemetry
from hilum.commitments import Commitment, Commitments, Held, TooMany
from hilum.dicom.commitment import REQUEST_COMMITMENT, STORAGE_COMMITMENT_INSTANCE, is_taken, read_report, read_request, write_report
from hilum.settings import Settings
from hilum.transactions import Transactions

from .acceptor import Acceptor
from .answers import (
    COMMITMENT_ASKED,
    INVALID_ARGUMENT,
    NO_SUCH_ACTION,
    NO_SUCH_INSTANCE,
    NOT_KEPT,
    REPORT_GARBLED,
    REPORT_TAKEN,
    REPORT_UNKNOWN,
    TOO_MANY_REQUESTS,
    Answer,
)
from .commands import Command
from .negotiation import Context

log = telemetry.logger("commitment")

#: How often an association that waits for a report looks for it.
LOOK_S = 0.25
#: Longer than an object may take to arrive, an association that waits for a report may be silent.
SPARE_S = 60.0


class Scu(NamedTuple):
    """Who asks, over which association."""

    association: str
    calling_aet: str
    called_aet: str
    peer: str


class Committing:
    """The storage commitment of a receiver. Raises `Misconfigured` if its folder cannot be made."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.commitments = Commitments.of(settings)
        self.transactions = Transactions.of(settings)
        #: So long an association that waits for a report may be silent.
        self.patience_s = settings.commitment.wait_s + SPARE_S

    def on(self, scu: Scu) -> Reports:
        """What is asked and reported on one association."""
        return Reports(self, scu)

    def reported(self, calling_aet: str, context: Context, data_set: bytes) -> Answer:
        """Take a destination's report on what Hilum has asked it for; the answer to it."""
        try:
            report = read_report(data_set, context.transfer_syntax)
        except ValueError as error:
            log.warning("commitment_garbled", says=str(error), calling_aet=calling_aet)
            return REPORT_GARBLED
        try:
            known = self.transactions.report(report)
        except OSError as error:
            log.error("commitment_not_kept", says=error.strerror or "", calling_aet=calling_aet)
            return NOT_KEPT
        return REPORT_TAKEN if known else REPORT_UNKNOWN

    def on_same_association(self, calling_aet: str) -> bool:
        """Whether the SCU takes its reports on the association of its request."""
        node = self._settings.peers.get(calling_aet)
        return ((node.report if node else "") or self._settings.commitment.report) == "same-or-new"


class Reports:
    """The requests of one association. For its thread alone."""

    def __init__(self, committing: Committing, scu: Scu) -> None:
        self.patience_s = committing.patience_s
        self._commitments = committing.commitments
        self._same = committing.on_same_association(scu.calling_aet)
        self._scu = scu
        self._held: Held | None = None
        #: What may be reported here: how its file was when last looked at, and the context of the request.
        self._waiting: dict[str, tuple[int, int, Context]] = {}
        self._under_way = ""
        self._looked_at = 0.0

    @property
    def waiting(self) -> bool:
        """Whether a report may become due, and none is on its way."""
        return bool(self._waiting) and not self._under_way

    def ask(self, command: Command, context_id: int, context: Context, data_set: bytes) -> Answer:
        """Keep a request; the answer to it."""
        if command.sop_instance_uid != STORAGE_COMMITMENT_INSTANCE:
            return NO_SUCH_INSTANCE
        if command.action_type != REQUEST_COMMITMENT:
            return NO_SUCH_ACTION
        try:
            asked = read_request(data_set, context.transfer_syntax)
        except ValueError as error:
            log.warning("commitment_garbled", says=str(error), association=self._scu.association, calling_aet=self._scu.calling_aet)
            return INVALID_ARGUMENT
        new = Commitment(
            id=Commitments.id_of(self._scu.calling_aet, asked.transaction_uid),
            transaction_uid=asked.transaction_uid,
            calling_aet=self._scu.calling_aet,
            called_aet=self._scu.called_aet,
            peer=self._scu.peer,
            association=self._scu.association if self._same else "",
            asked_at=datetime.now(UTC),
            objects=len(asked.references),
            references=asked.references,
        )
        try:
            if self._same and self._held is None:
                self._held = self._commitments.hold(self._scu.association)
            kept = self._commitments.ask(new)
        except TooMany:
            return TOO_MANY_REQUESTS
        except OSError as error:
            log.error("commitment_not_kept", says=error.strerror or "", association=self._scu.association)
            return TOO_MANY_REQUESTS if error.errno in (errno.ENOSPC, errno.EDQUOT) else NOT_KEPT
        if kept.association == self._scu.association:
            self._waiting[kept.id] = (0, context_id, context)
        log.info("commitment_asked", uid=kept.transaction_uid, calling_aet=kept.calling_aet, count=len(kept.references))
        return COMMITMENT_ASKED

    def until_readable(self, acceptor: Acceptor, connection: socket.socket) -> None:
        """Send what becomes due, until the peer sends something. Raises `TimeoutError` if neither happens for `patience_s`, and `OSError`.

        Amid a message, and while a report is not answered, it returns at once: then only the peer has to say something.
        """
        deadline = time.monotonic() + self.patience_s
        readable = select.poll()
        readable.register(connection, select.POLLIN)
        while self.waiting and acceptor.between_messages:
            if out := self.due(acceptor):
                connection.sendall(out)
                return
            decrypted = isinstance(connection, ssl.SSLSocket) and connection.pending()
            if decrypted or readable.poll(LOOK_S * 1000):
                return
            if time.monotonic() > deadline:
                raise TimeoutError

    def due(self, acceptor: Acceptor) -> bytes:
        """A report to be sent now, if one is due and the association is idle. Raises `OSError`."""
        now = time.monotonic()
        if not self.waiting or not acceptor.can_report or now - self._looked_at < LOOK_S:
            return b""
        self._looked_at = now
        for id_, (seen, context_id, context) in list(self._waiting.items()):
            version = self._commitments.version(id_)
            if version and version == seen:
                continue
            commitment = self._commitments.get(id_)
            if commitment is None or commitment.association != self._scu.association:
                del self._waiting[id_]
            elif commitment.state == "decided":
                return self._report(acceptor, commitment, context_id, context)
            else:
                self._waiting[id_] = (version, context_id, context)
        return b""

    def _report(self, acceptor: Acceptor, commitment: Commitment, context_id: int, context: Context) -> bytes:
        self._under_way = commitment.id
        event_type, data_set = write_report(commitment.transaction_uid, commitment.committed, commitment.failures, context.transfer_syntax)

        def answered(status: int) -> None:
            self._under_way = ""
            self._waiting.pop(commitment.id, None)
            if is_taken(status):
                telemetry.COMMITMENTS_ENDED.labels(state="reported").inc()
                says = "reported on the association of the request"
                self._commitments.finish(commitment.id, state="reported", ended_at=datetime.now(UTC), says=says)
            else:  # it goes on as one whose association is gone
                telemetry.COMMITMENT_REPORTS_FAILED.inc()
                says = f"The report was answered with 0x{status:04X} on the association of the request."
                self._commitments.change(commitment.id, association="", attempts=commitment.attempts + 1, says=says)
            told = log.info if is_taken(status) else log.warning
            told("commitment_reported", uid=commitment.transaction_uid, calling_aet=commitment.calling_aet, status=f"0x{status:04X}")

        return acceptor.report(context_id, event_type, data_set, answered)

    def close(self) -> None:
        """The association has ended: reports go out on new ones from now on. May be repeated."""
        self._waiting.clear()
        if self._held is not None:
            self._held.close()
            self._held = None
