"""Account for every object: what the log, the object store, the index and the ledger know is held against each other.

The ends of all topics are taken first; then index and ledger are waited for until they have passed them. Whatever one of the
four knows and the others should know and do not is `unaccounted`, and named.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import OffsetSpec  # type: ignore[attr-defined]  # it has no __all__
from msgspec import Struct

from hilum import bus
from hilum.database import AWAY, away, connect
from hilum.errors import TryAgain
from hilum.events import (
    DeliverySettled,
    Event,
    InstanceAccepted,
    InstanceQuarantined,
    InstanceReceived,
    InstanceRouted,
)
from hilum.settings import Settings
from hilum.store import open_store

#: Who must have read what before anything is compared.
READERS: dict[str, tuple[type[Event], ...]] = {
    "index": (InstanceReceived, InstanceAccepted, InstanceQuarantined, InstanceRouted),
    "ledger": (InstanceRouted,),
}
#: Of each kind of gap, so many are named.
NAMED = 20

Say = Callable[[str], Any]


class Account(Struct, frozen=True, kw_only=True):
    """What `hilum reconcile` says. Objects are counted by receipt: each arrival counts."""

    received: int
    accepted: int
    quarantined: int
    duplicates: int
    undecided: int
    expected_deliveries: int
    delivered: int
    already_there: int
    returned: int
    rejected: int
    cancelled: int
    pending: int
    unaccounted: int
    #: Whether index and ledger had passed the ends of their topics; if not, what is missing may merely be late.
    caught_up: bool
    #: Objects in this machine's spool: acknowledged, safe, and not on the log yet.
    spooled: int
    #: One sentence for each gap, by UID or id; the first ones of each kind.
    details: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether everything is accounted for and decided on, so that `hilum reconcile` exits with 0."""
        return self.unaccounted == 0 and self.undecided == 0 and self.caught_up

    def counts(self) -> dict[str, int]:
        """The numbers, in their order."""
        return {name: value for name in self.__struct_fields__ if type(value := getattr(self, name)) is int}


def reconcile(settings: Settings, *, wait_s: float = 60.0, progress: Say | None = None) -> Account:
    """Compare log, store, index and ledger.

    `progress` is told in words what is done now. Raises `TryAgain` while Kafka, PostgreSQL or the store is away.
    """
    say = progress or (lambda _: None)
    began = datetime.now(UTC)
    dsn = settings.postgres.dsn
    try:
        say("Reading the ends of the topics")
        ends = _ends(settings)
        with connect(dsn, name="hilum reconcile") as connection:
            say("Waiting for index and ledger")
            caught_up = _wait(connection, settings, ends, wait_s)
            spooled, oldest_spooled = _spool(settings, began)
            say("Reading what was received on the log")
            _fill(connection, "logged_receipt", (row[0] for row in _subjects(settings, InstanceReceived, "ce_id")))
            say("Reading what was settled on the log")
            _fill(connection, "logged_delivery", (row[0] for row in _subjects(settings, DeliverySettled, "ce_subject")))
            say("Listing the object store")
            _fill(connection, "stored_object", _stored(settings, min(began, oldest_spooled)))
            say("Comparing")
            return _compare(connection, settings, caught_up, spooled, began)
    except AWAY as error:
        raise away(dsn, error) from None
    except KafkaException as error:
        raise bus.away(error) from None


