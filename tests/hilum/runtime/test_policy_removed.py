"""What was entered to leave de-identified does not leave as it is when its destination has no policy any more."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from typer.testing import CliRunner, Result

from hilum import bus
from hilum.cli import app
from hilum.database import connect
from hilum.database.choices import add
from hilum.database.deidentified import outputs
from hilum.database.deliveries import Selection
from hilum.database.let_out import accept
from hilum.database.under_policy import remember
from hilum.deid_sections import Deid
from hilum.deliveries import Run, retry
from hilum.loosened import LetsOut
from hilum.part10 import Part10
from hilum.runtime.delivery.queue import Queue
from hilum.settings import Postgres, Settings
from hilum.sink import Delivery, Settled
from hilum.testing import MemoryStore, eventually
from tests.hilum.test_anonymizing import key_file, stored
from tests.ledger import DELIVERED, Scripted, enter, rows, working

pytestmark = pytest.mark.system

UID = "1.2.3.6"


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def deid(tmp_path: Path) -> Deid:
    return Deid(key_path=str(key_file(tmp_path)), policies="/nonexistent", default_issuer="NORTH")


@pytest.fixture(autouse=True)
def nobody(postgres: str) -> None:
    """Nobody chose anything, and nothing left."""
    with connect(postgres) as connection:
        connection.execute("TRUNCATE patient, patient_id, patient_choice, deidentified, identified_decision, policy_project")


def reads(_: Delivery, part10: Part10) -> Settled:
    part10.file()
    return DELIVERED


def settled(postgres: str, state: str) -> dict[str, Any]:
    eventually(lambda: rows(postgres)[UID]["state"] == state)
    return rows(postgres)[UID]


def taken_off(postgres: str) -> None:
    """Somebody accepts that the destination has no policy any more."""
    accept(postgres, [("study", LetsOut())], by="me", why="our own archive")


def decisions(dsn: str) -> list[tuple[Any, ...]]:
    with connect(dsn) as connection:
        return connection.execute("SELECT delivery_id, destination, policy, why FROM identified_decision").fetchall()


def test_what_waited_under_a_policy_is_put_aside_once_its_destination_has_none(postgres: str, store: MemoryStore) -> None:
    enter(postgres, replace(stored(store), under_policy="research"))
    sink = Scripted(answer=reads)
    with working(postgres, store, sink, name="study"):
        row = settled(postgres, "parked")
        retry(Settings(postgres=Postgres(dsn=postgres)), Selection(destination="study"))
        eventually(lambda: (rows(postgres)[UID]["parked_at"] or row["parked_at"]) > row["parked_at"])

    assert not sink.seen
    assert "It was to leave by the policy research, and its destination has no policy any more." in row["comment"]
    assert "hilum deliver retry --identified" in row["comment"]


def test_what_was_held_under_a_policy_is_remembered_whoever_entered_it(postgres: str, store: MemoryStore, deid: Deid) -> None:
    enter(postgres, stored(store, BurnedInAnnotation="YES"))
    with working(postgres, store, Scripted(answer=reads, policy="research"), name="study", deid=deid):
        assert settled(postgres, "parked")["under_policy"] == "research"
    retry(Settings(postgres=Postgres(dsn=postgres)), Selection(destination="study"))
    taken_off(postgres)
    with working(postgres, store, sink := Scripted(answer=reads), name="study", deid=deid):
        settled(postgres, "parked")

    assert not sink.seen


def test_what_an_earlier_release_entered_is_remembered_without_being_tried(postgres: str, store: MemoryStore) -> None:
    enter(postgres, stored(store))
    with connect(postgres) as connection:
        remember(connection, "study", "basic")
        remember(connection, "another", "research")

    assert rows(postgres)[UID]["under_policy"] == "basic"


def test_by_another_policy_it_leaves(postgres: str, store: MemoryStore, deid: Deid) -> None:
    enter(postgres, replace(stored(store), under_policy="research"))
    with working(postgres, store, Scripted(answer=reads, policy="basic"), name="study", deid=deid):
        row = settled(postgres, "delivered")

    assert (row["policy"], row["under_policy"]) == ("basic", "basic")


def test_it_leaves_as_it_is_once_somebody_decides_so_by_name(postgres: str, store: MemoryStore) -> None:
    delivery = replace(stored(store), under_policy="research")
    enter(postgres, delivery)
    settings = Settings(postgres=Postgres(dsn=postgres))
    with working(postgres, store, sink := Scripted(answer=reads), name="study"):
        settled(postgres, "parked")
        assert retry(settings, Selection(destination="study"), identified=True, why="our own archive") == 1
        row = settled(postgres, "delivered")

    assert sink.seen == [UID]
    assert (row["policy"], row["identified"]) == (None, True)
    assert decisions(postgres) == [(delivery.delivery_id, "study", "research", "our own archive")]


def test_a_decision_is_taken_back_by_a_policy_and_by_another_retry(postgres: str, store: MemoryStore, deid: Deid) -> None:
    settings = Settings(postgres=Postgres(dsn=postgres))
    enter(postgres, replace(stored(store, BurnedInAnnotation="YES"), under_policy="research"))
    with working(postgres, store, Scripted(answer=reads), name="study"):
        settled(postgres, "parked")
    retry(settings, Selection(destination="study"), identified=True, why="mistaken")
    with working(postgres, store, Scripted(answer=reads, policy="research"), name="study", deid=deid):
        assert not settled(postgres, "parked")["identified"]
    retry(settings, Selection(destination="study"), identified=True, why="mistaken")
    retry(settings, Selection(destination="study", states=("pending",)))  # which is due, and stays as it is

    assert rows(postgres)[UID]["identified"]
    with connect(postgres) as connection:
        connection.execute("UPDATE delivery SET state = 'parked'")
    retry(settings, Selection(destination="study"))
    assert not rows(postgres)[UID]["identified"]


@pytest.mark.parametrize("project", ["research", "", "heart"])
def test_who_opted_out_is_held_whatever_was_decided(postgres: str, store: MemoryStore, deid: Deid, project: str) -> None:
    with connect(postgres) as connection:
        connection.execute("INSERT INTO policy_project (policy, project) VALUES ('research', 'heart')")
    add(postgres, "opt-out", [("p-1234567", "NORTH")], project, "me", "")
    enter(postgres, replace(stored(store), under_policy="research"))
    with working(postgres, store, sink := Scripted(answer=reads), name="study", deid=deid):
        settled(postgres, "parked")
        retry(Settings(postgres=Postgres(dsn=postgres)), Selection(destination="study"), identified=True, why="all of it")
        eventually(lambda: "opted out" in (rows(postgres)[UID]["comment"] or ""))

    assert not sink.seen


@pytest.mark.parametrize(("attributes", "leaves"), [({"PatientID": "UNKNOWN"}, False), ({"OtherPatientIDs": ["0"]}, True)])
def test_who_stands_for_nobody_is_held_once_anybody_opted_out_and_nothing_is_by_such_an_identifier_besides(
    postgres: str, store: MemoryStore, deid: Deid, attributes: dict[str, Any], leaves: bool
) -> None:
    add(postgres, "opt-out", [("SOMEBODY", "NORTH")], "research", "me", "")
    enter(postgres, replace(stored(store, **attributes), under_policy="research"))
    with working(postgres, store, Scripted(answer=reads), name="study", deid=deid):
        settled(postgres, "parked")
        retry(Settings(postgres=Postgres(dsn=postgres)), Selection(destination="study"), identified=True, why="all of it")
        row = eventually(lambda: each if (each := rows(postgres)[UID])["state"] == "delivered" or "opted out" in each["comment"] else {})

    assert (row["state"] == "delivered") == leaves


def test_what_left_as_it_is_after_all_is_not_told_as_held(postgres: str, store: MemoryStore, deid: Deid) -> None:
    enter(postgres, stored(store, BurnedInAnnotation="YES"))
    with working(postgres, store, Scripted(answer=reads, policy="research"), name="study", deid=deid):
        settled(postgres, "parked")
    assert [each.state for each in outputs(postgres, "research")] == ["held"]
    retry(Settings(postgres=Postgres(dsn=postgres)), Selection(destination="study"), identified=True, why="ours")
    taken_off(postgres)
    with working(postgres, store, Scripted(answer=reads), name="study", deid=deid):
        settled(postgres, "delivered")

    assert [each.state for each in outputs(postgres, "research")] == ["identified"]


def test_what_left_by_a_policy_does_not_go_once_more_without_one(postgres: str, store: MemoryStore, deid: Deid) -> None:
    enter(postgres, stored(store))
    with working(postgres, store, Scripted(answer=reads, policy="research"), name="study", deid=deid):
        settled(postgres, "delivered")
    settings = Settings(postgres=Postgres(dsn=postgres))
    Run(destination="study", again=True).enter(settings)
    queue = Queue(postgres, "study", str(uuid.uuid4()), bus.Writer(settings, "deliver"))
    [again] = queue.claim(10)
    queue.close()

    assert again.under_policy == "research"


@pytest.mark.parametrize(("of_destination", "of_run"), [("research", ""), (None, "research")])
def test_what_is_entered_by_hand_is_to_leave_by_the_policy_of_its_destination_or_its_run(
    postgres: str, store: MemoryStore, of_destination: str | None, of_run: str
) -> None:
    enter(postgres, stored(store))
    with working(postgres, store, Scripted(answer=reads), name="study"):
        settled(postgres, "delivered")
    with connect(postgres) as connection:  # as if it had left by the policy, which an earlier release did not note
        connection.execute(
            "INSERT INTO deidentified (delivery_id, destination, policy, policy_version, key_id, study_instance_uid, sop_instance_uid,"
            " sent_study, sent_series, sent_as, sent_at) SELECT delivery_id, destination, 'research', 'v', 'k', study_instance_uid,"
            " sop_instance_uid, '2.25.1', '2.25.2', '2.25.3', now() FROM delivery"
        )
    settings = Settings(postgres=Postgres(dsn=postgres))
    Run(destination="later", policy=of_run, again=not of_run, of="study" if not of_run else "").enter(settings, of_destination)
    queue = Queue(postgres, "later", str(uuid.uuid4()), bus.Writer(settings, "deliver"))
    [entered] = queue.claim(10)
    queue.close()

    assert entered.under_policy == "research"


def test_the_command_asks_for_a_choice_and_a_reason(postgres: str, store: MemoryStore, tmp_path: Path) -> None:
    delivery = replace(stored(store), under_policy="research")
    enter(postgres, delivery)
    (tmp_path / "hilum.toml").write_text('[destinations.study]\ntype = "archive"\n')
    environment = {"HILUM_CONFIG": str(tmp_path / "hilum.toml"), "HILUM_POSTGRES__DSN": postgres}
    environment |= {"HILUM_S3__ENDPOINT": "http://none:1", "HILUM_KAFKA__BOOTSTRAP": "none:1"}

    def hilum(*words: str) -> Result:
        return CliRunner().invoke(app, ["deliver", *words], env=environment)

    with working(postgres, store, Scripted(answer=reads), name="study"):
        settled(postgres, "parked")

    for words in (["--identified", "--destination", "study"], ["--identified", "--why", "ours"]):
        assert "kept why" in str(hilum("retry", *words, "--yes").exception)
    counted = hilum("retry", "--identified", "--why", "ours", "--destination", "study")
    assert "1 would leave as they are, with names; --yes does it." in counted.output
    assert not rows(postgres)[UID]["identified"]
    assert "1 were retried." in hilum("retry", "--identified", "--why", "ours", "--destination", "study", "--yes").output
    assert "ours" in hilum("show", delivery.delivery_id).output
