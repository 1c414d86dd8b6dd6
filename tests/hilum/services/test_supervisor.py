"""The supervisor, told with small Python programs as servers and roles."""

import fcntl
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from bench.peers import free_port
from hilum.errors import Misconfigured
from hilum.services.endpoints import Endpoints
from hilum.services.liveness import UNANSWERED, Liveness
from hilum.services.process import Child, is_running
from hilum.services.runstate import RunState, read_run_state
from hilum.services.supervisor import Supervised, Supervisor
from hilum.services.up import detach, down
from hilum.status import ask
from hilum.testing import eventually

IDLE = "import time; print('up', flush=True); time.sleep(600)"


@dataclass
class Toy:
    """A server that is a Python program; it is ready once its log says `up` since its start."""

    data: Path
    name: str = "toy"
    program: str = IDLE
    happened: list[str] = field(default_factory=list)

    def prepare(self) -> Child:
        self.happened.append(f"prepare {self.name}")
        return a_child(self.data, self.name, self.program)

    def endpoint(self) -> dict[str, str]:
        return {"name": self.name}


def a_child(data: Path, name: str, program: str = IDLE) -> Child:
    log = data / "logs" / f"{name}.log"
    return Child(name=name, argv=[sys.executable, "-c", program], log=log, ready=lambda: "up" in log.read_text(), stop_within_s=5.0)


def no_endpoints(_said: dict[str, dict[str, str]]) -> Endpoints:
    return Endpoints(kafka_bootstrap="k:1", postgres_dsn="p", s3_endpoint="http://s", s3_access_key="a", s3_secret_key="s")


Make = Callable[..., Supervisor]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    made: list[Supervisor] = []

    def make(servers: Sequence[Toy] = (), **what: object) -> Supervisor:
        made.append(Supervisor(tmp_path, servers, endpoints=no_endpoints, **what))  # type: ignore[arg-type]  # a builder
        return made[-1]

    yield make
    for supervisor in made:
        supervisor.stop()


def state_of(data: Path) -> RunState:
    state = read_run_state(data)
    assert state is not None
    return state


def child_of(data: Path, name: str) -> psutil.Process:
    return psutil.Process(next(child.pid for child in state_of(data).children if child.name == name))


def test_servers_come_first_then_provisioning_then_roles(make: Make, tmp_path: Path) -> None:
    happened: list[str] = []

    def roles(_endpoints: Endpoints) -> list[Child]:
        happened.append("roles")
        return [a_child(tmp_path, "role")]

    make([Toy(tmp_path, "server", happened=happened)], provision=lambda _: happened.append("provision"), roles=roles).start()

    assert happened == ["prepare server", "provision", "roles"]
    assert [(child.name, child.state) for child in state_of(tmp_path).children] == [("server", "running"), ("role", "running")]


def test_the_run_file_says_what_runs_and_is_private(make: Make, tmp_path: Path) -> None:
    make([Toy(tmp_path)]).start()

    state = state_of(tmp_path)
    assert (state.pid, state.state, state.is_alive()) == (os.getpid(), "ready", True)
    assert state.endpoints == no_endpoints({})
    assert (tmp_path / "run.json").stat().st_mode & 0o077 == 0


def test_the_run_file_says_where_each_process_answers_for_which_roles(make: Make, tmp_path: Path) -> None:
    child = replace(a_child(tmp_path, "route,index"), roles=("route", "index"), probe_port=20_001)
    make(roles=lambda _: [child]).start()

    [kept] = state_of(tmp_path).children
    assert (kept.state, kept.roles, kept.probe_port) == ("running", ("route", "index"), 20_001)


def test_a_child_that_dies_is_started_again(make: Make, tmp_path: Path) -> None:
    make([Toy(tmp_path)]).start()
    child_of(tmp_path, "toy").kill()

    again = eventually(lambda: [c for c in state_of(tmp_path).children if c.restarts == 1 and c.state == "running"])

    assert again[0].last_exit.startswith("toy ended by signal SIGKILL")


def test_a_process_that_runs_and_answers_nothing_is_ended_and_started_again(make: Make, tmp_path: Path) -> None:
    hung = tmp_path / "hung"
    child = replace(a_child(tmp_path, "route"), answers=lambda: not hung.exists(), silent_s=0.2)
    make(roles=lambda _: [child]).start()
    first = child_of(tmp_path, "route").pid
    hung.touch()

    again = eventually(lambda: [c for c in state_of(tmp_path).children if c.restarts])
    hung.unlink()

    assert "answered nothing for" in again[0].last_exit
    eventually(lambda: [c for c in state_of(tmp_path).children if c.state == "running" and c.pid != first])
    assert any(each["event"] == "child_ended" and "answered nothing" in each["says"] for each in told(tmp_path))


