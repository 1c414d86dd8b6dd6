"""Read originals back from the object store: its listing tells that a name is there, not that its bytes are."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from typing import Any, Literal

from msgspec import Struct

from hilum.errors import NotFound, TryAgain
from hilum.events import ObjectRef
from hilum.part10 import Missing, Part10, Unsound
from hilum.store import ObjectStore

#: Read of each object that is not read whole, at a random place of it.
PIECE_BYTES = 4096
#: Once so many cannot be read, the others are left: a store that lost their volume may take 13 s to say so of each.
ENOUGH = 20
_AT_ONCE = 16
_READ_BYTES = 2**20

Problem = Literal["unreadable", "changed"]


class ReadBack(Struct, kw_only=True):
    """What came of reading."""

    #: Objects that were tried.
    read: int = 0
    #: Those that cannot be read, though the store answers.
    unreadable: list[ObjectRef] = []
    #: Those that are not what was received: their digest differs, or they are no DICOM file.
    changed: list[ObjectRef] = []


def read_back(
    store: ObjectStore, objects: Iterable[ObjectRef], *, whole: bool, progress: Callable[[int], Any] = lambda _: None
) -> ReadBack:
    """Read a piece of each object, or all of it if `whole`, and compare its digest where `sha256` is known.

    `size_bytes` is here the file's. Ends early once `ENOUGH` cannot be read. Memory does not grow with the number or size of objects.
    `progress` is told how many were read. Raises `TryAgain` if the store does not answer at all, `Misconfigured` if it refuses.
    """
    found = ReadBack()
    look = partial(_problem, store, whole)
    coming = iter(objects)
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="read back") as threads:
        while len(found.unreadable) < ENOUGH and (batch := list(islice(coming, _AT_ONCE))):
            for ref, problem in zip(batch, threads.map(look, batch), strict=True):
                if problem:
                    (found.unreadable if problem == "unreadable" else found.changed).append(ref)
            found.read += len(batch)
            progress(found.read)
    return found


def _problem(store: ObjectStore, whole: bool, ref: ObjectRef) -> Problem | None:
    try:
        if whole and ref.sha256:
            for _ in Part10(store, ref).data_set(_READ_BYTES):
                pass
            return None
        return None if _has_piece(store, ref) else "unreadable"
    except (NotFound, Missing):
        return "unreadable"
    except Unsound:
        return "changed"
    except TryAgain:
        store.check(ref.bucket)  # if it answers, it is this object's bytes that are away
        return "unreadable"


def _has_piece(store: ObjectStore, ref: ObjectRef) -> bool:
    size = min(PIECE_BYTES, ref.size_bytes)
    at = random.randint(0, ref.size_bytes - size)  # noqa: S311  # no secret
    return not size or len(store.get(ref.bucket, ref.key, at, size)) == size
