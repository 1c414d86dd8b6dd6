"""The receivers that are compared, each as a process of its own on a fresh folder."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.peers import free_port, installed, orthanc, running
from hilum.settings import Settings, forget_environment
from hilum.spool.files import SPARE_BYTES
from hilum.testing import eventually

#: Nothing listens there: the roles that receive need none of the three.
_ALONE = """\
data = "{data}"
[kafka]
bootstrap = "127.0.0.1:9"
[postgres]
dsn = "postgresql://127.0.0.1:9/none"
[s3]
endpoint = "http://127.0.0.1:9"
[dicom]
port = {port}
"""


@dataclass(frozen=True)
class Running:
    """A receiver that runs: its process, its port, and how many objects it says it has."""

    pid: int
    port: int
    stored: Callable[[], int]


@dataclass(frozen=True)
class Receiver:
    """One receiver: `run(folder)` starts it on a fresh folder and ends it."""

    name: str
    title: str
    program: str  #: what must be installed
    run: Callable[[Path], AbstractContextManager[Running]]


def files_in(folder: Path) -> int:
    """How many files there are directly in `folder`."""
    return sum(1 for entry in folder.iterdir() if entry.is_file()) if folder.is_dir() else 0


def instances_of_orthanc(http_port: int) -> int:
    """How many instances the Orthanc at this port has."""
    with urllib.request.urlopen(f"http://127.0.0.1:{http_port}/statistics", timeout=20) as answer:
        return int(json.load(answer)["CountInstances"])


@contextmanager
def alone(folder: Path, role: str, port: int, more: str = "", module: str = "hilum.host") -> Iterator[subprocess.Popen[bytes]]:
    """One role of Hilum that needs no server, on `folder / "data"`, once it listens on `port`."""
    forget_environment()
    config = folder / "hilum.toml"
    config.write_text(_ALONE.format(data=folder / "data", port=port if role == "dicom" else 0) + more, encoding="utf-8")
    with running([sys.executable, "-m", module, role, "--config", config], port, folder / "hilum.log") as process:
        yield process


def spooled(folder: Path) -> int:
    """How many objects are in the spool of the Hilum that ran on `folder`."""
    return sum(1 for _ in (folder / "data" / "spool" / "objects").glob("*.dcm"))


def is_prepared(folder: Path) -> bool:
    """Whether the spare files of the Hilum on `folder` are there: a receiver makes them in its first second."""
    return sum(1 for _ in (folder / "data" / "spool" / "objects").glob("*.free")) * SPARE_BYTES >= Settings().spool.spare_bytes


def _hilum(module: str) -> Callable[[Path], AbstractContextManager[Running]]:
    @contextmanager
    def run(folder: Path) -> Iterator[Running]:
        port = free_port()
        with alone(folder, "dicom", port, module=module) as process:
            eventually(lambda: is_prepared(folder), 60, what="the spool has its spare files")
            yield Running(process.pid, port, lambda: spooled(folder))

    return run


def _program(*command: str) -> Callable[[Path], AbstractContextManager[Running]]:
    """A program that writes its objects as files into `-od`, and takes its port as its last argument."""

    @contextmanager
    def run(folder: Path) -> Iterator[Running]:
        port, out = free_port(), folder / "out"
        out.mkdir()
        with running([*command, "-od", out, str(port)], port, folder / "log") as process:
            yield Running(process.pid, port, lambda: files_in(out))

    return run


@contextmanager
def _orthanc(folder: Path) -> Iterator[Running]:
    port, http_port = free_port(), free_port()

    with orthanc(folder, port, http_port, pacs_port=1, lua="") as process:
        yield Running(process.pid, port, lambda: instances_of_orthanc(http_port))


#: The one that all are compared with comes first.
RECEIVERS = {
    each.name: each
    for each in (
        Receiver("storescp", "dcmtk storescp", "storescp", _program("storescp")),
        Receiver("fork", "dcmtk storescp --fork", "storescp", _program("storescp", "--fork")),
        Receiver("hilum", "Hilum", "", _hilum("hilum.host")),
        Receiver("unsynced", "Hilum without sync", "", _hilum("bench.ingest.unsynced")),
        Receiver("orthanc", "Orthanc (Debian)", "Orthanc", _orthanc),
        Receiver("pynetdicom", "pynetdicom storescp", "", _program(sys.executable, "-m", "pynetdicom", "storescp", "-q")),
    )
}


def available(names: list[str]) -> list[Receiver]:
    """Those of `names` whose programs are installed."""
    return [each for name, each in RECEIVERS.items() if name in names and (not each.program or installed(each.program))]
