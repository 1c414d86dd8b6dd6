"""Bring back what a partition's former owner remembered, from the changelog, outside of any rebalance."""

from __future__ import annotations

from collections.abc import Iterable

from confluent_kafka import OFFSET_BEGINNING, IsolationLevel, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from hilum import bus
from hilum.runtime.state import PartitionState
from hilum.settings import Settings


class Restore:
    """Restores partitions of one changelog, a step at a time, so that its caller can keep its place in the group.

    Begin it only after the partitions' committed offsets have been read in the present generation of the group: from then
    on nobody else can commit anything about them. What somebody committed before may still be on its way into the log; the
    last stable offset tells.
    """

    def __init__(self, settings: Settings, admin: AdminClient, topic: str, states: Iterable[PartitionState]) -> None:
        self._admin = admin
        self._topic = topic
        self._states = {state.partition: state for state in states}
        self._ends = self._latest(self._states, IsolationLevel.READ_UNCOMMITTED)
        self._reading: set[int] = set()
        # At the end of a partition a broker waits whether more comes, for half a second unless told otherwise.
        self._consumer = bus.consumer(settings, f"{topic}.restore", **{"enable.partition.eof": True, "fetch.wait.max.ms": 50})
        self.rows_read = 0

    @property
    def left(self) -> set[int]:
        """Partitions that are not restored yet."""
        return set(self._states)

    def drop(self, partition: int) -> None:
        """The partition is no longer ours."""
        self._states.pop(partition, None)
        self._reading.discard(partition)

    def step(self, timeout_s: float = 0.1) -> None:
        """Go on for about `timeout_s`. Raises `TryAgain` while the broker does not answer, `Stopped` if a row cannot be read."""
        waiting = set(self._states) - self._reading
        if waiting:
            stable = self._latest(waiting, IsolationLevel.READ_COMMITTED)
            for partition in [p for p in waiting if stable[p] >= self._ends[p]]:
                if self._states[partition].position >= self._ends[partition]:
                    self.drop(partition)
                else:
                    self._reading.add(partition)
                    begin = self._states[partition].position or OFFSET_BEGINNING
                    self._consumer.incremental_assign([TopicPartition(self._topic, partition, begin)])
        for message in self._consumer.consume(5000, timeout_s) if self._states else ():
            state = self._states.get(message.partition() or 0)
            error = message.error()
            if state is None:
                continue
            if error is None:
                state.apply((message.key() or b"").decode(), message.value())
                self.rows_read += 1
            elif error.code() == KafkaError._PARTITION_EOF:
                if (message.offset() or 0) >= self._ends[state.partition]:
                    state.position = self._ends[state.partition]
                    self.drop(state.partition)
            elif not error.retriable():
                raise KafkaException(error)

    def close(self) -> None:
        """End reading."""
        self._consumer.close()

    def _latest(self, partitions: Iterable[int], isolation: IsolationLevel) -> dict[int, int]:
        asked = [TopicPartition(self._topic, partition) for partition in partitions]
        return {of[1]: offset for of, offset in bus.offsets(self._admin, asked, bus.LATEST, isolation).items()}
