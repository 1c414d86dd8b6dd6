"""Delivered means committed: at peers that report on the same association, on a new one, late, never, or a failure."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from bench.peers import free_port, running
from hilum.outcomes import meanings
from hilum.part10 import Part10
from hilum.settings import Settings
from hilum.sink import Later, Outage, Settled, Waits
from hilum.testing import Clock, MemoryStore, eventually
from hilum.transactions import Transactions
from sinks.dicom.promise import Promises, Terms
from sinks.dicom.session import Associations, Manner
from tests.committing import attempt, committing, several, sink_for
from tests.ingest.dicom.running import Running
from tests.peers import pacs


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def session_for(port: int, hilum: Settings, clock: Callable[[], datetime]) -> Associations:
    """A session whose promises go by `clock`."""
    peer = sink_for(port).peer(hilum)
    manner = Manner(by_study=True, idle_s=5.0, transcode=True, fix_odd_lengths=False, meanings=meanings(""))
    return Associations(peer, manner, Promises(peer, Transactions.of(hilum), Terms(within_s=3600.0, same_association_s=0.0), clock))


@pytest.mark.parametrize("early", [False, True], ids=["after its answer", "before its answer"])
def test_a_peer_that_reports_on_the_same_association_has_committed_at_once(hilum: Settings, store: MemoryStore, early: bool) -> None:
    coming = several(store, 3)
    with committing(same=True, early=early) as there:
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

        eventually(lambda: attempt(session, store, coming[:1]) == ["delivered"], what="Orthanc reports")
        assert attempt(session, store, coming[1:]) == ["delivered"] * 2
        session.close()
