"""What Hilum says on Kafka of HL7 messages that came. `hilum.events` has all events.

These topics have one partition: what is read from them is in the order in which it was acknowledged, over all senders.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from msgspec import Meta, Struct

from hilum.event import Event, Topic


class MessageFinding(Struct, frozen=True, kw_only=True):
    """Something odd about a message that a person may want to know and that does not stop it."""

    code: Annotated[str, Meta(pattern="^[a-z0-9-]+$")]
    #: Without values of the message.
    sentence: str
    #: Where it is, such as `PID-3` or `OBX[2]`; empty where it is the whole message.
    path: str = ""


class MessageReceived(Event, frozen=True, kw_only=True):
    """A message was made durable and acknowledged."""

    topic = Topic(name="hl7.message.received.v1", phi="full", partitions=1)

    #: Made by Hilum, unique, and in the order of reception; also the event's id.
    message_id: str
    received_at: datetime
    #: Name of the sender in the settings (`hl7.senders`); empty for one that is not there.
    sender: str = ""
    #: Network address of the sender, without port.
    peer: str = ""
    #: MSH-3 to MSH-6, the first component of each.
    sending_application: str = ""
    sending_facility: str = ""
    receiving_application: str = ""
    receiving_facility: str = ""
    #: MSH-10.
    control_id: str = ""
    #: MSH-9: `ADT`, `A08` and `ADT_A01`. Of a message without MSH-9.2, `trigger` is EVN-1.
    code: str = ""
    trigger: str = ""
    structure: str = ""
    #: MSH-12.1, such as `2.5.1`.
    version: str = ""
    #: MSH-11.1: `P`, `T` or `D`.
    processing_id: str = ""
    #: MSH-18 as it was sent, repetitions joined by `~`.
    character_set: str = ""
    #: MSH-7 as it was sent, with the offset that it may have.
    message_time: str = ""
    #: SHA-256 of the message's bytes as they came, and how many there are.
    sha256: str
    size_bytes: int
    #: The message as Unicode, with its own delimiters and a carriage return behind each segment. Of one that does not
    #: fit into an event, the segments before the first that does not; the whole is then in the object store.
    text: str
    #: Whether `text` is not all of the message.
    text_cut: bool = False
    #: As what its bytes were read: a codec of Python, such as `iso8859-1`; `iso2022` for code extension. Empty in older events.
    read_as: str = ""
    #: The bytes that came, if `text` in `read_as` is not just them, such as with other line ends, and they are not in the object store.
    raw: bytes = b""
    #: Where the bytes are that came, if `text` does not tell all of them: a message that is very large, or not in the character set that
    #: it declares. Empty if it does.
    bucket: str = ""
    object_key: str = ""
    #: A message with other content came before with the same control id from the same application.
    changed_under_control_id: bool = False
    #: The message that this one says again, on somebody's wish (`hilum hl7 replay`); empty for what came.
    replays: str = ""
    #: Whether a message that is said again is passed on to other systems again, too.
    pass_on: bool = False
    findings: tuple[MessageFinding, ...] = ()

    @property
    def key(self) -> str:
        """See `Event.key`."""
        return self.message_id

    @property
    def subject(self) -> str:
        """See `Event.subject`."""
        return self.message_id


class MessageRefused(Event, frozen=True, kw_only=True):
    """Something that came was not taken as a message; what there is of it is kept for a person."""

    topic = Topic(name="hl7.message.refused.v1", phi="full", partitions=1)

    #: Made by Hilum, unique, and in the order of reception; also the event's id.
    message_id: str
    received_at: datetime
    sender: str = ""
    peer: str = ""
    control_id: str = ""
    code: str = ""
    trigger: str = ""
    #: Why, for machines: as in the table of acknowledgements.
    reason: Annotated[str, Meta(pattern="^[a-z0-9-]+$")]
    #: Without values of the message.
    sentence: str
    #: What the sender was answered: `AE`, `AR`, `CE`, `CR`; empty if nothing.
    acknowledgement: str = ""
    size_bytes: int
    #: Its beginning, 64 KB at most, read as well as can be.
    text: str

    @property
    def key(self) -> str:
        """See `Event.key`."""
        return self.message_id

    @property
    def subject(self) -> str:
        """See `Event.subject`."""
        return self.message_id


class MessageValidated(Event, frozen=True, kw_only=True):
    """A message was held against the grammar of its version, after it was acknowledged; told only where something was found."""

    topic = Topic(name="hl7.message.validated.v1", phi="limited", partitions=1)

    message_id: str
    #: HL7 version whose grammar it was held against; empty if there is none for it.
    version: str = ""
    findings: tuple[MessageFinding, ...]
    validated_at: datetime

    @property
    def key(self) -> str:
        """See `Event.key`."""
        return self.message_id

    @property
    def subject(self) -> str:
        """See `Event.subject`."""
        return self.message_id
