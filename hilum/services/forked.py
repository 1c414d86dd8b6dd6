"""Hilum's own programs as forks of one process that has imported them all (Linux).

Importing takes seconds of one core for each program, forking takes milliseconds: all start sooner, one that died is back at once, and
what they share is in memory once. On other systems, where forking is not safe, each program is started anew.
"""

from __future__ import annotations

import ctypes
import faulthandler
import importlib
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from multiprocessing import forkserver, resource_tracker
from pathlib import Path
from typing import Any, TypeVar

from hilum.services.launch import PR_SET_PDEATHSIG

T = TypeVar("T")
PR_SET_NAME = 15
POSSIBLE = sys.platform == "linux"


def have_imported(modules: Iterable[str]) -> None:
    """Begin to import `modules`, in the process that later programs are forks of; returns at once."""
    if POSSIBLE:
        multiprocessing.set_forkserver_preload([*modules, "hilum.services.shared"])
        starting = threading.Thread(target=_start_deaf_to_ctrl_c, name="forkserver")
        starting.start()
        starting.join()


def _start_deaf_to_ctrl_c() -> None:
    """Start the process of which the others are forks with SIGINT blocked from its first instruction on.

    It ignores SIGINT by itself, but only once it has imported all. Run it in a thread of its own, which the system gives a mask of its
    own: Ctrl-C must still reach this process.
    """
    resource_tracker.ensure_running()  # first, since it lets SIGINT through when it has started
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    forkserver.ensure_running()


def done_aside(call: Callable[..., T], *arguments: Any) -> T:
    """What `call` returns or raises in a process of its own; arguments and outcome are pickled."""
    if not POSSIBLE:
        return call(*arguments)
    with ProcessPoolExecutor(1, multiprocessing.get_context("forkserver")) as pool:
        return pool.submit(call, *arguments).result()


class Forked:
    """`module.main(arguments)` in a process of its own; to its supervisor it looks like a `subprocess.Popen`."""

    def __init__(self, program: Sequence[str], name: str, log: Path, env: Mapping[str, str], death_signal: int) -> None:
        """Fork. `program` is a module and its arguments; `env` is added to the environment; what it prints goes to the end of `log`."""
        context = multiprocessing.get_context("forkserver")
        self._process = context.Process(target=become, args=(program, name, log, dict(env), death_signal))
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def poll(self) -> int | None:
        """Its exit code, minus the number of the signal that ended it; None while it runs."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end. Raises `subprocess.TimeoutExpired`."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(self._process.name, timeout or 0.0)
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        """Nothing happens if it has ended."""
        if self._process.exitcode is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)


def become(program: Sequence[str], name: str, log: Path, env: Mapping[str, str], death_signal: int) -> None:
    """In the fork: leave the supervisor's session, end with it and with the process that forked us, and run."""
    threading.Thread(target=_end_with_supervisor, args=(death_signal,), name="supervisor", daemon=True).start()
    parent = os.getppid()
    os.setsid()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # Ctrl-C comes here no more
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
    libc.prctl(PR_SET_NAME, f"hilum {name}".encode()[:15], 0, 0, 0)
    if parent == 1 or os.getppid() != parent:  # it ended before we could ask to be told
        os._exit(1)
    os.umask(0o077)
    null, output = os.open(os.devnull, os.O_RDONLY), os.open(log, os.O_WRONLY | os.O_APPEND)
    for source, target in ((null, 0), (output, 1), (output, 2)):
        os.dup2(source, target)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # they are what Python made them
    faulthandler.enable(2)  # a crash within a library says where it was: in the log
    os.environ.update(env)
    module, *arguments = program
    importlib.import_module(module).main(arguments)


def _end_with_supervisor(death_signal: int) -> None:
    supervisor = multiprocessing.parent_process()
    assert supervisor is not None
    supervisor.join()
    os.kill(os.getpid(), death_signal)
