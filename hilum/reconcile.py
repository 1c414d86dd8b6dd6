"""Account for every object: what the log, the object store, the index and the ledger know is held against each other.

Spool and ends of all topics are taken first; then index and ledger are waited for until they have passed these ends. Whatever one of
the four knows and another should know and does not is looked for a second time, once both have passed the ends of that moment: what was
merely on its way has arrived by then. What is still missing is `unaccounted`, and named.

That the store lists an object does not tell that it has its bytes. So a random sample is read back, a piece of each: without any memory
of earlier runs, 500 objects show with 99 % certainty that a hundredth is lost. `verify` reads every object whole, against its digest.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from hilum import bus
from hilum.account import Account
from hilum.caught_up import ends_of, wait_for
from hilum.database import AWAY, away, connect
from hilum.errors import Misconfigured, TryAgain
from hilum.events import (
    DeliverySettled,
    Event,
    InstanceReceived,
    MessageReceived,
    ObjectRef,
)
from hilum.readback import ReadBack, read_back
from hilum.settings import Settings
from hilum.spool import is_spool_file, received_at
from hilum.storage.records import EXPIRED
from hilum.store import open_store

__all__ = ["SAMPLE", "Account", "reconcile"]

#: Of each kind of gap, so many are named.
NAMED = 20
#: So many objects are read back at random; all if there are no more.
SAMPLE = 500
#: What cannot be read is read again after so long.
READ_AGAIN_S = 2.0
#: How long the second look may wait for index and ledger, at least.
SECOND_LOOK_S = 10.0

Say = Callable[[str], Any]


def reconcile(settings: Settings, *, wait_s: float = 60.0, verify: bool = False, progress: Say | None = None) -> Account:
    """Compare log, store, index and ledger. Reads the whole of three topics and lists the whole bucket; memory does not grow with them.

    Reads `SAMPLE` objects back, a piece of each; with `verify` every object whole, which takes as long as the store takes.
    `progress` is told in words what is done now. Raises `TryAgain` while Kafka, PostgreSQL or the store is away, `Misconfigured` if
    topics, tables or bucket were never made.
    """
    say = progress or (lambda _: None)
    began = datetime.now(UTC)
    dsn = settings.postgres.dsn
    try:
        # An object that is not in the spool now was on the log before the ends are taken.
        spooled, oldest_spooled = _spool(settings, began)
        say("Reading the ends of the topics")
        ends = ends_of(settings)
        with connect(dsn, name="hilum reconcile") as connection:
            say("Waiting for index and ledger")
            caught_up = wait_for(connection, settings, ends, wait_s)
            connection.execute(_TOLD.encode(), {"kept_since": began - _KEPT})
            say("Reading what was received on the log")
            _fill(connection, "logged_receipt", ("id", "instance"), _headers(settings, InstanceReceived, "ce_id", "ce_subject"))
            say("Reading what was settled on the log")
            _fill(connection, "logged_delivery", ("id",), _headers(settings, DeliverySettled, "ce_subject"))
            _fill(connection, "logged_message", ("id",), _headers(settings, MessageReceived, "ce_id"))
            say("Listing the object store")
            _fill(connection, "stored_object", ("id", "recent", "size_bytes"), _stored(settings, oldest_spooled))
            say("Comparing")
            missing = _missing(connection, settings, oldest_spooled)
            store = open_store(settings)
            read = read_back(store, _originals(connection, settings, verify), whole=verify, progress=_reading(connection, verify, say))
            if any(missing) and caught_up:
                say("Looking a second time at what is missing")
                caught_up = wait_for(connection, settings, ends_of(settings), max(SECOND_LOOK_S, wait_s))
            if read.unreadable:
                say("Reading a second time what cannot be read")
                time.sleep(READ_AGAIN_S)
                read.unreadable = read_back(store, read.unreadable, whole=verify).unreadable
            return _account(connection, settings, oldest_spooled, missing, caught_up, spooled, read)
    except psycopg.errors.UndefinedTable:
        raise Misconfigured("database-tables", "The database lacks tables of Hilum's.", fix="Make them with `hilum provision`.") from None
    except AWAY as error:
        raise away(dsn, error) from None
    except KafkaException as error:
        raise bus.away(error) from None


# The deliveries of which the log must say that they are settled: what is settled and not in the outbox now is there before it is read.
_TOLD = """
CREATE TEMP TABLE told_delivery AS SELECT delivery_id AS id FROM delivery
WHERE state <> 'pending' AND settled_at > %(kept_since)s AND NOT EXISTS (SELECT FROM outbox WHERE headers ->> 'ce_subject' = delivery_id)
"""
#: How long the topic of settled deliveries surely holds what was written.
_KEPT = timedelta(milliseconds=DeliverySettled.topic.retention_ms) - timedelta(days=1)

#: Each kind of gap: what it is, in a sentence for one of them, and the query that finds the ids of all. The first two are what stands
#: between expected deliveries and those in the ledger.
_GAPS: tuple[tuple[str, str], ...] = (
    (
        "delivery {} was decided on and is not in the ledger",
        """
        SELECT DISTINCT id FROM receipt, unnest(delivery_ids) AS id
        WHERE NOT EXISTS (SELECT FROM delivery WHERE delivery_id = id)
        """,
    ),
    (
        "delivery {} is in the ledger and nothing was decided on it",
        """
        SELECT delivery_id FROM delivery
        WHERE run = '' AND receipt <> ''
          AND NOT EXISTS (SELECT FROM receipt WHERE receipt.receipt = delivery.receipt AND delivery_id = ANY (delivery_ids))
        """,
    ),
    (
        "receipt {} is on the log and not in the index",
        """
        SELECT id || ' of instance ' || instance FROM logged_receipt
        WHERE NOT EXISTS (SELECT FROM receipt WHERE receipt = id AND received)
          AND NOT EXISTS (SELECT FROM quarantine WHERE input_id = id AND input_type = %(received)s)
        """,
    ),
    (
        "receipt {} is in the index, and that it was received is not",
        """
        SELECT receipt FROM receipt
        WHERE NOT received AND NOT EXISTS (SELECT FROM quarantine WHERE input_id = receipt.receipt AND input_type = %(received)s)
        """,
    ),
    (
        "receipt {} was accepted and its instance is not in the index",
        """
        SELECT receipt FROM receipt
        WHERE accepted_at IS NOT NULL AND NOT EXISTS (SELECT FROM instance WHERE instance.sop_instance_uid = receipt.sop_instance_uid)
          AND NOT EXISTS (SELECT FROM deidentified AS d WHERE d.sent_as = receipt.sop_instance_uid AND d.sent_as <> d.sop_instance_uid)
        """,
    ),
    (
        "object {} is in the object store, and neither on the log nor in the index",
        """
        SELECT id FROM stored_object
        WHERE recent = 'f' AND NOT EXISTS (SELECT FROM receipt WHERE object_key = id AND bucket = %(bucket)s)
        """,
    ),
    (
        "object {} was received and is no longer in the object store",
        """
        SELECT DISTINCT object_key FROM receipt
        WHERE received AND received_at < %(spooled_since)s AND bucket = %(bucket)s
          AND NOT EXISTS (SELECT FROM stored_object WHERE id = object_key) AND NOT """
        + EXPIRED.format("receipt"),
    ),
    (
        "delivery {} is settled in the ledger and the log does not say so",
        """
        SELECT id FROM told_delivery
        WHERE NOT EXISTS (SELECT FROM logged_delivery WHERE logged_delivery.id = told_delivery.id)
        """,
    ),
    (
        "run {}",
        """
        SELECT run || ' asked for ' || deliveries || ' deliveries, and the ledger has ' || here FROM delivery_run,
            LATERAL (SELECT count(*) AS here FROM delivery WHERE delivery.run = delivery_run.run AND delivery.run <> '') AS entered
        WHERE deliveries <> here
        """,
    ),
    (
        "delivery {} is in the ledger and its run is not",
        "SELECT delivery_id FROM delivery WHERE run <> '' AND NOT EXISTS (SELECT FROM delivery_run WHERE delivery_run.run = delivery.run)",
    ),
    (
        "message {} is on the log and not in the index",
        """
        SELECT id FROM logged_message
        WHERE NOT EXISTS (SELECT FROM hl7_message WHERE message_id = id)
          AND NOT EXISTS (SELECT FROM quarantine WHERE input_id = id AND input_type = %(messages)s)
        """,
    ),
)

#: The same of what was read back.
_UNREADABLE = "object {} cannot be read"
_CHANGED = "object {} is not what was received: its digest differs"
_DAMAGED = "the spool file {} is damaged, or no spool file: see docs/operations/running.md"

_ORIGINALS = """
SELECT id, size_bytes, sha256 FROM {originals} AS original
LEFT JOIN (SELECT DISTINCT ON (object_key) object_key, sha256 FROM receipt WHERE bucket = %(bucket)s) AS receipt ON object_key = id
"""

# An event that the index itself could not read has no receipt; it counts as received and quarantined all the same.
_COUNTS = """
WITH unread AS (
    SELECT count(DISTINCT input_id) AS events FROM quarantine
    WHERE stage = 'index' AND input_type = %(received)s AND NOT EXISTS (SELECT FROM receipt WHERE receipt.receipt = input_id))
