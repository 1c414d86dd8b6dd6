"""Keep each instance: in place, where the original already lies, or as a copy in another bucket or store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Annotated, ClassVar, Literal

import msgspec
from msgspec import Meta, Struct

from hilum.errors import Misconfigured, NotFound
from hilum.events import ObjectRef
from hilum.kinds import Endpoint, OptionalBucket
from hilum.layout import Layout, Template
from hilum.part10 import Missing, Part10, Unsound
from hilum.settings import S3, Settings
from hilum.sink import KEPT_IN_PLACE, Delivery, Later, Session, Settled, Sink, Step, step
from hilum.store import KeepingStore, ObjectStore, RetentionMode, open_store

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
    #: Keys of copies: DICOM keywords, `sha256`, `destination` and `received_date` in braces; empty: the originals' keys.
    layout: Template | Literal[""] = ""
    #: Retain each copy for so many days (object lock); the bucket is made with object lock, or must have it. 0: do not.
    retain_days: Annotated[int, Meta(ge=0, le=36_500)] = 0
    #: `governance` may be lifted by who has the right, `compliance` by nobody.
    retain_mode: RetentionMode = "governance"
    #: Have the store delete copies after so many days (lifecycle); 0: never.
    expire_days: Annotated[int, Meta(ge=0, le=36_500)] = 0

    batch: ClassVar[int] = 500

    def __post_init__(self) -> None:
        if self.endpoint and not self.bucket:
            raise ValueError("`endpoint` is set, so `bucket` must be too")
        if self.endpoint and not (self.access_key and self.secret_key):
            raise ValueError("`endpoint` is set, so `access_key` and `secret_key` must be too")
        if not self.bucket and (self.layout or self.retain_days or self.expire_days):
            raise ValueError("`layout`, `retain_days` and `expire_days` are of copies, so `bucket` must be set")
        if self.expire_days and self.expire_days <= self.retain_days:
            raise ValueError("`expire_days` must be more than `retain_days`")
        if self.layout:
            Layout(self.layout)

    @property
    def reads(self) -> bool:
        """See `Sink.reads`: copies read for themselves."""
        return False

    def open(self, settings: Settings) -> Session:
        """See `Sink.open`."""
        if self._in_place(settings):
            return self
        keeping = Keeping(
            layout=Layout(self.layout) if self.layout else None,
            retain_days=self.retain_days,
            retain_mode=self.retain_mode,
            expire_days=self.expire_days,
        )
        return Copies(open_store(settings), self._store(settings), self.bucket, own=not self.endpoint, keeping=keeping)

    def deliver(self, delivery: Delivery, part10: Part10) -> Settled:
        """Adopt the original."""
        del delivery, part10
        return Settled(state="delivered", comment=KEPT_IN_PLACE)

    def check(self, settings: Settings, *, with_object: bool = False) -> Iterator[Step]:
        """See `Sink.check`: the store answers, takes the keys and has the bucket."""
        del with_object  # what keys may do is asked otherwise
        bucket = self.bucket or settings.s3.bucket
        with step("store") as asking:
            store = self._store(settings)
            if self.bucket and not self.endpoint:
                store.ensure_bucket(bucket, object_lock=self.retain_days > 0)
            store.check(bucket)
            asking.says = f"{self.endpoint or settings.s3.endpoint} has bucket {bucket}"
        yield asking.done
        if asking.done.ok and self.retain_days:
            with step("object lock") as locking:
                _check_lock(store, bucket)
                locking.says = f"objects of bucket {bucket} can be retained"
            yield locking.done

    def _in_place(self, settings: Settings) -> bool:
        return not self.bucket or (not self.endpoint and self.bucket == settings.s3.bucket)

    def _store(self, settings: Settings) -> KeepingStore:
        if not self.endpoint:
            return open_store(settings)
        s3 = S3(endpoint=self.endpoint, region=self.region, access_key=self.access_key, secret_key=self.secret_key, ca_file=self.ca_file)
        return open_store(msgspec.structs.replace(settings, s3=s3))


class Keeping(Struct, frozen=True, kw_only=True):
    """How copies are kept."""

    #: None: under the originals' keys.
    layout: Layout | None = None
    retain_days: int = 0
    retain_mode: RetentionMode = "governance"
    expire_days: int = 0


class Copies(Session):
    """Makes copies, by default under the originals' keys, which hold the digest: an object that is there already is the same one."""

    def __init__(
        self,
        source: ObjectStore,
        target: KeepingStore,
        bucket: str,
        *,
        own: bool,
        keeping: Keeping | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._source = source
        self._target = target
        self._bucket = bucket
        self._own = own
        self._keeping = keeping or Keeping()
        self._now = now
        self._ready = False

    def deliver(self, delivery: Delivery, part10: Part10) -> Settled:
        """Copy the object, unless it is there, read the copy to see that it is whole, and have it retained."""
        ref, keeping = part10.ref, self._keeping
        self._make_ready()
        key = keeping.layout.path(delivery, part10) if keeping.layout else ref.key
        copy = msgspec.structs.replace(ref, bucket=self._bucket, key=key)
        if self._has(copy):
            self._retain(copy)
            return Settled(state="already_there", comment=f"in bucket {self._bucket}")
        if keeping.layout and not keeping.layout.names_digest and not keeping.retain_days and self._is_taken(copy):
            # Retained objects have versions: there a second one under the same key takes nothing away.
            return Settled(state="rejected", comment=f"Another object has its key in bucket {self._bucket}: name {{sha256}} in `layout`.")
        if self._own:
            self._copy_inside(ref, copy)
        else:
            self._copy_across(ref, copy)
        if not self._has(copy):
            self._target.delete(copy.bucket, copy.key)
            _drain(part10)  # raises if the original is at fault
            sentence = f"The copy in bucket {self._bucket} was not the same as its original."
            raise Later(sentence, fix="Check the store that holds the bucket.")
        self._retain(copy)
        return Settled(state="delivered", comment=f"copied to bucket {self._bucket}")

    def _make_ready(self) -> None:
        if self._ready:
            return
        if self._own:
            self._target.ensure_bucket(self._bucket, object_lock=self._keeping.retain_days > 0)
        if self._keeping.retain_days:
            _check_lock(self._target, self._bucket)
        if self._keeping.expire_days:
            self._target.expire_after(self._bucket, self._keeping.expire_days)
        self._ready = True

    def _retain(self, copy: ObjectRef) -> None:
        if self._keeping.retain_days:
            until = self._now() + timedelta(days=self._keeping.retain_days)
            self._target.retain(copy.bucket, copy.key, self._keeping.retain_mode, until)

    def _is_taken(self, copy: ObjectRef) -> bool:
        try:
            self._target.stat(copy.bucket, copy.key)
        except NotFound:
            return False
        return True

    def _has(self, copy: ObjectRef) -> bool:
        """Whether the copy is there and has the original's digest."""
        try:
            if self._target.stat(copy.bucket, copy.key).size_bytes != copy.size_bytes:
                return False
            _drain(Part10(self._target, copy))
        except (NotFound, Unsound):
            return False
        return True

    def _copy_inside(self, ref: ObjectRef, copy: ObjectRef) -> None:
        try:
            self._source.copy(ref.bucket, ref.key, copy.bucket, copy.key)
        except NotFound:
            raise self._missing(ref) from None

    def _copy_across(self, ref: ObjectRef, copy: ObjectRef) -> None:
        try:
            with self._source.open(ref.bucket, ref.key) as stream:
                self._target.put(copy.bucket, copy.key, stream, ref.size_bytes)
        except NotFound:
            raise self._missing(ref) from None

    def _missing(self, ref: ObjectRef) -> Missing:
        return Missing(f"Object {ref.key} is not in bucket {ref.bucket}: it was not copied.", fix="Restore the bucket from its backup.")


def _check_lock(store: KeepingStore, bucket: str) -> None:
    if not store.has_object_lock(bucket):
        fix = "Object lock can only be had by a new bucket: name another, or set `retain_days` to 0."
        raise Misconfigured("s3-object-lock", f"Bucket {bucket} has no object lock, so its objects cannot be retained.", fix=fix)


def _drain(part10: Part10) -> None:
    """Read an object to see that it is as it was received."""
    for _ in part10.data_set(_PIECE_BYTES):
        pass
