"""Receipts: what an object is called from its arrival on."""

from __future__ import annotations

import secrets
import threading
from datetime import UTC, datetime
from uuid import UUID


class Receipts:
    """Makes receipts: UUIDs of version 7 (RFC 9562 5.7), which sort by time, and here in the order in which they are made."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ms = 0
        self._count = 0

    def make(self, moment: datetime) -> UUID:
        """A new one. If the clock goes back, the time stands still."""
        with self._lock:
            ms = max(int(moment.timestamp() * 1000), self._ms)
            count = self._count + 1 if ms == self._ms else 0
            if count > 0xFFF:
                ms, count = ms + 1, 0
            self._ms, self._count = ms, count
        return UUID(int=ms << 80 | 0x7 << 76 | count << 64 | 0b10 << 62 | secrets.randbits(62))


def received_at(receipt: str) -> datetime:
    """When the object of `receipt` was complete, to the millisecond. Raises `ValueError` if it is no receipt."""
    return datetime.fromtimestamp((UUID(receipt).int >> 80) / 1000, UTC)
