from __future__ import annotations

import uuid
from collections.abc import Callable

import msgspec
import pytest

from hilum.errors import Misconfigured, TryAgain
from hilum.part10 import Part10, Unsound
from hilum.settings import S3, Settings
from hilum.sink import Settled, sink_of
from hilum.store import ObjectStore, open_store
from hilum.testing import MemoryStore, SinkContract, a_delivery
from sinks.archive import Archive, Copies


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
    def source(self) -> MemoryStore:
        return MemoryStore()

    @pytest.fixture
    def target(self, source: MemoryStore, own: bool) -> MemoryStore:
        return source if own else MemoryStore()

    @pytest.fixture
    def copies(self, source: MemoryStore, target: MemoryStore, own: bool) -> Copies:
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


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"endpoint": "http://10.1.2.3:9000"}, "`bucket` must be too"),
        ({"endpoint": "http://10.1.2.3:9000", "bucket": "kept"}, "`access_key` and `secret_key` must be too"),
    ],
)
def test_half_a_store_is_refused(table: dict[str, str], words: str) -> None:
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
