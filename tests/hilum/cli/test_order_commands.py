"""How `hilum order`, `hilum patient` and `hilum study match` answer, on tables that the index has written."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from msgspec.structs import replace
from typer.testing import CliRunner

from hilum.cli import app
from hilum.cli.ordered import order_in_words
from hilum.contract.hl7_examples import HL7_EXAMPLES
from hilum.contract.order_examples import ORDER_EXAMPLES
from hilum.database import connect
from hilum.database.hl7_messages import write_messages
from hilum.database.ordered import ordered, planned, studies_of
from hilum.database.orders import write_matches, write_orders, write_patients
from hilum.database.troubles import misfits_of_late
from hilum.errors import HilumError, NotFound
from hilum.events import Event, MatchChanged, MessageReceived, OrderChanged, PatientChanged
from hilum.order_events import Identifier, Note

pytestmark = pytest.mark.system

STUDY = "2.25.3211"


def example(kind: type[Event]) -> Any:
    return ORDER_EXAMPLES[kind]()


@pytest.fixture
def connection(postgres: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[psycopg.Connection]:
    monkeypatch.setenv("HILUM_POSTGRES__DSN", postgres)
    monkeypatch.setenv("HILUM_KAFKA__BOOTSTRAP", "127.0.0.1:1")
    monkeypatch.setenv("HILUM_S3__ENDPOINT", "http://127.0.0.1:1")
    with connect(postgres) as opened:
        opened.execute("TRUNCATE scheduled_order, scheduled_step, patient, patient_id, match, study, instance, series")
        opened.execute(
            "INSERT INTO study (study_instance_uid, accession_number, patient_id, receipt, received_at)"
            " VALUES (%s, 'SYN0001', 'SYNTH0001', 'r', now())",
            (STUDY,),
        )
        write_orders(opened, [replace(example(OrderChanged), notes=(Note(code="stale-message", sentence="Late."),))])
        yield opened


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments))
    if isinstance(result.exception, HilumError):
        raise result.exception
    return result.stdout


@pytest.mark.usefixtures("connection")
def test_orders_are_listed_and_can_be_looked_for() -> None:
    assert "SYN0001\tSYNTH0001\tSynthetic^Sam\tCT\tCT of the head\tscheduled\tawaited\tstale-message" in run("order", "list", "SYN0001")
    assert run("order", "list", "--images", "no-images") == "No such order is known.\n"
    assert json.loads(run("order", "list", "synthetic", "--noted", "--json"))[0]["accession_number"] == "SYN0001"


@pytest.mark.usefixtures("connection")
def test_an_order_is_shown_by_any_of_its_numbers() -> None:
    shown = run("order", "show", "PL0001")

    assert "AccessionNumber\tSYN0001 of RIS" in shown
    assert "2.25.3211\tSYN0001 of RIS\tCT of the head\tSPS0001\tCT\tCT01\t" in shown
    assert "stale-message\tLate." in shown


def test_documents_that_name_the_order_and_its_patient_are_shown_with_it(connection: psycopg.Connection) -> None:
    received = HL7_EXAMPLES[MessageReceived]()
    assert isinstance(received, MessageReceived)

    def document(message_id: str, patient: str, order: str) -> MessageReceived:
        text = f"MSH|^~\\&|D||||||MDM^T02|1|P|2.5\rPID|||{patient}\rTXA|1|DI||||||||||{message_id}||{order}|||AU\r"
        return replace(received, message_id=message_id, code="MDM", trigger="T02", text=text)

    connection.execute("DELETE FROM hl7_message")
    write_messages(connection, [document("DOC-1", "SYNTH0001", "PL0001"), document("DOC-2", "OTHER", "PL0001")])
    shown = run("order", "show", "PL0001")

    assert "MDM^T02\tDI\tDOC-1\tAU\tDOC-1" in shown
    assert "DOC-2" not in shown


@pytest.mark.usefixtures("connection")
def test_an_order_that_nobody_knows_is_not_found() -> None:
    with pytest.raises(NotFound):
        run("order", "show", "NOBODY")


def test_a_study_shows_what_differs_with_both_values(connection: psycopg.Connection) -> None:
    write_matches(connection, [replace(example(MatchChanged), study_instance_uid=STUDY)])
    shown = run("study", "match", "SYN0001")

    assert "Outcome\tmismatched" in shown
    assert "SYN0001 of RIS\tPL0001\tFI0001\tSYNTH0001 of NORTH\t2026-01-02" in shown
    assert "\tCT\tCT of the head\tscheduled\t" in shown
    assert "PatientName\tSynthetic^Sam\tSynthetic^Samuel" in shown


def test_a_study_is_told_of_with_its_order_and_how_it_fits(connection: psycopg.Connection, postgres: str) -> None:
    write_matches(connection, [example(MatchChanged)])
    found = ordered(postgres, STUDY)

    assert [(each.accession_number, each.stations, each.sender) for each in found.orders] == [("SYN0001", ["CT01"], "ris")]
    assert order_in_words(found) == "mismatched with SYN0001: PatientName differs (`hilum study match`)"


def test_a_study_is_found_by_the_numbers_of_its_order_whatever_its_images_say(connection: psycopg.Connection, postgres: str) -> None:
    write_matches(connection, [example(MatchChanged)])

    assert [studies_of(postgres, number) for number in ("SYN0001", "PL0001", "FI0001", "X")] == [[STUDY], [STUDY], [STUDY], []]


@pytest.mark.usefixtures("connection")
def test_a_study_of_which_nothing_came_is_known_by_its_order(postgres: str) -> None:
    for name in (STUDY, "SYN0001", "PL0001"):
        found = planned(postgres, name)
        assert found is not None
        assert [(each.study_instance_uid, each.status) for each in found.orders] == [(STUDY, "scheduled")]
    assert planned(postgres, "2.25.1") is None


def test_studies_are_listed_by_how_they_fit(connection: psycopg.Connection) -> None:
    write_matches(connection, [example(MatchChanged)])

    assert "\tmismatched\t" in run("study", "list", "--order", "mismatched")
    assert run("study", "list", "--order", "no-order") == "No such study is in the index.\n"


def test_what_came_not_to_fit_of_late_is_counted_until_it_is_accepted(connection: psycopg.Connection, postgres: str) -> None:
    event = replace(example(MatchChanged), changed_at=datetime.now(UTC))
    old = replace(event, study_instance_uid="2.25.1", changed_at=datetime.now(UTC) - timedelta(hours=25))
    no_images = replace(event, about="order", outcome="no-images")
    write_matches(connection, [event, old, replace(event, study_instance_uid="2.25.2", coercible=True), no_images])

    found = [(each.about, each.outcome, each.count) for each in misfits_of_late(postgres)]
    run("study", "match", STUDY, "--accept", "--yes")

    assert found == [("study", "mismatched", 1), ("order", "no-images", 1)]
    assert [each.about for each in misfits_of_late(postgres)] == ["order"]


@pytest.mark.usefixtures("connection")
def test_a_study_that_was_held_against_nothing_says_so() -> None:
    assert "not held against any order yet" in run("study", "match", STUDY)


def test_a_person_may_accept_a_study_as_it_is(connection: psycopg.Connection) -> None:
    write_matches(connection, [replace(example(MatchChanged), study_instance_uid=STUDY)])

    assert "With --yes it would be delivered so." in run("study", "match", STUDY, "--accept")
    assert json.loads(run("study", "match", STUDY, "--accept", "--yes", "--why", "spelling", "--json"))["accepted"] is True
    assert ": spelling" in run("study", "match", STUDY)


def test_a_matched_study_has_nothing_to_accept(connection: psycopg.Connection) -> None:
    write_matches(connection, [replace(example(MatchChanged), study_instance_uid=STUDY, outcome="matched")])

    with pytest.raises(HilumError, match="nothing to accept"):
        run("study", "match", STUDY, "--accept", "--yes")


def test_a_matched_study_whose_order_is_not_in_the_index_may_be_accepted(connection: psycopg.Connection) -> None:
    write_matches(connection, [replace(example(MatchChanged), study_instance_uid=STUDY, outcome="matched", order_ids=("set aside",))])

    assert json.loads(run("study", "match", STUDY, "--accept", "--yes", "--json"))["accepted"] is True


def test_what_modalities_did_for_an_order_is_shown_with_it(connection: psycopg.Connection) -> None:
    connection.execute("TRUNCATE performed_step, performed_of")
    for uid, state, wrong in (("2.25.1", "discontinued", True), ("2.25.2", "completed", False)):
        connection.execute(
            "INSERT INTO performed_step (sop_instance_uid, revision, state, station_aet, modality, start_date, start_time, wrong_entry,"
            " objects, calling_aet, began_at, changed_at)"
            " VALUES (%s, 1, %s, 'CT01', 'CT', '20260102', '101500', %s, 3, 'CT01', now(), now())",
            (uid, state, wrong),
        )
        connection.execute("INSERT INTO performed_of VALUES (%s, 0, '2.25.3211', 'SPS0001', '', '')", (uid,))
    shown = run("order", "show", "PL0001")

    assert "SPS0001\tdiscontinued, wrong entry chosen\tCT01\tCT\t20260102 101500\t\t3\t2.25.1" in shown
    assert "SPS0001\tcompleted\tCT01" in shown


def test_a_patient_is_shown_with_those_that_are_linked_with_it(connection: psycopg.Connection) -> None:
    changed: PatientChanged = example(PatientChanged)
    linked = replace(changed.patient, linked_ids=(Identifier(value="OTHER", issuer="SOUTH"),))
    write_patients(connection, [replace(changed, patient=linked)])

    assert "\tOTHER\t" in run("patient", "show", "SYNTH0001")


def test_a_merged_patient_is_shown_and_would_be_unmerged(connection: psycopg.Connection) -> None:
    gone: PatientChanged = example(PatientChanged)
    stays = replace(gone, patient=replace(gone.patient, key="stays", ids=(Identifier(value="NEW", issuer="NORTH"),)))
    write_patients(connection, [replace(gone, merged_into="stays"), stays])

    assert "SYNTH0001\tNORTH\tSynthetic^Sam\t19700203\tO\tNEW" in run("patient", "show", "SYNTH0001")
    assert "with --yes it would stand for itself again" in run("patient", "unmerge", "SYNTH0001")
    with pytest.raises(HilumError, match="not merged"):
        run("patient", "unmerge", "NEW", "--yes")


def with_two_procedures() -> OrderChanged:
    """The example's order, with a second procedure that has an accession number and a modality of its own."""
    event: OrderChanged = example(OrderChanged)
    (first,) = event.order.procedures
    steps = tuple(replace(step, modality="MR", step_id="SPS0002") for step in first.steps)
    own, other = (Identifier(value=number, issuer="RIS") for number in ("SYN0001", "SYN0002"))
    second = replace(first, study_instance_uid="2.25.3212", description="MR of the head", accession=other, steps=steps)
    procedures = (replace(first, accession=own), second)
    return replace(event, order=replace(event.order, version=event.order.version + 1, procedures=procedures))


