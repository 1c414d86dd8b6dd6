"""The loop from Kafka into PostgreSQL: what a batch of events writes and how far it was read, in one transaction.

A handler is a class with a `name` and `apply`, whose signature is its wiring::

    class Ledger:
        name = "ledger"
        def apply(self, connection: Connection, events: Sequence[tuple[InstanceRouted, Envelope]]) -> None: ...

Where to read on stands in the table `consumer_offset`, never in Kafka. So a transaction that is lost takes its rows and its
offsets along, and the log is read again; therefore commits need not wait for the disk.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from datetime import UTC, datetime
from typing import Any, NamedTuple, Protocol, get_args, get_type_hints

import msgspec
import psycopg
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka._model import TopicCollection

from hilum import bus, telemetry
from hilum.database import AWAY, away, connect
from hilum.errors import Misconfigured, Reason, Stopped, TryAgain
from hilum.events import Event, decode, following_id
from hilum.role import Health
from hilum.settings import Settings

#: Events in one transaction, at most.
BATCH_EVENTS = 500
#: So many failing events in a row mean that the stage is broken, not the events.
TOO_MANY_FAILED = 100


class Envelope(NamedTuple):
    """What a message says beside its event: CloudEvents' `id` and `time`, and the trace it belongs to."""

    id: str
    time: datetime
    traceparent: str


class Tables(Protocol):
    """A handler. `events` in the signature of `apply` names the classes of events that it reads."""

    name: str

    @property
    def linger_s(self) -> float:
        """How long a batch may wait to grow: larger batches cost less, and show later."""
        ...

    def apply(self, connection: psycopg.Connection, events: Any) -> None:
        """Write what `events` (a sequence of pairs of event and envelope) say, in the open transaction.

        Must give the same rows whatever the order of events and however often one of them comes. Errors of an event's
        own make it wait in quarantine; it is found by trying smaller batches.
        """
        ...


class TableRole:
    """The role that feeds `tables` its events. Several may run: each has partitions of its own."""

    def __init__(self, settings: Settings, tables: Tables) -> None:
        self.name = tables.name
        self._settings = settings
        self._tables = tables
        self._kinds = {bus.topic_of(settings, kind): kind for kind in _events_of(tables)}
        self._health = Health(ready=False, says="starting")
        self._failed_in_a_row = 0

    def health(self) -> Health:
        """See `hilum.role.Role`."""
        return self._health

    def run(self, stop: threading.Event) -> None:
        """See `hilum.role.Role`."""
        log = telemetry.logger(self.name)
        while not stop.is_set():
            try:
                self._read(stop)
            except TryAgain as error:
                self._health = Health(ready=False, says=error.sentence)
                log.warning("waiting", says=str(error))
                telemetry.RETRIES.labels(self.name).inc()
                stop.wait(error.after_s)
            except _Overtaken as overtaken:
                log.info("partition_overtaken", topic=overtaken.topic, partition=overtaken.partition)
                telemetry.RESTARTS.labels(self.name).inc()

    def _read(self, stop: threading.Event) -> None:
        """Read from where the table says until `stop`, an outage, or another worker has taken over a partition of ours."""
        dsn = self._settings.postgres.dsn
        try:
            with connect(dsn, name=f"hilum {self.name}") as connection:
                connection.execute("SET synchronous_commit = off")  # rows and offsets are lost together or not at all
                with _Positions(self._settings, self.name, tuple(self._kinds), connection) as positions:
                    while not stop.is_set():
                        began = time.monotonic()
                        messages = positions.next_batch(self._tables.linger_s)
                        if messages or positions.moved:
                            self._write(connection, positions, messages)
                            telemetry.BATCH_SECONDS.labels(self.name).observe(time.monotonic() - began)
                        lag = positions.lag()
                        telemetry.LAG_EVENTS.labels(self.name).set(lag)
                        self._health = Health(ready=True, says=f"reading {positions.count} partitions", lag=lag)
        except AWAY as error:
            raise away(dsn, error) from None
        except KafkaException as error:
            raise bus.away(error) from None
        except psycopg.errors.ProgrammingError as error:
            raise Misconfigured(
                "database-tables", f"The tables of {self.name} cannot be written ({error.sqlstate}).", fix="Bring them up to date with `hilum provision`."
            ) from None

    def _write(self, connection: psycopg.Connection, positions: _Positions, messages: Sequence[Message]) -> None:
        """One transaction: offsets first, which also keeps out whoever else believes to have these partitions."""
        events, failed = self._decoded(messages)
        try:
            with connection.transaction():
                positions.advance(connection, messages)
                if events:
                    self._tables.apply(connection, events)
                self._set_aside(connection, failed)
        except _NOT_OF_AN_EVENT:
            raise
        except Exception:  # one of the events cannot be written; which one is found by writing them in smaller batches
            with connection.transaction():
                positions.advance(connection, messages)
                failed += self._apart(connection, events)
                self._set_aside(connection, failed)
        positions.advanced()
        self._failed_in_a_row = 0 if len(failed) < len(messages) else self._failed_in_a_row
        telemetry.EVENTS_CONSUMED.labels(self.name).inc(len(messages))

    def _decoded(self, messages: Sequence[Message]) -> tuple[list[_Pair], list[_Failed]]:
        events: list[_Pair] = []
        failed: list[_Failed] = []
        for message in messages:
            envelope = _envelope(message)
            try:
                events.append(_Pair(decode(self._kinds[message.topic() or ""], message.value() or b""), envelope, message))
            except msgspec.DecodeError as error:
                failed.append(_Failed(message, envelope, error))
        return events, failed
