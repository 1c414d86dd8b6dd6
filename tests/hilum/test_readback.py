from __future__ import annotations

import os
from io import BytesIO
from pathlib import Path

import msgspec
import pytest

from hilum.errors import TryAgain
from hilum.events import ObjectRef
from hilum.part10 import IN_MEMORY_BYTES
from hilum.readback import ENOUGH, PIECE_BYTES, read_back
from hilum.settings import S3, Settings
from hilum.store import ObjectStore, open_store
from hilum.testing import MemoryStore, a_delivery


class Lossy(MemoryStore):
    """A store that lists objects of which the bytes are gone, and answers for them as SeaweedFS does."""

    def __init__(self) -> None:
        super().__init__()
        self.lost: set[str] = set()

    def get(self, bucket: str, key: str, offset: int = 0, size_bytes: int | None = None) -> bytes:
        """The object, if it is not lost."""
        if key in self.lost:
            self.reads += 1
            raise TryAgain("The object store answered InternalError.")
        return super().get(bucket, key, offset, size_bytes)


@pytest.fixture
def store() -> Lossy:
    return Lossy()


def some(store: ObjectStore, count: int) -> list[ObjectRef]:
    """Stored objects, with the size of their files, as the store lists it."""
    refs = [a_delivery(store, SOPInstanceUID=f"2.25.{n + 10}").object for n in range(count)]
    return [msgspec.structs.replace(ref, size_bytes=store.stat(ref.bucket, ref.key).size_bytes) for ref in refs]


@pytest.mark.parametrize("whole", [False, True])
def test_sound_objects_are_read_and_nothing_is_said(store: Lossy, whole: bool) -> None:
    told: list[int] = []

    found = read_back(store, some(store, 40), whole=whole, progress=told.append)

    assert (found.read, found.unreadable, found.changed) == (40, [], [])
    assert told[-1] == 40
    assert store.reads == 40


@pytest.mark.parametrize("whole", [False, True])
def test_an_object_without_its_bytes_cannot_be_read(store: Lossy, whole: bool) -> None:
    refs = some(store, 5)
    store.lost.add(refs[2].key)
    store.delete(refs[3].bucket, refs[3].key)

    assert read_back(store, refs, whole=whole).unreadable == refs[2:4]


@pytest.mark.parametrize("large", [False, True])
def test_a_changed_object_is_found_by_its_digest(store: Lossy, large: bool) -> None:
    [good, changed] = some(store, 2)
    where = (changed.bucket, changed.key)
    store.objects[where] = store.objects[where][:-1] + b"X" + bytes(IN_MEMORY_BYTES) * large
    changed = msgspec.structs.replace(changed, size_bytes=len(store.objects[where]))

    assert read_back(store, [good, changed], whole=False).changed == []
    assert read_back(store, [good, changed], whole=True).changed == [changed]


def test_what_is_no_dicom_file_is_not_what_was_received(store: Lossy) -> None:
    [ref] = some(store, 1)
    store.objects[ref.bucket, ref.key] = b"something else"

    assert read_back(store, [ref], whole=True).changed == [ref]


def test_a_file_that_is_shorter_than_the_store_says_cannot_be_read(store: Lossy) -> None:
    [ref] = some(store, 1)

    assert read_back(store, [msgspec.structs.replace(ref, size_bytes=ref.size_bytes + PIECE_BYTES)], whole=False).unreadable


def test_an_object_whose_digest_nobody_knows_is_read_in_a_piece(store: Lossy) -> None:
    [ref] = some(store, 1)

    assert read_back(store, [msgspec.structs.replace(ref, sha256="")], whole=True) == read_back(store, [ref], whole=False)


def test_reading_ends_when_a_volume_is_lost_and_not_with_its_last_object(store: Lossy) -> None:
    refs = some(store, 100)
    store.lost |= {ref.key for ref in refs}

    found = read_back(store, refs, whole=False)

    assert ENOUGH <= len(found.unreadable) == found.read < 50


def test_a_store_that_is_away_is_no_loss(store: Lossy) -> None:
    refs = some(store, 3)
    store.away = True

    with pytest.raises(TryAgain):
        read_back(store, refs, whole=False)


@pytest.mark.system
def test_the_real_store_that_lost_a_volume_still_lists_its_objects(s3: S3) -> None:
    store = open_store(Settings(s3=s3))
    ref = ObjectRef(bucket="lost-volume", key="1/2/3/a.dcm", size_bytes=100_000, sha256="")
    store.ensure_bucket(ref.bucket)
    store.put(ref.bucket, ref.key, BytesIO(bytes(ref.size_bytes)), ref.size_bytes)
    volumes = list(Path(s3.sync_path).rglob(f"{ref.bucket}_*.dat"))
    assert volumes
    for volume in volumes:
        cut(volume)

    assert [each.key for each in store.list(ref.bucket)] == [ref.key]
    assert read_back(store, [ref], whole=False).unreadable == [ref]


def cut(volume: Path) -> None:
    """Leave the head of the volume's file and nothing else."""
    os.truncate(volume, 8)
