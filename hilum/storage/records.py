"""What index and ledger know of originals, and the rows that say which of them have expired."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import datetime, timedelta

import msgspec
import psycopg
from msgspec import Struct
from psycopg.rows import dict_row

from hilum import bus
from hilum.database.rows import Insert
from hilum.events import InstanceExpired, following_id
from hilum.sink import KEPT_IN_PLACE
from hilum.storage.keeping import Facts

#: Who plans deliveries of what is here already shares it, in the transaction; who decides that something expires has it alone. So
#: each delivery is seen by the decision, or sees it.
SHARED_LOCK = "SELECT pg_advisory_xact_lock_shared(hashtext('hilum.expiry'))"
_SOLE_LOCK = "SELECT pg_try_advisory_xact_lock(hashtext('hilum.expiry'))"

#: Whether the original of the row `{0}` has expired, and its bytes did not come again.
EXPIRED = """
    EXISTS (SELECT FROM expiry AS x WHERE x.bucket = {0}.bucket AND x.object_key = {0}.object_key AND NOT EXISTS (
        SELECT FROM receipt AS y WHERE y.sop_instance_uid = x.sop_instance_uid AND y.bucket = x.bucket AND y.object_key = x.object_key
            AND y.receipt <> ALL (x.receipts)))
"""

_FACTS = """
WITH here AS MATERIALIZED (
    SELECT receipt.*, coalesce(sop_instance_uid, receipt) AS uid FROM receipt WHERE {chosen}),
object AS (
    SELECT bucket, object_key, min(uid) AS uid, min(sop_instance_uid) AS sop_instance_uid, min(study_instance_uid) AS study_instance_uid,
        min(series_instance_uid) AS series_instance_uid, min(sha256) AS sha256, min(size_bytes) AS size_bytes,
        array_agg(receipt ORDER BY receipt) AS receipts,
        coalesce(array_agg(DISTINCT decision) FILTER (WHERE decision IS NOT NULL), '{{}}') AS decisions,
        coalesce(array_agg(DISTINCT calling_aet) FILTER (WHERE calling_aet <> ''), '{{}}') AS senders, min(received_at) AS received_at
    FROM here WHERE bucket = %(bucket)s AND object_key IS NOT NULL GROUP BY bucket, object_key),
under AS (
    SELECT uid,
        bool_or((decision IS NULL AND quarantine_reason IS NULL) OR NOT received OR received_at IS NULL
            OR EXISTS (SELECT FROM unnest(delivery_ids) AS id WHERE NOT EXISTS (SELECT FROM delivery WHERE delivery_id = id))) AS undecided,
        bool_or(decision IS NULL AND quarantine_reason IS NOT NULL) AS quarantined,
        bool_or(decision IS NOT NULL AND decision IN ('waits', 'held')) AS waits, bool_or(committed_at IS NOT NULL) AS promised,
        max(greatest(received_at, decided_at, accepted_at, quarantined_at)) AS changed_at
    FROM here GROUP BY uid),
sent AS (
    SELECT bucket, object_key,
        bool_or(state = 'delivered' AND comment LIKE %(in_place_says)s
            OR state NOT IN ('rejected', 'cancelled') AND destination = ANY (%(in_place)s)) AS archived,
        bool_or(state = 'rejected') AS rejected,
        bool_or(state IN ('delivered', 'already_there', 'returned')) AS arrived
    FROM delivery WHERE {chosen} GROUP BY bucket, object_key),
sent_under AS (
    SELECT sop_instance_uid, count(*) FILTER (WHERE state IN ('pending', 'parked')) AS open, max(settled_at) AS settled_at
    FROM delivery WHERE {chosen} GROUP BY sop_instance_uid),
set_aside AS (SELECT DISTINCT sop_instance_uid FROM quarantine WHERE state = 'waiting' AND {chosen})
SELECT object.bucket, object.object_key, coalesce(object.study_instance_uid, '') AS study_instance_uid,
    coalesce(object.series_instance_uid, '') AS series_instance_uid, coalesce(object.sop_instance_uid, '') AS sop_instance_uid,
    coalesce(object.sha256, '') AS sha256, coalesce(object.size_bytes, 0) AS size_bytes, object.receipts, object.decisions,
    coalesce(series.modality, '') AS modality, object.senders, under.undecided,
    under.quarantined OR set_aside.sop_instance_uid IS NOT NULL AS quarantined,
    under.waits OR coalesce(study_state.state = 'open', false) AS waits, coalesce(sent_under.open, 0) AS open, under.promised,
    coalesce(sent.archived, false) AS archived, coalesce(sent.rejected, false) AS rejected, coalesce(sent.arrived, false) AS arrived,
    coalesce(instance.object_key = object.object_key, object.decisions IS DISTINCT FROM ARRAY['returned']) AS first,
    coalesce(object.received_at, 'epoch') AS received_at,
    coalesce(greatest(under.changed_at, sent_under.settled_at), 'epoch') AS changed_at
