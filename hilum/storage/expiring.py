"""Have originals expire: decide, durably, then delete. May end at any point, and goes on there.

An original has expired once the decision is committed. Its bytes are deleted afterwards, unless it came again meanwhile: then the
decision is taken back. Bounded batches, one process at a time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from datetime import datetime, timedelta
from typing import Protocol

from msgspec import Struct

from hilum import telemetry
from hilum.errors import NotFound, TryAgain
from hilum.sections import Retention
from hilum.storage.keeping import Facts, Term, verdict
from hilum.storage.marker import DELETES_WITHIN_S, Marker
from hilum.storage.records import ExpiryRow, Undeleted
from hilum.store import KeepingStore

#: Receipts that are looked at, and originals that are deleted, at once.
PAGE, BATCH = 200, 100

log = telemetry.logger("expire")


class Ledger(Protocol):
    """What expiry needs of the tables; see `hilum.storage.records.Records`."""

    def page(self, after: str, before: datetime, limit: int) -> tuple[str, list[str]]:
        """The next instances to look at."""
        ...

    def facts(self, sop_instance_uids: Sequence[str]) -> list[Facts]:
        """What is known of their originals."""
        ...

    def decide(self, sop_instance_uids: Sequence[str], expires: Callable[[Facts], ExpiryRow | None]) -> int | None:
        """Have expire what `expires` gives a row for, while nobody plans a delivery; how many. None if somebody does."""
        ...

    def undeleted(self, limit: int) -> list[Undeleted]:
        """What has expired and may still be there."""
        ...

    def take_back(self, row: Undeleted) -> None:
        """Keep it after all."""
        ...

    def deleted(self, rows: Sequence[Undeleted], now: datetime) -> None:
        """Record that their bytes are gone."""
        ...


class Done(Struct, kw_only=True):
    """What came of a step."""

    decided: int = 0
    deleted: int = 0
    size_bytes: int = 0
    #: Decisions that were taken back: the object came again, or the store retains it.
    taken_back: int = 0
    #: Where the next step goes on; empty: everything was looked at.
    after: str = ""


class Expirer:
    """Has originals expire, a step at a time."""

    def __init__(
        self,
        ledger: Ledger,
        store: KeepingStore,
        marker: Marker,
        retention: Retention,
        by: str,
        *,
        awaited: Callable[[], Collection[str]] = frozenset,
        elapsed: Callable[[], float] = time.monotonic,
    ) -> None:
        """`awaited` gives the SOPInstanceUIDs of which storage commitment was asked for and not decided."""
        self._ledger = ledger
        self._store = store
        self._marker = marker
        self._bucket = marker.bucket
        self._retention = retention
        self._by = by
        self._awaited = awaited
        self._elapsed = elapsed

    def step(self, after: str, now: datetime) -> Done:
        """Delete what has expired already; then look at the receipts behind `after`, and have expire what may.

        `now` is a time at which no clock that matters is behind. Raises as the tables and the store do; then the step may be repeated.
        """
        done = Done(after=after)
        left = self._ledger.undeleted(BATCH)
        if not self._retention.anything:  # whoever takes the terms away wants nothing deleted any more
            for each in left:
                self._ledger.take_back(each)
            return Done(taken_back=len(left))
        if left:  # of a process that was killed, or of the step before
            self._delete(left, now, done)
            return done
        done.after, instances = self._ledger.page(after, now - timedelta(days=1), PAGE)
        awaited = frozenset(self._awaited())

        def expires(facts: Facts) -> ExpiryRow | None:
            found = verdict(facts, self._retention, now, awaited=facts.sop_instance_uid in awaited)
            return self._row(facts, found) if isinstance(found, Term) else None

        chosen = [row for facts in self._ledger.facts(instances) if (row := expires(facts)) is not None]
        if chosen and self._store.has_object_lock(self._bucket):
            chosen = [row for row in chosen if not self._store.is_retained(row.bucket, row.object_key)]
        if chosen:
            decided = self._ledger.decide(sorted({row.sop_instance_uid for row in chosen}), expires)
            if decided is None:
                raise TryAgain("Deliveries are being planned.", after_s=1.0)
            done.decided = decided
            self._delete(self._ledger.undeleted(BATCH), now, done)
        return done

    def _row(self, facts: Facts, term: Term) -> ExpiryRow:
        return ExpiryRow(
            bucket=facts.bucket,
            object_key=facts.object_key,
            study_instance_uid=facts.study_instance_uid,
            series_instance_uid=facts.series_instance_uid,
            sop_instance_uid=facts.sop_instance_uid,
            sha256=facts.sha256,
            size_bytes=facts.size_bytes,
            receipts=facts.receipts,
            days=term.days,
            policy=term.policy,
            policy_version=self._retention.version,
            decided_by=self._by,
        )

    def _delete(self, rows: Sequence[Undeleted], now: datetime, done: Done) -> None:
        """Delete, record. What comes again meanwhile is kept; see `hilum.storage.marker`."""
        here = [row for row in rows if row.bucket == self._bucket]
        locks = self._store.has_object_lock(self._bucket)
        began = self._elapsed()
        written_at = self._marker.write([row.object_key for row in here])
        gone: list[Undeleted] = []
        try:
            for row in here:
                if self._elapsed() - began > DELETES_WITHIN_S:
                    break  # the rest is for the next step, with a marker of its own
                if row.came_again or not self._may_go(row, written_at, locks):
                    self._ledger.take_back(row)
                    done.taken_back += 1
                    log.info("expiry_taken_back", instance=row.sop_instance_uid, sha256=row.sha256)
                    continue
                self._store.delete(row.bucket, row.object_key)
                gone.append(row)
        finally:
            self._ledger.deleted(gone, now)
            done.deleted += len(gone)
            done.size_bytes += sum(row.size_bytes for row in gone)
        self._marker.done()

    def _may_go(self, row: Undeleted, written_at: datetime, locks: bool) -> bool:
        """Whether the object is as old as its term by the store's own clock, and not retained there."""
        try:
            if self._store.stat(row.bucket, row.object_key).modified_at > written_at - timedelta(days=row.days):
                return False
            return not locks or not self._store.is_retained(row.bucket, row.object_key)
        except NotFound:
            return True  # deleted before, and not recorded
