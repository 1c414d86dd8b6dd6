"""Delivered means committed: at peers that report on the same association, on a new one, late, never, or a failure."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

import pytest
from msgspec.structs import replace
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pynetdicom import AE, build_context, build_role, evt

from bench.peers import free_port, running
from hilum.dicom.commitment import STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE
from hilum.dicom.lossy import JPEG_2000, Lossy
from hilum.errors import TryAgain
from hilum.outcomes import meanings
from hilum.part10 import Part10, data_set_offset
from hilum.settings import Dicom as DicomSettings
from hilum.settings import Settings
from hilum.settings import Spool as SpoolSettings
from hilum.sink import Delivery, Expected, Later, Outage, Session, Settled, Sink, Waits, sinks_of
from hilum.testing import Clock, MemoryStore, a_delivery, eventually
from hilum.transactions import Transaction, Transactions
from sinks.dicom import Dicom
from sinks.dicom.promise import Promises, Terms, name_of
from sinks.dicom.session import Associations, Manner
from tests.ingest.dicom.running import Running
from tests.peers import CT, EXPLICIT, IMPLICIT, pacs


class Committing:
    """A storage SCP that is asked for commitment. `failing` are failure reasons by SOP instance UID."""

    def __init__(
        self,
        *,
        report_to: int = 0,
        same: bool = False,
        status: int = 0x0000,
        failing: dict[str, int] | None = None,
        answers: bool = True,
    ) -> None:
        self.stored: list[str] = []
        self.asked: list[list[str]] = []
        self.answers: list[int] = []
        self._report_to, self._same, self._status, self._failing = report_to, same, status, failing or {}
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


def test_a_request_that_was_under_way_when_its_worker_was_killed_is_made_again_at_once(hilum: Settings, store: MemoryStore) -> None:
    coming, transactions = several(store, 1), Transactions.of(hilum)
    with committing(same=True) as there:
        session = sink_for(there.port, commit_report="same").open(hilum)
        killed_before_it_asked = Transaction(
            transaction_uid="2.25.1",
            destination="pacs",
            asked_at=datetime.now(UTC),
            deliveries={coming[0].delivery_id: coming[0].sop_instance_uid},
            peer=name_of(sink_for(there.port).peer(hilum)),
            taken=False,
        )
        transactions.keep(killed_before_it_asked)

        assert attempt(session, store, coming) == ["Waits"]
        assert attempt(session, store, coming) == ["delivered"]
        session.close()
        assert there.asked == [["2.25.10"]]


def test_a_report_that_comes_for_a_request_of_a_killed_worker_counts(hilum: Settings, store: MemoryStore, receiver: Running) -> None:
    coming, asked = several(store, 1), Dataset()
    with committing(report_to=receiver.receiver.port) as there:
        transaction = Transaction(
            transaction_uid="2.25.1",
            destination="pacs",
            asked_at=datetime.now(UTC),
            deliveries={coming[0].delivery_id: coming[0].sop_instance_uid},
            peer=name_of(sink_for(there.port).peer(hilum)),
            taken=False,
        )
        Transactions.of(hilum).keep(transaction)
        reference = Dataset()
        reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = CT, "2.25.10"
        asked.TransactionUID, asked.ReferencedSOPSequence = "2.25.1", [reference]
        there._report(None, asked)
        session = sink_for(there.port).open(hilum)

        assert attempt(session, store, coming) == ["delivered"]
        assert there.stored == []
        session.close()


def test_a_worker_killed_while_the_peer_has_its_request_leaves_one_that_another_goes_on_with(hilum: Settings, store: MemoryStore) -> None:
    coming = several(store, 2)
    with committing(same=True, answers=False) as there:
        worker = subprocess.Popen([sys.executable, "-c", _WORKER, str(hilum.data), str(there.port)])
        eventually(lambda: there.asked, 30, what="the worker asks")
        worker.kill()
        worker.wait()
        kept = Transactions.of(hilum).promise(coming[0].delivery_id)
        assert kept is not None
        assert not kept.taken
        there.answer()

        session = sink_for(there.port, commit_report="same").open(hilum)
        assert attempt(session, store, coming) == ["Waits"] * 2
        assert attempt(session, store, coming) == ["delivered"] * 2
        session.close()
        assert len(there.asked) == 2


#: What a worker does with two deliveries.
_WORKER = """
import sys
from hilum.part10 import Part10
from hilum.settings import Settings, Spool
from hilum.sink import Waits
from hilum.testing import MemoryStore, a_delivery
from sinks.dicom import Dicom

store = MemoryStore()
coming = [a_delivery(store, SOPInstanceUID=f"2.25.{n + 10}") for n in range(2)]
sink = Dicom(host="127.0.0.1", port=int(sys.argv[2]), aet="PACS", commit=True)
session = sink.open(Settings(data=sys.argv[1], spool=Spool(min_free_bytes=0, spare_bytes=0)))
session.begin(coming)
for delivery in coming:
    try:
        session.deliver(delivery, Part10(store, delivery.object))
    except Waits:
        pass
