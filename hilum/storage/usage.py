"""What takes room: originals by what they are, by age, by sender and modality; disks; how much comes a day, and when it will be full.

Reads the whole index and ledger.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path

import psycopg
from msgspec import Struct

from hilum import bus, desired
from hilum.bundle import in_force
from hilum.commitments import Commitments
from hilum.database import AWAY, away, connect
from hilum.errors import HilumError, Misconfigured
from hilum.sections import Retention
from hilum.settings import Settings
from hilum.storage.keeping import REASONS, Facts, Reason, Term, verdict
from hilum.storage.places import in_place
from hilum.storage.records import Records

#: Up to how many days of age, each group.
AGES = (("up to a day", 1), ("up to a week", 7), ("up to 30 days", 30), ("up to 90 days", 90), ("up to a year", 365))
#: Growth is of so many days.
GROWTH_DAYS = 7
OLDER, EXPIRES = "older", "expires now"

_RECEIVED = """
SELECT count(DISTINCT object_key), coalesce(sum(size_bytes), 0)::bigint, min(received_at) FROM (
    SELECT object_key, min(size_bytes) AS size_bytes, min(received_at) AS received_at FROM receipt
    WHERE bucket = %(bucket)s AND received_at > %(since)s GROUP BY object_key) AS new
"""
_EXPIRED = """
SELECT count(*), coalesce(sum(size_bytes), 0)::bigint, count(*) FILTER (WHERE deleted_at IS NULL),
    coalesce(sum(size_bytes) FILTER (WHERE deleted_at > %(since)s), 0)::bigint FROM expiry WHERE bucket = %(bucket)s
"""


class Amount(Struct, kw_only=True):
    """So many originals, and their size together."""

    objects: int = 0
    size_bytes: int = 0

    def add(self, size_bytes: int) -> None:
        """One more."""
        self.objects += 1
        self.size_bytes += size_bytes


class Disk(Struct, frozen=True, kw_only=True):
    """A disk of this machine, and what of Hilum's lies on it."""

    path: str
    holds: tuple[str, ...]
    size_bytes: int
    free_bytes: int


class Usage(Struct, frozen=True, kw_only=True):
    """What takes room."""

    #: By reason for which it is kept, and `expires now`.
    kept: dict[str, Amount]
    by_age: dict[str, Amount]
    by_modality: dict[str, Amount]
    by_sender: dict[str, Amount]
    #: Files in this machine's spool that are not published yet.
    spool: Amount
    #: Originals that are no longer kept, and how many of them are still to be deleted.
    expired: Amount
    undeleted: int
    disks: tuple[Disk, ...]
    #: New originals a day, of late; and what expired a day, in bytes.
    per_day: Amount
    expired_bytes_per_day: int
    #: When the disk of the object store will be full at that rate; None: not known, or never.
    full_at: datetime | None


class Expiring(Struct, frozen=True, kw_only=True):
    """What the terms mean now."""

    terms: Retention
    version: str
    #: By reason for which it is kept.
    kept: dict[str, Amount]
    #: By term, what expires now.
    expires: dict[str, Amount]
    #: Why nothing expires in spite of that; empty if it does.
    waits: str
    #: Since when the clocks have run evenly; None if nobody has looked yet.
    steady_since: datetime | None


def usage(settings: Settings) -> Usage:
    """What takes room now. Raises `TryAgain`, `Misconfigured`."""
    dsn, kept = settings.postgres.dsn, Kept(settings)
    try:
        with connect(dsn, name="hilum storage") as connection:
            now = _read(connection, settings, kept)
            values = {"bucket": settings.s3.bucket, "since": now - timedelta(days=GROWTH_DAYS)}
            [(new, new_bytes, first)] = connection.execute(_RECEIVED, values).fetchall()
            [(gone, gone_bytes, undeleted, gone_of_late)] = connection.execute(_EXPIRED, values).fetchall()
    except psycopg.errors.UndefinedTable:
        raise Misconfigured("database-tables", "The database lacks tables of this release.", fix="Run `hilum provision`.") from None
    except AWAY as error:
        raise away(dsn, error) from None
    # Of a Hilum that is younger than that, the days that it has; at least one, so that an hour's import is no year's growth.
    days = min(float(GROWTH_DAYS), max(1.0, (now - first).total_seconds() / 86400)) if first else 1.0
    per_day = Amount(objects=round(new / days), size_bytes=round(new_bytes / days))
    disks = disks_of(settings)
    growth = per_day.size_bytes - round(gone_of_late / days)
    return Usage(
        kept=kept.by_reason,
        by_age=kept.by_age,
        by_modality=kept.by_modality,
        by_sender=kept.by_sender,
        spool=spooled(settings),
        expired=Amount(objects=gone, size_bytes=gone_bytes),
        undeleted=undeleted,
        disks=disks,
        per_day=per_day,
        expired_bytes_per_day=round(gone_of_late / days),
        full_at=full_at(disks, growth, now),
    )


