"""Objects that are in the store and not on the log yet: what expires meanwhile must not be one of them.

An object that comes again has the key of the one before, which may be deleted at that moment: see `hilum.storage.marker`. And whoever
deletes goes by an object's age in the store, at least a day: what was stored long ago and is still not told is stored once more.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from hilum.storage.marker import LOOK_WITHIN_S, Watch
from hilum.store import ObjectStore

#: What was stored longer ago, in seconds, is stored again before it is told.
FRESH_S = 3600.0


class Stored:
    """What was stored, by receipt. Noted by uploading threads, asked by one."""

    def __init__(self, store: ObjectStore, bucket: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._watch = Watch(store, bucket, clock)
        self._clock = clock
        self._stored: dict[str, tuple[str, float]] = {}

    def note(self, receipt: str, key: str) -> None:
        """The store has answered for an object under `key`."""
        self._stored[receipt] = key, self._clock()

    def kept(self, receipts: Iterable[str]) -> set[str]:
        """Those that may be told; the others are to be stored once more. Raises `TryAgain`, `Misconfigured`: not known now."""
        lately = self._clock() - LOOK_WITHIN_S
        keys = {receipt: self._stored[receipt] for receipt in receipts}
        listed = self._watch.listed({key for key, _ in keys.values()})
        return {receipt for receipt, (key, at) in keys.items() if at > lately and key not in listed}

    def is_fresh(self, receipt: str) -> bool:
        """Whether it was stored so lately that it may still be told."""
        return receipt in self._stored and self._clock() - self._stored[receipt][1] < FRESH_S

    def forget(self, receipts: Iterable[str]) -> None:
        """They are told, or are to be stored once more."""
        for receipt in receipts:
            self._stored.pop(receipt, None)


def drained(queue: deque[Any]) -> list[Any]:
    """All that is in a queue to which other threads append."""
    found = []
    with suppress(IndexError):
        while True:
            found.append(queue.popleft())
    return found
