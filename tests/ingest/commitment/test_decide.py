from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from hashlib import sha256
from io import BytesIO

import pytest

from hilum.commitments import Commitment
from hilum.dicom.commitment import Failure, FailureReason, Reference
from hilum.dicom.file_meta import part10_head
from hilum.errors import TryAgain
from hilum.events import ObjectRef
from hilum.testing import Clock, MemoryStore
from ingest.commitment.decide import Arrived, Decider, Decision, Waiting

CT, MR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"


class FakeIndex:
    """`ingest.commitment.decide.Index` as a dict."""

    def __init__(self) -> None:
        self.instances: dict[str, list[Arrived]] = {}
        self.held: list[str] = []
        self.away = False

    def arrived(self, sop_instance_uids: Sequence[str]) -> Mapping[str, Sequence[Arrived]]:
        if self.away:
            raise TryAgain("PostgreSQL does not answer.")
        return {uid: self.instances[uid] for uid in sop_instance_uids if uid in self.instances}

    def hold(self, receipts: Sequence[str]) -> None:
        self.held += receipts


class FakeProgress:
    """`ingest.commitment.decide.Progress`: what was acknowledged until `passed` is in the index."""

    def __init__(self, passed: datetime) -> None:
        self.passed = passed
        self.away = False

    def behind(self, moment: datetime) -> str:
        if self.away:
            raise TryAgain("Kafka does not answer.")
        return "" if self.passed >= moment else "The index has not yet read all that was received."


class Hilum:
    """A decider and what it decides by. It is asked at `clock()`, when everything received so far is in the index."""

    def __init__(self, **options: float) -> None:
        self.clock = Clock()
        self.asked_at = self.clock()
        self.index = FakeIndex()
        self.progress = FakeProgress(self.asked_at)
        self.store = MemoryStore()
        self.stopping = False
        self.decider = Decider(self.index, self.progress, self.store, 600.0, now=self.clock, stopping=lambda: self.stopping, **options)

    def receive(self, instance: str, content: bytes = b"an image", sop_class: str = CT) -> ObjectRef:
        """An object that is stored and indexed."""
        digest = sha256(content).hexdigest()
        whole = part10_head(sop_class, instance, "1.2.840.10008.1.2.1") + content
        ref = ObjectRef(bucket="originals", key=f"{instance}/{digest}.dcm", size_bytes=len(whole), sha256=digest)
        self.store.put(ref.bucket, ref.key, BytesIO(whole), len(whole))
        arrived = self.index.instances.setdefault(instance, [])
        arrived.append(Arrived(receipt=f"{instance}-{len(arrived)}", sop_class_uid=sop_class, object=ref))
        return ref

    def ask(self, *instances: str, **more: bool) -> Decision | Waiting:
        references = tuple(Reference(CT, instance) for instance in instances)
        commitment = Commitment(
            id="c1",
            transaction_uid="2.25.9",
            calling_aet="CT1",
            called_aet="HILUM",
            peer="10.1.2.3",
            association="",
            asked_at=self.asked_at,
            objects=len(references),
            references=references,
            **more,  # type: ignore[arg-type]  # as named
        )
        return self.decider.look(commitment)

    def let_pass(self, **time: float) -> None:
        """Let time pass in which the index keeps up."""
        self.clock.forward(**time)
        self.progress.passed = self.clock()


@pytest.fixture
def hilum() -> Hilum:
    return Hilum()


def failed(found: Decision | Waiting) -> dict[str, int]:
    """The reasons of a decision by instance."""
    assert isinstance(found, Decision), found
    return {failure.reference.sop_instance_uid: failure.reason for failure in found.failures}


def waits_for(found: Decision | Waiting) -> str:
    assert isinstance(found, Waiting), found
    return found.says


def test_what_is_stored_as_it_was_received_is_committed_at_once_and_held(hilum: Hilum) -> None:
    hilum.receive("2.25.1")
    hilum.receive("2.25.2")

    assert failed(hilum.ask("2.25.1", "2.25.2")) == {}
    assert hilum.index.held == ["2.25.1-0", "2.25.2-0"]


def test_objects_on_their_way_are_waited_for(hilum: Hilum) -> None:
    hilum.receive("2.25.1")

    assert waits_for(hilum.ask("2.25.1", "2.25.2")) == "1 of 2 objects are not here. The last of them may come until 12:10:00 UTC."
    hilum.let_pass(minutes=9)
    assert waits_for(hilum.ask("2.25.1", "2.25.2"))
    hilum.receive("2.25.2")
    assert failed(hilum.ask("2.25.1", "2.25.2")) == {}


def test_what_did_not_come_in_time_is_not_here_and_the_rest_is_committed(hilum: Hilum) -> None:
    hilum.receive("2.25.1")
    hilum.let_pass(minutes=10)

    assert hilum.ask("2.25.1", "2.25.2") == Decision(failures=(Failure(Reference(CT, "2.25.2"), FailureReason.NO_SUCH_INSTANCE),))
    assert hilum.index.held == ["2.25.1-0"]


