from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import msgspec
import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from hilum import bus
from hilum.database import connect
from hilum.database.deliveries import Selection
from hilum.database.queries import show_study
from hilum.deliveries import Run, retry
from hilum.errors import NotFound, TryAgain
from hilum.events import InstanceExpired, ObjectRef, decode
from hilum.sections import Retention
from hilum.settings import Postgres, Settings
from hilum.storage.gone import why_gone
from hilum.storage.keeping import Facts, Term, verdict
from hilum.storage.records import SHARED_LOCK, ExpiryRow, Records
from ingest.commitment.evidence import Database

pytestmark = pytest.mark.system
NOON = datetime(2024, 2, 29, 12, tzinfo=UTC)
LATER = NOON + timedelta(days=40)
TERMS = Retention(originals_days=30, repeats_days=5)

HOSPITAL = """
INSERT INTO series (series_instance_uid, study_instance_uid, modality, receipt, received_at)
    VALUES ('2.3', '2.2', 'CT', 'r1', '2024-02-29T12:00Z');
INSERT INTO receipt (receipt, study_instance_uid, series_instance_uid, sop_instance_uid, bucket, object_key, size_bytes, sha256,
    calling_aet, received_at, received, accepted_at, decision, decided_at, delivery_ids)
SELECT 'r' || n, '2.2', '2.3', '2.4.' || n, 'b', 'k' || n, 100, 'x', 'CT1', '2024-02-29T12:00Z', true, '2024-02-29T12:00Z', 'deliver',
    '2024-02-29T12:00Z', ARRAY['d' || n] FROM generate_series(1, 3) AS n;
INSERT INTO instance (sop_instance_uid, series_instance_uid, study_instance_uid, sop_class_uid, transfer_syntax_uid, bucket, object_key,
    size_bytes, sha256, receipt, received_at)
SELECT '2.4.' || n, '2.3', '2.2', 'c', 't', 'b', 'k' || n, 100, 'x', 'r' || n, '2024-02-29T12:00Z' FROM generate_series(1, 3) AS n;
INSERT INTO delivery (delivery_id, destination, receipt, study_instance_uid, series_instance_uid, sop_instance_uid, sop_class_uid,
    transfer_syntax_uid, bucket, object_key, size_bytes, sha256, state, settled_at)
SELECT 'd' || n, 'pacs', 'r' || n, '2.2', '2.3', '2.4.' || n, 'c', 't', 'b', 'k' || n, 100, 'x', 'delivered', '2024-02-29T13:00Z'
    FROM generate_series(1, 3) AS n;
"""


OPEN_STUDY = """
INSERT INTO study_state (study_instance_uid, step, state, revision, instances, new, missing, withdrawn, changed_at)
VALUES ('2.2', 1, 'open', 0, 3, 3, 0, 0, now())
"""


class Hospital:
    def __init__(self, dsn: str) -> None:
        self.settings = Settings(postgres=Postgres(dsn=dsn))
        self.connection = connect(dsn)
        self.connection.execute(HOSPITAL)
        self.records = Records(self.connection, bus.Writer(self.settings, "expire"), "b", ["archive"])

    def change(self, *statements: str) -> None:
        for statement in statements:
            self.connection.execute(statement.encode())

    def facts(self, n: int = 1) -> Facts:
        [facts] = self.records.facts([f"2.4.{n}"])
        return facts

    def verdict(self, n: int = 1) -> str:
        found = verdict(self.facts(n), TERMS, LATER)
        return found.policy if isinstance(found, Term) else found

    def expires(self, facts: Facts) -> ExpiryRow | None:
        found = verdict(facts, TERMS, LATER)
        names = [name for name in ExpiryRow.__struct_fields__ if name in Facts.__struct_fields__]
        if not isinstance(found, Term):
            return None
        values = {name: getattr(facts, name) for name in names}
        return ExpiryRow(**values, days=found.days, policy=found.policy, policy_version="v1", decided_by="host/expire")

    def expire(self, *numbers: int) -> None:
        uids = [f"2.4.{n}" for n in numbers]
        assert self.records.decide(uids, self.expires) == len(uids)


@pytest.fixture(scope="module")
def shared(postgres_server: str) -> Iterator[Hospital]:
    """One for all tests that only look; what they change is rolled back."""
    template, name = str(conninfo_to_dict(postgres_server)["dbname"]), f"t{uuid.uuid4().hex[:12]}"
    with connect(postgres_server) as server:
        server.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template)))
    made = Hospital(make_conninfo(postgres_server, dbname=name))
    yield made
    made.connection.close()
    with connect(make_conninfo(postgres_server, dbname="postgres")) as server:
        server.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def known(shared: Hospital) -> Iterator[Hospital]:
    with shared.connection.transaction(force_rollback=True):
        yield shared


@pytest.fixture
def hospital(postgres: str) -> Iterator[Hospital]:
    made = Hospital(postgres)
    yield made
    made.connection.close()


