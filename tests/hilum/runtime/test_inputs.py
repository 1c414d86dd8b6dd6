"""Membership without a broker: what a rebalance takes and what it leaves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

from hilum.errors import Stopped
from hilum.events import InstanceReceived
from hilum.runtime.inputs import Inputs, Position, metadata_of, written_in
from hilum.runtime.pace import MOST_BYTES
from hilum.runtime.processor import processor
from hilum.runtime.stage import Incoming, Stage
from hilum.runtime.state import PartitionState
from hilum.runtime.transaction import BeginAnew
from hilum.settings import Kafka, Settings
from hilum.testing import Clock

TOPIC = "imaging.instance.received.v1"


@processor
def ignore(event: InstanceReceived) -> None: ...


@pytest.fixture
def consumer() -> Iterator[Consumer]:
    """A consumer that never reaches a broker."""
    lonely = Consumer({"bootstrap.servers": "127.0.0.1:1", "group.id": "g", "log_level": 0})
    yield lonely
    lonely.close()


@pytest.fixture
def inputs() -> Iterator[Inputs]:
    settings = Settings(kafka=Kafka(bootstrap="127.0.0.1:1"))
    made = Inputs(settings, Stage(settings, ignore, Clock()), "worker", static=False)
    for partition in range(3):
        made.positions[TOPIC, partition] = Position(10, 0)
        made.states[partition] = PartitionState(partition)
        made.pending.append(Incoming(Message(topic=TOPIC, partition=partition, offset=10, value=b"")))
    yield made
    made.close()


def test_a_partial_revoke_drops_those_partitions_and_no_others(inputs: Inputs, consumer: Consumer) -> None:
    taken = inputs.pending[1]
    remembered = inputs.states[2]

    inputs.revoked(consumer, [TopicPartition(TOPIC, 1)])

    assert taken.dropped
    assert [incoming.partition for incoming in inputs.pending] == [0, 2]
    assert not any(incoming.dropped for incoming in inputs.pending)
    assert set(inputs.positions) == {(TOPIC, 0), (TOPIC, 2)}
    assert set(inputs.states) == {0, 2}
    assert inputs.states[2] is remembered


def test_nothing_is_fetched_of_a_new_partition_before_it_is_begun(inputs: Inputs, consumer: Consumer) -> None:
    inputs.revoked(consumer, [TopicPartition(TOPIC, 1)])

    inputs.assigned(consumer, [TopicPartition(TOPIC, 1)])

    assert inputs.waiting
    assert {partition.partition for partition in consumer.assignment()} == {0, 2}


def test_events_that_are_done_move_their_partition_on_and_leave_the_others(inputs: Inputs) -> None:
    inputs.done(1, {(TOPIC, 0): (11, 0), (TOPIC, 1): (10, 2000)})

    assert [(position.committed, position.written) for position in inputs.positions.values()] == [(11, 0), (10, 2000), (10, 0)]
    assert [incoming.partition for incoming in inputs.pending] == [1, 2]


def test_a_batch_is_bounded_by_events_and_by_bytes(inputs: Inputs) -> None:
    large = [Incoming(Message(topic=TOPIC, partition=0, offset=n, value=b"x" * (MOST_BYTES // 2))) for n in range(3)]
    small = [Incoming(Message(topic=TOPIC, partition=0, offset=n, value=b"x")) for n in range(10)]
    inputs.limit = 5

    sizes = []
    for inputs.pending in (large, small, [*large[:1], *small], []):
        sizes.append(len(inputs.batch()))

    assert sizes == [2, 5, 5, 0]


def test_an_event_that_is_larger_than_a_batch_is_a_batch(inputs: Inputs) -> None:
    inputs.pending = [Incoming(Message(topic=TOPIC, partition=0, offset=n, value=b"x" * (MOST_BYTES + 1))) for n in range(2)]

    assert len(inputs.batch()) == 1


@pytest.mark.parametrize("written", [0, 1, 6000])
def test_how_much_of_an_event_is_written_is_committed_beside_its_offset(written: int) -> None:
    assert written_in(metadata_of(written)) == written


@pytest.mark.parametrize("metadata", [None, "", "another tool's note", "written=many"])
def test_a_note_that_another_tool_left_beside_an_offset_means_nothing(metadata: str | None) -> None:
    assert written_in(metadata) == 0


def test_a_partition_of_which_events_wait_has_the_time_of_its_last_event(inputs: Inputs) -> None:
    inputs.positions[TOPIC, 1].seen_at = 12.5
    inputs.positions[TOPIC, 2].seen_at = 13.5

    assert [inputs.behind(partition, 0) for partition in range(3)] == [0, 12_500, 13_500]


class Fatal:
    """What a consumer says as it ends."""

    def code(self) -> int:
        return KafkaError._FATAL

    def fatal(self) -> bool:
        return True

    def name(self) -> str:
        return "FENCED_INSTANCE_ID"


def test_a_member_that_is_ended_after_its_session_lapsed_begins_anew_and_else_its_slot_is_taken(consumer: Consumer) -> None:
    settings = Settings(kafka=Kafka(bootstrap="127.0.0.1:1"))
    member = Inputs(settings, Stage(settings, ignore, Clock()), "worker", static=True)
    ended: Any = Fatal()
    try:
        with pytest.raises(Stopped, match="Another process runs as worker"):
            member._stumbled(ended, Message())
        member.lost(consumer, [])
        with pytest.raises(BeginAnew):
            member._stumbled(ended, Message())
    finally:
        member.close()
