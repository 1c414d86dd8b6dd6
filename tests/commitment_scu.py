"""A modality that asks for storage commitment, by pynetdicom: reports come on its own association or to its port."""

from __future__ import annotations

import queue
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from pynetdicom import AE, build_context, evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE, N_ACTION
from pynetdicom.dsutils import encode

COMMITMENT = "1.2.840.10008.1.20.1"
COMMITMENT_INSTANCE = "1.2.840.10008.1.20.1.1"
CT = "1.2.840.10008.5.1.4.1.1.2"
IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"


class Report:
    """One N-EVENT-REPORT, as it was understood."""

    def __init__(self, event: evt.Event) -> None:
        info = event.event_information
        self.event_type = event.event_type
        self.transaction_uid = str(info.TransactionUID)
        self.committed = [str(each.ReferencedSOPInstanceUID) for each in info.get("ReferencedSOPSequence", [])]
        self.failed = {str(each.ReferencedSOPInstanceUID): int(each.FailureReason) for each in info.get("FailedSOPSequence", [])}
        self.calling_aet = str(event.assoc.requestor.ae_title)
        #: Whether it came on an association that Hilum asked for.
        self.on_new_association = bool(event.assoc.is_acceptor)


class Asking:
    """An association on which a modality stores and asks, while reports may come in.

    pynetdicom's reactor thread at times takes an answer for a request to serve; so all answers are taken from there.
    """

    def __init__(self, association: Association) -> None:
        self.association = association
        self._answers: queue.SimpleQueue[C_STORE | N_ACTION] = queue.SimpleQueue()
        self._message_id = 0
        serve = association._serve_request

        def take(msg: Any, context_id: int) -> None:
            if msg.is_valid_response:
                self._answers.put(msg)
            else:
                serve(msg, context_id)

        association._serve_request = take  # type: ignore[method-assign]

    def store(self, ds: Dataset) -> int:
        """The status of a C-STORE, in Explicit VR Little Endian."""
        request = C_STORE()
        request.AffectedSOPClassUID, request.AffectedSOPInstanceUID, request.Priority = ds.SOPClassUID, ds.SOPInstanceUID, 0
        request.DataSet = BytesIO(encode(ds, False, True) or b"")
        return self._answered(request, CT)

    def ask(self, instances: Sequence[str], *, transaction: str = "", sop_class: str = CT) -> tuple[int, str]:
        """Ask for storage commitment of these instances; the status and the transaction UID."""
        asked = Dataset()
        asked.TransactionUID = transaction or generate_uid(prefix=None)
        asked.ReferencedSOPSequence = []
        for instance in instances:
            item = Dataset()
            item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, instance
            asked.ReferencedSOPSequence.append(item)
        request = N_ACTION()
        request.RequestedSOPClassUID, request.RequestedSOPInstanceUID, request.ActionTypeID = COMMITMENT, COMMITMENT_INSTANCE, 1
        request.ActionInformation = BytesIO(encode(asked, False, True) or b"")
        return self._answered(request, COMMITMENT), str(asked.TransactionUID)

    def _answered(self, request: C_STORE | N_ACTION, abstract_syntax: str) -> int:
        self._message_id += 1
        request.MessageID = self._message_id
        context = next(each for each in self.association.accepted_contexts if each.abstract_syntax == abstract_syntax)
        assert context.context_id is not None
        self.association.dimse.send_msg(request, context.context_id)
        status = self._answers.get(timeout=60).Status
        assert status is not None
        return int(status)


def _release(association: Association) -> None:
    """Release it, also where pynetdicom waits for ever for its reactor to pause.

    Where a report comes in while it is released, the reactor may wait without its being noted that it does (pynetdicom's issue 820).
    """
    releasing = threading.Thread(target=association.release, name="release", daemon=True)
    releasing.start()
    releasing.join(10)
    association._is_paused = association._is_paused or releasing.is_alive()
    releasing.join(60)
    assert not releasing.is_alive(), "the association is not released"


class Scu:
    """A modality `aet` that listens on `port`; it answers reports as `answer` says."""

    def __init__(
        self,
        aet: str = "CT1",
        answer: Callable[[evt.Event], int] = lambda _: 0x0000,
        *,
        role: bool = True,
        port: int = 0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.aet = aet
        self.reports: list[Report] = []
        self.associations = 0
        self._answer = answer
        ae = AE(aet)
        ae.require_called_aet = True
        ae.add_supported_context(COMMITMENT, [EXPLICIT, IMPLICIT], scu_role=False if role else None, scp_role=True if role else None)
        handlers = [(evt.EVT_N_EVENT_REPORT, self._report), (evt.EVT_ESTABLISHED, self._established)]
        server = ae.start_server(
            ("127.0.0.1", port),
            block=False,
            evt_handlers=handlers,  # type: ignore[arg-type]  # its own tuples
            ssl_context=tls,
        )
        assert server is not None
        self._server = server
        self.port: int = server.server_address[1]

    def _report(self, event: evt.Event) -> tuple[int, Dataset | None]:
        self.reports.append(Report(event))
        return self._answer(event), None

    def _established(self, _: evt.Event) -> None:
        self.associations += 1

    @contextmanager
    def associated(self, hilum_port: int, *, storage: bool = False, called: str = "HILUM", tls: object = None) -> Iterator[Asking]:
        """An association with Hilum on which reports are taken, too; released afterwards."""
        contexts = [build_context(COMMITMENT, EXPLICIT)] + [build_context(CT, EXPLICIT)] * storage
        handlers = [(evt.EVT_N_EVENT_REPORT, self._report)]
        association = AE(self.aet).associate(
            "127.0.0.1",
            hilum_port,
            contexts,
            ae_title=called,
            evt_handlers=handlers,  # type: ignore[arg-type]  # its own tuples
            tls_args=tls,  # type: ignore[arg-type]  # passed through
        )
        assert association.is_established
        try:
            yield Asking(association)
        finally:
            if association.is_established:
                _release(association)

    def close(self) -> None:
        """Listen no more."""
        assert self._server.socket is not None
        self._server.socket.close()
        threading.Thread(target=self._server.shutdown, daemon=True).start()  # its loop looks twice a second


@contextmanager
def scu(
    aet: str = "CT1",
    answer: Callable[[evt.Event], int] = lambda _: 0x0000,
    *,
    role: bool = True,
    port: int = 0,
    tls: ssl.SSLContext | None = None,
) -> Iterator[Scu]:
    """An `Scu` for as long as the block lasts; it speaks TLS if it has `tls`."""
    running = Scu(aet, answer, role=role, port=port, tls=tls)
    try:
        yield running
    finally:
        running.close()
