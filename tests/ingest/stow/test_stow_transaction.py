"""One transaction, without HTTP: whatever comes, it is answered or refused, and nothing is left over."""

from __future__ import annotations

import gc
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hilum.dicom.file_meta import part10_head
from hilum.settings import Stow
from hilum.spool import Spool
from hilum.testing import encoded
from ingest.stow.answers import NO_SPACE, Refused
from ingest.stow.media import DICOM, DICOM_JSON
from ingest.stow.transaction import Request, Transaction

CT, EXPLICIT = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1"
HEADER = {"SOPClassUID": CT, "SOPInstanceUID": "2.25.3", "StudyInstanceUID": "2.25.1", "SeriesInstanceUID": "2.25.2"}
FILE = part10_head(CT, "2.25.3", EXPLICIT) + encoded(HEADER)


class Place:
    """A spool, and transactions into it."""

    def __init__(self, path: Path, syncs: ThreadPoolExecutor) -> None:
        self.spool = Spool(path)
        self.syncs = syncs

    def begin(self, kind: str = DICOM, **request: Any) -> Transaction:
        """A transaction."""
        asked = Request(kind=kind, boundary=request.pop("boundary", "b"), **request)
        limits = Stow(max_object_bytes=2**20, max_parts=50, max_json_bytes=10_000, max_header_bytes=500)
        return Transaction(asked, self.spool, limits, self.syncs, self.spool.scratch)

    def unfinished(self) -> list[Path]:
        """Files that are not finished."""
        return self.spool.unfinished()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with ThreadPoolExecutor(2) as syncs:
        yield Place(tmp_path_factory.mktemp("spool"), syncs)


def parts(*contents: bytes, kind: str = DICOM) -> bytes:
    return b"".join(b"--b\r\nContent-Type: " + kind.encode() + b"\r\n\r\n" + each + b"\r\n" for each in contents) + b"--b--"


def test_nothing_is_seen_before_the_end(place: Place) -> None:
    before = len(place.spool.waiting())
    transaction = place.begin()
    transaction.receive(parts(FILE, FILE))
    assert len(place.spool.waiting()) == before

    assert [outcome.is_stored for outcome in transaction.end()] == [True, True]

    assert len(place.spool.waiting()) == before + 2
    transaction.drop()
    assert len(place.spool.waiting()) == before + 2


def test_a_transaction_that_is_dropped_takes_nothing_more(place: Place) -> None:
    before = len(place.spool.waiting())
    transaction = place.begin()
    transaction.receive(parts(FILE, FILE)[:-5])
    transaction.drop()

    with pytest.raises(Refused):
        transaction.receive(b"-")
    with pytest.raises(Refused):
        transaction.end()
    assert (len(place.spool.waiting()), place.unfinished()) == (before, [])


def test_it_may_be_dropped_by_another_thread_at_any_time(place: Place) -> None:
    body = parts(*[FILE] * 20)
    for places in range(20):
        transaction = place.begin()
        dropping = threading.Thread(target=transaction.drop)
        with suppress(Refused):
            for at in range(0, len(body), 997):
                if at // 997 == places:
                    dropping.start()
                transaction.receive(body[at : at + 997])
        if dropping.ident is None:
            dropping.start()
        dropping.join()
        assert place.unfinished() == []


#: What a hostile or broken client may send: garbage, and good bodies with garbage in them.
pieces = st.sampled_from(
    [
        FILE,
        FILE[:150],
        FILE[:-9],
        b"\r\n--b\r\n",
        b"\r\n--b--",
        b"--b\r\n",
        b"\r\n\r\n",
        b"Content-Type: application/dicom\r\n\r\n",
        b"Content-Type: application/dicom+json\r\n\r\n",
        b"Content-Location: x\r\n",
        b'[{"00080018":{"vr":"UI","Value":["1.2"]},',
        b'"7FE00010":{"vr":"OW","BulkDataURI":"x"}}]',
        b'[{"00080016":{"vr":"UI","Value":["1.2"]}}]',
        b"[]",
        b"[{" * 3000,
    ]
)


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(pieces | st.binary(max_size=60), max_size=12), st.integers(1, 4000), st.sampled_from([DICOM, DICOM_JSON]), st.booleans())
def test_whatever_comes_it_is_answered_or_refused_and_nothing_is_left(
    place: Place, body: list[bytes], size: int, kind: str, multipart: bool
) -> None:
    whole = b"".join(body)
    transaction = place.begin(kind, boundary="b" if multipart else "", study="2.25.1")
    waiting = len(place.spool.waiting())
    kept = 0
    try:
        for at in range(0, len(whole), size):
            transaction.receive(whole[at : at + size])
        outcomes = transaction.end()
        kept = sum(outcome.is_stored for outcome in outcomes)
        assert outcomes
    except Refused:
        pass
    finally:
        transaction.drop()
    assert place.unfinished() == []
    assert len(place.spool.waiting()) >= waiting + kept


def of_json(bulk: bytes) -> bytes:
    """A request of one instance with bulk data."""
    return b"--b\r\nContent-Type: application/dicom+json\r\n\r\n[{}]\r\n--b\r\nContent-Location: x\r\nContent-Type: a/b\r\n\r\n" + bulk


@pytest.mark.parametrize(
    ("kind", "body"), [(DICOM, parts(FILE + bytes(700_000), FILE + bytes(700_000))), (DICOM_JSON, of_json(bytes(2**21)))]
)
def test_a_disk_that_fills_up_keeps_nothing_of_the_request_and_takes_the_next(
    small_disk: Path, place: Place, kind: str, body: bytes
) -> None:
    small = Place(small_disk, place.syncs)

    with pytest.raises(Refused) as stop:
        small.begin(kind).receive(body)

    assert stop.value.refusal is NO_SPACE
    assert (small.spool.waiting(), small.unfinished()) == ([], [])
    following = small.begin()
    following.receive(parts(FILE))
    assert [outcome.is_stored for outcome in following.end()] == [True]


def test_no_file_stays_open(place: Place) -> None:
    gc.collect()
    before = open_files()
    for body, kind in ((parts(FILE, b"x", FILE), DICOM), (parts(FILE)[:-20], DICOM), (parts(b"[{}]", kind=DICOM_JSON), DICOM_JSON)):
        transaction = place.begin(kind)
        with suppress(Refused):
            transaction.receive(body)
            transaction.end()
        transaction.drop()

    assert open_files() <= before


def open_files() -> Counter[str]:
    """How often this process has each file open."""
    names = []
    for each in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # the listing's own, which is closed by now
            names.append(str(each.readlink()))
    return Counter(names)
