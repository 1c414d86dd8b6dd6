"""A disk that loses, in a power cut, whatever was not synced: fed with the system calls that `strace` has recorded of a program.

The worst that a file system may do (POSIX; ext4 and xfs do less). What was written before the start of the last `fsync` or `fdatasync`
of a file that has ended is there; of what was written since, any part may be there and any other not. Of a folder those names are
there that were there at the start of its last `fsync`; a file whose name was changed since may be there under either.
"""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from bench.peers import free_port, wait_for_port

#: What `strace` must be told to write, one file for each thread.
STRACE = ("strace", "-ff", "-ttt", "-T", "-y", "-xx", "-s", "2000000", "-e", "signal=none", "-e")
CALLS = "trace=openat,mkdir,write,pwrite64,rename,fsync,fdatasync,sendto,unlink"

_LINE = re.compile(
    r"(?P<at>[0-9.]+) (?P<call>\w+)\((?P<arguments>.*)\) = (?P<result>-?\d+)[^<]*(?:<(?P<path>[^>]*)>)? <(?P<took>[0-9.]+)>$"
)
_TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_FD = re.compile(r"^(\d+)<((?:\\x[0-9a-f]{2})*)>")
_OFFSET = re.compile(r", (\d+)$")


def traced(logs: Path, name: str, *command: str | Path) -> list[str]:
    """The command under `strace`, which writes its system calls on files and sockets down under this name."""
    return [*STRACE, CALLS, "-o", str(logs / name), *map(str, command)]


@contextmanager
def traced_role(role: str, data: Path, logs: Path, **more: str) -> Iterator[int]:
    """The port of a receiving role of which every system call on files and sockets is written down, as `receiver`.

    `more` is for its environment.
    """
    port = free_port()
    environment = {
        **os.environ,
        f"HILUM_{role.upper()}__PORT": str(port),
        "HILUM_SPOOL__MIN_FREE_BYTES": "0",
        "HILUM_SPOOL__SPARE_BYTES": str(2**20),
        "HILUM_PROBE__PORT": str(free_port()),
        "HILUM_KAFKA__BOOTSTRAP": "none:9092",  # a receiver asks none of them for anything
        "HILUM_POSTGRES__DSN": "postgresql://none",
        "HILUM_S3__ENDPOINT": "http://none",
        "HILUM_S3__ACCESS_KEY": "none",
        "HILUM_S3__SECRET_KEY": "none",
        **more,
    }
    command = traced(logs, "receiver", sys.executable, "-m", "hilum.host", role, "--data", data)
    with subprocess.Popen(command, env=environment) as strace:
        try:
            wait_for_port(port, 60)
            yield port
        finally:
            for child in psutil.Process(strace.pid).children():
                child.terminate()
            strace.wait(60)


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
    #: Process and number of the open file.
    fd: tuple[str, int] = ("", -1)
    #: Of a `pwrite64`.
    offset: int = 0


def calls(logs: Iterable[Path]) -> list[Call]:
    """All calls of all threads, by the time at which they began. A log is named `<process>.<thread>`."""
    return sorted(
        call
        for log in logs
        for line in log.read_text("ascii").splitlines()
        if (call := _call(line, log.name.partition(".")[0])) is not None
    )


def _call(line: str, process: str) -> Call | None:
    match = _LINE.match(line)
    if match is None or int(match["result"]) < 0:
        return None
    name, arguments, began = match["call"], match["arguments"], float(match["at"])
    texts = [_bytes(text) for text in _TEXT.findall(arguments)]
    if name == "sendto" and not texts:
        return None  # to the system, not to a peer
    open_file = _FD.match(arguments)
    path, number = (_bytes(open_file[2]).decode(), int(open_file[1])) if open_file else ("", -1)
    data, offset = b"", 0
    if name in ("write", "pwrite64", "sendto"):
        data = texts[0][: int(match["result"])]
        at = _OFFSET.search(arguments) if name == "pwrite64" else None
        offset = int(at[1]) if at else 0
    elif name == "rename":
        path, data = texts[0].decode(), texts[1]
    elif name in ("mkdir", "unlink"):
        path = texts[0].decode()
    elif name == "openat":
        path, number = _bytes(match["path"] or "").decode(), int(match["result"])
    return Call(began, began + float(match["took"]), name, path, data, "O_CREAT" in arguments, (process, number), offset)


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


@dataclass
class _Write:
    ended: float
    offset: int
    data: bytes
    #: Counts up over all files, so that a test can choose which survive.
    number: int


@dataclass(eq=False)
class _File:
    durable: bytearray = field(default_factory=bytearray)
    waiting: list[_Write] = field(default_factory=list)


#: Which of the writes that were not synced have reached the disk all the same, by their number.
Survives = Callable[[int], bool]


