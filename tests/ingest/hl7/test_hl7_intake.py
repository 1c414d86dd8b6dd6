from __future__ import annotations

import random
import uuid
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hilum.bus import MAX_EVENT_BYTES
from hilum.events import MessageReceived, MessageRefused, decode
from hilum.hl7.acknowledgement import Answer, answers
from hilum.hl7.validation import Fault
from hilum.mllp import framed
from hilum.settings import Hl7, Hl7Sender
from ingest.hl7.intake import Examined, examine, examine_beginning, judged, kept
from ingest.hl7.senders import Senders

from .listening import Peer, a_message, listening
from .messages import message_set

SENDERS = Senders(Hl7())
#: What means something to MLLP, to HL7, or to a character set.
PIECES = [b"\x0b", b"\x1c", b"\r", b"\x00", b"\xff\xfe", b"\x1b$B", b"MSH|", b"\x0bMSH", b""]
NOW = datetime(2026, 1, 2, tzinfo=UTC)


def examined(content: bytes) -> Examined:
    return examine(content, "192.0.2.1", SENDERS)


@given(st.binary(max_size=400), st.sampled_from([b"", b"MSH|^~\\&|", b"MSH|^~\\&|A|B|C|D|2026||ADT^A08|1|P|2.5||||||8859/1\rPID|"]))
def test_whatever_comes_there_is_an_event_and_an_answer(raw: bytes, beginning: bytes) -> None:
    found = examined(beginning + raw)
    entry = kept(found, uuid.uuid4(), NOW, "bucket")
    size_bytes = decode(MessageRefused, entry.event).size_bytes if found.reason else decode(MessageReceived, entry.event).size_bytes

    assert size_bytes == len(beginning + raw)
    for text in answers(found.envelope, found.answer or Answer.ERROR, found.problems):
        text.encode()


@pytest.mark.parametrize(("filler", "cut"), [("x", False), ("\x01", True), ("é", False), ("&", False)])
def test_an_event_is_never_too_large(filler: str, cut: bool) -> None:
    content = a_message(charset="UNICODE UTF-8", more=f"NTE|1||{filler * 300_000}\rNTE|2||end\r").encode()
    entry = kept(examined(content), uuid.uuid4(), NOW, "bucket")
    event = decode(MessageReceived, entry.event)

    assert len(entry.event) < MAX_EVENT_BYTES
    assert event.text_cut == cut
    assert (entry.raw == content) == cut
    assert bool(event.object_key) == cut


def test_only_grave_faults_refuse() -> None:
    slight, grave = Fault("field-long", "104", "x", grave=False), Fault("version-unknown", "203", "x", "MSH", 12)

    assert judged(examined(a_message().encode()), [slight]).reason == ""
    assert judged(examined(a_message().encode()), [slight, grave]).reason == "message-unsupported"


def test_a_refusal_holds_no_value_in_its_sentence() -> None:
    found = examined(a_message().replace("|^~\\&|", "|^^\\&|").encode())
    event = decode(MessageRefused, kept(found, uuid.uuid4(), NOW, "bucket").event)

    assert "SYNTH" not in event.sentence
    assert "SYNTH0001" in event.text


def test_a_listener_lives_through_streams_that_are_broken_anywhere(tmp_path: Path) -> None:
    chance = random.Random(6)
    stream = b"".join(framed(message.encode()) for message in message_set("F")[:6])
    with listening(tmp_path, max_message_bytes=4096) as running:
        for _ in range(150):
            broken = bytearray(stream)
            for _ in range(chance.randint(1, 8)):
                at = chance.randrange(len(broken))
                what = chance.choice([*PIECES, bytes([chance.randrange(256)])])
                broken[at : at + chance.randint(0, 200)] = what
            with Peer(running.port) as peer:
                try:
                    peer.send(bytes(broken))
                    peer.end()
                    while peer.socket.recv(65536):
                        pass
                except (TimeoutError, ConnectionError):
                    pass
        with Peer(running.port) as peer:
            assert peer.asked(a_message("good")).get("MSA-2") == "good"
        assert "good" in [event.control_id for event in running.received()]


def test_what_is_no_whole_message_is_its_senders_too() -> None:
    senders = Senders(Hl7(senders={"ris": Hl7Sender(applications=("RIS",))}))
    beginning = a_message().encode()[:60]

    assert examine_beginning(beginning, "192.0.2.1", senders, "unterminated", 60).sender_name == "ris"
    assert examine_beginning(b"GET / HTTP/1.1", "192.0.2.1", senders, "unterminated", 14).sender_name == ""
