"""STOW-RS beside Orthanc's DICOMweb plugin: the same requests from the same client, turn about."""

from __future__ import annotations

import http.client
import os
import shutil
import statistics
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.ingest.goals import Goal
from bench.ingest.memory import peak_mb
from bench.ingest.receivers import alone, instances_of_orthanc, spooled
from bench.peers import ORTHANC_DICOMWEB, free_port, installed, orthanc
from bench.report import Report
from hilum.roles import role_names

#: Instances of one request.
TOGETHER = 10
_BOUNDARY = "hilum-bench"


@dataclass(frozen=True)
class Server:
    """A STOW-RS server that runs."""

    pid: int
    port: int

    def send(self, requests: Sequence[bytes]) -> None:
        """POST each of the requests over one connection. Raises `ConnectionError` unless all instances of each are stored."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        headers = {
            "Content-Type": f'multipart/related; type="application/dicom"; boundary={_BOUNDARY}',
            "Accept": "application/dicom+json",
        }
        for body in requests:
            connection.request("POST", "/dicom-web/studies", body, headers)
            answer = connection.getresponse()
            said = answer.read()
            if answer.status != 200:
                raise ConnectionError(f"The answer was {answer.status}: {said[:200]!r}")
        connection.close()


def requests_of(paths: Sequence[Path]) -> list[bytes]:
    """The bodies of the requests (PS3.18 10.5.1, RFC 2387), `TOGETHER` instances each."""
    head = f"--{_BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    end = f"--{_BOUNDARY}--\r\n".encode()
    bodies = []
    for at in range(0, len(paths), TOGETHER):
        bodies.append(b"".join(head + path.read_bytes() + b"\r\n" for path in paths[at : at + TOGETHER]) + end)
    return bodies


@contextmanager
def _hilum(folder: Path, expected: int) -> Iterator[Server]:
    port = free_port()
    with alone(folder, "stow", port, f'[stow]\nhost = "127.0.0.1"\nport = {port}\n') as process:
        yield Server(process.pid, port)
        stored = spooled(folder)
    if stored != expected:
        raise ConnectionError(f"Hilum has {stored} of {expected} instances.")


@contextmanager
def _orthanc(folder: Path, expected: int) -> Iterator[Server]:
    http_port = free_port()
    with orthanc(folder, free_port(), http_port, pacs_port=1, lua="", more={"Plugins": [ORTHANC_DICOMWEB]}) as process:
        yield Server(process.pid, http_port)
        stored = instances_of_orthanc(http_port)
    if stored != expected:
        raise ConnectionError(f"Orthanc has {stored} of {expected} instances.")


SERVERS = {"Hilum": _hilum, "Orthanc's DICOMweb plugin": _orthanc}


def stow(report: Report, paths: Sequence[Path], connections: Sequence[int], rounds: int, folder: Path) -> list[Goal]:
    """Instances/s of both, medians of rounds; says so if one of them is not there."""
    what = "STOW, of Orthanc's DICOMweb plugin"
    if "stow" not in role_names():
        report.say("STOW-RS was not measured: this Hilum has no role `stow`.")
        return [Goal(what, None, 1.0)]
    if not installed("Orthanc") or not Path(ORTHANC_DICOMWEB).exists():
        report.say("STOW-RS was not measured: Orthanc's DICOMweb plugin is not installed (Debian: orthanc-dicomweb).")
        return [Goal(what, None, 1.0)]
    bodies = requests_of(paths)
    rates: dict[tuple[str, int], list[float]] = {(name, count): [] for name in SERVERS for count in connections}
    peaks: dict[str, float] = {}
    for number in range(rounds):
        for count in connections:
            for name in list(SERVERS)[:: 1 if number % 2 else -1]:
                here = folder / "stow"
                here.mkdir()
                os.sync()
                with SERVERS[name](here, len(paths)) as server:
                    rates[name, count].append(len(paths) / _send(server, bodies, count))
                    peaks[name] = max(peaks.get(name, 0.0), peak_mb(server.pid))
                shutil.rmtree(here)
                print(f"stow round {number + 1}: {name} x{count} {rates[name, count][-1]:.0f} instances/s", file=sys.stderr)
    medians = {key: statistics.median(found) for key, found in rates.items()}
    ours, theirs = SERVERS
    rows = [
        (name, count, f"{medians[name, count]:.0f}", f"{medians[name, count] / medians[theirs, count]:.2f}", _list(rates[name, count]))
        for name, count in rates
    ]
    report.table(
        f"STOW-RS: {len(paths)} CT of 528 kB, {TOGETHER} a request",
        ("Server", "connections", "instances/s", "of Orthanc", "Rounds"),
        rows,
    )
    report.say("Peak memory: " + ", ".join(f"{name} {peak:.0f} MB" for name, peak in peaks.items()) + ".")
    return [Goal(f"{what}, x{count}", medians[ours, count] / medians[theirs, count], 1.0) for count in connections]


def _list(rates: Sequence[float]) -> str:
    return ", ".join(f"{rate:.0f}" for rate in rates)


def _send(server: Server, bodies: Sequence[bytes], connections: int) -> float:
    """Seconds from the first byte to the last answer."""
    failures: list[Exception] = []

    def send(part: Sequence[bytes]) -> None:
        try:
            server.send(part)
        except (OSError, http.client.HTTPException) as error:
            failures.append(error)

    threads = [threading.Thread(target=send, args=(bodies[n::connections],)) for n in range(connections)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise ConnectionError(str(failures[0]))
    return time.monotonic() - began
