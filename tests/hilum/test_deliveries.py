"""What people do with deliveries, on a ledger of PostgreSQL."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from hilum import bus
from hilum.database import connect
from hilum.database.deliveries import (
    CHANNEL,
    LIST,
    Selection,
    count_deliveries,
    list_deliveries,
    settled_id,
    show_deliveries,
    study_named,
)
from hilum.deliveries import CHUNK, Run, cancel, hurry, retry
from hilum.errors import NotFound
from hilum.events import DeliverySettled, decode
from hilum.runtime.delivery.outcomes import Parked, PutOff
from hilum.runtime.delivery.queue import Queue
from hilum.settings import Postgres, Settings
from hilum.sink import URGENT, Delivery, Settled
from hilum.testing import MemoryStore
from tests.ledger import DELIVERED, enter, outbox, rows, some, states

pytestmark = pytest.mark.system

REJECTED = Settled(state="rejected", peer_status="0xA900", comment="Refused.")


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def settings(postgres: str) -> Settings:
    return Settings(postgres=Postgres(dsn=postgres))


def settle(dsn: str, *outcomes: Settled | PutOff | Parked, destination: str = "pacs") -> list[Delivery]:
    """Claim as many as there are outcomes, and record these."""
    queue = Queue(dsn, destination, f"w{datetime.now(UTC)}", bus.Writer(Settings(), "deliver"))
    claimed = queue.claim(len(outcomes))
    queue.record(list(zip(claimed, outcomes, strict=True)))
    queue.close()
    return claimed


def events(dsn: str) -> list[DeliverySettled]:
    return [decode(DeliverySettled, row["value"]) for row in outbox(dsn)]


def withdraw(connection: psycopg.Connection, delivery: Delivery) -> None:
    """A rejection note names the object of a delivery."""
    connection.execute(
        "INSERT INTO withdrawn (sop_instance_uid, study_instance_uid, note, code, withdrawn_at) VALUES (%s, %s, 'n', '113001', now())",
        (delivery.sop_instance_uid, delivery.study_instance_uid),
    )


def take(connection: psycopg.Connection, delivery: Delivery, receipt: str, sha256: str) -> None:
    """An object came for the instance of a delivery, a correction unless it is the first."""
    connection.execute(
        "INSERT INTO receipt (receipt, sop_instance_uid, study_instance_uid, sha256, decision, received_at)"
        " VALUES (%(name)s || %(sop)s, %(sop)s, %(study)s, %(sha256)s,"
        " CASE WHEN EXISTS (SELECT FROM receipt WHERE sop_instance_uid = %(sop)s) THEN 'corrected' ELSE 'deliver' END, clock_timestamp())",
        {"name": receipt, "sop": delivery.sop_instance_uid, "study": delivery.study_instance_uid, "sha256": sha256},
    )


class TestRetry:
    def test_what_was_rejected_put_aside_or_put_off_waits_no_more(self, postgres: str, settings: Settings, store: MemoryStore) -> None:
        enter(postgres, *some(store, 4))
        settle(postgres, REJECTED, Parked(comment="A person is needed."), PutOff(after_s=3600, comment="Full."), DELIVERED)

        assert retry(settings, Selection(destination="pacs")) == 3

        found = rows(postgres).values()
        assert sorted((row["state"], row["attempts"], row["round"]) for row in found) == [
            ("delivered", 1, 0),
            ("pending", 0, 0),
            ("pending", 0, 0),
            ("pending", 0, 1),
        ]
        assert len(settle(postgres, *[DELIVERED] * 3)) == 3

    def test_each_end_of_a_delivery_is_an_event_of_its_own(self, postgres: str, settings: Settings, store: MemoryStore) -> None:
        enter(postgres, *some(store, 1))
        [delivery] = settle(postgres, REJECTED)
        retry(settings, Selection())
        settle(postgres, DELIVERED)

        assert [row["headers"]["ce_id"] for row in outbox(postgres)] == [settled_id(delivery.delivery_id, n) for n in range(2)]
        assert [event.state for event in events(postgres)] == ["rejected", "delivered"]

    def test_what_a_worker_has_in_its_hands_is_left_to_it(self, postgres: str, settings: Settings, store: MemoryStore) -> None:
        enter(postgres, *some(store, 1))
        queue = Queue(postgres, "pacs", "w", bus.Writer(Settings(), "deliver"))
        [claimed] = queue.claim(1)

        assert (retry(settings, Selection()), cancel(settings, Selection())) == (0, 0)
        assert queue.record([(claimed, DELIVERED)]) == {claimed.delivery_id}
        queue.close()

    def test_what_waits_for_its_first_attempt_keeps_its_place(self, postgres: str, settings: Settings, store: MemoryStore) -> None:
        enter(postgres, *some(store, 2))
        before = rows(postgres)

        assert retry(settings, Selection()) == 0
        assert rows(postgres) == before

    def test_what_arrived_is_never_taken_back(self, postgres: str, settings: Settings, store: MemoryStore) -> None:
        enter(postgres, *some(store, 1))
        settle(postgres, DELIVERED)

        assert retry(settings, Selection(states=("delivered",))) == 0

    def test_workers_are_told(self, postgres: str, settings: Settings, store: MemoryStore) -> None:
        enter(postgres, *some(store, 2))
        settle(postgres, REJECTED, REJECTED)
        with connect(postgres) as listening:
            listening.execute(f"LISTEN {CHANNEL}")
            retry(settings, Selection())

            assert [told.payload for told in listening.notifies(timeout=60, stop_after=1)] == ["pacs"]


class TestCancel:
    def test_what_is_cancelled_has_its_final_state_and_the_log_is_told(self, postgres: str, settings: Settings, store: MemoryStore) -> None:
        enter(postgres, *some(store, 3))
        settle(postgres, Parked(comment="A person is needed."), PutOff(after_s=3600, comment="Full."))

        assert cancel(settings, Selection(destination="pacs"), why="not for Marked^Patient") == 3

        assert states(postgres) == {"cancelled"}
        assert {(event.state, event.comment) for event in events(postgres)} == {("cancelled", "Cancelled by a person.")}
        assert sorted(event.attempts for event in events(postgres)) == [0, 1, 1]
        assert any(row["comment"].startswith("Full. Cancelled by ") for row in rows(postgres).values())

    def test_many_are_cancelled_chunk_by_chunk(self, postgres: str, settings: Settings, store: MemoryStore) -> None:
        [delivery] = some(store, 1)
        enter(postgres, delivery)
        with connect(postgres) as connection:
            connection.execute(
                "INSERT INTO delivery"
                " (delivery_id, destination, receipt, study_instance_uid, series_instance_uid, sop_instance_uid, sha256)"
                " SELECT 'd' || n, 'pacs', 'r', '2.25.9', '2.25.9', '2.25.9.' || n, '' FROM generate_series(1, %s) AS n",
                (CHUNK + 5,),
            )

        assert cancel(settings, Selection(study="2.25.9")) == CHUNK + 5
        assert len(outbox(postgres)) == CHUNK + 5
        assert rows(postgres)[delivery.sop_instance_uid]["state"] == "pending"

    def test_a_cancelled_delivery_can_be_tried_again_if_that_is_said(self, postgres: str, settings: Settings, store: MemoryStore) -> None:
        enter(postgres, *some(store, 1))
        cancel(settings, Selection())

        assert retry(settings, Selection()) == 0
        assert retry(settings, Selection(states=("cancelled",))) == 1
        assert states(postgres) == {"pending"}

    def test_what_a_rejection_note_names_is_not_tried_again(self, postgres: str, settings: Settings, store: MemoryStore) -> None:
        first, second = some(store, 2)
        enter(postgres, first, second)
        cancel(settings, Selection())
        with connect(postgres) as connection:
            withdraw(connection, first)

        cancelled = Selection(states=("cancelled",))
        assert [(each.deliveries, each.withdrawn) for each in count_deliveries(postgres, cancelled)] == [(2, 1)]
        assert retry(settings, cancelled) == 1
        assert rows(postgres)[first.sop_instance_uid]["state"] == "cancelled"

    def test_the_form_that_a_correction_took_the_place_of_is_not_tried_again(
        self, postgres: str, settings: Settings, store: MemoryStore
    ) -> None:
        first, second = some(store, 2)
        enter(postgres, first, second)
        cancel(settings, Selection())
        with connect(postgres) as connection:
            take(connection, first, "first", first.object.sha256)
            take(connection, first, "fixed", "f" * 64)
            take(connection, second, "second", "0" * 64)
            take(connection, second, "fixed", "f" * 64)
            take(connection, second, "fixed again", second.object.sha256)

        cancelled = Selection(states=("cancelled",))
        assert [(each.deliveries, each.corrected) for each in count_deliveries(postgres, cancelled)] == [(2, 1)]
        assert retry(settings, cancelled) == 1
        assert rows(postgres)[first.sop_instance_uid]["state"] == "cancelled"


class TestHurry:
    def test_a_study_in_a_hurry_goes_first(self, postgres: str, settings: Settings, store: MemoryStore) -> None:
        enter(postgres, *some(store, 2, "2.25.1"), *some(store, 2, "2.25.2"))

        assert hurry(settings, "2.25.2") == 2
        assert [each.study_instance_uid for each in settle(postgres, *[DELIVERED] * 4)] == ["2.25.2", "2.25.2", "2.25.1", "2.25.1"]

    def test_a_higher_priority_stays(self, postgres: str, settings: Settings, store: MemoryStore) -> None:
        enter(postgres, *some(store, 1), priority=URGENT + 1)

        assert hurry(settings, "2.25.1") == 0


def index(dsn: str, *deliveries: Delivery, accession_number: str = "A-1") -> None:
    """Enter what was delivered into the index."""
    with connect(dsn) as connection:
        for each in deliveries:
            connection.execute(
                "INSERT INTO study (study_instance_uid, accession_number, receipt, received_at) VALUES (%s, %s, 'r', now())"
                " ON CONFLICT DO NOTHING",
                (each.study_instance_uid, accession_number),
            )
            connection.execute(
                "INSERT INTO instance (sop_instance_uid, series_instance_uid, study_instance_uid, sop_class_uid, transfer_syntax_uid,"
                " bucket, object_key, size_bytes, sha256, receipt, received_at) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, now())",
                (
                    *(each.sop_instance_uid, each.series_instance_uid, each.study_instance_uid, each.sop_class_uid),
                    *(
                        each.transfer_syntax_uid,
                        each.object.bucket,
                        each.object.key,
                        each.object.size_bytes,
                        each.object.sha256,
                        each.receipt,
                    ),
                ),
            )


class TestRuns:
    def test_a_study_is_sent_from_the_index_as_deliveries_of_their_own(self, postgres: str, settings: Settings, store: MemoryStore) -> None:
        deliveries = some(store, 3)
        index(postgres, *deliveries, *some(store, 1, "2.25.2"))
        enter(postgres, *deliveries)
        settle(postgres, *[DELIVERED] * 3)

        run, entered = Run(destination="pacs", study="2.25.1", why="lost there").enter(settings)

        again = settle(postgres, *[DELIVERED] * 3)
        assert entered == 3
        assert {each.sop_instance_uid for each in again} == {each.sop_instance_uid for each in deliveries}
        assert {each.delivery_id for each in again}.isdisjoint(each.delivery_id for each in deliveries)
        assert {each.object.sha256 for each in again} == {each.object.sha256 for each in deliveries}
        with connect(postgres) as connection:
            found = connection.execute("SELECT run, command, destination, study_instance_uid, why, deliveries FROM delivery_run").fetchall()
        assert found == [(run, "send", "pacs", "2.25.1", "lost there", 3)]

    def test_twice_the_same_is_two_runs(self, postgres: str, settings: Settings, store: MemoryStore) -> None:
        index(postgres, *some(store, 2))
        asked = Run(destination="pacs", study="2.25.1")

        assert asked.count(postgres)[:2] == (2, 1)
        assert asked.enter(settings)[0] != asked.enter(settings)[0]
        assert sum(count.deliveries for count in count_deliveries(postgres, Selection())) == 4

    def test_what_was_delivered_in_a_time_is_delivered_again_once_each(self, postgres: str, settings: Settings, store: MemoryStore) -> None:
        enter(postgres, *some(store, 3))
        settle(postgres, DELIVERED, Settled(state="already_there"), REJECTED)
        now = datetime.now(UTC)
        Run(destination="pacs", again=True, since=now - timedelta(hours=1)).enter(settings)
        settle(postgres, DELIVERED, DELIVERED)

        run = Run(destination="pacs", again=True, since=now - timedelta(hours=1), until=now + timedelta(hours=1))

        assert run.count(postgres)[0] == 2  # though each of them was delivered twice by now
        assert Run(destination="pacs", again=True, until=now - timedelta(hours=1)).count(postgres)[0] == 0

    @pytest.mark.parametrize("again", [False, True])
    def test_what_a_rejection_note_names_goes_nowhere_again(
        self, postgres: str, settings: Settings, store: MemoryStore, again: bool
    ) -> None:
        first, second = some(store, 2)
        index(postgres, first, second)
        enter(postgres, first, second)
        settle(postgres, *[DELIVERED] * 2)
        with connect(postgres) as connection:
            withdraw(connection, first)

        _, entered = Run(destination="pacs", study=first.study_instance_uid, again=again).enter(settings)

        assert entered == 1
        assert [each.sop_instance_uid for each in settle(postgres, DELIVERED)] == [second.sop_instance_uid]

    def test_nothing_to_deliver_is_said_and_leaves_nothing(self, postgres: str, settings: Settings) -> None:
        with pytest.raises(NotFound, match="nothing to deliver"):
            Run(destination="pacs", study="2.25.1").enter(settings)

        with connect(postgres) as connection:
            assert connection.execute("SELECT count(*) FROM delivery_run").fetchall() == [(0,)]


MANY = """
    INSERT INTO delivery (delivery_id, destination, receipt, study_instance_uid, sop_instance_uid, state, settled_at, created_at)
    SELECT number::text, 'to-' || number % 3, '', '', '', CASE WHEN number < 20 THEN 'rejected' ELSE 'delivered' END,
        now() - make_interval(secs => number), now() - interval '1 year' FROM generate_series(1, 20000) AS number
