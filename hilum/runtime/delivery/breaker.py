"""A destination that is away is left alone for a while; its queue waits and nothing fails."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable

from hilum.errors import HilumError

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0


class Breaker:
    """Opened by an outage, for pauses that double from 1 to 30 s; closed by the first success. For all workers of a destination."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._outages = 0
        self._until = 0.0
        self._says = ""

    @property
    def says(self) -> str:
        """Why nothing is delivered, in words; empty if something is."""
        return self._says

    @property
    def tried(self) -> bool:
        """Whether the destination is being tried again after an outage: one object is enough for that."""
        return self._outages > 0

    def wait_s(self) -> float:
        """How long to leave the destination alone; 0 if it may be used."""
        return max(0.0, self._until - self._clock()) if self._outages else 0.0

    def outage(self, error: HilumError) -> bool:
        """Nothing is to be delivered for a while. Returns whether that is new. Outages that several workers meet at once count as one."""
        with self._lock:
            new = self._outages == 0
            if self._clock() >= self._until:
                pause = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**self._outages)
                self._outages = min(self._outages + 1, 16)
                self._until = self._clock() + pause * random.uniform(0.75, 1.0)  # noqa: S311  # only so that processes do not ask in step
            self._says = str(error)
            return new

    def success(self) -> bool:
        """The destination works. Returns whether that is new."""
        if not self._outages:
            return False
        with self._lock:
            self._outages, self._until, self._says = 0, 0.0, ""
            return True
