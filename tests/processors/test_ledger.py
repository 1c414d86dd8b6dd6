from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import pytest
from msgspec.structs import replace
from psycopg.rows import dict_row

from hilum.database import connect
from hilum.database.deliveries import CHANNEL
from hilum.events import DeliverySettled, InstanceRouted, ObjectRef, PlannedDelivery, decode
from hilum.runtime.tables import Envelope, events_of
from processors.ledger import Ledger

ENVELOPE = Envelope(id="event-1", time=datetime(2024, 2, 29, 12, tzinfo=UTC), traceparent="00-" + "1" * 32 + "-" + "2" * 16 + "-01")


def routed(*deliveries: PlannedDelivery, receipt: str = "receipt-1") -> InstanceRouted:
    return InstanceRouted(
        receipt=receipt,
        study_instance_uid="2.25.1",
        series_instance_uid="2.25.2",
        sop_instance_uid="2.25.3",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        object=ObjectRef(bucket="hilum-originals", key="2.25.1/2.25.2/2.25.3/aa.dcm", size_bytes=528_000, sha256="a" * 64),
        received_at=datetime(2024, 2, 29, 12, tzinfo=UTC),
        decision="deliver",
        deliveries=deliveries,
        config_version="0123456789ab",
        decided_at=datetime(2024, 2, 29, 12, 0, 1, tzinfo=UTC),
    )


ARCHIVE = PlannedDelivery(delivery_id="delivery-1", destination="archive", rules=("everything", 'a name, with "signs" {}'), priority=5)
PACS = PlannedDelivery(delivery_id="delivery-2", destination="pacs", rules=())


def test_the_ledger_reads_routed_instances_only() -> None:
    assert events_of(Ledger()) == (InstanceRouted,)


EXPIRED = """
INSERT INTO expiry (bucket, object_key, study_instance_uid, series_instance_uid, sop_instance_uid, sha256, size_bytes, receipts, days,
    policy, policy_version, decided_by, decided_at)
VALUES ('hilum-originals', '2.25.1/2.25.2/2.25.3/aa.dcm', '2.25.1', '2.25.2', '2.25.3', '', 1, '{receipt-1}', 30,
    'originals_days = 30', 'v1', 'host/expire', '2026-01-31T12:00Z')
"""


