"""The loop from Kafka into PostgreSQL, on both. The handler of these tests writes one row an event."""

from __future__ import annotations

import socket
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress

import msgspec
import psycopg
import pytest
from confluent_kafka import TopicPartition

from hilum import bus
from hilum.database import connect
from hilum.errors import Misconfigured, Quarantine, Reason, Stopped
from hilum.events import InstanceReceived
from hilum.runtime.positions import topic_ids
from hilum.runtime.tables import TOO_MANY_FAILED, Envelope, TableRole, events_of
from hilum.settings import Kafka, Postgres, Settings
from hilum.testing import an_instance, eventually
from tests.conftest import Log

pytestmark = pytest.mark.system


class Noting:
    """Writes the SOPInstanceUID of each event into the table `noted`, in which none may be twice."""

    name = "noting"
    apart_s = 0.05

    def apply(self, connection: psycopg.Connection, events: Sequence[tuple[InstanceReceived, Envelope]]) -> None:
        for event, _ in events:
            self.note(connection, event)

    def note(self, connection: psycopg.Connection, event: InstanceReceived) -> None:
        connection.execute("INSERT INTO noted VALUES (%s)", (event.instance.sop_instance_uid,))


def events(*numbers: int) -> list[InstanceReceived]:
    return [an_instance(SOPInstanceUID=f"2.25.{n}", StudyInstanceUID=f"2.25.9{n % 7}", receipt=f"receipt-{n}") for n in numbers]


class Place:
    """The log and the database of one test."""

    def __init__(self, log: Log, dsn: str) -> None:
        self.log = log
        self.settings = msgspec.structs.replace(log.settings, postgres=Postgres(dsn=dsn))
        self.topic = bus.topic_of(self.settings, InstanceReceived)
        self.sql = connect(dsn)
        self.sql.execute("CREATE TABLE noted (uid text PRIMARY KEY)")

    def noted(self) -> list[int]:
        return sorted(int(uid.removeprefix("2.25.")) for (uid,) in self.sql.execute("SELECT uid FROM noted"))

    def offsets(self) -> list[int]:
        rows = self.sql.execute("SELECT next_offset FROM consumer_offset WHERE topic = %s ORDER BY partition", (self.topic,))
        return [offset for (offset,) in rows]

    def quarantined(self) -> list[tuple[str, str, str, bytes]]:
        rows = self.sql.execute("SELECT stage, reason, input_id, input FROM quarantine ORDER BY input_id").fetchall()
        return [(stage, reason, input_id, bytes(data)) for stage, reason, input_id, data in rows]

    def until_noted(self, *numbers: int) -> None:
        eventually(lambda: self.noted() == sorted(numbers), what=f"{sorted(numbers)} being noted")


@pytest.fixture
def place(log: Log, postgres: str) -> Iterator[Place]:
    log.make(partitions=1)
    made = Place(log, postgres)
    yield made
    made.sql.close()


def test_the_signature_says_what_is_read() -> None:
    assert events_of(Noting()) == (InstanceReceived,)