def test_what_came_late_and_before_the_decision_is_committed(hilum: Hilum) -> None:
    hilum.clock.forward(minutes=30)
    assert waits_for(hilum.ask("2.25.1"))

    hilum.progress.passed = hilum.clock()
    hilum.receive("2.25.1")
    assert failed(hilum.ask("2.25.1")) == {}


def test_while_the_index_is_behind_nothing_is_said_to_be_missing(hilum: Hilum) -> None:
    hilum.clock.forward(days=2)

    assert "The index has not yet read all that was received." in waits_for(hilum.ask("2.25.1"))


def test_nothing_is_committed_before_all_that_came_before_the_request_is_known(hilum: Hilum) -> None:
    hilum.receive("2.25.1")
    hilum.progress.passed = hilum.asked_at - timedelta(seconds=1)
    assert waits_for(hilum.ask("2.25.1"))

    hilum.receive("2.25.1", b"another image")
    hilum.progress.passed = hilum.asked_at
    assert failed(hilum.ask("2.25.1")) == {"2.25.1": 0x0110}


@pytest.mark.parametrize("outage", ["index", "progress", "store"])
def test_an_outage_is_waited_for_however_long_it_takes(hilum: Hilum, outage: str) -> None:
    hilum.receive("2.25.1")
    hilum.let_pass(days=3)
    getattr(hilum, outage).away = True
    with pytest.raises(TryAgain):
        hilum.ask("2.25.1", "2.25.2")
    assert hilum.index.held == []

    getattr(hilum, outage).away = False
    assert failed(hilum.ask("2.25.1", "2.25.2")) == {"2.25.2": 0x0112}


def test_two_objects_under_one_uid_are_a_processing_failure(hilum: Hilum) -> None:
    hilum.receive("2.25.1")
    hilum.receive("2.25.1", b"another image")

    assert failed(hilum.ask("2.25.1")) == {"2.25.1": FailureReason.PROCESSING_FAILURE}
    assert hilum.index.held == []


def test_the_same_object_twice_is_committed(hilum: Hilum) -> None:
    for _ in range(2):
        hilum.receive("2.25.1")

    assert failed(hilum.ask("2.25.1")) == {}
    assert hilum.index.held == ["2.25.1-0", "2.25.1-1"]


def test_another_sop_class_than_the_objects_is_a_conflict(hilum: Hilum) -> None:
    hilum.receive("2.25.1", sop_class=MR)

    assert failed(hilum.ask("2.25.1")) == {"2.25.1": FailureReason.CLASS_INSTANCE_CONFLICT}


def test_an_object_whose_class_could_not_be_read_is_stored_nevertheless(hilum: Hilum) -> None:
    hilum.receive("2.25.1", sop_class="")

    assert failed(hilum.ask("2.25.1")) == {}


def test_a_transaction_uid_that_was_used_before_fails_for_every_object_without_a_look(hilum: Hilum) -> None:
    hilum.index.away = True

    assert failed(hilum.ask("2.25.1", "2.25.2", duplicate=True)) == {"2.25.1": 0x0131, "2.25.2": 0x0131}


def test_an_object_that_the_store_has_lost_is_not_committed(hilum: Hilum) -> None:
    ref = hilum.receive("2.25.1")
    hilum.store.delete(ref.bucket, ref.key)

    assert failed(hilum.ask("2.25.1")) == {"2.25.1": FailureReason.PROCESSING_FAILURE}


@pytest.mark.parametrize("damage", [lambda whole: whole[:-1] + b"!", lambda whole: whole[:-1], lambda _: b"", lambda _: b"no DICOM" * 99])
def test_an_object_whose_digest_differs_is_not_committed(hilum: Hilum, damage: object) -> None:
    ref = hilum.receive("2.25.1")
    whole = hilum.store.objects[ref.bucket, ref.key]
    hilum.store.objects[ref.bucket, ref.key] = damage(whole)  # type: ignore[operator]  # a function

    assert failed(hilum.ask("2.25.1")) == {"2.25.1": FailureReason.PROCESSING_FAILURE}
    assert hilum.index.held == []


def test_each_object_is_read_once_while_others_are_waited_for(hilum: Hilum) -> None:
    hilum.receive("2.25.1")
    for _ in range(3):
        assert waits_for(hilum.ask("2.25.1", "2.25.2"))

    assert hilum.store.reads == 1
    hilum.decider.forget("c1")
    hilum.ask("2.25.1", "2.25.2")
    assert hilum.store.reads == 2


def test_a_stop_ends_the_reading(hilum: Hilum) -> None:
    hilum.receive("2.25.1")
    hilum.stopping = True

    with pytest.raises(TryAgain, match="Hilum stops"):
        hilum.ask("2.25.1")


def test_a_large_request_is_read_in_slices_so_that_others_have_their_turn() -> None:
    hilum = Hilum(slice_s=0.0)
    uids = [f"2.25.{number}" for number in range(3)]
    for uid in uids:
        hilum.receive(uid)

    assert hilum.ask(*uids) == Waiting(says="2 of 3 objects are still to be read and verified.", soon=True)
    assert hilum.ask(*uids) == Waiting(says="1 of 3 objects are still to be read and verified.", soon=True)
    assert failed(hilum.ask(*uids)) == {}
    assert hilum.store.reads == 3
