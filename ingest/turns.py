"""In which order the objects of the spool are told of.

They are stored side by side, so one may be in the store before an older one is. It waits for that one: for a moment whatever it is, and
for as long as it takes if both are the same SOP instance. Which of two is that instance, and which is one more copy of it or contradicts
it, is decided by the order in which they are told; it is to be the order in which they were received.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterable

from hilum.bus import Record
from ingest.stored import drained

#: Nothing waits longer, in seconds, for an older object that takes long to read, nor for one that takes long to store, unless the latter
#: is the same instance.
READ_S = 2.0
IN_ORDER_S = 0.25
#: While more are being stored, those that are wait so long for each other: one sync of the disk, one look at the marker and one message to
#: Kafka for all, and one transaction for all in each stage that follows. Each of these costs the broker what it costs for a single object.
GATHER_S = 0.25
#: Twice as long if more than so many are being stored, and fewer than so many are: for what is told last, all others wait.
FEW = 64


class Turns:
    """Objects between spool and log, by receipt; receipts sort by the time of receiving.

    Asked by one thread (`expect`, `next`, `in_turn`, `put_back`), told of progress by those that upload.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        #: Until when younger ones wait for what is being uploaded.
        self._uploading: dict[str, float] = {}
        #: The SOP Instance UID of each that is read and has not left yet.
        self._instances: dict[str, str] = {}
        self._stored: deque[tuple[str, Record]] = deque()
        self._told_at = -math.inf

    def expect(self, receipt: str) -> None:
        """It will be uploaded; until that begins, younger ones wait for it."""
        self._uploading[receipt] = math.inf

    def begin(self, receipt: str) -> None:
        """Its upload begins."""
        self._uploading[receipt] = self._clock() + READ_S

    def is_read(self, receipt: str, sop_instance_uid: str) -> None:
        """It is this instance: younger ones of the same UID now wait until it leaves, or is told together with them."""
        self._instances[receipt] = sop_instance_uid
        self._uploading[receipt] = self._clock() + IN_ORDER_S

    def is_stored(self, receipt: str, record: Record) -> None:
        """It is in the store, and `record` tells of it."""
        self._stored.append((receipt, record))

    def end(self, receipt: str) -> bool:
        """Its upload is over, whatever came of it; whether no other is under way."""
        del self._uploading[receipt]
        return not self._uploading

    def leave(self, receipts: Iterable[str]) -> None:
        """The log has them, or they cannot be told: nothing waits for them any more."""
        for receipt in receipts:
            self._instances.pop(receipt, None)

    def put_back(self, stored: Iterable[tuple[str, Record]]) -> None:
        """These could not be told; `next` gives them again."""
        self._stored.extend(stored)

    def next(self) -> list[tuple[str, Record]]:
        """Those that are stored and whose turn it is, oldest first."""
        now = self._clock()
        if self._uploading and now - self._told_at < GATHER_S * (1 + (len(self._uploading) > FEW > len(self._stored))):
            return []
        self._told_at = now
        oldest = min([each for each, until in list(self._uploading.items()) if now < until], default=None)  # first: see `is_stored`
        stored = sorted(drained(self._stored), key=lambda each: each[0])
        ready = [each for each in stored if oldest is None or each[0] < oldest]
        self.put_back(stored[len(ready) :])
        return self.in_turn(ready)

    def in_turn(self, stored: list[tuple[str, Record]]) -> list[tuple[str, Record]]:
        """Those of `stored` before which none of their instance is missing; `next` gives the others again."""
        missing = self._oldest_missing({receipt for receipt, _ in stored})
        ready: list[tuple[str, Record]] = []
        waiting: list[tuple[str, Record]] = []
        for receipt, record in stored:
            (ready if receipt < missing.get(self._instances.get(receipt, ""), "~") else waiting).append((receipt, record))
        self.put_back(waiting)
        return ready

    def _oldest_missing(self, stored: set[str]) -> dict[str, str]:
        """Of each instance the oldest receipt that is read and not `stored`."""
        missing: dict[str, str] = {}
        for receipt, instance in sorted(self._instances.copy().items(), reverse=True):
            if receipt not in stored:
                missing[instance] = receipt
        return missing
