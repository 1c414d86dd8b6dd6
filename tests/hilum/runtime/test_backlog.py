"""A destination that is down with much waiting delays no other, and drains in order of priority. Counted, not timed."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from hilum.database import connect
from hilum.sink import Outage, Settled
from hilum.testing import MemoryStore, eventually
from tests.ledger import DELIVERED, Scripted, enter, some, working

pytestmark = pytest.mark.system

WAITING = 3000


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def enter_many(dsn: str, store: MemoryStore, count: int) -> None:
    """As many deliveries of one object, a tenth of them of priority 5 and a tenth of priority 1, entered in no order of these."""
    [delivery] = some(store, 1, "2.25.9", "down")
    enter(dsn, delivery)
    with connect(dsn) as connection:
        connection.execute(
            """
            INSERT INTO delivery (delivery_id, destination, receipt, study_instance_uid, series_instance_uid, sop_instance_uid,
                sop_class_uid, transfer_syntax_uid, bucket, object_key, size_bytes, sha256, priority)
            SELECT 'd' || n, destination, receipt, study_instance_uid, series_instance_uid, '2.25.9.' || n, sop_class_uid,
                transfer_syntax_uid, bucket, object_key, size_bytes, sha256, CASE n %% 10 WHEN 7 THEN 5 WHEN 3 THEN 1 ELSE 0 END
            FROM delivery, generate_series(1, %s) AS n
            """,
            (count - 1,),
        )


def counts(dsn: str) -> dict[tuple[str, str], int]:
    with connect(dsn) as connection:
        rows = connection.execute("SELECT destination, state, count(*) FROM delivery GROUP BY destination, state").fetchall()
    return {(destination, state): count for destination, state, count in rows}


def priorities(dsn: str) -> dict[str, int]:
    with connect(dsn) as connection:
        rows: list[Any] = connection.execute("SELECT sop_instance_uid, priority FROM delivery WHERE destination = 'down'").fetchall()
    return dict(rows)


def test_what_waits_for_one_destination_is_not_touched_while_another_works_and_goes_in_order_afterwards(
    postgres: str, store: MemoryStore
) -> None:
    enter_many(postgres, store, WAITING)
    enter(postgres, *some(store, 500, "2.25.1", "works"))
    back = threading.Event()
    tried: list[str] = []

    def answer(delivery: Any, _: Any) -> Settled:
        if not back.is_set():
            tried.append(delivery.sop_instance_uid)
            raise Outage("Nobody is there.")
        return DELIVERED

    down = Scripted(answer=answer)
    with working(postgres, store, down, "down"):
        eventually(lambda: tried)
        with working(postgres, store, Scripted(answer=lambda *_: DELIVERED), "works"):
            eventually(lambda: counts(postgres).get(("works", "delivered")) == 500)
        assert counts(postgres)["down", "pending"] == WAITING
        assert len(tried) < 20  # now and then one is tried, whatever waits
        back.set()
        eventually(lambda: counts(postgres).get(("down", "delivered")) == WAITING)

    priority = priorities(postgres)
    order = [priority[uid] for uid in down.seen if uid not in tried]
    assert order == sorted(order, reverse=True)
