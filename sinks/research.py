"""The research feed: each de-identified object in a bucket with keys of its own, and an event that says so."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from io import BytesIO
from mmap import mmap
from typing import BinaryIO, ClassVar, cast

import msgspec
from confluent_kafka import Producer

from hilum import bus
from hilum.anonymizing import Cleaning, TakesBack
from hilum.errors import Misconfigured, NotFound, TryAgain
from hilum.event_ids import following_id
from hilum.kinds import Bucket, Endpoint
from hilum.part10 import Part10
from hilum.settings import S3, Settings
from hilum.sink import Delivery, Expected, Session, Settled, Sink, Step, step
from hilum.store import ObjectStore, open_store
from hilum.study_events import InstanceDeidentified

#: How long the broker may take to acknowledge an event.
_PUBLISHED_WITHIN_S = 20.0

#: Says events, and returns once they are acknowledged. Raises `TryAgain`.
Say = Callable[[InstanceDeidentified, str], None]


class Research(Sink, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A bucket for research. It takes nothing that is not de-identified, so `policy` must be set."""

    #: The bucket; in Hilum's own store it is made if need be, and is not that of the originals.
    bucket: Bucket
    #: Another store; empty: Hilum's own.
    endpoint: Endpoint = ""
    region: str = "us-east-1"
    #: Keys that may write into this bucket and nowhere else; without `endpoint` they may be empty: Hilum's own.
    access_key: str = ""
    secret_key: str = ""
    #: PEM file of the authorities to trust; empty: the system's.
    ca_file: str = ""

    takes_policy: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not self.policy:
            raise ValueError("`policy` must be set: nothing goes to research as it is")
        if self.endpoint and not (self.access_key and self.secret_key):
            raise ValueError("`endpoint` is set, so `access_key` and `secret_key` must be too")

    def fits(self, name: str, settings: Settings) -> None:
        """See `Sink.fits`: originals and what is de-identified are never in one bucket, nor are two feeds."""
        for other, table in settings.destinations.items():
            same = (table.get("type"), table.get("bucket"), table.get("endpoint", "")) == ("research", self.bucket, self.endpoint)
            if same and other != name and name in settings.destinations:
                raise Misconfigured(
                    "research-bucket",
                    f"destinations.{name}: {self.bucket} is the bucket of {other} as well.",
                    fix="Give each a bucket of its own: what is taken back from one would be gone for both.",
                )
        if self.bucket == settings.s3.bucket and self.endpoint in ("", settings.s3.endpoint):
            raise Misconfigured(
                "research-bucket", f"destinations.{name}: {self.bucket} is the bucket of the originals.", fix="Name a bucket of its own."
            )

    def open(self, settings: Settings) -> Session:
        """See `Sink.open`."""
        self.fits("research", settings)
        return Feed(self._store(settings), self.bucket, _saying(settings), own=not self.endpoint)

    def check(self, settings: Settings, *, with_object: bool = False) -> Iterator[Step]:
        """See `Sink.check`: the store answers, takes the keys and has the bucket."""
        del with_object  # an object of nobody has no place in a study
        with step("store") as asking:
            self.fits("research", settings)
            store = self._store(settings)
            if not self.endpoint:
                store.ensure_bucket(self.bucket)
            store.check(self.bucket)
            asking.says = f"{self.endpoint or settings.s3.endpoint} has bucket {self.bucket}"
        yield asking.done

    def holdings(self, settings: Settings, study_instance_uid: str, expected: Collection[Expected]) -> frozenset[str]:
        """See `Sink.holdings`."""
        del expected
        found = self._store(settings).list(self.bucket, f"{study_instance_uid or 'none'}/")
        return frozenset(each.key.rpartition("/")[2].removesuffix(".dcm") for each in found)

    def taking_back(self, settings: Settings) -> TakesBack:
        """See `Sink.taking_back`: the object goes, then an empty message says so."""
        store, say = self._store(settings), _saying_nothing(settings)

        def takes_back(study_instance_uid: str, series_instance_uid: str, sop_instance_uid: str) -> None:
            store.delete(self.bucket, key_of(study_instance_uid, series_instance_uid, sop_instance_uid))
            say(f"{self.bucket}/{sop_instance_uid}")

        return takes_back

    def _store(self, settings: Settings) -> ObjectStore:
        own = settings.s3
        s3 = S3(
            endpoint=self.endpoint or own.endpoint,
            region=self.region if self.endpoint else own.region,
            access_key=self.access_key or own.access_key,
            secret_key=self.secret_key or own.secret_key,
            ca_file=self.ca_file if self.endpoint else own.ca_file,
        )
        return open_store(msgspec.structs.replace(settings, s3=s3))


