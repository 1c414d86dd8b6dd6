"""From the spool to the object store and onto Kafka: the role `publish`.

Each spool file is described, stored under a key made of its UIDs and its digest, made durable with others by one sync of the
store's disk, and told as `imaging.instance.received.v1`; once Kafka has acknowledged that, the file is removed. Killed at any
point, it does the rest again: the object gets the same key and bytes, the event the same id.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, cast
from uuid import UUID

from confluent_kafka import KafkaError, KafkaException

from hilum import telemetry
from hilum.bundle import Following
from hilum.bus import Log, Record, Writer, away, partition_counts, producer, timestamp, topic_of
from hilum.disk import sync_file_system
from hilum.errors import HilumError, Misconfigured, Stopped, TryAgain
from hilum.events import AssociationEnded, InstanceReceived
from hilum.records import Records
from hilum.role import Health, Role
from hilum.settings import Settings
from hilum.spool import Spool
from hilum.spool.files import Seldom
from hilum.store import ObjectStore, open_store
from hilum.words import counted
from ingest.backlog import Backlog
from ingest.describe import describe, protected_tags, store_object
from ingest.stored import Stored, drained
from ingest.turns import Turns

log = telemetry.logger("publish")

#: Objects that are described and stored at the same time.
UPLOADS = 4
#: Objects between spool and acknowledgement; more wait in the spool. Bounds what an outage of Kafka keeps in memory.
MAX_UNDER_WAY = 256
#: How often the spool is looked at.
LOOK_S = 0.015
RETRY_S = 1.0
#: How often records of associations and damaged files are looked for, and how many records are told at once.
RECORDS_S = 1.0
MOST_RECORDS = 500
#: Kafka is called away once an event has waited so long for its acknowledgement.
SILENCE_S = 5.0


class Publisher:
    """The role `publish`. `sync` makes durable what the store has answered for so far; it raises `OSError`."""

    name = "publish"

    def __init__(
        self,
        settings: Settings,
        spool: Spool,
        store: ObjectStore,
        connect: Callable[[], Log],
        sync: Callable[[], None] | None,
        records: Records,
        following: Following | None = None,
        backlog: Backlog | None = None,
    ) -> None:
        self._settings = settings
        self._following = following
        self._backlog = backlog
        self._spool = spool
        self._store = store
        self._connect = connect
        self._sync = sync
        self._records = records
        self._records_sent: set[str] = set()
        self._records_at = 0.0
        self._writer = Writer(settings, self.name)
        self._keep = protected_tags(settings)
        self._wake = threading.Event()
        self._waiting: deque[str] = deque()
        self._under_way: set[str] = set()
        self._turns = Turns()
        #: What is to be stored once more. It stays under way: younger ones that wait for it must not take its place among these.
        self._once_more: deque[str] = deque()
        self._strange: set[str] = set()
        #: Objects on which publishing itself fails, again and again: nobody is to wait for them.
        self._failing: set[str] = set()
        #: How many files of the spool are damaged, or are no spool files.
        self._odd = 0
        self._untold = Stored(store, settings.s3.bucket)
        self._unsent: deque[tuple[str, Record]] = deque()
        self._sent: dict[str, float] = {}
        self._acknowledged: deque[str] = deque()
        self._fatal: HilumError | None = None
        self._hold_until = self._settle_at = 0.0
        #: What is wrong with the store, its disk, the spool or Kafka; empty if all is well.
        self._troubles: dict[str, str] = {"start": "starting"}
        self._looked_at = 0.0
        self._seen_change = -1
        self._looks = Seldom()

    def run(self, stop: threading.Event) -> None:
        """Publish until `stop`. Raises `Misconfigured` if the store or Kafka refuses, `Stopped` if the producer cannot go on."""
        with self._following or nullcontext(), self._until_it_is_alone(stop) as alone:
            if not alone:
                return
            with self._backlog.told(lambda: self._strange | self._failing) if self._backlog else nullcontext():
                if (kafka := self._until_it_answers(stop)) is not None:
                    self._publish(kafka, stop)

    @contextmanager
    def _until_it_is_alone(self, stop: threading.Event) -> Iterator[bool]:
        """A spool file that is published is written again: no second publisher may still be reading it. False if `stop` came first."""
        while not stop.is_set():
            with self._spool.sole_publisher() as alone:
                if alone:
                    yield True
                    return
            self._say("start", "Another process publishes from this spool; this one waits to take over.")
            stop.wait(RETRY_S)
        yield False

    def _publish(self, kafka: Log, stop: threading.Event) -> None:
        with ThreadPoolExecutor(UPLOADS, thread_name_prefix="upload") as pool:
            while not stop.is_set():
                if self._following:
                    with suppress(TryAgain):  # until it is known: what a header then lacks, whoever needs it reads in the object
                        self._following.take(self._configure)
                busy = self._step(pool, kafka)
                if self._fatal is not None:
                    pool.shutdown(cancel_futures=True)
                    raise self._fatal
                if not busy:
                    self._wake.wait(LOOK_S)
                    self._wake.clear()
            pool.shutdown(cancel_futures=True)
        self._settle(kafka)
        kafka.flush(2.0)
        self._settle(kafka)

    def _configure(self, settings: Settings) -> None:
        """Keep in headers, from now on, what the rules of `settings` name."""
        self._keep = protected_tags(settings)
        self._writer = Writer(settings, self.name)

    def health(self) -> Health:
        """What waits, and for whom."""
        trouble = " ".join(list(self._troubles.values()))
        now = time.monotonic()
        if not trouble and now - min(list(self._sent.values()), default=now) > SILENCE_S:
            trouble = "Kafka does not acknowledge; what is received waits in the spool."
        says = "publishing"
        if self._odd:
            says = f"{counted(self._odd, 'file')} in {self._spool.folder} cannot be published; see docs/operations/running.md."
        return Health(ready=not trouble, says=trouble or says, lag=self._lag())

    def _lag(self) -> int:
        return len(self._waiting) + len(self._under_way)

    def _until_it_answers(self, stop: threading.Event) -> Log | None:
        """The producer, once store and Kafka are as they must be; None if `stop` came first."""
        kafka: Log | None = None
        while not stop.is_set():
            try:
                self._store.check(self._settings.s3.bucket)
                kafka = kafka or self._connect()
                self._troubles.clear()
                return kafka
            except TryAgain as error:
                self._say("start", str(error))
                stop.wait(error.after_s)
        return None

    def _step(self, pool: ThreadPoolExecutor, kafka: Log) -> bool:
        """One round; whether something was done."""
        done = self._settle(kafka)
        now = time.monotonic()
        if now < self._hold_until:
            return done
        if now >= self._records_at:
            self._records_at = now + RECORDS_S
            self._tell_records(kafka)
            self._odd = len(self._strange) + len(self._spool.damaged())
            telemetry.SPOOL_DAMAGED.set(self._odd)
        if not self._waiting and self._looks.is_due():
            self._look(now)
        begun = sorted(drained(self._once_more))
        while self._waiting and len(self._under_way) < MAX_UNDER_WAY:
            receipt = self._waiting.popleft()
            self._under_way.add(receipt)
            begun.append(receipt)
        for receipt in begun:
            self._turns.expect(receipt)
            pool.submit(self._upload, receipt)
        return done or bool(begun)

    def _look(self, now: float) -> None:
        """List the spool, if it may have changed. A file may come within the tick of the clock in which it was listed last."""
        change = self._spool.folder.stat().st_mtime_ns
        if change == self._seen_change and now - self._looked_at < 1.0:
            return
        self._seen_change = change if time.time_ns() - change > 50_000_000 else -1
        self._looked_at = now
        known = self._under_way | self._strange
        with self._looks.one():  # each upload that ends wakes us, and the folder has hundreds of files to be written again
            self._waiting.extend(receipt for receipt in self._spool.waiting() if receipt not in known)
        telemetry.SPOOL_OBJECTS.set(self._lag())
        telemetry.SPOOL_FREE_BYTES.set(self._spool.free_bytes())

    def _upload(self, receipt: str) -> None:
        """Describe and store one object; runs in a pool."""
        path = self._spool.path(receipt)
        once_more = False
        self._turns.begin(receipt)
        try:
            if not self._spool.check(receipt):
                self._give_up(receipt)
                return
            described = describe(path, receipt, self._settings.s3.bucket, self._keep)
            instance = described.event.instance
            self._turns.is_read(receipt, instance.sop_instance_uid or instance.announced_sop_instance_uid)
            store_object(self._store, path, described)
            self._untold.note(receipt, instance.object.key)
            self._turns.is_stored(receipt, self._record(described.event, receipt))
            self._failing.discard(receipt)
            self._troubles.pop("store", None)
            self._troubles.pop("spool", None)
        except FileNotFoundError:
            self._give_up(receipt)  # it was given back
        except Misconfigured as error:
            self._fatal = error
        except TryAgain as error:
            self._say("store", str(error))
            self._hold_until = time.monotonic() + error.after_s
            once_more = True
        except ValueError as error:
            log.error("spool_file_strange", receipt=receipt if _is_receipt(receipt) else "", error=error)
            self._strange.add(receipt)
            self._give_up(receipt)
        except OSError as error:
            self._say("spool", f"A spool file cannot be read: {error.strerror}.")
            self._hold_until = time.monotonic() + RETRY_S
            self._give_up(receipt)
        except Exception as error:  # a fault of ours on one object must not stop the others, nor lose it
            log.error("publish_failed", receipt=receipt, error=telemetry.described(error))
            self._failing.add(receipt)
            self._hold_until = time.monotonic() + RETRY_S
            self._give_up(receipt)
        finally:
            is_last = self._turns.end(receipt)
        if once_more:
            self._once_more.append(receipt)
        if is_last:  # else what is stored waits for others anyway, and this thread's turn is theirs
            self._wake.set()

    def _give_up(self, receipt: str) -> None:
        """It cannot be read now, or at all: others of its instance do not wait for it."""
        self._turns.leave([receipt])
        self._under_way.discard(receipt)

    def _record(self, event: InstanceReceived, receipt: str) -> Record:
        trace = UUID(receipt).hex  # of the receipt, so that what is said again is in the same trace
        return self._writer.record(event, receipt, trace=f"00-{trace}-{trace[16:]}-01".encode(), time=timestamp(event.instance.received_at))

    def _settle(self, kafka: Log) -> bool:
        """Sync and tell what is stored, remove what is acknowledged; whether something was done."""
        stored = self._turns.next() if time.monotonic() >= self._settle_at else []
        if stored and self._synced() and (kept := self._kept(stored)) is not None:
            self._unsent.extend(self._turns.in_turn(kept))
        else:
            self._turns.put_back(stored)
        while self._unsent:
            receipt, record = self._unsent[0]
            if not self._untold.is_fresh(receipt):  # Kafka was away for long
                self._again({receipt})
            elif not self._produce(kafka, receipt, record):
                break
            self._unsent.popleft()
        kafka.poll(0)
        acknowledged = drained(self._acknowledged)
        if acknowledged:
            self._spool.remove(acknowledged)
            self._untold.forget(acknowledged)
            self._turns.leave(acknowledged)
            self._under_way.difference_update(acknowledged)
            telemetry.OBJECTS_PUBLISHED.inc(len(acknowledged))
            telemetry.EVENTS_PRODUCED.labels(stage=self.name).inc(len(acknowledged))
        return bool(stored or acknowledged)

    def _tell_records(self, kafka: Log) -> None:
        """Say which associations ended; a record goes once Kafka has it."""
        for name in self._records.waiting()[:MOST_RECORDS]:
            event = self._records.read(name) if name not in self._records_sent else None
            if event is None:
                continue

            def delivered(error: KafkaError | None, _: Any, name: str = name) -> None:
                self._records_sent.discard(name)
                if error is None:
                    self._records.remove([name])

            record = self._writer.record(event, event.association, time=timestamp(event.ended_at))
            try:
                kafka.produce(record.topic, record.value, record.key, headers=record.headers, on_delivery=delivered)
            except (BufferError, KafkaException):
                return  # objects come first; it is tried again
            self._records_sent.add(name)

    def _kept(self, stored: list[tuple[str, Record]]) -> list[tuple[str, Record]] | None:
        """Those that may be told; the others are stored once more. None: not known now."""
        try:
            kept = self._untold.kept(receipt for receipt, _ in stored)
        except (TryAgain, Misconfigured) as error:
            self._say("store", str(error))
            self._hold_until = self._settle_at = time.monotonic() + RETRY_S
            return None
        self._troubles.pop("store", None)
        self._again({receipt for receipt, _ in stored} - kept)
        return [each for each in stored if each[0] in kept]

    def _again(self, receipts: set[str]) -> None:
        """Store these once more, a little later."""
        if receipts:
            self._untold.forget(receipts)
            self._once_more.extend(receipts)
            self._hold_until = time.monotonic() + RETRY_S

    def _synced(self) -> bool:
        if self._sync is None:
            return True
        try:
            self._sync()
        except OSError as error:
            self._say("disk", f"The object store's disk cannot be synced: {error.strerror}.")
            self._hold_until = time.monotonic() + RETRY_S
            return False
        self._troubles.pop("disk", None)
        return True

    def _produce(self, kafka: Log, receipt: str, record: Record) -> bool:
        def delivered(error: KafkaError | None, _: Any) -> None:
            self._sent.pop(receipt, None)
            if error is None:
                self._acknowledged.append(receipt)
                self._troubles.pop("kafka", None)
                return
            if error.fatal():
                self._fatal = Stopped(f"The Kafka producer cannot go on ({error.name()}).")
            self._say("kafka", str(away(KafkaException(error))))
            self._unsent.append((receipt, record))

        try:
            kafka.produce(record.topic, record.value, record.key, headers=record.headers, on_delivery=delivered)
        except BufferError:
            return False  # its buffer is full: what is in it goes first
        except KafkaException as error:
            if error.args[0].fatal():
                self._fatal = Stopped(f"The Kafka producer cannot go on ({error.args[0].name()}).")
            self._say("kafka", str(away(error)))
            self._hold_until = time.monotonic() + RETRY_S
            return False
        self._sent[receipt] = time.monotonic()
        return True

    def _say(self, where: str, trouble: str) -> None:
        if trouble != self._troubles.get(where):
            log.warning("publish_waits", says=trouble)
        self._troubles[where] = trouble


def _is_receipt(name: str) -> bool:
    with suppress(ValueError):
        return str(UUID(name)) == name
    return False


def role(settings: Settings) -> Role:
    """The role `publish`."""

    def connect() -> Log:
        kafka = producer(settings)
        partition_counts(kafka, [topic_of(settings, InstanceReceived), topic_of(settings, AssociationEnded)])
        return cast("Log", kafka)

    path = Path(settings.s3.synced) if settings.s3.synced else None
    sync = (lambda: sync_file_system(path)) if path else None
    following = Following(settings, Publisher.name)
    spool = Spool.of(settings)
    return Publisher(settings, spool, open_store(settings), connect, sync, Records.of(settings), following, Backlog(settings, spool))
