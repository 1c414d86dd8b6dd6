"""Whether the clocks can be believed: what is deleted by a wrong clock is gone."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Protocol

#: So far may the clocks of host and database be apart, and so far may one go back.
TOLERANCE = timedelta(minutes=5)
#: After a longer stop nobody knows whether it was a stop or a jump of the clock.
GAP = timedelta(days=1)
#: So long must the clocks have run evenly before anything expires.
STEADY = timedelta(days=1)


class Times(Protocol):
    """What the tables say of time; see `hilum.storage.records.Records`."""

    def now(self) -> datetime:
        """The database's clock."""
        ...

    def newest(self) -> datetime | None:
        """The time of what came or was decided last."""
        ...

    def steady_since(self, now: datetime, *, jumped: bool, tolerance: timedelta, gap: timedelta) -> datetime:
        """Put down that the clock shows `now`; since when it has run without a jump or a gap."""
        ...


class Clocks:
    """Compares the clocks of this machine and the database, with each other and with the time that has passed."""

    def __init__(
        self,
        host: Callable[[], datetime] = lambda: datetime.now(UTC),
        elapsed: Callable[[], float] = time.monotonic,
        steady: timedelta = STEADY,
    ) -> None:
        self._host = host
        self._elapsed = elapsed
        self._steady = steady
        self._last: tuple[datetime, float] | None = None

    def look(self, times: Times) -> tuple[datetime, str]:
        """The earlier of the two clocks, and why nothing may expire by it; empty if something may. Look at least once an hour."""
        host, database, elapsed = self._host(), times.now(), self._elapsed()
        now, jumped = min(host, database), False
        if self._last is not None:
            jumped = abs((now - self._last[0]) - timedelta(seconds=elapsed - self._last[1])) > TOLERANCE
        self._last = now, elapsed
        apart = abs(host - database)
        since = times.steady_since(now, jumped=jumped or apart > TOLERANCE, tolerance=TOLERANCE, gap=GAP)
        if apart > TOLERANCE:
            return now, f"the clocks of this machine and of PostgreSQL are {apart.total_seconds():,.0f} s apart: set the time (NTP)"
        newest = times.newest()
        if newest is not None and newest > now + TOLERANCE:
            return now, f"objects came in at {newest:%Y-%m-%d %H:%M} UTC, which is not yet: the clock has gone back, or was ahead then"
        if now - since < self._steady:
            return now, f"the clock has run evenly only since {since:%Y-%m-%d %H:%M} UTC: nothing expires before a day of that"
        return now, ""
