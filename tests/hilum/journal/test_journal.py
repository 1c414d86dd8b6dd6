from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hilum.errors import Misconfigured
from hilum.journal import Entry, Journal, JournalFull, Position, segment
from hilum.testing import eventually

BEGIN = Position(0, 0)


@contextmanager
def a_journal(path: Path, *, history_bytes: int = 4096, segment_bytes: int = 4096, **more: int) -> Iterator[Journal]:
    journal = Journal(path / "journal", history_bytes=history_bytes, segment_bytes=segment_bytes, **more)
    with journal.opened() as mine:
        assert mine
        yield journal


def write(journal: Journal, *payloads: bytes) -> list[JournalFull | None]:
    """What came of each, once all is told."""
    told: list[JournalFull | None] = []
    all_told = threading.Event()

    def done(failure: JournalFull | None) -> None:
        told.append(failure)
        if len(told) == len(payloads):
            all_told.set()

    for payload in payloads:
        journal.append(uuid.uuid4(), payload, done)
    assert all_told.wait(60)
    return told


def contents(entries: list[Entry]) -> list[bytes]:
    return [entry.payload for entry in entries]


def test_what_was_written_is_read_in_its_order(tmp_path: Path) -> None:
    with a_journal(tmp_path) as journal:
        assert write(journal, b"a", b"b", b"c" * 3000, b"d" * 3000, b"e") == [None] * 5

        assert contents(journal.read(BEGIN)) == [b"a", b"b", b"c" * 3000, b"d" * 3000, b"e"]


def test_it_is_read_from_where_the_last_reading_ended(tmp_path: Path) -> None:
    with a_journal(tmp_path) as journal:
        write(journal, *(b"%d" % number * 500 for number in range(30)))

        found, after = [], BEGIN
        while entries := journal.read(after, most_bytes=1200):
            found += contents(entries)
            after = entries[-1].end

    assert found == [b"%d" % number * 500 for number in range(30)]


def test_a_new_process_reads_what_the_former_did_not_finish(tmp_path: Path) -> None:
    with a_journal(tmp_path) as journal:
        write(journal, b"a", b"b", b"c")
        journal.finish(journal.read(BEGIN)[1].end, 2)
    restored: list[bytes] = []
    journal = Journal(tmp_path / "journal", history_bytes=4096, segment_bytes=4096)

    with journal.opened(restored.append):
        assert contents(journal.read(journal.done)) == [b"c"]
        assert journal.lag == 1
        write(journal, b"d")
        assert contents(journal.read(journal.done)) == [b"c", b"d"]
        assert journal.lag == 2
    assert restored == [b"a", b"b", b"c"]


def test_files_are_written_again_once_they_are_read(tmp_path: Path) -> None:
    with a_journal(tmp_path, history_bytes=8192) as journal:
        after = BEGIN
        for number in range(200):
            write(journal, b"%d" % number * 200)
            entries = journal.read(after)
            after = entries[-1].end
            journal.finish(after, len(entries))

        assert len(list((tmp_path / "journal").glob("*.journal"))) <= 4


def test_what_is_not_read_is_kept_and_its_files_are_removed_afterwards(tmp_path: Path) -> None:
    with a_journal(tmp_path) as journal:
        write(journal, *(b"%d" % number * 200 for number in range(100)))
        assert len(list((tmp_path / "journal").glob("*.journal"))) > 9
        entries = journal.read(BEGIN, most_bytes=2**30)
        journal.finish(entries[-1].end, len(entries))
        write(journal, b"x" * 3000)
        write(journal, b"x" * 3000)
        write(journal, b"x" * 3000)

        assert len(contents(entries)) == 100
        assert len(list((tmp_path / "journal").glob("*.journal"))) <= 4


def test_an_entry_larger_than_a_file_gets_one_of_its_size(tmp_path: Path) -> None:
    with a_journal(tmp_path) as journal:
        write(journal, b"a", b"b" * 100_000, b"c")

        assert contents(journal.read(BEGIN)) == [b"a", b"b" * 100_000, b"c"]


