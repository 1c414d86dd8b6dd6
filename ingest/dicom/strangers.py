"""Which attempts without a usable request are remembered one by one: a port scanner must not fill Kafka and the database."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable

WINDOW_S = 60.0
#: So many attempts of one address in a minute are remembered, and so many of all addresses; the others are counted.
MOST_OF_PEER = 5
MOST_OF_ALL = 60


class Strangers:
    """Counts attempts by network address; for many threads."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._began_at = clock()
        self._remembered: Counter[str] = Counter()

    def is_remembered(self, peer: str) -> bool:
        """Count an attempt from the address `peer`; whether it is one of those that leave a record and a line in the log."""
        with self._lock:
            now = self._clock()
            if now - self._began_at >= WINDOW_S:
                self._began_at = now
                self._remembered.clear()
            if self._remembered[peer] >= MOST_OF_PEER or self._remembered.total() >= MOST_OF_ALL:
                return False
            self._remembered[peer] += 1
            return True
