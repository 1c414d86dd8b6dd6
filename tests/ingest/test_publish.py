from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any

import msgspec
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage

from hilum.dicom.walk import MAX_HEADER_BYTES
from hilum.errors import HilumError, Misconfigured
from hilum.events import Instance, InstanceReceived, decode
from hilum.part10 import data_set_offset
from hilum.settings import S3, Rule, Settings
from hilum.spool import Arrival, Spool, received_at
from hilum.testing import MemoryLog, MemoryStore, encoded, eventually
from ingest import publish
from ingest.publish import Publisher, describe, protected_tags

EXPLICIT, IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"
SLICE: dict[str, Any] = {
    "SOPClassUID": CTImageStorage,
    "SOPInstanceUID": "2.25.3",
    "Modality": "CT",
    "PatientID": "1",
    "StudyInstanceUID": "2.25.1",
    "SeriesInstanceUID": "2.25.2",
}
BUCKET = "originals"


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool")


def arrived(spool: Spool, data_set: bytes | None = None, transfer_syntax: str = EXPLICIT, calling_aet: str = "CT1", **values: Any) -> str:
    """The receipt of an object in the spool: a CT slice with what the test cares about, or the bytes `data_set`."""
    arrival = Arrival(
        adapter="dicom",
        transfer_syntax_uid=transfer_syntax,
        sop_class_uid=CTImageStorage,
        sop_instance_uid="2.25.3",
        calling_aet=calling_aet,
        called_aet="HILUM",
        peer="10.1.2.3",
        association="a1",
    )
    incoming = spool.open(arrival)
    incoming.write(encoded(SLICE | values, transfer_syntax) if data_set is None else data_set)
    return incoming.commit()


def described(spool: Spool, receipt: str, keep: frozenset[str] | None = None) -> publish.Described:
    return describe(spool.path(receipt), receipt, BUCKET, protected_tags(Settings()) if keep is None else keep)


def instance_of(spool: Spool, receipt: str) -> Instance:
    return described(spool, receipt).event.instance


# Describing an object


def test_an_object_is_described_by_its_uids_its_digest_and_how_it_came(spool: Spool) -> None:
    receipt = arrived(spool)
    data_set = encoded(SLICE)
    digest = sha256(data_set).hexdigest()

    instance = instance_of(spool, receipt)

    assert (instance.receipt, instance.received_at) == (receipt, received_at(receipt))
    assert (instance.study_instance_uid, instance.series_instance_uid, instance.sop_instance_uid) == ("2.25.1", "2.25.2", "2.25.3")
    assert (instance.sop_class_uid, instance.announced_sop_class_uid, instance.announced_sop_instance_uid) == (
        CTImageStorage,
        CTImageStorage,
        "2.25.3",
    )
    assert (instance.object.bucket, instance.object.key) == (BUCKET, f"2.25.1/2.25.2/2.25.3/{digest}.dcm")
    assert instance.object.sha256 == digest
    assert (instance.source.adapter, instance.source.calling_aet, instance.source.called_aet) == ("dicom", "CT1", "HILUM")
    assert (instance.source.peer, instance.source.association) == ("10.1.2.3", "a1")
    assert instance.header.text("Modality") == "CT"
    assert (instance.unreadable, instance.truncated, instance.encoded_as, instance.header_cut) == ("", "", "", ())


def test_equal_data_sets_are_stored_as_equal_objects_whoever_sent_them(spool: Spool) -> None:
    first = described(spool, arrived(spool, calling_aet="CT1"))
    second = described(spool, arrived(spool, calling_aet="ANOTHER"))

    assert first.head == second.head
    assert first.event.instance.object == second.event.instance.object


