"""From the journal onto Kafka, in the order of reception.

Killed at any point it says the last messages again, with the same ids. While Kafka or the object store is away all waits in the
journal: nothing overtakes what came before it.
"""

from __future__ import annotations

import io
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any
from uuid import UUID

import msgspec
from confluent_kafka import KafkaError, KafkaException

from hilum import telemetry
from hilum.bus import Log, Writer, away, timestamp
from hilum.errors import HilumError, Stopped, TryAgain
from hilum.events import MessageReceived, MessageRefused, decode
from hilum.journal import Entry, Journal, Position
from hilum.settings import Settings
from hilum.store import ObjectStore

from .intake import Kept

log = telemetry.logger("hl7")

#: How often the journal is looked at while nothing waits in it.
LOOK_S = 0.02
RETRY_S = 1.0
#: After so many at once the next are told without a pause.
MANY = 200
#: Messages between the journal and Kafka's acknowledgement.
MOST_UNDER_WAY = 2000
#: Kafka is called away once an event has waited so long for its acknowledgement.
SILENCE_S = 5.0
_KINDS: dict[str, type[MessageReceived] | type[MessageRefused]] = {"r": MessageReceived, "x": MessageRefused}
_DECODER = msgspec.msgpack.Decoder(Kept)


class Publisher:
    """Publishes what the journal holds. `sync` makes durable what the store has answered for; it raises `OSError`."""

    def __init__(
        self, settings: Settings, journal: Journal, connect: Callable[[], Log], store: ObjectStore, sync: Callable[[], None] | None
    ) -> None:
        self._journal = journal
        self._connect = connect
        self._store = store
        self._sync = sync
        self._writer = Writer(settings, "hl7")
        self._next = Position(0, 0)
        #: What was given to Kafka, in its order: the position behind it, since when it waits, and whether it is acknowledged.
        self._sent: deque[_Sent] = deque()
        self._again = False
        self._fatal: HilumError | None = None
        self.trouble = "starting"

    def run(self, stop: threading.Event) -> None:
        """Publish until `stop`. Raises `Misconfigured` if Kafka or the store refuses, `Stopped` if the producer cannot go on."""
        kafka = self._until_it_answers(stop)
        if kafka is None:
            return
        self._next = self._journal.done
        while not stop.is_set():
            try:
                busy = self._step(kafka)
            except TryAgain as error:
                self._say(str(error))
                stop.wait(error.after_s)
                continue
            if self._fatal is not None:
                raise self._fatal
            if not busy:
                stop.wait(LOOK_S)  # what comes meanwhile is told together: a thread that is always busy would delay acknowledgements
        kafka.flush(2.0)
        self._settle()

    @property
    def waits_s(self) -> float:
        """How long the oldest message has waited for Kafka's acknowledgement."""
        sent = list(self._sent)
        return time.monotonic() - sent[0].at if sent else 0.0

    def _until_it_answers(self, stop: threading.Event) -> Log | None:
        while not stop.is_set():
            try:
                kafka = self._connect()
            except TryAgain as error:
                self._say(str(error))
                stop.wait(error.after_s)
                continue
            self.trouble = ""
            return kafka
        return None

    def _step(self, kafka: Log) -> bool:
        """One round; whether there is probably more to do at once."""
        kafka.poll(0)
        self._settle()
        telemetry.HL7_WAITING.set(self._journal.lag)
        if self._again and not self._sent:
            self._again, self._next = False, self._journal.done
        if self._again or len(self._sent) >= MOST_UNDER_WAY:
            kafka.poll(LOOK_S)
            return False
        entries = self._journal.read(self._next)
        if entries:
            self._keep_bytes([_DECODER.decode(entry.payload) for entry in entries])
        for entry in entries:
            if not self._produce(kafka, entry):
                kafka.poll(LOOK_S)
                break
            self._next = entry.end
        return len(entries) >= MANY

    def _keep_bytes(self, entries: list[Kept]) -> None:
        """Put into the object store what events do not tell."""
        puts = 0
        for each in entries:
            if each.raw:
                event = decode(MessageReceived, each.event)
                self._store.put(event.bucket, event.object_key, io.BytesIO(each.raw), len(each.raw))
                puts += 1
        if puts and self._sync is not None:
            try:
                self._sync()
            except OSError as error:
                raise TryAgain(f"The object store's disk cannot be synced: {error.strerror}.", fix="Check the disk.") from None

    def _produce(self, kafka: Log, entry: Entry) -> bool:
        kept = _DECODER.decode(entry.payload)
        event = decode(_KINDS[kept.kind], kept.event)
        trace = UUID(event.message_id).hex  # of the id, so that what is said again is in the same trace
        record = self._writer.record(
            event, event.message_id, trace=f"00-{trace}-{trace[16:]}-01".encode(), time=timestamp(event.received_at)
        )
        sent = _Sent(entry.end)

        def delivered(error: KafkaError | None, _: Any) -> None:
            sent.is_over = True
            if error is None:
                sent.is_there = True
                self.trouble = ""
                return
            self._again = True  # from the first that is not there, so that the order stays
            if error.fatal():
                self._fatal = Stopped(f"The Kafka producer cannot go on ({error.name()}).")
            self._say(str(away(KafkaException(error))))

        try:
            kafka.produce(record.topic, record.value, record.key, headers=record.headers, on_delivery=delivered)
        except BufferError:
            return False  # its buffer is full: what is in it goes first
        except KafkaException as error:
            if error.args[0].fatal():
                self._fatal = Stopped(f"The Kafka producer cannot go on ({error.args[0].name()}).")
            raise away(error) from None
        self._sent.append(sent)
        return True

    def _settle(self) -> None:
        """Say to the journal what is on Kafka, up to the first that is not."""
        count, upto = 0, Position(0, 0)
        while self._sent and self._sent[0].is_there:
            upto = self._sent.popleft().end
            count += 1
        if count:
            self._journal.finish(upto, count)
            telemetry.HL7_PUBLISHED.inc(count)
        if self._again and all(sent.is_over for sent in self._sent):
            self._sent.clear()

    def _say(self, trouble: str) -> None:
        if trouble != self.trouble:
            log.warning("publish_waits", says=trouble)
        self.trouble = trouble


class _Sent:
    __slots__ = ("at", "end", "is_over", "is_there")

    def __init__(self, end: Position) -> None:
        self.end = end
        self.at = time.monotonic()
        self.is_over = False
        self.is_there = False
