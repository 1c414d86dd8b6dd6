"""Hilum's own programs in processes of their own, which a test kills, and which are looked after as `hilum up` does."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from hilum.services.forked import have_imported
from hilum.services.process import Child, Run, tail

#: How often it is looked whether one has ended by itself.
LOOK_S = 0.1
#: What they are forks of has imported these: those that tests run.
MODULES = (
    "hilum.host",
    *("ingest.dicom", "ingest.hl7"),
    *("processors.grammar", "processors.index", "processors.match", "processors.orders"),
)


def a_role(name: str, folder: Path, config: Path, ready: Callable[[], bool] = lambda: True, **environment: str) -> Child:
    """`hilum run NAME` with these settings, as a fork; its log is in `folder`. `environment` is added to that of the tests."""
    command = ("hilum.host", name, "--config", str(config))
    return Child(name=name, argv=(), fork=command, log=folder / f"{name}.log", ready=ready, env={"HILUM_SLOT": "0", **environment})


class Roles:
    """Programs by their name. One that runs until it is killed or told to end is started again if it ends by itself.

    That happens where nothing is wrong: what a killed process has asked of Kafka may come after what its successor asks, and then
    ends that one. `ended` says what did, and how.
    """

    def __init__(self, children: Sequence[Child]) -> None:
        self.ended: list[str] = []
        self._children: Mapping[str, Child] = {child.name: child for child in children}
        self._runs: dict[str, Run] = {}
        self._wanted: set[str] = set()
        self._lock = threading.Lock()

    def start(self, *names: str) -> None:
        """Start these; none: all. Returns at once."""
        with self._lock:
            for name in names or self._children:
                self._runs[name] = Run(self._children[name])
                self._wanted.add(name)

    def kill(self, name: str) -> None:
        """As `kill -9` does; it is not started again."""
        with self._lock:
            self._wanted.discard(name)
            self._runs[name].kill()

    def kill_and_start(self, name: str) -> None:
        """As `kill -9` does, and at once there is another."""
        self.kill(name)
        self.start(name)

    def end(self) -> dict[str, int | None]:
        """Ask those that run to end; their exit codes."""
        with self._lock:
            ending = {name: self._runs[name] for name in self._children if name in self._wanted}
            self._wanted.clear()
            for run in ending.values():
                run.ask_to_stop()
            for run in ending.values():
                run.wait()
        return {name: run.exit_code for name, run in ending.items()}

    def look(self) -> None:
        """Start again what has ended by itself."""
        with self._lock:
            for name in self._wanted:
                if self._runs[name].exit_code is not None:
                    self.ended.append(str(self._runs[name].explain_end("by itself")))
                    self._runs[name] = Run(self._children[name])

    def kill_all(self) -> None:
        """As `kill -9` does."""
        with self._lock:
            self._wanted.clear()
            for run in self._runs.values():
                run.kill()

    def notes(self) -> Iterator[str]:
        """What has ended by itself, and the end of each one's log."""
        yield from self.ended
        for name, run in self._runs.items():
            how = "runs" if run.exit_code is None else f"has ended with {run.exit_code}"
            yield "\n".join([f"{name} {how}; the end of its log:", *tail(self._children[name].log)])


@contextmanager
def roles(*children: Child) -> Iterator[Roles]:
    """For as long as the block lasts; none runs before it is started. What the block fails with gets notes of how they were."""
    have_imported(MODULES)
    running, stop = Roles(children), threading.Event()

    def supervise() -> None:
        while not stop.wait(LOOK_S):
            running.look()

    supervisor = threading.Thread(target=supervise, name="supervisor")
    supervisor.start()
    try:
        yield running
    except BaseException as error:
        for note in running.notes():
            error.add_note(note)
        raise
    finally:
        running.kill_all()
        stop.set()  # after that: the system ends with the thread what it has started
        supervisor.join()
