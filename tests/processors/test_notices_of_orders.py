"""What messages say of orders: of every one that a study or step is for, with the service and identifiers that the order has."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace
from typer.testing import CliRunner

from hilum.cli import app
from hilum.database import connect
from hilum.database.deliveries import Selection, list_deliveries, show_deliveries
from hilum.database.orders import write_matches
from hilum.events import InstanceAccepted, OrderChanged, PatientChanged
from hilum.hl7.message import Message, parse
from hilum.order_events import Identifier, Order, Patient
from hilum.procedure_events import PerformedOf
from hilum.testing import an_instance
from processors.notices import Notices
from tests.ingest.worklist.steps import a_step, an_order
from tests.processors.test_notices import EVERYTHING, NOW, STUDY, Hospital, a_change, a_match, a_message, a_step_event

pytestmark = pytest.mark.system


def an_order_of(number: str, **values: Any) -> Order:
    placer, filler = Identifier(value=f"P{number}"), Identifier(value=f"F{number}")
    return an_order(number, a_step(number, "202607050800"), placer=placer, filler=filler, **values)


@pytest.fixture
def hospital(postgres: str) -> Iterator[Hospital]:
    """A study with another UID than that of its order, by whose accession number it was matched, and a second order."""
    found = Hospital(postgres, NOW - timedelta(hours=1), ris={"on": EVERYTHING, "delivered_to": ["pacs"], "message": "OMG^O19"})
    instance = an_instance(StudyInstanceUID=STUDY, PatientID="PID1", PatientName="Test^Case", AccessionNumber="ACC7")
    orders = [OrderChanged(order=an_order_of(number), change="new", changed_at=NOW) for number in ("7", "8")]
    found.index(InstanceAccepted.following(instance), *orders)
    yield found
    found.connection.close()


def messages(hospital: Hospital) -> list[Message]:
    return [parse(text) for text in hospital.texts()]


def test_a_study_has_the_numbers_and_the_service_of_the_order_that_it_was_matched_with(hospital: Hospital) -> None:
    hospital.index(a_match("o7"))
    hospital.told(a_change("opened", 0), a_change("completed"))

    for message in messages(hospital):
        assert (message.get("ORC-2"), message.get("ORC-3"), message.get("OBR-2"), message.get("OBR-3")) == ("P7", "F7", "P7", "F7")
        assert [message.get(f"OBR-4.{n}") for n in (1, 2, 3)] == ["C1", "Examination", "99SITE"]


def test_how_a_study_fits_its_orders_is_waited_for_and_not_for_long(hospital: Hospital) -> None:
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            with connect(hospital.settings.postgres.dsn) as other:
                write_matches(other, [a_match("o7")])

    hospital.notices = Notices(hospital.settings, pause=pause)
    hospital.told(a_change("opened", 0))
    assert pauses == []  # nobody matches here

    hospital.index(replace(a_match("o8"), study_instance_uid="2.25.77"))
    hospital.told(a_change("completed"))
    assert len(pauses) == 3
    assert [each.get("ORC-2") for each in messages(hospital)] == ["", "P7"]

    hospital.connection.execute("DELETE FROM match WHERE id = %s", (STUDY,))
    began = datetime.now(UTC)
    hospital.told(a_change("completed", 2), at=began - timedelta(seconds=4.9))
    assert len(pauses) > 3
    assert len(messages(hospital)) == 3


def test_each_order_that_a_step_performs_is_told(hospital: Hospital) -> None:
    group = tuple(
        PerformedOf(study_instance_uid="2.25.107", accession_number=f"ACC{n}", procedure_id=f"RP{n}", step_id=f"SPS{n}") for n in ("7", "8")
    )
    twice = replace(group[0], step_id="SPS9")
    begun, ended = (replace(a_step_event(state, n), scheduled=(*group, twice)) for n, state in ((1, "in-progress"), (2, "completed")))

    told = hospital.told(begun, ended)
    assert hospital.told(begun, ended) == told == [("step-started", "ris")] * 2 + [("step-completed", "ris")] * 2
    said = messages(hospital)
    assert [(each.get("ORC-2"), each.get("ORC-3"), each.get("OBR-4"), each.get("ORC-5")) for each in said] == [
        ("P7", "F7", "C1", "IP"),
        ("P8", "F8", "C1", "IP"),
        ("P7", "F7", "C1", "CM"),
        ("P8", "F8", "C1", "CM"),
    ]
    assert len({each.get("MSH-10") for each in said}) == 4


def test_the_patient_has_the_authority_and_the_kind_of_identifier_that_messages_gave(hospital: Hospital) -> None:
    said: dict[str, Any] = {"version": 1, "change": "updated", "said_at": NOW, "changed_at": NOW}
    ids = (Identifier(value="PID1", issuer="NORTH", type="MR"),)
    hospital.index(PatientChanged(patient=Patient(key="k", ids=ids, name="Other^Name"), **said), a_match("o7"))
    hospital.told(replace(a_step_event("completed", 1), patient_id="PID1", patient_name="Doe^John"), a_change("completed"))

    for message, name in zip(messages(hospital), ("Doe", "Test"), strict=True):
        assert [message.get(f"PID-3.{n}") for n in (1, 4, 5)] == ["PID1", "NORTH", "MR"]
        assert message.get("PID-5.1") == name


def test_two_destinations_are_told_under_two_control_ids(postgres: str) -> None:
    hospital = Hospital(postgres, ris={"on": ["quarantined", "step-started", "message"]}, emr={"on": ["step-started", "message"]})
    hospital.told(a_step_event("in-progress", 1), a_message(1))

    ids = [each.get("MSH-10") for each in messages(hospital)]
    assert (len(set(ids[:2])), ids[2:]) == (2, ["C1", "C1"])
    assert all(len(each) <= 20 for each in ids)
    hospital.connection.close()


def test_a_message_that_is_said_again_goes_to_others_only_if_somebody_asks_for_it(hospital: Hospital) -> None:
    assert hospital.told(replace(a_message(1), replays="m0")) == []
    assert hospital.told(replace(a_message(2), replays="m0", pass_on=True)) == [("message", "ris")]


def test_a_message_with_a_nul_in_its_control_id_is_passed_on(hospital: Hospital) -> None:
    event = replace(a_message(1), control_id="C\x001", text=a_message(1).text.replace("|C1|", "|C\x001|"))

    assert hospital.told(event) == [("message", "ris")]
    [(control_id, content)] = hospital.connection.execute("SELECT control_id, content FROM hl7_outgoing").fetchall()
    assert (control_id, b"|C\x001|" in content) == ("C1", True)


def test_the_ledger_names_messages_by_type_and_control_id(postgres: str) -> None:
    hospital = Hospital(postgres, viewer={"on": ["message", "step-started"]}, mpps={"type": "mpps", "aet": "RIS"})
    said = {"00400252": {"vr": "CS", "Value": ["IN PROGRESS"]}}
    step = replace(a_step_event("in-progress", 1), said=said, calling_aet="CT1")
    hospital.told(replace(a_message(1), text=a_message(1).text.replace("|", "#").replace("^", "?")), step, replace(step, revision=2))
    hospital.connection.execute("UPDATE delivery SET state = 'parked', parked_at = now()")
    hospital.connection.close()

    found = list_deliveries(postgres, Selection())
    about = [each.message for each in found if each.message]
    assert {(each.kind, each.type) for each in about} == {
        ("message", "ADT^A08"),
        ("step-started", "ORU^R01"),
        ("mpps", "N-CREATE"),
        ("mpps", "N-SET"),
    }
    assert {(each.control_id, each.message_id) for each in about if each.kind == "message"} == {("C1", "m1")}
    assert {(each.control_id, each.study_instance_uid) for each in about if each.kind == "mpps"} == {("2.25.500", STUDY)}
    assert show_deliveries(postgres, found[0].delivery_id)[0].message == found[0].message
    store = {"HILUM_S3__ENDPOINT": "http://none:1", "HILUM_S3__ACCESS_KEY": "none", "HILUM_S3__SECRET_KEY": "none"}
    environment = {"HILUM_POSTGRES__DSN": postgres, "HILUM_KAFKA__BOOTSTRAP": "none:1", **store}
    assert "ADT^A08 C1" in CliRunner().invoke(app, ["deliver", "list"], env=environment).stdout
