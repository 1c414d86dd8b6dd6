"""The role `expire`: has originals expire whose retention has passed.

One process of all does it, a few at a time, with pauses; it touches nothing that the stream waits for.
"""

from __future__ import annotations

import socket
import threading
import time
from datetime import timedelta

import psycopg
from confluent_kafka import KafkaException

from hilum import bus, desired, telemetry
from hilum.caught_up import has_read_all
from hilum.database import AWAY, away, connect
from hilum.errors import HilumError
from hilum.role import Health
from hilum.settings import Settings
from hilum.storage.clocks import STEADY, Clocks
from hilum.storage.expiring import Done, Expirer
from hilum.storage.marker import Marker
from hilum.storage.places import in_place
from hilum.storage.records import Records
from hilum.storage.usage import awaited
from hilum.store import open_store
from hilum.words import counted

#: From the end of one pass over all originals to the begin of the next, and how often the clocks are looked at.
PASS_S, LOOK_S = 6 * 3600.0, 60.0
#: Between two steps: others use the database and the store, too.
PAUSE_S = 0.1
#: After originals were deleted: what was deleted of late stays listed, and every publisher reads the list.
DELETED_PAUSE_S = 2.0
_AGAIN_S, _READ_WITHIN_S = 10.0, 5.0
NO_TERM = "nothing expires: no term is set in [retention]"
#: One at a time; the lock goes with its holder's connection.
_LOCK = "SELECT pg_try_advisory_lock(hashtext('hilum.expire'))"

log = telemetry.logger("expire")


class Expire:
    """See the module."""

    name = "expire"

    def __init__(
        self, settings: Settings, *, steady: timedelta = STEADY, pass_s: float = PASS_S, deleted_pause_s: float = DELETED_PAUSE_S
    ) -> None:
        """`steady` is for how long the clocks must have run evenly, `pass_s` how long it rests between two passes."""
        self._settings = settings
        self._terms = settings.retention
        self._store = open_store(settings)
        self._clocks = Clocks(steady=steady)
        self._pass_s, self._deleted_pause_s = pass_s, deleted_pause_s
        self._trouble = ""
        self._waits = "" if self._terms.anything else NO_TERM
        #: Of the connection of now.
        self._records: Records | None = None
        self._marker = Marker(self._store, settings.s3.bucket)
        self._look_at = self._pass_at = 0.0
        #: Whether index and ledger had read all that was said, when that was looked at last.
        self._read = False
        self._deleted = self._size_bytes = 0

    def run(self, stop: threading.Event) -> None:
        """See `hilum.role.Role.run`. Nothing that is wrong here ends the process: what cannot expire is kept."""
        while not stop.is_set():
            try:
                with connect(self._settings.postgres.dsn, name="hilum expire") as connection:
                    self._work(connection, stop)
            except (*AWAY, KafkaException, HilumError) as error:
                self._fails(self._said(error))
            except psycopg.errors.UndefinedTable:
                self._fails("The database lacks tables of this release. Run `hilum provision`.")
            except Exception as error:  # what it keeps takes room; what its failure would end does more
                log.error("expire_failed", error=telemetry.described(error))
                self._fails("It failed in a way nobody foresaw; see the log.")
            stop.wait(_AGAIN_S)

    def health(self) -> Health:
        """See `hilum.role.Role.health`."""
        done = f"; {counted(self._deleted, 'original')} deleted ({self._size_bytes / 1e6:,.1f} MB)" if self._deleted else ""
        return Health(
            ready=not self._trouble, says=(self._trouble or self._waits or "looks for originals whose retention has passed") + done
        )

    def _work(self, connection: psycopg.Connection, stop: threading.Event) -> None:
        after, pause_s = "", 0.0
        self._records = None
        while not stop.wait(pause_s):
            if self._is_alone(connection):
                after, pause_s = self._round(connection, after)
            else:
                self._trouble, self._waits, pause_s = "", "stands by: another process does it", _AGAIN_S

    def _round(self, connection: psycopg.Connection, after: str) -> tuple[str, float]:
        """One step, if one may be made; from where the next goes on, and after how many seconds."""
        if self._records is None:
            self._marker = Marker(self._store, self._settings.s3.bucket)  # another process may have had it meanwhile
            self._look_at = 0.0
        if self._records is None or time.monotonic() >= self._look_at:
            self._records = self._records_of_now(connection)
            self._read = not self._terms.anything or has_read_all(connection, self._settings, wait_s=_READ_WITHIN_S)
            self._look_at = time.monotonic() + LOOK_S
        now, waits = self._clocks.look(self._records)
        if not self._read:
            waits = waits or "index and ledger have not read all that was said"
        self._trouble, self._waits = "", waits if self._terms.anything else NO_TERM
        self._marker.tidy()
        if (waits and self._terms.anything) or time.monotonic() < self._pass_at:
            return after, min(LOOK_S, self._pass_s)
        done = self._expirer(self._records).step(after, now)
        self._tell(done)
        if done.deleted or done.decided:
            return done.after, self._deleted_pause_s
        if not done.after:
            self._pass_at = time.monotonic() + self._pass_s
        return done.after, PAUSE_S

    def _is_alone(self, connection: psycopg.Connection) -> bool:
        row = connection.execute("SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()").fetchone()
        if row is not None:
            return True
        [(alone,)] = connection.execute(_LOCK).fetchall()
        return bool(alone)

    def _records_of_now(self, connection: psycopg.Connection) -> Records:
        there = desired.destinations(self._settings) if self._terms.anything else self._settings
        return Records(connection, bus.Writer(self._settings, self.name), self._settings.s3.bucket, in_place(there))

    def _expirer(self, records: Records) -> Expirer:
        by = f"{socket.gethostname()}/{self.name}"
        return Expirer(records, self._store, self._marker, self._terms, by, awaited=lambda: awaited(self._settings))

    def _tell(self, done: Done) -> None:
        if done.deleted:
            telemetry.ORIGINALS_EXPIRED.inc(done.deleted)
            telemetry.EXPIRED_BYTES.inc(done.size_bytes)
            log.info("originals_expired", count=done.deleted, size_bytes=done.size_bytes, version=self._terms.version)
        self._deleted += done.deleted
        self._size_bytes += done.size_bytes

    def _said(self, error: Exception) -> str:
        if isinstance(error, HilumError):
            return str(error)
        return str(bus.away(error) if isinstance(error, KafkaException) else away(self._settings.postgres.dsn, error))

    def _fails(self, says: str) -> None:
        if says != self._trouble:
            log.warning("expire_waits", says=says)
        self._trouble = says


def role(settings: Settings) -> Expire:
    """The role `expire`. Raises `Misconfigured` if the store's settings cannot be used."""
    return Expire(settings)
