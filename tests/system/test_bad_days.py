"""Bad days of the whole path: a full disk, a server away, a huge object, a crowd. Nothing acknowledged is lost."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from pydicom import dcmread
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from bench.faults import objects
from bench.running import RunningHilum, running_hilum
from bench.wire import RawReceiver, RawSender, part10_data_set
from hilum.spool import Spool
from hilum.synthetic import write_ct_study
from hilum.testing import eventually

pytestmark = pytest.mark.system

CONTEXT = (CTImageStorage, ExplicitVRLittleEndian)


def send(hilum: RunningHilum, made: list[tuple[str, bytes]]) -> list[str]:
    """Send all over one association; the UIDs of those that got Success."""
    sender = RawSender(hilum.port, [CONTEXT])
    acknowledged = [uid for uid, data_set in made if sender.send(*(CTImageStorage, uid, ExplicitVRLittleEndian, data_set)) == 0x0000]
    sender.release()
    return acknowledged


@pytest.mark.parametrize("server", ["kafka", "postgres", "s3"])
def test_a_modality_can_send_while_a_server_is_away_and_all_arrives_afterwards(
    one_hilum: RunningHilum, pacs: RawReceiver, tmp_path: Path, server: str
) -> None:
    made = objects(30, tmp_path, patient=f"AWAY{server}")
    one_hilum.kill(server)

    acknowledged = send(one_hilum, made)

    assert len(acknowledged) == 30
    account = one_hilum.come_to_rest()
    assert (account.unaccounted, account.undecided) == (0, 0)
    assert set(acknowledged) <= set(pacs.received)


def test_fifty_associations_at_once_are_all_served(one_hilum: RunningHilum, pacs: RawReceiver, tmp_path: Path) -> None:
    made = objects(50, tmp_path, patient="CROWD")
    open_at_once = threading.Barrier(50)
    acknowledged: list[str] = []

    def modality(uid: str, data_set: bytes) -> None:
        sender = RawSender(one_hilum.port, [CONTEXT])
        open_at_once.wait(60)
        if sender.send(CTImageStorage, uid, ExplicitVRLittleEndian, data_set) == 0x0000:
            acknowledged.append(uid)
        sender.release()

    threads = [threading.Thread(target=modality, args=each) for each in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(acknowledged) == sorted(uid for uid, _ in made)
    assert one_hilum.come_to_rest().unaccounted == 0
    assert set(acknowledged) <= set(pacs.received)


def test_an_association_that_breaks_off_in_the_middle_leaves_nothing(one_hilum: RunningHilum, tmp_path: Path) -> None:
    [path] = write_ct_study(tmp_path, 1, patient="BROKEN0001")
    uid = str(dcmread(path, stop_before_pixels=True).SOPInstanceUID)
    sender = RawSender(one_hilum.port, [CONTEXT])
    half = part10_data_set(path)[1][:200_000]
    spool = Spool.of(one_hilum.settings)
    sender.begin(CTImageStorage, uid, ExplicitVRLittleEndian, half)
    eventually(spool.unfinished, what="the half object is in the spool")

    sender.association.abort()

    eventually(lambda: spool.unfinished() == [], what="nothing of it is left in the spool")
    assert one_hilum.come_to_rest().unaccounted == 0
    assert one_hilum.rows("SELECT count(*) FROM receipt WHERE sop_instance_uid = %s", uid) == [(0,)]
    assert spool.waiting() == []


@pytest.mark.peer("dcmsend")
def test_an_object_of_500_mb_arrives_with_flat_memory(one_hilum: RunningHilum, tmp_path: Path) -> None:
    [path] = write_ct_study(tmp_path, 1, frames=1000, patient="HUGE0001")
    assert path.stat().st_size > 500_000_000
    before = memory(one_hilum)

    done = subprocess.run(
        ["dcmsend", "-aec", "HILUM", "127.0.0.1", str(one_hilum.port), str(path)], env={**os.environ, "TCP_NODELAY": "1"}, check=False
    )

    assert done.returncode == 0
    assert one_hilum.come_to_rest(within_s=240).unaccounted == 0
    assert memory(one_hilum) - before < 150_000_000


def memory(hilum: RunningHilum) -> int:
    """Peak resident bytes of Hilum's own processes so far (`VmHWM`), added up."""
    peak = 0
    for child in hilum.state.children:
        if child.name not in ("kafka", "postgres", "s3"):
            for process in (psutil.Process(child.pid), *psutil.Process(child.pid).children(recursive=True)):
                status = Path(f"/proc/{process.pid}/status").read_text()
                peak += next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))
    return peak


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 48 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(folder)], check=False).returncode:
        pytest.skip("a small disk can be mounted by root only")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_spool_disk_is_refused_as_out_of_resources_and_resumes_by_itself(tmp_path: Path, small_disk: Path) -> None:
    paths = write_ct_study(tmp_path / "ct", 120, patient="FULL0001")
    made = [(str(dcmread(path, stop_before_pixels=True).SOPInstanceUID), part10_data_set(path)[1]) for path in paths]
    pacs = RawReceiver()
    more = f'[spool]\npath = "{small_disk / "spool"}"\nmin_free_bytes = 4000000\n'
    with running_hilum(tmp_path, pacs.port, more, images_only=True) as hilum:
        hilum.pause("s3")  # so that the spool fills
        sender = RawSender(hilum.port, [CONTEXT])
        statuses = {uid: sender.send(CTImageStorage, uid, ExplicitVRLittleEndian, data_set) for uid, data_set in made}
        sender.release()
        assert set(statuses.values()) == {0x0000, 0xA700}
        hilum.resume("s3")
        refused = [(uid, data_set) for uid, data_set in made if statuses[uid] != 0x0000]
        hilum.come_to_rest()
        assert send(hilum, refused) == [uid for uid, _ in refused]
        account = hilum.come_to_rest()

        assert (account.received, account.delivered, account.unaccounted) == (120, 240, 0)
        assert set(pacs.received) == {uid for uid, _ in made}
    pacs.close()
