from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import pytest
from pydicom import dcmread

from hilum.errors import HilumError, Misconfigured, TryAgain
from hilum.events import InstanceReceived, decode
from hilum.part10 import data_set_offset
from hilum.records import Records
from hilum.settings import S3, Settings
from hilum.spool import Spool
from hilum.storage.marker import KEY, Marker
from hilum.testing import MemoryLog, MemoryStore, encoded, eventually, spooled
from ingest.publish import Publisher

IMPLICIT = "1.2.840.10008.1.2"
BUCKET = "originals"


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool")


class Clockwork:
    """A publisher on fakes, which notes in which order things happen."""

    def __init__(self, spool: Spool, settings: Settings | None = None) -> None:
        self.spool = spool
        self.store = MemoryStore()
        self.log = MemoryLog()
        self.synced: list[int] = []
        self.error: HilumError | None = None
        self.connect: Callable[[], MemoryLog] = lambda: self.log
        self.records = Records(spool.folder.parent / "associations")
        settings = settings or Settings(s3=S3(bucket=BUCKET))
        self.publisher = Publisher(settings, spool, self.store, lambda: self.connect(), self._sync, self.records)

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
            thread.join(60)
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
    receipts = [spooled(clockwork.spool, SOPInstanceUID=f"2.25.{n}") for n in range(20)]
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
        for n in range(3):
            spooled(clockwork.spool, SOPInstanceUID=f"2.25.{n}")
            eventually(lambda: not clockwork.spool.waiting())
    assert len(clockwork.log.said) == 3


def test_an_event_names_its_receipt_its_study_and_a_trace_of_its_own(clockwork: Clockwork) -> None:
    receipt = spooled(clockwork.spool)
    with clockwork.running():
        eventually(lambda: clockwork.log.said)

    [(topic, key, _, headers)] = clockwork.log.said
    assert (topic, key) == ("imaging.instance.received.v1", b"2.25.1")
    assert (headers["ce_id"], headers["ce_subject"]) == (receipt.encode(), b"2.25.3")
    assert headers["traceparent"].split(b"-")[1] == receipt.replace("-", "").encode()


def test_an_object_is_said_only_once_its_disk_is_synced(clockwork: Clockwork) -> None:
    spooled(clockwork.spool)
    with clockwork.running():
        eventually(lambda: clockwork.log.said)

    assert clockwork.synced == [1]


def test_of_one_instance_what_came_first_is_said_first_however_long_its_storing_takes(clockwork: Clockwork) -> None:
    receipts = [spooled(clockwork.spool, SOPInstanceUID="2.25.1", Rows=rows) for rows in (1, 2, 3, 4)]
    others = [spooled(clockwork.spool, SOPInstanceUID=f"2.25.{n}") for n in range(2, 10)]
    put, first_may_be_stored = clockwork.store.put, threading.Event()

    def slow(bucket: str, key: str, content: BinaryIO, size_bytes: int) -> None:
        data = content.read()
        if dcmread(BytesIO(data)).get("Rows") == 1:
            assert first_may_be_stored.wait(60)
        put(bucket, key, BytesIO(data), size_bytes)

    clockwork.store.put = slow  # type: ignore[method-assign]
    with clockwork.running():
        eventually(lambda: set(others) <= set(clockwork.ids()))
        assert not set(receipts) & set(clockwork.ids())
        first_may_be_stored.set()
        eventually(lambda: not clockwork.spool.waiting())

    assert [each for each in clockwork.ids() if each in receipts] == receipts


