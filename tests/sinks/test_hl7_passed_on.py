"""Messages of others on their way out: byte for byte, or changed in a character set that they declare."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import pytest
from msgspec.structs import replace

from hilum.events import MessageReceived, decode
from hilum.hl7.charset import decode as decoded
from hilum.hl7.message import parse
from hilum.notices import Composed
from hilum.settings import Settings
from ingest.hl7.intake import examine, kept
from ingest.hl7.senders import Senders
from sinks.hl7.passing import passed_on

NAME = "Müller^Jörg"


def a_message(character_set: str, name: str = NAME, *, end: str = "\r") -> str:
    return f"MSH|^~\\&|RIS||HILUM||20260101||ADT^A08|C1|P|2.5||||||{character_set}{end}PID|1||4711||{name}{end}ZPI|x{end}"


def came(content: bytes) -> MessageReceived:
    """The event of a message, as the listener makes it."""
    made = kept(examine(content, "192.0.2.1", Senders(Settings().hl7)), UUID(int=1), datetime(2026, 1, 1, tzinfo=UTC), "bucket")
    return decode(MessageReceived, made.event)


def sent(event: MessageReceived, values: dict[str, str] | None = None, without: tuple[str, ...] = ()) -> bytes:
    composed = passed_on(event, values or {}, without, "UNICODE UTF-8")
    assert isinstance(composed, Composed)
    assert composed.content is not None
    return composed.content


@pytest.mark.parametrize(
    "content",
    [
        a_message("8859/1").encode("latin-1"),
        a_message("8859/1", end="\n").encode("latin-1"),
        a_message("8859/1", end="\r\n").encode("latin-1"),
        a_message("8859/1").encode("latin-1").rstrip(b"\r"),
        a_message("UNICODE UTF-16").encode("utf-16"),
        a_message("UNICODE UTF-16").encode("utf-16-be"),
        a_message("UNICODE UTF-8").encode("utf-8-sig"),
        a_message("").encode("cp1252"),
        a_message("").encode("utf-8"),
        a_message("ISO IR14~ISO IR87", "\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B").encode("ascii"),
        a_message("ASCII", "M\\C2842\\x").encode("ascii"),
        a_message("NOBODY KNOWS").encode("latin-1"),
    ],
)
def test_what_is_not_changed_goes_out_byte_for_byte(content: bytes) -> None:
    assert sent(came(content)) == content
    assert sent(came(content), {"ZZZ-1": "nobody"}, ("ZQQ",)) == content


def test_bytes_that_are_in_the_object_store_are_sent_from_there() -> None:
    event = came(a_message("8859/7").encode("ascii", "ignore").replace(b"4711", b"47\xff11"))

    assert passed_on(event, {}, (), "UNICODE UTF-8") == Composed(text=event.text, bucket="bucket", object_key=event.object_key)


def test_what_is_changed_stays_in_the_character_set_of_its_sender_if_that_holds_it() -> None:
    content = a_message("8859/1").encode("latin-1")

    assert sent(came(content), {"ZPI-1": "Ä"}) == content.replace(b"ZPI|x", "ZPI|Ä".encode("latin-1"))
    assert sent(came(content), without=("ZPI",)) == content.replace(b"ZPI|x\r", b"")


@pytest.mark.parametrize(
    ("content", "value"),
    [
        (a_message("8859/1").encode("latin-1"), "Ж"),
        (a_message("ISO IR14~ISO IR87", "\x1b$B;3ED\x1b(B").encode("ascii"), "A"),
    ],
    ids=["it does not hold it", "Hilum cannot write it"],
)
def test_what_does_not_fit_is_written_in_another_character_set_that_it_declares(content: bytes, value: str) -> None:
    event = came(content)

    message = parse(sent(event, {"ZPI-1": value}).decode("utf-8"))
    assert (message.get("MSH-18"), message.get("ZPI-1")) == ("UNICODE UTF-8", value)
    assert message.get("PID-5") == parse(event.text).get("PID-5")


def test_a_character_set_that_is_set_is_the_one_it_is_written_in() -> None:
    found = sent(came(a_message("8859/1", "Müller^Łucja").encode("iso8859-2", "replace")), {"MSH-18": "UNICODE UTF-8"})

    assert parse(found.decode("utf-8")).get("PID-5") == "Müller"


def test_an_older_event_that_does_not_say_how_it_was_read_is_never_labelled_wrong() -> None:
    event = replace(came(a_message("8859/1").encode("latin-1")), read_as="")

    for each in (event, replace(event, character_set=""), replace(event, character_set="ISO IR87")):
        found = decoded(sent(each))
        assert parse(found.text).get("PID-5.2") == "Jörg"
        assert not found.odd


def test_a_message_that_is_too_large_goes_out_as_it_came_or_not_at_all() -> None:
    event = came(a_message("8859/1").encode("latin-1") + b"OBX|1|TX|||" + b"x" * 900_000 + b"\r")

    assert event.text_cut
    whole = passed_on(event, {}, (), "UNICODE UTF-8")
    assert whole is not None
    assert whole.object_key == event.object_key != ""
    assert passed_on(event, {"MSH-5": "X"}, (), "UNICODE UTF-8") is None
