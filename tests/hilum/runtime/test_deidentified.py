"""The ledger of what left de-identified, and workers of destinations with a policy."""

from __future__ import annotations

import json
import threading
import uuid
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace
from psycopg.rows import dict_row
from typer.testing import CliRunner, Result

from hilum import bus
from hilum.cli import app
from hilum.database import connect
from hilum.database.choices import add, end, listed
from hilum.database.deidentified import outputs
from hilum.database.deliveries import Selection
from hilum.database.queries import show_study
from hilum.database.withdrawing import to_take_back, withdrawn
from hilum.deid_sections import Deid
from hilum.deliveries import Run, retry
from hilum.errors import Misconfigured
from hilum.identity import Authorities
from hilum.order_events import Identifier, Patient
from hilum.part10 import Part10
from hilum.runtime.delivery.queue import Queue
from hilum.runtime.delivery.worker import Shared, Worker
from hilum.settings import Postgres, Settings
from hilum.sink import Delivery, Expected, Later, Settled, Sink, Waits
from hilum.testing import MemoryStore, eventually
from hilum.verify import verify
from tests.hilum.test_anonymizing import key_file, stored
from tests.ledger import DELIVERED, Scripted, enter, outbox, rows, working

pytestmark = pytest.mark.system


@pytest.fixture
def deid(tmp_path: Path) -> Deid:
    return Deid(key_path=str(key_file(tmp_path)), policies="/nonexistent")


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def left(dsn: str) -> list[dict[str, Any]]:
    with connect(dsn) as connection:
        return connection.cursor(row_factory=dict_row).execute("SELECT * FROM deidentified ORDER BY begun_at").fetchall()


def test_what_leaves_is_in_the_ledger_and_in_the_event(postgres: str, store: MemoryStore, deid: Deid) -> None:
    files: list[bytes] = []

    def takes(_: Delivery, part10: Part10) -> Settled:
        files.append(part10.file())
        return DELIVERED

    enter(postgres, stored(store))
    sink = Scripted(answer=takes, policy="research")
    with working(postgres, store, sink, name="study", deid=deid):
        eventually(lambda: rows(postgres)["1.2.3.6"]["state"] == "delivered")

    row, (kept,) = rows(postgres)["1.2.3.6"], left(postgres)
    assert sink.seen == [row["sent_as"]] != ["1.2.3.6"]
    assert b"Vandermeulen" not in files[0]
    for name in ("policy", "policy_version", "key_id", "sent_study", "sent_series", "sent_as", "sent_sha256"):
        assert row[name] == kept[name]
        assert row[name]
    assert kept["sent_at"] is not None
    (event,) = (msgspec.json.decode(bytes(each["value"])) for each in outbox(postgres))
    assert (event["policy"], event["policy_version"], event["key_id"]) == ("research", row["policy_version"], row["key_id"])
    assert event["sop_instance_uid"] == "1.2.3.6"
    assert row["sent_as"] not in str(event)


class Committing(Scripted, frozen=True, kw_only=True):
    """A sink whose peer has the object after the first attempt, and commits it at the second."""

    def awaits(self, delivery: Delivery) -> bool:
        return bool(self.seen)


def test_what_is_committed_after_the_policy_changed_is_told_as_it_left(
    postgres: str, store: MemoryStore, deid: Deid, tmp_path: Path
) -> None:
    def stores(_: Delivery, part10: Part10) -> Settled:
        part10.file()
        raise Waits("It has yet to commit it.", after_s=0.0)

    def commits(_: Delivery, __: Part10) -> Settled:
        return Settled(state="delivered", comment="committed")

    enter(postgres, stored(store))
    with working(postgres, store, Committing(answer=stores, policy="research"), name="study", deid=deid):
        (as_it_left,) = eventually(lambda: [each for each in left(postgres) if each["sent_sha256"]])
    (tmp_path / "research.toml").write_text('options = ["retain-device-identity"]')
    sink = Committing(answer=commits, policy="research", seen=["before"])
    with working(postgres, store, sink, name="study", deid=replace(deid, policies=str(tmp_path))):
        eventually(lambda: rows(postgres)["1.2.3.6"]["state"] == "delivered")

    row, kept = rows(postgres)["1.2.3.6"], [each for each in left(postgres) if each["sent_at"]]
    version = as_it_left["policy_version"]
    assert row["comment"] == f"committed De-identified by research {version}."
    assert [(each["policy_version"], each["sent_sha256"]) for each in kept] == [(version, as_it_left["sent_sha256"])]
    assert kept[0]["sent_patient"]


