"""A consumer of Kafka whose positions stand in PostgreSQL (`consumer_offset`), written in the transaction of the rows."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import psycopg
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicCollection, TopicPartition
from msgspec import Struct

from hilum import bus
from hilum.database.rows import as_json
from hilum.errors import Misconfigured, Stopped
from hilum.settings import Settings

#: How long to wait for the first message of a batch; also how soon a stop is noticed.
IDLE_S = 0.5

_GONE = (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE, KafkaError._LOG_TRUNCATION)


class Overtaken(Exception):
    """Another worker of this group has written from the same position: this one no longer has the partition."""

    def __init__(self, topic: str, partition: int) -> None:
        super().__init__(f"{topic}/{partition}")
        self.topic = topic
        self.partition = partition


class Position(NamedTuple):
    """The next offset to read, and the leader epoch of the message before it (-1 if not known)."""

    offset: int
    leader_epoch: int


class _Move(Struct, frozen=True, kw_only=True):
    topic: str
    partition: int
    stored: int
    next_offset: int
    leader_epoch: int


_ADVANCE = """
UPDATE consumer_offset AS here SET next_offset = new.next_offset, leader_epoch = new.leader_epoch
FROM json_to_recordset(%s::json) AS new (topic text, partition int, stored bigint, next_offset bigint, leader_epoch int)
WHERE here.group_name = %s AND here.topic = new.topic AND here.partition = new.partition AND here.next_offset = new.stored
RETURNING here.topic, here.partition
"""


class Positions:
    """The partitions that the group gives this worker, read on from where the table says.

    Every message lost to this worker was not written, and is read by the next one. A log that does not fit the table raises
    `Stopped`: another topic of that name, one that ends before the position, or one that begins after it.
    """

    def __init__(self, settings: Settings, group: str, topics: Sequence[str], connection: psycopg.Connection) -> None:
        self._settings = settings
        self._group = group
        self._topics = topics
        self._connection = connection
        self._stored: dict[tuple[str, int], Position] = {}
        self._read: dict[tuple[str, int], Position] = {}
        self._assigned: list[TopicPartition] | None = None
        self._joined = False
        self._away = ""
        self._next_batch = 0.0

    def __enter__(self) -> Positions:
        self._topic_ids = topic_ids(self._settings, self._topics)
        self._consumer = bus.consumer(self._settings, self._group, **{"enable.partition.eof": True, "error_cb": self._failed})
        self._consumer.subscribe(list(self._topics), on_assign=self._on_assign, on_revoke=self._forget, on_lost=self._forget)
        return self

    def __exit__(self, *_: object) -> None:
        self._consumer.close()

    def next_batch(self, apart_s: float, size: int) -> list[Message]:
        """Up to `size` messages, `[]` if there is none for a while.

        The first after a silence comes at once, further ones together: no two calls return messages within `apart_s`.
        Raises `KafkaException` on an outage, `Stopped` if the log does not hold the position.
        """
        if self._assigned is not None:
            self._begin(self._assigned)
        first = self._consumer.poll(IDLE_S)
        if first is None:
            return []
        more = self._consumer.consume(size - 1, max(0.0, self._next_batch - time.monotonic()))
        self._next_batch = time.monotonic() + apart_s
        batch = []
        for message in (first, *more):
            at = (message.topic() or "", message.partition() or 0)
            offset = message.offset() or 0
            error = message.error()
            if error is not None and error.code() != KafkaError._PARTITION_EOF:
                raise self._unreadable(error, at)
            last = self._read.get(at) or self._stored.get(at)
            if last is None or offset < last.offset:  # of a partition that was taken away meanwhile, and perhaps given back
                continue
            if error is None:
                batch.append(message)
                epoch = message.leader_epoch()
                self._read[at] = Position(offset + 1, -1 if epoch is None else epoch)
            else:  # the end, which may lie beyond the last message: what ends a transaction has an offset too
                self._read[at] = Position(offset, last.leader_epoch)
        return batch

    @property
    def joined(self) -> bool:
        """Whether the group has given this worker its partitions (none, if there are more workers than partitions)."""
        return self._joined

    @property
    def count(self) -> int:
        """How many partitions this worker has."""
        return len(self._stored)

    @property
    def moved(self) -> bool:
        """Whether something was read that the table does not know of."""
        return any(self._stored[at] != position for at, position in self._read.items())

    def advance(self) -> None:
        """Write what was read into the table, in the open transaction; it also keeps others out until that ends.

        Raises `Overtaken` if the table no longer says what this worker wrote there last.
        """
        moves = [
            _Move(topic=topic, partition=partition, stored=self._stored[topic, partition].offset, next_offset=offset, leader_epoch=epoch)
            for (topic, partition), (offset, epoch) in self._read.items()
            if (offset, epoch) != self._stored[topic, partition]
        ]
        done = set(self._connection.execute(_ADVANCE, (as_json(moves), self._group)).fetchall())
        for move in moves:
            if (move.topic, move.partition) not in done:
                raise Overtaken(move.topic, move.partition)

    def advanced(self) -> None:
        """The transaction was committed."""
        self._stored.update(self._read)
        self._read.clear()

    def lag(self) -> int:
        """Messages that wait in this worker's partitions, as far as the broker has said."""
        waiting = 0
        for (topic, partition), position in self._stored.items():
            _, high = self._consumer.get_watermark_offsets(TopicPartition(topic, partition), cached=True) or (0, 0)
            waiting += max(0, high - position.offset)
        return waiting

    def away(self) -> str:
        """What the client says of the broker while it cannot reach it; empty once it answers again."""
        if self._away:
            try:
                self._consumer.list_topics(self._topics[0], timeout=0.5)
                self._away = ""
            except KafkaException as error:
                self._away = error.args[0].name()
        return self._away

    def _failed(self, error: KafkaError) -> None:
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            self._away = error.name()

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        consumer.assign([])  # until the table was asked, which is no matter for a callback
        self._assigned = partitions

    def _forget(self, _consumer: Consumer, _partitions: list[TopicPartition]) -> None:
        self._stored.clear()
        self._read.clear()
        self._assigned = None

    def _begin(self, partitions: Sequence[TopicPartition]) -> None:
        """Read on, in each of these partitions, where the table says; in a new one, from its beginning."""
        bounds = {(tp.topic, tp.partition): self._bounds(tp) for tp in partitions}
        with self._connection.transaction():
            self._connection.cursor().executemany(
                "INSERT INTO consumer_offset (group_name, topic, partition, topic_id, next_offset) VALUES (%s, %s, %s, %s, %s)"
                " ON CONFLICT DO NOTHING",
                [(self._group, topic, partition, self._topic_ids[topic], low) for (topic, partition), (low, _) in bounds.items()],
            )
            rows = self._connection.execute(
                "SELECT topic, partition, topic_id, next_offset, leader_epoch FROM consumer_offset WHERE group_name = %s", (self._group,)
            ).fetchall()
        for topic, partition, topic_id, offset, epoch in rows:
            if (topic, partition) in bounds:
                low, high = bounds[topic, partition]
                if offset > high:  # whoever had the partition before may have written since
                    low, high = self._bounds(TopicPartition(topic, partition))
                self._check(topic, partition, topic_id, offset, low, high)
                self._stored[topic, partition] = Position(offset, epoch)
        self._consumer.assign(
            [TopicPartition(topic, partition, at.offset, leader_epoch=at.leader_epoch) for (topic, partition), at in self._stored.items()]
        )
        self._assigned = None
        self._joined = True

    def _bounds(self, partition: TopicPartition) -> tuple[int, int]:
        found = self._consumer.get_watermark_offsets(partition, timeout=5)
        if found is None:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
        return found

    def _check(self, topic: str, partition: int, topic_id: str, offset: int, low: int, high: int) -> None:
        where = f"{topic}, partition {partition}"
        if topic_id != self._topic_ids[topic]:
            raise self._stopped(f"{topic} was made anew: its id is {self._topic_ids[topic]}, {self._group} has read {topic_id}.")
        if offset > high:
            raise self._stopped(f"{where} ends at offset {high}, {self._group} has read up to {offset}: the log has lost its end.")
        if offset < low:
            raise self._stopped(f"{where} begins at offset {low}, {self._group} has read up to {offset}: events were removed unread.")

    def _unreadable(self, error: KafkaError, at: tuple[str, int]) -> Exception:
        if error.code() in _GONE:
            topic, partition = at
            return self._stopped(f"{topic}, partition {partition}: the log no longer has the offset that {self._group} is to read next.")
        return KafkaException(error)

    def _stopped(self, sentence: str) -> Stopped:
        return Stopped(
            sentence,
            fix="Bring back that log if it can be had. To go on without it, delete the rows of this group from the table"
            " consumer_offset; then `hilum reconcile` names what is missing.",
        )


def topic_ids(settings: Settings, topics: Sequence[str]) -> dict[str, str]:
    """The id of each topic: another one after it was deleted and made again. Raises `TryAgain`, or `Misconfigured` if one is missing."""
    ids = {}
    admin = bus.admin(settings)  # kept until the futures are done: without it they end with _DESTROY
    for name, future in admin.describe_topics(TopicCollection(list(topics)), request_timeout=5).items():
        try:
            found: Any = future.result()
        except KafkaException as error:
            if error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise Misconfigured("topic-missing", f"Topic {name} does not exist.", fix="Make it with `hilum provision`.") from None
            raise bus.away(error) from None
        ids[name] = str(found.topic_id)
    return ids
