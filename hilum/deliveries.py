"""What people do with deliveries: try again, cancel, hurry, send once more.

Each change is one transaction of the ledger, so that the account adds up at every moment. What a worker has in its hands is left to it.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import psycopg
from msgspec import Struct, structs

from hilum import bus
from hilum.database import AWAY, away, cancelling, connect
from hilum.database.deliveries import CHANNEL, FREE, NOT_CORRECTED, NOT_WITHDRAWN, OPEN, WHERE, DeliveryRow, Selection
from hilum.database.found import rows
from hilum.database.past import LEFT_BY
from hilum.database.rows import Insert
from hilum.desired import account_name
from hilum.errors import Misconfigured, NotFound
from hilum.events import delivery_id_for
from hilum.settings import Settings
from hilum.sink import URGENT
from hilum.storage.records import EXPIRED, SHARED_LOCK
from hilum.words import counted as counted_words

#: Rows that are read or written at once.
CHUNK = 1000
#: What `retry` takes if no state is named, and what it may take.
RETRIED = ("pending", "parked", "rejected")
RETRYABLE = (*RETRIED, "cancelled")

_RETRY = f"""
    WITH changed AS (
        UPDATE delivery d SET state = 'pending', not_before = now(), attempts = 0, abandoned = 0, settled_at = NULL, parked_at = NULL,
            replaces = d.replaces AND d.state <> 'parked',
            round = d.round + (d.settled_at IS NOT NULL)::int, claimed_by = NULL, lease_until = NULL, identified = %(identified)s
        WHERE {WHERE} AND d.state = ANY(%(retryable)s) AND {FREE} AND {NOT_WITHDRAWN} AND {NOT_CORRECTED}
            AND NOT {EXPIRED.format("d")}
            AND (d.state <> 'pending' OR d.attempts > 0 OR d.not_before > now())
        RETURNING d.delivery_id, d.destination, d.under_policy),
    decided AS (
        INSERT INTO identified_decision (delivery_id, destination, policy, decided_by, why)
        SELECT delivery_id, destination, under_policy, %(by)s, %(why)s FROM changed WHERE %(identified)s),
    told AS (SELECT pg_notify(%(channel)s, destination) FROM (SELECT DISTINCT destination FROM changed) AS each)
    SELECT (SELECT count(*) FROM changed), (SELECT count(*) FROM told)
"""  # noqa: S608  # constants
_TO_CANCEL = f"""
    SELECT d.delivery_id FROM delivery d
    WHERE {WHERE} AND d.state = ANY(%(open)s) AND {FREE} ORDER BY d.delivery_id LIMIT {CHUNK} FOR UPDATE SKIP LOCKED
"""  # noqa: S608  # constants
_HURRY = """
    WITH remembered AS (
        INSERT INTO urgent_study (study_instance_uid, priority) VALUES (%(study)s, %(priority)s)
        ON CONFLICT (study_instance_uid) DO UPDATE SET priority = excluded.priority, since = now()),
    changed AS (
        UPDATE delivery SET priority = %(priority)s
        WHERE study_instance_uid = %(study)s AND state = ANY(%(open)s) AND priority < %(priority)s
        RETURNING destination),
    told AS (SELECT pg_notify(%(channel)s, destination) FROM (SELECT DISTINCT destination FROM changed) AS each)
    SELECT (SELECT count(*) FROM changed), (SELECT count(*) FROM told)
"""
_OF_STUDY = f"""
    SELECT d.sop_instance_uid, d.series_instance_uid, d.study_instance_uid, d.sop_class_uid, d.transfer_syntax_uid, d.bucket, d.object_key,
        d.size_bytes, d.sha256, d.receipt, NULL AS under_policy
    FROM instance d WHERE d.study_instance_uid = %(study)s AND {NOT_WITHDRAWN} AND {{expired}}
"""  # noqa: S608  # constants
#: Of several deliveries of one object to the destination, one is enough.
_DELIVERED = f"""
    SELECT DISTINCT ON (d.sop_instance_uid, d.sha256) d.sop_instance_uid, d.series_instance_uid, d.study_instance_uid, d.sop_class_uid,
        d.transfer_syntax_uid, d.bucket, d.object_key, d.size_bytes, d.sha256, d.receipt,
        CASE WHEN d.destination = %(to)s THEN coalesce(d.under_policy, d.policy) END AS under_policy
    FROM delivery d WHERE {WHERE} AND {NOT_WITHDRAWN} AND {{expired}} ORDER BY d.sop_instance_uid, d.sha256, d.settled_at
