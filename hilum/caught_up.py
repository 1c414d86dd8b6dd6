"""Whether index and ledger have read what is on the log."""

from __future__ import annotations

import time
from collections.abc import Mapping

import psycopg
from confluent_kafka import TopicPartition
from confluent_kafka.admin import OffsetSpec  # type: ignore[attr-defined]  # it has no __all__

from hilum import bus
from hilum.events import Event, InstanceAccepted, InstanceQuarantined, InstanceReceived, InstanceRouted, MessageReceived, StudyChanged
from hilum.settings import Settings

#: Who must have read what before anything is compared with it, or concluded from it.
READERS: dict[str, tuple[type[Event], ...]] = {
    "index": (InstanceReceived, InstanceAccepted, InstanceQuarantined, InstanceRouted, StudyChanged, MessageReceived),
    "ledger": (InstanceRouted,),
}


def has_read_all(connection: psycopg.Connection, settings: Settings, *, wait_s: float) -> bool:
    """Whether index and ledger pass, within `wait_s`, what is on the log now. Raises as `ends_of`, and what psycopg raises."""
    return wait_for(connection, settings, ends_of(settings), wait_s)


def ends_of(settings: Settings) -> dict[tuple[str, int], int]:
    """Where each partition of the topics that `READERS` read ends: the offset of the next message. Raises `KafkaException`, `TryAgain`."""
    admin = bus.admin(settings)
    topics = [bus.topic_of(settings, kind) for kind in {kind for reads in READERS.values() for kind in reads}]
    wanted = {
        TopicPartition(topic, partition): OffsetSpec.latest()  # type: ignore[no-untyped-call]  # untyped there
        for topic, count in bus.partition_counts(admin, topics).items()
        for partition in range(count)
    }
    futures = admin.list_offsets(wanted, request_timeout=10)
    return {(at.topic, at.partition): future.result().offset for at, future in futures.items()}


def wait_for(connection: psycopg.Connection, settings: Settings, ends: Mapping[tuple[str, int], int], wait_s: float) -> bool:
    """Whether index and ledger have passed `ends` within `wait_s`."""
    topics = {reader: {bus.topic_of(settings, kind) for kind in kinds} for reader, kinds in READERS.items()}
    deadline = time.monotonic() + wait_s
    while True:
        rows = connection.execute(
            "SELECT group_name, topic, partition, next_offset FROM consumer_offset WHERE group_name = ANY (%s)", (list(READERS),)
        ).fetchall()
        read = {(group, topic, partition): offset for group, topic, partition, offset in rows}
        if all(read.get((reader, *at), 0) >= end for reader, names in topics.items() for at, end in ends.items() if at[0] in names):
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
