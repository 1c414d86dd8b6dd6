"""PostgreSQL: connections, a pool, and the tables, which are made by code (`migrate`).

The tables are Hilum's own and may change with any release; the views (`hilum/database/views.py`) are what SQL users rely on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
from msgspec import Struct
from psycopg.conninfo import conninfo_to_dict
from psycopg_pool import ConnectionPool

from hilum.errors import Misconfigured, TryAgain

#: Errors of psycopg that pass by themselves: the server is away, restarts, or refused for lack of slots or by a deadlock.
AWAY = (psycopg.OperationalError, psycopg.InterfaceError)

#: Keeps sessions from hanging on a server that is gone.
_OPTIONS: dict[str, Any] = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}


class Migrated(Struct, frozen=True, kw_only=True):
    """How many migrations there are, and how many of them were made just now."""

    total: int
    made: int


def connect(dsn: str, *, name: str = "hilum", autocommit: bool = True) -> psycopg.Connection:
    """One connection; `name` is what `pg_stat_activity` shows. Its times are UTC.

    Raises `TryAgain` while PostgreSQL does not answer, `Misconfigured` if the address is none or the password is refused.
    """
    try:
        return psycopg.connect(dsn, autocommit=autocommit, application_name=name, options="-c timezone=UTC", **_OPTIONS)
    except psycopg.ProgrammingError:
        raise Misconfigured(
            "postgres-address",
            "postgres.dsn is no address of a database.",
            fix="Write it as postgresql://user:password@host:port/database.",
        ) from None
    except psycopg.OperationalError as error:
        if "authentication failed" in str(error):  # the error of a connection that failed has no code
            raise Misconfigured(
                "postgres-denied", f"PostgreSQL at {_where(dsn)} refuses the account or its password.", fix="Correct postgres.dsn."
            ) from None
        raise away(dsn, error) from None


def pool(dsn: str, *, name: str = "hilum", size: int = 4) -> ConnectionPool:
    """Up to `size` connections that are opened when needed and again after an outage. Close it in the end.

    `with pool.connection() as connection:` commits at its end and rolls back on an error; it raises `psycopg_pool.PoolTimeout`
    (a `psycopg.OperationalError`, so one of `AWAY`) after 10 s without a connection.
    """
    return ConnectionPool(
        dsn,
        min_size=0,
        max_size=size,
        timeout=10.0,
        max_idle=60.0,
        open=True,
        name=name,
        check=ConnectionPool.check_connection,
        kwargs={"application_name": name, "options": "-c timezone=UTC", **_OPTIONS},
    )


def away(dsn: str, error: Exception) -> TryAgain:
    """`error` in words: which server does not answer. Neither password nor values are in it."""
    code = getattr(error, "sqlstate", None) or type(error).__name__
    if str(code).startswith("53"):
        return TryAgain(f"PostgreSQL at {_where(dsn)} is short of disk, memory or connections ({code}).", fix="Give it more.", after_s=5.0)
    return TryAgain(f"PostgreSQL at {_where(dsn)} does not answer ({code}).", fix="Check that it runs, and that postgres.dsn is right.")


def _where(dsn: str) -> str:
    known = conninfo_to_dict(dsn)
    return f"{known.get('host') or known.get('hostaddr') or 'localhost'}:{known.get('port') or 5432}"


def migrate(dsn: str) -> Migrated:
    """Bring the tables and views to this release. May be repeated, also by several processes at once; existing rows stay.

    Raises `TryAgain` while PostgreSQL does not answer, `Misconfigured` if its account may not make tables or if a newer release made them.
    """
    from alembic import command  # Alembic and SQLAlchemy cost 0.3 s and 30 MB that no role needs
    from alembic.config import Config
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError
    from sqlalchemy import create_engine
    from sqlalchemy.exc import DBAPIError
    from sqlalchemy.pool import StaticPool

    from hilum.database.views import create_views

    made: list[object] = []
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    with connect(dsn, name="hilum migrate", autocommit=False) as connection:
        engine = create_engine("postgresql+psycopg://", creator=lambda: connection, poolclass=StaticPool)
        try:
            with engine.begin() as shared:
                connection.execute("SELECT pg_advisory_xact_lock(hashtext('hilum.migrate'))")
                config.attributes.update(connection=shared, made=lambda **step: made.append(step))
                command.upgrade(config, "head")
                create_views(connection)
        except CommandError:
            raise Misconfigured(
                "database-newer",
                "The tables in the database were made by a newer Hilum than this one.",
                fix="Install that release, or a later one.",
            ) from None
        except (DBAPIError, psycopg.Error) as error:
            raise _explained(dsn, getattr(error, "orig", error)) from None
    return Migrated(total=sum(1 for _ in ScriptDirectory.from_config(config).walk_revisions()), made=len(made))


def _explained(dsn: str, error: object) -> Exception:
    if isinstance(error, psycopg.errors.InsufficientPrivilege | psycopg.errors.InvalidSchemaName):
        return Misconfigured(
            "database-rights",
            "The account in postgres.dsn may not make tables in its database.",
            fix="Have its owner run `GRANT USAGE, CREATE ON SCHEMA public TO <account>`, or give Hilum a database of its own.",
        )
    if isinstance(error, AWAY):
        return away(dsn, error)
    assert isinstance(error, Exception)
    return error
