"""Say HL7 messages again that came before: for a person who has corrected how they are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from confluent_kafka import KafkaException

from hilum import bus
from hilum.errors import TryAgain
from hilum.events import MessageFinding, MessageReceived
from hilum.notices import Notice, Notified
from hilum.settings import Settings
from hilum.sink import sinks_of
from hilum.spool.receipts import Receipts

#: How long the broker may take to answer.
ANSWER_S = 10.0


def again(row: Mapping[str, Any], message_id: str, moment: datetime, *, pass_on: bool = False) -> MessageReceived:
    """The event that says the message of a row of `hl7_message` again, as `message_id`; with `pass_on` to other systems, too."""
    text = {name: row[name] or "" for name in _TEXTS}
    return MessageReceived(
        **text,
        message_id=message_id,
        received_at=moment,
        size_bytes=row["size_bytes"],
        text=row["text"],
        text_cut=bool(row["text_cut"]),
        raw=bytes(row["raw"] or b""),
        changed_under_control_id=bool(row["changed_under_control_id"]),
        findings=tuple(MessageFinding(**each) for each in row["findings"] or ()),
        replays=row["replays"] or row["message_id"],
        pass_on=pass_on,
    )


def passed_on_to(settings: Settings, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The destinations of these settings that are passed one of these messages."""
    notices = []
    for row in rows:
        event = again(row, row["message_id"], row["received_at"])
        notices.append(Notice(kind="message", control_id=event.control_id, message=event))
    sinks = {name: sink for name, sink in sinks_of(settings).items() if isinstance(sink, Notified)}
    return [name for name, sink in sinks.items() if any(map(sink.wants, notices))]


def replayed(settings: Settings, rows: Sequence[Mapping[str, Any]], *, pass_on: bool = False) -> list[tuple[str, str]]:
    """Say the messages of these rows again, in this order; old and new id of each. Raises `TryAgain` if Kafka does not take them."""
    receipts, pairs, failed = Receipts(), [], []
    producer = bus.producer(settings)
    writer = bus.Writer(settings, "command")
    try:
        for row in rows:
            moment = datetime.now(UTC)
            message_id = str(receipts.make(moment))
            record = writer.record(again(row, message_id, moment, pass_on=pass_on), message_id)
            producer.produce(
                record.topic,
                record.value,
                record.key,
                headers=record.headers,
                on_delivery=lambda error, _: failed.append(error) if error is not None else None,
            )
            pairs.append((str(row["message_id"]), message_id))
    except KafkaException as error:
        raise bus.away(error) from None
    if producer.flush(ANSWER_S) or failed:
        raise TryAgain("Kafka did not take the messages.", fix="Check with `hilum status` that the broker runs, then try again.")
    return pairs


_TEXTS = (
    "sender",
    "peer",
    "sending_application",
    "sending_facility",
    "receiving_application",
    "receiving_facility",
    "control_id",
    "code",
    "trigger",
    "structure",
    "version",
    "character_set",
    "message_time",
    "sha256",
    "read_as",
    "bucket",
    "object_key",
)
