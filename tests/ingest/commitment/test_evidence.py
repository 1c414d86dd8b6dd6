from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import TopicPartition
from msgspec.structs import replace

from hilum import bus
from hilum.database import connect
from hilum.errors import Misconfigured, TryAgain
from hilum.events import InstanceReceived, ObjectRef, StudyExpected, decode
from hilum.settings import Kafka, Postgres, Settings
from hilum.spool import Spool
from hilum.testing import an_instance, eventually, spooled
from ingest.commitment.decide import Arrived
from ingest.commitment.evidence import Database, Way

pytestmark = pytest.mark.system

RECEIPTS = """
INSERT INTO receipt (receipt, sop_instance_uid, sop_class_uid, bucket, object_key, size_bytes, sha256, received_at, quarantine_reason)
VALUES
    ('r2', '2.25.1', '1.2', 'b', 'k2', 20, 'y', '2024-02-29T13:00Z', 'instance-conflict'),
    ('r1', '2.25.1', '1.2', 'b', 'k1', 10, 'x', '2024-02-29T12:00Z', NULL),
    ('r3', '2.25.2', NULL, 'b', 'k3', 30, 'z', '2024-02-29T12:00Z', 'unreadable'),
    ('r4', '2.25.4', NULL, NULL, NULL, NULL, NULL, NULL, 'uid-invalid')
"""


class TestTheIndex:
    @pytest.fixture
    def database(self, postgres: str) -> Database:
        with connect(postgres) as connection:
            connection.execute(RECEIPTS)
        return Database(Settings(postgres=Postgres(dsn=postgres)))

    def test_every_object_that_came_is_known_in_quarantine_or_not_and_the_first_comes_first(self, database: Database) -> None:
        def arrived(receipt: str, sop_class: str, key: str, size_bytes: int, sha256: str) -> Arrived:
            ref = ObjectRef(bucket="b", key=key, size_bytes=size_bytes, sha256=sha256)
            return Arrived(receipt=receipt, sop_class_uid=sop_class, object=ref)

        assert database.arrived(["2.25.1", "2.25.2", "2.25.3"]) == {
            "2.25.1": [arrived("r1", "1.2", "k1", 10, "x"), arrived("r2", "1.2", "k2", 20, "y")],
            "2.25.2": [arrived("r3", "", "k3", 30, "z")],
        }

    def test_an_arrival_of_which_only_the_quarantine_is_known_yet_is_still_on_its_way(self, database: Database) -> None:
        assert database.arrived(["2.25.4"]) == {}

    def test_many_instances_are_asked_about_at_once(self, database: Database) -> None:
        assert database.arrived([*(f"2.26.{number}" for number in range(12_000)), "2.25.2"]).keys() == {"2.25.2"}

    def test_what_is_promised_is_put_down_once_and_seen_in_the_view(self, database: Database, postgres: str) -> None:
        database.hold(["r1"])
        with connect(postgres) as connection:
            first = connection.execute("SELECT receipt, committed_at FROM v_receipt WHERE committed_at IS NOT NULL").fetchall()
            database.hold(["r1", "r3"])
            both = connection.execute("SELECT receipt, committed_at FROM v_receipt WHERE committed_at IS NOT NULL ORDER BY 1").fetchall()

        assert [receipt for receipt, _ in both] == ["r1", "r3"]
        assert both[0] == first[0]

    def test_what_is_promised_is_announced_as_of_its_study_once(self, database: Database, postgres: str) -> None:
        with connect(postgres) as connection:
            connection.execute("UPDATE receipt SET study_instance_uid = '2.25.9'")
            for _ in range(2):
                database.hold(["r1", "r3"])
            [(topic, key, value)] = connection.execute("SELECT topic, key, value FROM outbox").fetchall()

        said = decode(StudyExpected, bytes(value))
        assert (topic, key) == ("imaging.study.expected.v1", "2.25.9")
        assert (said.source, said.sop_instance_uids) == ("storage-commitment", ("2.25.1", "2.25.2"))

    def test_the_same_image_encoded_otherwise_is_no_second_object(self, database: Database, postgres: str) -> None:
        with connect(postgres) as connection:
            connection.execute("UPDATE receipt SET decision = 'duplicate' WHERE receipt = 'r2'")

        assert [each.receipt for each in database.arrived(["2.25.1"])["2.25.1"]] == ["r1"]

    def test_it_goes_on_after_its_connection_was_ended(self, database: Database, postgres: str) -> None:
        assert database.arrived(["2.25.2"])
        with connect(postgres) as other:
            other.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'hilum commitment'")
        with pytest.raises(TryAgain):
            database.arrived(["2.25.2"])

        assert database.arrived(["2.25.2"])

    def test_a_database_that_does_not_answer_is_to_be_asked_again(self, free_port: int) -> None:
        nowhere = Database(Settings(postgres=Postgres(dsn=f"postgresql://hilum:x@127.0.0.1:{free_port}/hilum")))

        with pytest.raises(TryAgain):
            nowhere.arrived(["2.25.1"])

    def test_tables_of_an_earlier_release_are_a_matter_for_a_person(self, database: Database, postgres: str) -> None:
        with connect(postgres) as connection:
            connection.execute("ALTER TABLE receipt RENAME COLUMN committed_at TO other")

        with pytest.raises(Misconfigured, match="hilum provision"):
            database.hold(["r1"])


