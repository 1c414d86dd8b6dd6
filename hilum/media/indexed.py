"""Whether the index has an object already."""

from __future__ import annotations

import threading

from hilum.database.known import IndexedInstances
from hilum.media.intake import Found
from hilum.settings import Settings


class Indexed:
    """`hilum.media.importing.Index` on PostgreSQL."""

    def __init__(self, settings: Settings) -> None:
        self._instances = IndexedInstances(settings)
        self._lock = threading.Lock()

    def check(self) -> None:
        """Raises `TryAgain` if PostgreSQL cannot be asked."""
        self._instances.decided([])

    def has(self, found: Found) -> bool:
        """Whether an object with this UID and digest was received and not set aside as a duplicate. Raises `TryAgain`."""
        with self._lock:
            known = self._instances.decided([found.sop_instance_uid]).get(found.sop_instance_uid)
        return known is not None and known.sha256 == found.sha256.hex()