def test_before_anything_leaves_it_is_written_down(postgres: str, store: MemoryStore, deid: Deid) -> None:
    found: list[list[dict[str, Any]]] = []

    def looks(_delivery: Delivery, _part10: Part10) -> Settled:
        found.append(left(postgres))
        return DELIVERED

    enter(postgres, stored(store))
    with working(postgres, store, Scripted(answer=looks, policy="research"), name="study", deid=deid):
        eventually(lambda: rows(postgres)["1.2.3.6"]["state"] == "delivered")

    assert [(each["sop_instance_uid"], each["sent_at"]) for each in found[0]] == [("1.2.3.6", None)]


def test_what_cannot_be_cleaned_waits_for_a_person_and_the_destination_hears_nothing_of_it(
    postgres: str, store: MemoryStore, deid: Deid
) -> None:
    enter(postgres, stored(store, BurnedInAnnotation="YES"))
    sink = Scripted(answer=lambda *_: DELIVERED, policy="research")
    with working(postgres, store, sink, name="study", deid=deid):
        eventually(lambda: rows(postgres)["1.2.3.6"]["state"] == "parked")

    assert not sink.seen
    assert "burned-in" in rows(postgres)["1.2.3.6"]["comment"]


@pytest.mark.parametrize("spoiled", [Deid(), Deid(key_path="/nonexistent/key")])
def test_without_its_key_workers_do_not_begin(postgres: str, store: MemoryStore, spoiled: Deid) -> None:
    enter(postgres, stored(store))
    sink = Scripted(answer=lambda *_: DELIVERED, policy="research")
    settings = Settings(postgres=Postgres(dsn=postgres), deid=spoiled)
    queue = Queue(postgres, "study", str(uuid.uuid4()), bus.Writer(settings, "deliver"))

    with pytest.raises(Misconfigured):
        Worker(Shared("study", sink), queue, store, settings, threading.Event()).run(threading.Event())

    assert not sink.seen
    assert rows(postgres)["1.2.3.6"]["state"] == "pending"


SITE = Authorities(default="NORTH", same={"1.2.3.4": "NORTH"})


