"""End to end beside Orthanc: from dcmsend, archived, indexed, delivered to dcmtk's storescp; latency, start, memory."""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import psycopg
from pydicom import dcmread
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom import AE

from bench.ingest.sets import SETS
from bench.peers import FORWARD_EVERY_INSTANCE, dcmsend, free_port, installed, orthanc, storescp
from bench.report import Report
from bench.running import running_hilum
from hilum.asking import ready
from hilum.services.runstate import RunState
from hilum.synthetic import write_ct_study

#: The sets of `bench.ingest.sets` that go end to end, as the arguments that make one study of each.
SHAPES: dict[str, dict[str, int]] = {"ct": {}, "small": {"rows": 64, "columns": 64}}


FILES_HELP = "originals are files (s3.folder)"


def originals_in(folder: Path, *, files: bool) -> str:
    """Settings that make originals files in a folder of `folder`; none if they are to be in the store that Hilum runs."""
    return f'[s3]\nfolder = "{folder / "originals"}"\n' if files else ""


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


#: One job for the whole study, once nothing came for a second: Orthanc's shortest.
FORWARD_STABLE_STUDY = """
function OnStableStudy(studyId, tags, metadata)
  RestApiPost('/modalities/pacs/store', '{"Resources": ["' .. studyId .. '"], "Asynchronous": true}')
end
"""

HILUM = "Hilum"
#: How Orthanc forwards: its Lua script, and what else its settings say.
ORTHANCS: dict[str, tuple[str, dict[str, object]]] = {
    "Orthanc, Lua per instance": (FORWARD_EVERY_INSTANCE, {"SaveJobs": False}),
    "Orthanc, OnStableStudy": (FORWARD_STABLE_STUDY, {"SaveJobs": False, "StableAge": 1}),
}


@dataclass(frozen=True)
class System:
    """What is measured: where it listens, where it delivers, and how many objects it is done with by its own account."""

    port: int
    delivers: Path
    settled: Callable[[], int]

    def objects_per_s(self, files: Sequence[Path]) -> tuple[float, float]:
        """Objects/s from the first association until all are at the destination and settled; seconds until all were acknowledged."""
        os.sync()  # what the others wrote is none of this one's work
        before = count_files(self.delivers), self.settled()
        began = time.monotonic()
        dcmsend(files, self.port, "ANY")
        acknowledged = time.monotonic() - began
        wait_until(lambda: count_files(self.delivers) - before[0] >= len(files) and self.settled() - before[1] >= len(files))
        return len(files) / (time.monotonic() - began), acknowledged


@contextmanager
def systems(folder: Path, more: str) -> Iterator[dict[str, System]]:
    """Hilum with `more` settings and the Orthancs, each with a destination of its own; those that wait are at rest."""
    with ExitStack() as stack:
        found = {}
        pacs = free_port()
        stack.enter_context(storescp(folder / "from-hilum", pacs))
        hilum = stack.enter_context(running_hilum(folder, pacs, more))
        connection = stack.enter_context(psycopg.connect(hilum.settings.postgres.dsn, autocommit=True))
        found[HILUM] = System(hilum.port, folder / "from-hilum", lambda: settled(connection))
        for n, (name, (lua, own_settings)) in enumerate(ORTHANCS.items()):
            port, delivers = free_port(), folder / f"from-orthanc-{n}"
            stack.enter_context(storescp(delivers, pacs := free_port()))
            stack.enter_context(orthanc(folder / f"orthanc-{n}", port, free_port(), pacs, lua, own_settings))
            found[name] = System(port, delivers, lambda delivers=delivers: count_files(delivers))  # type: ignore[misc]
        yield found


def throughput(name: str, count: int, rounds: int, folder: Path, more: str = "") -> dict[str, list[float]]:
    """Objects/s of each system with the set `name`, turn about, each round with a study of its own."""
    rates: dict[str, list[float]] = {}
    with systems(folder, more) as measured:
        for n in range(rounds):
            files = write_ct_study(folder / f"round-{n}", count, seed=n, **SHAPES[name])
            for system, of in measured.items():
                rate, acknowledged = of.objects_per_s(files)
                rates.setdefault(system, []).append(rate)
                print(f"{name}, round {n + 1}: {system}: {rate:.0f} objects/s (acknowledged after {acknowledged:.2f} s)", file=sys.stderr)
    return rates


def latency(files: Sequence[Path], per_second: float, folder: Path, more: str = "") -> tuple[list[float], float, list[tuple[str, int]]]:
    """Seconds from Success to stored at the destination for each object; seconds until ready; memory of each process at rest, MB."""
    received = folder / "paced"
    pacs_port = free_port()
    (folder / "paced-hilum").mkdir()
    with storescp(received, pacs_port), running_hilum(folder / "paced-hilum", pacs_port, more) as hilum:
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
            ready(association)
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
    parser.add_argument("--sets", default=",".join(SHAPES), help="ct, small")
    parser.add_argument("--part", type=float, default=1.0, help="of each set's objects")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=30, help="how long the latency part sends 20 objects/s; 0: not at all")
    parser.add_argument("--files", action="store_true", help=FILES_HELP)
    given = parser.parse_args(arguments)
    if not (installed("storescp") and installed("Orthanc")):
        sys.exit("This benchmark needs dcmtk and Orthanc: apt-get install dcmtk orthanc")
    title = f"End to end: C-STORE in, archived{' as files' * given.files}, indexed, C-STORE out"
    report = Report("endtoend_files" if given.files else "endtoend", title)
    for name in given.sets.split(","):
        with tempfile.TemporaryDirectory(prefix="hilum-bench-") as folder:
            count = max(1, round(SETS[name].count * given.part))
            more = originals_in(Path(folder), files=given.files)
            show_throughput(report, name, count, throughput(name, count, given.rounds, Path(folder), more))
    if given.seconds:
        with tempfile.TemporaryDirectory(prefix="hilum-bench-") as folder:
            paced = write_ct_study(Path(folder) / "paced-ct", given.seconds * 20, patient="SYNTH0002")
            show_latency(report, *latency(paced, 20.0, Path(folder), originals_in(Path(folder), files=given.files)))
    report.write()


def show_throughput(report: Report, name: str, count: int, rates: dict[str, list[float]]) -> None:
    best = max(statistics.median(rates[orthanc]) for orthanc in ORTHANCS)
    report.table(
        f"{count} {SETS[name].title} from dcmsend to storescp, objects/s",
        ("System", "Median", "Rounds"),
        [(system, f"{statistics.median(found):.0f}", ", ".join(f"{rate:.0f}" for rate in found)) for system, found in rates.items()],
    )
    ratio = statistics.median(rates[HILUM]) / best
    report.say(f"Hilum has archived, indexed and settled all of it. Of the better Orthanc: {ratio:.2f} (goal 1.0).")


def show_latency(report: Report, delays: list[float], ready_s: float, rest: list[tuple[str, int]]) -> None:
    delays.sort()
    report.table(
        f"C-STORE Success to stored at the destination, {len(delays)} CT of 528 kB at 20 objects/s, ms",
        ("Median (goal 300)", "p95", "p99 (goal 2,000)", "Worst"),
        [tuple(f"{1000 * delays[min(len(delays) - 1, int(len(delays) * q))]:.0f}" for q in (0.5, 0.95, 0.99, 1.0))],
    )
    report.table("Start and rest", ("What", "Value", "Goal"), [("hilum up to ready, warm cache", f"{ready_s:.1f} s", "12 s")])
    report.table("Memory at rest (PSS), MB", ("Process", "MB"), [*rest, ("all (goal 1,600)", sum(size for _, size in rest))])
