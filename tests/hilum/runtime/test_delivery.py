from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

import msgspec
import psycopg
import pytest
from msgspec.structs import replace
from psycopg.rows import dict_row

from hilum import bus, telemetry
from hilum.contract.order_examples import ORDER_EXAMPLES
from hilum.database import connect
from hilum.database.deliveries import settled_id
from hilum.database.orders import write_matches
from hilum.database.queries import destination_counts
from hilum.database.queues import outages
from hilum.events import DeliverySettled, MatchChanged, decode
from hilum.making import Attempt
from hilum.part10 import Part10
from hilum.runtime.deliver import Deliver
from hilum.runtime.delivery.breaker import FIRST_PAUSE_S, LONGEST_PAUSE_S, Breaker
from hilum.runtime.delivery.outbox import Outbox
from hilum.runtime.delivery.outcomes import PutOff
from hilum.runtime.delivery.queue import Queue
from hilum.runtime.delivery.suspects import STRIKES
from hilum.runtime.delivery.watch import CHANNEL, Watch
from hilum.runtime.delivery.worker import Shared
from hilum.settings import S3, Postgres, Settings
from hilum.sink import Delivery, Later, Outage, Settled, Waits
from hilum.store import open_store
from hilum.testing import Clock, MemoryStore, a_delivery, eventually
from tests.conftest import Log
from tests.ledger import DELIVERED, TRACE, Scripted, ScriptedByStudy, enter, outbox, raises, reads, rows, some, states, working
from tests.peers import pacs


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


class TestBreaker:
    @pytest.fixture
    def time(self) -> list[float]:
        return [0.0]

    @pytest.fixture
    def breaker(self, time: list[float]) -> Breaker:
        return Breaker(lambda: time[0])

    def test_a_destination_may_be_used_at_first(self, breaker: Breaker) -> None:
        assert (breaker.wait_s(), breaker.says, breaker.tried) == (0.0, "", False)

    def test_an_outage_is_new_once_and_says_why(self, breaker: Breaker) -> None:
        assert breaker.outage(Outage("Nobody is there.", fix="Start it.")) is True
        assert breaker.outage(Outage("Nobody is there.", fix="Start it.")) is False
        assert breaker.says == "Nobody is there. Start it."
        assert 0 < breaker.wait_s() <= FIRST_PAUSE_S

    def test_pauses_grow_to_a_limit_and_never_end_the_trying(self, breaker: Breaker, time: list[float]) -> None:
        pauses = []
        for _ in range(100):
            breaker.outage(Outage("Nobody is there."))
            pauses.append(breaker.wait_s())
            time[0] += pauses[-1]

        assert breaker.wait_s() == 0.0
        assert pauses[3] > 2 * pauses[0]
        assert LONGEST_PAUSE_S / 2 < pauses[-1] <= LONGEST_PAUSE_S

    def test_what_several_workers_meet_at_once_is_one_outage(self, breaker: Breaker) -> None:
        for _ in range(10):
            breaker.outage(Outage("Nobody is there."))

        assert breaker.wait_s() <= FIRST_PAUSE_S

    def test_a_success_closes_it(self, breaker: Breaker) -> None:
        breaker.outage(Outage("Nobody is there."))

        assert breaker.success() is True
        assert breaker.success() is False
        assert (breaker.wait_s(), breaker.says) == (0.0, "")


