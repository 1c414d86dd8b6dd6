"""Publish what the outbox holds, in its order; a row goes only after Kafka has acknowledged its event."""

from __future__ import annotations

import threading
import time
from typing import Any

import msgspec
import psycopg
from confluent_kafka import KafkaException, Message, Producer

from hilum import bus, database, telemetry
from hilum.database import AWAY
from hilum.errors import TryAgain
from hilum.settings import Settings

BATCH = 500
POLL_S = 1.0
#: While there is always something new, it is said together so often: each time costs Kafka, and whoever reads it, what a single event
#: costs. What comes alone is said at once.
GATHER_S = 0.25
#: One publisher at a time, so that events go out in the order of the rows; the lock goes with its holder's connection.
_LOCK = "SELECT pg_try_advisory_lock(hashtext('hilum.outbox'))"
_ROWS = "SELECT id, topic, key, headers::text, value FROM outbox ORDER BY id LIMIT %s"

log = telemetry.logger("outbox")


class Outbox:
    """Publishes the outbox. An event may be said twice after a crash, with the same `ce_id`; it is never left out."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._connection: psycopg.Connection[Any] | None = None
        self._producer: Producer | None = None
        self._has_lock = False
        #: What it waits for, in words; empty if for nothing.
        self.says = ""

    def run(self, stop: threading.Event, settled: threading.Event) -> None:
        """Publish until `stop` is set; `settled` tells that there is something new."""
        while not stop.is_set():
            settled.clear()
            said_at = time.monotonic()
            try:
                published = self.publish(stop)
            except (*AWAY, TryAgain, KafkaException) as error:
                self._wait_for(error if isinstance(error, TryAgain) else bus.away(error) if isinstance(error, KafkaException) else None)
                self.close()
                stop.wait(POLL_S)
                continue
            self._wait_for(None)
            if published < BATCH:
                settled.wait(POLL_S)
                if published:
                    stop.wait(max(0.0, GATHER_S - (time.monotonic() - said_at)))
        self.close()

    def publish(self, stop: threading.Event) -> int:
        """Publish up to `BATCH` rows, if no other process does; how many that were.

        Raises one of `AWAY`, `TryAgain` or `KafkaException` if PostgreSQL or Kafka is away: then the rows stay.
        """
        if self._connection is None or self._connection.closed:
            self._connection = database.connect(self._settings.postgres.dsn, name="hilum outbox")
            self._has_lock = False
        if not self._has_lock:
            row = self._connection.execute(_LOCK).fetchone()
            self._has_lock = bool(row and row[0])
        if not self._has_lock:
            return 0
        rows = self._connection.execute(_ROWS, (BATCH,)).fetchall()
        if rows:
            self._say(rows, stop)
            with self._connection.transaction():
                self._connection.execute("SET LOCAL synchronous_commit = off")  # if it is lost, they are said again
                self._connection.execute("DELETE FROM outbox WHERE id = ANY(%s)", ([row[0] for row in rows],))
        return len(rows)

    def close(self) -> None:
        """Let go of connections and lock."""
        if self._producer is not None:
            self._producer.purge()
            self._producer.flush(1.0)
            self._producer = None
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._has_lock = False

    def _say(self, rows: list[tuple[Any, ...]], stop: threading.Event) -> None:
        if self._producer is None:
            self._producer = bus.producer(self._settings)
        failed: list[KafkaException] = []
        acknowledged = 0

        def answered(error: Any, _: Message) -> None:
            nonlocal acknowledged
            if error is None:
                acknowledged += 1
            else:
                failed.append(KafkaException(error))

        for _, topic, key, headers, value in rows:
            said: bus.Headers = [*msgspec.json.decode(headers, type=dict[str, str]).items()]
            self._producer.produce(topic, value=bytes(value), key=key, headers=said, on_delivery=answered)
        while acknowledged + len(failed) < len(rows):
            if self._producer.flush(2.0) and not failed:
                self._wait_for(TryAgain("Kafka does not acknowledge events."))
            if stop.is_set() and acknowledged + len(failed) < len(rows):
                raise TryAgain("Stopped before Kafka acknowledged the events.")
        if failed:
            raise failed[0]

    def _wait_for(self, error: Exception | None) -> None:
        says = str(error) if error else ""
        if says and not self.says:
            log.warning("outbox_waits", says=says)
        self.says = says
