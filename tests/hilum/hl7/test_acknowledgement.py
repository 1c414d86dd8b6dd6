from __future__ import annotations

import pytest

from hilum.hl7 import batch
from hilum.hl7.acknowledgement import Answer, Problem, answers, new_control_id
from hilum.hl7.envelope import Envelope, envelope_of, envelope_of_beginning
from hilum.hl7.message import parse

PROBLEM = Problem(code="101", sentence="PID-3 is missing.", segment="PID", field=3)


def an_envelope(version: str = "2.5.1", control_id: str = "M1", header: str = "MSH|^~\\&|RIS^1.2^ISO|NORTH|HILUM|SOUTH") -> Envelope:
    return envelope_of(parse(f"{header}|20260101||ADT^A08^ADT_A01|{control_id}|T|{version}\r"))


@pytest.mark.parametrize(
    ("version", "kind", "err"),
    [
        ("2.1", "ACK", "ERR|PID^1^3^101&Required field missing&HL70357"),
        ("2.3.1", "ACK^A08", "ERR|PID^1^3^101&Required field missing&HL70357"),
        ("2.4", "ACK^A08^ACK", "ERR|PID^1^3^101&Required field missing&HL70357"),
        ("2.5", "ACK^A08^ACK", "ERR||PID^1^3|101^Required field missing^HL70357|E||||PID-3 is missing."),
        ("9.9", "ACK^A08^ACK", "ERR||PID^1^3|101^Required field missing^HL70357|E||||PID-3 is missing."),
    ],
)
def test_an_acknowledgement_has_the_form_of_its_version(version: str, kind: str, err: str) -> None:
    [text] = answers(an_envelope(version), Answer.ERROR, (PROBLEM,))
    header, msa, error = text.removesuffix("\r").split("\r")

    assert header.split("|")[2:6] == ["HILUM", "SOUTH", "RIS^1.2^ISO", "NORTH"]
    assert header.split("|")[8] == kind
    assert (header.split("|")[10], header.split("|")[11]) == ("T", version if version != "9.9" else "2.5")
    assert msa == "MSA|AE|M1|PID-3 is missing."
    assert error == err


def test_from_version_2_7_on_there_is_no_text_in_the_msa() -> None:
    [text] = answers(an_envelope("2.7"), Answer.ERROR, (PROBLEM,))

    assert parse(text).get("MSA-3") == ""


def test_a_control_id_goes_back_as_it_was_written() -> None:
    [text] = answers(an_envelope(control_id="A\\T\\B^x"), Answer.ACCEPT)

    assert "\rMSA|AA|A\\T\\B^x\r" in text


def test_what_cannot_be_told_apart_is_answered_with_the_usual_delimiters() -> None:
    envelope = envelope_of_beginning("MSH|^^\\&|RIS|NORTH|HILUM|SOUTH|20260101||ADT|M1|P|2.5")
    [text] = answers(envelope, Answer.ERROR, (Problem(code="102", sentence="x", segment="MSH", field=2),))
    found = parse(text)

    assert (found.get("MSH-2"), found.get("MSA-2"), found.get("MSH-5")) == ("^~\\&", "M1", "RIS")


def test_nothing_at_all_is_answered_in_hilums_name() -> None:
    [text] = answers(envelope_of_beginning("hello"), Answer.ERROR, (Problem(code="100", sentence="x"),), facility="NORTH")

    assert (parse(text).get("MSH-3"), parse(text).get("MSH-4"), parse(text).get("MSA-1")) == ("HILUM", "NORTH", "AE")


def test_an_acknowledgement_is_not_acknowledged() -> None:
    assert answers(envelope_of(parse("MSH|^~\\&|RIS||||2026||ACK|1|P|2.5\rMSA|AA|1\r")), Answer.ACCEPT) == []


def test_control_ids_are_short_and_never_the_same() -> None:
    ids = {new_control_id() for _ in range(1000)}

    assert len(ids) == 1000
    assert max(map(len, ids)) <= 20


def test_a_sentence_is_escaped() -> None:
    [text] = answers(an_envelope(), Answer.ERROR, (Problem(code="199", sentence="a|b^c"),))

    assert parse(text).get("ERR-8") == "a|b^c"


MESSAGE = b"MSH|^~\\&|RIS||||2026||ADT^A08|1|P|2.5\rPID|1\r"


def test_one_message_is_no_batch() -> None:
    assert batch.split(MESSAGE) is None
    assert batch.split(MESSAGE + b"NTE|1||BHS and MSH| in a text\r") is None
    assert batch.split(b"hello") is None


def test_a_batch_of_one_message_is_one() -> None:
    found = batch.split(b"BHS|^~\\&|RIS\r" + MESSAGE + b"BTS|1\r")

    assert found is not None
    assert (found.messages, found.announced, found.is_complete) == ((MESSAGE,), 1, True)


def test_several_batches_of_a_file_are_counted_together() -> None:
    content = b"FHS|^~\\&|RIS\nBHS|^~\\&|RIS\n" + MESSAGE + b"BTS|1\nBHS|^~\\&|RIS\n" + MESSAGE + MESSAGE + b"BTS|3\nFTS|2\n"
    found = batch.split(content)

    assert found is not None
    assert (len(found.messages), found.announced, found.is_complete) == (3, 4, False)
    assert found.header == "FHS|^~\\&|RIS"


def test_a_batch_without_messages_has_none() -> None:
    found = batch.split(b"BHS|^~\\&|RIS\rBTS|0\r")

    assert found is not None
    assert (found.messages, found.is_complete) == ((), True)
