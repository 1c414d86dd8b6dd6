"""Delivered means committed: at peers that report on the same association, on a new one, late, never, or a failure."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, build_context, build_role, evt

from bench.peers import free_port, running
from hilum.dicom.commitment import STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE
from hilum.outcomes import meanings
from hilum.part10 import Part10
from hilum.settings import Dicom as DicomSettings
from hilum.settings import Settings
from hilum.settings import Spool as SpoolSettings
from hilum.sink import Delivery, Later, Outage, Session, Settled, Waits
from hilum.testing import Clock, MemoryStore, a_delivery, eventually
from hilum.transactions import Transactions
from sinks.dicom import Dicom
from sinks.dicom.promise import Promises, Terms
from sinks.dicom.session import Associations, Manner
from tests.ingest.dicom.running import Running
from tests.peers import CT, EXPLICIT, IMPLICIT, pacs


class Committing:
    """A storage SCP that is asked for commitment. `failing` are failure reasons by SOP instance UID."""

    def __init__(self, *, report_to: int = 0, same: bool = False, status: int = 0x0000, failing: dict[str, int] | None = None) -> None:
        self.stored: list[str] = []
        self.asked: list[list[str]] = []
        self.answers: list[int] = []
        self._report_to, self._same, self._status, self._failing = report_to, same, status, failing or {}
        ae = AE("PACS")
        ae.add_supported_context(CT, [EXPLICIT, IMPLICIT])
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
        if self._status == 0 and (self._same or self._report_to):
            threading.Thread(target=self._report, args=(event.assoc, asked), daemon=True).start()
        return self._status, None

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

    def close(self) -> None:
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


@pytest.fixture
def hilum(tmp_path: Path) -> Settings:
    return Settings(data=str(tmp_path), dicom=DicomSettings(port=0), spool=SpoolSettings(min_free_bytes=0, spare_bytes=0))


@pytest.fixture
def receiver(hilum: Settings) -> Iterator[Running]:
    """Hilum's own receiver on the same spool."""
    receiver = Running(hilum)
    yield receiver
    receiver.end()


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def sink_for(port: int, **more: object) -> Dicom:
    return Dicom(host="127.0.0.1", port=port, aet="PACS", commit=True, **more)  # type: ignore[arg-type]  # by name


def session_for(port: int, hilum: Settings, clock: Callable[[], datetime]) -> Associations:
    """A session whose promises go by `clock`."""
    peer = sink_for(port).peer(hilum)
    manner = Manner(by_study=True, idle_s=5.0, transcode=True, fix_odd_lengths=False, meanings=meanings(""))
    return Associations(peer, manner, Promises(peer, Transactions.of(hilum), Terms(within_s=3600.0, same_association_s=0.0), clock))


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


def test_a_peer_that_reports_on_the_same_association_has_committed_at_once(hilum: Settings, store: MemoryStore) -> None:
    coming = several(store, 3)
    with committing(same=True) as there:
        session = sink_for(there.port, commit_report="same").open(hilum)
        assert attempt(session, store, coming) == ["Waits"] * 3
        assert attempt(session, store, coming) == ["delivered"] * 3
        session.close()

        assert there.stored == ["2.25.10", "2.25.11", "2.25.12"]
        assert there.asked == [there.stored]
        assert eventually(lambda: there.answers) == [0x0000]


def test_a_peer_that_reports_on_a_new_association_finds_hilums_receiver(hilum: Settings, store: MemoryStore, receiver: Running) -> None:
    coming = several(store, 3)
    with committing(report_to=receiver.receiver.port) as there:
        session = sink_for(there.port).open(hilum)
        assert attempt(session, store, coming) == ["Waits"] * 3
        assert eventually(lambda: there.answers) == [0x0000]
        assert attempt(session, store, coming) == ["delivered"] * 3
        session.close()

        assert len(there.stored) == 3


def test_another_process_finds_what_this_one_asked_for(hilum: Settings, store: MemoryStore) -> None:
    coming = several(store, 1)
    with committing(same=True) as there:
        first = sink_for(there.port, commit_report="same").open(hilum)
        attempt(first, store, coming)
        first.close()

        assert attempt(sink_for(there.port).open(hilum), store, coming) == ["delivered"]
        assert len(there.stored) == 1


def test_what_is_not_reported_on_waits_and_is_not_sent_again(hilum: Settings, store: MemoryStore) -> None:
    clock, coming = Clock(), several(store, 2)
    with committing() as there:
        session = session_for(there.port, hilum, clock)
        assert attempt(session, store, coming) == ["Waits"] * 2
        clock.forward(minutes=59)
        assert attempt(session, store, coming) == ["Waits"] * 2
        session.close()

        assert (len(there.stored), len(there.asked)) == (2, 1)


