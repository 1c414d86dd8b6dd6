"""Keep children running: start them in order, restart what dies, tell how things are, stop in reverse order."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Literal, Protocol

from hilum import telemetry
from hilum.errors import HilumError, Misconfigured
from hilum.services.endpoints import Endpoints
from hilum.services.liveness import ASKED_EVERY_S, UNANSWERED, Liveness
from hilum.services.process import Child, Run, check_space, rotate, start_time
from hilum.services.runstate import ChildState, DataLock, Failure, RunState, end_stale_children, write_run_state

FIRST_BACKOFF_S = 0.25
LONGEST_BACKOFF_S = 30.0
HEALTHY_AFTER_S = 60.0  #: a child that ran this long is restarted as soon as one that never failed
LOGS_EVERY_S = 30.0
STARTING_POLL_S = 0.02
RUNNING_POLL_S = 0.1


class Server(Protocol):
    """A service that can run here: `KafkaServer`, `PostgresServer`, `SeaweedServer`."""

    @property
    def name(self) -> str:
        """Which service it is."""
        ...

    def prepare(self) -> Child:
        """Make what it needs on disk; may take seconds and is called once."""
        ...

    def endpoint(self) -> dict[str, str]:
        """How to reach it, known once `prepare` has returned."""
        ...


class Supervised:
    """One child under supervision: its present run, and when it is due to be started again."""

    def __init__(self, child: Child) -> None:
        self.child = child
        self.run = Run(child)
        self.restarts = 0
        self.backoff_s = FIRST_BACKOFF_S
        self.due: float | None = None  # monotonic time of the next start; None while it runs
        self.liveness: Liveness | None = None
        self.state = ChildState(
            name=child.name,
            pid=self.run.pid,
            start_time=self.run.start_time,
            state="starting",
            since=time.time(),
            log=str(child.log),
            roles=child.roles,
            probe_port=child.probe_port,
        )

    def look(self) -> bool:
        """See to it that it runs. True if its state has changed."""
        now = time.monotonic()
        if self.due is not None:
            return now >= self.due and self._start_again(now)
        end: HilumError | None = None
        if self.run.exit_code is None:
            if self.state.state != "starting":
                return self._is_silent() and self._end_silent(now)
            try:
                return self.run.ready() and self.now("running")
            except HilumError as not_ready:
                end = not_ready
                self.run.kill()
        end = end or self.run.explain_end(f"after {now - self.run.started:.0f} s")
        self.run.after_end()
        if self.state.state == "running" and now - self.run.started > HEALTHY_AFTER_S:
            self.backoff_s = FIRST_BACKOFF_S
        return self._later(now, end.sentence)

    def _is_silent(self) -> bool:
        """Whether it has not answered for too long. It may be slow, and wait for Kafka: it says so then, and that is an answer."""
        if self.child.answers is None or not self.child.silent_s:
            return False
        if self.liveness is None:
            self.liveness = Liveness(self.child.answers, every_s=min(ASKED_EVERY_S, self.child.silent_s / UNANSWERED))
        return self.liveness.silent_s > self.child.silent_s

    def _end_silent(self, now: float) -> bool:
        assert self.liveness is not None
        why = f"{self.child.name} ran and answered nothing for {self.liveness.silent_s:.0f} s; it was ended."
        self.run.kill()
        self.run.after_end()
        return self._later(now, why)

    def _start_again(self, now: float) -> bool:
        try:
            self.run = Run(self.child)
        except OSError as error:
            return self._later(now, f"{self.child.name} could not be started: {error.strerror}.")
        self.due = None
        self.restarts += 1
        return self.now("starting")

    def _later(self, now: float, why: str) -> bool:
        if self.liveness is not None:
            self.liveness.end()
            self.liveness = None
        self.due = now + self.backoff_s
        self.backoff_s = min(self.backoff_s * 2, LONGEST_BACKOFF_S)
        self.state.last_exit = why
        return self.now("restarting")

    def now(self, state: Literal["starting", "running", "restarting", "stopped"]) -> bool:
        """Note that it has come into `state`; always True."""
        self.state = ChildState(
            name=self.child.name,
            pid=self.run.pid,
            start_time=self.run.start_time,
            state=state,
            since=time.time(),
            restarts=self.restarts,
            last_exit=self.state.last_exit,
            log=self.state.log,
            roles=self.state.roles,
            probe_port=self.state.probe_port,
        )
        return True


class Supervisor:
    """Runs `servers`, then `provision`, then `roles` on one data directory, and keeps them running until `stop`.

    `endpoints` makes of what the servers say what clients need; `provision` (topics, tables, buckets) is called once they
    are ready and may be repeated at each start; `roles` then gives the children that need the services.

    `<data>/logs/up.log` tells, a JSON line each, when all was started and stopped, and of each child that ended and was started again.

    All children are started by one thread of the supervisor's own, which lives as long as they do: on Linux they are
    ended with it, however this process ends.
    """

    def __init__(
        self,
        data: Path,
        servers: Sequence[Server],
        *,
        endpoints: Callable[[dict[str, dict[str, str]]], Endpoints],
        provision: Callable[[Endpoints], None] | None = None,
        roles: Callable[[Endpoints], Sequence[Child]] | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self.data = data.expanduser().resolve()
        self._servers = servers
        self._endpoints = endpoints
        self._provision = provision
        self._roles = roles
        self._say = say or (lambda sentence: print(sentence, file=sys.stderr))
        self._stopping = threading.Event()
        self._started: Future[Endpoints] = Future()
        self._thread = threading.Thread(target=self._live, name="hilum-supervisor", daemon=True)
        self._children: list[Supervised] = []
        self._log_file = self.data / "logs" / "up.log"
        self._log = telemetry.logger("supervisor", self._log_file)
        self._lock: DataLock | None = None
        self._state = RunState(pid=os.getpid(), start_time=start_time(os.getpid()) or 0.0, data=str(self.data))

    def start(self) -> Endpoints:
        """Start everything and return when all of it is ready.

        Raises `Misconfigured` (with the end of the log of whatever failed, and what to do); nothing is left running then.
        """
        self._lock = DataLock(self.data)
        try:
            self._thread.start()
            return self._started.result()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop all children cleanly, roles first, and return when they have ended. May be called twice, and by any thread."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()
        if self._lock:
            self._lock.release()
            self._lock = None

    def run(self, *, ready: Callable[[Endpoints], None] | None = None) -> None:
        """Start, tell `ready`, and stay until SIGTERM or SIGINT; then stop. For the main thread of a program in the foreground.

        A second Ctrl-C ends the program without waiting for clean ends. Before all was ready a signal is told by the exit code: 128
        and the signal's number (`SystemExit`).
        """
        signals: list[int] = []

        def on_signal(number: int, _frame: object) -> None:
            if self._stopping.is_set() and number == signal.SIGINT:
                os._exit(130)  # a second Ctrl-C: at once; the system, or the next start, ends the children
            signals.append(number)
            self._stopping.set()

        before = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            endpoints = self.start()
            if ready:
                ready(endpoints)
            self._stopping.wait()
        except Misconfigured as error:
            if not signals:
                raise
            self._say(error.sentence)
            raise SystemExit(128 + signals[0]) from None
        finally:
            self.stop()
            for number, handler in before.items():
                signal.signal(number, handler)

    # All below runs in the supervisor's own thread.

    def _live(self) -> None:
        try:
            endpoints = self._bring_up()
            self._write("ready")
        except BaseException as error:  # it is given to the thread that waits in `start`
            self._tear_down(failure=error)
            self._started.set_exception(error)
            return
        self._started.set_result(endpoints)
        try:
            self._keep_up()
        finally:
            self._stopping.set()
            self._tear_down()

    def _keep_up(self) -> None:
        """Look after the children until told to stop. A full disk must not end this: then the run file is written later."""
        to_write = False
        logs_due = time.monotonic()
        while not self._stopping.wait(RUNNING_POLL_S):
            for supervised in self._children:
                if supervised.look():
                    self._tell_of(supervised)
                    to_write = True
            with suppress(OSError):
                if to_write:
                    self._write("ready")
                    to_write = False
                if time.monotonic() >= logs_due:
                    logs_due = time.monotonic() + LOGS_EVERY_S
                    for log in (self._log_file, *(supervised.child.log for supervised in self._children)):
                        rotate(log)

    def _tell_of(self, supervised: Supervised) -> None:
        """Say in the log what has become of a child."""
        now = supervised.state
        if now.state == "restarting":
            in_s = round((supervised.due or 0.0) - time.monotonic(), 2)
            self._log.warning("child_ended", process=now.name, pid=now.pid, says=now.last_exit, after_s=in_s)
        elif now.state == "starting":
            self._log.info("child_started_again", process=now.name, pid=now.pid, count=now.restarts)
        else:
            self._log.info("child_ready", process=now.name, pid=now.pid)

    def _bring_up(self) -> Endpoints:
        check_space(self.data)
        rotate(self._log_file)
        for sentence in end_stale_children(self.data):
            self._say(sentence)
        self._write("starting")
        with ThreadPoolExecutor(max(1, len(self._servers)), thread_name_prefix="hilum-prepare") as threads:
            self._start_all([threads.submit(server.prepare) for server in self._servers])
        endpoints = self._endpoints({server.name: server.endpoint() for server in self._servers})
        self._state.endpoints = endpoints
        self._write("starting")
        if self._provision:
            self._provision(endpoints)
        if self._roles:
            self._start_all(list(self._roles(endpoints)))
        return endpoints

    def _start_all(self, children: Sequence[Child | Future[Child]]) -> None:
        """Start each child as soon as it is prepared; return when all are ready. Raises as soon as one fails."""
        waiting = list(children)
        starting: list[Supervised] = []
        while waiting or starting:
            if self._stopping.is_set():
                raise Misconfigured("stopped", "Hilum was stopped before it was ready.", fix="Start it again with `hilum up`.")
            for child in [c for c in waiting if isinstance(c, Child) or c.done()]:
                waiting.remove(child)
                supervised = Supervised(child if isinstance(child, Child) else child.result())
                self._children.append(supervised)
                starting.append(supervised)
                self._write("starting")
            for supervised in list(starting):
                if supervised.run.ready():
                    supervised.now("running")
                    starting.remove(supervised)
                    self._write("starting")
            if waiting or starting:
                self._stopping.wait(STARTING_POLL_S)

    def _tear_down(self, failure: BaseException | None = None) -> None:
        """Stop the roles together, then the servers together."""
        with suppress(OSError):
            if failure is None:
                self._write("stopping")
        names = {server.name for server in self._servers}
        for group in ([s for s in self._children if s.child.name not in names], [s for s in self._children if s.child.name in names]):
            for supervised in group:
                supervised.run.ask_to_stop()
            for supervised in group:
                if supervised.liveness is not None:
                    supervised.liveness.end()
                supervised.run.wait()
                supervised.now("stopped")
        if isinstance(failure, HilumError):
            reason = failure.reason if isinstance(failure, Misconfigured) else "failed"
            self._state.failure = Failure(reason=reason, sentence=failure.sentence, fix=failure.fix)
        elif failure is not None:
            sentence = f"Hilum could not start: {type(failure).__name__}."
            self._state.failure = Failure(reason="failed", sentence=sentence, fix="Its log says more; please report it.")
        with suppress(OSError):
            self._write("stopped" if failure is None else "failed")

    def _write(self, state: Literal["starting", "ready", "stopping", "stopped", "failed"]) -> None:
        if state != self._state.state or not self._state.since:
            self._state.since = time.time()
            why = {"says": self._state.failure.sentence} if self._state.failure else {}
            self._log.info(f"hilum_{state}", pid=self._state.pid, **why)
        self._state.state = state
        self._state.children = [supervised.state for supervised in self._children]
        write_run_state(self._state)
