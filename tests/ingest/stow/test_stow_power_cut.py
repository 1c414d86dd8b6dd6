"""The web receiver's own system calls, replayed on a disk that loses what is not synced, cut off at every point."""

from __future__ import annotations

import http.client
import json
import re
import threading
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import pytest

from hilum.spool import Spool, read_arrival
from tests.ingest.dicom.test_power_cut import in_spool
from tests.powercut import Call, Chance, Disk, calls, everything, nothing, something, traced_role
from tests.stow_client import TO_DICOM, TO_JSON, a_body, a_file, a_json, a_json_body

pytestmark = [pytest.mark.system, pytest.mark.peer("strace")]
CLIENTS, REQUESTS, INSTANCES = 4, 3, 3


def uids(client: int, request: int) -> list[str]:
    return [f"2.25.{100 + client}{100 + request}{100 + number}" for number in range(INSTANCES)]


def as_files(names: Sequence[str]) -> bytes:
    return a_body(*(a_file(SOPInstanceUID=uid, PatientComments=uid * 400) for uid in names))


def as_json(names: Sequence[str]) -> bytes:
    pixels = {f"pixels-{uid}": ("application/octet-stream", uid.encode() * 400) for uid in names}
    instances = [
        a_json(**{"00080018": {"vr": "UI", "Value": [uid]}, "7FE00010": {"vr": "OB", "BulkDataURI": f"pixels-{uid}"}}) for uid in names
    ]
    return a_json_body(*instances, bulk=pixels)


class Recorded:
    """What was recorded of a receiver."""

    def __init__(self, root: Path, found: list[Call], kept: dict[str, bytes]) -> None:
        self.root = root  #: of the disk; the data directory in it did not exist before
        self.calls = found
        self.kept = kept  #: data sets by SOP instance, as they are in the spool in the end


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    """The receiver's calls while several clients sent at once, files and DICOM JSON."""
    logs = tmp_path_factory.mktemp("strace")
    data = tmp_path_factory.mktemp("disk") / "site" / "data"
    statuses: list[int] = []
    with traced_role("stow", data, logs) as port:

        def client(number: int) -> None:
            for request in range(REQUESTS):
                body, kind = (as_json, TO_JSON) if (number + request) % 2 else (as_files, TO_DICOM)
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
                connection.request("POST", "/dicom-web/studies", body(uids(number, request)), {"Content-Type": kind})
                statuses.append(connection.getresponse().status)
                connection.close()

        threads = [threading.Thread(target=client, args=(number,)) for number in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
    assert statuses == [200] * CLIENTS * REQUESTS
    spool = Spool(data / "spool")
    files = [spool.read(receipt) for receipt in spool.waiting()]
    kept = {arrival.sop_instance_uid: file[at:] for file in files for arrival, at in [read_arrival(file)]}
    return Recorded(data.parent.parent, calls(logs.glob("receiver.*")), kept)


def told_by(recorded: Sequence[Call]) -> dict[Call, set[str]]:
    """The calls with which an answer begins, and the instances that the whole answer says are stored."""
    answers: dict[str, list[Call]] = defaultdict(list)
    for call in recorded:
        if call.name == "sendto":
            answers[call.path].append(call)
    found = {}
    for sent in answers.values():
        head, _, body = b"".join(call.data for call in sent).partition(b"\r\n\r\n")
        if head.startswith(b"HTTP/1.1 200 "):
            found[sent[0]] = {item["00081155"]["Value"][0] for item in json.loads(body)["00081199"]["Value"]}
    return found


def lost(recorded: Recorded, found: list[Call], folder: Path, chance: Chance) -> tuple[set[str], set[str]]:
    """What was acknowledged, and what a power cut at some point would have lost of it, or shown in part."""
    disk = Disk(recorded.root)
    answers = told_by(found)
    told: set[str] = set()
    gone: set[str] = set()
    for call in disk.replay(found):
        told |= answers.get(call, set())
        if call not in answers and call.name not in ("fsync", "fdatasync", "rename"):
            continue  # takes nothing from the disk, and promises nothing
        survives, renamed = chance()
        left = in_spool(disk.left(survives, renamed=renamed), folder / "cut")
        gone |= {uid for uid in told if uid not in left} | {uid for uid, content in left.items() if content != recorded.kept[uid]}
    return told, gone


@pytest.mark.parametrize("chance", [nothing, everything, something])
def test_whenever_the_power_fails_every_instance_that_was_called_stored_is_whole_in_the_spool(
    recorded: Recorded, tmp_path: Path, chance: Chance
) -> None:
    told, gone = lost(recorded, recorded.calls, tmp_path, chance)

    assert told == {uid for client in range(CLIENTS) for request in range(REQUESTS) for uid in uids(client, request)}
    assert gone == set()


@pytest.mark.parametrize("left_out", ["fdatasync [^ ]+", "fsync [^ ]+/spool/objects", "fsync [^ ]+/spool", "fsync [^ ]+/site"])
def test_the_test_finds_each_sync_that_is_left_out(recorded: Recorded, left_out: str, tmp_path: Path) -> None:
    without = [call for call in recorded.calls if not re.fullmatch(left_out, f"{call.name} {call.path}")]
    assert len(without) < len(recorded.calls)

    assert lost(recorded, without, tmp_path, nothing)[1]
