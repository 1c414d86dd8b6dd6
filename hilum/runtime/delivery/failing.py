"""Why the workers of a destination cannot go on, such as for want of its key: told as long as it lasts, logged once and then rarely."""

from __future__ import annotations

import threading
import time

from hilum import telemetry

#: The same is logged again after so long.
REPEAT_S = 600.0

log = telemetry.logger("deliver")


class Failing:
    """Of one destination, over all its crews until one can work. Safe for several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._says = ""
        self._logged_at = 0.0

    @property
    def says(self) -> str:
        """Why its workers cannot go on, in words; empty if they can."""
        return self._says

    def began(self, destination: str, says: str) -> None:
        """Workers could not go on."""
        with self._lock:
            now = time.monotonic()
            if says != self._says or now - self._logged_at >= REPEAT_S:
                log.error("workers_stopped", destination=destination, says=says)
                self._logged_at = now
            self._says = says

    def ended(self, destination: str) -> None:
        """Workers go on."""
        with self._lock:
            if self._says:
                log.info("destination_back", destination=destination)
            self._says = ""
