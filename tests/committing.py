"""A storage SCP that is asked for commitment, and sessions that ask it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from pydicom.dataset import Dataset
from pynetdicom import AE, build_context, build_role, evt
from pynetdicom.association import Association

from hilum.asking import ready
from hilum.dicom.commitment import STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE
from hilum.dicom.lossy import JPEG_2000
from hilum.part10 import Part10
from hilum.sink import Delivery, Later, Outage, Session, Waits
from hilum.testing import MemoryStore, a_delivery
from sinks.dicom import Dicom
from tests.peers import CT, EXPLICIT, IMPLICIT


class Committing:
    """A storage SCP that is asked for commitment. `failing` are failure reasons by SOP instance UID.

    It reports on the `same` association, after its answer or as `early` as before it, or on one of its own to the port `report_to`.
    """

    def __init__(
        self,
        *,
        report_to: int = 0,
        same: bool = False,
        early: bool = False,
        status: int = 0x0000,
        failing: dict[str, int] | None = None,
        answers: bool = True,
    ) -> None:
        self.stored: list[str] = []
        self.asked: list[list[str]] = []
        self.answers: list[int] = []
        self._report_to, self._same, self._early = report_to, same, early
        self._status, self._failing = status, failing or {}
        self._answers = threading.Event()
        if answers:
            self.answer()
        ae = AE("PACS")
        ae.add_supported_context(CT, [EXPLICIT, IMPLICIT, JPEG_2000])
        ae.add_supported_context(STORAGE_COMMITMENT, [EXPLICIT, IMPLICIT])
        handlers = [(evt.EVT_C_STORE, self._store), (evt.EVT_N_ACTION, self._act)]
        server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)  # type: ignore[arg-type]  # its own tuples
        assert server is not None
        self._server = server
        self.port: int = server.server_address[1]

    def _store(self, event: evt.Event) -> int:
        self.stored.append(str(event.request.AffectedSOPInstanceUID))  # type: ignore[union-attr]  # a C-STORE
        return 0x0000

    def _act(self, event: evt.Event) -> tuple[int, None]:
        asked = event.action_information
        self.asked.append([str(each.ReferencedSOPInstanceUID) for each in asked.ReferencedSOPSequence])
        if not self._answers.is_set():
            self._answers.wait(60)
            return 0x0110, None
        if self._status == 0 and self._early:
            self._report(event.assoc, asked)
        elif self._status == 0 and (self._same or self._report_to):
            threading.Thread(target=self._report_later, args=(event.assoc, asked), daemon=True).start()
        return self._status, None

    def _report_later(self, association: Association, asked: Dataset) -> None:
        """Once the answer is out, which another thread sends: the two must not mix."""
        ready(association)
        self._report(association, asked)

    def _report(self, association: object, asked: Dataset) -> None:
        report = Dataset()
        report.TransactionUID = asked.TransactionUID
        failed = [each for each in asked.ReferencedSOPSequence if str(each.ReferencedSOPInstanceUID) in self._failing]
        report.ReferencedSOPSequence = [each for each in asked.ReferencedSOPSequence if each not in failed]
        for each in failed:
            each.FailureReason = self._failing[str(each.ReferencedSOPInstanceUID)]
        if failed:
            report.FailedSOPSequence = failed
        if self._report_to:
            ae = AE("PACS")
            roles = [build_role(STORAGE_COMMITMENT, scp_role=True)]
            association = ae.associate(
                "127.0.0.1",
                self._report_to,
                [build_context(STORAGE_COMMITMENT, IMPLICIT)],
                ae_title="HILUM",
                ext_neg=roles,  # type: ignore[arg-type]  # its own list
            )
            assert association.is_established
        status, _ = association.send_n_event_report(  # type: ignore[attr-defined]
            report, 2 if failed else 1, STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE
        )
        self.answers.append(int(status.Status) if "Status" in status else -1)
        if self._report_to:
            association.release()  # type: ignore[attr-defined]

    def answer(self) -> None:
        """Answer requests from now on."""
        self._answers.set()

    def close(self) -> None:
        self.answer()
        assert self._server.socket is not None
        self._server.socket.close()
        threading.Thread(target=self._server.shutdown, daemon=True).start()


@contextmanager
def committing(**how: object) -> Iterator[Committing]:
    running = Committing(**how)  # type: ignore[arg-type]  # by name
    try:
        yield running
    finally:
        running.close()


def sink_for(port: int, **more: object) -> Dicom:
    return Dicom(host="127.0.0.1", port=port, aet="PACS", commit=True, **more)  # type: ignore[arg-type]  # by name


def several(store: MemoryStore, count: int) -> list[Delivery]:
    return [a_delivery(store, SOPInstanceUID=f"2.25.{n + 10}") for n in range(count)]


def attempt(session: Session, store: MemoryStore, deliveries: list[Delivery]) -> list[str]:
    """The state of each, or the error's name."""
    session.begin(deliveries)
    found: list[str] = []
    for delivery in deliveries:
        try:
            found.append(session.deliver(delivery, Part10(store, delivery.object)).state)
        except (Waits, Later, Outage) as error:
            found.append(type(error).__name__)
    return found