def test_a_merge_that_the_ledger_knows_counts(postgres: str) -> None:
    survivor = Patient(key="b", ids=(Identifier(value="NEW1", issuer="NORTH"),))
    with connect(postgres) as connection:
        connection.execute("TRUNCATE patient, patient_id, patient_choice")
        for key, value, into in (("a", "OLD1", "b"), ("b", "NEW1", None)):
            connection.execute(
                "INSERT INTO patient (patient_key, version, patient_id, merged_into, detail, said_at, changed_at)"
                " VALUES (%s, 1, %s, %s, %s, now(), now())",
                (key, value, into, msgspec.json.encode(survivor).decode()),
            )
            connection.execute("INSERT INTO patient_id (value, issuer, patient_key) VALUES (%s, 'NORTH', %s)", (value, key))
    queue = Queue(postgres, "study", str(uuid.uuid4()), bus.Writer(Settings(), "deliver"))

    def merged(value: str, issuer: str = "", universal_id: str = "") -> Patient | None:
        return queue.survivor(Identifier(value=value, issuer=issuer, universal_id=universal_id), SITE)

    assert merged("OLD1", "NORTH") == merged("OLD1", "north") == merged("OLD1", "1.2.3.4") == survivor
    assert merged("OLD1", "NORTH&1.2.3.4&ISO") == survivor
    assert merged(" OLD1\0", "", "urn:oid:1.2.3.4") == merged("OLD1") == survivor
    assert merged("NEW1", "NORTH") is None
    assert merged("OLD1", "SOUTH") is None
    assert merged("OLD1", "", "9.9.9") is None  # of an authority that nobody knows
    assert queue.survivor(Identifier(value="OLD1"), Authorities()) == survivor  # of nobody, where nobody else has it
    assert queue.survivor(Identifier(value="OLD1"), Authorities(default="SOUTH")) is None
    assert merged("old1", "NORTH") is None

    add(postgres, "opt-out", [("NEW1", "NORTH")], "research", "me", "")
    add(postgres, "consent", [("NEW1", "NORTH"), ("OTHER", "NORTH")], "", "me", "")

    def stands(value: str, issuer: str, project: str = "research", of: Patient | None = None) -> tuple[bool, bool]:
        found = queue.standing(Identifier(value=value, issuer=issuer), project, of, SITE)
        return found.opted_out, found.consented

    assert stands("OLD1", "NORTH", of=survivor) == (True, True)  # it follows the merge
    assert stands("NEW1", "", "another") == (False, True)  # the authority of those who name none
    assert stands("new-1", "") == (True, False)  # in doubt, an opt-out counts and a consent does not
    for value, issuer in (("NEW1", "north"), ("NEW  1", "1.2.3.4"), ("new1", "NORTH&1.2.3.4&ISO"), ("NEW\u200b1", "urn:oid:NORTH")):
        assert stands(value, issuer)[0], (value, issuer)
    assert stands("NEW1", "NORTH", "another") == (False, True)
    assert stands("NEW1", "SOUTH") == (False, False)
    assert stands("OTHER", "NORTH") == (False, True)
    assert stands("", "")[0]  # nobody can tell who it is
    assert end(postgres, "opt-out", [("NEW1", "NORTH")], "research", "me") == 1
    assert stands("OLD1", "NORTH", of=survivor) == (False, True)
    assert add(postgres, "opt-out", [("NEW1", "NORTH")], "research", "me", "again") == 1
    assert len(listed(postgres, "opt-out", ended=True)) == 2
    queue.close()


def test_the_destination_is_asked_for_what_it_was_sent(postgres: str, store: MemoryStore, deid: Deid) -> None:
    def takes(_: Delivery, part10: Part10) -> Settled:
        part10.file()
        return DELIVERED

    enter(postgres, stored(store))
    with working(postgres, store, Scripted(answer=takes, policy="research"), name="study", deid=deid):
        eventually(lambda: rows(postgres)["1.2.3.6"]["state"] == "delivered")
    row, asked = rows(postgres)["1.2.3.6"], []

    def ask(_: Sink, study: str, expected: list[Expected]) -> frozenset[str]:
        asked.append((study, *((each.series_instance_uid, each.sop_instance_uid) for each in expected)))
        return frozenset(each.sop_instance_uid for each in expected)

    found = verify(postgres, Selection(destination="study"), {"study": Scripted(answer=takes)}, ask)

    assert asked == [(row["sent_study"], (row["sent_series"], row["sent_as"]))]
    assert (found.objects, found.there) == (1, 1)
    lacks = verify(postgres, Selection(destination="study"), {"study": Scripted(answer=takes)}, lambda *_: frozenset())
    assert [(each.sop_instance_uid, each.sent_as) for each in lacks.missing] == [("1.2.3.6", row["sent_as"])]