def test_what_is_not_reported_on_in_time_counts_as_an_attempt_and_is_sent_again(hilum: Settings, store: MemoryStore) -> None:
    clock, coming = Clock(), several(store, 1)
    with committing() as there:
        session = session_for(there.port, hilum, clock)
        attempt(session, store, coming)
        clock.forward(minutes=61)
        assert attempt(session, store, coming) == ["Later"]
        assert attempt(session, store, coming) == ["Waits"]
        session.close()

        assert (len(there.stored), len(there.asked)) == (2, 2)


@pytest.mark.parametrize(
    ("reason", "state"), [(0x0112, "Later"), (0x0110, "Later"), (0x0213, "Later"), (0x0122, "rejected"), (0x0119, "rejected")]
)
def test_a_failure_is_tried_again_or_rejected(hilum: Settings, store: MemoryStore, reason: int, state: str) -> None:
    coming = several(store, 2)
    with committing(same=True, failing={"2.25.10": reason}) as there:
        session = sink_for(there.port, commit_report="same").open(hilum)
        attempt(session, store, coming)
        assert attempt(session, store, coming) == [state, "delivered"]
        session.close()


def test_a_failure_names_its_reason(hilum: Settings, store: MemoryStore) -> None:
    [delivery] = several(store, 1)
    with committing(same=True, failing={"2.25.10": 0x0122}) as there:
        session = sink_for(there.port, commit_report="same").open(hilum)
        attempt(session, store, [delivery])
        outcome = session.deliver(delivery, Part10(store, delivery.object))
        session.close()

    assert outcome == Settled(state="rejected", peer_status="0x0122", comment="PACS does not commit the object: class-not-supported.")


def test_a_peer_without_storage_commitment_is_an_outage_with_its_fix(hilum: Settings, store: MemoryStore) -> None:
    [delivery] = several(store, 1)
    with pacs() as there:
        session = sink_for(there.port).open(hilum)
        session.begin([delivery])
        with pytest.raises(Outage, match="offers no storage commitment") as outage:
            session.deliver(delivery, Part10(store, delivery.object))
        session.close()

    assert "set `commit` to false" in outage.value.fix


def test_a_request_that_the_peer_refuses_is_made_again_without_sending_again(hilum: Settings, store: MemoryStore) -> None:
    coming = several(store, 1)
    with committing(status=0x0213) as there:
        session = sink_for(there.port).open(hilum)
        assert attempt(session, store, coming) == ["Later"]
        with pytest.raises(Later, match="answered 0x0213"):
            session.deliver(coming[0], Part10(store, coming[0].object))

        assert (len(there.stored), len(there.asked)) == (1, 2)
    assert list((hilum.spool_dir / "commitments" / "sent").iterdir()) == []


def test_what_was_stored_when_the_batch_broke_off_is_asked_for_at_its_end(hilum: Settings, store: MemoryStore) -> None:
    coming = several(store, 2)
    with committing() as there:
        session = sink_for(there.port).open(hilum)
        session.begin(coming)
        with pytest.raises(Waits):
            session.deliver(coming[0], Part10(store, coming[0].object))
        assert there.asked == []
        session.close()

        assert there.asked == [["2.25.10"]]


def test_a_report_on_an_unknown_transaction_is_answered_so(receiver: Running) -> None:
    with committing(report_to=receiver.receiver.port) as there:
        asked = Dataset()
        asked.TransactionUID, asked.ReferencedSOPSequence = "2.25.404", []
        there._report(None, asked)

        assert there.answers == [0x0110]


@pytest.mark.system
@pytest.mark.peer("Orthanc")
def test_orthanc_commits_what_it_has(hilum: Settings, store: MemoryStore, receiver: Running, tmp_path: Path) -> None:
    port = free_port()
    config = {
        "StorageDirectory": str(tmp_path / "storage"),
        "IndexDirectory": str(tmp_path / "storage"),
        "DicomAet": "PACS",
        "DicomPort": port,
        "HttpPort": free_port(),
        "DicomModalities": {"hilum": ["HILUM", "127.0.0.1", receiver.receiver.port]},
    }
    (tmp_path / "orthanc.json").write_text(json.dumps(config), encoding="utf-8")
    coming = several(store, 3)
    with running(["Orthanc", tmp_path / "orthanc.json"], port, tmp_path / "orthanc.log"):
        session = sink_for(port).open(hilum)
        assert attempt(session, store, coming) == ["Waits"] * 3

        eventually(lambda: attempt(session, store, coming[:1]) == ["delivered"], timeout_s=30, what="Orthanc reports")
        assert attempt(session, store, coming[1:]) == ["delivered"] * 2
        session.close()
