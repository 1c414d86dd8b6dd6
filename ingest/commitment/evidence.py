"""What storage commitment is decided by: the index in PostgreSQL, and how far spool, log and index are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import psycopg
from confluent_kafka import TopicPartition

from hilum import bus
from hilum.database import AWAY, away, connect
from hilum.errors import Misconfigured, TryAgain
from hilum.events import InstanceReceived, ObjectRef, StudyExpected, following_id
from hilum.settings import Settings
from hilum.spool import Spool, received_at
from hilum.storage.records import EXPIRED, SHARED_LOCK
from hilum.words import counted

from .decide import Arrived

#: Instances that are asked about in one query.
_CHUNK = 5_000
_KAFKA_TIMEOUT_S = 5.0
#: Receipts tell the time by the millisecond.
_TICK = timedelta(milliseconds=1)
#: A duplicate has the contents of the first, perhaps in other bytes; what a destination sent back is none of the sender's.
_ARRIVED = """
    SELECT sop_instance_uid, receipt, sop_class_uid, bucket, object_key, size_bytes, sha256
    FROM receipt WHERE sop_instance_uid = ANY (%s) AND object_key IS NOT NULL
        AND (decision IS NULL OR decision NOT IN ('duplicate', 'returned')) AND NOT {expired} ORDER BY received_at, receipt
"""
_HOLD = """
    UPDATE receipt SET committed_at = now() WHERE receipt = ANY (%s) AND committed_at IS NULL
    RETURNING study_instance_uid, sop_instance_uid
