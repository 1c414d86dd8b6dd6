"""What the index makes of HL7 messages, and what commands find there."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from msgspec.structs import replace

from hilum.contract.hl7_examples import HL7_EXAMPLES, MESSAGE_ID
from hilum.database import connect
from hilum.database.hl7_messages import find_message, list_messages
from hilum.errors import NotFound
from hilum.events import Event, MessageReceived, MessageRefused, MessageValidated, PatientChanged
from hilum.hl7_replay import again
from hilum.order_events import Identifier, Patient
from hilum.runtime.tables import Envelope
from processors.index import Index

pytestmark = pytest.mark.system
NOW = datetime(2026, 1, 3, tzinfo=UTC)


def example(kind: type[Event], **more: Any) -> Any:
    return replace(HL7_EXAMPLES[kind](), **more)


def write(connection: psycopg.Connection, *events: Event) -> None:
    Index().apply(connection, [(event, Envelope("id", NOW, "")) for event in events])  # type: ignore[misc]  # of its inputs
    connection.commit()


def test_messages_are_rows_whatever_is_read_first_and_however_often(postgres: str) -> None:
    refused = example(MessageRefused, message_id="x", received_at=NOW + timedelta(hours=1))
    with connect(postgres) as connection:
        write(connection, example(MessageValidated))
        assert list_messages(postgres, limit=10) == []
        write(connection, refused, example(MessageReceived))
        write(connection, example(MessageReceived), example(MessageValidated))

    [first, second] = list_messages(postgres, limit=10)
    assert (first.message_id, first.refused, first.acknowledgement) == ("x", "encoding-characters", "AE")
    assert (second.message_id, second.findings, second.sending_application) == (MESSAGE_ID, 2, "RIS")


def test_messages_are_found_by_what_people_know(postgres: str) -> None:
    with connect(postgres) as connection:
        write(connection, example(MessageReceived), example(MessageRefused, message_id="x", control_id="M000043"))
        write(connection, example(MessageReceived, message_id="y", code="ADT", trigger="A08", findings=(), control_id="M9\0"))

    def ids(**given: Any) -> list[str]:
        return sorted(line.message_id for line in list_messages(postgres, limit=10, **given))

    assert ids(kind="ADT") == ids(kind="ADT^A08") == ["y"]
    assert ids(refused=True) == ["x"]
    assert ids(control_id="M000042") == [MESSAGE_ID]
    assert ids(findings=True) == [MESSAGE_ID]
    assert ids(sender="192.0.2.31") == sorted([MESSAGE_ID, "x", "y"])
    assert ids(since=NOW) == []
    assert find_message(postgres, "M9")["message_id"] == "y"
    with pytest.raises(NotFound, match="no such message"):
        find_message(postgres, "M77")


def test_a_control_id_of_several_messages_names_none(postgres: str) -> None:
    with connect(postgres) as connection:
        write(connection, example(MessageReceived), example(MessageReceived, message_id="y"))

    with pytest.raises(NotFound, match="Several"):
        find_message(postgres, "M000042")


def test_a_row_makes_the_event_again(postgres: str) -> None:
    event = example(MessageReceived)
    with connect(postgres) as connection:
        write(connection, event)
    row = json.loads(json.dumps(find_message(postgres, MESSAGE_ID), default=str))

    said = again(row, "new", NOW)

    assert said == replace(event, message_id="new", received_at=NOW, replays=MESSAGE_ID, processing_id="")


def test_messages_are_found_by_the_patients_and_orders_that_they_name(postgres: str) -> None:
    head = "MSH|^~\\&|RIS||||202601021000||ADT^A08|1|P|2.5\r"
    said = {"updated": ("new", ""), "gone": ("old", "new")}
    with connect(postgres) as connection:
        write(
            connection,
            example(MessageReceived, message_id="a", text=f"{head}PID|||NEW^^^NORTH\r"),
            example(MessageReceived, message_id="b", text=f"{head}PID|||OLD^^^NORTH\rORC|NW|P1|F1\r"),
            example(MessageReceived, message_id="c", text=f"{head}PID|||OTHER\rTXA||||||||||||||P1\r"),
            example(MessageReceived, message_id="d", text="no message"),
            *(
                PatientChanged(
                    patient=Patient(key=key, ids=(Identifier(value=key.upper(), issuer="NORTH"),)),
                    version=1,
                    change="updated",
                    merged_into=into,
                    said_at=NOW,
                    changed_at=NOW,
                )
                for key, into in said.values()
            ),
        )

    def ids(**given: Any) -> list[str]:
        return sorted(line.message_id for line in list_messages(postgres, limit=10, **given))

    assert ids(patient="NEW") == ids(patient="OLD") == ["a", "b"]
    assert ids(patient="OTHER") == ["c"]
    assert ids(order="P1") == ["b", "c"]
    assert ids(order="F1", patient="NEW") == ["b"]
