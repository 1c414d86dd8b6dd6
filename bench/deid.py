"""De-identification beside other tools: header only, one core each, from file to file."""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path

import psutil
import pydicom
import urllib3

from bench.deid_objects import write_patients, write_series
from bench.peers import free_port, gdcmanon, installed, orthanc, recipient
from bench.report import Report
from hilum.synthetic import write_ct_study

#: Python packages that are needed for this alone, with the version that was measured.
PEERS = {"dicom-anonymizer": "2.1.0", "dicognito": "0.19.0", "deid": "0.4.13"}
#: Hilum with the second look as it is shipped, and without it.
OURS = ("hilum-basic-look", "hilum-basic", "hilum-research-look", "hilum-research")
LOOKED = OURS[::2]
SCRIPT = Path(__file__).parent / "deid_peers.py"
#: Times the fastest peer in Python, by object.
GOALS = {"CT of 528 kB": 6, "CT_small, 39 kB": 12}
ORTHANC_GOAL = 2
#: Objects of a series, no one of which is done twice, and as many patients.
LARGE, SMALL = 400, 2000
#: Objects that Orthanc has: they fit into what it keeps in memory of its storage (128 MB, MaximumStorageCacheSize).
OF_ORTHANC = 40
ORTHANC = "Orthanc /anonymize"
GDCMANON = "gdcmanon, a folder"
#: What Orthanc does and Hilum does not, and the other way round.
FAIR = (
    "Beside Orthanc neither way is quite alike. Orthanc has the objects in its storage, uncompressed, and in memory; for each request it "
    "makes another object of one, and answers with it over HTTP: it reads no file, writes none, and looks at nothing a second time. "
    "Hilum's rows read one file and write another; in the rows `answered` it reads a file and answers over HTTP as Orthanc does, one "
    "client and one connection, and writes nothing. No object is done twice by Hilum or the Python peers, so that nothing is gained by "
    "remembering one; the first object of a process is not counted."
)
GDCM = (
    "gdcmanon (of GDCM) does a whole folder in one process; its start is counted, and spread over the files. It empties or removes what "
    "an older edition of the table names, and puts these values, encrypted for a recipient, into each object. It keeps dates, private "
    "elements and names of devices, holds no object back and looks at nothing a second time."
)
WRITTEN = (
    "Each output is a new file, which is removed when the next one is there; nobody waits for the disk. `hilum deid run` does: it lets no "
    "file have its name before it is on stable storage."
)


def uv() -> str:
    own = Path(sys.executable).parent / "uv"
    return str(own) if own.exists() else "uv"


