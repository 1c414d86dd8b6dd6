"""One huge object through a whole Hilum: received, stored, delivered to dcmtk's storescp; and the memory of each process."""

from __future__ import annotations

import hashlib
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from bench.ingest.goals import Goal
from bench.ingest.memory import peak_of_tree_mb
from bench.ingest.sets import write_multi_frame
from bench.peers import dcmsend, free_port, storescp
from bench.report import Report
from bench.running import RunningHilum, running_hilum
from hilum.dicom import file_meta
from hilum.store import PART_BYTES
from hilum.synthetic import write_ct_study

#: The object is on the disk of the sender, of the spool, of the store and of the receiver.
_COPIES = 4.5
_PATIENCE_S = 600.0
#: Small objects go first, so that what every object costs is not counted as growth.
_WARM = 20
#: The publisher holds two parts of an upload.
_FLAT_MB = 2.5 * PART_BYTES / 2**20


def huge(report: Report, size_bytes: int, folder: Path) -> list[Goal]:
    """Send it, wait until it is delivered, compare its digest at both ends."""
    size = f"{size_bytes / 1e9:g} GB"
    free = shutil.disk_usage(folder).free
    if free < _COPIES * size_bytes:
        report.say(
            f"The object of {size} was not sent: it needs {_COPIES * size_bytes / 1e9:.0f} GB on the disk, {free / 1e9:.0f} are free."
        )
        return []
    path = write_multi_frame(folder / "huge.dcm", size_bytes)
    out, data = folder / "huge-out", folder / "huge"
    data.mkdir()
    with storescp(out, pacs_port := free_port()), running_hilum(data, pacs_port) as hilum:
        warm = write_ct_study(folder / "warm", _WARM, patient="SYNTH0005")
        assert dcmsend(warm, hilum.port, "HILUM").returncode == 0
        hilum.come_to_rest(_PATIENCE_S)
        before = dict(_peaks(hilum))
        began = time.monotonic()
        sent = dcmsend(path, hilum.port, "HILUM", "--timeout", "600")
        acknowledged = time.monotonic() - began
        assert sent.returncode == 0, sent.stderr or sent.stdout
        account = hilum.come_to_rest(_PATIENCE_S)
        delivered = time.monotonic() - began
        after = dict(_peaks(hilum))
        [(sha256,)] = hilum.rows("SELECT sha256 FROM receipt ORDER BY received_at DESC LIMIT 1")
    received = max((each for each in out.iterdir() if each.is_file()), key=lambda each: each.stat().st_size)
    same = sha256 == _digest(received) and account.unaccounted == 0
    shutil.rmtree(out)
    path.unlink()
    print(f"{size}: acknowledged after {acknowledged:.1f} s, settled after {delivered:.1f} s", file=sys.stderr)
    rows = [(name, f"{before[name]:.0f}", f"{after[name]:.0f}", f"{after[name] - before[name]:.0f}") for name in before]
    report.table(f"An object of {size}: peak memory of each process (VmHWM), MB", ("Process", "before", "after", "growth"), rows)
    report.say(
        f"Acknowledged after {acknowledged:.1f} s ({size_bytes / 1e6 / acknowledged:.0f} MB/s), settled after {delivered:.1f} s. "
        f"The data set at the destination is {'the one that was received, bit by bit' if same else 'NOT the one that was received'}."
    )
    return [
        Goal(f"{size}: growth of {name}, MB", after[name] - before[name], _FLAT_MB, most=True)
        for name in before
        if name not in ("kafka", "s3", "postgres")
    ]


def _peaks(hilum: RunningHilum) -> Iterator[tuple[str, float]]:
    for child in hilum.state.children:
        yield child.name, peak_of_tree_mb(child.pid)


def _digest(part10: Path) -> str:
    """Of the data set."""
    with part10.open("rb") as file:
        _, at = file_meta.read_meta(file.read(file_meta.MAX_META_BYTES))
        file.seek(at)
        return hashlib.file_digest(file, "sha256").hexdigest()
