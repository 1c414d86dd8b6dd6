"""Ask a stage to do something, and wait for its answer: commands and outcomes on Kafka."""

from __future__ import annotations

import time
from collections.abc import Sequence

from confluent_kafka import KafkaException, TopicPartition

from hilum import bus
from hilum.errors import TryAgain
from hilum.events import CommandOutcome, PatientCommand, StudyCommand, decode
from hilum.settings import Settings

#: How long the broker may take to answer.
ANSWER_S = 10.0


def ask(settings: Settings, command: StudyCommand | PatientCommand, *, wait_s: float = 30.0) -> CommandOutcome | None:
    """Say a command and wait for its outcome; None if there is none within `wait_s`: it may be acted on later.

    Raises `TryAgain` while Kafka does not answer, `Misconfigured` if its topics were never made.
    """
    topic = bus.topic_of(settings, CommandOutcome)
    consumer = bus.consumer(settings, f"hilum-command-{command.id}")
    try:
        # Where the outcomes end now: the answer comes behind that.
        partitions = range(bus.partition_counts(consumer, [topic], timeout_s=ANSWER_S)[topic])
        asked = [TopicPartition(topic, partition) for partition in partitions]
        ends = bus.offsets(bus.admin(settings), asked, bus.LATEST, timeout_s=ANSWER_S)
        consumer.assign([TopicPartition(name, partition, offset) for (name, partition), offset in ends.items()])
        say(settings, [command])
        deadline = time.monotonic() + wait_s
        while (left := deadline - time.monotonic()) > 0:
            message = consumer.poll(min(left, 0.5))
            if message is None or message.error() is not None:
                continue
            outcome = decode(CommandOutcome, message.value() or b"")
            if outcome.command == command.id:
                return outcome
        return None
    except KafkaException as error:
        raise bus.away(error) from None
    finally:
        consumer.close()


def say(settings: Settings, commands: Sequence[StudyCommand | PatientCommand]) -> None:
    """Say commands and do not wait for their outcome. Raises `TryAgain` if Kafka does not take them all."""
    producer = bus.producer(settings)
    writer = bus.Writer(settings, "command")
    failed: list[object] = []
    for command in commands:
        record = writer.record(command, command.id)
        producer.produce(
            record.topic,
            record.value,
            record.key,
            headers=record.headers,
            on_delivery=lambda error, _: failed.append(error) if error is not None else None,
        )
    if producer.flush(ANSWER_S) or failed:
        raise TryAgain("Kafka did not take the command.", fix="Check with `hilum status` that the broker runs, then ask again.")
