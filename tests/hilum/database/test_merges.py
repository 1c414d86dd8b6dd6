"""Studies of a patient who was merged into another one: found by both identifiers, and by one again once that is taken back."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import psycopg
import pytest
from msgspec.structs import replace
from typer.testing import CliRunner

from hilum.cli import app
from hilum.contract.order_examples import ORDER_EXAMPLES
from hilum.database import connect
from hilum.database.known import IndexedInstances, Person
from hilum.database.order_queries import list_orders
from hilum.database.orders import write_orders, write_patients
from hilum.database.queries import list_studies
from hilum.events import OrderChanged, PatientChanged
from hilum.order_events import Identifier, Patient
from hilum.settings import Postgres, Settings

pytestmark = pytest.mark.system
NOW = datetime(2026, 1, 2, tzinfo=UTC)
STUDIES = """
INSERT INTO study (study_instance_uid, patient_id, issuer_of_patient_id, patient_name, receipt, received_at) VALUES
    ('1.1', 'OLD', NULL, 'Meyer^Ana', 'r1', '2026-01-01T12:00Z'), ('1.2', 'NEW', 'NORTH', 'Meier^Anna', 'r2', '2026-01-01T11:00Z'),
    ('1.3', 'OLD', 'SOUTH', 'Other^Olga', 'r3', '2026-01-01T10:00Z'), ('1.4', 'FIRST', 'NORTH', NULL, 'r4', '2026-01-01T09:00Z')
"""


def a_patient(key: str, *ids: str, into: str = "", version: int = 1, issuer: str = "NORTH", name: str = "") -> PatientChanged:
    return PatientChanged(
        patient=Patient(key=key, ids=tuple(Identifier(value=each, issuer=issuer) for each in ids), name=name),
        version=version,
        change="updated",
        merged_into=into,
        said_at=NOW,
        changed_at=NOW,
    )


@pytest.fixture
def connection(postgres: str) -> Iterator[psycopg.Connection]:
    """FIRST was merged into OLD, and OLD into NEW."""
    with connect(postgres) as opened:
        opened.execute("TRUNCATE patient, patient_id, scheduled_order, scheduled_step, study, match")
        opened.execute(STUDIES)
        new = a_patient("new", "NEW", "NEW-OF-INSURANCE", name="Meier^Anna")
        write_patients(opened, [new, a_patient("old", "OLD", into="new"), a_patient("first", "FIRST", into="new")])
        yield opened


@pytest.fixture
def index(postgres: str, connection: psycopg.Connection) -> IndexedInstances:
    assert connection.info.dbname  # what it asks about is there
    return IndexedInstances(Settings(postgres=Postgres(dsn=postgres)))


def found(dsn: str, like: str) -> list[str]:
    return [study.study_instance_uid for study in list_studies(dsn, like=like)]


@pytest.mark.usefixtures("connection")
@pytest.mark.parametrize(
    ("like", "studies"),
    [("NEW", ["1.1", "1.2", "1.4"]), ("OLD", ["1.1", "1.2", "1.3", "1.4"]), ("FIRST", ["1.1", "1.2", "1.4"]), ("NOBODY", [])],
)
def test_studies_are_found_by_every_identifier_that_merges_make_one_and_not_by_that_of_another_issuer(
    postgres: str, like: str, studies: list[str]
) -> None:
    assert found(postgres, like) == studies


@pytest.mark.usefixtures("connection")
def test_a_study_says_who_its_patient_is_now_and_who_it_was(postgres: str) -> None:
    [study] = list_studies(postgres, like="1.1")
    [of_south] = list_studies(postgres, like="1.3")

    assert (study.patient_id, study.current_patient_id, study.current_patient_name) == ("OLD", "NEW", "Meier^Anna")
    assert (of_south.patient_id, of_south.current_patient_id) == ("OLD", None)


def test_the_view_has_the_patient_after_merges_beside_that_of_the_images(connection: psycopg.Connection) -> None:
    query = "SELECT study_instance_uid, patient_id, current_patient_id, current_issuer, current_patient_name FROM v_study ORDER BY 1"

    assert connection.execute(query).fetchall() == [
        ("1.1", "OLD", "NEW", "NORTH", "Meier^Anna"),
        ("1.2", "NEW", "NEW", "NORTH", "Meier^Anna"),
        ("1.3", "OLD", "OLD", "SOUTH", "Other^Olga"),
        ("1.4", "FIRST", "NEW", "NORTH", "Meier^Anna"),
    ]


def test_a_merge_that_is_taken_back_leaves_all_as_it_was(connection: psycopg.Connection, postgres: str) -> None:
    write_patients(connection, [a_patient("old", "OLD", version=2)])

    assert found(postgres, "NEW") == ["1.2", "1.4"]
    assert [study.current_patient_id for study in list_studies(postgres, like="OLD")] == [None, None]


def test_an_identifier_that_two_have_whom_nobody_tells_apart_is_nobody_s(connection: psycopg.Connection, postgres: str) -> None:
    write_patients(connection, [a_patient("south", "OLD", issuer="SOUTH")])

    assert [study.current_patient_id for study in list_studies(postgres, like="1.1")] == [None]


def test_the_index_knows_who_a_patient_is_by_any_identifier(index: IndexedInstances) -> None:
    asked = [("OLD", "NORTH"), ("NEW-OF-INSURANCE", ""), ("OLD", "SOUTH"), ("NOBODY", "")]

    assert index.persons(asked) == {
        ("OLD", "NORTH"): Person(key="new", patient_id="NEW", issuer="NORTH", merged=True),
        ("NEW-OF-INSURANCE", ""): Person(key="new", patient_id="NEW", issuer="NORTH", merged=False),
    }


def test_the_index_knows_how_a_study_fits_its_order(index: IndexedInstances, connection: psycopg.Connection) -> None:
    connection.execute(
        "INSERT INTO match (about, id, version, outcome, study_instance_uid, order_ids, candidates, differences, cause, changed_at)"
        " VALUES ('study', '1.1', 1, 'matched', '1.1', '{}', '{}', '[]', 'order', now())"
    )

    assert {uid: study.order_match for uid, study in index.studies(["1.1", "1.2"]).items()} == {"1.1": "matched", "1.2": ""}


def test_an_order_is_found_by_a_former_identifier_of_its_patient(connection: psycopg.Connection, postgres: str) -> None:
    example = ORDER_EXAMPLES[OrderChanged]()
    assert isinstance(example, OrderChanged)
    patient = Patient(key="new", ids=(Identifier(value="NEW", issuer="NORTH"),))
    write_orders(connection, [replace(example, order=replace(example.order, patient=patient))])

    assert [order.patient_id for order in list_orders(postgres, like="FIRST")] == ["NEW"]


@pytest.mark.usefixtures("connection")
def test_the_commands_show_who_it_is_and_what_the_images_say(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HILUM_POSTGRES__DSN", postgres)
    monkeypatch.setenv("HILUM_KAFKA__BOOTSTRAP", "127.0.0.1:1")
    monkeypatch.setenv("HILUM_S3__ENDPOINT", "http://127.0.0.1:1")
    listed = CliRunner().invoke(app, ["study", "list", "1.1"]).stdout

    assert "NEW (was OLD)\tMeier^Anna" in listed
