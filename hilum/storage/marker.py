"""What keeps an object that comes again from being deleted as the one that expired: a marker in the store.

Both have the same key, and the publisher knows nothing of the database. So whoever deletes first writes a marker that names the keys,
then looks how old each object is; whoever stores an object looks at the marker after the store's answer, and before it tells anybody.
Whichever of the two comes second sees the other: a young object is not deleted, and what the marker names is stored once more, later.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Collection
from datetime import datetime
from io import BytesIO

import msgspec
from msgspec import Struct

from hilum.errors import NotFound
from hilum.store import ObjectStore

#: Beside the originals; no study is called so.
KEY = "expiring/marker.json"
#: After the marker was written, nothing is deleted any more after so long.
DELETES_WITHIN_S = 30.0
#: A marker that one has seen for so long is of a process that was killed: whatever it asked of the store is done or forgotten.
STALE_AFTER_S = 600.0


class Marker(Struct, frozen=True, kw_only=True):
    """Keys that may be deleted at this moment."""

    id: str
    keys: tuple[str, ...]


def write(store: ObjectStore, bucket: str, keys: Collection[str]) -> datetime:
    """Name `keys` as those that may be deleted; the store's clock. Raises as `ObjectStore.put` does."""
    content = msgspec.json.encode(Marker(id=str(uuid.uuid4()), keys=tuple(sorted(keys))))
    store.put(bucket, KEY, BytesIO(content), len(content))
    return store.stat(bucket, KEY).modified_at


def remove(store: ObjectStore, bucket: str) -> None:
    """Nothing may be deleted any more. Raises as `ObjectStore.delete` does."""
    store.delete(bucket, KEY)


class Watch:
    """The marker, as who stores objects sees it."""

    def __init__(self, store: ObjectStore, bucket: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._bucket = bucket
        self._clock = clock
        self._id = ""
        self._seen_at = 0.0

    def expiring(self) -> frozenset[str]:
        """The keys that may be deleted at this moment: what was stored under one of them must be stored again. Raises `TryAgain`."""
        try:
            marker = msgspec.json.decode(self._store.get(self._bucket, KEY), type=Marker)
        except NotFound:
            return frozenset()
        except msgspec.MsgspecError:
            return frozenset()  # a future release's, or nobody's: ours are whole
        if marker.id != self._id:
            self._id, self._seen_at = marker.id, self._clock()
        return frozenset() if self._clock() - self._seen_at > STALE_AFTER_S else frozenset(marker.keys)