def test_what_the_store_refused_at_first_is_said_though_more_came_again_meanwhile_than_may_be_under_way(
    clockwork: Clockwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest.publish.MAX_UNDER_WAY", 8)  # it does not take hundreds of files then
    uids = [f"2.25.{n}" for n in range(20)]
    receipts = [spooled(clockwork.spool, SOPInstanceUID=uid, Rows=rows) for rows in (1, 2) for uid in uids]
    put, refused = clockwork.store.put, set[str]()

    def refusing(bucket: str, key: str, content: BinaryIO, size_bytes: int) -> None:
        data = content.read()
        if key not in refused and dcmread(BytesIO(data)).get("Rows") == 1:
            refused.add(key)
            raise TryAgain("The store is away.", after_s=0.2)
        put(bucket, key, BytesIO(data), size_bytes)

    clockwork.store.put = refusing  # type: ignore[method-assign]
    with clockwork.running():
        eventually(lambda: not clockwork.spool.waiting())

    told = {receipt: place for place, receipt in enumerate(clockwork.ids())}
    assert len(clockwork.ids()) == len(receipts)
    assert all(told[first] < told[again] for first, again in zip(receipts[: len(uids)], receipts[len(uids) :], strict=True))


def test_one_sync_serves_many_objects(clockwork: Clockwork) -> None:
    for n in range(100):
        spooled(clockwork.spool, SOPInstanceUID=f"2.25.{n}")
    with clockwork.running():
        eventually(lambda: len(clockwork.log.said) == 100)

    assert len(clockwork.synced) < 100


def test_a_file_stays_until_kafka_has_acknowledged_its_event(clockwork: Clockwork) -> None:
    receipt = spooled(clockwork.spool)
    clockwork.log.away = True
    with clockwork.running():
        eventually(lambda: clockwork.store.objects)
        eventually(lambda: clockwork.log.unacknowledged)
        assert clockwork.spool.waiting() == [receipt]

        clockwork.log.away = False
        eventually(lambda: not clockwork.spool.waiting())
    assert clockwork.ids() == [receipt]


def test_an_event_that_kafka_gave_up_is_said_again_under_its_id(clockwork: Clockwork) -> None:
    receipt = spooled(clockwork.spool)
    clockwork.log.failing = True
    with clockwork.running():
        eventually(lambda: "Kafka does not answer" in clockwork.publisher.health().says)
        assert not clockwork.publisher.health().ready
        clockwork.log.failing = False
        eventually(lambda: clockwork.log.said)
        eventually(lambda: clockwork.publisher.health().ready, what="it is well again")

    assert clockwork.ids() == [receipt]
    assert clockwork.spool.waiting() == []


def test_while_the_store_is_away_everything_waits_and_its_health_says_so(clockwork: Clockwork) -> None:
    with clockwork.running():
        eventually(lambda: clockwork.publisher.health().ready)
        clockwork.store.away = True
        receipts = [spooled(clockwork.spool, SOPInstanceUID=f"2.25.{n}") for n in range(5)]
        eventually(lambda: not clockwork.publisher.health().ready)
        assert "object store does not answer" in clockwork.publisher.health().says
        assert clockwork.spool.waiting() == receipts

        clockwork.store.away = False
        eventually(lambda: not clockwork.spool.waiting())
        eventually(lambda: clockwork.publisher.health().ready)
    assert sorted(clockwork.ids()) == receipts


def test_it_starts_once_store_and_kafka_answer(clockwork: Clockwork) -> None:
    spooled(clockwork.spool)
    clockwork.store.away = True
    with clockwork.running():
        eventually(lambda: "does not answer" in clockwork.publisher.health().says)
        assert not clockwork.publisher.health().ready
        clockwork.store.away = False
        eventually(lambda: clockwork.log.said)


def test_killed_before_the_acknowledgement_it_says_the_same_again(spool: Spool) -> None:
    spooled(spool)
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


@pytest.mark.parametrize("size_bytes", [2**18, 5 * 2**20], ids=["small", "streamed"])
def test_the_stored_object_has_every_byte_of_the_data_set(clockwork: Clockwork, size_bytes: int) -> None:
    uids = {"StudyInstanceUID": "2.25.1", "SeriesInstanceUID": "2.25.2", "SOPInstanceUID": "2.25.3"}
    data_set = encoded(uids | {"EncapsulatedDocument": bytes(range(256)) * (size_bytes // 256)})
    spooled(clockwork.spool, data_set)
    with clockwork.running():
        eventually(lambda: clockwork.log.said)

    ref = clockwork.events()[0].instance.object
    stored = clockwork.store.objects[BUCKET, ref.key]
    assert (stored[data_set_offset(stored) :], len(stored)) == (data_set, ref.size_bytes)


def test_the_whole_header_of_a_cut_one_lies_beside_the_object(clockwork: Clockwork) -> None:
    spooled(clockwork.spool, ImageComments="c" * 70_000, transfer_syntax_uid=IMPLICIT)
    with clockwork.running():
        eventually(lambda: clockwork.log.said)

    key = clockwork.events()[0].instance.object.key
    assert {key for _, key in clockwork.store.objects} == {key, key.replace(".dcm", ".json")}


def test_a_file_that_is_no_spool_file_is_left_where_it_is_and_told_of(clockwork: Clockwork) -> None:
    (clockwork.spool.folder / "notes.dcm").write_text("not ours")
    spooled(clockwork.spool)
    with clockwork.running():
        eventually(lambda: clockwork.log.said)
        eventually(lambda: "1 file in" in clockwork.publisher.health().says)

    assert clockwork.spool.waiting() == ["notes"]


def test_of_two_publishers_on_one_spool_one_waits_to_take_over(spool: Spool) -> None:
    receipts = [spooled(spool, SOPInstanceUID=f"2.25.{n}") for n in range(30)]
    one, other = Clockwork(spool), Clockwork(spool)
    with one.running():
        eventually(lambda: not spool.waiting())
        with other.running():
            eventually(lambda: "waits to take over" in other.publisher.health().says)
            last = spooled(spool, SOPInstanceUID="2.25.99")
            eventually(lambda: not spool.waiting())
    with other.running():
        then = spooled(spool, SOPInstanceUID="2.25.100")
        eventually(lambda: not spool.waiting())

    assert (set(one.ids()), other.ids()) == ({*receipts, last}, [then])


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
    publisher = Publisher(
        Settings(s3=S3(bucket=BUCKET)), spool, MemoryStore(), lambda: log, sync, Records(spool.folder.parent / "associations")
    )
    spooled(spool)
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
        thread.join(60)


def test_its_lag_is_what_waits(clockwork: Clockwork) -> None:
    clockwork.log.away = True
    for n in range(3):
        spooled(clockwork.spool, SOPInstanceUID=f"2.25.{n}")
    with clockwork.running():
        eventually(lambda: clockwork.publisher.health().lag == 3)
        clockwork.log.away = False
        eventually(lambda: clockwork.publisher.health().lag == 0)


def test_an_object_whose_key_is_being_deleted_is_told_only_after_it_was_stored_again(spool: Spool) -> None:
    clockwork = Clockwork(spool)
    spooled(spool)
    with clockwork.running():
        eventually(lambda: len(clockwork.events()) == 1)
        key = clockwork.events()[0].instance.object.key
        marker = Marker(clockwork.store, BUCKET)
        marker.write([key])
        spooled(spool)  # the same bytes again
        del clockwork.store.objects[BUCKET, key]
        eventually(lambda: (BUCKET, key) in clockwork.store.objects, what="the object stored again")
        assert len(clockwork.events()) == 1
        clockwork.store.delete(BUCKET, KEY)  # as once it is listed no more

        eventually(lambda: len(clockwork.events()) == 2)

    assert (BUCKET, key) in clockwork.store.objects
    assert list(spool.waiting()) == []