def test_a_process_that_was_stopped_is_ended_and_started_again(make: Make, tmp_path: Path) -> None:
    port = free_port()
    program = (
        "from http.server import HTTPServer, BaseHTTPRequestHandler as H\n"
        "H.do_GET = lambda self: (self.send_response(200), self.end_headers(), self.wfile.write(b'{\"roles\": {}}'))\n"
        f"s = HTTPServer(('127.0.0.1', {port}), H); print('up', flush=True); s.serve_forever()"
    )
    child = replace(a_child(tmp_path, "route", program), answers=lambda: ask(port, 0.2) is not None, silent_s=0.4)
    make(roles=lambda _: [child]).start()
    first = child_of(tmp_path, "route")

    first.suspend()

    eventually(lambda: not first.is_running())  # on a slow machine it may have been started again before
    eventually(lambda: [c for c in state_of(tmp_path).children if c.restarts and c.state == "running"])


def test_a_process_that_answers_one_question_of_four_is_never_silent() -> None:
    questions, begin, enough = itertools.count(1), threading.Event(), threading.Event()
    silent = []

    def answers() -> bool:
        begin.wait(60)
        silent.append(asked.silent_s)
        if (number := next(questions)) == 40:
            enough.set()
        return number % UNANSWERED == 0

    asked = Liveness(answers, every_s=0.001)
    begin.set()
    assert enough.wait(60)
    asked.end()

    assert not any(silent)


def told(data: Path) -> list[dict[str, Any]]:
    """What `up.log` tells."""
    return [json.loads(line) for line in (data / "logs" / "up.log").read_text().splitlines()]


def test_the_end_of_a_child_and_its_new_start_are_logged(make: Make, tmp_path: Path) -> None:
    make([Toy(tmp_path, "validate,route#1")]).start()
    before = child_of(tmp_path, "validate,route#1")
    before.kill()

    eventually(lambda: told(tmp_path)[-1]["event"] == "child_ready")

    starting, ready, end, again, back = told(tmp_path)
    after = child_of(tmp_path, "validate,route#1")
    assert [starting["event"], ready["event"], back["event"]] == ["hilum_starting", "hilum_ready", "child_ready"]
    assert (end["event"], end["level"], end["process"], end["pid"]) == ("child_ended", "warning", "validate,route#1", before.pid)
    assert end["says"].startswith("validate,route#1 ended by signal SIGKILL")
    assert (again["event"], again["pid"], again["count"]) == ("child_started_again", after.pid, 1)


def test_why_a_start_failed_is_logged(make: Make, tmp_path: Path) -> None:
    with pytest.raises(Misconfigured):
        make([Toy(tmp_path, "bad", "raise SystemExit(1)")]).start()

    last = told(tmp_path)[-1]
    assert last["event"] == "hilum_failed"
    assert last["says"].startswith("bad ended with exit code 1")


def test_a_child_that_keeps_dying_is_started_ever_less_often(tmp_path: Path) -> None:
    supervised = Supervised(a_child(tmp_path, "toy", "raise SystemExit(1)"))
    waits = [supervised.backoff_s]

    def started_again() -> bool:
        supervised.look()
        waits.append(supervised.backoff_s)
        return supervised.restarts >= 2

    eventually(started_again)
    supervised.run.kill()

    assert sorted(set(waits)) == [0.25, 0.5, 1.0]


def test_a_start_that_fails_leaves_nothing_running(make: Make, tmp_path: Path) -> None:
    supervisor = make([Toy(tmp_path, "good"), Toy(tmp_path, "bad", "raise SystemExit(1)")])

    with pytest.raises(Misconfigured, match="bad ended with exit code 1"):
        supervisor.start()

    state = state_of(tmp_path)
    assert state.state == "failed"
    assert state.failure is not None
    assert "bad ended" in state.failure.sentence
    assert not [child for child in state.children if is_running(child.pid, child.start_time)]


def test_a_provisioning_that_fails_leaves_nothing_running(make: Make, tmp_path: Path) -> None:
    def provision(_endpoints: Endpoints) -> None:
        raise Misconfigured("no-topics", "No topics.", fix="None.")

    with pytest.raises(Misconfigured, match="No topics"):
        make([Toy(tmp_path)], provision=provision).start()

    assert not [child for child in state_of(tmp_path).children if is_running(child.pid, child.start_time)]


