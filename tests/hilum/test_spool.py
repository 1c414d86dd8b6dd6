from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from pydicom import dcmread

from hilum.errors import Misconfigured
from hilum.settings import Settings
from hilum.settings import Spool as SpoolSettings
from hilum.spool import Arrival, Incoming, Spool, SpoolFull, SpoolTooLarge, is_spool_file, read_arrival, received_at
from hilum.testing import Clock, eventually

ARRIVAL = Arrival(
    adapter="dicom",
    transfer_syntax_uid="1.2.840.10008.1.2.1",
    sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
    sop_instance_uid="2.25.3",
    calling_aet="CT1",
    called_aet="HILUM",
    peer="10.1.2.3",
    association="0123456789abcdef",
)
DATA_SET = b"\x08\0\x16\0UI\x1a\x001.2.840.10008.5.1.4.1.1.2\0\x08\0\x18\0UI\x06\x002.25.3"


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool")


@pytest.fixture
def thrifty(tmp_path: Path) -> Spool:
    """A spool that keeps files to be written again."""
    return Spool(tmp_path / "spool", spare_bytes=2**20)


def stored(spool: Spool, data_set: bytes = DATA_SET) -> str:
    """The receipt of an object that was put into the spool."""
    incoming = spool.open(ARRIVAL)
    incoming.write(data_set)
    return incoming.commit()


def test_a_committed_object_waits_with_its_bytes_and_all_that_is_known_of_its_arrival(spool: Spool) -> None:
    receipt = stored(spool)

    assert spool.waiting() == [receipt]
    content = spool.read(receipt)
    arrival, data_set_at = read_arrival(content)
    assert arrival == ARRIVAL
    assert content[data_set_at:] == DATA_SET
    assert spool.unfinished() == []


def test_a_spool_file_is_a_part_10_file_that_others_can_read(spool: Spool) -> None:
    ds = dcmread(BytesIO(spool.read(stored(spool))))

    assert ds.SOPInstanceUID == "2.25.3"
    assert ds.file_meta.SendingApplicationEntityTitle == "CT1"
    assert ds.file_meta.ReceivingApplicationEntityTitle == "HILUM"
    assert ds.file_meta.MediaStorageSOPInstanceUID == "2.25.3"


def test_an_arrival_that_tells_little_is_kept_as_that(spool: Spool) -> None:
    little = Arrival(adapter="folder", transfer_syntax_uid="1.2.840.10008.1.2")
    incoming = spool.open(little)
    incoming.write(b"x")

    assert read_arrival(spool.read(incoming.commit()))[0] == little


def test_receipts_sort_by_time_and_tell_it(tmp_path: Path) -> None:
    clock = Clock()
    spool = Spool(tmp_path, now=clock)
    receipts = []
    for _ in range(3):
        receipts += [stored(spool), stored(spool)]
        clock.forward(milliseconds=7)

    assert spool.waiting() == receipts == sorted(set(receipts))
    assert received_at(receipts[-1]) == clock.moment - timedelta(milliseconds=7)


def test_receipts_stay_in_order_when_the_clock_goes_back(tmp_path: Path) -> None:
    clock = Clock(datetime.now(UTC) + timedelta(hours=1))
    spool = Spool(tmp_path, now=clock)
    first = stored(spool)
    clock.forward(hours=-1)

    assert stored(spool) > first


def test_nothing_is_seen_before_the_commit_and_nothing_left_after_a_discard(spool: Spool) -> None:
    incoming = spool.open(ARRIVAL)
    incoming.write(DATA_SET)
    assert spool.waiting() == []
    assert len(spool.unfinished()) == 1

    incoming.discard()
    incoming.discard()

    assert (spool.waiting(), spool.unfinished()) == ([], [])


def test_objects_that_came_together_are_seen_together_in_their_order(spool: Spool) -> None:
    together = [spool.open(ARRIVAL) for _ in range(3)]
    for number, incoming in enumerate(together):
        incoming.write(b"%d" % number)
    together[0].sync()
    assert spool.waiting() == []

    receipts = spool.commit(together)

    assert spool.waiting() == receipts
    assert [spool.read(receipt)[-1:] for receipt in receipts] == [b"0", b"1", b"2"]
    assert spool.unfinished() == []


def test_if_one_of_those_that_came_together_cannot_be_kept_none_is(spool: Spool) -> None:
    together = [spool.open(ARRIVAL) for _ in range(3)]
    together[1].discard()

    with pytest.raises(SpoolFull):
        spool.commit(together)

    assert (spool.waiting(), spool.unfinished()) == ([], [])


# Files that are written again


