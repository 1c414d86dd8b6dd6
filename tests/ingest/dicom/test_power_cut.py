"""The receiver's own system calls, replayed on a disk that loses what is not synced, cut off at every point."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from hilum import upper_layer as ul
from hilum.spool import Spool, read_arrival
from tests.ingest.dicom.running import RawPeer, a_slice, encoded
from tests.powercut import Call, Chance, Disk, calls, everything, nothing, something, traced, traced_role

pytestmark = [pytest.mark.system, pytest.mark.peer("strace")]
ASSOCIATIONS, OBJECTS = 4, 6
PUBLISHER = """
import sys
from pathlib import Path
from hilum.spool import Spool
spool = Spool(Path(sys.argv[1]), spare_bytes=2**23)
spool.remove(spool.waiting())
"""


def data_set(uid: str) -> bytes:
    return encoded(a_slice(SOPInstanceUID=uid, PatientComments=uid * 400))


def send(port: int, study: int) -> None:
    """Several modalities at once, each with several objects, all acknowledged."""
    failed: list[str] = []

    def modality(number: int) -> None:
        peer = RawPeer(port)
        for n in range(OBJECTS):
            uid = f"2.25.{study}{100 + number}{100 + n}"
            if peer.store(data_set(uid), uid) != 0x0000:
                failed.append(uid)
        peer.release()

    threads = [threading.Thread(target=modality, args=(number,)) for number in range(ASSOCIATIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert failed == []


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Call]]:
    """The receiver's data directory, which did not exist before, and its calls: new files are written, given back, and written again."""
    logs = tmp_path_factory.mktemp("strace")
    data = tmp_path_factory.mktemp("disk") / "site" / "data"
    # The files of the worklist lie in the spool, and SQLite syncs that folder, too.
    with traced_role("dicom", data, logs, HILUM_WORKLIST__SERVE="false", HILUM_WORKLIST__MPPS="false") as port:
        send(port, 1)
        subprocess.run(traced(logs, "publisher", sys.executable, "-c", PUBLISHER, data / "spool"), check=True)
        send(port, 2)
    return data.parent.parent, calls([*logs.glob("receiver.*"), *logs.glob("publisher.*")])


def acknowledged(call: Call) -> str:
    """The SOP instance to which this call says Success; empty if it does not."""
    if call.name != "sendto" or call.data[:1] != bytes([ul.Pdu.DATA]):
        return ""
    [(_, _, _, command)] = ul.pdvs(call.data[6:])
    if ul.read_response(command).status != 0x0000:
        return ""
    at = command.index(b"2.25.")
    return command[at:].split(b"\0")[0].decode()


def in_spool(left: dict[str, bytes], folder: Path) -> dict[str, bytes]:
    """The data set of each instance in the spool of a Hilum that is started on what is left of the disk."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "objects").mkdir(parents=True)
    for path, content in left.items():
        if "/spool/objects/" in path:
            (folder / "objects" / Path(path).name).write_bytes(content)
    spool = Spool(folder)
    found = {}
    seen: set[str] = set()
    while names := set(spool.waiting()) - seen:  # what has a name of before gets its own
        seen |= names
        for receipt in names:
            with suppress(ValueError):  # no spool file
                if spool.check(receipt):
                    content = spool.read(receipt)
                    arrival, at = read_arrival(content)
                    found[arrival.sop_instance_uid] = content[at:]
    return found


def lost(recorded: tuple[Path, list[Call]], folder: Path, chance: Chance) -> tuple[set[str], set[str]]:
    """What was acknowledged, and what a power cut at some point would have lost of what was not published, or shown in part."""
    root, found = recorded
    disk = Disk(root)
    told: set[str] = set()
    gone: set[str] = set()
    everything_told: set[str] = set()
    for call in disk.replay(found):
        if call.fd[0] == "publisher":
            told.clear()
            continue
        if uid := acknowledged(call):
            told.add(uid)
            everything_told.add(uid)
        elif call.name not in ("fsync", "fdatasync", "rename", "pwrite64"):
            continue  # takes nothing from the disk, and seals nothing
        survives, renamed = chance()
        kept = in_spool(disk.left(survives, renamed=renamed), folder)
        gone |= {uid for uid in told if uid not in kept} | {uid for uid, content in kept.items() if content != data_set(uid)}
    return everything_told, gone


@pytest.mark.parametrize("chance", [nothing, everything, something])
def test_whenever_the_power_fails_every_object_that_got_success_is_whole_in_the_spool(
    recorded: tuple[Path, list[Call]], tmp_path: Path, chance: Chance
) -> None:
    told, gone = lost(recorded, tmp_path, chance)

    assert len(told) == 2 * ASSOCIATIONS * OBJECTS
    assert gone == set()


@pytest.mark.parametrize("left_out", ["fdatasync [^ ]+", "fsync [^ ]+/spool/objects", "fsync [^ ]+/spool", "fsync [^ ]+/site"])
def test_the_test_finds_each_sync_that_is_left_out(recorded: tuple[Path, list[Call]], tmp_path: Path, left_out: str) -> None:
    root, found = recorded
    without = [call for call in found if not re.fullmatch(left_out, f"{call.name} {call.path}")]
    assert len(without) < len(found)

    assert lost((root, without), tmp_path, nothing)[1]


def test_the_test_finds_a_seal_that_does_not_cover_the_object(
    recorded: tuple[Path, list[Call]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hilum.spool.seal.holds", lambda *_: True)

    assert any(lost(recorded, tmp_path, something)[1] for _ in range(60))  # a round may be lucky
