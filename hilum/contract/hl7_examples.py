"""Made-up events about HL7 messages, for `schemas/examples/`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from hilum.events import Event, MessageFinding, MessageReceived, MessageRefused, MessageValidated

RECEIVED_AT = datetime(2026, 1, 2, 9, 0, 0, 250000, tzinfo=UTC)
MESSAGE_ID = "019b7d2e-0c1a-7000-8a3f-5d2c9b7e6f10"
TEXT = (
    "MSH|^~\\&|RIS|NORTH|HILUM|NORTH|20260102100000+0100||ORM^O01^ORM_O01|M000042|P|2.5.1||||||8859/1\r"
    "PID|1||SYNTH0001^^^NORTH^MR||Synthetic^Sam||19700101|M\r"
    "ORC|NW|P0001^RIS|F0001^RIS||SC\r"
    "OBR|1|P0001^RIS|F0001^RIS|CTCHEST^CT chest^NORTH\r"
    "ZDS|2.25.3201^NORTH^Application^DICOM\r"
)
SEGMENT_SITE = MessageFinding(code="segment-site", sentence="The segment is none of the message's structure.", path="ZDS")


def _received() -> MessageReceived:
    return MessageReceived(
        message_id=MESSAGE_ID,
        received_at=RECEIVED_AT,
        sender="ris",
        peer="192.0.2.31",
        sending_application="RIS",
        sending_facility="NORTH",
        receiving_application="HILUM",
        receiving_facility="NORTH",
        control_id="M000042",
        code="ORM",
        trigger="O01",
        structure="ORM_O01",
        version="2.5.1",
        processing_id="P",
        character_set="8859/1",
        message_time="20260102100000+0100",
        sha256=hashlib.sha256(TEXT.encode("latin-1")).hexdigest(),
        size_bytes=len(TEXT),
        text=TEXT,
        findings=(MessageFinding(code="segment-end-not-cr", sentence="Segments end with line feeds."),),
    )


def _refused() -> MessageRefused:
    return MessageRefused(
        message_id=MESSAGE_ID,
        received_at=RECEIVED_AT,
        sender="ris",
        peer="192.0.2.31",
        control_id="M000043",
        code="ORM",
        trigger="O01",
        reason="encoding-characters",
        sentence="MSH-2 has the same encoding character twice.",
        acknowledgement="AE",
        size_bytes=64,
        text="MSH|^^\\&|RIS|NORTH|HILUM|NORTH|20260102100000||ORM^O01|M000043|P|2.5",
    )


def _validated() -> MessageValidated:
    return MessageValidated(
        message_id=MESSAGE_ID, version="2.5.1", findings=(SEGMENT_SITE,), validated_at=RECEIVED_AT + timedelta(milliseconds=40)
    )


HL7_EXAMPLES: dict[type[Event], Callable[[], Event]] = {
    MessageReceived: _received,
    MessageRefused: _refused,
    MessageValidated: _validated,
}
