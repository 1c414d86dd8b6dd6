"""`hilum up` and `hilum down`: all of Hilum on one data directory, in the foreground or detached."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from hilum.errors import Misconfigured
from hilum.services import postgres, servers_for
from hilum.services.endpoints import Endpoints, embedded_names, endpoints_of
from hilum.services.process import Child, explained, is_running, rotate
from hilum.services.runstate import RunState, end_stale_children, read_run_state
from hilum.services.supervisor import Supervisor
from hilum.settings import Settings


def supervisor_for(
    settings: Settings,
    *,
    provision: Callable[[Endpoints], None] | None = None,
    roles: Callable[[Endpoints], Sequence[Child]] | None = None,
    say: Callable[[str], None] | None = None,
) -> Supervisor:
    """The supervisor of all that `settings` want to run here; see `Supervisor` for when the two callables are called."""
    data = settings.data_dir
    return Supervisor(
        data, servers_for(settings, data), endpoints=partial(endpoints_of, settings), provision=provision, roles=roles, say=say
    )


def doubts_about_this_machine(settings: Settings) -> list[str]:
    """What is hardly meant about how the servers will run here, one sentence each."""
    if "postgres" not in embedded_names(settings) or os.geteuid() != 0:
        return []
    return postgres.doubts(postgres.account_for_root())


def detach(argv: Sequence[str | Path], data: Path, *, ready_within_s: float = 180.0) -> RunState:
    """Start `argv` (a `hilum up` in the foreground on `data`) so that it outlives this process; return when all is ready.

    Its output goes to `<data>/logs/up.log`. Raises `Misconfigured` with the very words with which it failed; nothing is left then.
    """
    data = data.expanduser().resolve()
    log = data / "logs" / "up.log"
    try:
        rotate(log)
    except OSError as error:
        raise Misconfigured(
            "data-unusable",
            f"The data directory {data} cannot be used: {error.strerror}.",
            fix="Choose another with --data, or let its owner run Hilum.",
        ) from None
    since = log.stat().st_size
    with log.open("ab") as output:
        process = subprocess.Popen(
            list(map(str, argv)), stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        return _until_ready(process, data, log, since, ready_within_s)
    except BaseException:  # Ctrl-C too: what was not ready must not stay
        process.terminate()
        process.wait()
        raise


def _until_ready(process: subprocess.Popen[bytes], data: Path, log: Path, since: int, within_s: float) -> RunState:
    deadline = time.monotonic() + within_s
    while True:
        ended = process.poll() is not None  # asked first: what it wrote before its end is then there to read
        state = read_run_state(data)
        if state is not None and state.pid == process.pid:
            if state.state == "ready":
                return state
            if state.state == "failed" and state.failure and ended:
                raise Misconfigured(state.failure.reason, state.failure.sentence, fix=state.failure.fix)
        if ended:
            raise explained("Hilum ended before it was ready.", "Hilum", data, log, since)
        if time.monotonic() > deadline:
            raise explained(f"Hilum was not ready within {within_s:.0f} s and was stopped.", "Hilum", data, log, since)
        time.sleep(0.05)


def down(data: Path, *, within_s: float = 60.0) -> list[str]:
    """Stop what runs on `data`; what was done, one sentence each. Empty if nothing ran.

    Asks the supervisor to stop; if it has not ended `within_s`, ends it and its children by force.
    """
    data = data.expanduser().resolve()
    state = read_run_state(data)
    if state is None:
        return []
    if not state.is_alive():
        return end_stale_children(data)
    try:
        os.kill(state.pid, signal.SIGTERM)
    except ProcessLookupError:
        pass
    except PermissionError:
        raise Misconfigured(
            "not-permitted",
            f"Hilum on {data} runs as process {state.pid} of another user.",
            fix="Stop it as that user, or as root.",
        ) from None
    if _gone(state, within_s):
        return [f"Hilum on {data} has stopped (it was process {state.pid})."]
    with suppress(ProcessLookupError):
        os.kill(state.pid, signal.SIGKILL)
    _gone(state, 5.0)
    return [f"Process {state.pid} did not stop within {within_s:.0f} s and was ended.", *end_stale_children(data)]


def _gone(state: RunState, within_s: float) -> bool:
    deadline = time.monotonic() + within_s
    while is_running(state.pid, state.start_time):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
