from __future__ import annotations

import socket
import threading
import tracemalloc
import uuid
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest

from hilum.errors import Misconfigured, NotFound, TryAgain
from hilum.settings import S3, Settings
from hilum.store import MULTIPART_FROM_BYTES, PART_BYTES, ObjectStore, S3Store, open_store
from hilum.testing import MemoryStore


class StoreContract:
    """What every object store owes. A test class extends this one and offers the fixtures `store` and `bucket`."""

    def put(self, store: ObjectStore, bucket: str, key: str, content: bytes) -> None:
        store.put(bucket, key, BytesIO(content), len(content))

    def test_what_was_put_can_be_read(self, store: ObjectStore, bucket: str) -> None:
        self.put(store, bucket, "2.25.1/2.25.2/a.dcm", b"content")

        assert store.get(bucket, "2.25.1/2.25.2/a.dcm") == b"content"

    def test_a_range_can_be_read(self, store: ObjectStore, bucket: str) -> None:
        self.put(store, bucket, "a", b"0123456789")

        assert store.get(bucket, "a", 3, 4) == b"3456"
        assert store.get(bucket, "a", 8) == b"89"

    def test_an_object_can_be_read_as_a_stream(self, store: ObjectStore, bucket: str) -> None:
        self.put(store, bucket, "a", b"0123456789")

        with store.open(bucket, "a", 2) as stream:
            assert stream.read(3) == b"234"
            assert stream.read() == b"56789"

    def test_a_stream_that_is_left_early_harms_nobody(self, store: ObjectStore, bucket: str) -> None:
        self.put(store, bucket, "a", bytes(2**20))
        for _ in range(3):
            with store.open(bucket, "a") as stream:
                stream.read(10)

        assert len(store.get(bucket, "a")) == 2**20

    def test_an_empty_object_is_an_object(self, store: ObjectStore, bucket: str) -> None:
        self.put(store, bucket, "empty", b"")

        assert store.stat(bucket, "empty").size_bytes == 0
        assert store.get(bucket, "empty") == b""

    def test_only_the_announced_bytes_are_stored(self, store: ObjectStore, bucket: str) -> None:
        store.put(bucket, "a", BytesIO(b"0123456789"), 4)

        assert store.get(bucket, "a") == b"0123"

    def test_content_that_ends_early_is_not_stored(self, store: ObjectStore, bucket: str) -> None:
        with pytest.raises(ValueError, match="ends"):
            store.put(bucket, "short", BytesIO(b"0123"), 10)

        with pytest.raises(NotFound):
            store.stat(bucket, "short")

    def test_a_second_put_replaces_the_first(self, store: ObjectStore, bucket: str) -> None:
        self.put(store, bucket, "a", b"first")
        self.put(store, bucket, "a", b"second")

        assert store.get(bucket, "a") == b"second"

    def test_a_copy_is_an_object_of_its_own(self, store: ObjectStore, bucket: str) -> None:
        self.put(store, bucket, "a", b"content")

        store.copy(bucket, "a", bucket, "b")
        store.delete(bucket, "a")

        assert store.get(bucket, "b") == b"content"

    def test_objects_are_listed_by_key_and_prefix(self, store: ObjectStore, bucket: str) -> None:
        for key in ("2/b", "1/a", "1/b/c", "3"):
            self.put(store, bucket, key, key.encode())

        assert [found.key for found in store.list(bucket)] == ["1/a", "1/b/c", "2/b", "3"]
        assert [(found.key, found.size_bytes) for found in store.list(bucket, "1/")] == [("1/a", 3), ("1/b/c", 5)]

    def test_deleting_twice_is_no_error(self, store: ObjectStore, bucket: str) -> None:
        self.put(store, bucket, "a", b"content")

        store.delete(bucket, "a")
        store.delete(bucket, "a")

        with pytest.raises(NotFound):
            store.get(bucket, "a")

    def test_what_is_not_there_is_not_found(self, store: ObjectStore, bucket: str) -> None:
        with pytest.raises(NotFound, match=r"no object nowhere in bucket"):
            store.get(bucket, "nowhere")
        with pytest.raises(NotFound):
            store.stat(bucket, "nowhere")
        with pytest.raises(NotFound):
            store.copy(bucket, "nowhere", bucket, "b")

    def test_a_healthy_store_passes_its_check(self, store: ObjectStore, bucket: str) -> None:
        store.check(bucket)

    def test_many_threads_share_it(self, store: ObjectStore, bucket: str) -> None:
        def work(n: int) -> None:
            for each in range(5):
                self.put(store, bucket, f"{n}/{each}", f"{n}/{each}".encode() * 1000)

        threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert all(store.get(bucket, f"{n}/{each}") == f"{n}/{each}".encode() * 1000 for n in range(8) for each in range(5))


