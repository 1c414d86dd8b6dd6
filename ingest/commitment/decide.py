"""What is committed of a request for storage commitment (PS3.4 J.3): what is in the object store as it was received, and nothing else.

No answer is given before everything that had been acknowledged when the request came is in the index: a second object under the same
UID may still be on its way. Nor is an object said to be missing before everything that had been acknowledged when the time for waiting
was over is in the index: an outage delays the answer and never makes it a wrong one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Protocol

from msgspec import Struct

from hilum import telemetry
from hilum.commitments import Commitment
from hilum.dicom.commitment import Failure, FailureReason, Reference
from hilum.errors import TryAgain
from hilum.events import ObjectRef
from hilum.part10 import Part10, Unsound
from hilum.store import ObjectStore

log = telemetry.logger("commitment")

_READ_BYTES = 2**20
#: So long one request's objects are read at a time, so that a large request does not make the others wait for its end.
SLICE_S = 1.0


class Arrived(Struct, frozen=True, kw_only=True):
    """One object of an instance that the index knows."""

    receipt: str
    sop_class_uid: str
    object: ObjectRef


class Index(Protocol):
    """What the index knows. Its methods raise `TryAgain` while PostgreSQL is away."""

    def arrived(self, sop_instance_uids: Sequence[str]) -> Mapping[str, Sequence[Arrived]]:
        """What came of these instances, in quarantine or not; those of which nothing is known are left out."""
        ...

    def hold(self, receipts: Sequence[str]) -> None:
        """Put down that these are promised to their senders: they must not expire."""
        ...


class Progress(Protocol):
    """How far the way from the spool to the index has been gone."""

    def behind(self, moment: datetime) -> str:
        """What is still awaited before everything that was acknowledged until `moment` is in the index; `""` if all of it is.

        Raises `TryAgain` while Kafka or PostgreSQL is away.
        """
        ...


class Decision(Struct, frozen=True, kw_only=True):
    """What is to be reported; all else of the request is committed."""

    failures: tuple[Failure, ...] = ()


class Waiting(Struct, frozen=True, kw_only=True):
    """Nothing can be said yet, and why."""

    says: str
    #: Whether nothing need happen before it is looked at again.
    soon: bool = False


class Decider:
    """Decides on requests, within `wait_s` of each if all it needs is there. For one thread.

    `stopping` is asked while an object is read, which may be large.
    """

    def __init__(
        self,
        index: Index,
        progress: Progress,
        store: ObjectStore,
        wait_s: float,
        *,
        slice_s: float = SLICE_S,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        self._index = index
        self._progress = progress
        self._store = store
        self._wait = timedelta(seconds=wait_s)
        self._slice_s = slice_s
        self._now = now
        self._stopping = stopping
        #: By request and key: whether the stored object is the one that was received.
        self._sound: dict[str, dict[str, bool]] = {}

    def look(self, commitment: Commitment) -> Decision | Waiting:
        """Decide, if that can be done now. Raises `TryAgain` while the index, the log or the store is away."""
        if commitment.duplicate:
            return Decision(failures=_all(commitment.references, FailureReason.DUPLICATE_TRANSACTION))
        now, until = self._now(), commitment.asked_at + self._wait
        # Asked before the index is read: what has passed by then is seen there.
        behind = self._progress.behind(commitment.asked_at)
        late = self._progress.behind(until) if now >= until else f"The last of them may come until {until:%H:%M:%S} UTC."
        arrived = self._index.arrived([reference.sop_instance_uid for reference in commitment.references])
        failures, held, missing, read, unread = [], [], [], 0, 0
        sound = self._sound.setdefault(commitment.id, {})
        deadline = time.monotonic() + self._slice_s
        for reference in commitment.references:
            found = arrived.get(reference.sop_instance_uid, ())
            if not found:
                missing.append(reference)
                continue
            reason, ref = _conflict(reference, found), found[0].object
            if reason is None:
                if ref.key not in sound:
                    if read and time.monotonic() > deadline:
                        unread += 1
                        continue
                    sound[ref.key] = self._is_sound(ref)
                    read += 1
                reason = None if sound[ref.key] else FailureReason.PROCESSING_FAILURE
            if reason is None:
                held += [each.receipt for each in found]
            else:
                failures.append(Failure(reference, reason))
        if unread:
            return Waiting(says=f"{unread} of {commitment.objects} objects are still to be read and verified.", soon=True)
        if behind:
            return Waiting(says=behind)
        if missing and late:
            return Waiting(says=f"{len(missing)} of {commitment.objects} objects are not here. {late}")
        self._index.hold(held)
        return Decision(failures=(*failures, *_all(missing, FailureReason.NO_SUCH_INSTANCE)))

    def forget(self, id_: str) -> None:
        """Drop what was found out for a request that is decided on."""
        self._sound.pop(id_, None)

    def _is_sound(self, ref: ObjectRef) -> bool:
        """Whether the stored object is the one that was received."""
        try:
            for _ in Part10(self._store, ref).data_set(_READ_BYTES):
                if self._stopping():
                    raise TryAgain("Hilum stops.")
        except Unsound:
            log.error("stored_object_unsound", object=ref.key, bucket=ref.bucket)
            return False
        return True


def _conflict(reference: Reference, found: Sequence[Arrived]) -> FailureReason | None:
    """Why no single object is the one that is meant (PS3.3 C.14.1.1)."""
    if len({each.object.sha256 for each in found}) > 1:
        return FailureReason.PROCESSING_FAILURE  # which of them the sender has, nobody knows
    if found[0].sop_class_uid not in ("", reference.sop_class_uid):  # of an unreadable object the class may not be known
        return FailureReason.CLASS_INSTANCE_CONFLICT
    return None


def _all(references: Sequence[Reference], reason: FailureReason) -> tuple[Failure, ...]:
    return tuple(Failure(reference, reason) for reference in references)