@pytest.mark.system
class TestQueue:
    @pytest.fixture
    def queue(self, postgres: str) -> Iterator[Callable[..., Queue]]:
        made: list[Queue] = []

        def make(worker: str = "w1", destination: str = "pacs", *, grouped: bool = False) -> Queue:
            made.append(Queue(postgres, destination, worker, bus.Writer(Settings(), "deliver"), grouped=grouped))
            return made[-1]

        yield make
        for each in made:
            each.close()

    def test_a_claimed_delivery_has_what_the_sink_needs(self, postgres: str, queue: Callable[..., Queue], store: MemoryStore) -> None:
        [delivery] = some(store, 1)
        enter(postgres, delivery)

        [claimed] = queue().claim(10)

        assert claimed.received_at is not None
        assert claimed == msgspec.structs.replace(delivery, traceparent=TRACE, received_at=claimed.received_at)

    def test_the_most_urgent_come_first_then_the_oldest(self, postgres: str, queue: Callable[..., Queue], store: MemoryStore) -> None:
        for study, priority in (("2.25.1", 0), ("2.25.2", 0), ("2.25.3", 5)):
            enter(postgres, *some(store, 1, study), priority=priority)

        assert [each.study_instance_uid for each in queue().claim(10)] == ["2.25.3", "2.25.1", "2.25.2"]

    def test_a_grouped_claim_is_of_one_study(self, postgres: str, queue: Callable[..., Queue], store: MemoryStore) -> None:
        one, other = some(store, 3, "2.25.1"), some(store, 3, "2.25.2")
        for pair in zip(one, other, strict=True):
            enter(postgres, *pair)
        grouped = queue(grouped=True)

        assert [{each.study_instance_uid for each in grouped.claim(10)} for _ in range(3)] == [{"2.25.1"}, {"2.25.2"}, set()]

    def test_no_two_workers_have_the_same_delivery(self, postgres: str, queue: Callable[..., Queue], store: MemoryStore) -> None:
        enter(postgres, *some(store, 5))

        claims = [queue("w1").claim(3), queue("w2").claim(3), queue("w3").claim(3)]

        assert [len(claim) for claim in claims] == [3, 2, 0]
        assert len({each.delivery_id for claim in claims for each in claim}) == 5

    def test_other_destinations_are_left_alone(self, postgres: str, queue: Callable[..., Queue], store: MemoryStore) -> None:
        enter(postgres, *some(store, 2, destination="archive"))

        assert queue().claim(10) == []

    def test_what_is_not_due_is_left_alone(self, postgres: str, queue: Callable[..., Queue], store: MemoryStore) -> None:
        enter(postgres, *some(store, 1))
        with connect(postgres) as connection:
            connection.execute("UPDATE delivery SET not_before = now() + interval '1 hour'")

        assert queue().claim(10) == []

    def test_a_settled_delivery_and_its_event_are_written_together(
        self, postgres: str, queue: Callable[..., Queue], store: MemoryStore
    ) -> None:
        enter(postgres, *some(store, 1))
        worker = queue()
        [claimed] = worker.claim(10)

        done = worker.record([(claimed, Settled(state="delivered", peer_status="0xB000", comment="PACS: stored.", peer_comment="coerced"))])

        [row], [said] = rows(postgres).values(), outbox(postgres)
        assert done == {claimed.delivery_id}
        assert [row[name] for name in ("state", "peer_status", "comment", "attempts")] == [
            "delivered",
            "0xB000",
            "PACS: stored. coerced",
            1,
        ]
        assert (row["claimed_by"], row["lease_until"]) == (None, None)
        event = decode(DeliverySettled, said["value"])
        assert event == DeliverySettled(
            delivery_id=claimed.delivery_id,
            receipt=claimed.receipt,
            destination="pacs",
            study_instance_uid="2.25.1",
            series_instance_uid="2.25.2",
            sop_instance_uid="2.25.1.0",
            sha256=claimed.object.sha256,
            state="delivered",
            attempts=1,
            peer_status="0xB000",
            comment="PACS: stored.",  # a peer may name the patient, and this topic names none
            config_version="v1",
            settled_at=row["settled_at"],
        )
        headers = said["headers"]
        assert (said["topic"], said["key"]) == ("delivery.settled.v1", "2.25.1")
        assert (headers["ce_id"], headers["ce_type"]) == (settled_id(claimed.delivery_id), "delivery.settled.v1")
        assert headers["traceparent"][:36] == TRACE[:36]

    def test_what_is_settled_is_not_settled_again(self, postgres: str, queue: Callable[..., Queue], store: MemoryStore) -> None:
        enter(postgres, *some(store, 2))
        worker = queue()
        outcomes = [(each, DELIVERED) for each in worker.claim(10)]

        assert [len(worker.record(outcomes)) for _ in range(2)] == [2, 0]
        assert len(outbox(postgres)) == 2

    def test_a_lease_that_is_over_passes_to_another_and_only_that_one_settles(
        self, postgres: str, queue: Callable[..., Queue], store: MemoryStore
    ) -> None:
        enter(postgres, *some(store, 1))
        slow, quick = queue("slow"), queue("quick")
        [first] = slow.claim(1, lease_s=-1)
        [second] = quick.claim(1)

        assert slow.record([(first, Settled(state="rejected"))]) == set()
        slow.release([first])
        assert quick.record([(second, DELIVERED)]) == {second.delivery_id}
        assert (states(postgres), len(outbox(postgres))) == ({"delivered"}, 1)

    def test_a_cancelled_delivery_stays_cancelled(self, postgres: str, queue: Callable[..., Queue], store: MemoryStore) -> None:
        enter(postgres, *some(store, 1))
        worker = queue()
        [claimed] = worker.claim(1)
        with connect(postgres) as connection:
            connection.execute("UPDATE delivery SET state = 'cancelled'")

        assert worker.record([(claimed, DELIVERED)]) == set()
        assert states(postgres) == {"cancelled"}

    def test_what_is_put_off_counts_an_attempt_and_waits(self, postgres: str, queue: Callable[..., Queue], store: MemoryStore) -> None:
        enter(postgres, *some(store, 1))
        worker = queue()
        [claimed] = worker.claim(1)

        worker.record([(claimed, PutOff(after_s=3600, peer_status="0xA700", comment="Full.", peer_comment="disk"))])

        [row] = rows(postgres).values()
        assert [row[name] for name in ("state", "attempts", "peer_status", "comment")] == ["pending", 1, "0xA700", "Full. disk"]
        assert worker.claim(1) == []
        assert outbox(postgres) == []

    def test_what_is_released_is_as_it_was(self, postgres: str, queue: Callable[..., Queue], store: MemoryStore) -> None:
        enter(postgres, *some(store, 1))
        before = rows(postgres)
        worker = queue()
        worker.release(worker.claim(1))

        assert rows(postgres) == before
        assert len(queue("w2").claim(1)) == 1


