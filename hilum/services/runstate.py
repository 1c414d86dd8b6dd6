"""What runs on a data directory: `<data>/run.json`, written by the supervisor, read by `hilum status`, `down` and the next `up`."""

from __future__ import annotations

import fcntl
import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Literal

import msgspec

from hilum.errors import Misconfigured
from hilum.services.endpoints import Endpoints
from hilum.services.files import write_atomically
from hilum.services.process import is_running


class ChildState(msgspec.Struct, kw_only=True):
    """One child as it was when the file was written."""

    name: str
    pid: int
    start_time: float  #: seconds since the epoch; with the pid it names one process for good
    state: Literal["starting", "running", "restarting", "stopped"]
    since: float  #: when it came into this state, seconds since the epoch
    restarts: int = 0
    last_exit: str = ""  #: how it ended last, in words
    log: str = ""
    roles: tuple[str, ...] = ()  #: Hilum's own in it, as the settings of that `hilum up` had it
    probe_port: int = 0  #: where it answers for them; 0 for servers


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """Why a start failed; see `Misconfigured`."""

    reason: str
    sentence: str
    fix: str


class RunState(msgspec.Struct, kw_only=True):
    """The run file's content. Mode 0600: the endpoints hold passwords."""

    pid: int  #: of the supervisor
    start_time: float
    data: str
    state: Literal["starting", "ready", "stopping", "stopped", "failed"] = "starting"
    since: float = 0.0
    endpoints: Endpoints | None = None
    children: list[ChildState] = msgspec.field(default_factory=list)
    failure: Failure | None = None

    def is_alive(self) -> bool:
        """Whether the supervisor that wrote this still runs."""
        return is_running(self.pid, self.start_time)


def run_file(data: Path) -> Path:
    """Where the run state of a data directory is kept."""
    return data / "run.json"


def read_run_state(data: Path) -> RunState | None:
    """The last state written on this data directory; None if none can be read. Ask `is_alive()` whether it still holds."""
    try:
        return msgspec.json.decode(run_file(data).read_bytes(), type=RunState)
    except (OSError, msgspec.MsgspecError):
        return None


def write_run_state(state: RunState) -> None:
    """Replace the run file; raises `OSError`, as on a full disk."""
    write_atomically(run_file(Path(state.data)), msgspec.json.format(msgspec.json.encode(state)).decode() + "\n")


class DataLock:
    """At most one supervisor on a data directory: held from construction until `release`, or the end of the process."""

    def __init__(self, data: Path) -> None:
        """Raises `Misconfigured`, naming the holder, if another process holds it, or if the directory cannot be made."""
        try:
            # Others may pass through, to what is theirs: PostgreSQL has its own user when Hilum runs as root.
            data.mkdir(parents=True, exist_ok=True, mode=0o711)
            self._file = os.open(data / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise Misconfigured(
                "data-unusable",
                f"The data directory {data} cannot be used: {error.strerror}.",
                fix="Choose another with --data, or let its owner run Hilum.",
            ) from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(self._file, 32).decode(errors="replace").strip()
            os.close(self._file)
            raise Misconfigured(
                "already-running",
                f"Hilum already runs on {data}, as process {holder or 'unknown'}.",
                fix=f"Use it as it is (`hilum status --data {data}`), stop it (`hilum down --data {data}`), or choose another --data.",
            ) from None
        os.ftruncate(self._file, 0)
        os.write(self._file, str(os.getpid()).encode())

    def release(self) -> None:
        """Let another supervisor have the directory."""
        os.close(self._file)


def end_stale_children(data: Path) -> list[str]:
    """End what a supervisor that died left running on this data directory; say what was done, one sentence each.

    Call it with the lock held. A pid that meanwhile belongs to another process is left alone.
    """
    state = read_run_state(data)
    if state is None or state.state in ("stopped", "failed"):
        return []
    said = [f"The Hilum that ran here as process {state.pid} ended without cleaning up; its data is kept and used."]
    left = [child for child in state.children if is_running(child.pid, child.start_time)]
    for number in (signal.SIGTERM, signal.SIGKILL):
        for child in left:
            _signal(child.pid, number)
        deadline = time.monotonic() + 5
        while left and time.monotonic() < deadline:
            for child in [child for child in left if not is_running(child.pid, child.start_time)]:
                said.append(f"Its {child.name}, process {child.pid}, still ran and was ended.")
                left.remove(child)
            time.sleep(0.02)
    if left:
        names = ", ".join(f"{child.name} (process {child.pid})" for child in left)
        raise Misconfigured("stale-children", f"A former Hilum left {names} running; it cannot be ended.", fix="End it, then start again.")
    return said


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(OSError):  # gone, or another user's: the caller looks whether it still runs
        os.kill(pid, number)
