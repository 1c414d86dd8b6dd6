from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from hilum.database import away, connect, migrate, pool
from hilum.database.known import IndexedInstances, Noted
from hilum.errors import Misconfigured, TryAgain
from hilum.events import ObjectRef
from hilum.settings import Postgres, Settings


def nowhere(port: int) -> str:
    return f"postgresql://hilum:not-to-be-shown@127.0.0.1:{port}/hilum"


def test_a_database_that_does_not_answer_is_named_without_its_password(free_port: int) -> None:
    with pytest.raises(TryAgain, match=f"127.0.0.1:{free_port} does not answer") as stop:
        connect(nowhere(free_port))

    assert "not-to-be-shown" not in str(stop.value)


def test_migrating_a_database_that_does_not_answer_is_to_be_tried_again(free_port: int) -> None:
    with pytest.raises(TryAgain):
        migrate(nowhere(free_port))


def test_an_address_that_is_none_shows_nothing_of_itself() -> None:
    with pytest.raises(Misconfigured) as stop:
        connect("postgresql:/not-to-be-shown")

    assert "not-to-be-shown" not in str(stop.value)


@pytest.mark.system
class TestOnPostgreSQL:
    def test_a_wrong_password_is_a_matter_for_a_person(self, postgres: str) -> None:
        with pytest.raises(Misconfigured) as stop:
            connect(make_conninfo(postgres, password="not-to-be-shown"))

        assert stop.value.reason == "postgres-denied"
        assert "not-to-be-shown" not in str(stop.value)

    @pytest.fixture
    def empty(self, postgres: str) -> str:
        with connect(postgres) as connection:
            connection.execute("DROP SCHEMA public CASCADE")
            connection.execute("CREATE SCHEMA public")
        return postgres

    def test_migrating_twice_makes_the_tables_once(self, empty: str) -> None:
        first, second = migrate(empty), migrate(empty)

        assert (first.made, second.made) == (first.total, 0)
        assert first.total >= 1

    def test_processes_that_migrate_at_once_do_not_hinder_each_other(self, empty: str) -> None:
        with ThreadPoolExecutor(4) as several:
            made = [done.made for done in several.map(migrate, [empty] * 4)]

        assert sorted(made)[:3] == [0, 0, 0]
        assert sorted(made)[3] >= 1

    def test_rows_stay_when_the_database_is_migrated_again(self, postgres: str) -> None:
        with connect(postgres) as connection:
            connection.execute("INSERT INTO receipt (receipt) VALUES ('r')")

        migrate(postgres)

        with connect(postgres) as connection:
            assert connection.execute("SELECT receipt FROM receipt").fetchall() == [("r",)]

    def test_tables_of_a_newer_release_are_left_alone(self, postgres: str) -> None:
        with connect(postgres) as connection:
            connection.execute("UPDATE alembic_version SET version_num = '9999'")

        with pytest.raises(Misconfigured, match="newer Hilum") as stop:
            migrate(postgres)

        assert stop.value.reason == "database-newer"

    def test_an_account_that_may_not_make_tables_is_told_what_to_ask_for(self, empty: str) -> None:
        account = "weak_" + str(psycopg.conninfo.conninfo_to_dict(empty)["dbname"])
        with connect(empty) as connection:
            connection.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'w'").format(sql.Identifier(account)))
        try:
            with pytest.raises(Misconfigured, match="GRANT USAGE, CREATE ON SCHEMA public") as stop:
                migrate(make_conninfo(empty, user=account, password="w"))
        finally:
            with connect(empty) as connection:
                connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(account)))

        assert stop.value.reason == "database-rights"

    def test_times_are_read_in_utc_whatever_the_server_s_zone(self, postgres: str) -> None:
        with connect(make_conninfo(postgres)) as connection:
            assert connection.execute("SHOW timezone").fetchall() == [("UTC",)]

    def test_a_pool_goes_on_after_its_connections_were_ended(self, postgres: str) -> None:
        connections = pool(postgres, size=2)
        try:
            with connections.connection() as connection, connect(postgres) as other:
                other.execute("SELECT pg_terminate_backend(%s)", (connection.info.backend_pid,))
            with connections.connection() as connection:
                assert connection.execute("SELECT 1").fetchall() == [(1,)]
        finally:
            connections.close()

    def test_an_instance_that_was_decided_on_is_known_by_its_receipts_and_deliveries_and_duplicates_are_not(self, postgres: str) -> None:
        with connect(postgres) as connection:
            connection.execute(
                "INSERT INTO receipt (receipt, sop_instance_uid, sha256, decision, received_at, delivery_ids) VALUES"
                " ('b', '2.25.3', 'A', 'deliver', '2024-01-02Z', '{y}'), ('a', '2.25.3', 'A', 'no-rule', '2024-01-01Z', NULL),"
                " ('c', '2.25.3', 'A', 'duplicate', '2024-01-03Z', NULL), ('d', '2.25.4', 'D', NULL, '2024-01-01Z', NULL)"
            )

        known = IndexedInstances(Settings(postgres=Postgres(dsn=postgres))).decided(["2.25.3", "2.25.4", "2.25.5"])

        [(uid, decided)] = known.items()
        assert (uid, decided.receipts, decided.sha256, decided.deliveries) == ("2.25.3", ("a", "b"), "A", ("y",))

    def test_a_correction_that_was_taken_is_the_object_and_the_first_is_what_it_was_before(self, postgres: str) -> None:
        with connect(postgres) as connection:
            connection.execute(
                "INSERT INTO receipt (receipt, sop_instance_uid, study_instance_uid, sha256, bucket, object_key, size_bytes, decision,"
                " received_at) VALUES ('a', '2.25.3', '2.25.1', 'A', 'b', 'k/A', 7, 'deliver', '2024-01-01Z'),"
                " ('b', '2.25.3', '2.25.1', 'B', 'b', 'k/B', 8, 'corrected', '2024-01-02Z'),"
                " ('c', '2.25.3', '2.25.1', 'C', 'b', 'k/C', 9, 'returned', '2024-01-03Z')"
            )

        known = IndexedInstances(Settings(postgres=Postgres(dsn=postgres))).decided(["2.25.3"])["2.25.3"]

        assert known.object == ObjectRef(bucket="b", key="k/B", size_bytes=8, sha256="B")
        assert (known.sha256, known.before, known.study_instance_uid) == ("B", ("A",), "2.25.1")

    def test_studies_and_withdrawn_instances_are_known_by_one_question_each(self, postgres: str) -> None:
        with connect(postgres) as connection:
            connection.execute(
                "INSERT INTO study (study_instance_uid, patient_id, receipt, received_at) VALUES ('2.25.1', 'P', 'a', '2024-01-01Z');"
                " INSERT INTO study_state (study_instance_uid, step, state, revision, instances, new, missing, withdrawn, changed_at)"
                " VALUES ('2.25.1', 5, 'complete', 2, 3, 1, 0, 1, '2024-01-01Z');"
                " INSERT INTO withdrawn VALUES ('2.25.3', '2.25.1', '2.25.80', '113001', '2024-01-01Z');"
                " INSERT INTO instance (sop_instance_uid, series_instance_uid, study_instance_uid, sop_class_uid, transfer_syntax_uid,"
                " bucket, object_key, size_bytes, sha256, receipt, received_at)"
                " SELECT '2.25.3' || n, 's', '2.25.1', 'c', 't', 'b', 'k', 1, 'x', 'r', '2024-01-01Z' FROM generate_series(1, 3) AS n"
            )

        index = IndexedInstances(Settings(postgres=Postgres(dsn=postgres)))

        [(uid, study)] = index.studies(["2.25.1", "2.25.2"]).items()
        assert (uid, study.revision, study.instances, study.withdrawn) == ("2.25.1", 2, 4, 1)
        assert study.attributes["PatientID"] == "P"
        assert index.withdrawn(["2.25.3", "2.25.4"]) == {"2.25.3": Noted(note="2.25.80", study_instance_uid="2.25.1")}
        assert index.of_study("2.25.1", "2.25.31", 1) == ["2.25.32"]


def test_a_server_without_room_is_told_apart_from_one_that_is_away() -> None:
    assert "short of disk" in away(nowhere(5432), psycopg.errors.DiskFull()).sentence
    assert "does not answer (57P01)" in away(nowhere(5432), psycopg.errors.AdminShutdown()).sentence
