"""End to end beside Orthanc: CT from dcmsend, archived, indexed, delivered to dcmtk's storescp; latency, start, memory."""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import psycopg
from pydicom import dcmread
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom import AE

from bench.peers import dcmsend, free_port, installed, orthanc, storescp
from bench.report import Report
from bench.running import running_hilum
from hilum.services.runstate import RunState
from hilum.synthetic import write_ct_study


def count_files(folder: Path) -> int:
    return sum(1 for entry in folder.iterdir() if entry.is_file())


def wait_until(reached: Any, within_s: float = 180.0) -> float:
    """The moment at which `reached()` was first true."""
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        if reached():
            return time.monotonic()
        time.sleep(0.05)
    raise TimeoutError("It did not arrive in time.")


def settled(connection: psycopg.Connection[Any]) -> int:
    """Objects that are indexed and whose deliveries are all settled."""
    query = """
        SELECT count(*) FROM receipt r WHERE expected_deliveries > 0 AND EXISTS (SELECT 1 FROM instance i WHERE i.receipt = r.receipt)
          AND expected_deliveries = (SELECT count(*) FROM delivery d WHERE d.receipt = r.receipt AND d.state <> 'pending')
    """
    row = connection.execute(query).fetchone()
    assert row is not None
    return int(row[0])


def throughput(files: Sequence[Path], rounds: int, folder: Path) -> tuple[list[float], list[float]]:
    """Objects/s of Hilum and of Orthanc, turn about, each round on objects of its own; the one that waits is at rest."""
    ours, theirs = [], []
    count = len(files) // rounds
    from_hilum, from_orthanc = folder / "from-hilum", folder / "from-orthanc"
    port, http_port = free_port(), free_port()
    with (
        storescp(from_hilum, pacs_of_hilum := free_port()),
        storescp(from_orthanc, pacs_of_orthanc := free_port()),
        running_hilum(folder, pacs_of_hilum) as hilum,
        orthanc(folder / "orthanc", port, http_port, pacs_of_orthanc),
        psycopg.connect(hilum.settings.postgres.dsn, autocommit=True) as connection,
    ):
        for n in range(rounds):
            sent = files[n * count : (n + 1) * count]
            before = count_files(from_hilum), settled(connection)
            began = time.monotonic()
            dcmsend(sent, hilum.port, "HILUM")
            acknowledged = time.monotonic() - began
            wait_until(lambda before=before: count_files(from_hilum) - before[0] >= count and settled(connection) - before[1] >= count)
            ours.append(count / (time.monotonic() - began))
            print(f"Hilum round {n + 1}: {ours[-1]:.0f} objects/s (acknowledged after {acknowledged:.2f} s)", file=sys.stderr)
            before = count_files(from_orthanc), 0
            began = time.monotonic()
            dcmsend(sent, port, "ORTHANC")
            wait_until(lambda before=before: count_files(from_orthanc) - before[0] >= count)
            theirs.append(count / (time.monotonic() - began))
            print(f"Orthanc round {n + 1}: {theirs[-1]:.0f} objects/s", file=sys.stderr)
    return ours, theirs


def latency(files: Sequence[Path], per_second: float, folder: Path) -> tuple[list[float], float, list[tuple[str, int]]]:
    """Seconds from Success to stored at the destination for each object; seconds until ready; memory of each process at rest, MB."""
    received = folder / "paced"
    pacs_port = free_port()
    (folder / "paced-hilum").mkdir()
    with storescp(received, pacs_port), running_hilum(folder / "paced-hilum", pacs_port) as hilum:
        time.sleep(5)
        rest = memory(hilum.state)
        acknowledged: dict[str, float] = {}
        ae = AE("BENCH")
        ae.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
        association = ae.associate("127.0.0.1", hilum.port, ae_title="HILUM")
        assert association.is_established
        began = time.monotonic()
        for n, path in enumerate(files):
            ds = dcmread(path)
            time.sleep(max(0.0, began + n / per_second - time.monotonic()))
            status = association.send_c_store(ds)
            assert status.Status == 0x0000
            acknowledged[str(ds.SOPInstanceUID)] = time.time()
        association.release()
        wait_until(lambda: count_files(received) >= len(files))
    stored = {path.name.split(".", 1)[1]: path.stat().st_mtime for path in received.iterdir()}
    return [stored[uid] - acknowledged[uid] for uid in acknowledged], hilum.ready_s, rest


def memory(state: RunState) -> list[tuple[str, int]]:
    """Proportional set size in MB of the supervisor and of all that it runs."""
    names = {child.pid: child.name for child in state.children} | {state.pid: "supervisor"}
    found: Counter[str] = Counter()

    def count(process: psutil.Process, name: str) -> None:
        name = names.get(process.pid, name)
        found[name] += process.memory_full_info().pss
        for child in process.children():
            count(child, "what forks the roles" if name == "supervisor" else name)

    count(psutil.Process(state.pid), "")
    return [(name, round(size / 2**20)) for name, size in found.items()]


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="./dev bench endtoend", description=__doc__)
    parser.add_argument("--objects", type=int, default=300, help="objects a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=20, help="how long the latency part sends 20 objects/s")
    given = parser.parse_args(arguments)
    if not (installed("storescp") and installed("Orthanc")):
        sys.exit("This benchmark needs dcmtk and Orthanc: apt-get install dcmtk orthanc")
    report = Report("endtoend", "End to end: C-STORE in, archived, indexed, C-STORE out")
    with tempfile.TemporaryDirectory(prefix="hilum-bench-") as name:
        folder = Path(name)
        files = write_ct_study(folder / "ct", given.objects * given.rounds)
        ours, theirs = throughput(files, given.rounds, folder)
        paced = write_ct_study(folder / "paced-ct", given.seconds * 20, patient="SYNTH0002")
        delays, ready_s, rest = latency(paced, 20.0, folder)
    ratio = statistics.median(ours) / statistics.median(theirs)
    report.table(
        f"{given.objects} CT of 528 kB from dcmsend to storescp, objects/s",
        ("System", "Median", "Rounds"),
        [
            ("Hilum (archived, indexed, delivered, all settled)", f"{statistics.median(ours):.0f}", ", ".join(f"{x:.0f}" for x in ours)),
            ("Orthanc (Debian; Lua forwards every instance)", f"{statistics.median(theirs):.0f}", ", ".join(f"{x:.0f}" for x in theirs)),
        ],
    )
    report.say(f"Ratio Hilum/Orthanc: {ratio:.2f} (goal 0.5).")
    delays.sort()
    report.table(
        f"C-STORE Success to stored at the destination, {len(delays)} objects at 20 objects/s, ms",
        ("Median", "p95", "p99", "Worst"),
        [tuple(f"{1000 * delays[min(len(delays) - 1, int(len(delays) * q))]:.0f}" for q in (0.5, 0.95, 0.99, 1.0))],
    )
    report.table("Start and rest", ("What", "Value", "Goal"), [("hilum up to ready, warm cache", f"{ready_s:.1f} s", "12 s")])
    total = sum(size for _, size in rest)
    report.table(
        "Memory at rest (PSS), MB",
        ("Process", "MB"),
        [*rest, ("all (goal 1,600)", total)],
    )
    report.write()
