"""What the index makes of events of orders, patients and matches."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from msgspec.structs import replace
from psycopg import sql
from psycopg.rows import dict_row

from hilum.contract.order_examples import ORDER_EXAMPLES
from hilum.database import connect
from hilum.events import Event, MatchChanged, OrderChanged, PatientChanged
from hilum.order_events import Note
from hilum.runtime.tables import Envelope
from processors.index import Index

pytestmark = pytest.mark.system

NOTE = Note(code="stale-message", sentence="It came too late.")


def example(kind: type[Event]) -> Any:
    return ORDER_EXAMPLES[kind]()


def write(connection: psycopg.Connection, *events: Event) -> None:
    envelope = Envelope("id", datetime(2026, 1, 2, tzinfo=UTC), "")
    Index().apply(connection, [(event, envelope) for event in events])  # type: ignore[misc]  # of its inputs


def rows(connection: psycopg.Connection, table: str) -> list[dict[str, Any]]:
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(sql.SQL("SELECT * FROM {} ORDER BY 1, 2, 3").format(sql.Identifier(table))).fetchall()


@pytest.fixture
def connection(postgres: str) -> Iterator[psycopg.Connection]:
    with connect(postgres) as opened:
        opened.execute("TRUNCATE scheduled_order, scheduled_step, patient, patient_id, match")
        yield opened


def test_an_order_is_a_row_and_each_of_its_steps_is_one(connection: psycopg.Connection) -> None:
    write(connection, example(OrderChanged))

    (order,), (step,) = rows(connection, "scheduled_order"), rows(connection, "scheduled_step")
    assert (order["accession_number"], order["patient_id"], order["status"]) == ("SYN0001", "SYNTH0001", "scheduled")
    assert (step["modality"], step["station_ae_titles"], step["start_date"]) == ("CT", ["CT01"], "20260102")
    assert order["detail"]["procedures"][step["procedure_number"]]["steps"][step["step_number"]]["step_id"] == step["step_id"]


def test_of_an_order_the_latest_version_holds_in_whatever_order_they_are_read(connection: psycopg.Connection) -> None:
    first = example(OrderChanged)
    later = replace(first, order=replace(first.order, version=2, status="cancelled", procedures=()), change="cancelled")
    write(connection, later)
    write(connection, first)

    assert [row["status"] for row in rows(connection, "scheduled_order")] == ["cancelled"]
    assert rows(connection, "scheduled_step") == []


def test_notes_of_former_changes_stay(connection: psycopg.Connection) -> None:
    first = replace(example(OrderChanged), notes=(NOTE,))
    later = replace(first, order=replace(first.order, version=2), notes=())
    write(connection, first)
    write(connection, later)

    assert [note["code"] for row in rows(connection, "scheduled_order") for note in row["notes"]] == ["stale-message"]


def test_an_order_that_turned_out_to_be_another_has_no_steps_any_more(connection: psycopg.Connection) -> None:
    first = example(OrderChanged)
    write(connection, first)
    write(connection, replace(first, order=replace(first.order, version=2), change="superseded", superseded_by="another"))

    assert rows(connection, "scheduled_step") == []


def test_a_patient_is_a_row_with_a_row_for_each_identifier_it_has_now(connection: psycopg.Connection) -> None:
    first = example(PatientChanged)
    other = replace(first.patient.ids[0], value="SYNTH0002")
    write(connection, first)
    write(connection, replace(first, version=3, patient=replace(first.patient, ids=(other,)), merged_into="else"))

    assert [row["value"] for row in rows(connection, "patient_id")] == ["SYNTH0002"]
    assert [row["merged_into"] for row in rows(connection, "patient")] == ["else"]


def test_a_match_is_a_row_for_each_study_and_order(connection: psycopg.Connection) -> None:
    event: MatchChanged = example(MatchChanged)
    write(connection, event, replace(event, about="order", outcome="imaged"))
    write(connection, replace(event, outcome="matched", version=3, differences=()))

    assert [(row["about"], row["outcome"]) for row in rows(connection, "match")] == [("order", "imaged"), ("study", "matched")]