@pytest.mark.system
class TestWorker:
    @pytest.fixture
    def run(self, postgres: str, store: MemoryStore) -> Callable[..., Any]:
        return partial(working, postgres, store)

    def test_what_is_pending_is_delivered_and_settled(self, postgres: str, store: MemoryStore, run: Callable[..., Any]) -> None:
        enter(postgres, *some(store, 150))
        with run(Scripted(answer=lambda *_: DELIVERED)):
            eventually(lambda: states(postgres) == {"delivered"})

        assert len(outbox(postgres)) == 150

    def test_what_waits_for_the_destinations_word_counts_no_attempt_and_opens_no_breaker(
        self, postgres: str, store: MemoryStore, run: Callable[..., Any]
    ) -> None:
        enter(postgres, *some(store, 5))
        with run(Scripted(answer=raises(lambda: Waits("It has yet to commit it.", after_s=0.05), times=20))) as shared:
            eventually(lambda: states(postgres) == {"delivered"})
            assert not shared.breaker.tried

        assert {row["attempts"] for row in rows(postgres).values()} == {1}

    def test_what_comes_later_is_delivered_too(self, postgres: str, store: MemoryStore, run: Callable[..., Any]) -> None:
        with run(Scripted(answer=lambda *_: DELIVERED)) as shared:
            for n in range(3):
                enter(postgres, *some(store, 1, f"2.25.{n + 1}"))
                shared.wake.set()
                eventually(lambda: states(postgres) == {"delivered"})

    def test_several_workers_settle_each_delivery_once(self, postgres: str, store: MemoryStore, run: Callable[..., Any]) -> None:
        enter(postgres, *some(store, 300))
        with run(Scripted(answer=lambda *_: DELIVERED), workers=4):
            eventually(lambda: states(postgres) == {"delivered"})

        ids = [row["headers"]["ce_id"] for row in outbox(postgres)]
        assert len(ids) == len(set(ids)) == 300

    def test_an_outage_fails_nothing_and_counts_no_attempt(self, postgres: str, store: MemoryStore, run: Callable[..., Any]) -> None:
        enter(postgres, *some(store, 20))
        back = threading.Event()

        def answer(*_: object) -> Settled:
            if not back.is_set():
                raise Outage("Nobody is there.", fix="Start it.")
            return DELIVERED

        with run(Scripted(answer=answer)) as shared:
            eventually(lambda: shared.breaker.says == "Nobody is there. Start it.")
            eventually(lambda: all(row["claimed_by"] is None for row in rows(postgres).values()))
            assert {(row["state"], row["attempts"]) for row in rows(postgres).values()} == {("pending", 0)}
            back.set()
            eventually(lambda: states(postgres) == {"delivered"})
            assert shared.breaker.says == ""

        assert {row["attempts"] for row in rows(postgres).values()} == {1}

    def test_an_outage_is_not_asked_about_all_the_time(self, postgres: str, store: MemoryStore, run: Callable[..., Any]) -> None:
        enter(postgres, *some(store, 20))
        asked: list[float] = []

        def answer(*_: object) -> Settled:
            asked.append(time.monotonic())
            raise Outage("Nobody is there.")

        with run(Scripted(answer=answer)):
            eventually(lambda: len(asked) >= 2)

        assert asked[1] - asked[0] >= 0.75 * FIRST_PAUSE_S  # it varies, so that processes do not ask in step

    def test_an_object_that_is_not_taken_now_is_tried_again_and_each_attempt_is_counted_and_logged(
        self, postgres: str, store: MemoryStore, run: Callable[..., Any], capfd: pytest.CaptureFixture[str]
    ) -> None:
        counted_before = telemetry.DELIVERY_RETRIES.labels("pacs")._value.get()
        enter(postgres, *some(store, 5))
        sink = Scripted(answer=raises(lambda: Later("Full.", peer_status="0xA700", peer_comment="disk"), times=2, only="2.25.1.2"))
        with run(sink):
            eventually(lambda: states(postgres) == {"delivered"})

        assert {uid: row["attempts"] for uid, row in rows(postgres).items() if row["attempts"] > 1} == {"2.25.1.2": 3}
        assert sink.seen.count("2.25.1.2") == 3
        assert telemetry.DELIVERY_RETRIES.labels("pacs")._value.get() - counted_before == 2
        lines = [line for line in map(msgspec.json.decode, capfd.readouterr().err.splitlines()) if line["event"] == "delivery_put_off"]
        assert [(line["instance"], line["attempts"], line["status"], line["says"]) for line in lines] == [
            ("2.25.1.2", 1, "0xA700", "Full."),
            ("2.25.1.2", 2, "0xA700", "Full."),
        ]

    def test_an_object_that_is_never_taken_is_put_aside_for_a_person_in_the_end_and_logged(
        self, postgres: str, store: MemoryStore, run: Callable[..., Any], capfd: pytest.CaptureFixture[str]
    ) -> None:
        enter(postgres, *some(store, 1))
        with run(Scripted(answer=raises(lambda: Later("Full.", peer_status="0xA700", peer_comment="disk")), max_attempts=2)):
            eventually(lambda: states(postgres) == {"parked"})

        [row] = rows(postgres).values()
        assert row["parked_at"] is not None
        assert outbox(postgres) == []
        assert (row["attempts"], row["peer_status"], row["comment"]) == (2, "0xA700", "Given up after 2 attempts: Full. disk")
        [line] = [line for line in map(msgspec.json.decode, capfd.readouterr().err.splitlines()) if line["event"] == "delivery_parked"]
        assert [line[name] for name in ("destination", "instance", "status")] == ["pacs", "2.25.1.0", "0xA700"]
        assert line["says"] == "Given up after 2 attempts: Full."

    def test_a_destination_that_takes_nothing_of_three_studies_lets_the_queue_wait(
        self, postgres: str, store: MemoryStore, run: Callable[..., Any]
    ) -> None:
        enter(postgres, *(each for n in range(5) for each in some(store, 10, f"2.25.{n + 1}")))
        with run(Scripted(answer=raises(lambda: Later("Full.", peer_comment="Marked^Patient")), retry_max_s=600.0)) as shared:
            eventually(lambda: "Nothing was taken of 3 studies in a row; the last: Full." in shared.breaker.says)
            assert "Marked" not in shared.breaker.says  # it is logged, and shown by /health
            eventually(lambda: all(row["claimed_by"] is None for row in rows(postgres).values()))

        attempts = [row["attempts"] for row in rows(postgres).values()]
        assert attempts.count(0) >= 40
        assert max(attempts) == 1

    @pytest.mark.parametrize("priority", [0, 100])
    @pytest.mark.parametrize("grouped", [False, True])
    def test_a_study_that_is_never_taken_delays_no_other_one_whatever_its_priority(
        self, postgres: str, store: MemoryStore, run: Callable[..., Any], priority: int, grouped: bool
    ) -> None:
        def answer(delivery: Delivery, _: Part10) -> Settled:
            if delivery.study_instance_uid == "2.25.1":
                raise Later("Full.", peer_status="0xA700")
            return DELIVERED

        enter(postgres, *some(store, 30), priority=priority)
        enter(postgres, *some(store, 20, "2.25.2"), *some(store, 20, "2.25.3"))
        sink = (ScriptedByStudy if grouped else Scripted)(answer=answer)
        with run(sink) as shared:
            eventually(lambda: [row["state"] for row in rows(postgres).values()].count("delivered") == 40)
            assert not shared.breaker.tried
            assert sum(uid.startswith("2.25.1.") for uid in sink.seen) <= 3 * STRIKES  # the first rests are of 1 and 2 s

        assert {row["state"] for row in rows(postgres).values() if row["study_instance_uid"] == "2.25.1"} == {"pending"}

    def test_one_object_that_is_never_taken_does_not_make_the_destination_wait(
        self, postgres: str, store: MemoryStore, run: Callable[..., Any]
    ) -> None:
        enter(postgres, *some(store, 1))
        with run(Scripted(answer=raises(lambda: Later("Full.")), retry_max_s=0.01)) as shared:
            eventually(lambda: rows(postgres)["2.25.1.0"]["attempts"] > STRIKES + 1)
            assert shared.breaker.says == ""

    def test_an_object_that_expired_is_rejected_with_the_day_and_the_term(
        self, postgres: str, store: MemoryStore, run: Callable[..., Any]
    ) -> None:
        [delivery] = some(store, 1)
        enter(postgres, delivery)
        with connect(postgres) as connection:
            connection.execute(
                "INSERT INTO expiry (bucket, object_key, study_instance_uid, series_instance_uid, sop_instance_uid, sha256, size_bytes,"
                " receipts, days, policy, policy_version, decided_by, decided_at) VALUES (%s, %s, '', '', '', '', 1, '{}', 30,"
                " 'originals_days = 30', 'v1', 'host/expire', '2026-01-31T12:00Z')",
                (delivery.object.bucket, delivery.object.key),
            )
        store.objects.clear()

        with run(Scripted(answer=reads)):
            eventually(lambda: states(postgres) == {"rejected"})

        comment = rows(postgres)[delivery.sop_instance_uid]["comment"]
        assert comment.startswith("The original expired on 2026-01-31 by originals_days = 30 (host/expire)")
        assert "sent to Hilum again" in comment

    def test_an_object_that_the_store_lost_is_rejected_and_the_others_go_on(
        self, postgres: str, store: MemoryStore, run: Callable[..., Any]
    ) -> None:
        deliveries = some(store, 3)
        enter(postgres, *deliveries)
        del store.objects["hilum-originals", deliveries[1].object.key]

        with run(Scripted(answer=reads)):
            eventually(lambda: "pending" not in states(postgres))

        found = rows(postgres)
        assert [found[each.sop_instance_uid]["state"] for each in deliveries] == ["delivered", "rejected", "delivered"]
        assert "is not in bucket hilum-originals: it was not sent" in found["2.25.1.1"]["comment"]

    def test_a_store_that_is_away_is_waited_for(self, postgres: str, store: MemoryStore, run: Callable[..., Any]) -> None:
        enter(postgres, *some(store, 3))
        store.away = True
        with run(Scripted(answer=reads)) as shared:
            eventually(lambda: "The object store does not answer" in shared.breaker.says)
            store.away = False
            eventually(lambda: states(postgres) == {"delivered"})

        assert {row["attempts"] for row in rows(postgres).values()} == {1}

    def test_what_is_under_way_is_known_while_the_destination_is_waited_for(
        self, postgres: str, store: MemoryStore, run: Callable[..., Any]
    ) -> None:
        enter(postgres, *some(store, 1))
        go_on = threading.Event()

        def answer(*_: object) -> Settled:
            go_on.wait(60)
            return DELIVERED

        with run(Scripted(answer=answer)) as shared:
            eventually(lambda: shared.under_way)
            go_on.set()
            eventually(lambda: states(postgres) == {"delivered"})
            assert shared.under_way == {}

    def test_a_sink_that_fails_unforeseen_stops_no_other_object(self, postgres: str, store: MemoryStore, run: Callable[..., Any]) -> None:
        enter(postgres, *some(store, 5))
        sink = Scripted(answer=raises(lambda: ZeroDivisionError("Marked^Patient"), only="2.25.1.2"), max_attempts=2)
        with run(sink):
            eventually(lambda: "pending" not in states(postgres))

        found = rows(postgres)
        assert {uid for uid, row in found.items() if row["state"] == "delivered"} == set(found) - {"2.25.1.2"}
        assert found["2.25.1.2"]["state"] == "parked"
        assert found["2.25.1.2"]["comment"] == (
            "Given up after 2 attempts: The delivery failed in a way nobody foresaw (ZeroDivisionError)."
        )

    def test_a_destination_never_delays_another(self, postgres: str, store: MemoryStore, run: Callable[..., Any]) -> None:
        enter(postgres, *some(store, 10), *some(store, 10, "2.25.2", "archive"))
        hangs = threading.Event()

        def hang(*_: object) -> Settled:
            hangs.wait(60)
            return DELIVERED

        with run(Scripted(answer=hang)), run(Scripted(answer=lambda *_: DELIVERED), "archive"):
            eventually(lambda: {row["state"] for row in rows(postgres).values() if row["destination"] == "archive"} == {"delivered"})
            assert {row["state"] for row in rows(postgres).values() if row["destination"] == "pacs"} == {"pending"}
            hangs.set()

    def test_connections_that_the_server_ends_cost_nothing(self, postgres: str, store: MemoryStore, run: Callable[..., Any]) -> None:
        enter(postgres, *some(store, 100))

        def answer(delivery: Delivery, _: Part10) -> Settled:
            if delivery.sop_instance_uid.endswith("0"):
                end_connections(postgres)
            return DELIVERED

        with run(Scripted(answer=answer)):
            eventually(lambda: states(postgres) == {"delivered"})

        ids = [row["headers"]["ce_id"] for row in outbox(postgres)]
        assert len(ids) == len(set(ids)) == 100

    def test_what_a_stopped_worker_did_not_begin_is_free_at_once(self, postgres: str, store: MemoryStore, run: Callable[..., Any]) -> None:
        enter(postgres, *some(store, 10))
        begun, told_to_stop = threading.Event(), threading.Event()

        def answer(*_: object) -> Settled:
            begun.set()
            told_to_stop.wait(60)
            return DELIVERED

        with run(Scripted(answer=answer), stop=told_to_stop):
            assert begun.wait(60)

        found = rows(postgres).values()
        assert {row["claimed_by"] for row in found} == {None}
        assert [row["state"] for row in found].count("delivered") == 1

    def test_what_a_killed_worker_had_is_delivered_by_another(self, postgres: str, store: MemoryStore, run: Callable[..., Any]) -> None:
        enter(postgres, *some(store, 3))
        dead = Queue(postgres, "pacs", "dead", bus.Writer(Settings(), "deliver"))
        assert len(dead.claim(10, lease_s=0.5)) == 3
        dead.close()

        with run(Scripted(answer=lambda *_: DELIVERED)):
            eventually(lambda: states(postgres) == {"delivered"})


