"""The role `deliver`: every destination's workers, and the outbox."""

from __future__ import annotations

import itertools
import socket
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from hilum import bus, telemetry
from hilum.anonymizing import published_policy
from hilum.bundle import Following
from hilum.desired import Desired, Follower
from hilum.errors import HilumError, Misconfigured, Stopped, TryAgain
from hilum.role import Health
from hilum.runtime.delivery.crew import Crew, key_of, without_paused
from hilum.runtime.delivery.failing import Failing
from hilum.runtime.delivery.linking import Linking
from hilum.runtime.delivery.orders import Orders
from hilum.runtime.delivery.outbox import Outbox
from hilum.runtime.delivery.watch import MEASURE_S, Watch
from hilum.runtime.delivery.worker import Shared
from hilum.settings import Settings
from hilum.sink import sink_of, sinks_of
from hilum.store import open_store
from hilum.words import counted

#: An object under way may take longer; then it is left, and sent again when its lease is over.
_STOP_S = 5.0
_LOOK_S = 0.2

log = telemetry.logger("deliver")


def role(settings: Settings) -> Deliver:
    """The role. Raises `Misconfigured` that names the destination whose settings cannot work."""
    return Deliver(settings)


class Deliver:
    """Delivers what the ledger holds. Each destination has its own threads and connections, so that none delays another.

    Destinations come, change and go while it runs; workers follow within a second.
    """

    name = "deliver"

    def __init__(self, settings: Settings, *, measure_s: float = MEASURE_S) -> None:
        """Queues are measured every `measure_s` seconds. Raises `Misconfigured` if a destination of the settings cannot work."""
        sinks_of(settings)
        self._settings = settings
        #: Those in force: what `hilum apply` published, or the file's; None until that is known.
        self._in_force: Settings | None = None
        self._unknown = ""
        self._follower = Follower(settings)
        self._store = open_store(settings)
        self._outbox = Outbox(settings)
        # Process ids repeat, also between containers; a worker's name must not.
        self._process = f"{socket.gethostname()}/{uuid.uuid4().hex[:8]}"
        self._numbers = itertools.count()
        self._crews: dict[str, tuple[Any, Crew]] = {}
        self._retired: list[Crew] = []
        self._wrong: dict[str, tuple[Any, str]] = {}
        self._destinations: dict[str, Shared] = {}
        self._watch = Watch(settings.postgres.dsn, self._destinations, self._process, measure_s=measure_s)
        self._failed: list[HilumError] = []

    def run(self, stop: threading.Event) -> None:
        """See `hilum.role.Role.run`."""
        settled = threading.Event()
        ended = threading.Event()
        threads = [
            self._thread("deliver watch", ended, lambda: self._watch.run(ended)),
            self._thread("outbox", ended, lambda: self._outbox.run(ended, settled)),
            self._thread("links", ended, lambda: Linking(self._settings).run(ended)),
            self._thread("desired state", ended, lambda: self._follower.run(ended)),
        ]
        for thread in threads:
            thread.start()
        with Following(self._settings, self.name) as following:
            while not stop.is_set() and not ended.is_set():
                self._take(following)
                if self._in_force is not None and self._follower.now is not None:  # until then nobody knows what is paused
                    self._follow(self._in_force, self._follower.now, settled)
                stop.wait(_LOOK_S)
            ended.set()
            settled.set()
            crews = [crew for _, crew in self._crews.values()] + self._retired
            for crew in crews:
                crew.retire()
        deadline = time.monotonic() + _STOP_S
        for crew in crews:
            crew.wait(deadline - time.monotonic())
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        if self._failed:
            raise self._failed[0]

    def configure(self, settings: Settings) -> None:
        """Deliver to the destinations of `settings` from now on. Raises `Misconfigured`, with nothing changed, if one cannot work."""
        sinks_of(settings)
        self._in_force = settings

    def _take(self, following: Following) -> None:
        try:
            following.take(self.configure)
            self._unknown = ""
        except TryAgain as error:  # what was in force still is
            self._unknown = str(error)

    def _follow(self, in_force: Settings, desired: Desired, settled: threading.Event) -> None:
        """Have for each destination the workers that it needs now, and none for what is none any more."""
        tables = {name: without_paused(table, desired) for name, table in desired.tables(in_force).items()}
        settings = replace(in_force, destinations=tables)
        for name in [name for name in self._crews if name not in tables]:
            self._retire(name)
        for name in [name for name in self._wrong if name not in tables]:
            del self._wrong[name]
        for name, table in tables.items():
            key = key_of(table, tables), published_policy(name, table, in_force), in_force.deid
            if name in self._crews:
                old_key, crew = self._crews[name]
                if old_key == key and not crew.may_begin_again():
                    orders = Orders.of(name, crew.shared.sink, desired)
                    if orders != crew.shared.orders:
                        crew.shared.orders = orders
                        crew.shared.wake.set()
                    continue
                self._retire(name)
                failing = crew.shared.failing if crew.failed else None
            else:
                failing = None
            self._begin(name, table, key, desired, settings, settled, failing)
        self._retired = [crew for crew in self._retired if not crew.wait(0)]

    def _begin(
        self,
        name: str,
        table: dict[str, Any],
        key: Any,
        desired: Desired,
        settings: Settings,
        settled: threading.Event,
        failing: Failing | None,
    ) -> None:
        if self._wrong.get(name, (None, ""))[0] == key:
            return
        try:
            sink = sink_of(name, table)
            sink.fits(name, settings)
        except Misconfigured as error:
            self._wrong[name] = (key, str(error))
            log.error("destination_wrong", destination=name, says=str(error))
            return
        self._wrong.pop(name, None)
        shared = Shared(name, sink, Orders.of(name, sink, desired), failing)
        writer = bus.Writer(settings, self.name)
        crew = Crew(shared, f"{self._process}/{next(self._numbers)}", writer, self._store, settings, settled)
        self._crews[name] = (key, crew)
        self._destinations[name] = shared
        crew.start()
        if not shared.failing.says:  # else it is tried again every few seconds
            log.info("workers_started", destination=name, count=sink.workers)

    def _retire(self, name: str) -> None:
        _, crew = self._crews.pop(name)
        self._destinations.pop(name, None)
        crew.retire()
        self._retired.append(crew)
        if not crew.failed:
            log.info("workers_retired", destination=name)

    def health(self) -> Health:
        """See `hilum.role.Role.health`. A destination that is away is no fault of this process."""
        destinations = dict(self._destinations)
        away = self._watch.database_away or any(shared.database_away for shared in destinations.values())
        said = ["PostgreSQL does not answer; deliveries wait"] if away else []
        unknown = self._follower.now is None or self._in_force is None
        if unknown:
            why = self._follower.says or self._unknown or "it is being read"
            said.append(f"what is configured and paused is not known yet, and deliveries wait: {why}")
        for name, shared in destinations.items():
            if not shared.failing.says and (says := shared.says()):
                said.append(f"{name} waits: {says}")
        said += [f"{name} cannot work: {shared.failing.says}" for name, shared in destinations.items() if shared.failing.says]
        said += [f"{name} cannot work: {says}" for name, (_, says) in dict(self._wrong).items()]
        if self._outbox.says:
            said.append(f"events wait: {self._outbox.says}")
        for name, count in self._watch.pending.items():
            if not unknown and name not in destinations and name not in self._wrong:
                said.append(f"{counted(count, 'delivery', 'deliveries')} waiting for {name}, which the settings do not have")
        working = f"delivers to {', '.join(destinations)}" if destinations else "has no destination"
        return Health(ready=not away and not unknown, says="; ".join(said) or working, lag=sum(self._watch.pending.values()))

    def _thread(self, name: str, ended: threading.Event, work: Callable[[], None]) -> threading.Thread:
        """A thread whose failure ends the role: its work would be missing unnoticed."""

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
