"""Keep each instance: in place, where the original already lies, or as a copy in another bucket or store."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import msgspec

from hilum.errors import NotFound
from hilum.events import ObjectRef
from hilum.kinds import Endpoint, OptionalBucket
from hilum.part10 import Part10, Unsound
from hilum.settings import S3, Settings
from hilum.sink import Delivery, Later, Session, Settled, Sink, Step, step
from hilum.store import ObjectStore, open_store

_PIECE_BYTES = 2**20


class Archive(Sink, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The archive. Without `bucket` it adopts the original: no byte is read or moved, and the ledger says that it is to be kept.

    That the original is there was settled before: an instance is announced only after the store has answered for its object.
    `hilum reconcile` looks whether it still is: it reads a piece of a random sample, and with `--verify` every object whole.
    """

    #: Bucket for copies; empty: originals are kept in place. In Hilum's own store it is made if need be.
    bucket: OptionalBucket = ""
    #: Another store; empty: Hilum's own.
    endpoint: Endpoint = ""
    region: str = "us-east-1"
    access_key: str = ""
    secret_key: str = ""
    #: PEM file of the authorities to trust; empty: the system's.
    ca_file: str = ""

    batch: ClassVar[int] = 500

    def __post_init__(self) -> None:
        if self.endpoint and not self.bucket:
            raise ValueError("`endpoint` is set, so `bucket` must be too")
        if self.endpoint and not (self.access_key and self.secret_key):
            raise ValueError("`endpoint` is set, so `access_key` and `secret_key` must be too")

    @property
    def reads(self) -> bool:
        """See `Sink.reads`: copies read for themselves."""
        return False

    def open(self, settings: Settings) -> Session:
        """See `Sink.open`."""
        if self._in_place(settings):
            return self
        return Copies(open_store(settings), self._store(settings), self.bucket, own=not self.endpoint)

    def deliver(self, delivery: Delivery, part10: Part10) -> Settled:
        """Adopt the original."""
        del delivery, part10
        return Settled(state="delivered", comment="kept in place")

    def check(self, settings: Settings, *, with_object: bool = False) -> Iterator[Step]:
        """See `Sink.check`: the store answers, takes the keys and has the bucket."""
        del with_object  # what keys may do is asked otherwise
        bucket = self.bucket or settings.s3.bucket
        with step("store") as asking:
            store = self._store(settings)
            if self.bucket and not self.endpoint:
                store.ensure_bucket(bucket)
            store.check(bucket)
            asking.says = f"{self.endpoint or settings.s3.endpoint} has bucket {bucket}"
        yield asking.done

    def _in_place(self, settings: Settings) -> bool:
        return not self.bucket or (not self.endpoint and self.bucket == settings.s3.bucket)

    def _store(self, settings: Settings) -> ObjectStore:
        if not self.endpoint:
            return open_store(settings)
        s3 = S3(endpoint=self.endpoint, region=self.region, access_key=self.access_key, secret_key=self.secret_key, ca_file=self.ca_file)
        return open_store(msgspec.structs.replace(settings, s3=s3))


class Copies(Session):
    """Makes copies under the originals' keys, which hold the digest: an object that is there already is the same one."""

    def __init__(self, source: ObjectStore, target: ObjectStore, bucket: str, *, own: bool) -> None:
        self._source = source
        self._target = target
        self._bucket = bucket
        self._own = own
        self._made = False

    def deliver(self, delivery: Delivery, part10: Part10) -> Settled:
        """Copy the object, unless it is there, and read the copy to see that it is whole."""
        ref = part10.ref
        del delivery
        copy = msgspec.structs.replace(ref, bucket=self._bucket)
        if self._own and not self._made:
            self._target.ensure_bucket(self._bucket)
            self._made = True
        if self._has(copy):
            return Settled(state="already_there", comment=f"in bucket {self._bucket}")
        if self._own:
            self._copy_inside(ref)
        else:
            self._copy_across(ref)
        if not self._has(copy):
            self._target.delete(copy.bucket, copy.key)
            _drain(part10)  # raises if the original is at fault
            sentence = f"The copy in bucket {self._bucket} was not the same as its original."
            raise Later(sentence, fix="Check the store that holds the bucket.")
        return Settled(state="delivered", comment=f"copied to bucket {self._bucket}")

    def _has(self, copy: ObjectRef) -> bool:
        """Whether the copy is there and has the original's digest."""
        try:
            if self._target.stat(copy.bucket, copy.key).size_bytes != copy.size_bytes:
                return False
            _drain(Part10(self._target, copy))
        except (NotFound, Unsound):
            return False
        return True

    def _copy_inside(self, ref: ObjectRef) -> None:
        try:
            self._source.copy(ref.bucket, ref.key, self._bucket, ref.key)
        except NotFound:
            raise self._missing(ref) from None

    def _copy_across(self, ref: ObjectRef) -> None:
        try:
            with self._source.open(ref.bucket, ref.key) as stream:
                self._target.put(self._bucket, ref.key, stream, ref.size_bytes)
        except NotFound:
            raise self._missing(ref) from None

    def _missing(self, ref: ObjectRef) -> Unsound:
        return Unsound(f"Object {ref.key} is not in bucket {ref.bucket}: it was not copied.", fix="Restore the bucket from its backup.")


def _drain(part10: Part10) -> None:
    """Read an object to see that it is as it was received."""
    for _ in part10.data_set(_PIECE_BYTES):
        pass