FROM object JOIN under USING (uid)
LEFT JOIN sent ON sent.bucket = object.bucket AND sent.object_key = object.object_key
LEFT JOIN sent_under ON sent_under.sop_instance_uid = object.sop_instance_uid
LEFT JOIN set_aside ON set_aside.sop_instance_uid = object.sop_instance_uid
LEFT JOIN study_state ON study_state.study_instance_uid = object.study_instance_uid
LEFT JOIN series ON series.series_instance_uid = object.series_instance_uid
LEFT JOIN instance ON instance.sop_instance_uid = object.sop_instance_uid
WHERE NOT {expired}
"""
_OF_INSTANCES = _FACTS.format(chosen="sop_instance_uid = ANY (%(uids)s)", expired=EXPIRED.format("object"))
_OF_ALL = _FACTS.format(chosen="true", expired=EXPIRED.format("object"))
_PAGE = """
SELECT receipt, sop_instance_uid FROM receipt
WHERE receipt > %(after)s AND received_at < %(before)s AND sop_instance_uid IS NOT NULL ORDER BY receipt LIMIT %(limit)s
"""
_UNDELETED = """
SELECT bucket, object_key, study_instance_uid, series_instance_uid, sop_instance_uid, sha256, size_bytes, days, policy, policy_version,
    decided_by, decided_at, EXISTS (
        SELECT FROM receipt AS y WHERE y.sop_instance_uid = x.sop_instance_uid AND y.bucket = x.bucket AND y.object_key = x.object_key
            AND y.receipt <> ALL (x.receipts)) AS came_again
FROM expiry AS x WHERE deleted_at IS NULL ORDER BY decided_at, object_key LIMIT %(limit)s
"""
_TELL = "INSERT INTO outbox (topic, key, headers, value) VALUES (%s, %s, %s::jsonb, %s)"
_LOOK = """
INSERT INTO expiry_clock AS here (seen_at, steady_since) VALUES (%(now)s, %(now)s)
ON CONFLICT (one) DO UPDATE SET seen_at = %(now)s, steady_since = CASE
    WHEN %(jumped)s OR %(now)s < here.seen_at - %(tolerance)s::interval OR %(now)s > here.seen_at + %(gap)s::interval THEN %(now)s
    ELSE here.steady_since END
RETURNING steady_since
"""
_NEWEST = """
SELECT greatest((SELECT max(received_at) FROM (SELECT received_at FROM receipt ORDER BY receipt DESC LIMIT 1000) AS r),
                (SELECT max(decided_at) FROM expiry WHERE deleted_at IS NULL)) AS at