def test_a_file_that_was_given_back_is_written_again_and_shows_nothing_of_what_it_held(thrifty: Spool) -> None:
    thrifty.remove([stored(thrifty, b"long ago" * 1000)])
    [file] = thrifty.folder.iterdir()
    inode = file.stat().st_ino

    other = Spool(thrifty.folder.parent)
    receipt = stored(other, b"now")

    assert thrifty.path(receipt).stat().st_ino == inode
    content = thrifty.read(receipt)
    assert content[read_arrival(content)[1] :] == b"now"


def test_what_is_looked_at_before_the_commit_ends_with_the_object(thrifty: Spool) -> None:
    thrifty.remove([stored(thrifty, b"long ago" * 1000)])
    incoming = thrifty.open(ARRIVAL)
    incoming.write(b"now")

    with incoming.mapped() as (content, at):
        assert content[at:] == b"now"
    incoming.discard()


def test_no_more_is_kept_to_be_written_again_than_the_settings_say(tmp_path: Path) -> None:
    spool = Spool(tmp_path, spare_bytes=2**20)
    receipts = [stored(spool, bytes(400_000)) for _ in range(4)]

    spool.remove(receipts)

    assert len(list(spool.folder.iterdir())) == 2


def test_a_huge_file_is_not_kept(tmp_path: Path) -> None:
    spool = Spool(tmp_path, spare_bytes=2**30)

    spool.remove([stored(spool, bytes(5 * 2**20))])

    assert list(spool.folder.iterdir()) == []


def test_spare_files_are_made_up_to_the_settings_and_used(tmp_path: Path) -> None:
    spool = Spool(tmp_path, spare_bytes=3 * 2**20)
    spool.prepare(threading.Event())
    spool.prepare(threading.Event())
    inodes = {file.stat().st_ino for file in spool.folder.iterdir()}
    assert len(inodes) == 3

    assert spool.path(stored(spool)).stat().st_ino in inodes
    assert spool.unfinished() == []


def test_a_small_disk_is_not_filled_with_spare_files(small_disk: Path) -> None:
    spool = Spool(small_disk, spare_bytes=2**30)
    spool.prepare(threading.Event())
    assert list(spool.folder.iterdir()) == []

    spool.remove([stored(spool, bytes(100_000))])

    assert list(spool.folder.iterdir()) == []


def test_what_is_kept_is_given_up_before_an_object_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool(tmp_path, min_free_bytes=2**20, spare_bytes=4 * 2**20)
    spool.prepare(threading.Event())
    room = 2**20 - 1
    monkeypatch.setattr(spool, "free_bytes", lambda: room + (4 - len(list(spool.folder.glob("*.free")))) * 2**20)
    assert spool.nearly_full()

    receipt = stored(spool)

    assert [file.name for file in spool.folder.iterdir()] == [f"{receipt}.dcm"]


def test_a_disk_with_little_room_gets_back_what_is_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool(tmp_path, min_free_bytes=2**20, spare_bytes=4 * 2**20)
    spool.remove([stored(spool)])
    receipt = stored(spool)
    monkeypatch.setattr(spool, "free_bytes", lambda: 2 * 2**20)

    spool.remove([receipt])

    assert list(spool.folder.iterdir()) == []


# After a power cut


@pytest.mark.parametrize("name", ["0123456789abcdef.free", "0123456789abcdef.7.part"])
def test_a_whole_object_is_brought_to_light_whatever_its_file_is_called(spool: Spool, name: str) -> None:
    receipt = stored(spool)
    spool.path(receipt).rename(spool.folder / name)

    again = Spool(spool.folder.parent)

    assert again.waiting() == [receipt]
    assert again.read(receipt).endswith(DATA_SET)


@pytest.mark.parametrize("name", ["0123456789abcdef.free", "0123456789abcdef.7.part"])
@given(at=st.integers(0), bit=st.integers(0, 7))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_an_object_of_which_anything_is_missing_is_not(spool: Spool, name: str, at: int, bit: int) -> None:
    receipt = stored(spool)
    torn = bytearray(spool.path(receipt).read_bytes())
    at = at % (len(torn) - 88)
    at = at if at < 40 else at + 88  # the seal, or anything behind the preamble
    torn[at] ^= 1 << bit
    spool.path(receipt).unlink()
    (spool.folder / name).write_bytes(torn)

    again = Spool(spool.folder.parent)

    assert again.waiting() == []
    assert stored(again)
    again.remove(again.waiting())


def test_a_free_file_that_holds_an_object_after_all_is_not_written_over(thrifty: Spool) -> None:
    receipt = stored(thrifty, b"acknowledged")
    free = thrifty.folder / "0123456789abcdef.free"
    thrifty.path(receipt).rename(free)  # as a power cut may leave it, while this process runs

    others: list[str] = []

    def is_claimed() -> bool:  # free files are looked for now and then
        others.append(stored(thrifty, b"next"))
        return not free.exists()

    eventually(is_claimed)

    assert thrifty.waiting() == [receipt, *others]
    assert thrifty.read(receipt).endswith(b"acknowledged")