def receipt_of(n: int, receipt: str, key: str, decision: str) -> str:
    return f"""
        INSERT INTO receipt (receipt, study_instance_uid, sop_instance_uid, bucket, object_key, size_bytes, sha256, received_at, received,
            accepted_at, decision, decided_at, delivery_ids)
        VALUES ('{receipt}', '2.2', '2.4.{n}', 'b', '{key}', 100, 'y', '2024-02-29T12:05Z', true, '2024-02-29T12:05Z', {decision},
            '2024-02-29T12:05Z', '{{}}')"""  # noqa: S608  # the tests' own


class TestWhatIsKnown:
    def test_what_was_delivered_expires_after_its_term(self, known: Hospital) -> None:
        assert known.verdict() == "originals_days = 30"
        assert known.facts().modality == "CT"
        assert known.facts().senders == ("CT1",)
        assert known.facts().changed_at == NOON + timedelta(hours=1)

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            ("UPDATE delivery SET comment = 'kept in place' WHERE delivery_id = 'd1'", "archived"),
            ("UPDATE delivery SET destination = 'archive', state = 'pending' WHERE delivery_id = 'd1'", "archived"),
            ("UPDATE receipt SET decision = NULL WHERE receipt = 'r1'", "undecided"),
            ("UPDATE receipt SET received = false WHERE receipt = 'r1'", "undecided"),
            ("UPDATE receipt SET delivery_ids = '{d1,d9}' WHERE receipt = 'r1'", "undecided"),
            ("UPDATE receipt SET decision = NULL, quarantine_reason = 'x' WHERE receipt = 'r1'", "quarantined"),
            ("UPDATE receipt SET decision = 'waits' WHERE receipt = 'r1'", "waits"),
            (OPEN_STUDY, "waits"),
            ("UPDATE delivery SET state = 'pending' WHERE delivery_id = 'd1'", "open"),
            ("UPDATE delivery SET state = 'parked' WHERE delivery_id = 'd1'", "open"),
            ("UPDATE receipt SET committed_at = now() WHERE receipt = 'r1'", "promised"),
            ("UPDATE delivery SET state = 'rejected' WHERE delivery_id = 'd1'", "rejected"),
            ("UPDATE delivery SET state = 'cancelled' WHERE delivery_id = 'd1'", "nowhere"),
            ("UPDATE receipt SET decision = 'no-rule', delivery_ids = '{}' WHERE receipt = 'r1'; DELETE FROM delivery", "nowhere"),
            ("UPDATE delivery SET settled_at = '2024-03-20T12:00Z' WHERE delivery_id = 'd1'", "too-early"),
        ],
    )
    def test_what_may_still_be_needed_is_kept(self, known: Hospital, change: str, reason: str) -> None:
        known.change(change)

        assert known.verdict() == reason

    def test_an_object_is_kept_while_another_under_its_uid_waits_for_a_person(self, known: Hospital) -> None:
        known.change(
            receipt_of(1, "r1b", "k1b", "NULL"), "UPDATE receipt SET quarantine_reason = 'instance-conflict' WHERE receipt = 'r1b'"
        )

        found = {facts.object_key: verdict(facts, TERMS, LATER) for facts in known.records.facts(["2.4.1"])}

        assert found == {"k1": "quarantined", "k1b": "quarantined"}

    def test_what_left_de_identified_and_came_back_is_of_no_instance_and_expires_as_a_repeat(self, known: Hospital) -> None:
        known.change(receipt_of(9, "r9", "k9", "'returned'"))

        assert known.verdict(9) == "repeats_days = 5"

    def test_another_encoding_of_what_was_here_has_a_term_of_its_own(self, known: Hospital) -> None:
        known.change(receipt_of(1, "r1b", "k1b", "'duplicate'"))

        found = {facts.object_key: verdict(facts, TERMS, NOON + timedelta(days=10)) for facts in known.records.facts(["2.4.1"])}

        assert found == {"k1": "too-early", "k1b": Term(policy="repeats_days = 5", days=5)}

    def test_all_and_some_are_known_alike(self, known: Hospital) -> None:
        some = known.records.facts(["2.4.1", "2.4.2", "2.4.3"])

        assert sorted(known.records.all_facts(), key=lambda facts: facts.object_key) == sorted(some, key=lambda facts: facts.object_key)

    def test_receipts_are_gone_through_page_by_page(self, known: Hospital) -> None:
        after, first = known.records.page("", LATER, 2)
        end, rest = known.records.page(after, LATER, 2)

        assert (first, rest, end) == (["2.4.1", "2.4.2"], ["2.4.3"], "")
        assert known.records.page("", NOON, 2) == ("", [])


