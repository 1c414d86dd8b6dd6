"""How far behind a spool is, told to whoever waits for silence: an object in a spool has come, and nobody downstream has seen it.

One row in PostgreSQL for each spool, which is the present and no history. It is written every two seconds, also while Kafka is away: once
Kafka is back, `route` would otherwise take for silence what was an outage.
"""

from __future__ import annotations

import socket
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta

from hilum import database, telemetry
from hilum.errors import HilumError
from hilum.settings import Settings
from hilum.spool import Spool, received_at

#: How often it is told.
TELL_S = 2.0
#: A spool is behind if its oldest object is older: in quiet times nobody waits for it.
LATE = timedelta(seconds=5)
#: What was published needs a moment to be validated: a spool counts as behind for so much longer.
SETTLES = timedelta(seconds=5)

_TELL = """
    INSERT INTO spool_backlog (spool, oldest_at) VALUES (%s, %s)
    ON CONFLICT (spool) DO UPDATE SET oldest_at = excluded.oldest_at, seen_at = now()
"""

log = telemetry.logger("publish")


class Backlog:
    """Tells how far behind one spool is. `aside` is what stays in it and nobody waits for, such as what is no spool file."""

    def __init__(self, settings: Settings, spool: Spool, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._dsn = settings.postgres.dsn
        self._spool = spool
        self._now = now
        self._name = f"{socket.gethostname()}:{spool.folder}"
        self._lately: deque[tuple[datetime, datetime]] = deque()

    def oldest(self, aside: Collection[str] = ()) -> datetime | None:
        """When the oldest object came that nobody downstream may have seen yet; None if the spool is not behind."""
        now = self._now()
        came = []
        for receipt in self._spool.waiting():
            with suppress(ValueError):  # a file that is no arrival
                if receipt not in aside:
                    came.append(received_at(receipt))
        if came and now - min(came) > LATE:
            self._lately.append((now, min(came)))
        while self._lately and now - self._lately[0][0] > SETTLES:
            self._lately.popleft()
        return min((oldest for _, oldest in self._lately), default=None)

    @contextmanager
    def told(self, aside: Callable[[], Collection[str]]) -> Iterator[None]:
        """Tell it for as long as the block lasts, in a thread of its own: also while the publisher waits for Kafka."""
        ended = threading.Event()
        thread = threading.Thread(target=self.run, args=(ended, aside), name="publish backlog", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join(5.0)

    def run(self, ended: threading.Event, aside: Callable[[], Collection[str]]) -> None:
        """Tell it until `ended`. That it cannot be told stops nothing: then a study may be complete a revision too early."""
        while not ended.is_set():
            try:
                with database.connect(self._dsn, name="hilum publish") as connection:
                    while not ended.is_set():
                        connection.execute(_TELL, (self._name, self.oldest(aside())))
                        ended.wait(TELL_S)
            except (*database.AWAY, HilumError, OSError):
                ended.wait(TELL_S)
            except Exception as error:  # no table yet, no right to it
                log.warning("backlog_not_told", error=error)
                ended.wait(30.0)
