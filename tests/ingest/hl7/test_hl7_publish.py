"""The publisher of HL7 messages, with a Kafka that fails on demand."""

from __future__ import annotations

import threading
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from confluent_kafka import KafkaError, KafkaException

from hilum.errors import Stopped
from hilum.events import MessageReceived, decode
from hilum.journal import Journal, Position
from hilum.settings import Settings
from hilum.testing import MemoryStore, eventually
from ingest.hl7.intake import examine, kept
from ingest.hl7.publish import Publisher
from ingest.hl7.senders import Senders

from .listening import a_message


class FakeLog:
    """A Kafka producer. `fails` says which message is not taken, once; while `away` nothing is acknowledged."""

    def __init__(self) -> None:
        self.values: list[bytes] = []
        self.fails: Callable[[int], KafkaError | None] = lambda _: None
        self.away = False
        self._waiting: deque[tuple[bytes, Callable[[Any, Any], None]]] = deque()
        self._count = 0

    def produce(self, topic: str, value: bytes, key: bytes, *, headers: Any, on_delivery: Callable[[Any, Any], None]) -> None:
        if len(self._waiting) >= 5:
            raise BufferError
        self._waiting.append((value, on_delivery))

    def poll(self, timeout: float) -> int:
        while self._waiting and not self.away:
            value, delivered = self._waiting.popleft()
            self._count += 1
            error = self.fails(self._count)
            if error is None:
                self.values.append(value)
            delivered(error, None)
        return 0

    def flush(self, timeout: float) -> int:
        return self.poll(0)

    @property
    def control_ids(self) -> list[str]:
        return [decode(MessageReceived, value).control_id for value in self.values]


@contextmanager
def publishing(
    journal: Journal, log: FakeLog, store: MemoryStore | None = None, sync: Callable[[], None] | None = None
) -> Iterator[Publisher]:
    stop = threading.Event()
    publisher = Publisher(Settings(), journal, lambda: log, store or MemoryStore(), sync)
    errors: list[Exception] = []

    def run() -> None:
        try:
            publisher.run(stop)
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield publisher
        stop.set()
        thread.join(60)
        if errors:
            raise errors[0]
    finally:
        stop.set()
        thread.join(60)


def put(journal: Journal, *contents: bytes) -> None:
    """Return once they are durable."""
    senders = Senders(Settings().hl7)
    written: list[object] = []
    for content in contents:
        receipt = uuid.uuid4()
        entry = kept(examine(content, "192.0.2.1", senders), receipt, datetime.now(UTC), "bucket")
        journal.append(receipt, msgspec.msgpack.encode(entry), written.append)
    eventually(lambda: len(written) == len(contents))


def messages(count: int) -> list[bytes]:
    return [a_message(f"M{number}").encode() for number in range(count)]


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path, history_bytes=2**16, segment_bytes=2**16)
    with journal.opened():
        yield journal


def test_messages_are_told_in_their_order_and_then_done(journal: Journal) -> None:
    log = FakeLog()
    put(journal, *messages(30))
    with publishing(journal, log):
        eventually(lambda: len(log.values) == 30 and journal.lag == 0)
        put(journal, a_message("late").encode())
        eventually(lambda: len(log.values) == 31 and journal.lag == 0)

    assert log.control_ids == [*(f"M{number}" for number in range(30)), "late"]
    assert journal.read(journal.done) == []


def test_while_kafka_is_away_everything_waits(journal: Journal) -> None:
    log = FakeLog()
    log.away = True
    put(journal, *messages(10))
    with publishing(journal, log):
        eventually(lambda: journal.lag == 10)
        log.away = False
        eventually(lambda: journal.lag == 0)

    assert log.control_ids == [f"M{number}" for number in range(10)]


def test_after_a_message_that_was_not_taken_all_from_there_on_are_told_again_in_order(journal: Journal) -> None:
    log = FakeLog()
    log.fails = lambda count: KafkaError(KafkaError._MSG_TIMED_OUT) if count == 4 else None
    put(journal, *messages(20))
    with publishing(journal, log) as publisher:
        eventually(lambda: journal.lag == 0)
        assert publisher.trouble == ""

    last = {control_id: position for position, control_id in enumerate(log.control_ids)}
    assert sorted(last, key=lambda each: last[each]) == [f"M{number}" for number in range(20)]


def test_a_crash_repeats_with_the_same_ids(tmp_path: Path) -> None:
    first, second = FakeLog(), FakeLog()
    journal = Journal(tmp_path, history_bytes=2**16)
    with journal.opened():
        put(journal, *messages(10))
        with publishing(journal, first):
            eventually(lambda: len(first.values) == 10)
        (tmp_path / "copy").mkdir()
        for file in tmp_path.glob("*.journal"):  # as it was before the journal said how far all is done
            (tmp_path / "copy" / file.name).write_bytes(file.read_bytes())
    again = Journal(tmp_path / "copy", history_bytes=2**16)
    with again.opened():
        assert len(again.read(Position(0, 0))) == 10
        with publishing(again, second):
            eventually(lambda: again.lag == 0)

    assert set(second.values) <= set(first.values)


def test_bytes_that_the_event_does_not_tell_are_stored_before_it_is_told(journal: Journal) -> None:
    store, log, synced = MemoryStore(), FakeLog(), []
    content = a_message(charset="UNICODE UTF-8").encode().replace(b"Sam", b"S\xe4m")
    put(journal, content)
    with publishing(journal, log, store, lambda: synced.append(len(log.values))):
        eventually(lambda: len(log.values) == 1)

    event = decode(MessageReceived, log.values[0])
    assert store.get(event.bucket, event.object_key) == content
    assert synced == [0]


def test_while_the_store_is_away_nothing_overtakes(journal: Journal) -> None:
    store, log = MemoryStore(), FakeLog()
    store.away = True
    put(journal, a_message("M1", charset="UNICODE UTF-8").encode().replace(b"Sam", b"S\xe4m"), a_message("M2").encode())
    with publishing(journal, log, store) as publisher:
        eventually(lambda: publisher.trouble)
        assert log.values == []
        store.away = False
        eventually(lambda: journal.lag == 0)

    assert log.control_ids == ["M1", "M2"]


def test_a_producer_that_cannot_go_on_ends_the_role(journal: Journal) -> None:
    log = FakeLog()
    log.fails = lambda _: KafkaError(KafkaError._FATAL, "fenced", fatal=True)
    put(journal, *messages(1))

    publisher = Publisher(Settings(), journal, lambda: log, MemoryStore(), None)

    with pytest.raises(Stopped):
        publisher.run(threading.Event())


def test_kafka_that_refuses_to_take_is_tried_again(journal: Journal) -> None:
    log = FakeLog()
    refused = iter([True])
    produce = log.produce

    def once(*arguments: Any, **more: Any) -> None:
        if next(refused, False):
            raise KafkaException(KafkaError(KafkaError._ALL_BROKERS_DOWN))
        produce(*arguments, **more)

    log.produce = once  # type: ignore[method-assign]  # of the fake
    put(journal, *messages(3))
    with publishing(journal, log):
        eventually(lambda: journal.lag == 0)

    assert log.control_ids == ["M0", "M1", "M2"]
