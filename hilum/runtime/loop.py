"""The loop that runs a processor on Kafka: what it says, what it remembers and how far it read, in one transaction.

`ProcessorRole` is the role; a `Session` is one life of its clients, from joining the group to leaving it.
"""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from hilum import bus, telemetry
from hilum.errors import Misconfigured, Stopped, TryAgain
from hilum.events import Event, InstanceQuarantined
from hilum.role import Health
from hilum.runtime.processor import Processor
from hilum.runtime.restore import Restore
from hilum.runtime.stage import Incoming, Stage
from hilum.runtime.state import Changes, Codec, PartitionState, milliseconds
from hilum.runtime.transaction import ANSWER_S, BeginAnew, Transactions, taken
from hilum.runtime.work import Pool
from hilum.settings import Settings

#: What one transaction takes in at most; `BATCH_S` is how long handling it shall take.
BATCH_EVENTS = 5000
BATCH_BYTES = 16 * 2**20
BATCH_S = 0.5

#: Handling is cut short and committed after this time, well before the broker loses patience.
LONGEST_S = 1.5

TIMERS = 500  # that fire in one transaction
POLL_S = 0.1
REPORT_S = 1.0

log = telemetry.logger("runtime")

T = TypeVar("T")


class ProcessorRole:
    """A processor as a role: `ProcessorRole(settings, validate).run(stop)`.

    `slot` names this process among those that run the same role (`HILUM_SLOT` in the environment; none: a random name). A process
    that is started again with its slot goes on at once where the former one was, and ends that one if it still lives.
    """

    def __init__(
        self, settings: Settings, processor: Processor, *, slot: str | None = None, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._settings = settings
        self._stage = Stage(settings, processor, now)
        self._slot = os.environ.get("HILUM_SLOT", "") if slot is None else slot
        self._now = now
        self._health = Health(ready=False, says="not started")

    @property
    def name(self) -> str:
        """The processor's name."""
        return self._stage.name

    def health(self) -> Health:
        """As of the loop's last turn."""
        return self._health

    def run(self, stop: threading.Event) -> None:
        """Process events until `stop` is set. Outages are waited out.

        Raises `Stopped` (its slot is taken by another process, its input was deleted before it was read, nearly every event
        fails) and `Misconfigured` (topics are missing or do not fit together).
        """
        while not stop.is_set():
            try:
                with Session(self._settings, self._stage, self._slot, self._now, self._say, stop) as session:
                    session.run()
            except BeginAnew as why:
                telemetry.RESTARTS.labels(self.name).inc()
                log.warning("stage_begins_anew", stage=self.name, says=str(why))
                self._say(Health(ready=False, says=str(why)))
                stop.wait(0.5)
            except TryAgain as outage:
                telemetry.RETRIES.labels(self.name).inc()
                self._say(Health(ready=False, says=str(outage)))
                stop.wait(outage.after_s)
        self._say(Health(ready=False, says="stopped"))

    def _say(self, health: Health) -> None:
        if health.says != self._health.says and not health.ready:
            log.info("stage_waits", stage=self.name, says=health.says)
        self._health = health


class Position:
    """How far one input partition is."""

    __slots__ = ("committed", "fetched", "seen_at", "written")

    def __init__(self, offset: int, written: int) -> None:
        self.committed = offset
        #: The next offset to take in; what is taken in and not committed is pending.
        self.fetched = offset
        #: Events that already follow from the one at `committed`, if it says more than one transaction holds.
        self.written = written
        #: Timestamp of the last event that was dealt with, in seconds since 1970.
        self.seen_at = 0.0


class Session:
    """One member of the consumer group with its transactional producer. Used by one thread; a context that leaves the group."""

    def __init__(
        self,
        settings: Settings,
        stage: Stage,
        slot: str,
        now: Callable[[], datetime],
        say: Callable[[Health], None],
        stop: threading.Event,
    ) -> None:
        self._settings = settings
        self._stage = stage
        self._now = now
        self._say = say
        self._stop = stop
        self._topics = sorted(stage.kinds)
        wiring = stage.wiring
        self._codec = Codec(wiring.state) if wiring.state else None
        self._changelog = settings.kafka.prefix + bus.state_topic(stage.name).name
        self._pool = Pool(stage.name, wiring.work) if wiring.work else None

        identity = f"hilum.{settings.site.name}.{stage.name}"
        self._identity = f"{identity}.{slot or uuid.uuid4().hex[:12]}"
        self._group = f"hilum.{stage.name}"
        member = {"group.instance.id": settings.kafka.prefix + self._identity} if slot else {}
        self._admin = bus.admin(settings)
        self._consumer = bus.consumer(settings, self._group, **member)
        self._transactions = Transactions(settings, self._identity, stop, self._waits)

        #: Assigned and not yet begun: their offsets and state are still to be read.
        self._new: set[tuple[str, int]] = set()
        self._positions: dict[tuple[str, int], Position] = {}
        self._states: dict[int, PartitionState] = {}
        #: State of partitions that a rebalance took; it often gives them back.
        self._kept: dict[int, PartitionState] = {}
        self._pending: list[Incoming] = []
        self._held = False
        self._seconds_per_event = 0.001
        self._bytes_per_event = 1000.0
        self._limit = 100
        self._next_report = 0.0

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool:
            self._pool.close()
        self._consumer.close()
        self._transactions.close()
        del self._admin

    def run(self) -> None:
        """Join the group and process until `stop` is set."""
        self._check_topics()
        self._transactions.init()
        self._consumer.subscribe(self._topics, on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._lost)
        self._say(Health(ready=False, says="joining its group"))
        while not self._stop.is_set():
            try:
                self._poll(0 if self._pending else POLL_S)
                self._begin_new_partitions()
                self._report()
                self._process()
            except (TryAgain, KafkaException) as error:
                outage = error if isinstance(error, TryAgain) else bus.away(error)
                telemetry.RETRIES.labels(self._stage.name).inc()
                self._waits(outage)
                self._serve_until(time.monotonic() + outage.after_s)

    # Membership: what may happen while `_poll` serves the group

    def _assigned(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Take note; offsets and state are read outside of the rebalance, and nothing is fetched until then."""
        self._new.update((partition.topic, partition.partition) for partition in partitions)
        assigned = {partition.partition for partition in partitions}
        self._kept = {partition: state for partition, state in self._kept.items() if partition in assigned}
        consumer.assign([TopicPartition(topic, partition, position.fetched) for (topic, partition), position in self._positions.items()])
        self._held = False

    def _revoked(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        """Let go of these partitions, and of no others. Nothing is open: transactions begin and end between polls."""
        gone = {(partition.topic, partition.partition) for partition in partitions}
        self._new -= gone
        for incoming in self._pending:
            incoming.dropped = (incoming.topic, incoming.partition) in gone
        self._pending = [incoming for incoming in self._pending if not incoming.dropped]
        for topic, partition in gone:
            self._positions.pop((topic, partition), None)
            if partition in self._states:
                self._kept[partition] = self._states.pop(partition)

    def _lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Others may have had these partitions meanwhile."""
        self._revoked(consumer, partitions)
        self._kept.clear()

    def _begin_new_partitions(self) -> None:
        """Read where to go on and what was remembered, then fetch. Returns when done, or as soon as a rebalance changed it all."""
        if not self._new:
            return
        began = time.monotonic()
        # A partition of joined topics is begun once all of them are here: its state has one owner.
        whole = {p for _, p in self._new if all((topic, p) in self._new or (topic, p) in self._positions for topic in self._topics)}
        new = {(topic, partition) for topic, partition in self._new if partition in whole}
        if not new:
            self._say(Health(ready=True, says="has no partition: there are more workers than partitions"))
            return
        positions = self._read_positions(new)
        states: dict[int, PartitionState] = {}
        if self._codec:
            states = {p: self._kept.pop(p) if p in self._kept else PartitionState(p) for p in whole}
            if not self._restored(states, new):
                return
        self._kept.clear()
        self._states |= states
        self._positions |= positions
        self._new -= new
        self._consumer.assign([TopicPartition(topic, p, position.fetched) for (topic, p), position in self._positions.items()])
        self._held = False
        telemetry.RESTORE_SECONDS.labels(self._stage.name).observe(time.monotonic() - began)
        log.info("partitions_begun", stage=self._stage.name, partitions=sorted(whole), rows=sum(len(s.rows) for s in states.values()))
        self._next_report = 0.0

    def _read_positions(self, new: set[tuple[str, int]]) -> dict[tuple[str, int], Position]:
        """Where to go on: as committed; at the earliest event if nothing was. Raises `Stopped` if what comes next is no longer there."""
        asked = [TopicPartition(topic, partition) for topic, partition in sorted(new)]
        committed = self._kafka(lambda: self._consumer.committed(asked, timeout=ANSWER_S))
        first = self._kafka(lambda: bus.offsets(self._admin, asked, bus.EARLIEST))
        end = self._kafka(lambda: bus.offsets(self._admin, asked, bus.LATEST))
        positions = {}
        for found in committed:
            of = (found.topic, found.partition)
            if found.error is not None:
                raise bus.away(KafkaException(found.error))
            if found.offset < 0:
                positions[of] = Position(first[of], 0)
            elif found.offset < first[of]:
                raise _overrun(found.topic, found.partition, self._settings.kafka.prefix + self._group, first[of] - found.offset)
            elif found.offset > end[of]:
                raise Stopped(
                    f"{self._stage.name} has read {found.topic}/{found.partition} up to {found.offset}, but it ends at {end[of]}.",
                    fix="If Kafka's data was set up anew, delete the consumer group and let the stage begin at the start.",
                )
            else:
                positions[of] = Position(found.offset, _written(found.metadata))
        return positions

    def _restored(self, states: dict[int, PartitionState], new: set[tuple[str, int]]) -> bool:
        """Bring `states` up to what is committed. False if the partitions were taken away meanwhile."""
        self._say(Health(ready=False, says=f"restoring what it remembers of {len(states)} partitions"))
        restore = Restore(self._settings, self._admin, self._changelog, states.values())
        try:
            while restore.left and new <= self._new and not self._stop.is_set():
                self._kafka(restore.step)
                self._poll(0)
        finally:
            restore.close()
        return new <= self._new and not self._stop.is_set()

    def _check_topics(self) -> None:
        """Raises `Misconfigured` if a topic is missing, or if joined ones differ in their number of partitions."""
        outputs: tuple[type[Event], ...] = (*self._stage.wiring.outputs, InstanceQuarantined)
        said = [bus.topic_of(self._settings, kind) for kind in outputs]
        joined = [*self._topics, *([self._changelog] if self._codec else [])]
        counts = bus.partition_counts(self._admin, [*joined, *said])
        if len({counts[topic] for topic in joined}) > 1:
            differ = ", ".join(f"{topic} {counts[topic]}" for topic in joined)
            raise Misconfigured(
                "partitions-differ",
                f"The topics that {self._stage.name} joins differ in their partitions: {differ}.",
                fix="Give the smaller ones as many as the largest has, with `hilum provision`.",
            )

    # Taking in

    def _poll(self, timeout_s: float) -> None:
        """Serve the group and take in what has come, at most a batch; the rest is held back until that is dealt with."""
        full = len(self._pending) >= self._limit
        if full != self._held:
            (self._consumer.pause if full else self._consumer.resume)([TopicPartition(*of) for of in self._positions])
            self._held = full
        # Waiting for the first and then taking what is there is quicker than waiting for many: `consume` waits its time out.
        first = self._consumer.poll(timeout_s)
        if first is None:
            return
        self._take(first)
        for message in () if full else self._consumer.consume(max(1, self._limit - len(self._pending)), 0):
            self._take(message)

    def _take(self, message: Message) -> None:
        error = message.error()
        if error is not None:
            self._stumbled(error, message)
            return
        position = self._positions.get((message.topic() or "", message.partition() or 0))
        if position is None or (message.offset() or 0) < position.fetched:
            return  # of a partition that was taken away, or already here
        incoming = Incoming(message)
        if incoming.offset == position.committed:
            incoming.written = position.written
        position.fetched = incoming.offset + 1
        self._pending.append(incoming)

    def _stumbled(self, error: KafkaError, message: Message) -> None:
        """What the consumer tells of besides messages."""
        if error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
            raise _overrun(message.topic() or "", message.partition() or 0, self._settings.kafka.prefix + self._group, None)
        if error.code() == KafkaError.FENCED_INSTANCE_ID:
            raise taken(self._identity)
        if error.fatal():
            raise BeginAnew(f"The consumer cannot go on ({error.name()}).")
        log.warning("consumer_stumbled", stage=self._stage.name, reason=error.name())

    def _serve_until(self, deadline: float) -> None:
        """Keep the place in the group while nothing can be processed."""
        while not self._stop.is_set() and (left := deadline - time.monotonic()) > 0:
            self._poll(min(left, POLL_S))
            if self._pending and not self._held:
                self._limit = min(self._limit, len(self._pending))  # hold the rest back

    # Processing

    def _process(self) -> None:
        """Deal with one batch and the timers that are due, if there are any. Raises `TryAgain`; all is as before then."""
        batch = self._next_batch()
        if not batch and not self._timer_is_due():
            return
        began = time.monotonic()
        if self._pool and batch:
            batch = self._worked_on(self._pool, batch)
        try:
            self._prepare(batch)
            done = batch[: self._transact(batch)]
        except KafkaException as error:
            self._slow_down()
            raise bus.away(error) from None
        except TryAgain:
            self._slow_down()
            raise
        self._measure(done, time.monotonic() - began)

    def _next_batch(self) -> list[Incoming]:
        size = 0
        for count, incoming in enumerate(self._pending[: self._limit]):
            size += incoming.size
            if size > BATCH_BYTES and count:
                return self._pending[:count]
        return self._pending[: self._limit]

    def _worked_on(self, pool: Pool, batch: list[Incoming]) -> list[Incoming]:
        """The batch once its slow work is done, without what was taken away meanwhile."""
        futures = pool.start(batch)
        while not all(future.done() for future in futures):
            self._poll(0.02)
            if self._stop.is_set():
                for future in futures:
                    future.cancel()
                return []
        for future in futures:
            future.result()
        return [incoming for incoming in batch if not incoming.dropped]

    def _prepare(self, batch: Sequence[Incoming]) -> None:
        """Let the processor look things up for the batch; if it fails on the whole, for each event by itself, to find which it is."""
        try:
            self._stage.prepare(batch)
        except (TryAgain, Stopped, Misconfigured):
            raise
        except Exception as error:
            if len(batch) > 1:
                self._limit = 1
                raise TryAgain(f"A look-up failed ({telemetry.described(error)}); each event is tried by itself.", after_s=0) from None
            batch[0].problem = error

    def _transact(self, batch: Sequence[Incoming]) -> int:
        """Handle the batch, or as much of it as fits into the time, in one transaction. Returns how many events are done."""
        changes = {partition: Changes(state, self._codec) for partition, state in self._states.items()} if self._codec else {}
        done: list[Incoming] = []
        count = 0
        try:
            self._transactions.begin()
            for incoming in batch:
                chunks = self._stage.conclude(incoming, changes.get(incoming.partition))
                said = self._transactions.say(next(chunks))
                for chunk in chunks:  # more than one transaction shall hold
                    self._commit(done, changes, partly=(incoming, incoming.written + said))
                    done = []
                    self._transactions.begin()
                    said = self._transactions.say(chunk)
                incoming.event = None  # its decoded header is many small objects; the batch shall not hold them all
                done.append(incoming)
                count += 1
                if self._transactions.age_s > LONGEST_S:
                    break
            self._commit(done, changes, timers_of=self._fire_timers(changes))
        except BaseException:
            self._stage.aborted()
            self._transactions.abort()
            raise
        return count

    def _timer_is_due(self) -> bool:
        now = milliseconds(self._now())
        return any((due := state.next_due()) is not None and due <= now for state in self._states.values())

    def _fire_timers(self, changes: dict[int, Changes]) -> set[int]:
        """Call the processor for what is due. Returns the partitions in which something was."""
        fired: set[int] = set()
        now = milliseconds(self._now())
        for partition, state in self._states.items():
            memory = changes[partition]
            for due, key in state.due(now, TIMERS):
                if self._transactions.age_s > LONGEST_S:
                    return fired
                if memory.due_of(key) == due:  # no event of this batch has moved it
                    self._transactions.say(self._stage.due(key, due, memory))
                    fired.add(partition)
        return fired

    def _commit(
        self,
        done: list[Incoming],
        changes: dict[int, Changes],
        *,
        partly: tuple[Incoming, int] | None = None,
        timers_of: Iterable[int] = (),
    ) -> None:
        """Commit what was said with the changes of state and the offsets of `done`; of the event `partly`, how much was said so far.

        Offsets go along with timers too: a worker that has lost its partition cannot commit them, and so nothing.
        """
        ends = {}
        for of in ((topic, partition) for partition in timers_of for topic in self._topics):
            ends[of] = (self._positions[of].committed, self._positions[of].written)
        ends |= {(incoming.topic, incoming.partition): (incoming.offset + 1, 0) for incoming in done}
        if partly:
            ends[partly[0].topic, partly[0].partition] = (partly[0].offset, partly[1])
        for partition, changed in changes.items():
            self._write_changes(partition, changed)
        offsets = [TopicPartition(topic, p, offset, _metadata(written)) for (topic, p), (offset, written) in ends.items()]
        self._transactions.commit(offsets, self._consumer.consumer_group_metadata())

        for of, (offset, written) in ends.items():
            self._positions[of].committed, self._positions[of].written = offset, written
        for changed in changes.values():
            changed.commit()
        self._stage.committed()
        for incoming in done:
            self._positions[incoming.topic, incoming.partition].seen_at = incoming.message.timestamp()[1] / 1000
        del self._pending[: len(done)]  # a batch is the beginning of what is pending
        if partly:
            partly[0].written = partly[1]
        telemetry.EVENTS_CONSUMED.labels(self._stage.name).inc(len(done))
        telemetry.EVENTS_PRODUCED.labels(self._stage.name).inc(self._transactions.said)
        telemetry.TRANSACTION_SECONDS.labels(self._stage.name).observe(self._transactions.age_s)

    def _write_changes(self, partition: int, changes: Changes) -> None:
        """The changelog gets what changed; the state learns how far the changelog is then."""
        state = self._states[partition]

        def arrived(offset: int) -> None:
            state.position = offset + 1

        items = list(changes.items())
        for number, (key, value) in enumerate(items, 1):
            self._transactions.write(self._changelog, partition, key.encode(), value, arrived if number == len(items) else None)

    def _kafka(self, call: Callable[[], T]) -> T:
        """What `call` gives. Raises `TryAgain` for a Kafka that does not answer."""
        try:
            return call()
        except KafkaException as error:
            raise bus.away(error) from None

    # Keeping the measure, and telling

    def _measure(self, batch: Sequence[Incoming], seconds: float) -> None:
        """Adapt the size of batches to what this one took."""
        telemetry.BATCH_SECONDS.labels(self._stage.name).observe(seconds)
        if batch:
            size = sum(incoming.size for incoming in batch)
            self._seconds_per_event += 0.2 * (seconds / len(batch) - self._seconds_per_event)
            self._bytes_per_event += 0.2 * (size / len(batch) - self._bytes_per_event)
            fits = min(BATCH_EVENTS, int(BATCH_S / self._seconds_per_event), int(BATCH_BYTES / self._bytes_per_event))
            self._limit = max(1, min(fits, 2 * self._limit))

    def _slow_down(self) -> None:
        """Try less at once, in case the batch was what could not be done."""
        self._limit = max(1, min(self._limit, len(self._pending)) // 2)

    def _report(self) -> None:
        """Once a second: metrics and health."""
        if time.monotonic() < self._next_report or self._new:
            return
        self._next_report = time.monotonic() + REPORT_S
        lag = self._lag()
        ages = [time.time() - position.seen_at for position in self._positions.values() if position.seen_at and lag]
        telemetry.LAG_EVENTS.labels(self._stage.name).set(lag or 0)
        telemetry.LAG_SECONDS.labels(self._stage.name).set(max(ages, default=0))
        telemetry.ROWS.labels(self._stage.name).set(sum(len(state.rows) for state in self._states.values()))
        if self._positions:
            self._say(Health(ready=True, says=f"processing {len(self._positions)} partitions", lag=lag))

    def _waits(self, outage: TryAgain) -> None:
        self._say(Health(ready=False, says=str(outage), lag=self._lag()))

    def _lag(self) -> int | None:
        """Events that wait on the partitions at hand, None if that is not known yet."""
        lag = 0
        for (topic, partition), position in self._positions.items():
            end = self._consumer.get_watermark_offsets(TopicPartition(topic, partition), cached=True)[1]
            if end < 0:
                return None
            lag += max(0, end - position.committed)
        return lag


def _metadata(written: int) -> str:
    """What is committed beside an offset: how many events already follow from the one there."""
    return f"written={written}" if written else ""


def _written(metadata: str | None) -> int:
    name, _, value = (metadata or "").partition("=")
    return int(value) if name == "written" and value.isdigit() else 0


def _overrun(topic: str, partition: int, group: str, lost: int | None) -> Stopped:
    how_many = f"{lost} events" if lost else "Events"
    return Stopped(
        f"{how_many} of {topic}/{partition} were deleted before group {group} had read them.",
        fix="Lengthen the topic's retention; then emit them again from the index, and set the group's offset to the earliest event.",
    )
