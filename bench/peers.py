"""The programs of other makers that benchmarks and tests run beside Hilum: dcmtk's tools and Orthanc, as processes of their own."""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from hilum.services.ports import is_free

#: dcmtk waits for delayed acknowledgements unless told otherwise, and then sends 22 images a second.
ENVIRONMENT = {**os.environ, "TCP_NODELAY": "1"}

#: Orthanc's DICOMweb plugin, of Debian's package orthanc-dicomweb.
ORTHANC_DICOMWEB = "/usr/share/orthanc/plugins/libOrthancDicomWeb.so"


def installed(program: str) -> bool:
    """Whether `program` is on PATH (Debian: dcmtk, orthanc)."""
    return shutil.which(program) is not None


#: Where servers of benchmarks and tests listen: below the ports that systems give to whom asks for any (and to the near end of
#: connections), so that none of these takes one between its being chosen and its being listened on; and apart from what
#: `hilum.services.ports` chooses from. Each of the processes that share the tests of a run (pytest-xdist: gw0, gw1, …) has its own.
_PROCESSES = 8
_PROCESS = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _PROCESSES
_PORTS = range(10_000 + _PROCESS, 20_000, _PROCESSES)
_next_port = itertools.count(random.randrange(len(_PORTS)))  # runs on one machine begin apart


def free_port() -> int:
    """A TCP port of 127.0.0.1 on which nothing listens; each call in a process gives another one."""
    for number in itertools.islice(_next_port, len(_PORTS)):
        if is_free("127.0.0.1", port := _PORTS[number % len(_PORTS)]):
            return port
    raise AssertionError(f"No port of {_PORTS} is free.")


def wait_for_port(port: int, within_s: float = 60) -> None:
    """Return once something accepts connections on `port`; raises `TimeoutError`."""
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        with socket.socket() as probe:
            probe.settimeout(0.5)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise TimeoutError(f"Nothing listens on 127.0.0.1:{port} after {within_s} s.")


@contextmanager
def running(command: Sequence[str | Path], port: int, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`command` as a child process that listens on `port`; ended on the way out."""
    with log.open("ab") as output:
        process = subprocess.Popen([str(part) for part in command], stdout=output, stderr=subprocess.STDOUT, env=ENVIRONMENT)
    try:
        wait_for_port(port)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def storescp(folder: Path, port: int, aet: str = "PACS", *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """dcmtk's `storescp`, storing into `folder` the bytes as they come (`+B`), in every transfer syntax it knows."""
    folder.mkdir(parents=True, exist_ok=True)
    command: list[str | Path] = ["storescp", "+xa", "+B", "--fork", "-aet", aet, "-od", folder, *options, str(port)]
    with running(command, port, folder.parent / "storescp.log") as process:
        yield process


def dcmsend(files: Sequence[Path] | Path, port: int, aet: str, *options: str) -> subprocess.CompletedProcess[str]:
    """dcmtk's `dcmsend` of files, or of all in a folder, without decompression; does not raise on its exit code."""
    paths = ["+sd", "+r", files] if isinstance(files, Path) else list(files)
    command = ["dcmsend", "--no-halt", "--decompress-never", "-aet", "BENCH", "-aec", aet, *options, "127.0.0.1", port, *paths]
    return subprocess.run([str(part) for part in command], env=ENVIRONMENT, capture_output=True, text=True, check=False)


def gdcmanon(files: Path, out: Path, certificate: Path) -> subprocess.CompletedProcess[str]:
    """GDCM's `gdcmanon` of a folder (Debian: libgdcm-tools): its implementation of the Basic Profile, values encrypted for a recipient."""
    command = ["gdcmanon", "--de-identify", "--certificate", certificate, "--recursive", "--input", files, "--output", out]
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)


def recipient(folder: Path) -> Path:
    """A certificate of somebody who could read what `gdcmanon` encrypts (Debian: openssl); its key is in `folder`."""
    certificate = folder / "recipient.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=bench", "-days", "2"]
    subprocess.run([*command, "-keyout", str(folder / "recipient.key"), "-out", str(certificate)], capture_output=True, check=True)
    return certificate


FORWARD_EVERY_INSTANCE = """
function OnStoredInstance(instanceId, tags, metadata, origin)
  if origin['RequestOrigin'] ~= 'Lua' then
    SendToModality(instanceId, 'pacs')
  end
end
"""


@contextmanager
def orthanc(
    folder: Path, port: int, http_port: int, pacs_port: int, lua: str = FORWARD_EVERY_INSTANCE, more: Mapping[str, object] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Orthanc as Debian ships it, with a Lua script that forwards to the modality `pacs` at `pacs_port`; `more` adds to its settings."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "forward.lua").write_text(lua, encoding="utf-8")
    config = {
        "Name": "bench",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "DicomAet": "ORTHANC",
        "DicomPort": port,
        "HttpPort": http_port,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomAlwaysAllowStore": True,
        "DicomCheckCalledAet": False,
        "DicomModalities": {"pacs": ["PACS", "127.0.0.1", pacs_port]},
        "LuaScripts": [str(folder / "forward.lua")],
        **(more or {}),
    }
    (folder / "orthanc.json").write_text(json.dumps(config), encoding="utf-8")
    with running(["Orthanc", folder / "orthanc.json"], port, folder / "orthanc.log") as process:
        wait_for_port(http_port)
        yield process