class TestTheWay:
    """From the spool to the log, and from the log into the index, whose positions the test sets."""

    @pytest.fixture
    def settings(self, log: Any, postgres: str, tmp_path: Path) -> Settings:
        log.make(partitions=2)
        found: Settings = replace(log.settings, postgres=Postgres(dsn=postgres), data=str(tmp_path))

        def has_leaders() -> bool:
            try:
                return bool(bus.offsets(bus.admin(found), self.partitions(found), bus.LATEST))
            except TryAgain:
                return False

        eventually(has_leaders, what="the new topic has its leaders")
        return found

    @pytest.fixture
    def spool(self, settings: Settings) -> Spool:
        return Spool.of(settings)

    @pytest.fixture
    def way(self, settings: Settings, spool: Spool) -> Way:
        return Way(settings, spool, Database(settings))

    def read_all(self, settings: Settings) -> None:
        """Let the index have read everything."""
        topic = bus.topic_of(settings, InstanceReceived)
        with connect(settings.postgres.dsn) as connection:
            connection.execute("DELETE FROM consumer_offset")
            for partition in range(2):
                connection.execute("INSERT INTO consumer_offset VALUES ('index', %s, %s, 'id', 1000)", (topic, partition))

    def test_where_nothing_was_ever_received_nothing_is_awaited(self, way: Way) -> None:
        assert way.behind(datetime.now(UTC)) == ""

    def test_what_waits_in_the_spool_is_awaited(self, way: Way, spool: Spool) -> None:
        spooled(spool)

        assert way.behind(datetime.now(UTC)) == "1 object of before still in the spool, to be published."

    def test_what_came_into_the_spool_later_is_not_awaited(self, way: Way, spool: Spool) -> None:
        moment = datetime.now(UTC) - timedelta(seconds=1)
        spooled(spool)

        assert way.behind(moment) == ""

    def test_a_file_that_is_no_arrival_is_not_awaited(self, way: Way, spool: Spool) -> None:
        (spool.folder / "notes.dcm").write_text("x")

        assert way.behind(datetime.now(UTC)) == ""

    def test_what_is_on_the_log_is_awaited_until_the_index_has_read_it(self, way: Way, log: Any, settings: Settings) -> None:
        log.say(an_instance())
        moment = datetime.now(UTC)
        assert way.behind(moment) == "The index has not yet read all that was received."

        self.read_all(settings)
        assert way.behind(moment) == ""

    def test_what_comes_onto_the_log_meanwhile_does_not_put_it_off(self, way: Way, log: Any, settings: Settings) -> None:
        log.say(an_instance())
        moment = datetime.now(UTC)
        assert way.behind(moment)
        with connect(settings.postgres.dsn) as connection:
            ends = bus.offsets(bus.admin(settings), self.partitions(settings), bus.LATEST)
            for (topic, partition), offset in ends.items():
                connection.execute("INSERT INTO consumer_offset VALUES ('index', %s, %s, 'id', %s)", (topic, partition, offset))
        for _ in range(5):
            log.say(an_instance())

        assert way.behind(moment) == ""
        assert way.behind(datetime.now(UTC)) != ""

    def partitions(self, settings: Settings) -> list[Any]:
        return [TopicPartition(bus.topic_of(settings, InstanceReceived), partition) for partition in range(2)]

    def test_what_was_passed_once_stays_passed_without_a_question(self, way: Way, settings: Settings, spool: Spool) -> None:
        moment = datetime.now(UTC)
        assert way.behind(moment) == ""
        spooled(spool)

        assert way.behind(moment) == ""
        assert way.behind(datetime.now(UTC)) != ""

    def test_a_kafka_that_does_not_answer_is_an_outage(self, settings: Settings, spool: Spool, free_port: int) -> None:
        nowhere = replace(settings, kafka=Kafka(bootstrap=f"127.0.0.1:{free_port}"))

        with pytest.raises(TryAgain):
            Way(nowhere, spool, Database(nowhere)).behind(datetime.now(UTC))