def test_many_threads_lose_nothing(tmp_path: Path) -> None:
    with a_journal(tmp_path, segment_bytes=2**16) as journal:
        threads = [
            threading.Thread(target=write, args=(journal, *(b"%d/%d" % (thread, number) for number in range(200)))) for thread in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        found = contents(journal.read(BEGIN, most_bytes=2**30))

    assert len(found) == 1600
    for one in range(8):
        assert [each for each in found if each.startswith(b"%d/" % one)] == [b"%d/%d" % (one, number) for number in range(200)]


def test_a_nearly_full_disk_refuses_and_takes_again(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal", history_bytes=4096, segment_bytes=4096, min_free_bytes=2**60)
    with journal.opened():
        [failure] = write(journal, b"a")

        assert isinstance(failure, JournalFull)
        assert "nearly full" in str(failure)
        journal._min_free_bytes = 0
        assert write(journal, b"b") == [None]
        assert contents(journal.read(BEGIN)) == [b"b"]


def test_a_full_disk_refuses_and_what_was_there_before_stays(small_disk: Path) -> None:
    with a_journal(small_disk, history_bytes=2**18, segment_bytes=2**18) as journal:
        told = [write(journal, b"%d" % number * 20_000)[0] for number in range(30)]
        taken = [number for number, failure in enumerate(told) if failure is None]

        assert 0 < len(taken) < 30
        assert "full" in str(told[-1])
        entries = journal.read(BEGIN, most_bytes=2**30)
        assert contents(entries) == [b"%d" % number * 20_000 for number in taken]
        journal.finish(entries[-1].end, len(entries))
        eventually(lambda: write(journal, b"again") == [None])


def test_a_second_process_does_not_get_it(tmp_path: Path) -> None:
    with a_journal(tmp_path), Journal(tmp_path / "journal", history_bytes=4096).opened() as mine:
        assert not mine


def test_a_folder_that_cannot_be_written_is_told(read_only: Path) -> None:
    with pytest.raises(Misconfigured, match="cannot be used"), a_journal(read_only):
        pass


def test_a_path_that_is_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "journal").write_text("")

    with pytest.raises(Misconfigured, match="cannot be used"), a_journal(tmp_path):
        pass


def test_damage_costs_one_entry(tmp_path: Path) -> None:
    with a_journal(tmp_path) as journal:
        write(journal, b"first" * 9, b"second" * 9, b"third" * 9)
    [path] = (tmp_path / "journal").glob("*.journal")
    path.write_bytes(path.read_bytes().replace(b"secondsecond", b"secondSecond", 1))

    with a_journal(tmp_path) as journal:
        assert contents(journal.read(BEGIN)) == [b"first" * 9, b"third" * 9]


def test_a_file_of_before_is_not_written_on(tmp_path: Path) -> None:
    with a_journal(tmp_path) as journal:
        write(journal, b"a")
    with a_journal(tmp_path) as journal:
        write(journal, b"b")

        assert len({entry.end.life for entry in journal.read(BEGIN)}) == 2


@settings(deadline=None)
@given(st.lists(st.binary(max_size=200), max_size=20), st.integers(0, 5000), st.binary(min_size=1, max_size=40))
def test_whatever_is_broken_in_a_file_no_record_is_read_that_was_not_written(payloads: list[bytes], at: int, junk: bytes) -> None:
    fd = os.memfd_create("segment")
    try:
        raw, offset = segment.header(7), segment.HEADER_BYTES
        for payload in payloads:
            raw += segment.record(7, offset, 1, uuid.UUID(int=len(raw)), payload)
            offset = len(raw)
        at %= len(raw)
        os.write(fd, raw[:at] + junk + raw[at + len(junk) :])
        found = [each.payload for each in segment.records(fd, 7, segment.HEADER_BYTES, len(raw))]
        whole = [each.payload for each in segment.records(fd, 8, segment.HEADER_BYTES, len(raw))]
    finally:
        os.close(fd)

    remaining = iter(payloads)
    assert all(each in remaining for each in found)
    assert len(payloads) - len(found) <= 1 + len(junk) // 40 + 1
    assert whole == []