def end_connections(dsn: str) -> None:
    """As when the server restarts: every connection of the role is ended."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name LIKE 'hilum deliver%'"
        )


@pytest.mark.system
class TestWatch:
    @pytest.fixture
    def shared(self) -> Shared:
        return Shared("pacs", Scripted(answer=lambda *_: DELIVERED))

    @pytest.fixture
    def watch(self, postgres: str, shared: Shared) -> Iterator[Watch]:
        stop, watch = threading.Event(), Watch(postgres, {"pacs": shared}, "p1")
        thread = threading.Thread(target=watch.run, args=(stop,))
        thread.start()
        yield watch
        stop.set()
        thread.join(60)
        assert not thread.is_alive()

    def listening(self, postgres: str) -> Callable[[], object]:
        def found() -> object:
            with connect(postgres) as connection:
                query = "SELECT pid FROM pg_stat_activity WHERE application_name = 'hilum deliver watch' AND datname = current_database()"
                return connection.execute(query).fetchone()

        return found

    def test_a_notice_wakes_the_destinations_workers(self, postgres: str, shared: Shared, watch: Watch) -> None:
        eventually(shared.wake.is_set)  # once when it begins to listen
        shared.wake.clear()
        with connect(postgres) as connection:
            connection.execute("SELECT pg_notify(%s, 'archive')", (CHANNEL,))
            connection.execute("SELECT pg_notify(%s, 'pacs')", (CHANNEL,))

        eventually(shared.wake.is_set)

    def test_it_listens_again_after_an_outage(self, postgres: str, shared: Shared, watch: Watch) -> None:
        eventually(shared.wake.is_set)
        eventually(self.listening(postgres))
        shared.wake.clear()
        end_connections(postgres)

        eventually(shared.wake.is_set)
        assert watch.database_away is False

    def test_studies_are_counted_by_how_they_fit_their_orders(self, postgres: str, shared: Shared) -> None:
        example = ORDER_EXAMPLES[MatchChanged]()
        assert isinstance(example, MatchChanged)
        gauge = telemetry.STUDIES_BY_MATCH.labels("no-order")
        watch = Watch(postgres, {"pacs": shared}, "p1")
        with connect(postgres) as connection:
            connection.execute("TRUNCATE match")
            write_matches(connection, [replace(example, outcome="no-order", version=1, changed_at=datetime.now(UTC))])
            watch._measure(connection)
            assert gauge._value.get() == 1
            connection.execute("TRUNCATE match")
            watch._measure(connection)
            assert gauge._value.get() == 0

    def test_destinations_are_unknown_only_if_they_still_are_after_the_settings_were_read(
        self, postgres: str, shared: Shared, store: MemoryStore, capsys: pytest.CaptureFixture[str]
    ) -> None:
        enter(postgres, *some(store, 1))
        destinations: dict[str, Shared] = {}
        watch = Watch(postgres, destinations, "p1")
        with connect(postgres) as connection:
            watch._measure(connection)
            destinations["pacs"] = shared
            watch._measure(connection)
            assert "destination_unknown" not in capsys.readouterr().err
            destinations.clear()
            for _ in range(3):
                watch._measure(connection)
            assert capsys.readouterr().err.count("destination_unknown") == 1

    def test_leases_of_those_at_work_are_kept(self, postgres: str, shared: Shared, store: MemoryStore) -> None:
        enter(postgres, *some(store, 1))
        queue = Queue(postgres, "pacs", "w1", bus.Writer(Settings(), "deliver"))
        [claimed] = queue.claim(1, lease_s=1)
        queue.close()
        before = rows(postgres)["2.25.1.0"]["lease_until"]
        shared.claimed["w1"] = frozenset({claimed.delivery_id})
        stop, watch = threading.Event(), Watch(postgres, {"pacs": shared}, "p1")
        thread = threading.Thread(target=watch.run, args=(stop,))
        thread.start()
        try:
            eventually(lambda: (rows(postgres)["2.25.1.0"]["lease_until"] - before).total_seconds() > 30)
        finally:
            stop.set()
            thread.join(60)

    def test_a_destination_that_does_not_answer_is_told_of_while_it_happens_and_no_longer(self, postgres: str, shared: Shared) -> None:
        stop, watch = threading.Event(), Watch(postgres, {"pacs": shared}, "p1")
        clock = Clock()
        shared.under_way["w1"] = Attempt(lambda: clock().timestamp())
        clock.forward(seconds=78)
        thread = threading.Thread(target=watch.run, args=(stop,))
        thread.start()
        try:
            eventually(lambda: "pacs" in outages(postgres))
            assert outages(postgres)["pacs"].says == "pacs has given no answer for 75 s to what is under way."
            assert shared.says() == outages(postgres)["pacs"].says
            shared.under_way.clear()
            eventually(lambda: outages(postgres) == {})
        finally:
            stop.set()
            thread.join(60)

    def test_pending_deliveries_are_counted_those_of_unknown_destinations_too(self, postgres: str, store: MemoryStore) -> None:
        enter(postgres, *some(store, 3), *some(store, 2, "2.25.2", "gone"))
        stop, watch = threading.Event(), Watch(postgres, {"pacs": Shared("pacs", Scripted(answer=lambda *_: DELIVERED))}, "p1")
        thread = threading.Thread(target=watch.run, args=(stop,))
        thread.start()
        try:
            eventually(lambda: watch.pending == {"pacs": 3, "gone": 2})
        finally:
            stop.set()
            thread.join(60)


@pytest.mark.system
class TestOutbox:
    @pytest.fixture
    def settings(self, log: Log, postgres: str) -> Settings:
        log.make()
        return msgspec.structs.replace(log.settings, postgres=Postgres(dsn=postgres))

    def settle(self, settings: Settings, deliveries: Sequence[Delivery]) -> None:
        enter(settings.postgres.dsn, *deliveries)
        queue = Queue(settings.postgres.dsn, "pacs", "w1", bus.Writer(settings, "deliver"))
        queue.record([(each, DELIVERED) for each in queue.claim(len(deliveries))])
        queue.close()

    def test_what_is_settled_is_said_on_kafka_and_leaves_the_outbox(self, settings: Settings, log: Log, store: MemoryStore) -> None:
        deliveries = some(store, 3)
        self.settle(settings, deliveries)
        publisher = Outbox(settings)

        assert publisher.publish(threading.Event()) == 3
        publisher.close()

        messages = log.messages(bus.topic_of(settings, DeliverySettled), 3)
        assert outbox(settings.postgres.dsn) == []
        assert sorted(bus.headers_of(message)["ce_id"].decode() for message in messages) == sorted(
            settled_id(each.delivery_id) for each in deliveries
        )
        assert {message.key() for message in messages} == {b"2.25.1"}
        assert {decode(DeliverySettled, message.value() or b"").state for message in messages} == {"delivered"}

    def test_a_study_is_told_in_the_order_in_which_it_was_settled(self, settings: Settings, log: Log, store: MemoryStore) -> None:
        deliveries = some(store, 50)
        self.settle(settings, deliveries)
        order = [row["headers"]["ce_id"] for row in outbox(settings.postgres.dsn)]
        publisher = Outbox(settings)
        publisher.publish(threading.Event())
        publisher.close()

        messages = log.messages(bus.topic_of(settings, DeliverySettled), 50)
        assert [bus.headers_of(message)["ce_id"].decode() for message in messages] == order

    def test_rows_stay_while_kafka_is_away(self, settings: Settings, store: MemoryStore, free_port: int) -> None:
        self.settle(settings, some(store, 2))
        kafka = msgspec.structs.replace(settings.kafka, bootstrap=f"127.0.0.1:{free_port}")
        publisher, stop = Outbox(msgspec.structs.replace(settings, kafka=kafka)), threading.Event()
        thread = threading.Thread(target=publisher.run, args=(stop, threading.Event()))
        thread.start()
        try:
            eventually(lambda: publisher.says)
        finally:
            stop.set()
            thread.join(60)

        assert not thread.is_alive()
        assert len(outbox(settings.postgres.dsn)) == 2

    def test_one_publisher_publishes_and_another_takes_over(self, settings: Settings, store: MemoryStore) -> None:
        first, second = Outbox(settings), Outbox(settings)
        first.publish(threading.Event())
        self.settle(settings, some(store, 2))

        assert second.publish(threading.Event()) == 0
        first.close()
        assert eventually(lambda: second.publish(threading.Event())) == 2
        second.close()


@pytest.mark.system
class TestDeliver:
    @pytest.fixture
    def settings(self, log: Log, postgres: str, s3: S3) -> Settings:
        log.make()
        settings = msgspec.structs.replace(log.settings, postgres=Postgres(dsn=postgres), s3=s3)
        open_store(settings).ensure_bucket("hilum-originals")
        return settings

    def test_every_destination_is_served_and_every_outcome_is_told(self, settings: Settings, log: Log) -> None:
        store, dsn = open_store(settings), settings.postgres.dsn
        with pacs() as there:
            destinations = {
                "archive": {"type": "archive"},
                "pacs": {"type": "dicom", "host": "127.0.0.1", "port": there.port, "aet": "PACS"},
                "away": {"type": "dicom", "host": "127.0.0.1", "port": 1, "aet": "AWAY"},
            }
            role = Deliver(msgspec.structs.replace(settings, destinations=destinations))
            for name in destinations:
                enter(dsn, *(a_delivery(store, SOPInstanceUID=f"2.25.{n + 10}", destination=name) for n in range(20)))
            with log.running(role) as [running]:
                eventually(lambda: [row["destination"] for row in all_rows(dsn) if row["state"] == "delivered"].count("pacs") == 20)
                messages = log.messages(bus.topic_of(settings, DeliverySettled), 40)
                eventually(lambda: "away waits: 127.0.0.1:1 cannot be reached" in role.health().says)
                assert role.health().ready
                assert not running.ended()
                eventually(lambda: {c.destination for c in destination_counts(dsn) if c.waits_because} == {"away"})
                [away] = [count for count in destination_counts(dsn) if count.waits_because]
                assert "127.0.0.1:1 cannot be reached" in (away.waits_because or "")

            assert {uid: len(found) for uid, found in there.stored.items()} == {f"2.25.{n + 10}": 1 for n in range(20)}
        assert len({bus.headers_of(message)["ce_id"] for message in messages}) == len(messages) == 40
        assert {(row["destination"], row["state"], row["attempts"]) for row in all_rows(dsn)} == {
            ("archive", "delivered", 1),
            ("pacs", "delivered", 1),
            ("away", "pending", 0),
        }

    def test_a_notice_is_enough_to_begin(self, settings: Settings, log: Log) -> None:
        role = Deliver(msgspec.structs.replace(settings, destinations={"archive": {"type": "archive"}}))
        with log.running(role):
            for n in range(3):
                enter(settings.postgres.dsn, a_delivery(open_store(settings), SOPInstanceUID=f"2.25.{n + 10}", destination="archive"))
                with connect(settings.postgres.dsn) as connection:
                    connection.execute("SELECT pg_notify(%s, 'archive')", (CHANNEL,))
                eventually(lambda: {row["state"] for row in all_rows(settings.postgres.dsn)} == {"delivered"})

    def test_postgresql_being_away_is_waited_out(self, settings: Settings, log: Log, free_port: int) -> None:
        away = Postgres(dsn=f"postgresql://hilum@127.0.0.1:{free_port}/hilum")
        role = Deliver(msgspec.structs.replace(settings, postgres=away, destinations={"archive": {"type": "archive"}}))
        with log.running(role) as [running]:
            eventually(lambda: role.health().says.startswith("PostgreSQL does not answer; deliveries wait"))
            assert not role.health().ready
            assert not running.ended()

    def test_deliveries_for_a_destination_that_the_settings_do_not_have_are_told(
        self, settings: Settings, log: Log, store: MemoryStore
    ) -> None:
        enter(settings.postgres.dsn, *some(store, 2, destination="gone"))
        role = Deliver(settings)
        with log.running(role):
            eventually(lambda: "2 deliveries waiting for gone, which the settings do not have" in role.health().says)
            assert role.health().lag == 2


def all_rows(dsn: str) -> list[dict[str, Any]]:
    with connect(dsn) as connection:
        return connection.cursor(row_factory=dict_row).execute("SELECT * FROM delivery").fetchall()