@pytest.mark.parametrize("missing", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"])
@pytest.mark.parametrize("value", ["", "DOE^JANE", "../../etc", "1." * 40 + "1"])
def test_what_is_no_uid_gets_into_no_key_and_no_path(spool: Spool, missing: str, value: str) -> None:
    ds = Dataset.from_json({f"{tag:08X}": {"vr": "UI", "Value": [uid]} for tag, uid in _uids(missing, value).items()})
    receipt = arrived(spool, encoded({}) + _explicit(ds))

    instance = instance_of(spool, receipt)

    assert instance.object.key == f"unreadable/{receipt}/{instance.object.sha256}.dcm"
    event = InstanceReceived(instance=instance)
    assert value == "" or value not in event.key + event.subject


def _uids(missing: str, value: str) -> dict[int, str]:
    tags = {"SOPInstanceUID": 0x00080018, "StudyInstanceUID": 0x0020000D, "SeriesInstanceUID": 0x0020000E}
    return {tag: value if keyword == missing else "2.25.9" for keyword, tag in tags.items()}


def _explicit(ds: Dataset) -> bytes:
    """Explicit VR, without a check of the values."""
    parts = []
    for element in sorted(ds, key=lambda element: element.tag):
        value = str(element.value).encode()
        value += b"\0" * (len(value) % 2)
        head = element.tag.group.to_bytes(2, "little") + element.tag.element.to_bytes(2, "little") + b"UI"
        parts.append(head + len(value).to_bytes(2, "little") + value)
    return b"".join(parts)


def test_what_is_no_data_set_is_published_for_a_person_to_see(spool: Spool) -> None:
    receipt = arrived(spool, b"This is a letter, and no data set.")

    instance = instance_of(spool, receipt)

    assert instance.unreadable == "The data set does not begin as one in its transfer syntax does."
    assert instance.header.json == {}
    assert instance.object.key.startswith(f"unreadable/{receipt}/")
    assert InstanceReceived(instance=instance).key == receipt


def test_a_data_set_that_is_cut_short_keeps_its_uids_and_says_so(spool: Spool) -> None:
    instance = instance_of(spool, arrived(spool, encoded(SLICE | {"PatientComments": "abcdef"})[:-3]))

    assert instance.truncated.startswith("The data set ends 3 bytes before the end of element")
    assert instance.unreadable == ""
    assert instance.sop_instance_uid == "2.25.3"


def test_a_small_header_is_not_stored_a_second_time(spool: Spool) -> None:
    assert described(spool, arrived(spool)).full_header is None


def test_a_header_that_is_cut_is_stored_whole_beside_the_object(spool: Spool) -> None:
    found = described(spool, arrived(spool, PatientID="1", ImageComments="c" * 70_000, transfer_syntax=IMPLICIT))

    assert found.event.instance.header_cut == ("00204000",)
    assert len(found.event.instance.header_json) < MAX_HEADER_BYTES
    assert found.full_header is not None
    assert msgspec.json.decode(found.full_header)["00204000"]["Value"] == ["c" * 70_000]


def test_bulk_values_alone_are_no_reason_to_store_the_header_twice(spool: Spool) -> None:
    found = described(spool, arrived(spool, EncapsulatedDocument=b"x" * 5000))

    assert found.event.instance.header_cut == ("00420011",)
    assert found.full_header is None


def test_what_a_rule_names_is_never_cut(spool: Spool) -> None:
    settings = Settings(rules=(Rule(name="r", when='"x" in ImageComments and Modality == "CT"', to=()),))

    assert {"00204000", "00080060", "00100020"} <= protected_tags(settings)
    found = described(spool, arrived(spool, ImageComments="c" * 70_000, transfer_syntax=IMPLICIT), protected_tags(settings))
    assert found.event.instance.header.text("ImageComments") == "c" * 70_000


# The role


class Clockwork:
    """A publisher on fakes, which notes in which order things happen."""

    def __init__(self, spool: Spool, settings: Settings | None = None) -> None:
        self.spool = spool
        self.store = MemoryStore()
        self.log = MemoryLog()
        self.synced: list[int] = []
        self.error: HilumError | None = None
        self.connect: Callable[[], MemoryLog] = lambda: self.log
        settings = settings or Settings(s3=S3(bucket=BUCKET))
        self.publisher = Publisher(settings, spool, self.store, lambda: self.connect(), self._sync)

    def _sync(self) -> None:
        assert len(self.log.said) <= len(self.store.objects)
        self.synced.append(len(self.store.objects))

    @contextmanager
    def running(self) -> Iterator[Clockwork]:
        """Run the role for as long as the block lasts."""
        stop = threading.Event()
        thread = threading.Thread(target=self._run, args=(stop,))
        thread.start()
        try:
            yield self
        finally:
            stop.set()
            thread.join(20)
            assert not thread.is_alive()

    def _run(self, stop: threading.Event) -> None:
        try:
            self.publisher.run(stop)
        except HilumError as error:
            self.error = error

    def events(self) -> list[InstanceReceived]:
        return [decode(InstanceReceived, value) for _, _, value, _ in self.log.said]

    def ids(self) -> list[str]:
        return [headers["ce_id"].decode() for *_, headers in self.log.said]


@pytest.fixture
def clockwork(spool: Spool) -> Clockwork:
    return Clockwork(spool)


def test_each_object_is_stored_said_and_removed(clockwork: Clockwork) -> None:
    receipts = [arrived(clockwork.spool, SOPInstanceUID=f"2.25.{n}") for n in range(20)]
    with clockwork.running():
        eventually(lambda: not clockwork.spool.waiting())

    assert sorted(clockwork.ids()) == receipts
    for event in clockwork.events():
        part10 = clockwork.store.get(event.instance.object.bucket, event.instance.object.key)
        assert len(part10) == event.instance.object.size_bytes
        assert sha256(part10[data_set_offset(part10) :]).hexdigest() == event.instance.object.sha256
        assert dcmread(BytesIO(part10)).SOPInstanceUID == event.instance.sop_instance_uid


def test_what_comes_later_is_published_too(clockwork: Clockwork) -> None:
    with clockwork.running():
        eventually(lambda: clockwork.publisher.health().ready)
        for _ in range(3):
            arrived(clockwork.spool)
            eventually(lambda: not clockwork.spool.waiting())
    assert len(clockwork.log.said) == 3


def test_an_event_names_its_receipt_its_study_and_a_trace_of_its_own(clockwork: Clockwork) -> None:
    receipt = arrived(clockwork.spool)
    with clockwork.running():
        eventually(lambda: clockwork.log.said)

    [(topic, key, _, headers)] = clockwork.log.said
    assert (topic, key) == ("imaging.instance.received.v1", b"2.25.1")
    assert (headers["ce_id"], headers["ce_subject"]) == (receipt.encode(), b"2.25.3")
    assert headers["traceparent"].split(b"-")[1] == receipt.replace("-", "").encode()


def test_an_object_is_said_only_once_its_disk_is_synced(clockwork: Clockwork) -> None:
    arrived(clockwork.spool)
    with clockwork.running():
        eventually(lambda: clockwork.log.said)

    assert clockwork.synced == [1]


def test_one_sync_serves_many_objects(clockwork: Clockwork) -> None:
    for n in range(100):
        arrived(clockwork.spool, SOPInstanceUID=f"2.25.{n}")
    with clockwork.running():
        eventually(lambda: len(clockwork.log.said) == 100)

    assert len(clockwork.synced) < 100


def test_a_file_stays_until_kafka_has_acknowledged_its_event(clockwork: Clockwork) -> None:
    receipt = arrived(clockwork.spool)
    clockwork.log.away = True
    with clockwork.running():
        eventually(lambda: clockwork.store.objects)
        eventually(lambda: clockwork.log.unacknowledged)
        assert clockwork.spool.waiting() == [receipt]

        clockwork.log.away = False
        eventually(lambda: not clockwork.spool.waiting())
    assert clockwork.ids() == [receipt]


def test_an_event_that_kafka_gave_up_is_said_again_under_its_id(clockwork: Clockwork) -> None:
    receipt = arrived(clockwork.spool)
    clockwork.log.failing = True
    with clockwork.running():
        eventually(lambda: not clockwork.publisher.health().ready)
        assert "Kafka does not answer" in clockwork.publisher.health().says
        clockwork.log.failing = False
        eventually(lambda: clockwork.log.said)
        eventually(lambda: clockwork.publisher.health().ready, what="it is well again")

    assert clockwork.ids() == [receipt]
    assert clockwork.spool.waiting() == []


def test_while_the_store_is_away_everything_waits_and_its_health_says_so(clockwork: Clockwork) -> None:
    with clockwork.running():
        eventually(lambda: clockwork.publisher.health().ready)
        clockwork.store.away = True
        receipts = [arrived(clockwork.spool, SOPInstanceUID=f"2.25.{n}") for n in range(5)]
        eventually(lambda: not clockwork.publisher.health().ready)
        assert "object store does not answer" in clockwork.publisher.health().says
        assert clockwork.spool.waiting() == receipts

        clockwork.store.away = False
        eventually(lambda: not clockwork.spool.waiting())
        eventually(lambda: clockwork.publisher.health().ready)
    assert sorted(clockwork.ids()) == receipts


def test_it_starts_once_store_and_kafka_answer(clockwork: Clockwork) -> None:
    arrived(clockwork.spool)
    clockwork.store.away = True
    with clockwork.running():
        eventually(lambda: "does not answer" in clockwork.publisher.health().says)
        assert not clockwork.publisher.health().ready
        clockwork.store.away = False
        eventually(lambda: clockwork.log.said)


def test_killed_before_the_acknowledgement_it_says_the_same_again(spool: Spool) -> None:
    arrived(spool)
    first = Clockwork(spool)
    first.log.away = True
    with first.running():
        eventually(lambda: first.log.unacknowledged)
    [(_, key, value, headers)] = first.log.unacknowledged

    second = Clockwork(spool)
    with second.running():
        eventually(lambda: second.log.said)

    [(_, key_again, value_again, headers_again)] = second.log.said
    assert (key, value, headers["ce_id"], headers["ce_time"]) == (key_again, value_again, headers_again["ce_id"], headers_again["ce_time"])
    assert first.store.objects == second.store.objects


def test_the_whole_header_of_a_cut_one_lies_beside_the_object(clockwork: Clockwork) -> None:
    arrived(clockwork.spool, ImageComments="c" * 70_000, transfer_syntax=IMPLICIT)
    with clockwork.running():
        eventually(lambda: clockwork.log.said)

    key = clockwork.events()[0].instance.object.key
    assert {key for _, key in clockwork.store.objects} == {key, key.replace(".dcm", ".json")}


def test_a_file_that_is_no_spool_file_is_left_where_it_is_and_told_of(clockwork: Clockwork) -> None:
    (clockwork.spool.new / "notes.dcm").write_text("not ours")
    arrived(clockwork.spool)
    with clockwork.running():
        eventually(lambda: clockwork.log.said)
        eventually(lambda: "1 files in" in clockwork.publisher.health().says)

    assert [path.name for path in clockwork.spool.new.iterdir()] == ["notes.dcm"]


def test_two_publishers_on_one_spool_lose_nothing(spool: Spool) -> None:
    receipts = [arrived(spool, SOPInstanceUID=f"2.25.{n}") for n in range(30)]
    one, other = Clockwork(spool), Clockwork(spool)
    with one.running(), other.running():
        eventually(lambda: not spool.waiting())

    assert {*one.ids(), *other.ids()} == set(receipts)


def test_it_ends_with_words_if_only_a_person_can_help(clockwork: Clockwork) -> None:
    def refuse() -> MemoryLog:
        raise Misconfigured("topic-missing", "Topic x does not exist.", fix="Make it with `hilum provision`.")

    clockwork.connect = refuse
    with clockwork.running():
        eventually(lambda: clockwork.error)

    assert isinstance(clockwork.error, Misconfigured)


def test_a_disk_that_cannot_be_synced_holds_events_back(spool: Spool) -> None:
    broken = [True]

    def sync() -> None:
        if broken[0]:
            raise OSError(5, "Input/output error")

    log = MemoryLog()
    publisher = Publisher(Settings(s3=S3(bucket=BUCKET)), spool, MemoryStore(), lambda: log, sync)
    arrived(spool)
    stop = threading.Event()
    thread = threading.Thread(target=publisher.run, args=(stop,))
    thread.start()
    try:
        eventually(lambda: "cannot be synced: Input/output error" in publisher.health().says)
        assert log.said == []
        broken[0] = False
        eventually(lambda: log.said)
    finally:
        stop.set()
        thread.join(20)


def test_its_lag_is_what_waits(clockwork: Clockwork) -> None:
    clockwork.log.away = True
    for n in range(3):
        arrived(clockwork.spool, SOPInstanceUID=f"2.25.{n}")
    with clockwork.running():
        eventually(lambda: clockwork.publisher.health().lag == 3)
        clockwork.log.away = False
        eventually(lambda: clockwork.publisher.health().lag == 0)