def key_of(study_instance_uid: str, series_instance_uid: str, sop_instance_uid: str) -> str:
    """The key of an object, by its new UIDs."""
    return f"{study_instance_uid or 'none'}/{series_instance_uid or 'none'}/{sop_instance_uid}.dcm"


class Feed(Session):
    """Puts objects into the bucket, then says so: killed between the two, it does both again, with the same bytes and the same id."""

    def __init__(
        self, store: ObjectStore, bucket: str, say: Say, *, own: bool, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._store, self._bucket, self._say, self._own, self._now = store, bucket, say, own, now
        self._ready = False

    def deliver(self, delivery: Delivery, part10: Part10) -> Settled:
        """See `Session.deliver`."""
        cleaning = delivery.cleaning
        if cleaning is None:  # a group without policy, or a caller that knows none
            raise Misconfigured("not-deidentified", "An object was about to leave that is not de-identified.", fix="Report it.")
        if not self._ready:
            if self._own:
                self._store.ensure_bucket(self._bucket)
            self._ready = True
        key = key_of(delivery.study_instance_uid, delivery.series_instance_uid, delivery.sop_instance_uid)
        with part10.mapped() as (whole, _):
            digest = hashlib.sha256(whole).hexdigest()
            there = self._has(key, len(whole), digest)
            if not there:
                self._store.put(self._bucket, key, cast("BinaryIO", whole) if isinstance(whole, mmap) else BytesIO(whole), len(whole))
            size_bytes = len(whole)
        event = self._event(delivery, cleaning, key, size_bytes, digest)
        # Of what left alone: an id of the original's could be computed by whoever has that, and would lead from one to the other.
        self._say(
            event,
            following_id(f"{event.resource}/{event.policy}/{event.policy_version}/{event.key_id}", "deidentified", int(digest[:12], 16)),
        )
        return Settled(state="already_there" if there else "delivered", comment="in the research bucket")

    def _has(self, key: str, size_bytes: int, digest: str) -> bool:
        with suppress(NotFound):
            if self._store.stat(self._bucket, key).size_bytes == size_bytes:
                return hashlib.sha256(self._store.get(self._bucket, key)).hexdigest() == digest
        return False

    def _event(self, delivery: Delivery, cleaning: Cleaning, key: str, size_bytes: int, digest: str) -> InstanceDeidentified:
        return InstanceDeidentified(
            resource=f"{self._bucket}/{delivery.sop_instance_uid}",
            project=cleaning.anonymizer.domain,
            policy=cleaning.anonymizer.policy,
            policy_version=cleaning.anonymizer.version,
            key_id=cleaning.anonymizer.key_id,
            study_instance_uid=delivery.study_instance_uid,
            series_instance_uid=delivery.series_instance_uid,
            sop_instance_uid=delivery.sop_instance_uid,
            sop_class_uid=delivery.sop_class_uid,
            transfer_syntax_uid=cleaning.transfer_syntax_uid,
            bucket=self._bucket,
            object_key=key,
            size_bytes=size_bytes,
            sha256=digest,
            at=self._now(),
        )


def _saying(settings: Settings) -> Say:
    producer, writer = bus.producer(settings), bus.Writer(settings, "deliver")

    def say(event: InstanceDeidentified, event_id: str) -> None:
        record = writer.record(event, event_id)
        _acknowledged(producer, record.topic, record.value, record.key, record.headers)

    return say


def _saying_nothing(settings: Settings) -> Callable[[str], None]:
    """What says an empty message under a key, after which a compacted topic keeps none of its messages."""
    producer, topic = bus.producer(settings), bus.topic_of(settings, InstanceDeidentified)
    return lambda key: _acknowledged(producer, topic, None, key.encode(), [])


def _acknowledged(producer: Producer, topic: str, value: bytes | None, key: bytes, headers: bus.Headers) -> None:
    errors: list[object] = []
    producer.produce(topic, value, key, headers=headers, on_delivery=lambda error, _: errors.append(error))
    producer.flush(_PUBLISHED_WITHIN_S)
    if errors != [None]:
        producer.purge()
        raise TryAgain("Kafka did not acknowledge what was said of the research bucket.", fix="Check that the broker runs.")