SELECT count(*) FILTER (WHERE received) + (SELECT events FROM unread),
       count(*) FILTER (WHERE accepted_at IS NOT NULL),
       count(*) FILTER (WHERE decision IS NULL AND quarantine_reason IS NOT NULL) + (SELECT events FROM unread),
       count(*) FILTER (WHERE decision = 'duplicate'),
       count(*) FILTER (WHERE decision IS NULL AND quarantine_reason IS NULL),
       count(*) FILTER (WHERE decision IN ('deliver', 'corrected')),
       count(*) FILTER (WHERE decision = 'no-rule'),
       count(*) FILTER (WHERE decision = 'waits'),
       count(*) FILTER (WHERE decision = 'waits' AND study_instance_uid IN (
           SELECT study_instance_uid FROM study_state WHERE says IS NOT NULL)),
       count(*) FILTER (WHERE decision = 'returned'),
       count(*) FILTER (WHERE decision = 'ignored'),
       count(*) FILTER (WHERE decision = 'withdrawn'),
       count(*) FILTER (WHERE decision = 'held'),
       (SELECT count(*) FROM failed_rule),
       (SELECT count(DISTINCT id) FROM receipt, unnest(delivery_ids) AS id)
           + (SELECT coalesce(sum(deliveries), 0)::bigint FROM delivery_run),
       (SELECT count(*) FROM expiry WHERE {expired})
