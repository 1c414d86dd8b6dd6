import hashlib
import os
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest

from hilum.dicom.file_meta import part10_head
from hilum.errors import TryAgain
from hilum.part10 import IN_MEMORY_BYTES, Part10, Unsound, data_set_offset
from hilum.testing import MemoryStore, a_delivery

SIZES = [2, 1000, IN_MEMORY_BYTES + 10_001]


def an_object(size: int) -> tuple[MemoryStore, Part10, bytes]:
    store, data = MemoryStore(), os.urandom(size)
    return store, Part10(store, a_delivery(store, data_set=data).object), data


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("piece_bytes", [1000, 1 << 20])
def test_the_data_set_comes_in_pieces_of_which_only_the_last_is_shorter(size: int, piece_bytes: int) -> None:
    _, part10, data = an_object(size)

    pieces = [bytes(piece) for piece in part10.data_set(piece_bytes)]

    assert b"".join(pieces) == data
    assert all(len(piece) == piece_bytes for piece in pieces[:-1])
    assert 0 < len(pieces[-1]) <= piece_bytes


@pytest.mark.parametrize("size", SIZES)
def test_it_may_be_read_twice(size: int) -> None:
    _, part10, data = an_object(size)

    assert [b"".join(part10.data_set(1 << 20)) for _ in range(2)] == [data, data]


@pytest.mark.parametrize("size", SIZES)
def test_an_object_that_was_changed_in_the_store_never_comes_to_its_end(size: int) -> None:
    store, part10, _ = an_object(size)
    where = (part10.ref.bucket, part10.ref.key)
    store.objects[where] = store.objects[where][:-1] + bytes([store.objects[where][-1] ^ 1])

    with pytest.raises(Unsound, match="is not what was received"):
        list(part10.data_set(1 << 20))


@pytest.mark.parametrize("size", SIZES)
def test_an_object_that_is_gone_is_unsound(size: int) -> None:
    store, part10, _ = an_object(size)
    store.objects.clear()

    with pytest.raises(Unsound, match="is not in bucket hilum-originals"):
        list(part10.data_set(1 << 20))


@pytest.mark.parametrize("size", SIZES)
def test_a_store_that_is_away_is_an_outage(size: int) -> None:
    store, part10, _ = an_object(size)
    store.away = True

    with pytest.raises(TryAgain):
        list(part10.data_set(1 << 20))


def test_what_is_read_ahead_is_read_once() -> None:
    store, part10, data = an_object(1000)
    with ThreadPoolExecutor(1) as executor:
        part10.read_ahead(executor)
        part10.read_ahead(executor)

    assert (b"".join(part10.data_set(100)), part10.file()[-1000:]) == (data, data)
    assert store.reads == 1


def test_a_large_object_is_not_read_ahead() -> None:
    store, part10, _ = an_object(IN_MEMORY_BYTES + 1)
    with ThreadPoolExecutor(1) as executor:
        part10.read_ahead(executor)

    assert store.reads == 0


def test_an_error_while_reading_ahead_shows_where_the_object_is_used() -> None:
    store, part10, _ = an_object(1000)
    store.away = True
    with ThreadPoolExecutor(1) as executor:
        part10.read_ahead(executor)

    with pytest.raises(TryAgain):
        list(part10.data_set(100))


def test_the_data_set_is_found_without_a_group_length() -> None:
    head = part10_head("1.2", "1.2.3", "1.2.840.10008.1.2.1")
    without = head[:132] + head[144:]

    assert data_set_offset(without + b"\x08\0\x05\0CS\0\0") == len(without)


def test_what_is_no_dicom_file_is_unsound() -> None:
    store, part10, _ = an_object(1000)
    text = b"<html>not found</html>" * 50
    store.objects[part10.ref.bucket, part10.ref.key] = text
    ref = msgspec.structs.replace(part10.ref, sha256=hashlib.sha256(text).hexdigest())

    with pytest.raises(Unsound, match="no DICOM file"):
        list(Part10(store, ref).data_set(100))
