"""The ledger for tests: rows that are entered, workers with sinks that do as the test says, and what became of it all."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
from psycopg.rows import dict_row

from hilum import bus
from hilum.database import connect
from hilum.deid_sections import Deid
from hilum.errors import HilumError
from hilum.part10 import Part10
from hilum.runtime.delivery.orders import Orders
from hilum.runtime.delivery.queue import Queue
from hilum.runtime.delivery.worker import Shared, Worker
from hilum.settings import Postgres, Settings
from hilum.sink import Delivery, Session, Settled, Sink
from hilum.testing import MemoryStore, a_delivery

TRACE = "00-" + "1" * 32 + "-" + "2" * 16 + "-01"
DELIVERED = Settled(state="delivered", peer_status="0x0000")


def enter(dsn: str, *deliveries: Delivery, priority: int = 0) -> None:
    """Put deliveries into the ledger, in their order."""
    with connect(dsn) as connection:
        for each in deliveries:
            ref = each.object
            connection.execute(
                "INSERT INTO delivery (delivery_id, destination, receipt, study_instance_uid, series_instance_uid, sop_instance_uid,"
                " sop_class_uid, transfer_syntax_uid, bucket, object_key, size_bytes, sha256, priority, config_version, traceparent,"
                " under_policy, received_at)"
                " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, 'v1', %s, nullif(%s, ''), now())",
                (
                    *(each.delivery_id, each.destination, each.receipt, each.study_instance_uid, each.series_instance_uid),
                    *(each.sop_instance_uid, each.sop_class_uid, each.transfer_syntax_uid),
                    *(ref.bucket, ref.key, ref.size_bytes, ref.sha256, priority, TRACE, each.under_policy),
                ),
            )


def some(store: MemoryStore, count: int, study: str = "2.25.1", destination: str = "pacs") -> list[Delivery]:
    return [a_delivery(store, StudyInstanceUID=study, SOPInstanceUID=f"{study}.{n}", destination=destination) for n in range(count)]


def rows(dsn: str) -> dict[str, dict[str, Any]]:
    """The ledger by SOP instance UID."""
    with connect(dsn) as connection:
        found = connection.cursor(row_factory=dict_row).execute("SELECT * FROM delivery").fetchall()
    return {row["sop_instance_uid"]: row for row in found}


def states(dsn: str) -> set[str]:
    return {row["state"] for row in rows(dsn).values()}


def outbox(dsn: str) -> list[dict[str, Any]]:
    with connect(dsn) as connection:
        return connection.cursor(row_factory=dict_row).execute("SELECT * FROM outbox ORDER BY id").fetchall()


class Scripted(Sink, frozen=True, kw_only=True):
    """A sink that does as the test says."""

    answer: Callable[[Delivery, Part10], Settled]
    seen: list[str] = msgspec.field(default_factory=list)
    retry_max_s: float = 0.05

    def open(self, settings: Settings) -> Session:
        del settings
        return self

    def deliver(self, delivery: Delivery, part10: Part10) -> Settled:
        self.seen.append(delivery.sop_instance_uid)
        return self.answer(delivery, part10)


class ScriptedByStudy(Scripted, frozen=True, kw_only=True):
    """The same, for one study at a time."""

    @property
    def grouped(self) -> bool:
        return True


def reads(_: Delivery, part10: Part10) -> Settled:
    assert list(part10.data_set(1024))
    return DELIVERED


def raises(error: Callable[[], HilumError | Exception], *, times: int = 10**9, only: str = "") -> Callable[[Delivery, Part10], Settled]:
    """An answer that raises, so many times and for this instance only, and delivers otherwise."""
    left = iter(range(times))

    def answer(delivery: Delivery, _: Part10) -> Settled:
        if (not only or delivery.sop_instance_uid == only) and next(left, None) is not None:
            raise error()
        return DELIVERED

    return answer


@contextmanager
def working(
    dsn: str,
    store: MemoryStore,
    sink: Sink,
    name: str = "pacs",
    workers: int = 1,
    orders: Orders | None = None,
    deid: Deid | None = None,
    stop: threading.Event | None = None,
) -> Iterator[Shared]:
    """Workers of one destination, for as long as the block lasts. `stop` is set when they are told to end."""
    stop, shared, settings = (
        stop or threading.Event(),
        Shared(name, sink, orders),
        Settings(postgres=Postgres(dsn=dsn), deid=deid or Deid()),
    )
    threads = []
    for n in range(workers):
        queue = Queue(dsn, name, f"{uuid.uuid4()}/{n}", bus.Writer(settings, "deliver"), grouped=sink.grouped)
        worker = Worker(shared, queue, store, settings, threading.Event())
        threads.append(threading.Thread(target=worker.run, args=(stop,)))
        threads[-1].start()
    try:
        yield shared
    finally:
        stop.set()
        shared.wake.set()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()