@pytest.fixture
def there(postgres: str, store: MemoryStore, deid: Deid) -> dict[str, Any]:
    """The row of an object of P1234567 of NORTH, that the destination `study` has."""

    def takes(_: Delivery, part10: Part10) -> Settled:
        part10.file()
        return DELIVERED

    with connect(postgres) as connection:
        connection.execute("TRUNCATE patient, patient_id, patient_choice, study, deidentified, scheduled_order, match")
        connection.execute(
            "INSERT INTO study (study_instance_uid, patient_id, issuer_of_patient_id, receipt, received_at)"
            " VALUES ('1.2.3.1', 'P1234567', 'NORTH', 'r', now())"
        )
    enter(postgres, stored(store))
    with working(postgres, store, Scripted(answer=takes, policy="research"), name="study", deid=deid):
        eventually(lambda: rows(postgres)["1.2.3.6"]["state"] == "delivered")
    return rows(postgres)["1.2.3.6"]


def test_what_a_destination_has_of_who_opted_out_is_found_until_it_is_taken_back(postgres: str, there: dict[str, Any]) -> None:
    assert to_take_back(postgres, "study", "research", SITE) == []
    add(postgres, "opt-out", [("p-1234567", "1.2.3.4")], "research", "me", "")

    (found,) = to_take_back(postgres, "study", "research", SITE)
    output = found.output
    assert to_take_back(postgres, "study", "another", SITE) == [found]  # whatever project the destination has by now
    assert (output.sent_as, output.state) == (there["sent_as"], "left")
    withdrawn(postgres, output)
    assert to_take_back(postgres, "study", "research", SITE) == []
    assert [each.state for each in outputs(postgres, "research")] == ["withdrawn"]


def test_what_is_there_of_who_consents_no_longer_is_to_be_taken_back_where_consent_is_asked_for(
    postgres: str, there: dict[str, Any]
) -> None:
    def asked(consent: bool = True) -> list[str]:
        return [each.output.sent_as for each in to_take_back(postgres, "study", "research", SITE, consent=consent)]

    add(postgres, "consent", [("P1234567", "north")], "research", "me", "")
    assert asked() == []
    end(postgres, "consent", [("P1234567", "north")], "research", "me")
    assert asked() == [there["sent_as"]]
    assert asked(consent=False) == []


def test_the_patient_of_the_order_is_asked_for_as_well(postgres: str, there: dict[str, Any]) -> None:
    ordered = {"patient": {"ids": [{"value": "ORD1", "issuer": "NORTH"}]}}
    with connect(postgres) as connection:
        connection.execute(
            "INSERT INTO scheduled_order (order_id, version, status, patient_key, patient_id, said_at, created_at, changed_at, detail)"
            " VALUES ('o1', 1, 'scheduled', 'k', 'ORD1', now(), now(), now(), %s)",
            (msgspec.json.encode(ordered).decode(),),
        )
        connection.execute(
            "INSERT INTO match (about, id, version, outcome, study_instance_uid, order_ids, candidates, differences, cause, changed_at)"
            " VALUES ('study', '1.2.3.1', 1, 'matched', '1.2.3.1', '{o1}', '{}', '[]', 'index', now())"
        )
    add(postgres, "consent", [("ORD1", "NORTH")], "", "me", "")
    assert to_take_back(postgres, "study", "research", SITE, consent=True) == []
    add(postgres, "opt-out", [("ord 1", "")], "", "me", "")
    assert [each.output.sent_as for each in to_take_back(postgres, "study", "research", SITE)] == [there["sent_as"]]


@pytest.mark.usefixtures("there")
def test_what_was_taken_back_is_not_missed_and_a_study_says_so(postgres: str) -> None:
    def asked() -> tuple[int, int, int]:
        found = verify(postgres, Selection(destination="study"), {"study": Scripted(answer=lambda *_: DELIVERED)}, lambda *_: frozenset())
        return found.objects, len(found.missing), found.withdrawn

    (output,) = outputs(postgres, "research")
    assert asked() == (1, 1, 0)
    withdrawn(postgres, output)
    assert asked() == (0, 0, 1)
    (study,) = show_study(postgres, "1.2.3.1")
    assert [(each.state, each.deliveries, each.withdrawn) for each in study.deliveries] == [("delivered", 1, 1)]


