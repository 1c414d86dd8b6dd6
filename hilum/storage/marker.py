"""What keeps an object that comes again from being deleted as the one that expired: a marker in the store.

Both have the same key, and the publisher knows nothing of the database. So whoever deletes first writes a marker that lists the keys,
then looks how old each object is in the store, then deletes; the keys stay listed for a while. Whoever stores an object looks at the
marker soon after the store's answer, before anybody is told of it, and stores once more what is listed. Of the two looks one sees the
other's write: an object that was stored before the marker is young, and is not deleted; one that was stored after it is listed.
"""

from __future__ import annotations

import hashlib
import time
import uuid
from collections.abc import Callable, Collection
from datetime import datetime
from io import BytesIO

from hilum.errors import NotFound
from hilum.store import ObjectStore

#: Beside the originals; no study is called so.
KEY = "expiring/marker"
#: After the marker was written, nothing is deleted any more after so long.
DELETES_WITHIN_S = 30.0
#: Keys are listed for so long after they were deleted: longer than a look takes after an object was stored (`LOOK_WITHIN_S`, and the
#: time for which the store's answer may be on its way).
LISTED_S = 300.0
LOOK_WITHIN_S = 60.0
#: A marker that one has seen unchanged for so long is of a process that is gone: whatever it asked of the store is done or forgotten.
STALE_AFTER_S = 900.0
_ID_BYTES, _HASH_BYTES = 16, 8


class Marker:
    """The marker, as who deletes has it. Every method raises as the store does."""

    def __init__(self, store: ObjectStore, bucket: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self.bucket = bucket
        self._clock = clock
        #: Since when each is deleted; None: it may be at this moment.
        self._listed: dict[bytes, float | None] | None = None

    def write(self, keys: Collection[str]) -> datetime:
        """List `keys` as those that may be deleted from now on; the store's clock."""
        self._forget_old()
        self._listed = (self._listed or {}) | dict.fromkeys(map(_hash, keys))
        self._put()
        return self._store.stat(self.bucket, KEY).modified_at

    def done(self) -> None:
        """Nothing is deleted any more. The keys stay listed."""
        now = self._clock()
        self._listed = {each: now if since is None else since for each, since in (self._listed or {}).items()}

    def tidy(self) -> None:
        """Remove the marker once nothing needs to be listed any more, that of a process before this one included."""
        if self._listed == {}:
            return
        self._forget_old()
        if self._listed == {}:
            self._store.delete(self.bucket, KEY)

    def _forget_old(self) -> None:
        if self._listed is None:  # what was listed by another process, nobody knows since when
            self._listed = dict.fromkeys(_read(self._store, self.bucket)[1], self._clock())
        long_ago = self._clock() - LISTED_S
        self._listed = {each: since for each, since in self._listed.items() if since is None or since > long_ago}

    def _put(self) -> None:
        content = uuid.uuid4().bytes + b"".join(sorted(self._listed or ()))
        self._store.put(self.bucket, KEY, BytesIO(content), len(content))


class Watch:
    """The marker, as who stores objects sees it."""

    def __init__(self, store: ObjectStore, bucket: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._bucket = bucket
        self._clock = clock
        self._id = b""
        self._seen_at = 0.0

    def listed(self, keys: Collection[str]) -> frozenset[str]:
        """Those of these keys under which an object may have been deleted of late. Raises `TryAgain`, `Misconfigured`."""
        id_, listed = _read(self._store, self._bucket)
        if id_ != self._id:
            self._id, self._seen_at = id_, self._clock()
        if not listed or self._clock() - self._seen_at > STALE_AFTER_S:
            return frozenset()
        return frozenset(key for key in keys if _hash(key) in listed)


def _read(store: ObjectStore, bucket: str) -> tuple[bytes, frozenset[bytes]]:
    try:
        content = store.get(bucket, KEY)
    except NotFound:
        return b"", frozenset()
    hashes = range(_ID_BYTES, len(content), _HASH_BYTES)
    return content[:_ID_BYTES], frozenset(content[at : at + _HASH_BYTES] for at in hashes)


def _hash(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()[:_HASH_BYTES]
