"""Watch over the ledger for all workers of a process: wake them for new work, keep their leases, measure their queues.

What waits for a destination with a policy is to leave by one: that is remembered here, too, every ten seconds.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any

import psycopg

from hilum import database, telemetry
from hilum.database import AWAY
from hilum.database.queues import WATCHES
from hilum.database.under_policy import remember
from hilum.errors import TryAgain
from hilum.runtime.delivery.queue import LEASE_S, MINE
from hilum.runtime.delivery.worker import Shared

CHANNEL = "delivery_ready"
MEASURE_S = 10.0
#: How often the database is told of outages that last.
TELL_S = 15.0
_RENEW_S = LEASE_S / 4
_RENEW = f"""
    UPDATE delivery d SET lease_until = now() + make_interval(secs => %(lease_s)s) WHERE d.delivery_id = ANY(%(ids)s) AND {MINE}
"""  # noqa: S608  # constants
_PENDING = """
    SELECT destination, count(*), extract(epoch FROM now() - min(coalesce(received_at, created_at)))::float8
    FROM delivery WHERE state = 'pending' GROUP BY destination
"""
_STUCK = "SELECT count(*) FROM study_state WHERE says IS NOT NULL"
_MATCHES = """
    SELECT outcome, count(*) FROM match WHERE about = 'study' AND changed_at > now() - interval '30 days' GROUP BY outcome
"""
_PARKED = "SELECT destination, count(*) FROM delivery WHERE state = 'parked' GROUP BY destination"
_OVER = """
    DELETE FROM destination_outage WHERE (process = %(process)s AND destination <> ALL(%(away)s)) OR seen_at < now() - interval '1 day'
"""
_AWAY = """
    INSERT INTO destination_outage AS here (destination, process, says) VALUES (%s, %s, %s)
    ON CONFLICT (destination, process) DO UPDATE SET says = excluded.says, seen_at = now()
"""

log = telemetry.logger("deliver")


class Watch:
    """The connection that listens. It is opened again after an outage; meanwhile workers look for themselves."""

    def __init__(self, dsn: str, destinations: Mapping[str, Shared], process: str, *, measure_s: float = MEASURE_S) -> None:
        """`process` is this process's name, which no other ever has. `destinations` may gain and lose entries meanwhile.

        Queues are measured every `measure_s` seconds.
        """
        self._dsn = dsn
        self._process = process
        self._destinations = destinations
        self._measure_s = measure_s
        self._renew_at = 0.0
        self._measure_at = 0.0
        self._told: dict[str, str] = {}
        self._tell_at = 0.0
        #: Pending deliveries by destination, those of destinations that the settings do not have included.
        self.pending: dict[str, int] = {}
        #: Likewise those that wait for a person.
        self.parked: dict[str, int] = {}
        self._outcomes: set[str] = set()
        #: Destinations with deliveries that no setting has: as it seemed last, and as was said; at its start a process knows none.
        self._unknown: set[str] = set()
        self._warned: set[str] = set()
        self.database_away = False

    def run(self, stop: threading.Event) -> None:
        """Watch until `stop` is set."""
        while not stop.is_set():
            try:
                with database.connect(self._dsn, name=WATCHES) as connection:
                    connection.execute(f"LISTEN {CHANNEL}")
                    self.database_away = False
                    self._wake(list(self._destinations))  # whatever was said before we listened
                    while not stop.is_set():
                        for notice in connection.notifies(timeout=0.5, stop_after=1):
                            self._wake([notice.payload])
                        self._housekeeping(connection)
            except (*AWAY, TryAgain):
                self.database_away = True
                stop.wait(0.5)

    def _wake(self, names: Any) -> None:
        for name in names:
            if shared := self._destinations.get(name):
                shared.wake.set()

    def _housekeeping(self, connection: psycopg.Connection[Any]) -> None:
        now = time.monotonic()
        if now >= self._renew_at:
            self._renew_at = now + _RENEW_S
            for shared in list(self._destinations.values()):
                for worker, ids in list(shared.claimed.items()):
                    connection.execute(_RENEW, {"lease_s": LEASE_S, "ids": list(ids), "worker": worker})
        says = {name: why for name, shared in list(self._destinations.items()) if (why := shared.away())}
        if says != self._told or (says and now >= self._tell_at):
            self._tell(connection, says)
            self._told, self._tell_at = says, now + TELL_S
        if now >= self._measure_at:
            self._measure_at = now + self._measure_s
            self._measure(connection)

    def _tell(self, connection: psycopg.Connection[Any], says: Mapping[str, str]) -> None:
        """Put down which destinations cannot be used, and why, for commands and screens elsewhere."""
        connection.execute(_OVER, {"process": self._process, "away": list(says)})
        for name, why in says.items():
            connection.execute(_AWAY, (name, self._process, why))

    def _measure(self, connection: psycopg.Connection[Any]) -> None:
        for name, shared in list(self._destinations.items()):
            if shared.sink.policy:
                remember(connection, name, shared.sink.policy)
        [(stuck,)] = connection.execute(_STUCK).fetchall()
        telemetry.STUDIES_STUCK.set(stuck)
        matches: dict[str, int] = dict(connection.execute(_MATCHES).fetchall())
        for outcome in self._outcomes | matches.keys():
            telemetry.STUDIES_BY_MATCH.labels(outcome).set(matches.get(outcome, 0))
        self._outcomes |= matches.keys()
        parked: dict[str, int] = dict(connection.execute(_PARKED).fetchall())
        for name in self._destinations.keys() | parked.keys() | self.parked.keys():
            telemetry.DELIVERIES_PARKED.labels(name).set(parked.get(name, 0))
        self.parked = parked
        found = {name: (count, age_s) for name, count, age_s in connection.execute(_PENDING)}
        unknown = found.keys() - self._destinations.keys()
        for name in unknown & self._unknown - self._warned:
            log.warning("destination_unknown", destination=name, count=found[name][0])
            self._warned.add(name)
        self._unknown, self._warned = unknown, self._warned & unknown
        for name in self._destinations.keys() | found.keys() | self.pending.keys():
            count, age_s = found.get(name, (0, 0.0))
            telemetry.DELIVERIES_PENDING.labels(name).set(count)
            telemetry.DELIVERIES_PENDING_SECONDS.labels(name).set(max(0.0, age_s))
        self.pending = {name: count for name, (count, _) in found.items()}
