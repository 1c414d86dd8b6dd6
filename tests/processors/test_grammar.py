from __future__ import annotations

from datetime import UTC, datetime

import msgspec
from msgspec.structs import replace

from hilum.contract.hl7_examples import HL7_EXAMPLES
from hilum.events import MessageReceived
from hilum.hl7.validation import Fault
from hilum.settings import Hl7
from processors.grammar import Grammar

NOW = datetime(2026, 1, 2, tzinfo=UTC)
FAULT = Fault("field-missing", "101", "PID-3 is missing.", "PID", 3)


def a_message(**more: object) -> MessageReceived:
    event = HL7_EXAMPLES[MessageReceived]()
    assert isinstance(event, MessageReceived)
    return replace(event, **more)


def grammar(*faults: Fault, **hl7: object) -> Grammar:
    return Grammar(msgspec.convert(hl7, Hl7), validate=lambda _: list(faults), now=lambda: NOW)


def test_what_is_found_is_told() -> None:
    [event] = grammar(FAULT).handle(a_message())

    assert (event.message_id, event.version) == (a_message().message_id, "2.5.1")
    assert [(finding.code, finding.path) for finding in event.findings] == [("field-missing", "PID-3")]


def test_where_nothing_is_found_nothing_is_told() -> None:
    assert list(grammar().handle(a_message())) == []


def test_a_sender_may_have_it_off() -> None:
    off = {"senders": {"ris": {"validation": "off"}}}

    assert list(grammar(FAULT, **off).handle(a_message(sender="ris"))) == []
    assert list(grammar(FAULT, **off).handle(a_message(sender="other"))) != []
    assert list(grammar(FAULT, validation="off").handle(a_message(sender="other"))) == []


def test_what_is_cut_or_very_long_is_said_not_to_be_validated() -> None:
    for event in (a_message(text_cut=True), a_message(text="x" * 300_000)):
        [told] = grammar().handle(event)

        assert [finding.code for finding in told.findings] == ["not-validated"]
