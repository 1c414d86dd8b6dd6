"""The HL7 receiver's own system calls, replayed on a disk that loses what is not synced, cut off at every point."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import msgspec
import pytest

from hilum.events import MessageReceived, decode
from hilum.hl7.message import parse
from hilum.journal import Journal, Position
from hilum.mllp import END, START
from ingest.hl7.intake import Kept
from tests.powercut import Call, Chance, Disk, calls, everything, nothing, something, traced, traced_role

from .listening import Peer, a_message

pytestmark = [pytest.mark.system, pytest.mark.peer("strace")]
LIVES, CONNECTIONS, MESSAGES = 3, 3, 5
#: Says that all is published, so that the next receiver writes over it.
PUBLISHER = """
import sys
from pathlib import Path
from hilum.journal import Journal
journal = Journal(Path(sys.argv[1]), history_bytes=2**20, segment_bytes=2**20)
with journal.opened():
    entries = journal.read(journal.done, most_bytes=2**30)
    journal.finish(entries[-1].end, len(entries))
"""


def content(control_id: str) -> str:
    return a_message(control_id, more=f"NTE|1||{control_id * 200}\r")


def send(port: int, life: int) -> None:
    """Several systems at once, each with several messages, all acknowledged."""
    failed: list[str] = []

    def system(number: int) -> None:
        with Peer(port) as peer:
            for n in range(MESSAGES):
                control_id = f"M{life}-{number}-{n}"
                if peer.asked(content(control_id)).get("MSA-1") != "AA":
                    failed.append(control_id)

    threads = [threading.Thread(target=system, args=(number,)) for number in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert failed == []


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Call]]:
    """Where the data directory was made, and the calls: new files are written, read to their end, and written again."""
    logs = tmp_path_factory.mktemp("strace")
    data = tmp_path_factory.mktemp("disk") / "site" / "data"
    for life in range(LIVES):
        with traced_role("hl7", data, logs, HILUM_HL7__HISTORY_BYTES=str(2**20)) as port:
            send(port, life)
        command = traced(logs, "publisher", sys.executable, "-c", PUBLISHER, data / "spool" / "hl7")
        subprocess.run(command, check=True)
    return data.parent.parent, calls([*logs.glob("receiver.*"), *logs.glob("publisher.*")])


def acknowledged(call: Call) -> list[str]:
    """The control ids to which this call says `AA`."""
    if call.name != "sendto" or not call.data.startswith(START + b"MSH"):
        return []
    answers = [parse(block.decode()) for block in call.data.removeprefix(START).removesuffix(END).split(END + START)]
    return [answer.get("MSA-2") for answer in answers if answer.get("MSA-1") == "AA"]


def in_journal(left: dict[str, bytes], folder: Path) -> dict[str, str]:
    """Each message in the journal of a Hilum that is started on what is left of the disk."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for path, raw in left.items():
        if path.endswith(".journal"):
            (folder / Path(path).name).write_bytes(raw)
    journal = Journal(folder, history_bytes=2**20, segment_bytes=2**20)
    with journal.opened():
        entries = journal.read(Position(0, 0), most_bytes=2**30)
    events = [decode(MessageReceived, msgspec.msgpack.decode(entry.payload, type=Kept).event) for entry in entries]
    return {event.control_id: event.text for event in events}


def lost(recorded: tuple[Path, list[Call]], folder: Path, chance: Chance) -> tuple[set[str], set[str]]:
    """What was acknowledged, and what a power cut at some point would have lost of what was not published, or changed."""
    root, found = recorded
    disk = Disk(root)
    told: set[str] = set()
    everything_told: set[str] = set()
    gone: set[str] = set()
    for call in disk.replay(found):
        if call.fd[0] == "publisher":
            told.clear()
            continue
        if ids := acknowledged(call):
            told.update(ids)
            everything_told.update(ids)
        elif call.name not in ("fsync", "fdatasync", "rename") and not (call.name == "pwrite64" and told):
            continue  # takes nothing from the disk
        survives, renamed = chance()
        kept = in_journal(disk.left(survives, renamed=renamed), folder)
        gone |= {each for each in told if each not in kept} | {each for each, text in kept.items() if text != content(each)}
    return everything_told, gone


@pytest.mark.parametrize("chance", [nothing, everything, something])
def test_whenever_the_power_fails_every_message_that_got_aa_is_whole_in_the_journal(
    recorded: tuple[Path, list[Call]], tmp_path: Path, chance: Chance
) -> None:
    told, gone = lost(recorded, tmp_path / "left", chance)

    assert len(told) == LIVES * CONNECTIONS * MESSAGES
    assert gone == set()


def test_files_were_written_again(recorded: tuple[Path, list[Call]]) -> None:
    _, found = recorded
    headers = [call.path for call in found if call.name == "pwrite64" and call.offset == 0 and call.path.endswith(".journal")]

    assert len(headers) > len(set(headers))


@pytest.mark.parametrize("left_out", ["fdatasync [^ ]+/spool/hl7/.*", "fsync [^ ]+/spool/hl7", "fsync [^ ]+/spool", "fsync [^ ]+/site"])
def test_the_test_finds_each_sync_that_is_left_out(recorded: tuple[Path, list[Call]], tmp_path: Path, left_out: str) -> None:
    root, found = recorded
    without = [call for call in found if not re.fullmatch(left_out, f"{call.name} {call.path}")]
    assert len(without) < len(found)

    assert lost((root, without), tmp_path / "left", nothing)[1]


def test_the_test_finds_a_checksum_that_does_not_cover_the_life_of_a_file(
    recorded: tuple[Path, list[Call]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hilum.journal.segment._checksum", lambda *_: 0)

    assert any(lost(recorded, tmp_path / "left", something)[1] for _ in range(60))  # a round may be lucky
