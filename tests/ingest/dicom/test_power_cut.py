"""The receiver's own system calls, replayed on a disk that loses what is not synced, cut off at every point."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from bench.peers import wait_for_port
from hilum import upper_layer as ul
from hilum.spool import read_arrival
from tests.ingest.dicom.running import RawPeer, a_slice, encoded
from tests.peers import free_port
from tests.powercut import CALLS, STRACE, Call, Disk, calls

pytestmark = [pytest.mark.system, pytest.mark.peer("strace")]
ASSOCIATIONS, OBJECTS = 4, 12


@contextmanager
def traced_receiver(data: Path, logs: Path) -> Iterator[int]:
    """The port of a receiver of which every system call on files and sockets is written down."""
    port = free_port()
    environment = {
        **os.environ,
        "HILUM_DICOM__PORT": str(port),
        "HILUM_SPOOL__MIN_FREE_BYTES": "0",
        "HILUM_PROBE__PORT": str(free_port()),
        "HILUM_KAFKA__BOOTSTRAP": "none:9092",  # a receiver asks none of them for anything
        "HILUM_POSTGRES__DSN": "postgresql://none",
        "HILUM_S3__ENDPOINT": "http://none",
    }
    command = [*STRACE, CALLS, "-o", logs / "call", sys.executable, "-m", "hilum.host", "dicom", "--data", data]
    with subprocess.Popen(list(map(str, command)), env=environment) as strace:
        try:
            wait_for_port(port, 60)
            yield port
        finally:
            for child in psutil.Process(strace.pid).children():
                child.terminate()
            strace.wait(30)


def data_set(uid: str) -> bytes:
    return encoded(a_slice(SOPInstanceUID=uid, PatientComments=uid * 400))


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Call]]:
    """The receiver's data directory, which did not exist before, and its calls while several modalities sent at once."""
    logs = tmp_path_factory.mktemp("strace")
    data = tmp_path_factory.mktemp("disk") / "site" / "data"
    failed: list[str] = []
    with traced_receiver(data, logs) as port:

        def modality(number: int) -> None:
            peer = RawPeer(port)
            for n in range(OBJECTS):
                uid = f"2.25.{100 + number}{100 + n}"
                if peer.store(data_set(uid), uid) != 0x0000:
                    failed.append(uid)
            peer.release()

        threads = [threading.Thread(target=modality, args=(number,)) for number in range(ASSOCIATIONS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
    assert failed == []
    return data.parent.parent, calls(logs.glob("call.*"))


def acknowledged(call: Call) -> str:
    """The SOP instance to which this call says Success; empty if it does not."""
    if call.name != "sendto" or call.data[:1] != bytes([ul.Pdu.DATA]):
        return ""
    [(_, _, _, command)] = ul.pdvs(call.data[6:])
    if ul.read_response(command).status != 0x0000:
        return ""
    at = command.index(b"2.25.")
    return command[at:].split(b"\0")[0].decode()


def lost(root: Path, recorded: list[Call]) -> tuple[set[str], set[str]]:
    """What was acknowledged, and what of it a power cut at some point would have taken, whole or in part."""
    disk = Disk(root)
    told: set[str] = set()
    gone: set[str] = set()
    for call in disk.replay(recorded):
        if uid := acknowledged(call):
            told.add(uid)
        elif call.name in ("write", "sendto"):
            continue  # takes nothing from the disk
        kept = {}
        for path, content in disk.left().items():
            if "/spool/new/" in path and content:
                arrival, at = read_arrival(content)
                kept[arrival.sop_instance_uid] = content[at:]
        gone |= {uid for uid in told if kept.get(uid) != data_set(uid)}
    return told, gone


def test_whenever_the_power_fails_every_object_that_got_success_is_whole_in_the_spool(recorded: tuple[Path, list[Call]]) -> None:
    told, gone = lost(*recorded)

    assert len(told) == ASSOCIATIONS * OBJECTS
    assert gone == set()


@pytest.mark.parametrize("left_out", ["fdatasync [^ ]+", "fsync [^ ]+/spool/new", "fsync [^ ]+/spool", "fsync [^ ]+/site"])
def test_the_test_finds_each_sync_that_is_left_out(recorded: tuple[Path, list[Call]], left_out: str) -> None:
    root, found = recorded
    without = [call for call in found if not re.fullmatch(left_out, f"{call.name} {call.path}")]
    assert len(without) < len(found)

    assert lost(root, without)[1]