def test_an_order_is_found_by_the_accession_number_of_each_of_its_procedures(connection: psycopg.Connection) -> None:
    write_orders(connection, [with_two_procedures()])
    listed = json.loads(run("order", "list", "SYN0002", "--json"))
    shown = run("order", "show", "SYN0002")

    assert [each["modality"] for each in listed] == ["CT, MR"]
    assert "AccessionNumber\tSYN0001 of RIS, SYN0002\n" in shown
    assert "2.25.3211\tSYN0001 of RIS\tCT of the head" in shown
    assert "2.25.3212\tSYN0002 of RIS\tMR of the head" in shown


@pytest.mark.usefixtures("connection")
def test_when_a_step_starts_is_shown_as_in_the_list() -> None:
    (listed,) = run("order", "list", "SYN0001").splitlines()[1:]

    assert f"\t{listed.split(chr(9))[0]}\tscheduled" in run("order", "show", "SYN0001")


def test_patients_of_whom_something_was_noticed_are_listed(connection: psycopg.Connection) -> None:
    event: PatientChanged = example(PatientChanged)
    note = Note(code="order-number-missing", sentence="No number.")
    other = replace(event, patient=replace(event.patient, key="other", ids=(Identifier(value="OTHER"),)))
    write_patients(connection, [replace(event, notes=(note,)), other])

    assert [each["noted"] for each in json.loads(run("patient", "list", "--noted", "--json"))] == [["order-number-missing"]]
    assert len(run("patient", "list").splitlines()) == 3


def test_what_is_noticed_again_is_kept_once(connection: psycopg.Connection) -> None:
    event: OrderChanged = example(OrderChanged)
    notes = (Note(code="stale-message", sentence="Late."),)
    for more in (1, 2):
        write_orders(connection, [replace(event, order=replace(event.order, version=event.order.version + more), notes=notes)])

    assert len(json.loads(run("order", "show", "SYN0001", "--json"))[0]["notes"]) == 1