"""  # noqa: S608  # constants
_COUNT_OF = """
    SELECT count(*) AS deliveries, count(DISTINCT study_instance_uid) AS studies, coalesce(sum(size_bytes), 0)::bigint AS size_bytes
    FROM ({}) AS chosen
"""
_EXPIRED = EXPIRED.format("d")
_HERE = f"NOT {_EXPIRED}"
_GONE_OF = """
    SELECT count(*) AS objects, min(x.decided_at) AS first, max(x.decided_at) AS last,
        coalesce(array_agg(DISTINCT x.policy), '{{}}') AS policies
    FROM ({}) AS chosen JOIN expiry AS x ON x.bucket = chosen.bucket AND x.object_key = chosen.object_key
"""
_insert = Insert("delivery", DeliveryRow, "ON CONFLICT (delivery_id) DO NOTHING")


class Source(Struct, frozen=True):
    """An object that is to be delivered once more."""

    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    bucket: str
    object_key: str
    size_bytes: int
    sha256: str
    receipt: str
    #: By which the destination has it.
    under_policy: str | None = None


class _Count(Struct, frozen=True):
    deliveries: int
    studies: int
    size_bytes: int


class _Gone(Struct, frozen=True):
    objects: int
    first: datetime | None
    last: datetime | None
    policies: list[str]


class Run(Struct, frozen=True, kw_only=True):
    """What a person asked to be delivered to one destination: one study, or what was delivered there before."""

    destination: str
    #: StudyInstanceUID; empty: any that was delivered there.
    study: str = ""
    since: datetime | None = None
    until: datetime | None = None
    #: Ids of deliveries, if only these of what was delivered there are meant.
    ids: tuple[str, ...] = ()
    #: Whether it is what was delivered there before, and not what is in the index.
    again: bool = False
    #: With `again`, the destination whose deliveries are meant, if that is another one.
    of: str = ""
    #: What left by this policy, for `of` or, without it, for any other destination than this one; with `held` also what was held.
    policy: str = ""
    held: bool = False
    priority: int = 0
    why: str = ""

    @property
    def _source(self) -> tuple[str, dict[str, Any]]:
        """A query with a place, `{expired}`, for what is asked of expiry; and its values."""
        if self.policy:
            values = {"policy": self.policy, "of": self.of, "to": self.destination, "since": self.since, "held": self.held}
            return LEFT_BY.replace("{more}", ""), values
        if not self.again:
            return _OF_STUDY, {"study": self.study}
        there = ("delivered", "already_there", "returned")
        to = self.of or self.destination
        chosen = Selection(destination=to, study=self.study, states=there, since=self.since, until=self.until, ids=self.ids)
        return _DELIVERED, {**chosen.values, "to": self.destination}

    def count(self, dsn: str) -> tuple[int, int, int]:
        """How many objects, of how many studies, and their size in bytes. Raises `TryAgain`, `Misconfigured`."""
        query, values = self._source
        [counted] = rows(dsn, _Count, _COUNT_OF.format(query.format(expired=_HERE)), values)
        return counted.deliveries, counted.studies, counted.size_bytes

    def expired(self, dsn: str) -> str:
        """What would be delivered too if it had not expired, in a sentence; empty if nothing. Raises `TryAgain`, `Misconfigured`."""
        query, values = self._source
        [gone] = rows(dsn, _Gone, _GONE_OF.format(query.format(expired=_EXPIRED)), values)
        if not gone.objects or gone.first is None or gone.last is None:
            return ""
        when = (
            f"on {gone.first:%Y-%m-%d}" if gone.first.date() == gone.last.date() else f"from {gone.first:%Y-%m-%d} to {gone.last:%Y-%m-%d}"
        )
        return f"{counted_words(gone.objects, 'object')} expired {when} by {', '.join(gone.policies)}: their bytes are not kept any more."

    def enter(self, settings: Settings, policy: str | None = None) -> tuple[str, int]:
        """Enter the deliveries into the ledger, all or none, with ids of their own; the run's id and how many there are.

        They are to leave by `policy`, that of the destination, by this run's or by that of the deliveries that they repeat.
        Raises `NotFound` if there is nothing to deliver, `TryAgain`, `Misconfigured`.
        """
        run, entered = str(uuid.uuid4()), 0
        query, values = self._source
        with _connected(settings, autocommit=False) as connection:
            connection.execute(SHARED_LOCK)
            with connection.cursor("sources") as cursor:
                cursor.execute(query.format(expired=_HERE).encode(), values)
                while chunk := cursor.fetchmany(CHUNK):
                    new = [self._row(Source(*each), run, settings, policy) for each in chunk]
                    entered += _insert(connection, new)
            if not entered:
                expired = self.expired(settings.postgres.dsn)
                fix = "Have them sent to Hilum again." if expired else "See `hilum study list`, `hilum deliver list`."
                raise NotFound(f"There is nothing to deliver. {expired}".rstrip(), fix=fix)
            connection.execute(
                "INSERT INTO delivery_run (run, command, destination, study_instance_uid, since, until, asked_by, why, deliveries)"
                " VALUES (%s, %s, %s, nullif(%s, ''), %s, %s, %s, %s, %s)",
                (
                    *(run, "resend" if self.again or self.policy else "send", self.destination, self.study, self.since, self.until),
                    *(account_name(), self.why, entered),
                ),
            )
            connection.execute("SELECT pg_notify(%s, %s)", (CHANNEL, self.destination))
        return run, entered

    def _row(self, source: Source, run: str, settings: Settings, policy: str | None) -> DeliveryRow:
        return DeliveryRow(
            delivery_id=delivery_id_for(source.sha256, source.sop_instance_uid, self.destination, run=run),
            destination=self.destination,
            receipt=source.receipt,
            study_instance_uid=source.study_instance_uid,
            series_instance_uid=source.series_instance_uid or "",
            sop_instance_uid=source.sop_instance_uid,
            sop_class_uid=source.sop_class_uid or "",
            transfer_syntax_uid=source.transfer_syntax_uid or "",
            bucket=source.bucket,
            object_key=source.object_key,
            size_bytes=source.size_bytes,
            sha256=source.sha256,
            rules=(),
            priority=self.priority,
            config_version=settings.config_version,
            traceparent=bus.next_traceparent(None).decode(),
            received_at=None,  # its wait begins now, not when the object came in
            run=run,
            under_policy=policy or self.policy or source.under_policy,
        )


def retry(settings: Settings, selection: Selection, *, identified: bool = False, why: str = "") -> int:
    """Have deliveries tried again at once, with a new count of attempts; how many. Raises `TryAgain`, `Misconfigured`.

    Without states: `RETRIED`. Those that have ended begin a new round, whose end is an event of its own; no other state than
    `RETRYABLE` is taken, and nothing that a rejection note names. With `identified` only those that were entered to leave by a policy: if
    their destination has none, they leave as they are, which is written down with `why`; a later call without it takes that back.
    """
    selection = structs.replace(selection, under_policy=selection.under_policy or identified, states=selection.states or RETRIED)
    values = {**selection.values, "retryable": list(RETRYABLE), "channel": CHANNEL}
    values |= {"identified": identified, "by": account_name(), "why": why}
    with _connected(settings) as connection, connection.transaction():
        connection.execute(SHARED_LOCK)
        [(count, _)] = connection.execute(_RETRY.encode(), values).fetchall()
    return int(count)


def cancel(settings: Settings, selection: Selection, *, why: str = "") -> int:
    """Give open deliveries the final state `cancelled`; how many. What a worker has in its hands stays. Raises `TryAgain`, `Misconfigured`.

    Each chunk is one transaction with the events that say so.
    """
    writer = bus.Writer(settings, "control")
    says = f"Cancelled by {account_name()}{': ' if why else ''}{why}."
    cancelled = 0
    with _connected(settings) as connection:
        while True:
            with connection.transaction():
                values = {**selection.values, "open": list(OPEN)}
                found = [delivery_id for (delivery_id,) in connection.execute(_TO_CANCEL.encode(), values)]
                if not found:
                    return cancelled
                told = dict.fromkeys(found, "Cancelled by a person.")
                cancelling.cancel(connection, writer, told, datetime.now(UTC), says=says)
            cancelled += len(found)


def hurry(settings: Settings, study: str, *, priority: int = URGENT) -> int:
    """Let the deliveries of a study go first, those that are entered later included; how many wait now. Raises as `retry`."""
    with _connected(settings) as connection:
        values = {"study": study, "priority": priority, "open": list(OPEN), "channel": CHANNEL}
        [(count, _)] = connection.execute(_HURRY, values).fetchall()
    return int(count)


@contextmanager
def _connected(settings: Settings, *, autocommit: bool = True) -> Iterator[psycopg.Connection]:
    dsn = settings.postgres.dsn
    try:
        with connect(dsn, name="hilum control", autocommit=autocommit) as connection:
            yield connection
    except psycopg.errors.UndefinedTable:
        raise Misconfigured("database-tables", "The database lacks tables of Hilum's.", fix="Make them with `hilum provision`.") from None
    except AWAY as error:
        raise away(dsn, error) from None