class TestReading:
    def test_reading_goes_on_where_the_table_says(self, place: Place) -> None:
        place.log.say(*events(1, 2, 3))
        with place.log.running(TableRole(place.settings, Noting())):
            place.until_noted(1, 2, 3)
        place.log.say(*events(4))

        with place.log.running(TableRole(place.settings, Noting())):
            place.until_noted(1, 2, 3, 4)  # a second row of one would have been refused

        assert place.offsets() == [4]
        assert place.quarantined() == []

    def test_what_a_broken_connection_undoes_is_read_again(self, place: Place) -> None:
        class Breaking(Noting):
            left = 2

            def note(self, connection: psycopg.Connection, event: InstanceReceived) -> None:
                super().note(connection, event)
                if self.left:
                    self.left -= 1
                    connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")

        place.log.say(*events(1, 2, 3))

        with place.log.running(TableRole(place.settings, Breaking())):
            place.until_noted(1, 2, 3)

        assert place.quarantined() == []

    def test_two_workers_share_the_partitions_and_write_each_event_once(self, log: Log, postgres: str) -> None:
        log.make(partitions=4)
        place = Place(log, postgres)
        place.log.say(*events(*range(100)))
        with place.log.running(TableRole(place.settings, Noting())) as [first]:
            place.until_noted(*range(100))
            with place.log.running(TableRole(place.settings, Noting())) as [second]:
                eventually(lambda: first.role.health().says == second.role.health().says == "reads 2 partitions")
                place.log.say(*events(*range(100, 200)))
                place.until_noted(*range(200))
            place.log.say(*events(*range(200, 250)))
            place.until_noted(*range(250))

        assert sum(place.offsets()) == 250
        assert place.quarantined() == []
        place.sql.close()

    def test_what_ends_a_transaction_is_passed_and_what_was_aborted_is_not_written(self, place: Place) -> None:
        producer = bus.producer(place.settings, transactional_id="test", transaction_timeout_ms=60_000)
        producer.init_transactions(60)
        writer = bus.Writer(place.settings, "test")
        for number, keep in ((1, True), (2, False), (3, True)):
            producer.begin_transaction()
            record = writer.record(events(number)[0], str(uuid.uuid4()))
            producer.produce(record.topic, record.value, record.key, headers=record.headers)
            if keep:
                producer.commit_transaction(60)
            else:
                producer.flush(60)
                producer.abort_transaction(60)

        with place.log.running(TableRole(place.settings, Noting())) as [running]:
            place.until_noted(1, 3)
            eventually(lambda: place.offsets() == [6])  # three events, three markers
            eventually(lambda: running.role.health().lag == 0)

    def test_a_worker_that_was_overtaken_writes_nothing_and_reads_on_where_the_other_is(self, place: Place) -> None:
        with place.log.running(TableRole(place.settings, Noting())):
            place.log.say(*events(1))
            eventually(lambda: place.offsets() == [1])
            place.sql.execute("UPDATE consumer_offset SET next_offset = 2 WHERE topic = %s", (place.topic,))  # as another worker would

            place.log.say(*events(2, 3))

            place.until_noted(1, 3)

    def test_what_its_former_owner_writes_while_a_worker_begins_is_no_lost_log(self, place: Place, postgres: str) -> None:
        topic_id = topic_ids(place.settings, [place.topic])[place.topic]
        with closing(connect(postgres, name="former owner", autocommit=False)) as former:
            former.execute(
                "INSERT INTO consumer_offset (group_name, topic, partition, topic_id, next_offset) VALUES ('noting', %s, 0, %s, 2)",
                (place.topic, topic_id),
            )
            with place.log.running(TableRole(place.settings, Noting())):
                waits = "SELECT 1 FROM pg_stat_activity WHERE application_name = 'hilum noting' AND wait_event_type = 'Lock'"
                eventually(lambda: place.sql.execute(waits).fetchone(), what="the worker, which knows the end of the log, at the table")
                place.log.say(*events(1, 2))
                former.commit()
                place.log.say(*events(3))

                place.until_noted(3)


class TestPoison:
    def test_what_cannot_be_decoded_waits_in_quarantine_and_the_rest_goes_on(self, place: Place) -> None:
        place.log.say(*events(1))
        place.log.put(place.topic, b"k", b'{"no": "event"}', [("ce_id", b"poison-1")])
        place.log.put(place.topic, b"k", b"\xff\x00", [])
        place.log.say(*events(2))

        with place.log.running(TableRole(place.settings, Noting())):
            place.until_noted(1, 2)

        assert place.quarantined() == [
            ("noting", "processing-failed", "poison-1", b'{"no": "event"}'),
            ("noting", "processing-failed", f"{place.topic}/0/2", b"\xff\x00"),
        ]
        assert place.offsets() == [4]

    def test_an_event_that_cannot_be_written_is_found_among_the_others(self, place: Place) -> None:
        class Picky(Noting):
            def note(self, connection: psycopg.Connection, event: InstanceReceived) -> None:
                super().note(connection, event)
                if event.instance.sop_instance_uid == "2.25.5":
                    connection.execute("SELECT 1 / 0")
                if event.instance.sop_instance_uid == "2.25.6":
                    raise KeyError("six")
                if event.instance.sop_instance_uid == "2.25.7":
                    raise Quarantine(Reason.UNREADABLE, "No seven.")

        ids = place.log.say(*events(*range(20)))

        with place.log.running(TableRole(place.settings, Picky())):
            place.until_noted(*(n for n in range(20) if n not in (5, 6, 7)))

        assert sorted((reason, input_id) for _, reason, input_id, _ in place.quarantined()) == sorted(
            [("processing-failed", ids[5]), ("processing-failed", ids[6]), ("unreadable", ids[7])]
        )

    def test_an_event_too_large_for_an_index_does_not_count_as_an_outage(self, place: Place) -> None:
        class Large(Noting):
            def note(self, connection: psycopg.Connection, event: InstanceReceived) -> None:
                large = (
                    "".join(str(7**n) for n in range(400))
                    if event.instance.sop_instance_uid == "2.25.1"
                    else event.instance.sop_instance_uid
                )
                connection.execute("INSERT INTO noted VALUES (%s)", (large,))

        place.log.say(*events(1, 2))

        with place.log.running(TableRole(place.settings, Large())):
            place.until_noted(2)

        assert len(place.quarantined()) == 1

    def test_a_stage_that_fails_on_everything_stops_and_sets_nothing_aside(self, place: Place) -> None:
        class Broken(Noting):
            apart_s = 0.05

            def note(self, connection: psycopg.Connection, event: InstanceReceived) -> None:
                raise ZeroDivisionError

        place.log.say(*events(*range(TOO_MANY_FAILED + 1)))

        with place.log.running(TableRole(place.settings, Broken())) as [running]:
            eventually(running.ended)

        assert isinstance(running.error, Stopped)
        assert "fails on every event" in str(running.error)
        assert place.quarantined() == []
        assert place.offsets() == [0]