"""
_GONE = f"SELECT count(*) FROM receipt WHERE receipt = ANY (%s) AND {EXPIRED.format('receipt')}"  # noqa: S608  # constants
_TELL = "INSERT INTO outbox (topic, key, headers, value) VALUES (%s, %s, %s::jsonb, %s)"
_POSITIONS = "SELECT partition, next_offset FROM consumer_offset WHERE group_name = 'index' AND topic = %s"


class Database:
    """The index, on a connection of its own that is opened again after an outage."""

    def __init__(self, settings: Settings) -> None:
        self._dsn = settings.postgres.dsn
        self._topic = bus.topic_of(settings, InstanceReceived)
        self._writer = bus.Writer(settings, "commitment")
        self._connection: psycopg.Connection | None = None

    def arrived(self, sop_instance_uids: Sequence[str]) -> Mapping[str, Sequence[Arrived]]:
        """See `Index`."""
        found: dict[str, list[Arrived]] = {}
        for at in range(0, len(sop_instance_uids), _CHUNK):
            for uid, receipt, sop_class, bucket, key, size_bytes, sha256 in self._rows(
                _ARRIVED.format(expired=EXPIRED.format("receipt")), list(sop_instance_uids[at : at + _CHUNK])
            ):
                ref = ObjectRef(bucket=bucket, key=key, size_bytes=size_bytes, sha256=sha256)
                found.setdefault(uid, []).append(Arrived(receipt=receipt, sop_class_uid=sop_class or "", object=ref))
        return found

    def hold(self, receipts: Sequence[str]) -> None:
        """See `Index`. Route learns which instances of each study its sender believes to have sent."""
        for at in range(0, len(receipts), _CHUNK):
            chunk = list(receipts[at : at + _CHUNK])
            with self._guarded() as connection, connection.transaction():
                connection.execute(SHARED_LOCK)
                [(gone,)] = connection.execute(_GONE.encode(), (chunk,)).fetchall()
                if gone:  # since it was read: it is decided on once more
                    raise TryAgain(f"{counted(gone, 'object')} expired meanwhile.")
                studies: dict[str, list[str]] = {}
                for study, instance in connection.execute(_HOLD.encode(), (chunk,)):
                    if study and instance:
                        studies.setdefault(study, []).append(instance)
                for study, instances in studies.items():
                    self._announce(connection, study, sorted(set(instances)))

    def _announce(self, connection: psycopg.Connection, study: str, instances: Sequence[str]) -> None:
        now = datetime.now(UTC)
        event = StudyExpected(study_instance_uid=study, source="storage-commitment", sop_instance_uids=tuple(instances), said_at=now)
        event_id = following_id(f"{study}/{instances[0]}/{now.isoformat()}", "commitment", 0)
        record = self._writer.record(event, event_id, time=bus.timestamp(now))
        headers = {name: value.decode() if isinstance(value, bytes) else value or "" for name, value in record.headers}
        connection.execute(_TELL, (record.topic, record.key.decode(), msgspec.json.encode(headers).decode(), record.value))

    def positions(self) -> dict[int, int]:
        """The next offset that the index will read of what was received, by partition. Raises `TryAgain`."""
        return dict(self._rows(_POSITIONS, self._topic))

    def _rows(self, query: str, value: object) -> list[tuple[Any, ...]]:
        return self._execute(query, value).fetchall()

    def _execute(self, query: str, value: object) -> psycopg.Cursor[tuple[Any, ...]]:
        with self._guarded() as connection:
            return connection.execute(query.encode(), (value,))

    @contextmanager
    def _guarded(self) -> Iterator[psycopg.Connection]:
        """The connection, opened if need be; its errors in words."""
        try:
            if self._connection is None or self._connection.closed:
                self._connection = connect(self._dsn, name="hilum commitment")
            yield self._connection
        except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn):
            raise Misconfigured("database-tables", "The database lacks tables of this release.", fix="Run `hilum provision`.") from None
        except AWAY as error:
            if self._connection is not None:
                self._connection.close()
            self._connection = None
            raise away(self._dsn, error) from None


class Way:
    """How far what was acknowledged has come: from the spool to the log, from the log into the index.

    What is no longer in the spool is on the log. So once the index has read to where the log ended after the spool was looked at,
    it has all that was acknowledged before the oldest object in the spool, or before that look if the spool was empty.
    """

    def __init__(self, settings: Settings, spool: Spool, database: Database) -> None:
        self._spool = spool
        self._database = database
        self._topic = bus.topic_of(settings, InstanceReceived)
        self._admin = bus.admin(settings)
        #: Everything acknowledged until then is in the index.
        self._passed = datetime.min.replace(tzinfo=UTC)
        #: What will be passed once the index has read to these ends.
        self._next = self._passed
        self._ends: dict[int, int] | None = None

    def behind(self, moment: datetime) -> str:
        """See `Progress`."""
        if self._passed < moment and self._ends is not None:
            self._look_at_index()
        if self._passed < moment and (self._ends is None or self._next < moment):
            waits = self._look_at_spool(moment)
            if waits:
                return waits
            self._look_at_index()
        return "" if self._passed >= moment else "The index has not yet read all that was received."

    def _look_at_spool(self, moment: datetime) -> str:
        """Set the next goal, unless something in the spool is in its way: then what."""
        now, older, oldest = datetime.now(UTC), 0, datetime.max.replace(tzinfo=UTC)
        for receipt in self._spool.waiting():
            with suppress(ValueError):  # a file that is no arrival
                came = received_at(receipt)
                oldest = min(oldest, came)
                older += came <= moment
        if older:
            return f"{counted(older, 'object')} of before still in the spool, to be published."
        self._ends = self._ends_now()
        self._next = min(now, oldest - _TICK)
        return ""

    def _ends_now(self) -> dict[int, int]:
        count = bus.partition_counts(self._admin, [self._topic], timeout_s=_KAFKA_TIMEOUT_S)[self._topic]
        partitions = [TopicPartition(self._topic, number) for number in range(count)]
        found = bus.offsets(self._admin, partitions, bus.LATEST, timeout_s=_KAFKA_TIMEOUT_S)
        return {partition: offset for (_, partition), offset in found.items()}

    def _look_at_index(self) -> None:
        assert self._ends is not None
        read = self._database.positions()
        if all(read.get(partition, 0) >= end for partition, end in self._ends.items()):
            self._passed, self._ends = max(self._passed, self._next), None
