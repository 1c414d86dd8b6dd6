"""The loop from Kafka into PostgreSQL: what a batch of events writes and how far it was read, in one transaction.

A handler is a class with `name`, `apart_s` and `apply`, whose signature is its wiring::

    class Ledger:
        name = "ledger"
        apart_s = 0.05
        def apply(self, connection: Connection, events: Sequence[tuple[InstanceRouted, Envelope]]) -> None: ...

Where to read on stands in PostgreSQL, never in Kafka. So a transaction that a crash undoes takes its rows and its offsets along, and
the log is read again; that is why a commit need not wait for the disk.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from types import UnionType
from typing import Any, NamedTuple, Protocol, Union, get_args, get_origin, get_type_hints

import msgspec
import psycopg
from confluent_kafka import KafkaException, Message

from hilum import bus, telemetry
from hilum.database import AWAY, away, connect
from hilum.database.quarantine import QuarantineRow, insert_quarantine
from hilum.errors import HilumError, Misconfigured, Quarantine, Reason, Stopped, TryAgain
from hilum.events import Event, decode, following_id
from hilum.role import Health
from hilum.runtime.positions import Overtaken, Positions
from hilum.settings import Settings

#: Events in one transaction, at most.
BATCH_EVENTS = 500
#: So many failing events, and none between them that does not fail, mean that the stage is broken and not the events.
TOO_MANY_FAILED = 100


class Envelope(NamedTuple):
    """What a message says beside its event: CloudEvents' `id` and `time`, and the W3C trace it belongs to."""

    id: str
    time: datetime
    traceparent: str


class Tables(Protocol):
    """A handler. The hint of `events` in `apply` names the classes of events that it reads."""

    name: str
    #: Least time between two transactions, in seconds: larger batches cost less and show later.
    apart_s: float

    def apply(self, connection: psycopg.Connection, events: Any) -> None:
        """Write what `events`, a sequence of pairs of event and envelope, say, in the open transaction.

        Must give the same rows whatever the order of events and however often one comes. If it raises an error that is
        neither the database's outage nor `TryAgain`, smaller batches are tried, and the event at fault waits in quarantine.
        """
        ...


class TableRole:
    """The role that feeds `tables` its events. Several may run: each has partitions of its own."""

    def __init__(self, settings: Settings, tables: Tables) -> None:
        self.name = tables.name
        self._settings = settings
        self._tables = tables
        self._kinds = {bus.topic_of(settings, kind): kind for kind in events_of(tables)}
        self._health = Health(ready=False, says="starting")
        self._log = telemetry.logger(self.name)
        self._failed_in_a_row = 0

    def health(self) -> Health:
        """See `hilum.role.Role`."""
        return self._health

    def run(self, stop: threading.Event) -> None:
        """See `hilum.role.Role`."""
        while not stop.is_set():
            try:
                self._read(stop)
            except TryAgain as error:
                self._health = Health(ready=False, says=error.sentence)
                self._log.warning("waiting", says=str(error))
                telemetry.RETRIES.labels(self.name).inc()
                stop.wait(error.after_s)
            except Overtaken as overtaken:
                self._log.info("partition_overtaken", topic=overtaken.topic, partition=overtaken.partition)
                telemetry.RESTARTS.labels(self.name).inc()

    def between(self, connection: psycopg.Connection) -> None:
        """What is to be done between two batches, also while nothing comes."""

    def _read(self, stop: threading.Event) -> None:
        """Read on until `stop`, an outage, or another worker's having a partition of ours."""
        dsn = self._settings.postgres.dsn
        try:
            with connect(dsn, name=f"hilum {self.name}") as connection:
                connection.execute("SET synchronous_commit = off")
                connection.execute("SET lock_timeout = '10s'")
                with Positions(self._settings, self.name, tuple(self._kinds), connection) as positions:
                    while not stop.is_set():
                        self.between(connection)
                        messages = positions.next_batch(self._tables.apart_s, BATCH_EVENTS)
                        if positions.moved:
                            self._write(connection, positions, messages)
                        self._report(positions)
        except AWAY as error:
            raise away(dsn, error) from None
        except psycopg.ProgrammingError as error:
            raise Misconfigured(
                "database-tables",
                f"The tables of {self.name} cannot be written ({error.sqlstate}).",
                fix="Bring them up to date with `hilum provision`.",
            ) from None
        except KafkaException as error:
            raise bus.away(error) from None

    def _write(self, connection: psycopg.Connection, positions: Positions, messages: Sequence[Message]) -> None:
        """One transaction. The offsets come first: they keep out whoever else believes to have these partitions."""
        began = time.monotonic()
        failed: list[_Failed] = []
        events = self._decoded(messages, failed)
        undecodable = len(failed)
        try:
            with connection.transaction():
                positions.advance()
                self._apply(connection, events)
                self._set_aside(connection, failed)
        except Exception as error:
            if not _is_of_an_event(error):
                raise
            del failed[undecodable:]
            with connection.transaction():
                positions.advance()
                self._apply_apart(connection, events, failed)
                self._stop_if_broken(failed, len(messages))
                self._set_aside(connection, failed)
        positions.advanced()
        telemetry.BATCH_SECONDS.labels(self.name).observe(time.monotonic() - began)
        telemetry.EVENTS_CONSUMED.labels(self.name).inc(len(messages))

    def _decoded(self, messages: Sequence[Message], failed: list[_Failed]) -> list[_Read]:
        """The events in `messages`; those that cannot be decoded are added to `failed`."""
        events = []
        for message in messages:
            envelope = _envelope(message)
            try:
                events.append(_Read(decode(self._kinds[message.topic() or ""], message.value() or b""), envelope, message))
            except msgspec.DecodeError as error:
                failed.append(_Failed(message, envelope, error))
        return events

    def _apply(self, connection: psycopg.Connection, events: Sequence[_Read]) -> None:
        if events:
            self._tables.apply(connection, [(read.event, read.envelope) for read in events])

    def _apply_apart(self, connection: psycopg.Connection, events: Sequence[_Read], failed: list[_Failed]) -> None:
        """Write what can be written, by halves; the events that cannot are added to `failed`."""
        try:
            with connection.transaction():  # a savepoint
                self._apply(connection, events)
        except Exception as error:
            if not _is_of_an_event(error):
                raise
            if len(events) == 1:
                failed.append(_Failed(events[0].message, events[0].envelope, error))
                return
            half = len(events) // 2
            self._apply_apart(connection, events[:half], failed)
            self._apply_apart(connection, events[half:], failed)

    def _stop_if_broken(self, failed: Sequence[_Failed], total: int) -> None:
        self._failed_in_a_row = self._failed_in_a_row + len(failed) if len(failed) == total else 0
        if self._failed_in_a_row >= TOO_MANY_FAILED:
            raise Stopped(
                f"{self.name} fails on every event ({self._failed_in_a_row} in a row, last: {telemetry.described(failed[-1].error)}).",
                fix="This is a fault of the stage, not of the events: report it. Nothing of these events was set aside.",
            )

    def _set_aside(self, connection: psycopg.Connection, failed: Sequence[_Failed]) -> None:
        rows = [each.row(self.name) for each in failed]
        insert_quarantine(connection, rows)
        for each, row in zip(failed, rows, strict=True):
            self._log.error("event_set_aside", event_id=row.input_id, reason=row.reason, error=each.error)
            telemetry.EVENTS_QUARANTINED.labels(self.name, row.reason).inc()

    def _report(self, positions: Positions) -> None:
        lag = positions.lag()
        telemetry.LAG_EVENTS.labels(self.name).set(lag)
        if away_because := positions.away():
            self._health = Health(ready=False, says=f"Kafka does not answer ({away_because})", lag=lag)
        elif not positions.joined:
            self._health = Health(ready=False, says="joining its group")
        elif not positions.count:
            self._health = Health(ready=True, says="spare: there are more workers than partitions", lag=0)
        else:
            self._health = Health(ready=True, says=f"reads {positions.count} partitions", lag=lag)