#: Each kind of gap: what it is, in a sentence for one of them, and the query that finds them all.
_GAPS: tuple[tuple[str, str], ...] = (
    (
        "receipt {} is on the log and not in the index",
        "SELECT id FROM logged_receipt l WHERE NOT EXISTS (SELECT 1 FROM receipt r WHERE r.receipt = l.id AND r.received)",
    ),
    (
        "object {} is in the object store, and neither on the log nor in the index",
        "SELECT id FROM stored_object o WHERE NOT EXISTS (SELECT 1 FROM receipt r WHERE r.object_key = o.id)",
    ),
    (
        "object {} was received and is no longer in the object store",
        """
        SELECT DISTINCT object_key FROM receipt r WHERE received AND received_at < %(began)s AND bucket = %(bucket)s
            AND NOT EXISTS (SELECT 1 FROM stored_object o WHERE o.id = r.object_key)
            AND NOT EXISTS (SELECT 1 FROM recent_object o WHERE o.id = r.object_key)
        """,
    ),
    (
        "delivery {} was decided on and is not in the ledger",
        "SELECT id FROM receipt r, unnest(r.delivery_ids) AS id WHERE NOT EXISTS (SELECT 1 FROM delivery d WHERE d.delivery_id = id)",
    ),
    (
        "delivery {} is in the ledger and nothing was decided on it",
        """
        SELECT delivery_id FROM delivery d
        WHERE NOT EXISTS (SELECT 1 FROM receipt r WHERE r.receipt = d.receipt AND d.delivery_id = ANY(r.delivery_ids))
        """,
    ),
    (
        "delivery {} is settled in the ledger and the log does not say so",
        """
        SELECT delivery_id FROM delivery d WHERE state <> 'pending' AND settled_at > %(kept_since)s AND settled_at < %(began)s
            AND NOT EXISTS (SELECT 1 FROM logged_delivery l WHERE l.id = d.delivery_id)
            AND NOT EXISTS (SELECT 1 FROM outbox o WHERE o.headers ->> 'ce_subject' = d.delivery_id)
        """,
    ),
)

_COUNTS = """
    SELECT count(*) FILTER (WHERE received) AS received,
        count(*) FILTER (WHERE accepted_at IS NOT NULL) AS accepted,
        count(*) FILTER (WHERE decision IS NULL AND quarantine_reason IS NOT NULL) AS quarantined,
        count(*) FILTER (WHERE decision = 'duplicate') AS duplicates,
        count(*) FILTER (WHERE decision IS NULL AND quarantine_reason IS NULL) AS undecided,
        coalesce(sum(expected_deliveries), 0)::bigint AS expected_deliveries
    FROM receipt
"""


def _compare(connection: psycopg.Connection[Any], settings: Settings, caught_up: bool, spooled: int, began: datetime) -> Account:
    retention = timedelta(milliseconds=DeliverySettled.topic.retention_ms)
    parameters = {"began": began, "bucket": settings.s3.bucket, "kept_since": began - retention + timedelta(days=1)}
    details: list[str] = []
    unaccounted = 0
    for sentence, query in _GAPS:
        found = connection.execute(query.encode(), parameters).fetchall()
        unaccounted += len(found)
        details += [sentence.format(identity) for (identity,) in found[:NAMED]]
    counted = connection.execute(_COUNTS).fetchone()
    assert counted is not None  # an aggregate has one row
    received, accepted, quarantined, duplicates, undecided, expected = counted
    states = dict(connection.execute("SELECT state, count(*) FROM delivery GROUP BY state").fetchall())
    return Account(
        received=received,
        accepted=accepted,
        quarantined=quarantined,
        duplicates=duplicates,
        undecided=undecided,
        expected_deliveries=expected,
        **{state: states.get(state, 0) for state in ("delivered", "already_there", "returned", "rejected", "cancelled", "pending")},
        unaccounted=unaccounted,
        caught_up=caught_up,
        spooled=spooled,
        details=tuple(details),
    )


def _ends(settings: Settings) -> dict[tuple[str, int], int]:
    """Where each partition of the topics that `READERS` read ends: the offset of the next message."""
    kinds = {kind for reads in READERS.values() for kind in reads}
    admin = bus.admin(settings)
    wanted = {}
    for kind in kinds:
        topic = bus.topic_of(settings, kind)
        found = admin.list_topics(topic, timeout=10).topics[topic]
        if found.error is not None:
            raise KafkaException(found.error)
        for partition in found.partitions:
            wanted[TopicPartition(topic, partition)] = OffsetSpec.latest()  # type: ignore[no-untyped-call]  # untyped there
    futures = admin.list_offsets(wanted, request_timeout=10)
    return {(at.topic, at.partition): future.result().offset for at, future in futures.items()}


