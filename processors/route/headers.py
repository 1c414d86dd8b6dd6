"""Headers of objects in the object store, where a rule names what an event's header leaves out."""

from __future__ import annotations

from typing import Protocol

from hilum.dicom import Header
from hilum.dicom.dataset import read_header
from hilum.events import Instance
from hilum.part10 import data_set_offset
from hilum.store import ObjectStore


class Headers(Protocol):
    """Reads headers in the object store."""

    def whole(self, instance: Instance, tags: frozenset[str]) -> Header:
        """The header of the stored object with the values of `tags`, however long. Raises `TryAgain`."""
        ...


class StoredHeaders:
    """Headers of objects in the object store, where a rule names what the event's header leaves out: a rare way."""

    #: Pixel data comes last, so that what a rule may name is in the beginning.
    READ_BYTES = 16 * 2**20

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def whole(self, instance: Instance, tags: frozenset[str]) -> Header:
        """See `Headers`."""
        size = min(self.READ_BYTES, instance.object.size_bytes)
        part10 = self._store.get(instance.object.bucket, instance.object.key, 0, size)
        found = read_header(part10, instance.transfer_syntax_uid, start=data_set_offset(part10), keep=tags)
        # What may come after the part that was read is not absent either.
        beyond = tags - found.json.keys() if found.fault else frozenset()
        return Header(found.json, cut=frozenset(found.cut) | beyond)
