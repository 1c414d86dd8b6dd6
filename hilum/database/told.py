"""Since when each destination of messages is told of what happens: from the moment at which its configuration took force.

Whoever knows of it first writes it down: `hilum up` and `hilum provision` before anything can come in, or the role `notices` when it takes
a configuration. So nothing that comes afterwards is left out, however long that role may be down.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

import psycopg

from hilum.database import AWAY, away, connect

_BEGIN = "INSERT INTO hl7_destination (destination, since) SELECT unnest(%s::text[]), coalesce(%s, now()) ON CONFLICT DO NOTHING"


def begin(connection: psycopg.Connection, destinations: Iterable[str], at: datetime | None = None) -> None:
    """From `at` on, else from now on, these are told, unless they have begun before."""
    connection.execute(_BEGIN, (sorted(destinations), at))


def begun(connection: psycopg.Connection) -> Mapping[str, datetime]:
    """Since when each destination is told."""
    return dict(connection.execute("SELECT destination, since FROM hl7_destination").fetchall())


def begin_now(dsn: str, destinations: Iterable[str]) -> None:
    """As `begin`, over a connection of its own. Raises `TryAgain`."""
    names = list(destinations)
    if not names:
        return
    try:
        with connect(dsn) as connection:
            begin(connection, names)
    except AWAY as error:
        raise away(dsn, error) from None
