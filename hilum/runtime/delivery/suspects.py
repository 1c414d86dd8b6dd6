"""Whether the destination is the cause when it does not take objects, or the study that they are of.

Products answer "out of resources" also to what they dislike. So the destination as a whole is left alone only when it took nothing of
several different studies; a study of which it takes nothing rests by itself, and the others go on.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from hilum.sink import Delivery

#: So many different objects of a study put off in a row, and the study rests; so many different studies, and the destination is at fault.
STRIKES = 3
#: Pauses of a study double from the first to the longest, and are never shorter than `PATIENCE` times what was lost on it.
FIRST_REST_S, LONGEST_REST_S, PATIENCE = 1.0, 30.0, 2.0
#: A study that cost so long without success rests at once: a worker waited for it, and all others with it.
COSTLY_S = 10.0
#: Studies that are remembered; of more, those that were looked at least lately are forgotten.
REMEMBERED = 10_000


class _Study:
    """What happened to a study since its last success."""

    def __init__(self) -> None:
        #: Deliveries put off since it last rested, and the time that they took.
        self.put_off: set[str] = set()
        self.cost_s = 0.0
        self.rests = 0
        self.until = 0.0
        #: Others were taken meanwhile: what it meets says nothing about the destination.
        self.alone = False


class Suspects:
    """The studies of which a destination took nothing lately. For all workers of a destination."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._studies: dict[str, _Study] = {}
        self._since_success: set[str] = set()
        self._last_tried = ""

    def put_off(self, delivery: Delivery, took_s: float) -> bool:
        """An object was not taken, which took so long. Whether the destination is at fault: it took nothing of `STRIKES` studies."""
        uid = delivery.study_instance_uid
        with self._lock:
            study = self._studies.pop(uid) if uid in self._studies else _Study()
            self._studies[uid] = study  # the last one, so that those that were met least lately are forgotten first
            if len(self._studies) > REMEMBERED:
                self._studies.pop(next(iter(self._studies)))
            study.put_off.add(delivery.delivery_id)
            study.cost_s += took_s
            if len(study.put_off) >= STRIKES or study.cost_s >= COSTLY_S:
                pause_s = max(min(LONGEST_REST_S, FIRST_REST_S * 2 ** min(study.rests, 16)), PATIENCE * study.cost_s)
                study.until, study.rests = self._clock() + pause_s, study.rests + 1
                study.put_off, study.cost_s = set(), 0.0
            if study.alone:
                return False
            self._since_success.add(uid)
            return len(self._since_success) >= STRIKES

    def success(self, delivery: Delivery) -> None:
        """The destination took an object: its study is free of suspicion, and the others that were not taken are suspected alone."""
        if not self._studies:
            return
        with self._lock:
            self._studies.pop(delivery.study_instance_uid, None)
            self._since_success.clear()
            for study in self._studies.values():
                study.alone = True

    def rests(self, study_instance_uid: str) -> bool:
        """Whether nothing of a study is to be tried now."""
        study = self._studies.get(study_instance_uid)
        return study is not None and study.until > self._clock()

    def resting(self) -> frozenset[str]:
        """The studies of which nothing is to be tried now."""
        if not self._studies:
            return frozenset()
        with self._lock:
            now = self._clock()
            return frozenset(uid for uid, study in self._studies.items() if study.until > now)

    def tries(self, study_instance_uid: str) -> None:
        """The destination is tried again, after an outage, with an object of this study."""
        self._last_tried = study_instance_uid

    def avoided(self) -> tuple[frozenset[str], ...]:
        """With which studies not to try the destination again after an outage; the next ones if nothing else waits.

        First none that is suspected, then any but that of the last try, then any.
        """
        with self._lock:
            last = frozenset({self._last_tried} if self._last_tried else ())
            return tuple(dict.fromkeys((frozenset(self._studies) | last, last, frozenset())))
