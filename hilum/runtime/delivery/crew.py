"""The workers of one destination, from their start to their retirement."""

from __future__ import annotations

import threading
import time
from typing import Any

from hilum import bus, telemetry
from hilum.desired import Desired
from hilum.errors import HilumError, Stopped
from hilum.runtime.delivery.queue import Queue
from hilum.runtime.delivery.worker import Shared, Worker
from hilum.settings import Settings
from hilum.store import ObjectStore

#: Workers that could not go on are started again after so long.
AGAIN_S = 15.0

log = telemetry.logger("deliver")


class Crew:
    """Threads that deliver for one destination, each over connections of its own.

    A crew of which one thread fails stops as a whole and says why: no other destination is affected.
    """

    def __init__(
        self, shared: Shared, process: str, writer: bus.Writer, store: ObjectStore, settings: Settings, settled: threading.Event
    ) -> None:
        """`process` is a name that no other process or crew has; `settings` have the destinations as they are for this crew."""
        self.shared = shared
        #: Why its workers cannot go on, in words; empty if they can.
        self.failed = ""
        self._failed_at = 0.0
        self._stop = threading.Event()
        self._threads = []
        for n in range(shared.sink.workers):
            worker_name, sink = f"{process}/{shared.name}/{n}", shared.sink
            queue = Queue(
                settings.postgres.dsn,
                shared.name,
                worker_name,
                writer,
                grouped=sink.grouped,
                titled=sink.titled_in(settings),
                require_order=sink.require_order == "hold",
                coerced=[aet for aet, sender in settings.senders.items() if sender.coerce],
                warns=sink.require_order == "warn",
            )
            worker = Worker(shared, queue, store, settings, settled)
            self._threads.append(threading.Thread(target=self._run, args=(worker,), name=f"{shared.name} {n}", daemon=True))

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def retire(self) -> None:
        """Finish the objects under way, give back the rest, and end."""
        self._stop.set()
        self.shared.wake.set()

    def wait(self, seconds: float) -> bool:
        """Wait for the end for up to so long; whether all threads have ended."""
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def may_begin_again(self) -> bool:
        """Whether it failed, has ended, and has rested."""
        return bool(self.failed) and time.monotonic() - self._failed_at >= AGAIN_S and self.wait(0)

    def _run(self, worker: Worker) -> None:
        try:
            worker.run(self._stop)
        except HilumError as error:
            self._end(error)
        except Exception as error:
            log.error("workers_failed", destination=self.shared.name, error=telemetry.described(error))
            self._end(Stopped(f"Its workers failed in a way nobody foresaw ({type(error).__name__})."))

    def _end(self, error: HilumError) -> None:
        self.shared.failing.began(self.shared.name, str(error))
        self.failed, self._failed_at = str(error), time.monotonic()
        self.retire()


def without_paused(table: dict[str, Any], desired: Desired) -> dict[str, Any]:
    """The table of a group without members that are paused; as it is, if all are or if it is no group."""
    members = table.get("members") if table.get("type") == "group" else None
    if not isinstance(members, list):
        return table
    left = [name for name in members if not (name in desired.destinations and desired.destinations[name].paused)]
    return {**table, "members": left} if left else table


def key_of(table: dict[str, Any], tables: Any) -> Any:
    """What a crew is made of: if it changes, a new one is needed. A group is made of its members, too."""
    members = table.get("members") if table.get("type") == "group" else None
    return (table, {name: tables.get(name) for name in members if isinstance(name, str)} if isinstance(members, list) else None)
