"""What a modality was told is kept, is kept: the process that keeps it is killed at any moment."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from pathlib import Path

from hilum.procedures import Procedures
from hilum.settings import Settings
from hilum.settings import Spool as SpoolSettings

#: Keeps one step after the other, and says each that is kept.
_KEEPER = """
import sys
from tests.ingest.worklist.test_performed import Modality
from hilum.settings import Settings, Spool
modality = Modality(Settings(data=sys.argv[1], spool=Spool(min_free_bytes=0)))
print("ready", flush=True)
for n in range(int(sys.argv[2]), 10**9):
    assert modality.create(f"2.25.{n}")[0] == 0
    print(n, flush=True)
"""


def test_every_step_that_was_acknowledged_is_there_after_kill_9(tmp_path: Path) -> None:
    acknowledged: list[int] = []
    chance = random.Random(6)  # the same moments each time
    for begin in (1, 100_001):
        with subprocess.Popen(
            [sys.executable, "-c", _KEEPER, str(tmp_path), str(begin)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as keeper:
            assert keeper.stdout is not None
            assert keeper.stdout.readline() == "ready\n"
            for _ in range(chance.randrange(3, 40)):
                acknowledged.append(int(keeper.stdout.readline()))
            keeper.send_signal(signal.SIGKILL)
            acknowledged += [int(line) for line in keeper.stdout if line.endswith("\n")]

    untold = Procedures(Settings(data=str(tmp_path), spool=SpoolSettings(min_free_bytes=0))).untold(10_000)

    kept = [int(each.event.sop_instance_uid.removeprefix("2.25.")) for each in untold]
    assert set(acknowledged) <= set(kept)
    assert len(kept) <= len(acknowledged) + 3  # at most the one that each was about to say
    assert kept == sorted(kept)