def test_stop_ends_all_children_and_says_so(make: Make, tmp_path: Path) -> None:
    supervisor = make([Toy(tmp_path)], roles=lambda _: [a_child(tmp_path, "role")])
    supervisor.start()

    supervisor.stop()

    state = state_of(tmp_path)
    assert state.state == "stopped"
    assert not [child for child in state.children if is_running(child.pid, child.start_time)]


def test_a_second_supervisor_on_the_same_data_names_the_first(make: Make, tmp_path: Path) -> None:
    make([Toy(tmp_path)]).start()

    with pytest.raises(Misconfigured, match=f"as process {os.getpid()}") as stop:
        make([Toy(tmp_path)]).start()

    assert stop.value.reason == "already-running"


def test_children_left_by_a_supervisor_that_died_are_ended_and_named(make: Make, tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", IDLE]) as left, subprocess.Popen([sys.executable, "-c", IDLE]) as other:
        started = psutil.Process(left.pid).create_time()
        children = [
            {"name": "kafka", "pid": left.pid, "start_time": started, "state": "running", "since": 0.0},
            {"name": "s3", "pid": other.pid, "start_time": started - 1000, "state": "running", "since": 0.0},  # the pid is another's now
        ]
        run = {"pid": 1, "start_time": 0.0, "data": str(tmp_path), "state": "ready", "children": children}
        (tmp_path / "run.json").write_text(json.dumps(run))
        said: list[str] = []

        make([], say=said.append).start()

        assert f"Its kafka, process {left.pid}, still ran and was ended." in said
        assert left.wait(60) == -signal.SIGTERM
        assert other.poll() is None
        other.kill()


FOREGROUND = """
import sys
from pathlib import Path
sys.path[:0] = [{here!r}]
from test_supervisor import Toy, no_endpoints
from hilum.services.supervisor import Supervisor
data = Path({data!r})
Supervisor(data, [Toy(data, program={program!r})], endpoints=no_endpoints).run(ready=lambda _: print("ready", flush=True))
"""


def foreground(data: Path, program: str = IDLE) -> list[str]:
    return [sys.executable, "-c", FOREGROUND.format(here=str(Path(__file__).parent), data=str(data), program=program)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_program_in_the_foreground_stops_cleanly_on_a_signal(tmp_path: Path, number: signal.Signals) -> None:
    with subprocess.Popen(foreground(tmp_path), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        child = child_of(tmp_path, "toy")

        process.send_signal(number)

        assert process.wait(60) == 0
    assert not child.is_running()
    assert state_of(tmp_path).state == "stopped"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_before_all_is_ready_is_the_exit_code(tmp_path: Path, number: signal.Signals) -> None:
    never_ready = "import time; time.sleep(600)"
    with subprocess.Popen(foreground(tmp_path, never_ready), stderr=subprocess.PIPE, text=True) as process:
        eventually(lambda: (state := read_run_state(tmp_path)) and state.children)
        child = child_of(tmp_path, "toy")

        process.send_signal(number)
        _, said = process.communicate(timeout=60)

    assert (process.returncode, said) == (128 + number, "Hilum was stopped before it was ready.\n")
    assert not child.is_running()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent died")
def test_no_child_outlives_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    with subprocess.Popen(foreground(tmp_path), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        child = child_of(tmp_path, "toy")
        process.kill()

    eventually(lambda: not child.is_running())


def test_a_detached_program_is_ready_on_return_and_stops_with_down(tmp_path: Path) -> None:
    state = detach(foreground(tmp_path), tmp_path, ready_within_s=60)
    assert (state.state, state.is_alive()) == ("ready", True)

    said = down(tmp_path)

    assert said == [f"Hilum on {tmp_path} has stopped (it was process {state.pid})."]
    assert state_of(tmp_path).state == "stopped"


def test_a_detached_program_that_fails_tells_why(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="toy ended with exit code 1") as stop:
        detach(foreground(tmp_path, "raise SystemExit(1)"), tmp_path, ready_within_s=60)

    assert stop.value.reason == "service-failed"


def test_down_where_nothing_runs_does_nothing(tmp_path: Path) -> None:
    assert down(tmp_path) == []


def test_a_lock_file_that_nobody_holds_does_not_stop_a_start(make: Make, tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("4242")
    with (tmp_path / "lock").open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)

    make([Toy(tmp_path)]).start()

    assert state_of(tmp_path).state == "ready"
