"""What one query finds, for commands: on a connection of its own, as structs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import msgspec
import psycopg
from msgspec import Struct
from psycopg.rows import dict_row

from hilum.database import AWAY, away, connect
from hilum.errors import Misconfigured

R = TypeVar("R", bound=Struct)


def rows(dsn: str, kind: type[R], statement: str, values: Mapping[str, object]) -> list[R]:
    """What a query finds, each row as a `kind`, which has a field for each column. Raises `Misconfigured` without tables, `TryAgain`."""
    try:
        with connect(dsn, name="hilum query") as connection, connection.cursor(row_factory=dict_row) as cursor:
            return [msgspec.convert(row, kind) for row in cursor.execute(statement, values)]
    except psycopg.errors.UndefinedTable:
        raise Misconfigured("database-tables", "The database has no tables of Hilum's.", fix="Make them with `hilum provision`.") from None
    except AWAY as error:
        raise away(dsn, error) from None