FROM receipt
""".format(expired=EXPIRED.format("expiry"))

#: Those fields of an `Account` that `_COUNTS` gives, in its order.
_COUNTED = (
    *("received", "accepted", "quarantined", "duplicates", "undecided", "routed", "unrouted", "waiting", "stuck"),
    *("sent_back", "ignored", "withdrawn", "held", "failing", "expected_deliveries", "expired"),
)
_STATES = ("delivered", "already_there", "returned", "rejected", "cancelled", "pending", "parked")


def _missing(connection: psycopg.Connection, settings: Settings, spooled_since: datetime) -> list[set[str]]:
    """The ids that each of `_GAPS` finds."""
    received, messages = bus.topic_of(settings, InstanceReceived), bus.topic_of(settings, MessageReceived)
    values = {"spooled_since": spooled_since, "bucket": settings.s3.bucket, "received": received, "messages": messages}
    return [{identity for (identity,) in connection.execute(query.encode(), values)} for _, query in _GAPS]


def _originals(connection: psycopg.Connection, settings: Settings, verify: bool) -> Iterator[ObjectRef]:
    """The stored objects, with the digests that the index knows: all to `verify`, else `SAMPLE` of them at random."""
    sample = f"(SELECT * FROM stored_object ORDER BY random() LIMIT {SAMPLE})"
    query = _ORIGINALS.format(originals="stored_object" if verify else sample)
    with connection.cursor("originals", withhold=True) as cursor:  # no transaction is open while they are read
        cursor.itersize = 1000
        for key, size_bytes, sha256 in cursor.execute(query.encode(), {"bucket": settings.s3.bucket}):
            yield ObjectRef(bucket=settings.s3.bucket, key=key, size_bytes=int(size_bytes), sha256=sha256 or "")


def _reading(connection: psycopg.Connection, verify: bool, say: Say) -> Callable[[int], None]:
    total = _stored_count(connection) if verify else min(SAMPLE, _stored_count(connection))
    return lambda read: say(f"Reading objects{' whole' * verify}: {read:,} of {total:,}")


def _stored_count(connection: psycopg.Connection) -> int:
    [(count,)] = connection.execute("SELECT count(*) FROM stored_object").fetchall()
    return int(count)


def _account(
    connection: psycopg.Connection,
    settings: Settings,
    spooled_since: datetime,
    missing: list[set[str]],
    caught_up: bool,
    spooled: int,
    read: ReadBack,
) -> Account:
    """Count, and look again for what is missing, in one moment of the database."""
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        now_missing = _missing(connection, settings, spooled_since)
        [counted] = connection.execute(_COUNTS.encode(), {"received": bus.topic_of(settings, InstanceReceived)}).fetchall()
        counts: dict[str, int] = dict(zip(_COUNTED, counted, strict=True))
        [(messages,)] = connection.execute("SELECT count(*) FROM logged_message").fetchall()
        destinations: dict[str, dict[str, int]] = {}
        messages_to: dict[str, dict[str, int]] = {}
        for of_message, name, state, count in connection.execute(
            "SELECT receipt = '', destination, state, count(*) FROM delivery GROUP BY 1, 2, 3 ORDER BY destination, state"
        ):
            (messages_to if of_message else destinations).setdefault(name, {})[state] = count
    states = {state: sum(each.get(state, 0) for each in destinations.values()) for state in _STATES}
    states["pending"] += states["parked"]  # these need a person, and have no final state either
    gaps = [sentence for sentence, _ in _GAPS] + [_UNREADABLE, _CHANGED, _DAMAGED]
    lost = [first & second for first, second in zip(missing, now_missing, strict=True)]
    lost += [_unexpired(connection, read.unreadable), {ref.key for ref in read.changed}, _damaged(settings)]
    # What was decided on a moment ago may be in one of ledger and index before it is in the other.
    states["pending"] += len(now_missing[0] - lost[0])
    counts["expected_deliveries"] += len(now_missing[1] - lost[1])
    return Account(
        **counts,
        **states,
        unaccounted=sum(map(len, lost)),
        caught_up=caught_up,
        spooled=spooled,
        stored=_stored_count(connection),
        read=read.read,
        details=tuple(sentence.format(identity) for sentence, ids in zip(gaps, lost, strict=True) for identity in sorted(ids)[:NAMED]),
        destinations=destinations,
        messages=messages,
        messages_pending=sum(each.get("pending", 0) + each.get("parked", 0) for each in messages_to.values()),
        messages_parked=sum(each.get("parked", 0) for each in messages_to.values()),
        messages_to=messages_to,
    )


def _unexpired(connection: psycopg.Connection, objects: Sequence[ObjectRef]) -> set[str]:
    """The keys of those of these that did not expire since they were listed."""
    keys = {ref.key for ref in objects}
    expired = connection.execute("SELECT object_key FROM expiry WHERE object_key = ANY (%s)", (list(keys),))
    return keys - {key for (key,) in expired}


def _spool(settings: Settings, now: datetime) -> tuple[int, datetime]:
    """How many objects are in this machine's spool, and since when (at least now): what came since may not be on the log yet."""
    since, count = now, 0
    folder = settings.spool_dir / "objects"
    for path in folder.glob("*.dcm") if folder.is_dir() else ():
        count += 1
        with suppress(ValueError):  # a file that is no arrival delays nothing
            since = min(since, received_at(path.stem))
    return count, since


