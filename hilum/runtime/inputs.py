"""The input side of a stage: its place in the consumer group, how far it has read, what it remembers, and what waits to be done."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from hilum import bus, telemetry
from hilum.errors import Misconfigured, Stopped, TryAgain
from hilum.runtime.pace import MOST_BYTES
from hilum.runtime.restore import Restore
from hilum.runtime.stage import Incoming, Stage
from hilum.runtime.state import PartitionState
from hilum.runtime.transaction import ANSWER_S, BeginAnew, taken
from hilum.settings import Settings

log = telemetry.logger("runtime")

#: So long after its session has lapsed a static member may be ended by a request of its own that reached the broker late.
_LATE_S = 60.0
#: How long a broker may need for a client's first answer.
SLOW_S = 10.0

#: A topic and one of its partitions.
Of = tuple[str, int]


class Position:
    """How far one input partition is."""

    __slots__ = ("committed", "end", "fetched", "seen_at", "written")

    def __init__(self, offset: int, written: int) -> None:
        self.committed = offset
        #: The next offset to take in; what is taken in and not committed is pending.
        self.fetched = offset
        #: Where the partition ended when it was read to its end: beyond the last event, since what ends a transaction has an offset too.
        self.end = offset
        #: Events that already follow from the one at `committed`, if it says more than one transaction holds.
        self.written = written
        #: Timestamp of the last event that was dealt with, in seconds since 1970.
        self.seen_at = 0.0


class Inputs:
    """One member of a stage's consumer group: `check` the topics, `join`, then `poll` and `begin_new` in turn.

    `pending` is what was taken in and not committed yet, in order; a batch is its beginning. A rebalance happens only inside
    `poll`. What belongs to partitions that are taken away then leaves `pending`, `positions` and `states`, and nothing else does.
    """

    def __init__(self, settings: Settings, stage: Stage, identity: str, *, static: bool) -> None:
        self._settings = settings
        self._stage = stage
        self._identity = identity
        self._static = static
        self._topics = sorted(stage.kinds)
        self._group = f"hilum.{stage.name}"
        self._changelog = settings.kafka.prefix + bus.state_topic(stage.name).name
        self._admin = bus.admin(settings)
        # A static member that is started again has its partitions back at once; nobody waits for its former self to time out.
        member = {"group.instance.id": settings.kafka.prefix + identity} if static else {}
        self._consumer = bus.consumer(settings, self._group, **member, **{"enable.partition.eof": True})

        self.pending: list[Incoming] = []
        self.positions: dict[Of, Position] = {}
        self.states: dict[int, PartitionState] = {}
        #: How many events are to be taken in before they are dealt with.
        self.limit = 1
        self.joined = False
        #: Assigned and not yet begun: their offsets and state are still to be read.
        self._new: set[Of] = set()
        #: State of partitions that a rebalance took; it often gives them back.
        self._kept: dict[int, PartitionState] = {}
        self._rebalances = 0
        self._held = False
        self._lost_at = float("-inf")

    def check(self, stopped: Callable[[], bool], waits: Callable[[TryAgain], None]) -> None:
        """Raises `Misconfigured` if a topic is missing, or if joined ones differ in their number of partitions; `TryAgain`.

        A slow broker is asked for 10 s, or until `stopped`, by the same client: the next try is another one, that begins anew. `waits` is
        called with the outage meanwhile.
        """
        joined = [*self._topics, *([self._changelog] if self._stage.wiring.state else [])]
        until = time.monotonic() + SLOW_S
        while True:
            try:
                counts = bus.partition_counts(self._admin, [*joined, *self._stage.says_on], timeout_s=ANSWER_S)
                break
            except TryAgain as outage:
                if stopped() or time.monotonic() > until:
                    raise
                waits(outage)
        if len({counts[topic] for topic in joined}) > 1:
            differ = ", ".join(f"{topic} {counts[topic]}" for topic in joined)
            raise Misconfigured(
                "partitions-differ",
                f"The topics that {self._stage.name} joins differ in their partitions: {differ}.",
                fix="Give the smaller ones as many as the largest has, with Kafka's tools, while the stage is stopped.",
            )

    def join(self) -> None:
        """Become a member of the group. Partitions come with later polls."""
        self._consumer.subscribe(self._topics, on_assign=self.assigned, on_revoke=self.revoked, on_lost=self.lost)

    def close(self) -> None:
        """Leave the group; a static member's place stays reserved for a while."""
        self._consumer.close()
        del self._admin

    def membership(self) -> Any:
        """What a transaction needs to know of this member: with an outdated one, it cannot be committed."""
        return self._consumer.consumer_group_metadata()

    # Taking in

    def poll(self, timeout_s: float) -> None:
        """Serve the group and take in what has come, up to `limit`; the rest is held back until that is dealt with.

        Raises `Stopped` if events were deleted unread or this member was replaced, `BeginAnew` if the consumer is at its end.
        """
        full = len(self.pending) >= self.limit
        if full != self._held:
            (self._consumer.pause if full else self._consumer.resume)([TopicPartition(*of) for of in self.positions])
            self._held = full
        # Waiting for the first and then taking what is there is quicker than waiting for many: `consume` waits its time out.
        first = self._consumer.poll(timeout_s)
        if first is None:
            return
        self._take(first)
        for message in () if full else self._consumer.consume(max(1, self.limit - len(self.pending)), 0):
            self._take(message)

    def serve_until(self, deadline: float, stopped: Callable[[], bool]) -> None:
        """Keep the place in the group while nothing can be processed, and take in nothing more."""
        self.limit = max(1, len(self.pending))
        while not stopped() and (left := deadline - time.monotonic()) > 0:
            self.poll(min(left, 0.1))

    def _take(self, message: Message) -> None:
        error = message.error()
        position = self.positions.get((message.topic() or "", message.partition() or 0))
        if error is not None and error.code() == KafkaError._PARTITION_EOF:
            if position is not None:
                position.end = message.offset() or 0
            return
        if error is not None:
            self._stumbled(error, message)
            return
        if position is None or (message.offset() or 0) < position.fetched:
            return  # of a partition that was taken away, or already here
        incoming = Incoming(message)
        if incoming.offset == position.committed:
            incoming.written = position.written
        position.fetched = incoming.offset + 1
        self.pending.append(incoming)

    def _stumbled(self, error: KafkaError, message: Message) -> None:
        """What the consumer tells of besides messages."""
        if error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
            raise self._overrun(message.topic() or "", message.partition() or 0, None)
        if error.fatal() or error.code() == KafkaError._FATAL:
            if self._static:  # what ends a consumer for good is a member of the same name
                if time.monotonic() - self._lost_at < _LATE_S:
                    raise BeginAnew("Kafka did not answer for a while; a late request of this member's own has taken its place.")
                raise taken(self._identity)
            raise BeginAnew(f"The consumer cannot go on ({error.name()}).")
        log.warning("consumer_stumbled", stage=self._stage.name, reason=error.name())

    def batch(self) -> list[Incoming]:
        """What is to be dealt with next: the beginning of `pending`, `limit` events and about `MOST_BYTES` at most."""
        size = 0
        for count, incoming in enumerate(self.pending[: self.limit]):
            size += incoming.size
            if size > MOST_BYTES and count:
                return self.pending[:count]
        return self.pending[: self.limit]

    def done(self, count: int, ends: Mapping[Of, tuple[int, int]]) -> None:
        """The first `count` events are committed; `ends` has for each partition its offset and how much of the event there is written."""
        for incoming in self.pending[:count]:
            self.positions[incoming.topic, incoming.partition].seen_at = incoming.message.timestamp()[1] / 1000
        del self.pending[:count]
        for of, (offset, written) in ends.items():
            self.positions[of].committed, self.positions[of].written = offset, written

    def behind(self, partition: int, handled: int) -> int | None:
        """When the last committed event of a partition was written, in milliseconds since 1970, if more of its events wait; else None.

        They wait in the log or in `pending`, of which the first `handled` are. 0: nothing of it was committed yet.
        """
        waiting = {(incoming.topic, incoming.partition) for incoming in self.pending[handled:]}
        times = []
        for of, position in self.positions.items():
            if of[1] == partition:
                end = self._consumer.get_watermark_offsets(TopicPartition(*of), cached=True)[1]
                if of in waiting or end < 0 or end > max(position.fetched, position.end):
                    times.append(int(position.seen_at * 1000))
        return min(times) if times else None

    def lag(self) -> int | None:
        """Events that wait on the partitions at hand, None if that is not known yet."""
        lag = 0
        for (topic, partition), position in self.positions.items():
            end = self._consumer.get_watermark_offsets(TopicPartition(topic, partition), cached=True)[1]
            if end < 0:
                return None
            all_done = position.committed == position.fetched
            lag += max(0, end - (max(position.committed, position.end) if all_done else position.committed))
        return lag

    # Membership

    def assigned(self, consumer: Consumer, partitions: Iterable[TopicPartition]) -> None:
        """Take note; offsets and state are read outside of the rebalance, and nothing is fetched until then."""
        self._rebalances += 1
        self.joined = True
        self._new |= {(partition.topic, partition.partition) for partition in partitions}
        self._kept = {partition: state for partition, state in self._kept.items() if any(partition == new for _, new in self._new)}
        self._fetch(consumer)

    def revoked(self, _: Consumer, partitions: Iterable[TopicPartition]) -> None:
        """Let go of these partitions, and of no others. Nothing is open: transactions begin and end between polls."""
        self._rebalances += 1
        gone = {(partition.topic, partition.partition) for partition in partitions}
        self._new -= gone
        for incoming in self.pending:
            incoming.dropped = (incoming.topic, incoming.partition) in gone
        self.pending = [incoming for incoming in self.pending if not incoming.dropped]
        for topic, partition in gone:
            self.positions.pop((topic, partition), None)
            if partition in self.states:
                self._kept[partition] = self.states.pop(partition)

    def lost(self, consumer: Consumer, partitions: Iterable[TopicPartition]) -> None:
        """Others may have had these partitions meanwhile."""
        self._lost_at = time.monotonic()
        self.revoked(consumer, partitions)
        self._kept.clear()

    def _fetch(self, consumer: Consumer) -> None:
        here = [TopicPartition(topic, partition, position.fetched) for (topic, partition), position in self.positions.items()]
        consumer.assign(here)
        consumer.resume(here)  # librdkafka remembers of a partition that it was paused, even while it is assigned to nobody here
        self._held = False

    # Beginning

    @property
    def waiting(self) -> bool:
        """Whether there are partitions still to be begun."""
        return bool(self._new)

    def begin_new(self, stopped: Callable[[], bool]) -> None:
        """Read where to go on with new partitions and what was remembered of them, then fetch.

        A partition of joined topics is begun once all of them are here, so that its state has one owner. Returns when done, or
        as soon as a rebalance changed it all. Raises `TryAgain`, `Stopped`.
        """
        began, rebalances = time.monotonic(), self._rebalances
        here = self._new | set(self.positions)
        whole = {p for _, p in self._new if all((topic, p) in here for topic in self._topics)}
        new = {of for of in self._new if of[1] in whole}
        if not new:
            return
        try:
            self._begin(new, whole, began, rebalances, stopped)
        except TryAgain:
            # The admin client keeps what it knows of leaders and their epochs, and a broker that comes back has a new epoch.
            self._admin = bus.admin(self._settings)
            raise

    def _begin(self, new: set[Of], whole: set[int], began: float, rebalances: int, stopped: Callable[[], bool]) -> None:
        positions = self._read_positions(new)
        states: dict[int, PartitionState] = {}
        if self._stage.wiring.state:
            states = {p: self._kept.pop(p) if p in self._kept else PartitionState(p) for p in whole}
            restore = Restore(self._settings, self._admin, self._changelog, states.values())
            try:
                while restore.left and rebalances == self._rebalances and not stopped():
                    restore.step()
                    self.poll(0)
            finally:
                restore.close()
            if rebalances != self._rebalances or stopped():
                return
        self.states |= states
        self.positions |= positions
        self._new -= new
        self._fetch(self._consumer)
        telemetry.RESTORE_SECONDS.labels(self._stage.name).observe(time.monotonic() - began)
        rows = sum(len(state.rows) for state in states.values())
        log.info("partitions_begun", stage=self._stage.name, partitions=sorted(whole), rows=rows)

    def _read_positions(self, new: Iterable[Of]) -> dict[Of, Position]:
        """Where to go on: as committed; at the earliest event if nothing was. Raises `Stopped` if what comes next is no longer there."""
        asked = [TopicPartition(*of) for of in sorted(new)]
        try:
            committed = self._consumer.committed(asked, timeout=ANSWER_S)
        except KafkaException as error:
            raise bus.away(error) from None
        first = bus.offsets(self._admin, asked, bus.EARLIEST)
        end = bus.offsets(self._admin, asked, bus.LATEST)
        positions = {}
        for found in committed:
            of = (found.topic, found.partition)
            if found.error is not None:
                raise bus.away(KafkaException(found.error))
            if found.offset < 0:
                positions[of] = Position(first[of], 0)
            elif found.offset < first[of]:
                raise self._overrun(*of, first[of] - found.offset)
            elif found.offset > end[of]:
                raise Stopped(
                    f"{self._stage.name} has read {found.topic}/{found.partition} up to {found.offset}, but it ends at {end[of]}.",
                    fix="If Kafka's data was set up anew, delete the consumer group and let the stage begin at the start.",
                )
            else:
                positions[of] = Position(found.offset, written_in(found.metadata))
        return positions

    def _overrun(self, topic: str, partition: int, lost: int | None) -> Stopped:
        how_many = f"{lost} events" if lost else "Events"
        return Stopped(
            f"{how_many} of {topic}/{partition} were deleted before group {self._settings.kafka.prefix}{self._group} had read them.",
            fix="Lengthen the topic's retention; then emit them again from the index, and set the group's offset to the earliest event.",
        )


def metadata_of(written: int) -> str:
    """What is committed beside an offset: how many events already follow from the one there."""
    return f"written={written}" if written else ""


def written_in(metadata: str | None) -> int:
    """The number in `metadata_of(number)`; 0 for anything else."""
    name, _, value = (metadata or "").partition("=")
    return int(value) if name == "written" and value.isdigit() else 0