"""


class ExpiryRow(Struct, frozen=True, kw_only=True):
    """An original that is no longer kept from now on."""

    bucket: str
    object_key: str
    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sha256: str
    size_bytes: int
    receipts: tuple[str, ...]
    days: int
    policy: str
    policy_version: str
    decided_by: str


class Undeleted(Struct, frozen=True, kw_only=True):
    """An original that has expired and whose bytes may still be there."""

    bucket: str
    object_key: str
    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sha256: str
    size_bytes: int
    days: int
    policy: str
    policy_version: str
    decided_by: str
    decided_at: datetime
    #: Whether there is an arrival of it that the decision did not know.
    came_again: bool


# One whose bytes came again after it had expired expires once more, by the later decision.
_insert = Insert(
    "expiry",
    ExpiryRow,
    "ON CONFLICT (bucket, object_key) DO UPDATE SET receipts = excluded.receipts, days = excluded.days, policy = excluded.policy,"
    " policy_version = excluded.policy_version, decided_by = excluded.decided_by, decided_at = now(), deleted_at = NULL",
)


class Records:
    """The tables, on one connection in autocommit. Every method raises what psycopg raises."""

    def __init__(self, connection: psycopg.Connection, writer: bus.Writer, bucket: str, in_place: Collection[str]) -> None:
        """`in_place` names the destinations that are archives in place now."""
        self._connection = connection
        self._writer = writer
        self._values = {"bucket": bucket, "in_place": list(in_place), "in_place_says": KEPT_IN_PLACE + "%"}

    def now(self) -> datetime:
        """The database's clock."""
        [(now,)] = self._connection.execute("SELECT clock_timestamp()").fetchall()
        return now  # type: ignore[no-any-return]

    def newest(self) -> datetime | None:
        """The time of what came or was decided last."""
        [(at,)] = self._connection.execute(_NEWEST).fetchall()
        return at  # type: ignore[no-any-return]

    def steady_since(self, now: datetime, *, jumped: bool, tolerance: timedelta, gap: timedelta) -> datetime:
        """Put down that the clock shows `now`; since when it has run without a jump or a gap."""
        values = {"now": now, "jumped": jumped, "tolerance": tolerance, "gap": gap}
        [(since,)] = self._connection.execute(_LOOK, values).fetchall()
        return since  # type: ignore[no-any-return]

    def page(self, after: str, before: datetime, limit: int) -> tuple[str, list[str]]:
        """The instances of the next receipts behind `after` that came before `before`, and the last of these receipts; "" at the end."""
        rows = self._connection.execute(_PAGE, {"after": after, "before": before, "limit": limit}).fetchall()
        return (rows[-1][0] if len(rows) == limit else ""), sorted({uid for _, uid in rows})

    def facts(self, sop_instance_uids: Sequence[str]) -> list[Facts]:
        """What is known of the originals of these instances that have not expired."""
        with self._connection.cursor(row_factory=dict_row) as cursor:
            rows = cursor.execute(_OF_INSTANCES.encode(), {**self._values, "uids": list(sop_instance_uids)}).fetchall()
        return [msgspec.convert(row, Facts) for row in rows]

    def all_facts(self) -> Iterator[Facts]:
        """What is known of every original that has not expired. Reads the whole index and ledger."""
        with self._connection.transaction(), self._connection.cursor("originals", row_factory=dict_row) as cursor:
            cursor.itersize = 2000
            for row in cursor.execute(_OF_ALL.encode(), self._values):
                yield msgspec.convert(row, Facts)

    def decide(self, sop_instance_uids: Sequence[str], expires: Callable[[Facts], ExpiryRow | None]) -> int | None:
        """Have expire what `expires(facts)` gives a row for, durably; how many. None if deliveries are being planned at this moment.

        Nobody can plan a delivery while this is done. The queue of the ledger is never waited for: it would have to wait, too.
        """
        with self._connection.transaction():
            [(alone,)] = self._connection.execute(_SOLE_LOCK).fetchall()
            if not alone:
                return None
            self._connection.execute("SET LOCAL statement_timeout = '5s'")
            rows = [row for facts in self.facts(sop_instance_uids) if (row := expires(facts)) is not None]
            _insert(self._connection, rows)
        return len(rows)

    def undeleted(self, limit: int) -> list[Undeleted]:
        """What has expired and may still be there, oldest decision first."""
        with self._connection.cursor(row_factory=dict_row) as cursor:
            return [msgspec.convert(row, Undeleted) for row in cursor.execute(_UNDELETED, {"limit": limit})]

    def take_back(self, row: Undeleted) -> None:
        """Keep an original after all."""
        self._connection.execute(
            "DELETE FROM expiry WHERE bucket = %s AND object_key = %s AND deleted_at IS NULL", (row.bucket, row.object_key)
        )

    def deleted(self, rows: Sequence[Undeleted], now: datetime) -> None:
        """Record that their bytes are gone, and have it said."""
        with self._connection.transaction():
            for row in rows:
                done = self._connection.execute(
                    "UPDATE expiry SET deleted_at = %s WHERE bucket = %s AND object_key = %s AND deleted_at IS NULL",
                    (now, row.bucket, row.object_key),
                )
                if done.rowcount:
                    self._tell(row, now)

    def _tell(self, row: Undeleted, now: datetime) -> None:
        event = InstanceExpired(
            study_instance_uid=row.study_instance_uid,
            series_instance_uid=row.series_instance_uid,
            sop_instance_uid=row.sop_instance_uid,
            bucket=row.bucket,
            object_key=row.object_key,
            size_bytes=row.size_bytes,
            sha256=row.sha256,
            policy=row.policy,
            policy_version=row.policy_version,
            by=row.decided_by,
            decided_at=row.decided_at,
            expired_at=now,
        )
        event_id = following_id(f"{row.bucket}/{row.object_key}/{row.decided_at.isoformat()}", "expire", 0)
        record = self._writer.record(event, event_id, time=bus.timestamp(now))
        headers = {name: value.decode() if isinstance(value, bytes) else value or "" for name, value in record.headers}
        self._connection.execute(_TELL, (record.topic, record.key.decode(), msgspec.json.encode(headers).decode(), record.value))
