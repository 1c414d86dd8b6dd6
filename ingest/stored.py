"""Objects that are in the store and not on the log yet: what expires meanwhile must not be one of them.

An object that comes again has the key of the one before, which may be deleted at that moment: see `hilum.storage.marker`. And whoever
deletes goes by an object's age in the store, at least a day: what was stored long ago and is still not told is stored once more.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from hilum.storage.marker import Watch
from hilum.store import ObjectStore

#: What was stored longer ago, in seconds, is stored again before it is told.
FRESH_S = 3600.0


class Stored:
    """What was stored, by receipt. Noted by uploading threads, asked by one."""

    def __init__(self, store: ObjectStore, bucket: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._watch = Watch(store, bucket)
        self._clock = clock
        self._stored: dict[str, tuple[str, float]] = {}

    def note(self, receipt: str, key: str, began: float) -> None:
        """An object was stored under `key`; that began at `began` of the clock."""
        self._stored[receipt] = key, began

    def kept(self, receipts: Iterable[str]) -> set[str]:
        """Those that may be told; the others are to be stored once more. Raises `TryAgain`, `Misconfigured`: not known now."""
        expiring = self._watch.expiring()
        return {receipt for receipt in receipts if self.is_fresh(receipt) and self._stored[receipt][0] not in expiring}

    def is_fresh(self, receipt: str) -> bool:
        """Whether it was stored lately."""
        return receipt in self._stored and self._clock() - self._stored[receipt][1] < FRESH_S

    def forget(self, receipts: Iterable[str]) -> None:
        """They are told, or are to be stored once more."""
        for receipt in receipts:
            self._stored.pop(receipt, None)