class _Read(NamedTuple):
    event: Event
    envelope: Envelope
    message: Message


class _Failed(NamedTuple):
    message: Message
    envelope: Envelope
    error: Exception

    def row(self, stage: str) -> QuarantineRow:
        topic, partition, offset = self.message.topic() or "", self.message.partition(), self.message.offset()
        if isinstance(self.error, Quarantine):
            reason, sentence, fix = self.error.reason, self.error.sentence, self.error.fix
            found, expected = self.error.found, self.error.expected
        else:
            reason = Reason.PROCESSING_FAILED
            sentence = f"{stage} cannot write the event at offset {offset} of {topic}, partition {partition}."
            fix, found, expected = reason.fix, f"{type(self.error).__name__}: {self.error}", ""
        input_id = self.envelope.id or f"{topic}/{partition}/{offset}"
        return QuarantineRow(
            event_id=following_id(input_id, stage, 0),
            receipt=None,
            study_instance_uid=None,
            series_instance_uid=None,
            sop_instance_uid=None,
            stage=stage,
            reason=reason,
            sentence=sentence,
            fix=fix,
            found=found,
            expected=expected,
            quarantined_at=datetime.now(UTC),
            input_type=topic,
            input_id=input_id,
            input=self.message.value() or b"",
        )


def events_of(tables: Tables) -> tuple[type[Event], ...]:
    """The classes of events that a handler reads, from the hint of `events` in the signature of `apply`."""
    pair = get_args(get_type_hints(tables.apply)["events"])[0]
    event = get_args(pair)[0]
    return get_args(event) if get_origin(event) in (Union, UnionType) else (event,)


_OF_AN_EVENT = (
    psycopg.DataError,
    psycopg.IntegrityError,
    psycopg.errors.ProgramLimitExceeded,
    psycopg.errors.StatementTooComplex,
    Quarantine,
)


def _is_of_an_event(error: Exception) -> bool:
    """Whether trying again with fewer events can help: not if the database or a setting is at fault."""
    return isinstance(error, _OF_AN_EVENT) or not isinstance(error, psycopg.Error | KafkaException | HilumError | Overtaken)


def _envelope(message: Message) -> Envelope:
    headers = bus.headers_of(message)

    def text(name: str) -> str:
        return (headers.get(name) or b"").decode("utf-8", "replace")

    try:
        said = datetime.fromisoformat(text("ce_time"))
        when = said if said.tzinfo else said.replace(tzinfo=UTC)
    except ValueError:
        when = datetime.fromtimestamp(message.timestamp()[1] / 1000, UTC)
    return Envelope(text("ce_id"), when, text("traceparent"))