"""


def rows_read(node: dict[str, Any]) -> float:
    """How many rows of the ledger a plan has looked at."""
    own = node["Actual Loops"] * (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) if "Relation Name" in node else 0
    return float(own) + sum(rows_read(each) for each in node.get("Plans", ()))


class TestLooking:
    def test_deliveries_are_chosen_by_all_that_is_given(self, postgres: str, store: MemoryStore) -> None:
        enter(postgres, *some(store, 2), *some(store, 2, "2.25.2"), *some(store, 1, "2.25.1", "archive"))
        settle(postgres, REJECTED)
        chosen: list[tuple[dict[str, Any], int]] = [
            ({}, 5),
            ({"destination": "pacs"}, 4),
            ({"destination": "pacs", "study": "2.25.1"}, 2),
            ({"states": ("rejected",)}, 1),
            ({"since": datetime.now(UTC) + timedelta(hours=1)}, 0),
            ({"until": datetime.now(UTC) + timedelta(hours=1)}, 5),
            ({"ids": ("2.25.2.1",)}, 1),
        ]

        assert [(what, len(list_deliveries(postgres, Selection(**what)))) for what, _ in chosen] == chosen

    def test_the_last_changed_come_first_whatever_their_destination(self, postgres: str, store: MemoryStore) -> None:
        enter(postgres, *some(store, 3, destination="archive"), *some(store, 3, "2.25.2"))
        last = settle(postgres, DELIVERED) + settle(postgres, DELIVERED, destination="archive")

        assert [each.delivery_id for each in list_deliveries(postgres, Selection(), limit=2)] == [
            each.delivery_id for each in reversed(last)
        ]

    def test_the_last_lines_of_a_large_ledger_are_shown_without_reading_it(self, postgres: str) -> None:
        with connect(postgres) as connection:
            connection.execute(MANY)
            connection.execute("ANALYZE delivery")
            for what in (Selection(), Selection(destination="to-1"), Selection(states=("rejected",)), Selection(states=("parked",))):
                explained = f"EXPLAIN (ANALYZE, FORMAT JSON) {LIST}"
                [([plan],)] = connection.execute(explained.encode(), {**what.values, "limit": 5}).fetchall()
                assert rows_read(plan["Plan"]) < 200, what

    def test_the_next_attempt_and_the_answer_are_told(self, postgres: str, store: MemoryStore) -> None:
        enter(postgres, *some(store, 1))
        settle(postgres, PutOff(after_s=3600, peer_status="0xA700", comment="Full."))

        [found] = list_deliveries(postgres, Selection())
        assert (found.attempts, found.peer_status, found.comment, found.in_hand) == (1, "0xA700", "Full.", False)
        assert found.next_attempt_at is not None
        assert found.next_attempt_at > datetime.now(UTC) + timedelta(minutes=59)

    def test_one_is_shown_by_its_id_and_all_of_an_instance_by_its_uid(self, postgres: str, store: MemoryStore) -> None:
        [one], [other] = some(store, 1), some(store, 1, destination="archive")
        enter(postgres, one, other)

        assert [each.destination for each in show_deliveries(postgres, one.delivery_id)] == ["pacs"]
        assert {each.destination for each in show_deliveries(postgres, one.sop_instance_uid)} == {"pacs", "archive"}
        with pytest.raises(NotFound):
            show_deliveries(postgres, "2.25.404")

    def test_one_that_was_sent_under_another_uid_is_found_by_it_and_its_event_says_so(self, postgres: str, store: MemoryStore) -> None:
        enter(postgres, *some(store, 1))
        [sent] = settle(postgres, Settled(state="delivered", sent_as="2.25.77"))

        [shown] = show_deliveries(postgres, "2.25.77")
        assert (shown.delivery_id, shown.sop_instance_uid, shown.sent_as) == (sent.delivery_id, sent.sop_instance_uid, "2.25.77")
        assert [(each.sop_instance_uid, each.sent_as) for each in events(postgres)] == [(sent.sop_instance_uid, "2.25.77")]

    def test_an_accession_number_of_two_studies_names_neither(self, postgres: str, store: MemoryStore) -> None:
        index(postgres, *some(store, 1, "2.25.1"), *some(store, 1, "2.25.2"))
        index(postgres, *some(store, 1, "2.25.3"), accession_number="A-3")

        assert (study_named(postgres, "2.25.1"), study_named(postgres, "A-3")) == ("2.25.1", "2.25.3")
        with pytest.raises(NotFound, match="2 studies have that accession number"):
            study_named(postgres, "A-1")
        with pytest.raises(NotFound) as stop:
            study_named(postgres, "MRN-1")
        assert "MRN-1" not in str(stop.value)