def _damaged(settings: Settings) -> set[str]:
    """Files in this machine's spool that cannot be published: each may be an object that was acknowledged."""
    folder = settings.spool_dir / "objects"
    return {path.name for path in folder.iterdir() if not is_spool_file(path)} if folder.is_dir() else set()


def _headers(settings: Settings, kind: type[Event], *names: str) -> Iterator[tuple[str, ...]]:
    """These headers of each committed event on the topic of `kind`, at least to the end that it has now."""
    topic = bus.topic_of(settings, kind)
    # At the end of a partition a broker waits whether more comes, for half a second unless told otherwise.
    consumer = bus.consumer(settings, "hilum-reconcile", **{"enable.partition.eof": True, "fetch.wait.max.ms": 20})
    try:
        starts, ends = [], {}
        for partition in range(bus.partition_counts(consumer, [topic])[topic]):
            bounds = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=10)
            if bounds is None:
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
            starts.append(TopicPartition(topic, partition, bounds[0]))
            ends[partition] = bounds[1]
        consumer.assign(starts)
        heard = time.monotonic()
        while ends:
            for message in bus.taken(consumer, 5000, 0.1):
                heard = time.monotonic()
                partition, offset, error = message.partition() or 0, message.offset() or 0, message.error()
                if error is not None and error.code() != KafkaError._PARTITION_EOF:
                    raise KafkaException(error)
                if error is None:  # one without a header is named as the index names it
                    headers = bus.headers_of(message)
                    instead = f"{topic}/{partition}/{offset}"
                    yield tuple((headers.get(name) or b"").decode("utf-8", "replace") or instead for name in names)
                # While events come in there is no end to be told of; where they end in what ends a transaction, no event is the last.
                if error is not None or offset >= ends.get(partition, offset) - 1:
                    ends.pop(partition, None)
            if time.monotonic() - heard > 60:
                raise TryAgain(f"{topic} cannot be read to its end.", fix="Check that the broker runs.")
    finally:
        consumer.close()