class TestExpired:
    def test_it_is_decided_deleted_and_said_once(self, hospital: Hospital) -> None:
        hospital.expire(1)

        [row] = hospital.records.undeleted(10)
        hospital.records.deleted([row], LATER)
        hospital.records.deleted([row], LATER)

        assert hospital.records.undeleted(10) == []
        assert hospital.records.facts(["2.4.1"]) == []
        [(value,)] = hospital.connection.execute("SELECT value FROM outbox").fetchall()
        event = decode(InstanceExpired, value)
        assert (event.sop_instance_uid, event.object_key, event.policy, event.by) == ("2.4.1", "k1", "originals_days = 30", "host/expire")

    def test_nothing_is_decided_while_deliveries_are_planned(self, hospital: Hospital) -> None:
        with psycopg.connect(hospital.settings.postgres.dsn) as planning:
            planning.execute(SHARED_LOCK)

            assert hospital.records.decide(["2.4.1"], hospital.expires) is None
        assert hospital.records.decide(["2.4.1"], hospital.expires) == 1

    def test_a_delivery_that_is_planned_first_is_seen(self, hospital: Hospital) -> None:
        with psycopg.connect(hospital.settings.postgres.dsn) as planning:
            planning.execute(SHARED_LOCK)
            planning.execute("UPDATE delivery SET state = 'pending' WHERE delivery_id = 'd1'")

        assert hospital.records.decide(["2.4.1"], hospital.expires) == 0

    def test_what_comes_again_is_here_again(self, hospital: Hospital) -> None:
        hospital.expire(1)
        hospital.change(receipt_of(1, "r9", "k1", "'duplicate'"))

        [row] = hospital.records.undeleted(10)
        assert row.came_again
        assert hospital.facts().receipts == ("r1", "r9")
        assert Run(destination="pacs", study="2.2").expired(hospital.settings.postgres.dsn) == ""

    def test_one_that_came_again_expires_again(self, hospital: Hospital) -> None:
        hospital.expire(1)
        hospital.records.deleted(hospital.records.undeleted(10), LATER)
        hospital.change(receipt_of(1, "r9", "k1", "'duplicate'"))

        hospital.expire(1)

        [row] = hospital.records.undeleted(10)
        assert not row.came_again

    def test_what_is_taken_back_is_known_as_before(self, hospital: Hospital) -> None:
        hospital.expire(1)

        hospital.records.take_back(hospital.records.undeleted(10)[0])

        assert hospital.verdict() == "originals_days = 30"

    def test_a_study_shows_what_expired_when_and_by_what(self, hospital: Hospital) -> None:
        hospital.expire(1, 2)

        [study] = show_study(hospital.settings.postgres.dsn, "2.2")

        [expired] = study.expired
        assert (expired.objects, expired.size_bytes, expired.policy, expired.decided_by) == (2, 200, "originals_days = 30", "host/expire")

    def test_what_expired_is_not_sent_again_and_it_is_said_why(self, hospital: Hospital) -> None:
        dsn = hospital.settings.postgres.dsn
        hospital.expire(1)

        for run in (Run(destination="pacs", study="2.2"), Run(destination="pacs", study="2.2", again=True)):
            assert run.count(dsn) == (2, 1, 200)
            assert run.expired(dsn).startswith("1 object expired on ")
            assert "by originals_days = 30: their bytes are not kept any more." in run.expired(dsn)
            assert run.enter(hospital.settings)[1] == 2

    def test_a_study_of_which_nothing_is_left_says_so(self, hospital: Hospital) -> None:
        hospital.expire(1, 2, 3)

        with pytest.raises(NotFound, match=r"There is nothing to deliver\. 3 objects expired on"):
            Run(destination="pacs", study="2.2").enter(hospital.settings)

    def test_a_cancelled_delivery_of_what_expired_is_not_tried_again(self, hospital: Hospital) -> None:
        hospital.change(
            "INSERT INTO delivery (delivery_id, destination, receipt, study_instance_uid, sop_instance_uid, bucket, object_key, state,"
            " settled_at) VALUES ('d8', 'viewer', 'r1', '2.2', '2.4.1', 'b', 'k1', 'cancelled', '2024-02-29T13:00Z')"
        )
        hospital.expire(1)

        assert retry(hospital.settings, Selection(destination="viewer", states=("cancelled",))) == 0

    def test_why_an_object_is_gone_is_known(self, hospital: Hospital) -> None:
        hospital.expire(1)
        ref = ObjectRef(bucket="b", key="k1", size_bytes=100, sha256="x")

        assert "by originals_days = 30 (host/expire)" in why_gone(hospital.settings.postgres.dsn, ref)
        assert why_gone(hospital.settings.postgres.dsn, msgspec.structs.replace(ref, key="k2")) == ""

    def test_what_expired_is_not_promised_any_more(self, hospital: Hospital) -> None:
        hospital.expire(1)
        index = Database(hospital.settings)

        assert set(index.arrived(["2.4.1", "2.4.2"])) == {"2.4.2"}
        with pytest.raises(TryAgain, match="1 object expired meanwhile"):
            index.hold(["r1", "r2"])
        assert hospital.facts(2).promised is False
