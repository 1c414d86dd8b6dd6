"""The hospital with real books: the index and the ledger in PostgreSQL, which read what the stage says, each at its own pace."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import psycopg
from msgspec import Raw
from psycopg import sql

from hilum import bus, reconcile
from hilum.account import Account
from hilum.database import connect
from hilum.database.known import IndexedInstances
from hilum.events import (
    Event,
    InputEvent,
    InstanceAccepted,
    InstanceQuarantined,
    InstanceReceived,
    InstanceRouted,
    StudyCommand,
    StudyExpected,
)
from hilum.readback import ReadBack
from hilum.runtime.delivery.outcomes import Outcome
from hilum.runtime.delivery.queue import Queue
from hilum.runtime.tables import Envelope, events_of
from hilum.settings import S3, Settings
from hilum.sink import Delivery
from processors.index import Index as Indexing
from processors.ledger import Ledger
from processors.route import Route
from tests.processors.route.hospital import ByName, FixedRules, Hospital

_EVERYTHING = 10**6
_READ = events_of(Indexing())


class Books(Hospital):
    """What was said stands in `untold` until the index has read it, and in `unentered` until the ledger has."""

    def __init__(self, settings: Settings, rules: FixedRules, *, step: int) -> None:
        self.dsn = settings.postgres.dsn
        self.connection = connect(self.dsn)
        tables = "SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename NOT IN ('alembic_version', 'deid_lookup')"
        for (table,) in self.rows(tables):
            self.connection.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier(table)))  # of a few rows quicker than TRUNCATE
        self.unentered: list[InstanceRouted] = []
        self.entered: list[InstanceRouted] = []
        self.known = Known(settings)
        super().__init__(rules, settings, step=step)

    def start(self) -> None:
        """The process begins anew with what is committed."""
        self.known.close()
        self.known = Known(self.settings)
        self.route = Route(
            self.deciding, self.known, self.stored, self.version, contents=ByName(), settings=self.settings, now=self.clock, step=self.step
        )

    def close(self) -> None:
        self.known.close()
        self.connection.close()

    def take(self, event: InstanceAccepted | StudyExpected | StudyCommand, *, crash: bool = False) -> list[Event]:
        before = len(self.quarantined)
        said = super().take(event, crash=crash)
        if isinstance(event, InstanceAccepted) and len(self.quarantined) > before:
            self.untold.append(self._set_aside(event))
        return said

    def _set_aside(self, event: InstanceAccepted) -> InstanceQuarantined:
        instance, why = event.instance, self.quarantined[event.instance.receipt]
        return InstanceQuarantined(
            receipt=instance.receipt,
            study_instance_uid=instance.study_instance_uid,
            series_instance_uid=instance.series_instance_uid,
            sop_instance_uid=instance.sop_instance_uid,
            stage="route",
            reason=why.reason,
            sentence=why.sentence,
            fix=why.fix,
            quarantined_at=self.clock(),
            input=InputEvent(type=InstanceAccepted.topic.name, id=instance.receipt, data=Raw(b"{}")),
        )

    def _commit(self, changes: Any, said: Any) -> list[Event]:
        events = super()._commit(changes, said)
        self.unentered += [event for event in events if isinstance(event, InstanceRouted)]
        return events

    # Who reads it

    def catch_up(self, most: int = _EVERYTHING) -> None:
        """The index reads on."""
        events, self.untold = self.untold[:most], self.untold[most:]
        read: list[tuple[Any, Envelope]] = []
        for event in events:
            if isinstance(event, InstanceAccepted):
                read.append((InstanceReceived(instance=event.instance), self._envelope("received", event.instance.receipt)))
            if isinstance(event, _READ):
                read.append((event, self._envelope(type(event).__name__, getattr(event, "receipt", "") or event.key)))
        with self.connection.transaction():
            Indexing().apply(self.connection, read)

    def enter(self, most: int = _EVERYTHING, *, crash: bool = False) -> None:
        """The ledger reads on, in one transaction; with `crash` it is undone."""
        events, left = self.unentered[:most], self.unentered[most:]
        with self.connection.transaction(force_rollback=crash):
            Ledger().apply(self.connection, [(event, self._envelope("routed", event.receipt)) for event in events])
        if crash:
            return
        self.unentered = left
        self.entered += events
        taken_back = [delivery_id for event in events for delivery_id in event.cancels]
        assert self.rows("SELECT delivery_id FROM delivery WHERE delivery_id = ANY(%s) AND settled_at IS NULL", taken_back) == []

        named = [event.sop_instance_uid for event in events if event.decision == "withdrawn"]
        open_ = "SELECT 1 FROM delivery WHERE sop_instance_uid = ANY(%s) AND study_instance_uid = ANY(%s) AND settled_at IS NULL"
        assert self.rows(open_, named, [event.study_instance_uid for event in events if event.decision == "withdrawn"]) == []

    def _envelope(self, kind: str, id_: str) -> Envelope:
        return Envelope(id=f"{kind}-{id_}", time=self.clock(), traceparent="")

    # Who delivers

    def claim(self, destination: str, worker: str, limit: int) -> tuple[Queue, list[Delivery]]:
        queue = Queue(self.dsn, destination, worker, bus.Writer(Settings(), "deliver"))
        return queue, queue.claim(limit)

    def deliver(self, destination: str, worker: str, outcomes: list[Outcome]) -> int:
        """A worker claims as many as there are outcomes, and records these; how many it got."""
        queue, claimed = self.claim(destination, worker, len(outcomes))
        queue.record(list(zip(claimed, outcomes, strict=False)))
        queue.close()
        return len(claimed)

    # What is

    def rows(self, query: str, *values: Any) -> list[Any]:
        return self.connection.execute(query.encode(), values).fetchall()

    def account(self) -> Account:
        """What `hilum reconcile` says once index and ledger have read everything; log and object store are as they should be."""
        self.catch_up()
        self.enter()
        later = datetime(9999, 1, 1, tzinfo=UTC)
        with connect(self.dsn) as connection:
            receipts = [(event.instance.receipt, event.instance.sop_instance_uid) for event in self.arrivals]
            stored = {(event.instance.object.key, "f", "1") for event in self.arrivals}
            connection.execute(reconcile._TOLD.encode(), {"kept_since": datetime(1, 1, 1, tzinfo=UTC)})
            reconcile._fill(connection, "logged_receipt", ("id", "instance"), receipts)
            reconcile._fill(connection, "logged_delivery", ("id",), [])
            reconcile._fill(connection, "logged_message", ("id",), [])
            reconcile._fill(connection, "stored_object", ("id", "recent", "size_bytes"), stored)
            missing = reconcile._missing(connection, self.settings, later)
            return reconcile._account(connection, self.settings, later, missing, True, 0, ReadBack())


class Known(IndexedInstances):
    def close(self) -> None:
        connection: psycopg.Connection[Any] | None = self._connection
        if connection is not None:
            connection.close()


def settings_of(dsn: str, **what: Any) -> Settings:
    """Settings that lead to these books; the object store's bucket is that of `an_instance`."""
    from hilum.settings import Postgres
    from hilum.testing import an_instance

    return Settings(postgres=Postgres(dsn=dsn), s3=S3(bucket=an_instance().instance.object.bucket), **what)
