"""A disk that loses, in a power cut, whatever was not synced: fed with the system calls that `strace` has recorded of a program.

The worst that a file system may do (POSIX; ext4 and xfs do less): of a file there is left what was written before the start of the
last `fsync` or `fdatasync` of it that has ended, of a folder the entries that were there at the start of its last `fsync`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from bench.peers import wait_for_port
from hilum.spool import Spool, read_arrival
from tests.peers import free_port

#: What `strace` must be told to write, one file for each thread.
STRACE = ("strace", "-ff", "-ttt", "-T", "-y", "-xx", "-s", "1000000", "-e", "signal=none", "-e")
CALLS = "trace=openat,mkdir,write,rename,fsync,fdatasync,sendto,unlink"

_LINE = re.compile(
    r"(?P<at>[0-9.]+) (?P<call>\w+)\((?P<arguments>.*)\) = (?P<result>-?\d+)[^<]*(?:<(?P<path>[^>]*)>)? <(?P<took>[0-9.]+)>$"
)
_TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_FD = re.compile(r"^\d+<((?:\\x[0-9a-f]{2})*)>")


@dataclass(frozen=True, order=True)
class Call:
    """One system call that succeeded. Times are seconds since 1970."""

    began: float
    ended: float
    name: str
    #: The file or folder; for `sendto` the socket.
    path: str
    #: What was written or sent; the new name of a `rename`.
    data: bytes = b""
    makes: bool = False


def calls(logs: Iterable[Path]) -> list[Call]:
    """All calls of all threads, by the time at which they began."""
    return sorted(call for log in logs for line in log.read_text("ascii").splitlines() if (call := _call(line)) is not None)


def _call(line: str) -> Call | None:
    match = _LINE.match(line)
    if match is None or int(match["result"]) < 0:
        return None
    name, arguments, began = match["call"], match["arguments"], float(match["at"])
    texts = [_bytes(text) for text in _TEXT.findall(arguments)]
    fd = _FD.match(arguments)
    path = _bytes(fd[1]).decode() if fd else ""
    data = b""
    if name in ("write", "sendto"):
        data = texts[0][: int(match["result"])]
    elif name == "rename":
        path, data = texts[0].decode(), texts[1]
    elif name in ("mkdir", "unlink"):
        path = texts[0].decode()
    elif name == "openat":
        path = _bytes(match["path"] or "").decode()
    return Call(began, began + float(match["took"]), name, path, data, makes="O_CREAT" in arguments)


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


@dataclass
class _File:
    written: bytearray = field(default_factory=bytearray)
    #: (moment, size) after each write.
    sizes: list[tuple[float, int]] = field(default_factory=list)
    synced: int = 0


class Disk:
    """What a power cut would leave of what is under `root`, after each call that `replay` has been through."""

    def __init__(self, root: Path) -> None:
        self._root = str(root)
        self._files: dict[str, _File] = {}
        #: Each folder's entries, as (moment, name, file or None for a folder; or True for removed), and those that are durable.
        self._changes: dict[str, list[tuple[float, str, _File | None, bool]]] = {}
        self._durable: dict[str, dict[str, _File | None]] = {}

    def replay(self, recorded: list[Call]) -> Iterator[Call]:
        """Each call, once what it does is done: a `sendto` when it begins, others when they end, a sync for what was there at its start."""
        for call in sorted(recorded, key=lambda each: each.began if each.name == "sendto" else each.ended):
            if call.name == "sendto" or call.path.startswith(self._root):
                self._do(call)
                yield call

    def left(self) -> dict[str, bytes]:
        """The files that a power cut now would leave, and what is in them."""
        found: dict[str, bytes] = {}
        self._walk(self._root, found)
        return found

    def _walk(self, folder: str, found: dict[str, bytes]) -> None:
        for name, file in self._durable.get(folder, {}).items():
            path = f"{folder}/{name}"
            if file is None:
                self._walk(path, found)
            else:
                found[path] = bytes(file.written[: file.synced])

    def _do(self, call: Call) -> None:
        if call.name == "openat" and call.makes:
            self._files[call.path] = _File()
            self._enter(call.ended, call.path, self._files[call.path])
        elif call.name == "mkdir":
            self._enter(call.ended, call.path, None)
        elif call.name == "write" and call.path in self._files:
            file = self._files[call.path]
            file.written += call.data
            file.sizes.append((call.ended, len(file.written)))
        elif call.name == "rename":
            file = self._files.pop(call.path)
            new = call.data.decode()
            self._files[new] = file
            self._enter(call.ended, call.path, file, removed=True)
            self._enter(call.ended, new, file)
        elif call.name == "unlink" and call.path in self._files:
            self._enter(call.ended, call.path, self._files.pop(call.path), removed=True)
        elif call.name in ("fsync", "fdatasync"):
            self._sync(call)

    def _sync(self, call: Call) -> None:
        file = self._files.get(call.path)
        if file is not None:
            file.synced = max([file.synced, *(size for moment, size in file.sizes if moment <= call.began)])
            return
        durable = self._durable.setdefault(call.path, {})
        waiting = []
        for change in self._changes.pop(call.path, []):
            moment, name, entry, removed = change
            if moment > call.began:
                waiting.append(change)
            elif removed:
                durable.pop(name, None)
            else:
                durable[name] = entry
        self._changes[call.path] = waiting

    def _enter(self, moment: float, path: str, file: _File | None, *, removed: bool = False) -> None:
        folder, _, name = path.rpartition("/")
        self._changes.setdefault(folder, []).append((moment, name, file, removed))


@contextmanager
def traced(role: str, port: int, data: Path, logs: Path, **environment: str) -> Iterator[None]:
    """A process of `role`, which listens on `port`, every system call of which on files and sockets is written into `logs`."""
    wanted = {
        **os.environ,
        "HILUM_SPOOL__MIN_FREE_BYTES": "0",
        "HILUM_PROBE__PORT": str(free_port()),
        "HILUM_KAFKA__BOOTSTRAP": "none:9092",  # a receiver asks none of them for anything
        "HILUM_POSTGRES__DSN": "postgresql://none",
        "HILUM_S3__ENDPOINT": "http://none",
        **environment,
    }
    command = [*STRACE, CALLS, "-o", logs / "call", sys.executable, "-m", "hilum.host", role, "--data", data]
    with subprocess.Popen(list(map(str, command)), env=wanted) as strace:
        try:
            wait_for_port(port, 60)
            yield
        finally:
            for child in psutil.Process(strace.pid).children():
                child.terminate()
            strace.wait(30)


def objects_on(files: Mapping[str, bytes], root: Path, folder: Path) -> dict[str, bytes]:
    """The data sets, by SOP instance, that a spool finds when it starts on a disk of which `files` are left.

    They lay under `root` and are laid out in `folder`, which is removed afterwards.
    """
    for path, content in files.items():
        place = folder / Path(path).relative_to(root)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
    found: dict[str, bytes] = {}
    for spool_dir in folder.rglob("spool"):
        spool = Spool(spool_dir)
        for receipt in spool.waiting():
            content = spool.path(receipt).read_bytes()
            with suppress(ValueError):  # a file whose bytes were not synced
                arrival, at = read_arrival(content)
                found[arrival.sop_instance_uid] = content[at:]
    if folder.exists():
        shutil.rmtree(folder)
    return found
