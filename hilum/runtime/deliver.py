"""The role `deliver`: every destination's workers, and the outbox."""

from __future__ import annotations

import socket
import threading
import time
import uuid
from collections.abc import Callable

from hilum import bus, telemetry
from hilum.errors import HilumError, Stopped
from hilum.role import Health
from hilum.runtime.delivery.outbox import Outbox
from hilum.runtime.delivery.queue import Queue
from hilum.runtime.delivery.watch import Watch
from hilum.runtime.delivery.worker import Shared, Worker
from hilum.settings import Settings
from hilum.sink import sinks_of
from hilum.store import open_store
from hilum.words import counted

#: An object under way may take longer; then it is left, and sent again when its lease is over.
_STOP_S = 5.0

log = telemetry.logger("deliver")


def role(settings: Settings) -> Deliver:
    """The role. Raises `Misconfigured` that names the destination whose settings cannot work."""
    return Deliver(settings)


class Deliver:
    """Delivers what the ledger holds. Each destination has its own threads and connections, so that none delays another."""

    name = "deliver"

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._destinations = {name: Shared(name, sink) for name, sink in sinks_of(settings).items()}
        self._store = open_store(settings)
        self._outbox = Outbox(settings)
        # Process ids repeat, also between containers; a worker's name must not.
        self._process = f"{socket.gethostname()}/{uuid.uuid4().hex[:8]}"
        self._watch = Watch(settings.postgres.dsn, self._destinations, self._process)
        self._failed: list[HilumError] = []

    def run(self, stop: threading.Event) -> None:
        """See `hilum.role.Role.run`."""
        settled = threading.Event()
        ended = threading.Event()
        threads = [
            self._thread("deliver watch", ended, lambda: self._watch.run(ended)),
            self._thread("outbox", ended, lambda: self._outbox.run(ended, settled)),
        ]
        writer = bus.Writer(self._settings, "deliver")
        for shared in self._destinations.values():
            for n in range(shared.sink.workers):
                name = f"{self._process}/{shared.name}/{n}"
                queue = Queue(self._settings.postgres.dsn, shared.name, name, writer, grouped=shared.sink.grouped)
                worker = Worker(shared, queue, self._store, self._settings, settled)
                threads.append(self._thread(f"{shared.name} {n}", ended, lambda worker=worker: worker.run(ended)))  # type: ignore[misc]  # binds the loop's worker
        for thread in threads:
            thread.start()
        while not stop.wait(0.2) and not ended.is_set():
            pass
        ended.set()
        settled.set()
        for shared in self._destinations.values():
            shared.wake.set()
        deadline = time.monotonic() + _STOP_S
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        if self._failed:
            raise self._failed[0]

    def health(self) -> Health:
        """See `hilum.role.Role.health`. A destination that is away is no fault of this process."""
        away = self._watch.database_away or any(shared.database_away for shared in self._destinations.values())
        said = ["PostgreSQL does not answer; deliveries wait"] if away else []
        for name, shared in self._destinations.items():
            if says := shared.breaker.says:
                said.append(f"{name} waits: {says}")
        if self._outbox.says:
            said.append(f"events wait: {self._outbox.says}")
        for name, count in self._watch.pending.items():
            if name not in self._destinations:
                said.append(f"{counted(count, 'delivery', 'deliveries')} waiting for {name}, which the settings do not have")
        working = f"delivers to {', '.join(self._destinations)}" if self._destinations else "has no destination"
        return Health(ready=not away, says="; ".join(said) or working, lag=sum(self._watch.pending.values()))

    def _thread(self, name: str, ended: threading.Event, work: Callable[[], None]) -> threading.Thread:
        """A thread whose failure ends the role: a destination without its worker would wait unnoticed."""

        def run() -> None:
            try:
                work()
            except HilumError as error:
                self._failed.append(error)
                ended.set()
            except Exception as error:
                log.error("role_failed", role=self.name, error=telemetry.described(error))
                self._failed.append(Stopped(f"The thread {name} of role deliver failed ({type(error).__name__})."))
                ended.set()

        return threading.Thread(target=run, name=name, daemon=True)
