from __future__ import annotations

from datetime import UTC, datetime

import psycopg
import pytest
from msgspec import Raw, Struct

from hilum.database import connect
from hilum.database.rows import Insert

pytestmark = pytest.mark.system


class Row(Struct, kw_only=True):
    id: int
    text: str | None = None
    flag: bool | None = None
    data: bytes | None = None
    moment: datetime | None = None
    json: Raw | None = None
    names: tuple[str, ...] | None = None


@pytest.fixture
def connection(postgres: str) -> psycopg.Connection:
    connection = connect(postgres)
    connection.execute(
        "CREATE TEMP TABLE example (id bigint PRIMARY KEY, text text, flag bool, data bytea, moment timestamptz, json jsonb, names text[])"
    )
    return connection


insert = Insert("example", Row, "ON CONFLICT (id) DO UPDATE SET text = excluded.text")


def test_values_come_back_as_they_went(connection: psycopg.Connection) -> None:
    moment = datetime(2024, 2, 29, 12, 0, 0, 123456, tzinfo=UTC)
    row = Row(id=2**40, text="ä{},\"'\\", flag=True, data=b"\0\xff", moment=moment, json=Raw(b'{"a": [1]}'), names=("a b", 'c"{},', ""))

    assert insert(connection, [row]) == 1

    assert connection.execute("SELECT * FROM example").fetchall() == [
        (2**40, "ä{},\"'\\", True, b"\0\xff", moment, {"a": [1]}, ["a b", 'c"{},', ""])
    ]


def test_what_is_not_known_is_null_and_no_names_are_an_empty_array(connection: psycopg.Connection) -> None:
    insert(connection, [Row(id=1), Row(id=2, names=())])

    assert connection.execute("SELECT * FROM example ORDER BY id").fetchall() == [
        (1, None, None, None, None, None, None),
        (2, None, None, None, None, None, []),
    ]


def test_nul_is_left_out_of_texts_names_and_json_and_a_backslash_is_not(connection: psycopg.Connection) -> None:
    insert(connection, [Row(id=1, text="a\0b", names=("c\0d",), json=Raw(rb'{"e\u0000f": "g\u0000h\\u0000"}'))])

    assert connection.execute("SELECT text, names, json FROM example").fetchall() == [("ab", ["cd"], {"ef": "gh\\u0000"})]


def test_it_counts_what_it_inserted_or_changed(connection: psycopg.Connection) -> None:
    assert insert(connection, []) == 0
    assert insert(connection, [Row(id=1, text="a"), Row(id=2, text="b")]) == 2
    assert insert(connection, [Row(id=2, text="c"), Row(id=3, text="d")]) == 2

    assert connection.execute("SELECT id, text FROM example ORDER BY id").fetchall() == [(1, "a"), (2, "c"), (3, "d")]
