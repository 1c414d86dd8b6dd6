"""What a modality was told is kept, is there after a power cut: the receiver's own system calls, replayed on a disk that loses what is
not synced, cut off at every point.
"""

from __future__ import annotations

import re
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from pynetdicom import AE
from pynetdicom.sop_class import ModalityPerformedProcedureStep  # type: ignore[attr-defined]  # made at import

from hilum import upper_layer as ul
from hilum.asking import ready
from hilum.procedures import Procedures
from hilum.settings import Settings
from hilum.settings import Spool as SpoolSettings
from tests.powercut import Call, Chance, Disk, calls, everything, nothing, something, traced_role

from .steps import EXPLICIT, data_set
from .test_performed import CREATE, END

pytestmark = [pytest.mark.system, pytest.mark.peer("strace")]
MODALITIES, STEPS = 2, 1
#: Each step is created, changed, and ended.
STATES = {1: "in-progress", 2: "in-progress", 3: "completed"}
_RESPONSES = (0x8140, 0x8120)


def perform(port: int, number: int, failed: list[str]) -> None:
    """A modality with several steps one after the other."""
    ae = AE(ae_title=f"CT{number}")
    ae.add_requested_context(ModalityPerformedProcedureStep, [EXPLICIT])
    association = ae.associate("127.0.0.1", port, ae_title="HILUM")
    for n in range(STEPS):
        uid = f"2.25.{500 + 10 * number + n}"
        for ask, said in (
            (association.send_n_create, CREATE),
            (association.send_n_set, {"PerformedProcedureStepDescription": "Thorax"}),
            (association.send_n_set, END),
        ):
            ready(association)
            answer, _ = ask(data_set(said), ModalityPerformedProcedureStep, uid)
            if answer.Status != 0x0000:
                failed.append(uid)
    association.release()


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Call]]:
    """Where the data directory was made, and the receiver's calls."""
    logs = tmp_path_factory.mktemp("strace")
    data = tmp_path_factory.mktemp("disk") / "site" / "data"
    failed: list[str] = []
    with traced_role("dicom", data, logs, HILUM_WORKLIST__MPPS="true") as port:
        threads = [threading.Thread(target=perform, args=(port, number, failed)) for number in range(MODALITIES)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
    assert failed == []
    return data.parent.parent, calls(logs.glob("receiver.*"))


@pytest.fixture
def left(tmp_path: Path) -> Iterator[Path]:
    """Where what is left is put: in memory, if that can be, since SQLite syncs whenever it is opened."""
    memory = Path("/dev/shm")  # noqa: S108  # a folder of its own is made in it
    if not memory.is_dir():
        yield tmp_path / "left"
        return
    with TemporaryDirectory(dir=memory) as folder:
        yield Path(folder) / "left"


def acknowledged(call: Call) -> str:
    """The step of which this call says that a message about it was taken; empty if it does not."""
    if call.name != "sendto" or call.data[:1] != bytes([ul.Pdu.DATA]):
        return ""
    _, _, _, command = next(iter(ul.pdvs(call.data[6:])))
    said = ul.read_elements(command)
    if int.from_bytes(said.get(0x0100, b""), "little") not in _RESPONSES or ul.read_response(command).status != 0x0000:
        return ""
    return said[0x1000].rstrip(b"\0").decode()


def in_file(left: dict[str, bytes], folder: Path) -> tuple[dict[str, int], list[str]]:
    """How far each step is for a Hilum that is started on what is left of the disk, and what is wrong with what it has."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "spool").mkdir(parents=True)
    for path, content in left.items():
        if "/spool/procedures.sqlite" in path:
            (folder / "spool" / Path(path).name).write_bytes(content)
    procedures = Procedures(Settings(data=str(folder), spool=SpoolSettings(min_free_bytes=0)))
    revisions: dict[str, int] = {}
    wrong = []
    for _, event in procedures.untold(1000):
        uid = event.sop_instance_uid
        if event.revision != revisions.get(uid, 0) + 1 or event.state != STATES[event.revision]:
            wrong.append(f"{uid}: revision {event.revision} is told after {revisions.get(uid, 0)}")
        revisions[uid] = event.revision
    for uid, revision in revisions.items():
        known = procedures.get(uid)
        if known is None or (known.revision, known.state) != (revision, STATES[revision]):
            wrong.append(f"{uid}: its state is not that of revision {revision}")
    with sqlite3.connect(folder / "spool" / "procedures.sqlite") as connection:
        wrong += [row[0] for row in connection.execute("PRAGMA integrity_check") if row[0] != "ok"]
    return revisions, wrong


def lost(recorded: tuple[Path, list[Call]], folder: Path, chance: Chance) -> tuple[int, list[str]]:
    """How many messages were taken, and what a power cut at some point would have lost of them, or spoilt."""
    root, found = recorded
    disk = Disk(root)
    told: dict[str, int] = {}
    gone: list[str] = []
    for call in disk.replay(found):
        if uid := acknowledged(call):
            told[uid] = told.get(uid, 0) + 1
        elif not (call.name in ("fsync", "fdatasync", "unlink") or (call.name == "pwrite64" and call.path.endswith("procedures.sqlite"))):
            continue  # takes nothing from the disk
        survives, renamed = chance()
        try:
            kept, wrong = in_file(disk.left(survives, renamed=renamed), folder)
        except (OSError, sqlite3.Error) as error:
            kept, wrong = {}, [f"the file cannot be used: {error}"]
        gone += wrong + [f"{uid}: {kept.get(uid, 0)} of {count}" for uid, count in told.items() if kept.get(uid, 0) < count]
    return sum(told.values()), gone


@pytest.mark.parametrize("chance", [nothing, everything, something])
def test_whenever_the_power_fails_every_message_that_got_success_is_kept(
    recorded: tuple[Path, list[Call]], left: Path, chance: Chance
) -> None:
    told, gone = lost(recorded, left, chance)

    assert told == MODALITIES * STEPS * len(STATES)
    assert gone == []


@pytest.mark.parametrize(
    "left_out",
    [
        "fdatasync [^ ]+/procedures.sqlite",
        "fdatasync [^ ]+/procedures.sqlite-journal",
        "f(data)?sync [^ ]+/spool",
        "fsync [^ ]+/site",
    ],
)
def test_the_test_finds_each_sync_that_is_left_out(recorded: tuple[Path, list[Call]], left: Path, left_out: str) -> None:
    root, found = recorded
    without = [call for call in found if not re.fullmatch(left_out, f"{call.name} {call.path}")]
    assert len(without) < len(found)

    assert any(lost((root, without), left, chance)[1] for chance in (nothing, *[something] * 20))