class Spooling(RuleBasedStateMachine):
    """Whatever is stored, published, broken off and restarted: what waits is what was stored and not published, byte for byte."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.spool = Spool(Path(self.folder.name), spare_bytes=2**16)
        self.held: dict[str, bytes] = {}
        self.open: list[tuple[Incoming, bytes]] = []

    @rule(data=st.binary(max_size=5000))
    def begin(self, data: bytes) -> None:
        incoming = self.spool.open(ARRIVAL)
        incoming.write(data)
        self.open.append((incoming, data))

    @precondition(lambda self: self.open)
    @rule(pick=st.integers(0))
    def commit(self, pick: int) -> None:
        incoming, data = self.open.pop(pick % len(self.open))
        self.held[incoming.commit()] = data

    @precondition(lambda self: self.open)
    @rule(pick=st.integers(0), synced=st.booleans())
    def break_off(self, pick: int, synced: bool) -> None:
        incoming, _ = self.open.pop(pick % len(self.open))
        if synced:
            incoming.sync()
        incoming.discard()

    @precondition(lambda self: self.held)
    @rule(pick=st.integers(0))
    def publish(self, pick: int) -> None:
        receipt = sorted(self.held)[pick % len(self.held)]
        self.spool.remove([receipt])
        del self.held[receipt]

    @rule()
    def another_process_starts(self) -> None:
        self.spool = Spool(Path(self.folder.name), spare_bytes=2**16)

    @invariant()
    def what_waits_is_what_was_stored(self) -> None:
        assert self.spool.waiting() == sorted(self.held)
        for receipt, data in self.held.items():
            content = self.spool.read(receipt)
            assert content[read_arrival(content)[1] :] == data
        assert len(self.spool.unfinished()) == len(self.open)

    def teardown(self) -> None:
        for incoming, _ in self.open:
            incoming.discard()
        self.folder.cleanup()


TestSpooling = Spooling.TestCase
TestSpooling.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)


def test_removing_is_final_and_may_be_repeated(spool: Spool) -> None:
    first, second = stored(spool), stored(spool)

    spool.remove([first])
    spool.remove([first])

    assert spool.waiting() == [second]


def test_below_the_watermark_nothing_new_is_taken(tmp_path: Path) -> None:
    spool = Spool(tmp_path, min_free_bytes=2**62)

    with pytest.raises(SpoolFull, match="nearly full"):
        spool.open(ARRIVAL)


def test_an_object_larger_than_allowed_leaves_nothing(spool: Spool) -> None:
    incoming = spool.open(ARRIVAL, max_bytes=10)
    incoming.write(b"0123456789")

    with pytest.raises(SpoolTooLarge, match="larger than 10 bytes"):
        incoming.write(b"x")

    assert (spool.waiting(), spool.unfinished()) == ([], [])


def test_a_disk_that_fills_up_amid_an_object_leaves_nothing_of_it_and_takes_the_next(small_disk: Path) -> None:
    spool = Spool(small_disk)
    incoming = spool.open(ARRIVAL)

    with pytest.raises(SpoolFull, match="disk is full"):
        incoming.write(bytes(2 * 2**20))

    assert (spool.waiting(), spool.unfinished()) == ([], [])
    assert stored(spool)


def test_a_full_disk_that_has_no_room_for_a_beginning_is_said_to_be_full(small_disk: Path) -> None:
    (small_disk / "filler").write_bytes(bytes(900_000))
    spool = Spool(small_disk, min_free_bytes=500_000)

    with pytest.raises(SpoolFull):
        spool.open(ARRIVAL)


CHILD = """
import sys
from pathlib import Path
from hilum.spool import Arrival, Spool
spool = Spool(Path(sys.argv[1]))
incoming = spool.open(Arrival(adapter="dicom", transfer_syntax_uid="1.2"))
incoming.write(b"half")
print("written", flush=True)
sys.stdin.read()
"""


def half_written(path: Path) -> subprocess.Popen[str]:
    """A process that has half an object in the spool at `path`."""
    child = subprocess.Popen([sys.executable, "-c", CHILD, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "written\n"
    return child


def test_what_a_killed_process_left_unfinished_is_removed_at_the_next_start(spool: Spool) -> None:
    child = half_written(spool.folder.parent)
    child.kill()
    child.communicate()
    assert len(spool.unfinished()) == 1

    Spool(spool.folder.parent)

    assert spool.unfinished() == []


def test_what_a_living_process_has_unfinished_is_left_alone(spool: Spool) -> None:
    child = half_written(spool.folder.parent)

    stored(spool)

    assert len(spool.unfinished()) == 1
    child.communicate("end")


def test_many_threads_share_a_spool(spool: Spool) -> None:
    receipts: list[str] = []
    threads = [threading.Thread(target=lambda: receipts.extend(stored(spool) for _ in range(10))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(set(receipts)) == 80
    assert spool.waiting() == sorted(receipts)


def test_syncs_of_the_directory_are_shared_and_none_is_missed(spool: Spool) -> None:
    directory = spool._files.directory
    begun, go = threading.Event(), threading.Event()
    syncs = 0

    class Slow(type(directory)):  # type: ignore[misc]  # a directory whose syncs can be held up
        def _sync(self) -> None:
            nonlocal syncs
            syncs += 1
            begun.set()
            assert go.wait(60)

    slow = Slow(spool.folder)
    first = threading.Thread(target=slow.sync)
    first.start()
    assert begun.wait(60)
    others = [threading.Thread(target=slow.sync) for _ in range(20)]
    for other in others:
        other.start()
    eventually(lambda: slow._asked == 21, what="all have asked")
    go.set()
    for each in (first, *others):
        each.join()

    # The one under way began before the others asked, so it cannot serve them; one more serves them all.
    assert syncs == 2


def test_a_directory_that_cannot_be_made_is_named_with_its_fix(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")

    with pytest.raises(Misconfigured, match=r"cannot be used.*spool\.path"):
        Spool(tmp_path / "file" / "spool")


def test_the_spool_lies_in_the_data_directory_unless_the_settings_say_otherwise(tmp_path: Path) -> None:
    assert Spool.of(Settings(data=str(tmp_path))).folder == tmp_path.resolve() / "spool" / "objects"
    assert Spool.of(Settings(spool=SpoolSettings(path=str(tmp_path / "other")))).folder == tmp_path.resolve() / "other" / "objects"


def test_what_is_no_spool_file_is_told_apart() -> None:
    for content in (b"", b"x" * 200, bytes(128) + b"DICM" + b"\x02\0\0\0UL\x04\0\xff\xff\0\0"):
        with pytest.raises(ValueError, match=r"File Meta|Part 10"):
            read_arrival(content)


def test_a_file_that_was_being_given_back_holds_nothing_that_is_missing(spool: Spool) -> None:
    receipt = stored(spool)
    spool.path(receipt).rename(spool.folder / f"{receipt}.done")  # its publisher was killed a moment later

    assert Spool(spool.folder.parent).waiting() == []


@pytest.mark.parametrize("suffix", [".done", ".free"])
def test_a_file_that_has_the_name_of_the_object_before_is_brought_to_light(spool: Spool, suffix: str) -> None:
    before, receipt = stored(spool), stored(spool)
    spool.path(receipt).rename(spool.folder / f"{before}{suffix}")

    assert Spool(spool.folder.parent).waiting() == [before, receipt]


def test_what_others_put_into_the_folder_stops_nobody_and_is_told_of(spool: Spool) -> None:
    (spool.folder / "folder.free").mkdir()
    (spool.folder / "notes.txt").write_text("x")
    (spool.folder / "x.torn").write_text("x")

    again = Spool(spool.folder.parent, spare_bytes=2**20)

    assert stored(again)
    assert again.damaged() == ["notes.txt", "x.torn"]


def test_a_file_says_at_its_beginning_whether_it_is_a_spool_file(spool: Spool) -> None:
    (spool.folder / "notes.dcm").write_text("x")
    (spool.folder / "notes.txt").write_text("x")
    receipt = stored(spool)
    (spool.folder / "1.free").touch()

    told = {path.name: is_spool_file(path) for path in spool.folder.iterdir()}

    assert told == {"notes.dcm": False, "notes.txt": False, "1.free": True, f"{receipt}.dcm": True}
    assert is_spool_file(spool.folder / "gone.dcm")


def test_a_long_backlog_is_not_looked_through_for_every_object(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, looks = 0.0, 0
    scandir = os.scandir

    def slow(path: Path) -> object:
        nonlocal now, looks
        now, looks = now + 1.0, looks + 1
        return scandir(path)

    monkeypatch.setattr("hilum.spool.files.time.monotonic", lambda: now)
    monkeypatch.setattr("hilum.spool.files.os.scandir", slow)
    spool = Spool(tmp_path)
    looks = 0
    for _ in range(200):
        now += 0.5
        stored(spool)

    assert looks == 2  # one second of fifty


def test_processes_that_start_all_at_once_take_nothing_from_each_other(tmp_path: Path) -> None:
    receipts: list[str] = []

    def one_process() -> None:
        spool = Spool(tmp_path / "spool", spare_bytes=2**20)
        receipts.extend(stored(spool) for _ in range(5))

    for _ in range(5):
        threads = [threading.Thread(target=one_process) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert Spool(tmp_path / "spool").waiting() == sorted(receipts)
    assert len(receipts) == 5 * 8 * 5
