"""The way back from pseudonyms, sealed, and who took it: the tables `deid_reverse` and `deid_lookup`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import psycopg
from msgspec import Struct

from hilum.anonymizing import Sealed
from hilum.database import AWAY, away, connect
from hilum.database.found import rows
from hilum.errors import HilumError


class Looked(Struct, frozen=True, kw_only=True):
    """A look-up that was made. The original is not in it."""

    at: datetime
    who: str
    why: str
    project: str
    pseudonym: str
    #: As whom PostgreSQL knew who asked.
    database_user: str


_KEEP = """
    INSERT INTO deid_reverse (project, kind, pseudonym, key_id, sealed)
    SELECT * FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::bytea[])
    ON CONFLICT DO NOTHING
"""
_ROWS = """
    SELECT project, kind, pseudonym, key_id, sealed FROM deid_reverse
    WHERE project = %(project)s AND pseudonym = %(pseudonym)s ORDER BY since DESC
"""
_LOOKED = """
    SELECT at, who, why, project, pseudonym, database_user FROM deid_lookup
    WHERE (%(project)s = '' OR project = %(project)s) AND (%(since)s::timestamptz IS NULL OR at >= %(since)s) ORDER BY id
"""


def keep(connection: psycopg.Connection[Any], sealed: Sequence[Sealed]) -> None:
    """Keep rows for good; those that are there stay. Raises one of `AWAY`."""
    columns = zip(*((each.project, each.kind, each.pseudonym, each.key_id, each.sealed) for each in sealed), strict=True)
    connection.execute(_KEEP, [list(column) for column in columns])


def rows_of(dsn: str, project: str, pseudonym: str) -> list[Sealed]:
    """The rows of a pseudonym, the latest first. Raises `TryAgain`, `Misconfigured`."""
    return rows(dsn, Sealed, _ROWS, {"project": project, "pseudonym": pseudonym})


def audit(dsn: str, who: str, why: str, project: str, pseudonym: str) -> None:
    """Write a look-up down; it is on PostgreSQL's disk when this returns. Raises `TryAgain`, `Misconfigured`, `HilumError`."""
    try:
        with connect(dsn, name="hilum lookup") as connection, connection.transaction():
            connection.execute("SET LOCAL synchronous_commit = on")
            connection.execute(
                "INSERT INTO deid_lookup (who, why, project, pseudonym) VALUES (%s, %s, %s, %s)", (who, why, project, pseudonym)
            )
    except AWAY as error:
        raise away(dsn, error) from None
    except psycopg.Error as error:
        sentence = f"The look-up could not be written down ({error.sqlstate or type(error).__name__}), so it is not answered."
        raise HilumError(sentence, fix="Have `hilum provision` make the tables, and let the account add to deid_lookup.") from None


def looked(dsn: str, project: str = "", since: datetime | None = None) -> list[Looked]:
    """The look-ups, oldest first. Raises `TryAgain`, `Misconfigured`."""
    return rows(dsn, Looked, _LOOKED, {"project": project, "since": since})
