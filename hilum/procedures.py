"""Performed procedure steps on this machine: one SQLite file beside the spool, synced before a modality is answered.

It knows each step's state, so that a final one is final, and keeps what is to be told on Kafka until that has it. Neither Kafka nor
PostgreSQL need be up when a modality says something.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec

from hilum.events import ProcedureStepChanged, decode, encode
from hilum.local import Local
from hilum.settings import Settings

_SCHEMA = """
CREATE TABLE IF NOT EXISTS performed (
    sop_instance_uid TEXT PRIMARY KEY, state TEXT NOT NULL, revision INTEGER NOT NULL, attributes BLOB NOT NULL,
    wrong_entry INTEGER NOT NULL, changed_at REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS performed_of (
    sop_instance_uid TEXT NOT NULL, study_instance_uid TEXT NOT NULL, step_id TEXT NOT NULL,
    PRIMARY KEY (sop_instance_uid, study_instance_uid, step_id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS untold (
    number INTEGER PRIMARY KEY AUTOINCREMENT, sop_instance_uid TEXT NOT NULL, event BLOB NOT NULL
)
"""

_GET = "SELECT state, revision, attributes FROM performed WHERE sop_instance_uid = ?"


class Known(NamedTuple):
    """A step as it is now; its attributes as DICOM JSON."""

    state: str
    revision: int
    attributes: dict[str, Any]


class Untold(NamedTuple):
    """A change that Kafka does not have yet."""

    number: int
    event: ProcedureStepChanged


class NoRoom(Exception):
    """The disk is nearly full."""


class Procedures:
    """The steps. Every method raises `OSError` if the disk fails; then nothing is changed."""

    def __init__(self, settings: Settings) -> None:
        self._local = Local(settings.spool_dir / "procedures.sqlite", _SCHEMA, durable=True)
        self._min_free_bytes = settings.spool.min_free_bytes

    def change(
        self, sop_instance_uid: str, change: Callable[[Known | None], tuple[dict[str, Any], ProcedureStepChanged] | None]
    ) -> ProcedureStepChanged | None:
        """Let `change` decide, alone, what becomes of a step; what it says is durable when this returns.

        It is given what is known and gives the new attributes and the event that says so, or None to leave all as it is; what it raises
        goes through. Raises `NoRoom`.
        """
        self._local.make()
        disk = os.statvfs(self._local.path.parent)
        if disk.f_bavail * disk.f_frsize < self._min_free_bytes:
            raise NoRoom
        with self._local.writing() as connection:
            changed = change(_known(connection.execute(_GET, (sop_instance_uid,)).fetchone()))
            if changed is None:
                return None
            attributes, event = changed
            connection.execute(
                "INSERT OR REPLACE INTO performed VALUES (?, ?, ?, ?, ?, ?)",
                (sop_instance_uid, event.state, event.revision, msgspec.json.encode(attributes), event.is_wrong_entry, time.time()),
            )
            connection.executemany(
                "INSERT OR IGNORE INTO performed_of VALUES (?, ?, ?)",
                [(sop_instance_uid, each.study_instance_uid, each.step_id) for each in event.scheduled if each.step_id],
            )
            connection.execute("INSERT INTO untold (sop_instance_uid, event) VALUES (?, ?)", (sop_instance_uid, encode(event)))
        return event

    def untold(self, limit: int = 100) -> list[Untold]:
        """What is to be told, oldest first."""
        with self._local.reading() as connection:
            rows = connection.execute("SELECT number, event FROM untold ORDER BY number LIMIT ?", (limit,)).fetchall()
        return [Untold(number, decode(ProcedureStepChanged, event)) for number, event in rows]

    def get(self, sop_instance_uid: str) -> Known | None:
        """A step as it is now."""
        with self._local.reading() as connection:
            row = connection.execute(_GET, (sop_instance_uid,)).fetchone()
        return _known(row)

    @property
    def version(self) -> int:
        """A number that changes whenever something is said of a step. Raises `OSError`."""
        self._local.make()
        return self._local.path.stat().st_mtime_ns

    def scheduled(self) -> list[tuple[str, str, str, bool]]:
        """Of each scheduled step that one is for: StudyInstanceUID, step id, state, and whether it was the wrong entry of the worklist."""
        with self._local.reading() as connection:
            rows = connection.execute(
                "SELECT study_instance_uid, step_id, state, wrong_entry FROM performed_of JOIN performed USING (sop_instance_uid)"
            ).fetchall()
        return [(study, step, state, bool(wrong)) for study, step, state, wrong in rows]

    def waiting(self) -> int:
        """How many changes are to be told."""
        with self._local.reading() as connection:
            count: int = connection.execute("SELECT count(*) FROM untold").fetchone()[0]
        return count

    def told(self, numbers: Sequence[int]) -> None:
        """Kafka has these. May be repeated."""
        with self._local.writing() as connection:
            connection.executemany("DELETE FROM untold WHERE number = ?", [(number,) for number in numbers])

    def forget_before(self, moment: float) -> int:
        """Forget steps that nothing was said of since `moment` (seconds since 1970), and that are told; how many."""
        with self._local.writing() as connection:
            count = connection.execute(
                "DELETE FROM performed WHERE changed_at < ? AND sop_instance_uid NOT IN (SELECT sop_instance_uid FROM untold)", (moment,)
            ).rowcount
            connection.execute("DELETE FROM performed_of WHERE sop_instance_uid NOT IN (SELECT sop_instance_uid FROM performed)")
        return count


def _known(row: Any) -> Known | None:
    return Known(row[0], row[1], msgspec.json.decode(row[2])) if row is not None else None
