from __future__ import annotations

import os
from io import BytesIO
from pathlib import Path
from typing import cast

import pytest
from msgspec.structs import replace

from hilum.errors import Misconfigured, NotFound, TryAgain
from hilum.settings import S3, Settings
from hilum.storage.folder import MARK, MARK_KEY, UNFINISHED_S, FolderStore
from hilum.store import KeepingStore, ObjectStore, S3Store, open_store
from hilum.testing import MemoryStore
from tests.hilum.test_store import StoreContract

BUCKET, KEY = "originals", "2.25.1/2.25.2/2.25.3/digest.dcm"


@pytest.fixture
def behind() -> MemoryStore:
    """The store that is there besides."""
    return MemoryStore()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "originals"


@pytest.fixture
def store(behind: MemoryStore, folder: Path) -> FolderStore:
    made = FolderStore(cast("KeepingStore", behind), BUCKET, folder, free_bytes_kept=0)
    made.ensure_bucket(BUCKET)
    return made


def put(store: ObjectStore, key: str = KEY, content: bytes = b"content", bucket: str = BUCKET) -> None:
    store.put(bucket, key, BytesIO(content), len(content))


def files_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and path.name != MARK)


def in_store(store: MemoryStore) -> dict[tuple[str, str], bytes]:
    return {place: content for place, content in store.objects.items() if place != (BUCKET, MARK_KEY)}


class TestFolderStore(StoreContract):
    @pytest.fixture
    def bucket(self) -> str:
        return BUCKET


def test_it_is_what_the_settings_ask_for(tmp_path: Path) -> None:
    s3 = S3(endpoint="http://127.0.0.1:1", access_key="a", secret_key="b")

    assert isinstance(open_store(Settings(s3=replace(s3, folder=str(tmp_path)))), FolderStore)
    assert isinstance(open_store(Settings(s3=s3)), S3Store)


def test_what_is_synced_is_the_folder_if_there_is_one() -> None:
    assert S3(sync_path="/data/s3", folder="/images").synced == "/images"
    assert S3(sync_path="/data/s3").synced == "/data/s3"


def test_an_original_is_one_file_that_only_its_owner_may_read(store: FolderStore, folder: Path, behind: MemoryStore) -> None:
    put(store)

    assert files_in(folder) == ["2.25.1/2.25.2/2.25.3@digest.dcm"]
    assert (folder / "2.25.1/2.25.2/2.25.3@digest.dcm").stat().st_mode & 0o777 == 0o600
    assert in_store(behind) == {}


def test_what_came_before_there_was_a_folder_is_read_listed_and_deleted(store: FolderStore, behind: MemoryStore) -> None:
    put(behind, "2.25.1/2.25.2/2.25.4/digest.dcm", b"before")
    put(store)

    assert store.get(BUCKET, "2.25.1/2.25.2/2.25.4/digest.dcm") == b"before"
    assert [found.key for found in store.list(BUCKET, "2.25.1/")] == [KEY, "2.25.1/2.25.2/2.25.4/digest.dcm"]

    store.delete(BUCKET, "2.25.1/2.25.2/2.25.4/digest.dcm")
    assert [found.key for found in store.list(BUCKET)] == [KEY]


def test_what_is_in_both_is_listed_once_and_deleted_in_both(store: FolderStore, behind: MemoryStore) -> None:
    put(behind)
    put(store)

    assert [found.key for found in store.list(BUCKET)] == [KEY]
    store.delete(BUCKET, KEY)
    with pytest.raises(NotFound):
        store.get(BUCKET, KEY)


def test_objects_of_other_buckets_are_in_the_store(store: FolderStore, behind: MemoryStore, folder: Path) -> None:
    put(store, bucket="cohort")

    assert in_store(behind) == {("cohort", KEY): b"content"}
    assert files_in(folder) == []


def test_an_original_is_copied_into_another_bucket(store: FolderStore, behind: MemoryStore) -> None:
    put(store)

    store.copy(BUCKET, KEY, "copies", "copy")

    assert in_store(behind) == {("copies", "copy"): b"content"}


def test_an_object_that_ends_early_leaves_nothing_behind(store: FolderStore, folder: Path) -> None:
    with pytest.raises(ValueError, match="ends early"):
        store.put(BUCKET, KEY, BytesIO(b"short"), 10)

    assert [path.name for path in folder.iterdir()] == [MARK]


def test_the_last_object_takes_its_folders_with_it(store: FolderStore, folder: Path) -> None:
    put(store)
    put(store, "2.25.1/2.25.5/2.25.6/digest.dcm")

    store.delete(BUCKET, KEY)
    assert files_in(folder) == ["2.25.1/2.25.5/2.25.6@digest.dcm"]
    store.delete(BUCKET, "2.25.1/2.25.5/2.25.6/digest.dcm")
    assert [path.name for path in folder.iterdir()] == [MARK]


def test_what_a_killed_process_left_unfinished_is_no_object_and_goes_after_an_hour(store: FolderStore, folder: Path) -> None:
    for name, age_s in ((".old.part", 2 * UNFINISHED_S), (".new.part", 1.0)):
        (folder / name).write_bytes(b"half")
        then = (folder / name).stat().st_mtime - age_s
        os.utime(folder / name, (then, then))

    assert list(store.list(BUCKET)) == []
    store.ensure_bucket(BUCKET)
    assert files_in(folder) == [".new.part"]


def test_a_disk_that_is_nearly_full_takes_nothing_and_is_tried_again(behind: MemoryStore, folder: Path) -> None:
    store = FolderStore(cast("KeepingStore", behind), BUCKET, folder, free_bytes_kept=2**62)
    store.ensure_bucket(BUCKET)

    with pytest.raises(TryAgain, match="nearly full"):
        put(store)
    assert files_in(folder) == []


@pytest.mark.parametrize("left", [False, True], ids=["nothing", "the empty place of a share"])
def test_a_folder_that_is_gone_is_an_outage_and_no_loss(left: bool, store: FolderStore, folder: Path) -> None:
    put(store)
    folder.rename(folder.with_name("elsewhere"))
    if left:
        folder.mkdir()

    for ask in (store.get, store.stat, store.delete):
        with pytest.raises(TryAgain, match="in which the originals are, is not there"):
            ask(BUCKET, KEY)
    with pytest.raises(TryAgain, match="in which the originals are, is not there"):
        put(store)
    with pytest.raises(TryAgain, match="in which the originals are, is not there"):
        list(store.list(BUCKET))
    with pytest.raises(Misconfigured, match="no folder of originals that Hilum may write"):
        store.check(BUCKET)


@pytest.mark.parametrize("other", ["empty", "of another Hilum"])
def test_another_folder_is_not_taken_for_that_of_the_originals(other: str, store: FolderStore, behind: MemoryStore, tmp_path: Path) -> None:
    store.ensure_bucket(BUCKET)
    if other == "of another Hilum":
        FolderStore(cast("KeepingStore", MemoryStore()), BUCKET, tmp_path / "b").ensure_bucket(BUCKET)

    with pytest.raises(Misconfigured, match="is not the folder in which the originals are"):
        FolderStore(cast("KeepingStore", behind), BUCKET, tmp_path / "b").ensure_bucket(BUCKET)
    store.ensure_bucket(BUCKET)


@pytest.mark.parametrize("key", ["../a", "a/../b", "/etc/passwd", "a//b", "a@b/c", ".hidden/a", ""])
def test_a_key_leads_nowhere_else(store: FolderStore, key: str) -> None:
    with pytest.raises(ValueError, match="no key"):
        put(store, key)
