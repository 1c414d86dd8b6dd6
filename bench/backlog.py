"""A destination that is down with thousands waiting: does it delay another one, and how fast and in which order does it drain?"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from pydicom import dcmread
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom import AE

from bench.endtoend import count_files, wait_until
from bench.peers import dcmsend, free_port, installed, storescp
from bench.report import Report
from bench.running import RunningHilum, running_hilum
from hilum.asking import ready
from hilum.synthetic import write_ct_study

#: What waits is of one patient, and goes to the destination that is down, too.
WAITING, PACED = "SYNTHWAIT", "SYNTHPACED"
#: An image of so many pixels each way makes an object of about 12 kB.
PIXELS = 64
STUDIES = 20
MORE = """
[destinations.down]
type = "dicom"
host = "127.0.0.1"
port = {port}
aet = "PACS"
[[rules]]
name = "waiting"
when = 'PatientID == "{patient}"'
to = ["down"]
"""


def paced(files: Sequence[Path], per_second: float, hilum: RunningHilum, received: Path) -> list[float]:
    """Seconds from Success to stored at the destination that works, for each object."""
    acknowledged: dict[str, float] = {}
    ae = AE("BENCH")
    ae.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
    association = ae.associate("127.0.0.1", hilum.port, ae_title="HILUM")
    assert association.is_established
    before, began = count_files(received), time.monotonic()
    for n, path in enumerate(files):
        ds = dcmread(path)
        # As a modality does, so many a second; behind that, it does not wait at all.
        time.sleep(max(0.0, began + n / per_second - time.monotonic()))
        ready(association)
        assert association.send_c_store(ds).Status == 0x0000
        acknowledged[str(ds.SOPInstanceUID)] = time.time()
    association.release()
    wait_until(lambda: count_files(received) - before >= len(files))
    stored = {path.name.split(".", 1)[1]: path.stat().st_mtime for path in received.iterdir()}
    return sorted(stored[uid] - at for uid, at in acknowledged.items())


def waiting(hilum: RunningHilum) -> int:
    """Deliveries that wait for the destination that is down."""
    [(count,)] = hilum.rows("SELECT count(*) FROM delivery WHERE destination = 'down' AND state = 'pending'")
    return int(count)


def drained(hilum: RunningHilum, count: int) -> float:
    """Objects a second from now until nothing waits."""
    began = time.monotonic()
    wait_until(lambda: waiting(hilum) == 0, within_s=3600)
    return count / (time.monotonic() - began)


def overtaken(hilum: RunningHilum, urgent: str) -> tuple[int, int]:
    """How many objects there are of the urgent study, and how many others were settled before the last of them."""
    [found] = hilum.rows(
        """
        SELECT count(*) FILTER (WHERE study_instance_uid = %s), count(*) FILTER (WHERE study_instance_uid <> %s AND settled_at <
            (SELECT max(settled_at) FROM delivery WHERE destination = 'down' AND study_instance_uid = %s AND run = ''))
        FROM delivery WHERE destination = 'down' AND run = ''
        """,
        urgent,
        urgent,
        urgent,
    )
    return int(found[0]), int(found[1])


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="./dev bench backlog", description=__doc__)
    parser.add_argument("--waiting", type=int, default=20_000, help="objects that wait")
    parser.add_argument("--seconds", type=int, default=30, help="how long 20 objects/s are sent, without and with the backlog")
    given = parser.parse_args(arguments)
    if not installed("storescp"):
        sys.exit("This benchmark needs dcmtk: apt-get install dcmtk")
    report = Report("backlog", "A destination that is down, beside one that works")
    each = max(1, given.waiting // STUDIES)
    with tempfile.TemporaryDirectory(prefix="hilum-bench-") as name:
        folder = Path(name)
        received, late, down_port = folder / "received", folder / "late", free_port()
        first = write_ct_study(folder / "first", given.seconds * 20, patient=PACED)
        second = write_ct_study(folder / "second", given.seconds * 20, patient=PACED, seed=1)
        backlog = [
            write_ct_study(folder / "backlog" / str(n), each, patient=WAITING, rows=PIXELS, columns=PIXELS, seed=n) for n in range(STUDIES)
        ]
        urgent = str(dcmread(backlog[-1][0], stop_before_pixels=True).StudyInstanceUID)
        more = MORE.format(port=down_port, patient=WAITING)
        with storescp(received, pacs_port := free_port()), running_hilum(folder, pacs_port, more) as hilum:
            alone = paced(first, 20.0, hilum, received)
            for study in backlog:
                dcmsend(study, hilum.port, "HILUM")
            total = each * STUDIES
            wait_until(lambda: waiting(hilum) == total and count_files(received) == total + len(first), within_s=3600)
            beside = paced(second, 20.0, hilum, received)
            still = waiting(hilum)
            hilum.command("deliver", "urgent", urgent)
            with storescp(late, down_port):
                wait_until(lambda: waiting(hilum) < still, within_s=120)  # the destination is found again
                rate = drained(hilum, waiting(hilum))
                urgent_count, before = overtaken(hilum, urgent)
                hilum.command("dest", "pause", "down")
                hilum.command("deliver", "resend", "--to", "down", "--since", "1d", "--yes")
                again = waiting(hilum)
                hilum.command("dest", "resume", "down")
                reference = drained(hilum, again)
            account = json.loads(hilum.command("reconcile", "--json", check=False).stdout)
    rows = [
        (what, *(f"{1000 * delays[min(len(delays) - 1, int(len(delays) * q))]:.0f}" for q in (0.5, 0.95, 0.99, 1.0)))
        for what, delays in (("nothing waits", alone), (f"{still:,} objects wait for the one that is down", beside))
    ]
    report.table(
        f"C-STORE Success to stored at the destination that works, {len(first)} CT of 528 kB at 20 objects/s, ms",
        ("While", "Median", "p95", "p99", "Worst"),
        rows,
    )
    report.table(
        f"Draining {total:,} objects of 12 kB, one association",
        ("What", "Objects/s"),
        [("after the outage", f"{rate:.0f}"), ("the same again, without an outage", f"{reference:.0f}")],
    )
    report.say(f"Before the last of {urgent_count:,} urgent objects, {before:,} others were settled: those that were under way.")
    report.say(
        f"Account: {account['expected_deliveries']:,} expected, {account['pending']:,} pending, {account['unaccounted']} unaccounted."
    )
    report.write()