def test_what_is_held_before_it_leaves_is_told_from_what_may_have_left(postgres: str, store: MemoryStore, deid: Deid) -> None:
    def breaks_off(_: Delivery, part10: Part10) -> Settled:
        part10.file()
        raise Later("The association was aborted.")

    def is_parked(uid: str) -> bool:
        return bool(rows(postgres)[uid]["state"] == "parked")

    with connect(postgres) as connection:
        connection.execute("TRUNCATE patient, patient_id, patient_choice, study, deidentified")
    enter(postgres, stored(store, BurnedInAnnotation="YES"))
    sink = Scripted(answer=breaks_off, policy="research", max_attempts=1)
    with working(postgres, store, sink, name="study", deid=deid):
        eventually(lambda: is_parked("1.2.3.6"))
        assert [each.state for each in outputs(postgres, "research")] == ["held"]
        retry(Settings(postgres=Postgres(dsn=postgres)), Selection(destination="study"))
        eventually(lambda: is_parked("1.2.3.6"))
        assert [each.state for each in outputs(postgres, "research")] == ["held"]

        enter(postgres, stored(store, SOPInstanceUID="1.2.3.7"))
        eventually(lambda: is_parked("1.2.3.7"))
        add(postgres, "opt-out", [("P1234567", "")], "", "me", "")
        retry(Settings(postgres=Postgres(dsn=postgres)), Selection(ids=("1.2.3.7",)))
        eventually(lambda: "opted out" in (rows(postgres)["1.2.3.7"]["comment"] or ""))
    assert {each.sop_instance_uid: each.state for each in outputs(postgres, "research")} == {"1.2.3.6": "held", "1.2.3.7": "perhaps"}


def test_a_study_made_of_what_left_is_told_from_an_original(postgres: str, there: dict[str, Any], tmp_path: Path) -> None:
    config = tmp_path / "hilum.toml"
    nowhere = '[kafka]\nbootstrap = "127.0.0.1:1"\n[s3]\nendpoint = "http://127.0.0.1:1"\n'
    config.write_text(f'[postgres]\ndsn = "{postgres}"\n{nowhere}')

    def shown(*options: str) -> Result:
        return CliRunner().invoke(app, ["study", "show", there["sent_study"], "--config", str(config), *options])

    nothing_came = shown()
    with connect(postgres) as connection:
        connection.execute(
            "INSERT INTO study (study_instance_uid, patient_id, receipt, received_at) VALUES (%s, 'PSEUDONYM', 'q', now())",
            (there["sent_study"],),
        )

    assert "left de-identified, by research" in str(nothing_came.exception)
    assert "no original" in shown().stdout
    assert json.loads(shown("--json").stdout)[0]["origin"] == {"left_by": ["research"], "stamped": 0}


def test_what_one_destination_got_is_made_anew_for_another_and_stays_in_the_list(
    postgres: str, store: MemoryStore, deid: Deid, tmp_path: Path
) -> None:
    def takes(_: Delivery, part10: Part10) -> Settled:
        part10.file()
        return DELIVERED

    with connect(postgres) as connection:
        connection.execute("TRUNCATE deidentified")
    enter(postgres, stored(store))
    sink = Scripted(answer=takes, policy="research")
    with working(postgres, store, sink, name="study", deid=deid):
        eventually(lambda: rows(postgres)["1.2.3.6"]["state"] == "delivered")
    Run(destination="later", of="study", again=True).enter(Settings(postgres=Postgres(dsn=postgres)))
    (tmp_path / "research.toml").write_text('options = ["retain-device-identity"]')
    with working(postgres, store, sink, name="later", deid=replace(deid, policies=str(tmp_path))):
        eventually(lambda: len([each for each in left(postgres) if each["sent_at"]]) == 2)

    first, second = left(postgres)
    assert (first["destination"], second["destination"]) == ("study", "later")
    assert first["policy_version"] != second["policy_version"]
    assert first["sent_as"] == second["sent_as"]
    assert first["sent_sha256"] != second["sent_sha256"]
