from __future__ import annotations

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from hilum.database import connect, migrate
from hilum.database.view import View
from hilum.database.views import READER, VIEWS, page


def test_the_page_names_every_view_and_column() -> None:
    text = page()

    assert [view.name for view in VIEWS if f"## `{view.name}`" not in text] == []
    assert [column for view in VIEWS for column, _, _ in view.described() if f"| `{column}` |" not in text] == []


def test_every_column_says_something() -> None:
    assert [(view.name, column) for view in VIEWS for column, _, says in view.described() if not says] == []


@pytest.mark.system
class TestOnPostgreSQL:
    @pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
    def test_a_view_has_the_columns_that_its_page_shows_and_explains_them_in_the_database(self, postgres: str, view: View) -> None:
        with connect(postgres) as connection:
            cursor = connection.execute(sql.SQL("SELECT * FROM {}").format(sql.Identifier(view.name)))
            assert [column.name for column in cursor.description or ()] == [column for column, _, _ in view.described()]
            says = connection.execute("SELECT obj_description(%s::regclass), col_description(%s::regclass, 1)", (view.name, view.name))
            assert says.fetchall() == [(view.says, view.described()[0][2])]

    def test_a_view_that_loses_a_column_is_refused(self, postgres: str) -> None:
        with connect(postgres) as connection, pytest.raises(psycopg.errors.InvalidTableDefinition):
            connection.execute("CREATE OR REPLACE VIEW v_instance AS SELECT sop_instance_uid FROM instance")

    def test_the_reader_sees_views_and_no_table(self, postgres: str) -> None:
        with connect(postgres) as connection:
            if not connection.execute("SELECT FROM pg_roles WHERE rolname = %s", (READER,)).fetchone():
                connection.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'r'").format(sql.Identifier(READER)))
        migrate(postgres)

        with connect(make_conninfo(postgres, user=READER, password="r")) as connection:
            assert connection.execute("SELECT count(*) FROM v_study").fetchall() == [(0,)]
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute("SELECT * FROM study")

    def test_the_backlog_shows_pending_deliveries_only(self, postgres: str) -> None:
        with connect(postgres) as connection:
            connection.execute(
                "INSERT INTO delivery"
                " (delivery_id, destination, receipt, study_instance_uid, sop_instance_uid, state, attempts, received_at) VALUES"
                " ('1', 'pacs', 'r', '1', '1', 'pending', 0, now() - interval '10 s'),"
                " ('2', 'pacs', 'r', '1', '2', 'pending', 2, now()),"
                " ('3', 'pacs', 'r', '1', '3', 'delivered', 1, now()),"
                " ('4', 'archive', 'r', '1', '1', 'delivered', 1, now())"
            )

            [(destination, pending, retried, age_s)] = connection.execute(
                "SELECT destination, pending, retried, oldest_age_s FROM v_destination_backlog"
            ).fetchall()

        assert (destination, pending, retried) == ("pacs", 2, 1)
        assert 10 <= age_s < 600
