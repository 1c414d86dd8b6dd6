from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import datetime, timedelta
from urllib.parse import urlsplit

import msgspec
import pytest
from minio import Minio
from minio.error import S3Error

from hilum.errors import Misconfigured, TryAgain
from hilum.layout import BY_UIDS, Layout
from hilum.part10 import Part10, Unsound
from hilum.settings import S3, Settings
from hilum.sink import Settled, sink_of
from hilum.store import ObjectStore, RetentionMode, open_store
from hilum.testing import Clock, MemoryStore, SinkContract, a_delivery
from sinks.archive import Archive, Copies, Keeping


class KeepingMemoryStore(MemoryStore):
    """`hilum.store.KeepingStore` as a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.locked: set[str] = set()
        self.retained: dict[tuple[str, str], tuple[RetentionMode, datetime]] = {}
        self.expiring: dict[str, int] = {}

    def ensure_bucket(self, bucket: str, *, object_lock: bool = False) -> bool:
        if object_lock:
            self.locked.add(bucket)
        return super().ensure_bucket(bucket)

    def has_object_lock(self, bucket: str) -> bool:
        return bucket in self.locked

    def retain(self, bucket: str, key: str, mode: RetentionMode, until: datetime) -> None:
        self._found(bucket, key)
        self.retained.setdefault((bucket, key), (mode, until))

    def is_retained(self, bucket: str, key: str) -> bool:
        return (bucket, key) in self.retained

    def expire_after(self, bucket: str, days: int) -> None:
        self.expiring[bucket] = days


def test_in_place_nothing_is_read_or_written() -> None:
    store = MemoryStore()
    delivery = a_delivery(store)
    store.away = True

    outcome = Archive().open(Settings()).deliver(delivery, Part10(store, delivery.object))

    assert outcome == Settled(state="delivered", comment="kept in place")
    assert store.reads == 0


def test_the_bucket_of_the_originals_is_in_place_too() -> None:
    archive = Archive(bucket="hilum-originals")

    assert archive.open(Settings()) is archive


@pytest.mark.parametrize("own", [True, False])
class TestCopies:
    @pytest.fixture
    def source(self) -> KeepingMemoryStore:
        return KeepingMemoryStore()

    @pytest.fixture
    def target(self, source: KeepingMemoryStore, own: bool) -> KeepingMemoryStore:
        return source if own else KeepingMemoryStore()

    @pytest.fixture
    def copies(self, source: MemoryStore, target: KeepingMemoryStore, own: bool) -> Copies:
        return Copies(source, target, "kept", own=own)

    def test_a_copy_has_the_originals_key_and_bytes(self, source: MemoryStore, target: MemoryStore, copies: Copies) -> None:
        delivery = a_delivery(source)

        outcome = copies.deliver(delivery, Part10(source, delivery.object))

        assert (outcome.state, outcome.comment) == ("delivered", "copied to bucket kept")
        key = delivery.object.key
        assert target.objects["kept", key] == source.objects["hilum-originals", key]

    def test_a_copy_that_is_there_is_left(self, source: MemoryStore, copies: Copies) -> None:
        delivery = a_delivery(source)
        copies.deliver(delivery, Part10(source, delivery.object))

        assert copies.deliver(delivery, Part10(source, delivery.object)).state == "already_there"

    def test_a_damaged_copy_is_replaced(self, source: MemoryStore, target: MemoryStore, copies: Copies) -> None:
        delivery = a_delivery(source)
        original = source.objects["hilum-originals", delivery.object.key]
        target.objects["kept", delivery.object.key] = original[:-1] + b"X"

        assert copies.deliver(delivery, Part10(source, delivery.object)).state == "delivered"
        assert target.objects["kept", delivery.object.key] == original

    def test_a_damaged_original_leaves_no_copy(self, source: MemoryStore, target: MemoryStore, copies: Copies) -> None:
        delivery = a_delivery(source)
        where = ("hilum-originals", delivery.object.key)
        source.objects[where] = source.objects[where][:-1] + b"X"

        with pytest.raises(Unsound, match="is not what was received"):
            copies.deliver(delivery, Part10(source, delivery.object))
        assert ("kept", delivery.object.key) not in target.objects

    def test_a_missing_original_is_unsound(self, source: MemoryStore, copies: Copies) -> None:
        delivery = a_delivery(source)
        del source.objects["hilum-originals", delivery.object.key]

        with pytest.raises(Unsound, match="is not in bucket hilum-originals"):
            copies.deliver(delivery, Part10(source, delivery.object))

    def test_a_store_that_is_away_is_waited_for(self, source: MemoryStore, target: MemoryStore, copies: Copies) -> None:
        delivery = a_delivery(source)
        target.away = True

        with pytest.raises(TryAgain):
            copies.deliver(delivery, Part10(source, delivery.object))


class TestKeeping:
    @pytest.fixture
    def store(self) -> KeepingMemoryStore:
        return KeepingMemoryStore()

    def copies(self, store: KeepingMemoryStore, **how: object) -> Copies:
        keeping = Keeping(**how)  # type: ignore[arg-type]  # by name
        return Copies(store, store, "kept", own=True, keeping=keeping, now=Clock())

    def test_a_layout_names_the_copies(self, store: KeepingMemoryStore) -> None:
        delivery = a_delivery(store)

        self.copies(store, layout=Layout("{StudyDate}/{Modality}/{SOPInstanceUID}.dcm")).deliver(delivery, Part10(store, delivery.object))

        original = store.objects["hilum-originals", delivery.object.key]
        assert store.objects["kept", "20240229/CT/2.25.3.dcm"] == original

    def test_another_object_under_the_same_key_is_rejected_and_takes_nothing_away(self, store: KeepingMemoryStore) -> None:
        first, second = (a_delivery(store, PatientID=name) for name in "AB")
        copies = self.copies(store, layout=Layout(BY_UIDS))
        copies.deliver(first, Part10(store, first.object))
        before = dict(store.objects)

        outcome = copies.deliver(second, Part10(store, second.object))

        assert outcome.state == "rejected"
        assert store.objects == before

    def test_each_copy_is_retained_from_its_first_delivery_on(self, store: KeepingMemoryStore) -> None:
        delivery = a_delivery(store)
        for _ in range(2):
            self.copies(store, retain_days=10, retain_mode="compliance").deliver(delivery, Part10(store, delivery.object))

        assert store.retained == {("kept", delivery.object.key): ("compliance", Clock()() + timedelta(days=10))}

    def test_a_copy_that_a_crash_left_without_retention_gets_it(self, store: KeepingMemoryStore) -> None:
        delivery = a_delivery(store)
        self.copies(store).deliver(delivery, Part10(store, delivery.object))

        assert self.copies(store, retain_days=10).deliver(delivery, Part10(store, delivery.object)).state == "already_there"
        assert list(store.retained) == [("kept", delivery.object.key)]

    def test_a_bucket_without_object_lock_is_for_a_person(self, store: KeepingMemoryStore) -> None:
        delivery = a_delivery(store)
        copies = Copies(store, store, "kept", own=False, keeping=Keeping(retain_days=10))

        with pytest.raises(Misconfigured, match="has no object lock"):
            copies.deliver(delivery, Part10(store, delivery.object))
        assert ("kept", delivery.object.key) not in store.objects

    def test_the_store_is_told_when_copies_may_go(self, store: KeepingMemoryStore) -> None:
        delivery = a_delivery(store)
        self.copies(store, expire_days=365).deliver(delivery, Part10(store, delivery.object))

        assert store.expiring == {"kept": 365}


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"retain_days": 10}, "`bucket` must be set"),
        ({"bucket": "kept", "retain_days": 10, "expire_days": 10}, "`expire_days` must be more"),
        ({"bucket": "kept", "layout": "{PatientID}"}, "objects would overwrite each other"),
        ({"endpoint": "http://10.1.2.3:9000"}, "`bucket` must be too"),
        ({"endpoint": "http://10.1.2.3:9000", "bucket": "kept"}, "`access_key` and `secret_key` must be too"),
    ],
)
def test_settings_that_cannot_work_are_refused(table: dict[str, object], words: str) -> None:
    with pytest.raises(Misconfigured, match=words):
        sink_of("archive", {"type": "archive", **table})


class OnRealStores(SinkContract):
    @pytest.fixture
    def settings(self, s3: S3) -> Settings:
        return Settings(s3=s3)

    @pytest.fixture
    def store(self, settings: Settings) -> ObjectStore:
        store = open_store(settings)
        store.ensure_bucket("hilum-originals")
        return store

    @pytest.fixture
    def broken_sink(self, s3: S3) -> Archive:
        return Archive(bucket="kept", endpoint=s3.endpoint, access_key="nobody", secret_key="wrong")

    def data_sets(self, store: ObjectStore, bucket: str, uid: str) -> list[bytes]:
        found = []
        for each in store.list(bucket, f"{uid}/"):
            whole = store.get(bucket, each.key)
            found.append(whole[144 + int.from_bytes(whole[140:144], "little") :])
        return found


@pytest.mark.system
class TestRetained(OnRealStores):
    @pytest.fixture
    def bucket(self) -> str:
        return f"retained-{uuid.uuid4().hex[:8]}"

    @pytest.fixture
    def sink(self, bucket: str) -> Archive:
        return Archive(bucket=bucket, retain_days=1, expire_days=30, layout=BY_UIDS)

    @pytest.fixture
    def arrived(self, store: ObjectStore, bucket: str) -> Callable[[str], list[bytes]]:
        return lambda _: self.data_sets(store, bucket, "2.25.1")

    def test_a_copy_cannot_be_deleted_for_good(self, sink: Archive, settings: Settings, store: ObjectStore, bucket: str) -> None:
        delivery, s3 = a_delivery(store), settings.s3
        assert sink.open(settings).deliver(delivery, Part10(store, delivery.object)).state == "delivered"
        client = Minio(urlsplit(s3.endpoint).netloc, s3.access_key, s3.secret_key, secure=False)
        [version] = client.list_objects(bucket_name=bucket, recursive=True, include_version=True)

        with pytest.raises(S3Error, match="AccessDenied"):
            client.remove_object(bucket_name=bucket, object_name=version.object_name, version_id=version.version_id)

    def test_duplicates_leave_one_version_and_no_delete_marker(self, settings: Settings, store: ObjectStore, bucket: str) -> None:
        store.ensure_bucket(bucket, object_lock=True)  # which has versions
        first, other = (a_delivery(store, PatientID=name) for name in "AB")
        s3, session = settings.s3, Archive(bucket=bucket, layout=BY_UIDS).open(settings)
        states = [session.deliver(each, Part10(store, each.object)).state for each in (first, first, other, first)]
        client = Minio(urlsplit(s3.endpoint).netloc, s3.access_key, s3.secret_key, secure=False)
        versions = list(client.list_objects(bucket_name=bucket, recursive=True, include_version=True))

        assert client.get_bucket_versioning(bucket_name=bucket).status == "Enabled"
        assert states == ["delivered", "already_there", "rejected", "already_there"]
        assert [(each.is_delete_marker, each.size) for each in versions] == [(False, len(store.get("hilum-originals", first.object.key)))]

    def test_the_bucket_has_a_rule_for_its_lifecycle(
        self, sink: Archive, settings: Settings, store: ObjectStore, s3: S3, bucket: str
    ) -> None:
        delivery = a_delivery(store)
        sink.open(settings).deliver(delivery, Part10(store, delivery.object))
        found = Minio(urlsplit(s3.endpoint).netloc, s3.access_key, s3.secret_key, secure=False).get_bucket_lifecycle(bucket_name=bucket)

        assert found is not None
        assert [(rule.rule_id, rule.expiration and rule.expiration.days) for rule in found.rules] == [("hilum-expire", 30)]

    def test_a_bucket_without_object_lock_fails_the_check(self, sink: Archive, settings: Settings, store: ObjectStore) -> None:
        store.ensure_bucket(plain := f"plain-{uuid.uuid4().hex[:8]}")
        *_, last = msgspec.structs.replace(sink, bucket=plain).check(settings)

        assert (last.name, last.ok) == ("object lock", False)
        assert "new bucket" in last.fix


@pytest.mark.system
class TestInPlace(OnRealStores):
    @pytest.fixture
    def sink(self) -> Archive:
        return Archive()

    @pytest.fixture
    def arrived(self, store: ObjectStore) -> Callable[[str], list[bytes]]:
        return lambda uid: self.data_sets(store, "hilum-originals", uid)


@pytest.mark.system
class TestInAnotherBucket(OnRealStores):
    @pytest.fixture
    def bucket(self) -> str:
        return f"kept-{uuid.uuid4().hex[:8]}"

    @pytest.fixture
    def sink(self, bucket: str) -> Archive:
        return Archive(bucket=bucket)

    @pytest.fixture
    def arrived(self, store: ObjectStore, bucket: str) -> Callable[[str], list[bytes]]:
        return lambda uid: self.data_sets(store, bucket, uid)


@pytest.mark.system
class TestInAnotherStore(OnRealStores):
    """The same server stands for both; what is tested is that the bytes go through Hilum."""

    @pytest.fixture
    def bucket(self, store: ObjectStore) -> str:
        bucket = f"other-{uuid.uuid4().hex[:8]}"
        store.ensure_bucket(bucket)
        return bucket

    @pytest.fixture
    def sink(self, s3: S3, bucket: str) -> Archive:
        return Archive(bucket=bucket, endpoint=s3.endpoint, access_key=s3.access_key, secret_key=s3.secret_key)

    @pytest.fixture
    def arrived(self, store: ObjectStore, bucket: str) -> Callable[[str], list[bytes]]:
        return lambda uid: self.data_sets(store, bucket, uid)

    def test_a_bucket_that_is_not_there_is_told_with_its_fix(self, sink: Archive, settings: Settings) -> None:
        [step] = msgspec.structs.replace(sink, bucket="no-such-bucket").check(settings)

        assert not step.ok
        assert "no-such-bucket" in step.says
        assert step.fix