class TestMemoryStore(StoreContract):
    @pytest.fixture
    def store(self) -> ObjectStore:
        return MemoryStore()

    @pytest.fixture
    def bucket(self) -> str:
        return "bucket"

    def test_while_it_is_away_everything_is_to_be_tried_again(self) -> None:
        store = MemoryStore()
        store.away = True

        with pytest.raises(TryAgain):
            store.check("bucket")


def opened(s3: S3) -> S3Store:
    return S3Store(s3.endpoint, s3.access_key, s3.secret_key)


@pytest.mark.system
class TestS3Store(StoreContract):
    @pytest.fixture
    def store(self, s3: S3) -> ObjectStore:
        return open_store(Settings(s3=s3))

    @pytest.fixture
    def bucket(self, store: S3Store) -> Iterator[str]:
        name = f"t{uuid.uuid4().hex[:12]}"
        assert store.ensure_bucket(name)
        yield name
        for found in store.list(name):
            store.delete(name, found.key)
        store._client.remove_bucket(bucket_name=name)  # SeaweedFS gives each bucket volumes of its own, and has only so many

    def test_a_bucket_is_made_once(self, store: ObjectStore, bucket: str) -> None:
        assert not store.ensure_bucket(bucket)

    def test_a_large_object_goes_up_in_parts_in_little_memory(self, store: ObjectStore, bucket: str, tmp_path: Path) -> None:
        size_bytes = 3 * MULTIPART_FROM_BYTES + 12345
        path = tmp_path / "large"
        with path.open("wb") as file:
            file.truncate(size_bytes)
            file.seek(size_bytes - 3)
            file.write(b"end")
        tracemalloc.start()

        with path.open("rb") as file:
            store.put(bucket, "large", file, size_bytes)

        _, peak_bytes = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert store.stat(bucket, "large").size_bytes == size_bytes
        assert store.get(bucket, "large", size_bytes - 3) == b"end"
        assert peak_bytes < 4 * PART_BYTES

    def test_an_object_goes_up_in_one_signed_request_where_the_network_is_not_trusted(self, s3: S3, bucket: str) -> None:
        store = opened(s3)
        store._streams = False

        self.put(store, bucket, "a", b"x" * 300_000)

        assert store.get(bucket, "a") == b"x" * 300_000

    def test_wrong_keys_are_named_as_such(self, s3: S3, bucket: str) -> None:
        store = S3Store(s3.endpoint, s3.access_key, "x" * 40)

        for attempt in (lambda: store.check(bucket), lambda: self.put(store, bucket, "a", b"x"), lambda: store.get(bucket, "a")):
            with pytest.raises(Misconfigured, match=r"refuses Hilum's keys.*Check s3\.access_key, s3\.secret_key") as refused:
                attempt()
            assert refused.value.reason == "s3-access-denied"

    def test_a_missing_bucket_is_named_with_its_fix(self, store: ObjectStore) -> None:
        for attempt in (lambda: store.check("nobody"), lambda: self.put(store, "nobody", "a", b"x"), lambda: store.get("nobody", "a")):
            with pytest.raises(Misconfigured, match=r"no bucket 'nobody'.*hilum provision"):
                attempt()

    def test_an_impossible_name_for_a_bucket_is_refused_in_words(self, store: ObjectStore) -> None:
        with pytest.raises(Misconfigured, match="is no name for a bucket"):
            store.ensure_bucket("No_Bucket")


def test_a_store_that_is_down_is_to_be_tried_again(free_port: int) -> None:
    store = S3Store(f"http://127.0.0.1:{free_port}", "key", "secret")

    for attempt in (lambda: store.check("bucket"), lambda: store.put("bucket", "a", BytesIO(b"x"), 1), lambda: store.get("bucket", "a")):
        with pytest.raises(TryAgain, match="does not answer"):
            attempt()


def test_a_store_that_hangs_up_is_to_be_tried_again() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def hang_up() -> None:
            connection, _ = server.accept()
            connection.recv(100)
            connection.close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        store = S3Store(f"http://127.0.0.1:{server.getsockname()[1]}", "key", "secret")

        with pytest.raises(TryAgain, match="does not answer"):
            store.put("bucket", "a", BytesIO(bytes(100)), 100)
        thread.join()


@pytest.mark.parametrize(
    ("endpoint", "keys", "reason"),
    [
        ("127.0.0.1:9000", ("a", "b"), "s3-endpoint-invalid"),
        ("ftp://host", ("a", "b"), "s3-endpoint-invalid"),
        ("http://host/path", ("a", "b"), "s3-endpoint-invalid"),
        ("http://host", ("", "b"), "s3-keys-missing"),
        ("http://host", ("a", ""), "s3-keys-missing"),
    ],
)
def test_settings_that_cannot_work_are_refused_in_words(endpoint: str, keys: tuple[str, str], reason: str) -> None:
    with pytest.raises(Misconfigured) as refused:
        S3Store(endpoint, *keys)

    assert refused.value.reason == reason


def test_an_authority_that_is_not_there_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="does not exist"):
        S3Store("https://host", "a", "b", ca_file=str(tmp_path / "ca.pem"))
