"""Workers that are killed and members of groups that go away amid a commitment: nothing is lost, and nothing is in two places."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from io import BytesIO

import pytest
from msgspec.structs import replace
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset

from hilum.dicom.lossy import Lossy
from hilum.part10 import Part10, data_set_offset
from hilum.settings import Settings
from hilum.sink import Sink, Waits, sinks_of
from hilum.testing import MemoryStore, a_delivery, eventually
from hilum.transactions import Transaction, Transactions
from sinks.dicom.promise import name_of
from tests.committing import attempt, committing, several, sink_for
from tests.ingest.dicom.running import Running
from tests.peers import CT


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


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
        eventually(lambda: there.asked, what="the worker asks")
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

    def test_a_member_that_goes_away_before_it_was_asked_holds_up_no_other(self, hilum: Settings, store: MemoryStore) -> None:
        coming = several(store, 2)
        with committing() as other:
            with committing() as one:
                sink, settings = self.group(hilum, one.port, other.port)
                session = sink.open(settings)
                session.begin(coming)
                with pytest.raises(Waits):
                    session.deliver(coming[0], Part10(store, coming[0].object))  # it is asked after the second one
                assert (len(one.stored), one.asked) == (1, [])
            assert session.awaits(coming[0])
            assert attempt(session, store, coming[:1]) == ["Waits"]
            session.close()

            assert (other.stored, other.asked) == (["2.25.10"], [["2.25.10"]])

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