class TestALogThatDoesNotFit:
    def stopped(self, place: Place) -> str:
        with place.log.running(TableRole(place.settings, Noting())) as [running]:
            eventually(running.ended)
        assert isinstance(running.error, Stopped)
        return str(running.error)

    def after_reading(self, place: Place) -> None:
        place.log.say(*events(1, 2))
        with place.log.running(TableRole(place.settings, Noting())):
            place.until_noted(1, 2)

    def test_a_topic_that_was_made_anew_stops_the_reader(self, place: Place) -> None:
        self.after_reading(place)
        admin = bus.admin(place.settings)
        admin.delete_topics([place.topic])[place.topic].result()
        eventually(lambda: place.topic not in admin.list_topics(timeout=60).topics)
        place.log.make(partitions=1)
        place.log.say(*events(3, 4, 5))

        assert "was made anew" in self.stopped(place)
        assert place.noted() == [1, 2]

    def test_a_log_that_lost_its_end_stops_the_reader(self, place: Place) -> None:
        self.after_reading(place)
        place.sql.execute("UPDATE consumer_offset SET next_offset = 1000 WHERE topic = %s", (place.topic,))

        assert "the log has lost its end" in self.stopped(place)

    def test_events_that_were_removed_unread_stop_the_reader(self, place: Place) -> None:
        self.after_reading(place)
        place.log.say(*events(3, 4))
        admin = bus.admin(place.settings)
        [removed] = admin.delete_records([TopicPartition(place.topic, 0, 3)]).values()
        removed.result()

        assert "events were removed unread" in self.stopped(place)


class TestOutages:
    def test_postgresql_that_is_away_is_waited_for(self, place: Place, free_port: int) -> None:
        there = psycopg.conninfo.conninfo_to_dict(place.settings.postgres.dsn)
        away = psycopg.conninfo.make_conninfo(place.settings.postgres.dsn, port=free_port)
        place.log.say(*events(1))
        with place.log.running(TableRole(msgspec.structs.replace(place.settings, postgres=Postgres(dsn=away)), Noting())) as [running]:
            eventually(lambda: "does not answer" in running.role.health().says)
            assert not running.role.health().ready

            with closing(Forward(free_port, int(there["port"] or 0))):
                place.until_noted(1)
                eventually(lambda: running.role.health().ready)

            eventually(lambda: not running.role.health().ready or not place.log.say(*events(2)))

    def test_kafka_that_is_away_is_waited_for_and_a_stop_is_obeyed(self, postgres: str, free_port: int, log: Log) -> None:
        settings = Settings(kafka=Kafka(bootstrap=f"127.0.0.1:{free_port}"), postgres=Postgres(dsn=postgres))
        with log.running(TableRole(settings, Noting())) as [running]:
            eventually(lambda: "Kafka does not answer" in running.role.health().says)

            assert not running.ended()

    def test_a_topic_that_was_never_made_is_a_matter_for_a_person(self, log: Log, postgres: str) -> None:
        settings = msgspec.structs.replace(log.settings, postgres=Postgres(dsn=postgres))
        with log.running(TableRole(settings, Noting())) as [running]:
            eventually(running.ended)

        assert isinstance(running.error, Misconfigured)
        assert "hilum provision" in running.error.fix

    def test_tables_that_were_never_made_are_a_matter_for_a_person(self, place: Place) -> None:
        place.sql.execute("DROP TABLE noted")
        place.log.say(*events(1))
        with place.log.running(TableRole(place.settings, Noting())) as [running]:
            eventually(running.ended)

        assert isinstance(running.error, Misconfigured)
        assert "hilum provision" in running.error.fix


class Forward:
    """Listens on one port of 127.0.0.1 and passes everything on to another, until it is closed."""

    def __init__(self, port: int, to: int) -> None:
        self._to = to
        self._open: list[socket.socket] = []
        self._listening = socket.create_server(("127.0.0.1", port))
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listening.accept()
                far = socket.create_connection(("127.0.0.1", self._to))
                self._open += [near, far]
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=self._pass_on, args=(one, other), daemon=True).start()

    def _pass_on(self, one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError):
            while data := one.recv(65_536):
                other.sendall(data)
            other.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """As if the server were gone."""
        for each in (self._listening, *self._open):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