@pytest.mark.system
class TestOnPostgreSQL:
    def test_a_delivery_whose_original_has_expired_is_cancelled_at_once_and_says_so(self, postgres: str) -> None:
        with connect(postgres) as connection:
            connection.execute(EXPIRED)

            Ledger().apply(connection, [(routed(ARCHIVE), ENVELOPE)])

            rows = connection.execute("SELECT state, comment FROM delivery").fetchall()
            [(value,)] = connection.execute("SELECT value FROM outbox").fetchall()
        assert rows == [("cancelled", "The original expired on 2026-01-31 by originals_days = 30.")]
        assert decode(DeliverySettled, value).comment == rows[0][1]

    def test_a_delivery_of_an_arrival_that_came_after_the_expiry_is_made(self, postgres: str) -> None:
        with connect(postgres) as connection:
            connection.execute(EXPIRED)

            Ledger().apply(connection, [(routed(PACS, receipt="receipt-2"), ENVELOPE)])

            assert connection.execute("SELECT state FROM delivery").fetchall() == [("pending",)]

    def test_a_row_remembers_the_policy_that_its_destination_had(self, postgres: str) -> None:
        under = replace(PACS, policy="research")
        with connect(postgres) as connection:
            Ledger().apply(connection, [(routed(ARCHIVE, under), ENVELOPE)])

            rows = connection.execute("SELECT destination, under_policy FROM delivery ORDER BY destination").fetchall()

        assert rows == [("archive", None), ("pacs", "research")]

    def test_each_planned_delivery_becomes_a_pending_row_with_what_its_worker_needs(self, postgres: str) -> None:
        with connect(postgres) as connection:
            Ledger().apply(connection, [(routed(ARCHIVE, PACS), ENVELOPE)])

            rows = connection.cursor(row_factory=dict_row).execute("SELECT * FROM delivery ORDER BY delivery_id").fetchall()

        assert [(row["delivery_id"], row["destination"], row["state"], row["rules"], row["priority"]) for row in rows] == [
            ("delivery-1", "archive", "pending", ["everything", 'a name, with "signs" {}'], 5),
            ("delivery-2", "pacs", "pending", [], 0),
        ]
        assert {
            "receipt": "receipt-1",
            "study_instance_uid": "2.25.1",
            "series_instance_uid": "2.25.2",
            "sop_instance_uid": "2.25.3",
            "bucket": "hilum-originals",
            "object_key": "2.25.1/2.25.2/2.25.3/aa.dcm",
            "size_bytes": 528_000,
            "sha256": "a" * 64,
            "config_version": "0123456789ab",
            "traceparent": ENVELOPE.traceparent,
            "received_at": datetime(2024, 2, 29, 12, tzinfo=UTC),
            "attempts": 0,
        }.items() <= rows[0].items()

    def test_a_decision_that_is_read_again_leaves_a_settled_delivery_as_it_is(self, postgres: str) -> None:
        with connect(postgres) as connection:
            Ledger().apply(connection, [(routed(ARCHIVE), ENVELOPE)])
            connection.execute("UPDATE delivery SET state = 'delivered', attempts = 3")

            Ledger().apply(connection, [(routed(ARCHIVE), ENVELOPE), (routed(ARCHIVE), ENVELOPE)])

            assert connection.execute("SELECT state, attempts FROM delivery").fetchall() == [("delivered", 3)]

    def test_each_destination_is_told_once_of_new_work_and_not_of_known(self, postgres: str) -> None:
        with connect(postgres) as connection, connect(postgres) as listening:
            listening.execute(f"LISTEN {CHANNEL}")
            more = PlannedDelivery(delivery_id="delivery-3", destination="pacs", rules=())

            Ledger().apply(connection, [(routed(ARCHIVE, PACS), ENVELOPE), (routed(more, receipt="receipt-2"), ENVELOPE)])
            Ledger().apply(connection, [(routed(ARCHIVE, PACS), ENVELOPE)])

            assert [told.payload for told in listening.notifies(timeout=60, stop_after=2)] == ["archive", "pacs"]
            assert list(listening.notifies(timeout=0)) == []

    def test_what_is_entered_of_an_urgent_study_is_urgent_too(self, postgres: str) -> None:
        with connect(postgres) as connection:
            connection.execute("INSERT INTO urgent_study (study_instance_uid, priority) VALUES ('2.25.1', 100)")
            Ledger().apply(connection, [(routed(ARCHIVE, PACS), ENVELOPE)])

            assert connection.execute("SELECT DISTINCT priority FROM delivery").fetchall() == [(100,)]

    def test_a_decision_without_deliveries_writes_nothing(self, postgres: str) -> None:
        with connect(postgres) as connection:
            Ledger().apply(connection, [(routed(), ENVELOPE)])

            assert connection.execute("SELECT count(*) FROM delivery").fetchall() == [(0,)]

    def test_what_is_taken_back_is_cancelled_with_an_event_and_what_is_settled_stays_so(self, postgres: str) -> None:
        taken_back = msgspec.structs.replace(routed(), decision="withdrawn", cancels=("delivery-1", "delivery-2", "delivery-9"))
        with connect(postgres) as connection:
            Ledger().apply(connection, [(routed(ARCHIVE, PACS), ENVELOPE)])
            connection.execute("UPDATE delivery SET state = 'delivered' WHERE delivery_id = 'delivery-2'")

            for _ in range(2):
                Ledger().apply(connection, [(taken_back, ENVELOPE)])

            states = connection.execute("SELECT delivery_id, state, comment FROM delivery ORDER BY 1").fetchall()
            [(topic, key, headers, value)] = connection.execute("SELECT topic, key, headers, value FROM outbox").fetchall()
        assert states == [("delivery-1", "cancelled", "A rejection note names it."), ("delivery-2", "delivered", None)]
        event = decode(DeliverySettled, bytes(value))
        assert (topic, key, headers["ce_subject"]) == ("delivery.settled.v1", "2.25.1", "delivery-1")
        assert (event.state, event.destination, event.sha256) == ("cancelled", "archive", "a" * 64)

    def test_what_is_planned_and_taken_back_in_one_batch_is_cancelled(self, postgres: str) -> None:
        taken_back = msgspec.structs.replace(routed(), decision="corrected", cancels=("delivery-1",))
        with connect(postgres) as connection:
            Ledger().apply(connection, [(routed(ARCHIVE), ENVELOPE), (taken_back, ENVELOPE)])

            assert connection.execute("SELECT state FROM delivery").fetchall() == [("cancelled",)]