def _stored(settings: Settings, spooled_since: datetime) -> Iterator[tuple[str, str, str]]:
    """Key of each original, whether it is so recent (`t` or `f`) that the log may not have it yet, and the file's size in bytes."""
    recent_from = spooled_since - timedelta(seconds=2)  # the store's times are whole seconds
    for found in open_store(settings).list(settings.s3.bucket):
        if found.key.endswith(".dcm"):  # beside them are headers
            yield found.key, "t" if found.modified_at > recent_from else "f", str(found.size_bytes)


def _fill(connection: psycopg.Connection, table: str, columns: Sequence[str], rows: Iterable[tuple[str, ...]]) -> None:
    """A temporary table of these texts, each row once."""
    connection.execute(f"CREATE TEMP TABLE {table}_read ({', '.join(f'{column} text' for column in columns)})".encode())
    with connection.cursor() as cursor, cursor.copy(f"COPY {table}_read FROM STDIN".encode()) as copy:
        for row in rows:
            copy.write_row([text.replace("\0", "") for text in row])
    connection.execute(f"CREATE TEMP TABLE {table} AS SELECT DISTINCT * FROM {table}_read".encode())
    connection.execute(f"DROP TABLE {table}_read".encode())
    connection.execute(f"ANALYZE {table}".encode())