def _wait(connection: psycopg.Connection[Any], settings: Settings, ends: dict[tuple[str, int], int], wait_s: float) -> bool:
    """Whether index and ledger have passed `ends` within `wait_s`."""
    topics = {reader: {bus.topic_of(settings, kind) for kind in kinds} for reader, kinds in READERS.items()}
    deadline = time.monotonic() + wait_s
    while True:
        rows = connection.execute(
            "SELECT group_name, topic, partition, next_offset FROM consumer_offset WHERE group_name = ANY(%s)", (list(READERS),)
        ).fetchall()
        read = {(group, topic, partition): offset for group, topic, partition, offset in rows}
        behind = [
            (reader, *at)
            for reader, names in topics.items()
            for at, end in ends.items()
            if at[0] in names and end > 0 and read.get((reader, *at), 0) < end
        ]
        if not behind:
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)


def _spool(settings: Settings, now: datetime) -> tuple[int, datetime]:
    """How many objects are in this machine's spool, and since when the oldest is: what is stored since may not be on the log yet."""
    from hilum.spool import received_at

    folder = settings.spool_dir / "new"
    receipts = sorted(path.stem for path in folder.glob("*.dcm")) if folder.is_dir() else []
    return len(receipts), received_at(receipts[0]) if receipts else now


def _subjects(settings: Settings, kind: type[Event], header: str) -> Iterator[tuple[str]]:
    """That header of each committed event on the topic of `kind`, to the end that it had when reading began."""
    topic = bus.topic_of(settings, kind)
    consumer = bus.consumer(settings, "hilum-reconcile", **{"enable.partition.eof": True})
    try:
        partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
        starts = [TopicPartition(topic, number) for number in partitions]
        for start in starts:
            bounds = consumer.get_watermark_offsets(start, timeout=10)
            if bounds is None:
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
            start.offset = bounds[0]
        consumer.assign(starts)
        left = set(partitions)
        deadline = time.monotonic() + 60
        while left:
            for message in consumer.consume(5000, 0.5):
                error = message.error()
                if error is None:
                    deadline = time.monotonic() + 60
                    yield (bus.headers_of(message)[header].decode(),)
                elif error.code() == KafkaError._PARTITION_EOF:
                    left.discard(message.partition())
                else:
                    raise KafkaException(error)
            if time.monotonic() > deadline:
                raise TryAgain(f"{topic} cannot be read to its end.", fix="Check that the broker runs.")
    finally:
        consumer.close()


def _stored(settings: Settings, before: datetime) -> Iterator[tuple[str, bool]]:
    """Key of each original, and whether it is so recent that the log may not have it yet. Headers beside objects are left out."""
    margin = timedelta(seconds=2)  # the store's times are whole seconds
    for found in open_store(settings).list(settings.s3.bucket):
        if found.key.endswith(".dcm"):
            yield found.key, found.modified_at > before - margin


def _fill(connection: psycopg.Connection[Any], table: str, rows: Iterable[Any]) -> None:
    """A temporary table of distinct ids, with memory that does not grow with their number; recent ones apart."""
    connection.execute(f"CREATE TEMP TABLE {table}_all (id text, recent boolean)".encode())
    with connection.cursor() as cursor, cursor.copy(f"COPY {table}_all FROM STDIN".encode()) as copy:
        for row in rows:
            copy.write_row(row if isinstance(row, tuple) else (row, False))
    connection.execute(f"CREATE TEMP TABLE {table} AS SELECT DISTINCT id FROM {table}_all WHERE NOT recent".encode())
    if table == "stored_object":
        connection.execute("CREATE TEMP TABLE recent_object AS SELECT DISTINCT id FROM stored_object_all WHERE recent")
    connection.execute(f"CREATE INDEX ON {table} (id)".encode())
    connection.execute(f"ANALYZE {table}".encode())
