"""The scheduled steps that modalities are to see, from the role `worklist` to the receivers: one SQLite file beside the spool.

So a receiver answers a query without a database, also while that is away, and reads only what has changed since it last looked.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import NamedTuple

from hilum.local import Local
from hilum.settings import Settings

_SCHEMA = """
CREATE TABLE IF NOT EXISTS step (id TEXT PRIMARY KEY, version INTEGER NOT NULL, body BLOB) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS step_by_version ON step (version);
CREATE TABLE IF NOT EXISTS state (
    one INTEGER PRIMARY KEY CHECK (one = 1), version INTEGER NOT NULL, floor INTEGER NOT NULL, at REAL NOT NULL
);
INSERT OR IGNORE INTO state VALUES (1, 0, 0, 0)
"""
#: So many changes after a step has gone, nobody needs to be told of it any more: whoever is further behind reads all.
_REMEMBER = 10_000


class Changes(NamedTuple):
    """What has changed since a version."""

    version: int
    #: When the worklist was last seen to be as the orders say, in seconds since 1970; 0: never.
    at: float
    #: Steps by id; None: it has gone.
    steps: dict[str, bytes | None]
    #: Whether these are all there are.
    whole: bool


class Worklist:
    """The file of steps. Every method raises `OSError` if the disk fails."""

    def __init__(self, settings: Settings) -> None:
        self._local = Local(settings.spool_dir / "worklist.sqlite", _SCHEMA, durable=False)

    def versions(self) -> dict[str, str]:
        """Of each step here, the digest or version with which it was put."""
        with self._local.reading() as connection:
            rows = connection.execute("SELECT id, body FROM step WHERE body IS NOT NULL").fetchall()
        return {id_: _version_of(body) for id_, body in rows}

    def put(self, changed: Mapping[str, tuple[str, bytes]], gone: set[str]) -> None:
        """Steps that are new or another by now, each with a version of its own, and those that are no longer to be seen."""
        with self._local.writing() as connection:
            [version] = connection.execute("SELECT version FROM state").fetchone()
            if changed or gone:
                version += 1
                rows = [(id_, version, of.encode() + b"\n" + body) for id_, (of, body) in changed.items()]
                rows_gone = [(id_, version, None) for id_ in gone]
                connection.executemany("INSERT OR REPLACE INTO step VALUES (?, ?, ?)", [*rows, *rows_gone])
                floor = max(0, version - _REMEMBER)
                connection.execute("DELETE FROM step WHERE body IS NULL AND version <= ?", (floor,))
                connection.execute("UPDATE state SET version = ?, floor = ?", (version, floor))
            connection.execute("UPDATE state SET at = ?", (time.time(),))

    def since(self, version: int) -> Changes:
        """What has changed after `version`; -1: everything."""
        with self._local.reading() as connection:
            connection.execute("BEGIN")
            now, floor, at = connection.execute("SELECT version, floor, at FROM state").fetchone()
            whole = version < floor or version > now or version < 0
            if version == now:
                return Changes(now, at, {}, whole=False)
            rows = connection.execute("SELECT id, body FROM step WHERE version > ?", (-1 if whole else version,)).fetchall()
        steps = {id_: None if body is None else body.partition(b"\n")[2] for id_, body in rows if body is not None or not whole}
        return Changes(now, at, steps, whole)


def _version_of(body: bytes) -> str:
    return body.partition(b"\n")[0].decode()