def rate(name: str, files: Path, out: Path, seconds: float) -> tuple[float, float]:
    """Objects a second of processor and of wall clock, on one core."""
    command = [sys.executable]
    if name in PEERS:
        command = [uv(), "run", "--quiet", "--no-project", "--python", sys.executable, "--with", f"{name}=={PEERS[name]}", "python"]
    done = subprocess.run([*command, SCRIPT, name, files, out, str(seconds)], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{name} failed: {done.stderr[-2000:]}")
    said = json.loads(done.stdout.splitlines()[-1])
    return said["objects"] / said["cpu_s"], said["objects"] / said["wall_s"]


def gdcmanon_rate(files: Path, out: Path, certificate: Path) -> tuple[float, float]:
    """As `rate`, of `gdcmanon` for all the files at once."""
    count, used, began = len(list(files.iterdir())), resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = gdcmanon(files, out, certificate)
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode or len(list(out.iterdir())) != count:
        sys.exit(f"gdcmanon failed: {done.stderr[-2000:]}")
    return count / (after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime), count / wall


def orthanc_rate(files: Path, folder: Path, seconds: float, core: int, other: int) -> tuple[float, float]:
    """As `rate`, of its `/instances/{id}/anonymize`, asked by one client on the other core."""
    os.sched_setaffinity(0, {core})
    http_port = free_port()
    with orthanc(folder, free_port(), http_port, free_port()) as process:
        os.sched_setaffinity(0, {other})
        url = f"http://127.0.0.1:{http_port}/instances"
        with urllib3.PoolManager() as http:
            stored = sorted(files.iterdir())[:OF_ORTHANC]
            ids = [http.request("POST", url, body=path.read_bytes()).json()["ID"] for path in stored]
            server = psutil.Process(process.pid)
            before = sum(server.cpu_times()[:2])
            count, began = 0, time.perf_counter()
            while time.perf_counter() - began < seconds:
                answer = http.request("POST", f"{url}/{ids[count % len(ids)]}/anonymize", body=b"{}")
                assert answer.status == 200
                assert answer.data[128:132] == b"DICM"
                count += 1
            return count / (sum(server.cpu_times()[:2]) - before), count / (time.perf_counter() - began)


def answered_rate(name: str, files: Path, seconds: float, core: int, other: int) -> tuple[float, float]:
    """As `orthanc_rate`, of Hilum: it reads each file and answers with another one."""
    port = free_port()
    os.sched_setaffinity(0, {core})
    command: list[str | Path] = [sys.executable, SCRIPT, name, files, "answer", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process, closing(HTTPConnection("127.0.0.1", port)) as client:
        os.sched_setaffinity(0, {other})
        assert process.stdout is not None
        process.stdout.readline()  # it listens
        count, began = 0, time.perf_counter()
        for _ in range(len(list(files.iterdir())) - 1):
            client.request("POST", "/", b"{}")
            assert client.getresponse().read()[128:132] == b"DICM"
            count += 1
            if time.perf_counter() - began > seconds:
                break
        wall = count / (time.perf_counter() - began)
        client.close()
        said = json.loads(process.stdout.readline())
    return said["objects"] / said["cpu_s"], wall


def measure(report: Report, label: str, files: Path, work: Path, seconds: float, repeats: int) -> None:
    core, other = (*sorted(os.sched_getaffinity(0)), 0)[:2]
    os.sched_setaffinity(0, {core})
    rates: dict[str, list[tuple[float, float]]] = {}
    for _ in range(repeats):  # one after the other and again, so that all have the same neighbours on the machine
        for name in (*OURS, *PEERS):
            with tempfile.TemporaryDirectory(dir=work) as out:
                rates.setdefault(name, []).append(rate(name, files, Path(out), seconds))
        if installed("gdcmanon") and installed("openssl"):
            with tempfile.TemporaryDirectory(dir=work) as out:
                rates.setdefault(GDCMANON, []).append(gdcmanon_rate(files, Path(out), recipient(work)))
    if installed("Orthanc"):
        for _ in range(repeats):
            folder = work / f"orthanc-{len(list(work.iterdir()))}"
            rates.setdefault(ORTHANC, []).append(orthanc_rate(files, folder, seconds, core, other))
            for name in LOOKED:
                rates.setdefault(f"{name}, answered", []).append(answered_rate(name, files, seconds, core, other))
    os.sched_setaffinity(0, {core, other})
    # The best of several: whatever else the machine does only ever takes from it.
    cpu = {name: max(each[0] for each in found) for name, found in rates.items()}
    wall = {name: max(each[1] for each in found) for name, found in rates.items()}
    fastest = max(cpu[name] for name in PEERS)
    rows = [
        (
            name,
            f"{cpu[name]:,.0f}",
            f"{cpu[name] / fastest:.1f}",
            f"{wall[name]:,.0f}",
            f"{wall[name] / wall[ORTHANC]:.1f} by the clock, {cpu[name] / cpu[ORTHANC]:.1f} of the core" if ORTHANC in cpu else "",
        )
        for name in rates
    ]
    report.table(label, ("tool", "objects/s of one core", "times the fastest Python peer", "objects/s by the clock", "times Orthanc"), rows)
    goal = f"{GOALS[label]} times the fastest Python peer, {ORTHANC_GOAL} times Orthanc, " if label in GOALS else ""
    report.say(f"Goal: {goal}with the second look (`-look`)." if goal else "No goal is set for these.")


def memory(report: Report, work: Path) -> None:
    """Memory of its own for a multi-frame object of 400 MB, beside that for a small one."""
    folder = work / "memory"
    [path] = write_ct_study(folder, 1, frames=800)
    (folder / "00000-small.dcm").write_bytes((Path(pydicom.__file__).parent / "data" / "test_files" / "CT_small.dcm").read_bytes())
    rows = []
    for name in OURS[:2]:
        out = work / f"memory-{name}"
        out.mkdir()
        done = subprocess.run([sys.executable, SCRIPT, name, folder, out, "0"], capture_output=True, text=True, check=True)
        before, after = (int(line) / 1024 for line in done.stdout.splitlines()[-2:])
        rows.append((name, f"{path.stat().st_size / 1e6:.0f} MB", f"{before:.0f} MiB", f"{after:.0f} MiB"))
    report.table("Memory of its own after a small object, and after a large one", ("tool", "object", "before", "after"), rows)


def main(arguments: list[str]) -> None:
    """Measure Hilum and its peers on the same files."""
    options = argparse.ArgumentParser(prog="./dev bench deid")
    options.add_argument("--seconds", type=float, default=1.5)
    options.add_argument("--repeats", type=int, default=6)
    options.add_argument("--quick", action="store_true", help="short; writes no result")
    given = options.parse_args(arguments)
    seconds, repeats = (1.0, 1) if given.quick else (given.seconds, given.repeats)
    report = Report("deid", "De-identification beside other tools")
    report.say("Each reads a file, de-identifies its header and writes another file, on one core; pixel data stay as they are.")
    report.say(WRITTEN)
    report.say(FAIR)
    if installed("gdcmanon"):
        report.say(GDCM)
    load = f"{os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    report.say(f"Best of {repeats} runs of {seconds:g} s. Load of the machine at the beginning: {load}.")
    with tempfile.TemporaryDirectory(prefix="hilum-bench-") as folder:
        work = Path(folder)
        small = [Path(pydicom.__file__).parent / "data" / "test_files" / "CT_small.dcm"]
        large = write_series(write_ct_study(work / "one", 8), work / "ct", 100 if given.quick else LARGE)
        measure(report, "CT of 528 kB", large, work, seconds, repeats)
        measure(report, "CT_small, 39 kB", write_series(small, work / "small", SMALL), work, seconds, repeats)
        patients = write_patients(small, work / "patients", SMALL)
        measure(report, "CT_small, each of another patient", patients, work, seconds, repeats)
        memory(report, work)
    if not given.quick:
        report.write()