"""


def test_an_outcome_that_a_killed_worker_did_not_write_down_is_known_to_the_next(hilum: Settings, store: MemoryStore) -> None:
    coming = several(store, 2)
    with committing(same=True) as there:
        killed = sink_for(there.port, commit_report="same").open(hilum)
        attempt(killed, store, coming)
        assert attempt(killed, store, coming) == ["delivered"] * 2
        after = sink_for(there.port, commit_report="same").open(hilum)

        assert after.awaits(coming[0])
        assert attempt(after, store, coming) == ["delivered"] * 2
        assert len(there.stored) == 2


def test_one_peers_promise_is_not_anothers(hilum: Settings, store: MemoryStore) -> None:
    coming = several(store, 1)
    with committing(same=True) as one, committing(same=True) as other:
        first = sink_for(one.port, commit_report="same").open(hilum)
        attempt(first, store, coming)
        first.close()
        second = sink_for(other.port, commit_report="same").open(hilum)

        assert not second.awaits(coming[0])
        assert attempt(second, store, coming) == ["Waits"]
        second.close()


class TestGroup:
    """A member that has an object and is yet to commit it: no other member gets it, too."""

    def group(self, hilum: Settings, *ports: int) -> tuple[Sink, Settings]:
        member = {"type": "dicom", "host": "127.0.0.1", "aet": "PACS", "commit": True, "idle_s": 0}
        tables = {f"pacs{n}": member | {"port": port} for n, port in enumerate(ports)}
        settings = replace(hilum, destinations={**tables, "both": {"type": "group", "members": list(tables)}})
        return sinks_of(settings)["both"], settings

    def test_a_failover_amid_a_commitment_doubles_nothing(self, hilum: Settings, store: MemoryStore) -> None:
        waiting, new = several(store, 1), [a_delivery(store, SOPInstanceUID="2.25.99")]
        with committing() as other:
            with committing() as one:
                sink, settings = self.group(hilum, one.port, other.port)
                session = sink.open(settings)
                assert attempt(session, store, waiting) == ["Waits"]
                session.rest()
            assert attempt(session, store, new) == ["Waits"]  # the first member is away now, and its breaker open
            assert attempt(session, store, waiting) == ["Waits"]
            session.close()

            assert (one.stored, other.stored) == (["2.25.10"], ["2.25.99"])

    def test_nor_does_a_restart_after_it(self, hilum: Settings, store: MemoryStore) -> None:
        coming = several(store, 1)
        with committing() as other:
            with committing() as one:
                sink, settings = self.group(hilum, one.port, other.port)
                attempt(sink.open(settings), store, coming)
            assert attempt(sink.open(settings), store, coming) == ["Waits"]

            assert other.stored == []

    def test_the_member_that_committed_is_named(self, hilum: Settings, store: MemoryStore, receiver: Running) -> None:
        [delivery] = several(store, 1)
        with committing() as other:
            with committing(report_to=receiver.receiver.port) as one:
                sink, settings = self.group(hilum, one.port, other.port)
                session = sink.open(settings)
                attempt(session, store, [delivery])
                eventually(lambda: one.answers)
            session.begin([delivery])
            settled = session.deliver(delivery, Part10(store, delivery.object))
            session.close()

        assert (settled.state, settled.member, other.stored) == ("delivered", "pacs0", [])


def test_an_image_compressed_with_loss_is_committed_under_its_own_uid(hilum: Settings, store: MemoryStore) -> None:
    ds = dcmread(str(get_testdata_file("CT_small.dcm")))
    out = BytesIO()
    ds.save_as(out)
    whole = out.getvalue()
    delivery = a_delivery(store, data_set=whole[data_set_offset(whole) :], SOPInstanceUID=str(ds.SOPInstanceUID))
    made = Lossy(ratio=10.0).uid_of(str(ds.SOPInstanceUID))
    with committing(same=True) as there:
        session = sink_for(there.port, commit_report="same", lossy="jpeg-2000", lossy_ratio=10.0).open(hilum)
        assert attempt(session, store, [delivery]) == ["Waits"]
        settled = session.deliver(delivery, Part10(store, delivery.object))
        session.close()

    assert there.asked == [[made]]
    assert (settled.state, settled.sent_as) == ("delivered", made)


# What a peer has, asked by storage commitment


def expected(*uids: str) -> list[Expected]:
    return [Expected(series_instance_uid="2.25.2", sop_class_uid=CT, sop_instance_uid=uid) for uid in uids]


def test_what_a_peer_commits_anew_is_there_and_what_it_does_not_know_is_missing(hilum: Settings) -> None:
    with committing(same=True, failing={"2.25.11": 0x0112}) as there:
        found = sink_for(there.port, commit_report="same", verify_by="commitment").holdings(hilum, "2.25.1", expected("2.25.10", "2.25.11"))

    assert found == {"2.25.10"}
    assert list((hilum.spool_dir / "commitments" / "sent").iterdir()) == []


def test_a_peer_that_reports_on_a_new_association_is_waited_for(hilum: Settings, receiver: Running) -> None:
    with committing(report_to=receiver.receiver.port) as there:
        assert sink_for(there.port, verify_by="commitment").holdings(hilum, "2.25.1", expected("2.25.10")) == {"2.25.10"}


@pytest.mark.parametrize(
    ("how", "more", "words"),
    [
        ({}, {"commit_within_s": 0.2}, r"did not report within 0\.2 s what it commits"),
        ({"same": True, "failing": {"2.25.10": 0x0110}}, {"commit_report": "same"}, "does not say of 1 objects whether it has them"),
        ({"status": 0x0213}, {}, "answered 0x0213"),
    ],
    ids=["never", "it cannot tell", "refused"],
)
def test_a_peer_that_does_not_say_is_not_taken_to_lack_anything(
    hilum: Settings, how: dict[str, object], more: dict[str, object], words: str
) -> None:
    with committing(**how) as there, pytest.raises(TryAgain, match=words):
        sink_for(there.port, verify_by="commitment", **more).holdings(hilum, "2.25.1", expected("2.25.10"))


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