def expiring(settings: Settings) -> Expiring:
    """What each term has expire now, without doing it. Raises `TryAgain`, `Misconfigured`."""
    dsn, kept = settings.postgres.dsn, Kept(settings)
    try:
        with connect(dsn, name="hilum storage") as connection:
            _read(connection, settings, kept)
            row = connection.execute("SELECT steady_since, now() FROM expiry_clock").fetchone()
    except psycopg.errors.UndefinedTable:
        raise Misconfigured("database-tables", "The database lacks tables of this release.", fix="Run `hilum provision`.") from None
    except AWAY as error:
        raise away(dsn, error) from None
    waits = ""
    if not settings.retention.anything:
        waits = "No term is set in [retention]: nothing expires."
    elif row is None:
        waits = "The role `expire` has not looked yet; nothing expires in its first day."
    elif row[1] - row[0] < timedelta(days=1):
        waits = f"The clock is known to have run evenly since {row[0]:%Y-%m-%d %H:%M} UTC only: nothing expires before a day of that."
    return Expiring(
        terms=settings.retention,
        version=settings.retention.version,
        kept={reason: amount for reason, amount in kept.by_reason.items() if reason != EXPIRES},
        expires=kept.by_term,
        waits=waits,
        steady_since=row[0] if row else None,
    )


class Kept:
    """Sums originals up."""

    def __init__(self, settings: Settings) -> None:
        self._retention = settings.retention
        self._awaited = awaited(settings)
        self.by_reason = {reason: Amount() for reason in (*REASONS, EXPIRES)}
        self.by_age = {name: Amount() for name in (*(name for name, _ in AGES), OLDER)}
        self.by_modality: dict[str, Amount] = {}
        self.by_sender: dict[str, Amount] = {}
        self.by_term: dict[str, Amount] = {}

    def add(self, facts: Facts, now: datetime) -> None:
        """One more original."""
        size_bytes = facts.size_bytes
        found: Reason | Term = verdict(facts, self._retention, now, awaited=facts.sop_instance_uid in self._awaited)
        if isinstance(found, Term):
            self.by_reason[EXPIRES].add(size_bytes)
            self.by_term.setdefault(found.policy, Amount()).add(size_bytes)
        else:
            self.by_reason[found].add(size_bytes)
        days = (now - facts.received_at).total_seconds() / 86400
        self.by_age[next((name for name, most in AGES if days <= most), OLDER)].add(size_bytes)
        self.by_modality.setdefault(facts.modality, Amount()).add(size_bytes)
        self.by_sender.setdefault("/".join(facts.senders), Amount()).add(size_bytes)


def _read(connection: psycopg.Connection, settings: Settings, kept: Kept) -> datetime:
    """Add every original to `kept`; the database's clock."""
    records = Records(connection, bus.Writer(settings, "storage"), settings.s3.bucket, in_place(_there(settings)))
    now = records.now()
    for facts in records.all_facts():
        kept.add(facts, now)
    return now


def _there(settings: Settings) -> Settings:
    """The destinations that are there now; those of the settings file, if Kafka does not answer: what they have got is known anyway."""
    try:
        return desired.destinations(settings)
    except HilumError:
        return in_force(settings, None)


def awaited(settings: Settings) -> Collection[str]:
    """The SOPInstanceUIDs that open requests for storage commitment on this machine name and that are not decided."""
    if not (settings.spool_dir / "commitments").is_dir():
        return frozenset()
    commitments = Commitments.of(settings)
    whole = (commitments.get(request.id) for request in commitments.open() if request.state == "asked")
    return frozenset(each.sop_instance_uid for request in whole if request is not None for each in request.references)


def spooled(settings: Settings) -> Amount:
    """What waits in this machine's spool to be published."""
    amount, folder = Amount(), settings.spool_dir / "objects"
    for path in folder.glob("*.dcm") if folder.is_dir() else ():
        with suppress(OSError):  # published meanwhile
            amount.add(path.stat().st_size)
    return amount


def disks_of(settings: Settings) -> tuple[Disk, ...]:
    """The disks of this machine that hold what Hilum keeps, as far as its parts are on this machine."""
    parts = {"spool": settings.spool_dir}
    if settings.s3.synced:
        parts["object store"] = Path(settings.s3.synced)
    for name in ("s3", "kafka", "postgres"):
        if (settings.data_dir / name).is_dir():
            parts.setdefault("object store" if name == "s3" else name, settings.data_dir / name)
    found: dict[int, tuple[Path, list[str]]] = {}
    for name, path in parts.items():
        with suppress(OSError):
            found.setdefault(path.stat().st_dev, (path, []))[1].append(name)
    return tuple(_disk(path, names) for path, names in found.values())


def _disk(path: Path, names: Iterable[str]) -> Disk:
    stat = os.statvfs(path)
    return Disk(path=str(path), holds=tuple(names), size_bytes=stat.f_blocks * stat.f_frsize, free_bytes=stat.f_bavail * stat.f_frsize)


def full_at(disks: Iterable[Disk], growth_bytes: int, now: datetime) -> datetime | None:
    """When the disk of the object store is full if it grows by so much a day; None: not known, never, or in more than a century."""
    free = next((disk.free_bytes for disk in disks if "object store" in disk.holds), None)
    if free is None or growth_bytes <= 0 or free / growth_bytes > 36_500:
        return None
    return now + timedelta(days=free / growth_bytes)
