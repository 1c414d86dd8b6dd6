"""How much a stage takes in at once: as much as it can handle in half a second, in bounded memory."""

from __future__ import annotations

#: The most that is taken in before it is dealt with: events and bytes.
MOST_EVENTS = 2000
MOST_BYTES = 8 * 2**20

#: How long handling a batch shall take, in seconds.
BATCH_S = 0.5


class Pace:
    """Fits `limit`, the events of a batch, to what the last batches took."""

    def __init__(self) -> None:
        self.limit = 100
        self._seconds = 0.001
        self._bytes = 1000.0

    def took(self, events: int, size_bytes: int, seconds: float) -> None:
        """A batch was dealt with. The limit follows, but at most doubles."""
        self._seconds += 0.2 * (seconds / events - self._seconds)
        self._bytes += 0.2 * (size_bytes / events - self._bytes)
        fits = min(MOST_EVENTS, int(BATCH_S / self._seconds), int(MOST_BYTES / self._bytes))
        self.limit = max(1, min(fits, 2 * self.limit))

    def failed(self, events: int) -> None:
        """A batch could not be dealt with: in case that was for its size, the next is half of it."""
        self.limit = max(1, min(self.limit, events) // 2)
