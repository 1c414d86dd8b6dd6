"""What people want of a destination, and what its settings limit, as its workers keep to it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest

from hilum import bus
from hilum.database import connect
from hilum.desired import Desired
from hilum.events import Limits, ResourceWanted
from hilum.hours import Hours
from hilum.part10 import Part10
from hilum.runtime.delivery.orders import Orders
from hilum.runtime.delivery.queue import Queue
from hilum.runtime.delivery.worker import ALONE_AFTER, PARKED_AFTER
from hilum.settings import Settings
from hilum.sink import URGENT, Delivery, Outage, Park, Settled
from hilum.testing import MemoryStore, eventually
from tests.ledger import DELIVERED, Scripted, enter, outbox, raises, rows, some, states, working

MONDAY_NOON = datetime(2024, 2, 26, 12, tzinfo=UTC)


def delivers(*_: object) -> Settled:
    return DELIVERED


def wanted(**what: Any) -> Desired:
    return Desired(destinations={"pacs": ResourceWanted(resource="destination/pacs", by="me", since=MONDAY_NOON, **what)})


class TestOrders:
    def test_the_settings_hold_where_nothing_else_is_wanted(self) -> None:
        sink = Scripted(answer=delivers, objects_per_s=5.0, max_associations=2, hours="Mo 08:00-18:00", time_zone="UTC")

        orders = Orders.of("pacs", sink, Desired())

        assert (orders.paused, orders.objects_per_s, orders.max_associations) == (False, 5.0, 2)
        assert orders.closed(MONDAY_NOON) == ""

    def test_what_is_wanted_holds_in_place_of_the_settings(self) -> None:
        sink = Scripted(answer=delivers, objects_per_s=5.0, time_zone="UTC")

        orders = Orders.of("pacs", sink, wanted(paused=True, limits=Limits(objects_per_s=0.0, max_associations=1, hours="18:00-19:00")))

        assert (orders.paused, orders.objects_per_s, orders.max_associations) == (True, 0.0, 1)
        assert orders.closed(MONDAY_NOON) == "outside its hours, until Mon 18:00"

    def test_what_is_wanted_of_one_destination_is_not_of_another(self) -> None:
        assert Orders.of("archive", Scripted(answer=delivers), wanted(paused=True)) == Orders()

    @pytest.mark.parametrize(
        ("rate", "size_bytes", "seconds"),
        [({}, 10**9, 0.0), ({"objects_per_s": 4.0}, 10**9, 0.25), ({"megabytes_per_s": 2.0}, 500_000, 0.25),
         ({"objects_per_s": 1.0, "megabytes_per_s": 2.0}, 500_000, 1.0)],
    )  # fmt: skip
    def test_an_object_takes_as_long_as_the_stricter_rate_says(self, rate: dict[str, Any], size_bytes: int, seconds: float) -> None:
        assert Orders(**rate).cost_s(size_bytes) == seconds

    def test_little_is_claimed_ahead_of_a_rate(self) -> None:
        assert [Orders(objects_per_s=rate).batch(64) for rate in (0.0, 0.1, 10.0, 1000.0)] == [64, 1, 5, 16]


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.mark.system
class TestWorkersKeepTo:
    @pytest.fixture
    def run(self, postgres: str, store: MemoryStore) -> Callable[..., Any]:
        return partial(working, postgres, store)

    def test_a_pause_between_two_objects(self, postgres: str, store: MemoryStore, run: Callable[..., Any]) -> None:
        enter(postgres, *some(store, 20))
        third, go_on = threading.Event(), threading.Event()

        def answer(delivery: Delivery, _: Part10) -> Settled:
            if delivery.sop_instance_uid == "2.25.1.2":
                third.set()
                go_on.wait(60)
            return DELIVERED

        with run(Scripted(answer=answer)) as shared:
            assert third.wait(60)
            shared.orders = Orders(paused=True)
            go_on.set()
            eventually(lambda: [row["state"] for row in rows(postgres).values()].count("delivered") == 3)
            eventually(lambda: {row["claimed_by"] for row in rows(postgres).values()} == {None})
            assert shared.says() == "paused"
            shared.orders = Orders()
            eventually(lambda: states(postgres) == {"delivered"})

    def test_a_held_study_waits_and_others_go_on(self, postgres: str, store: MemoryStore, run: Callable[..., Any]) -> None:
        enter(postgres, *some(store, 5, "2.25.1"), *some(store, 5, "2.25.2"))
        with run(Scripted(answer=delivers), orders=Orders(held=frozenset({"2.25.1"}))) as shared:
            eventually(lambda: {row["study_instance_uid"] for row in rows(postgres).values() if row["state"] == "delivered"} == {"2.25.2"})
            eventually(lambda: [row["state"] for row in rows(postgres).values()].count("delivered") == 5)
            assert {row["attempts"] for row in rows(postgres).values() if row["study_instance_uid"] == "2.25.1"} == {0}
            shared.orders = Orders()
            eventually(lambda: states(postgres) == {"delivered"})

    def test_outside_its_hours_only_what_is_urgent_goes(self, postgres: str, store: MemoryStore, run: Callable[..., Any]) -> None:
        enter(postgres, *some(store, 3, "2.25.1"))
        enter(postgres, *some(store, 3, "2.25.2"), priority=URGENT)
        now = datetime.now(UTC)
        never = Hours.read(f"{('Mo', 'Tu', 'We', 'Th', 'Fr', 'Sa', 'Su')[(now.weekday() + 3) % 7]} 10:00-11:00", "UTC")
        with run(Scripted(answer=delivers), orders=Orders(hours=never)) as shared:
            eventually(lambda: [row["state"] for row in rows(postgres).values()].count("delivered") == 3)
            assert {row["study_instance_uid"] for row in rows(postgres).values() if row["state"] == "delivered"} == {"2.25.2"}
            assert shared.says().startswith("outside its hours, until ")

    def test_a_rate_over_all_workers(self, postgres: str, store: MemoryStore, run: Callable[..., Any]) -> None:
        """Booked time is counted, not a clock: 6 objects at 10 a second book 0.6 s of the destination."""
        enter(postgres, *some(store, 6))
        with connect(postgres) as connection:
            [(began,)] = connection.execute("SELECT now()").fetchall()
        with run(Scripted(answer=delivers), workers=2, orders=Orders(objects_per_s=10.0)):
            eventually(lambda: states(postgres) == {"delivered"})

        with connect(postgres) as connection:
            [(free_at,)] = connection.execute("SELECT free_at FROM destination_pace WHERE destination = 'pacs'").fetchall()
        assert (free_at - began).total_seconds() >= 0.6

    def test_its_association_limit_over_all_workers(self, postgres: str, store: MemoryStore, run: Callable[..., Any]) -> None:
        enter(postgres, *some(store, 60))
        lock, at_work, most = threading.Lock(), set[int](), [0]

        def answer(*_: object) -> Settled:
            with lock:
                at_work.add(threading.get_ident())
                most[0] = max(most[0], len(at_work))
            return DELIVERED

        with run(Scripted(answer=answer), workers=4, orders=Orders(max_associations=1)):
            eventually(lambda: states(postgres) == {"delivered"})

        assert most == [1]  # and it is the same thread all the time

    def test_what_needs_a_person_is_put_aside_at_once_and_the_others_go_on(
        self, postgres: str, store: MemoryStore, run: Callable[..., Any]
    ) -> None:
        enter(postgres, *some(store, 5))
        park = lambda: Park("PACS wants another Patient ID.", fix="Correct it.", peer_status="0xA900", peer_comment="for Marked^Patient")  # noqa: E731
        with run(Scripted(answer=raises(park, only="2.25.1.2"))) as shared:
            eventually(lambda: states(postgres) == {"parked", "delivered"})
            assert shared.breaker.says == ""

        [row] = [row for row in rows(postgres).values() if row["state"] == "parked"]
        assert (row["sop_instance_uid"], row["attempts"], row["peer_status"]) == ("2.25.1.2", 1, "0xA900")
        assert row["comment"] == "PACS wants another Patient ID. Correct it. for Marked^Patient"
        assert len(outbox(postgres)) == 4

    def test_an_object_that_looks_like_an_outage_does_not_keep_the_others_waiting(
        self, postgres: str, store: MemoryStore, run: Callable[..., Any]
    ) -> None:
        enter(postgres, *some(store, 10))
        with run(Scripted(answer=raises(lambda: Outage("It hung up."), only="2.25.1.0"))):
            eventually(lambda: [row["state"] for row in rows(postgres).values()].count("delivered") == 9)

        assert rows(postgres)["2.25.1.0"]["attempts"] == 0

    def test_what_ends_its_worker_again_and_again_is_put_aside(self, postgres: str, store: MemoryStore, run: Callable[..., Any]) -> None:
        enter(postgres, *some(store, 3))
        with connect(postgres) as connection:
            connection.execute("UPDATE delivery SET abandoned = %s WHERE sop_instance_uid = '2.25.1.1'", (PARKED_AFTER,))
        sink = Scripted(answer=delivers)
        with run(sink):
            eventually(lambda: "pending" not in states(postgres))

        found = rows(postgres)
        assert {uid: row["state"] for uid, row in found.items()} == {"2.25.1.0": "delivered", "2.25.1.1": "parked", "2.25.1.2": "delivered"}
        assert (found["2.25.1.1"]["attempts"], "never heard of again" in found["2.25.1.1"]["comment"]) == (0, True)
        assert "2.25.1.1" not in sink.seen

    def test_what_may_have_ended_a_worker_is_tried_alone(self, postgres: str, store: MemoryStore, run: Callable[..., Any]) -> None:
        enter(postgres, *some(store, 5))
        with connect(postgres) as connection:
            connection.execute("UPDATE delivery SET abandoned = %s", (ALONE_AFTER,))
        in_hand = []

        def answer(*_: object) -> Settled:
            in_hand.append(sum(row["claimed_by"] is not None for row in rows(postgres).values()))
            return DELIVERED

        with run(Scripted(answer=answer)):
            eventually(lambda: states(postgres) == {"delivered"})

        assert in_hand == [1] * 5


@pytest.mark.system
class TestSeats:
    @pytest.fixture
    def queue(self, postgres: str) -> Iterator[Callable[[str], Queue]]:
        made: list[Queue] = []

        def make(worker: str, destination: str = "pacs") -> Queue:
            made.append(Queue(postgres, destination, worker, bus.Writer(Settings(), "deliver")))
            return made[-1]

        yield make
        for each in made:
            each.close()

    def test_there_are_no_more_than_so_many_and_one_that_is_left_is_free(self, queue: Callable[[str], Queue]) -> None:
        one, two, three = queue("1"), queue("2"), queue("3")

        assert [one.seat(2), two.seat(2), three.seat(2), one.seat(2)] == [0, 1, None, 0]
        one.close()  # as when its process is killed
        assert eventually(lambda: three.seat(2) is not None)
        assert three.sits == 0

    def test_another_destination_has_its_own(self, queue: Callable[..., Queue]) -> None:
        assert [queue("1").seat(1), queue("2", "archive").seat(1)] == [0, 0]

    def test_who_has_one_that_is_no_more_looks_for_another(self, queue: Callable[[str], Queue]) -> None:
        one, two = queue("1"), queue("2")
        one.seat(2)
        two.seat(2)

        assert two.seat(1) is None
        one.close()
        assert eventually(lambda: two.seat(1) is not None)

    def test_booked_time_is_waited_for_by_all(self, queue: Callable[[str], Queue]) -> None:
        one, two = queue("1"), queue("2")

        assert one.wait_s() == 0
        assert one.book(3000.0) == 0
        assert 2900 < two.book(3000.0) <= 3000
        assert 5900 < one.wait_s() <= 6000


@pytest.mark.system
def test_a_claim_after_a_lease_that_ran_out_is_counted(postgres: str, store: MemoryStore) -> None:
    enter(postgres, *some(store, 1))
    abandoned = []
    for n in range(3):
        queue = Queue(postgres, "pacs", f"w{n}", bus.Writer(Settings(), "deliver"))
        [claimed] = queue.claim(1, lease_s=-1)
        abandoned.append(claimed.abandoned)
        queue.close()

    assert abandoned == [0, 1, 2]
