"""Records of what comes in many small pieces, such as STOW-RS requests of one object each: one record for a sender's minute.

Whoever is killed loses the records of the minute that is not over; objects are accounted for by their receipts.
"""

from __future__ import annotations

import secrets
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

from msgspec import Struct, field

from hilum import telemetry
from hilum.events import Adapter, AssociationEnded
from hilum.records import Records
from hilum.words import counted

log = telemetry.logger("records")

#: So long after its first request a record takes no further ones.
LONGEST = timedelta(minutes=1)
#: Records that are added to at the same time; further senders are summed up as one.
MOST_AT_ONCE = 1000
OTHERS = "others"


class _Sum(Struct, kw_only=True):
    id: str
    opened_at: datetime
    ended_at: datetime
    under_way: int = 0
    requests: int = 0
    objects: int = 0
    size_bytes: int = 0
    statuses: Counter[str] = field(default_factory=Counter)


class Summed:
    """The records of one adapter; used by many threads. `noun` is what it sums up: `request`, `file`."""

    def __init__(self, records: Records, adapter: Adapter, noun: str, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._records = records
        self._adapter = adapter
        self._noun = noun
        self._now = now
        self._lock = threading.Lock()
        #: By sender, peer, and why they were refused; and those that take no more, but wait for what is under way.
        self._sums: dict[tuple[str, str, str], _Sum] = {}
        self._full: list[tuple[tuple[str, str, str], _Sum]] = []
        self._by_id: dict[str, _Sum] = {}

    def begin(self, calling_aet: str, peer: str) -> str:
        """A request begins: the id of the record in which it will be counted. `end` must follow."""
        with self._lock:
            found = self._of(calling_aet, peer, "")
            found.under_way += 1
            return found.id

    def end(self, id_: str, *, statuses: Mapping[str, int] | None = None, objects: int = 0, size_bytes: int = 0) -> None:
        """The request is over: how often each status was given, what was stored. Without `statuses` it counts for nothing."""
        with self._lock:
            found = self._by_id[id_]
            found.under_way -= 1
            if statuses is not None:
                found.requests += 1
                found.objects += objects
                found.size_bytes += size_bytes
                found.statuses.update(statuses)
                found.ended_at = self._now()

    def refuse(self, calling_aet: str, peer: str, refused: str, status: str) -> str:
        """A request was refused as a whole; the id of its record."""
        with self._lock:
            found = self._of(calling_aet, peer, refused)
            found.requests += 1
            found.statuses[status] += 1
            found.ended_at = self._now()
            return found.id

    def write(self, *, everything: bool = False) -> None:
        """Leave the records whose minute is over, or all of them."""
        with self._lock:
            self._set_aside(everything=everything)
            ready = [each for each in self._full if everything or not each[1].under_way]
            self._full = [each for each in self._full if each not in ready]
            for _, done in ready:
                if not done.under_way:
                    del self._by_id[done.id]
        for (calling_aet, peer, refused), done in ready:
            if not done.requests:
                continue
            try:
                self._records.put(self._record(calling_aet, peer, refused, done))
            except OSError as error:
                log.warning("record_not_kept", association=done.id, says=error.strerror or "")

    def _of(self, calling_aet: str, peer: str, refused: str) -> _Sum:
        key = (calling_aet, peer, refused)
        self._set_aside(everything=False)
        if key not in self._sums and len(self._sums) >= MOST_AT_ONCE:
            key = ("", OTHERS, refused)
        if key not in self._sums:
            now = self._now()
            self._sums[key] = _Sum(id=secrets.token_hex(8), opened_at=now, ended_at=now)
            self._by_id[self._sums[key].id] = self._sums[key]
        return self._sums[key]

    def _set_aside(self, *, everything: bool) -> None:
        before = self._now() - LONGEST
        for key in [key for key, each in self._sums.items() if everything or each.opened_at <= before]:
            self._full.append((key, self._sums.pop(key)))

    def _record(self, calling_aet: str, peer: str, refused: str, done: _Sum) -> AssociationEnded:
        return AssociationEnded(
            association=done.id,
            adapter=self._adapter,
            requests=done.requests,
            calling_aet=calling_aet,
            called_aet="",
            peer=peer,
            refused=refused,
            ended=counted(done.requests, self._noun),
            objects=done.objects,
            size_bytes=done.size_bytes,
            statuses=dict(done.statuses),
            opened_at=done.opened_at,
            ended_at=done.ended_at,
        )
