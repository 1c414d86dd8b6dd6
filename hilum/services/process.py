"""One child process: what it is (`Child`), and one run of it (`Run`)."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from hilum.errors import Misconfigured
from hilum.services import forked
from hilum.services.files import private_folder
from hilum.services.forked import Forked

LAUNCH = Path(__file__).with_name("launch.py")
LOG_LIMIT_BYTES = 8 << 20  #: a log larger than this is set aside; one old one is kept
TAIL_LINES = 12


@dataclass(frozen=True, kw_only=True)
class Child:
    """A program to keep running.

    `ready` asks the service itself, answers within about a second, and may raise `OSError` for "not yet".
    """

    name: str
    argv: Sequence[str | Path]
    log: Path
    ready: Callable[[], bool]
    fork: Sequence[str] = ()  #: the same program as `argv`, one of ours: a module with `main`, and its arguments (see `forked`)
    env: Mapping[str, str] = field(default_factory=dict)  #: added to this process's own
    cwd: Path | None = None
    user: str | None = None  #: only root can give another
    ready_within_s: float = 60.0
    stop_within_s: float = 15.0
    stop_signal: signal.Signals = signal.SIGTERM  #: asks for a clean end
    death_signal: signal.Signals = signal.SIGKILL  #: what the system sends it when its supervisor dies (Linux)
    cleanup: Callable[[], None] | None = None  #: after its end, whatever the end
    roles: tuple[str, ...] = ()  #: of Hilum's own in it; none in a server
    probe_port: int = 0  #: of this machine, where it answers for its roles
    answers: Callable[[], bool] | None = None  #: asked from a thread of its own: whether it answers at all, ready or not
    silent_s: float = 0.0  #: one that has not answered for so long is ended and started again; 0: never


class Run:
    """A started `Child`. Start it from a thread that lives as long as it shall: the system ends it with that thread."""

    def __init__(self, child: Child) -> None:
        """Start the program in a session of its own. Raises `OSError` when even that fails."""
        self.child = child
        self.started = time.monotonic()
        rotate(child.log)
        self._log_from = child.log.stat().st_size
        self._process: Forked | subprocess.Popen[bytes]
        if child.fork and forked.POSSIBLE:
            self._process = Forked(child.fork, child.name, child.log, child.env, child.death_signal)
        else:
            self._process = self._launch(child)
        self.pid = self._process.pid
        self.start_time = start_time(self.pid) or 0.0

    @staticmethod
    def _launch(child: Child) -> subprocess.Popen[bytes]:
        with child.log.open("ab") as log:
            return subprocess.Popen(
                launched(child.argv, child.user, child.death_signal),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **child.env},
                cwd=child.cwd,
                start_new_session=True,
            )

    @property
    def exit_code(self) -> int | None:
        """None while it runs; minus the signal's number if a signal ended it."""
        return self._process.poll()

    def ready(self) -> bool:
        """Ask the service. Raises `Misconfigured`, quoting the log, if the program has ended or its time is over."""
        if self.exit_code is not None:
            raise self.explain_end("before it was ready")
        try:
            if self.child.ready():
                return True
        except OSError:
            pass
        if time.monotonic() - self.started > self.child.ready_within_s:
            raise self._explain(f"{self.child.name} was not ready within {self.child.ready_within_s:.0f} s.")
        return False

    def explain_end(self, when: str) -> Misconfigured:
        """Why it has ended, as far as its exit code and its log tell."""
        code = self.exit_code
        assert code is not None, "asked while it runs"
        how = f"by signal {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
        return self._explain(f"{self.child.name} ended {how} {when}.")

    def _explain(self, sentence: str) -> Misconfigured:
        return explained(sentence, self.child.name, self.child.cwd or self.child.log.parent, self.child.log, self._log_from)

    def ask_to_stop(self) -> None:
        """Send the signal for a clean end, and do not wait."""
        if self.exit_code is None:
            with suppress(ProcessLookupError):
                self._process.send_signal(self.child.stop_signal)

    def wait(self) -> None:
        """Wait for the end that was asked for, up to the child's `stop_within_s`; then end it, and whatever it left, by force."""
        try:
            self._process.wait(self.child.stop_within_s)
        except subprocess.TimeoutExpired:
            self.kill()
        self.after_end()

    def kill(self) -> None:
        """End the whole session now."""
        with suppress(ProcessLookupError, PermissionError):  # macOS answers EPERM for a group of zombies
            os.killpg(self.pid, signal.SIGKILL)
        self._process.send_signal(signal.SIGKILL)  # a fork may be so young that it leads no session yet
        self._process.wait()

    def after_end(self) -> None:
        """Remove what the ended program may have left: processes of its group, files."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        if self.child.cleanup:
            self.child.cleanup()

    def stop(self) -> None:
        """End it, cleanly if it lets itself be."""
        self.ask_to_stop()
        self.wait()


def launched(argv: Sequence[str | Path], user: str | None = None, death_signal: signal.Signals = signal.SIGKILL) -> list[str]:
    """The command that runs `argv` as `user` (None: as we are) and gets `death_signal` when the calling thread ends (Linux)."""
    return [sys.executable, "-I", "-S", *map(str, (LAUNCH, os.getpid(), int(death_signal), user or "", *argv))]


def run_once(
    argv: Sequence[str | Path],
    failed: str,
    *,
    log: Path,
    cwd: Path,
    user: str | None = None,
    standard_input: str = "",
    within_s: float = 120.0,
) -> None:
    """Run a program to its end; its output goes to `log`. Raises `Misconfigured`, beginning with the sentence `failed`, if it fails."""
    rotate(log)
    since = log.stat().st_size
    program = Path(argv[0]).name
    with log.open("ab") as output:
        try:
            done = subprocess.run(
                launched(argv, user),
                input=standard_input.encode(),
                stdout=output,
                stderr=output,
                cwd=cwd,
                timeout=within_s,
                check=False,
                start_new_session=True,  # Ctrl-C is for the supervisor
            )
        except subprocess.TimeoutExpired:
            raise explained(f"{failed} {program} took longer than {within_s:.0f} s.", program, cwd, log, since) from None
    if done.returncode:
        raise explained(failed, program, cwd, log, since)


def start_time(pid: int) -> float | None:
    """When process `pid` started, seconds since the epoch; None if there is none. With the pid it names one process for good."""
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else float(process.create_time())
    except psutil.Error:
        return None


def is_running(pid: int, started: float) -> bool:
    """Whether the process with this pid and start time is still there (pids are used again; the pair is not)."""
    now = start_time(pid)
    return now is not None and abs(now - started) < 0.5


def rotate(log: Path) -> None:
    """See to it that `log` exists (mode 0600) and is not over its limit; the old text goes to `<log>.1`.

    May be called while a program writes: it writes on at the end of the now empty file.
    """
    private_folder(log.parent)
    log.touch(mode=0o600)
    if log.stat().st_size > LOG_LIMIT_BYTES:
        shutil.copyfile(log, log.with_name(f"{log.name}.1"))
        os.truncate(log, 0)


def tail(log: Path, since: int = 0) -> list[str]:
    """The last lines of a log from byte `since` on: at most 40 lines and 4 KB."""
    try:
        with log.open("rb") as file:
            file.seek(max(since, log.stat().st_size - 4096))
            return file.read().decode(errors="replace").splitlines()[-40:]
    except OSError:
        return []


# What the servers say when something ails them that a person can mend: pattern in the log, reason, sentence, fix.
_KNOWN = (
    (
        r"No space left on device|not enough space|disk (is )?full",
        "disk-full",
        "The disk that holds {folder} is full.",
        "Free some space on it, then start again; nothing that was acknowledged is lost.",
    ),
    (
        r"Address already in use|address already in use|EADDRINUSE",
        "port-in-use",
        "Another program listens on a port that {name} needs.",
        "End that program, or set another port for {name} in the settings (0 lets Hilum choose).",
    ),
    (
        r"Permission denied|AccessDeniedException|has wrong ownership",
        "not-permitted",
        "{name} may not read or write its files in {folder}.",
        "Run Hilum as the user who owns the data directory, or give the directory to the user who runs Hilum.",
    ),
    (
        r"OutOfMemoryError|Cannot allocate memory|could not map anonymous shared memory",
        "out-of-memory",
        "{name} did not get the memory that it needs.",
        "Free some memory, or let {name} run on another machine and point the settings at it.",
    ),
    (
        r"PANIC|invalid (primary )?checkpoint|[Cc]orrupt|InconsistentClusterId|meta\.properties|incompatible with server|not a valid data",
        "data-damaged",
        "The data of {name} in {folder} is damaged, or belongs to another version.",
        "Look at the lines below; put back a backup of that folder, or start with an empty data directory.",
    ),
)


def explained(sentence: str, name: str, folder: Path, log: Path, since: int = 0) -> Misconfigured:
    """The error for a program that failed: what happened, what it means if its log shows something known, what to do, its last lines."""
    lines = tail(log, since)
    reason, fix = "service-failed", "Its log should say why."
    for pattern, known_reason, meaning, known_fix in _KNOWN:
        if re.search(pattern, "\n".join(lines)):
            reason = known_reason
            sentence = f"{sentence} {meaning.format(name=name, folder=folder)}"
            fix = known_fix.format(name=name)
            break
    quoted = "\n".join(f"    {line}" for line in lines[-TAIL_LINES:])
    return Misconfigured(reason, sentence, fix=f"{fix} The end of {log}:\n{quoted}")


def check_space(folder: Path, needed_bytes: int = 256 << 20) -> None:
    """Raise `Misconfigured` when the disk of `folder` has less than `needed_bytes` free: servers on a full disk fail in odd ways."""
    free = shutil.disk_usage(folder).free
    if free < needed_bytes:
        raise Misconfigured(
            "disk-full",
            f"The disk that holds {folder} has {free >> 20} MB free; {needed_bytes >> 20} MB are needed to start.",
            fix="Free some space, or choose a data directory on another disk with --data.",
        )
