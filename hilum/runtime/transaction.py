"""The transactional producer of one worker, and what its errors mean."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition

from hilum import bus
from hilum.errors import Stopped, TryAgain
from hilum.settings import Settings

#: A transaction that is not committed within this time is ended by the broker, so that a killed worker blocks nobody for long.
TIMEOUT_MS = 5000

#: How long one answer of the broker is waited for, before looking whether to stop.
ANSWER_S = 2.0


class BeginAnew(Exception):
    """These clients cannot go on, and new ones, that begin with what is committed, can."""


class Transactions:
    """Kafka transactions, one at a time: `begin`, `say` and `write`, then `commit` or `abort`.

    `identity` is the transactional id: of two producers with the same one, the elder can no longer commit. `waits` is called
    with an outage while its end is waited for; a set `stop` ends the waiting.
    """

    def __init__(self, settings: Settings, identity: str, stop: threading.Event, waits: Callable[[TryAgain], None]) -> None:
        self._identity = identity
        self._stop = stop
        self._waits = waits
        self._producer = bus.producer(settings, transactional_id=identity, transaction_timeout_ms=TIMEOUT_MS)
        self._began = time.monotonic()
        self._said = 0

    def init(self) -> None:
        """End what a former producer of this identity has left open. Raises `BeginAnew`, `Stopped`."""
        self._until_answered(lambda: self._producer.init_transactions(ANSWER_S))

    def begin(self) -> None:
        """Open a transaction. The broker learns of it with the first message."""
        self._began = time.monotonic()
        self._said = 0
        self._producer.begin_transaction()

    @property
    def age_s(self) -> float:
        """How long the transaction has been open."""
        return time.monotonic() - self._began

    @property
    def said(self) -> int:
        """How many messages were said in it."""
        return self._said

    def say(self, records: Iterable[bus.Record]) -> int:
        """Hand messages over; whether they arrive is for `commit` to tell. Returns how many they were."""
        count = 0
        for topic, value, key, headers in records:
            self._hand_over(topic, value, key, headers=headers)
            count += 1
        self._said += count
        return count

    def write(self, topic: str, partition: int, key: bytes, value: bytes | None, arrived: Callable[[int], None] | None = None) -> None:
        """Hand over a message for a given partition. `arrived` is called with its offset."""
        if arrived is None:
            self._hand_over(topic, value, key, partition)
            return

        def delivered(error: KafkaError | None, message: Message) -> None:
            offset = message.offset()
            if error is None and offset is not None:
                arrived(offset)

        self._hand_over(topic, value, key, partition, on_delivery=delivered)

    def commit(self, offsets: Sequence[TopicPartition], member: Any) -> None:
        """Commit everything, with how far the group's `member` has read. Returns when it is certain.

        Raises `KafkaException` if it cannot be committed; then it must be aborted.
        """
        self._send_offsets(list(offsets), member)
        self._until_answered(lambda: self._producer.commit_transaction(ANSWER_S))

    def abort(self) -> None:
        """Undo what is open. Raises `BeginAnew` or `Stopped` if this producer cannot go on."""
        try:
            self._until_answered(lambda: self._producer.abort_transaction(ANSWER_S))
        except KafkaException as error:
            raise BeginAnew(f"Its transaction could not be undone ({error.args[0].name()}).") from None

    def close(self) -> None:
        """Let go of the producer; what is open is undone by the broker or by the next one of this identity."""
        del self._producer

    def _hand_over(self, *message: Any, **more: Any) -> None:
        while True:
            try:
                self._producer.produce(*message, **more)
            except BufferError:  # full: let some go out, then go on
                self._producer.poll(0.05)
            else:
                return

    def _send_offsets(self, offsets: list[TopicPartition], member: Any) -> None:
        """Make the offsets part of the transaction. Raises `KafkaException`, and `BeginAnew` if librdkafka does not come back.

        It may hang there for ever if the broker goes away at that moment (librdkafka's issue 5456). The thread that waits for it
        is left behind then with its producer, which commits nothing more.
        """
        producer = self._producer
        try:
            within(TIMEOUT_MS / 1000 + 1, lambda: producer.send_offsets_to_transaction(offsets, member, ANSWER_S))
        except TimeoutError:
            raise BeginAnew("Kafka went away while offsets were committed, and its client did not come back.") from None
        except KafkaException as error:
            if error.args[0].fatal():
                raise end_of(error.args[0], self.age_s, self._identity) from None
            raise

    def _until_answered(self, call: Callable[[], None]) -> None:
        """Ask again until there is an answer: only then the outcome is known."""
        while True:
            try:
                return call()
            except KafkaException as error:
                if error.args[0].fatal():
                    raise end_of(error.args[0], self.age_s, self._identity) from None
                if self._stop.is_set() or not error.args[0].retriable():
                    raise
                self._waits(bus.away(error))


def within(timeout_s: float, call: Callable[[], None]) -> None:
    """Run `call` in a thread, and raise what it raises. Raises `TimeoutError` if it takes longer; it then goes on alone."""
    outcome: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()

    def run() -> None:
        try:
            call()
        except BaseException as error:  # it is raised where it is waited for
            outcome.put(error)
        else:
            outcome.put(None)

    threading.Thread(target=run, name="kafka-call", daemon=True).start()
    try:
        error = outcome.get(timeout=timeout_s)
    except queue.Empty:
        raise TimeoutError from None
    if error is not None:
        raise error


def end_of(error: KafkaError, age_s: float, identity: str) -> Exception:
    """What it means that a producer is at its end with `error`, when its transaction was begun `age_s` ago.

    The broker ends a transaction that is open for too long, and a producer whose identity another one took.
    """
    if error.code() != KafkaError._FENCED:
        return BeginAnew(f"The producer cannot go on ({error.name()}).")
    if age_s > TIMEOUT_MS / 1000:
        return BeginAnew("Its transaction was open for too long, and the broker ended it.")
    return taken(identity)


def taken(identity: str) -> Stopped:
    """Another process has this worker's identity."""
    return Stopped(
        f"Another process runs as {identity}.",
        fix="Give each process that runs the same role a HILUM_SLOT of its own, or none; if the other one has replaced this, all is well.",
    )