class Disk:
    """What a power cut would leave of what is under `root`, after each call that `replay` has been through."""

    def __init__(self, root: Path) -> None:
        self._root = str(root)
        self._files: dict[str, _File] = {}
        #: Where the next `write` to an open file goes.
        self._positions: dict[tuple[str, int], int] = {}
        self._writes = 0
        #: Each folder's entries, as (moment, name, file or None for a folder; or True for removed), and those that are durable.
        self._changes: dict[str, list[tuple[float, str, _File | None, bool]]] = {}
        self._durable: dict[str, dict[str, _File | None]] = {}

    def replay(self, recorded: list[Call]) -> Iterator[Call]:
        """Each call, once what it does is done: a `sendto` when it begins, others when they end, a sync for what was there at its start."""
        for call in sorted(recorded, key=lambda each: each.began if each.name == "sendto" else each.ended):
            if call.name == "sendto" or call.path.startswith(self._root):
                self._do(call)
                yield call

    def left(self, survives: Survives = lambda _: False, *, renamed: float = 0.0) -> dict[str, bytes]:
        """The files that a power cut now would leave, and what is in them.

        Of the changes to a folder's names that were not synced, the first `renamed` (0 to 1) are on disk: file systems keep their order.
        """
        found: dict[str, bytes] = {}
        self._walk(self._root, found, survives, renamed)
        return found

    def _walk(self, folder: str, found: dict[str, bytes], survives: Survives, renamed: float) -> None:
        entries = dict(self._durable.get(folder, {}))
        changes = self._changes.get(folder, [])
        for _, name, file, removed in changes[: _renames_whole(changes, round(renamed * len(changes)))]:
            if removed:
                entries.pop(name, None)
            else:
                entries[name] = file
        for name, file in entries.items():
            path = f"{folder}/{name}"
            if file is None:
                self._walk(path, found, survives, renamed)
            else:
                found[path] = _content(file, survives)

    def _do(self, call: Call) -> None:
        match call.name:
            case "openat":
                self._positions[call.fd] = 0
                if call.makes and call.path not in self._files:
                    self._files[call.path] = _File()
                    self._enter(call.ended, call.path, self._files[call.path])
            case "mkdir":
                self._enter(call.ended, call.path, None)
            case "write" if call.path in self._files:
                self._write(call, self._positions[call.fd])
                self._positions[call.fd] += len(call.data)
            case "pwrite64" if call.path in self._files:
                self._write(call, call.offset)
            case "rename":
                file = self._files.pop(call.path)
                new = call.data.decode()
                self._files[new] = file
                self._enter(call.ended, call.path, file, removed=True)
                self._enter(call.ended, new, file)
            case "unlink" if call.path in self._files:
                self._enter(call.ended, call.path, self._files.pop(call.path), removed=True)
            case "fsync" | "fdatasync":
                self._sync(call)

    def _write(self, call: Call, offset: int) -> None:
        self._writes += 1
        self._files[call.path].waiting.append(_Write(call.ended, offset, call.data, self._writes))

    def _sync(self, call: Call) -> None:
        file = self._files.get(call.path)
        if file is not None:
            late = [write for write in file.waiting if write.ended > call.began]
            for write in file.waiting:
                if write.ended <= call.began:
                    _apply(file.durable, write)
            file.waiting = late
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


def _renames_whole(changes: list[tuple[float, str, _File | None, bool]], count: int) -> int:
    """So many changes, or one more, so that no `rename` is cut in two: its removal comes right before its new name."""
    if 0 < count < len(changes):
        (_, _, file, removed), (_, _, other, again) = changes[count - 1], changes[count]
        if removed and not again and file is other:
            return count + 1
    return count


def _content(file: _File, survives: Survives) -> bytes:
    content = bytearray(file.durable)
    for write in file.waiting:
        if survives(write.number):
            _apply(content, write)
    return bytes(content)


def _apply(content: bytearray, write: _Write) -> None:
    if len(content) < write.offset:
        content.extend(bytes(write.offset - len(content)))
    content[write.offset : write.offset + len(write.data)] = write.data


#: What of the writes that were not synced survives, and which part of the renames.
Chance = Callable[[], tuple[Survives, float]]


def nothing() -> tuple[Survives, float]:
    """Nothing that was not synced has reached the disk."""
    return (lambda _: False), 0.0


def everything() -> tuple[Survives, float]:
    """All has reached the disk."""
    return (lambda _: True), 1.0


#: Where the power is cut is the same each time, as far as what was recorded is.
_cuts = random.Random("power cuts")


def something() -> tuple[Survives, float]:
    """Some writes have and others have not; each time others."""
    seed = _cuts.random()
    return (lambda number: random.Random(f"{seed}/{number}").random() < 0.5), _cuts.random()
