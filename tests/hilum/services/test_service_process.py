"""One child process, told with small Python programs."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hilum.errors import Misconfigured
from hilum.services import forked
from hilum.services.process import LOG_LIMIT_BYTES, Child, Run, is_running, rotate, start_time
from hilum.testing import eventually
from tests.hilum.services import run_code
from tests.processes import children_of, ended

IDLE = "import time; print('up', flush=True); time.sleep(600)"
DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"

Start = Callable[..., Run]


@pytest.fixture(params=["launched", pytest.param("forked", marks=pytest.mark.skipif(not forked.POSSIBLE, reason="Linux only"))])
def start(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Start]:
    runs: list[Run] = []
    is_fork = request.param == "forked"

    def start(program: str, **what: object) -> Run:
        log = tmp_path / "logs" / "toy.log"
        fields: dict[str, object] = {"ready": lambda: "up" in log.read_text(), "stop_within_s": 5.0, **what}
        if is_fork:
            fields["fork"] = ("tests.hilum.services.run_code", program)
        runs.append(Run(Child(name="toy", argv=[sys.executable, "-c", program], log=log, **fields)))  # type: ignore[arg-type]  # a builder
        return runs[-1]

    yield start
    for run in runs:
        run.kill()


def test_a_child_is_ready_when_its_service_says_so(start: Start) -> None:
    eventually(start(IDLE).ready)


def test_a_child_that_ends_before_it_is_ready_is_explained_with_the_end_of_its_log(start: Start) -> None:
    run = start("print('the flux is not calibrated'); raise SystemExit(3)")

    with pytest.raises(Misconfigured, match="toy ended with exit code 3 before it was ready") as stop:
        eventually(run.ready)

    assert "the flux is not calibrated" in stop.value.fix


def test_a_child_that_is_not_ready_in_time_is_explained(start: Start) -> None:
    run = start(IDLE, ready=lambda: False, ready_within_s=0.1)

    with pytest.raises(Misconfigured, match="toy was not ready within 0 s"):
        eventually(run.ready)


@pytest.mark.parametrize(
    ("last_words", "reason"),
    [
        ("write failed: No space left on device", "disk-full"),
        ("java.net.BindException: Address already in use", "port-in-use"),
        ("FATAL: could not open file: Permission denied", "not-permitted"),
        ("PANIC: could not locate a valid checkpoint record", "data-damaged"),
        ("java.lang.OutOfMemoryError: Java heap space", "out-of-memory"),
    ],
)
def test_last_words_that_are_known_get_a_reason_and_a_fix(start: Start, last_words: str, reason: str) -> None:
    run = start(f"print({last_words!r}); raise SystemExit(1)")

    with pytest.raises(Misconfigured) as stop:
        eventually(run.ready)

    assert stop.value.reason == reason


def test_what_an_earlier_run_wrote_explains_nothing(start: Start, tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "toy.log").write_text("No space left on device\n")
    run = start("raise SystemExit(1)")

    with pytest.raises(Misconfigured) as stop:
        eventually(run.ready)

    assert stop.value.reason == "service-failed"


def test_a_child_stops_when_asked(start: Start) -> None:
    run = start(IDLE)
    eventually(run.ready)

    run.stop()

    assert run.exit_code == -signal.SIGTERM


def test_a_child_that_does_not_stop_is_ended(start: Start) -> None:
    run = start(DEAF, stop_within_s=0.2)
    eventually(run.ready)

    run.stop()

    assert run.exit_code == -signal.SIGKILL


@pytest.mark.skipif(not forked.POSSIBLE, reason="Linux only")
def test_a_fork_that_leads_no_session_yet_is_ended_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forked, "become", run_code.stays_young)
    run = Run(Child(name="toy", argv=(), fork=("toy",), log=tmp_path / "toy.log", ready=lambda: False))
    killing = threading.Thread(target=run.kill, daemon=True)
    killing.start()
    killing.join(30)
    try:
        assert run.exit_code == -signal.SIGKILL
    finally:
        if run.exit_code is None:
            os.kill(run.pid, signal.SIGKILL)


def test_what_a_child_started_ends_with_it(start: Start) -> None:
    run = start(f"import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', {IDLE!r}]).pid, 'up', flush=True); {IDLE}")
    eventually(run.ready)
    [grandchild] = children_of(run.pid)

    run.stop()

    eventually(lambda: ended([grandchild]))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent died")
@pytest.mark.parametrize("fork", [(), ("tests.hilum.services.run_code", IDLE)], ids=["launched", "forked"])
def test_a_child_ends_when_its_parent_is_killed(tmp_path: Path, fork: tuple[str, ...]) -> None:
    parent = f"""
import sys, time
from pathlib import Path
from hilum.services.process import Child, Run
log = Path({str(tmp_path / "toy.log")!r})
run = Run(Child(name="toy", argv=[sys.executable, "-c", {IDLE!r}], fork={fork!r}, log=log, ready=lambda: True))
print(run.pid, flush=True)
time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        child = int(process.stdout.readline())
        started = start_time(child)
        assert started is not None
        process.kill()

    eventually(lambda: not is_running(child, started))


def test_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    run = Run(Child(name="toy", argv=[tmp_path / "absent"], log=tmp_path / "toy.log", ready=lambda: False))

    with pytest.raises(Misconfigured, match="toy ended") as stop:
        eventually(run.ready)

    assert f"{tmp_path / 'absent'} cannot be started: No such file or directory." in stop.value.fix


def test_a_log_over_its_limit_is_set_aside_while_its_program_writes_on(tmp_path: Path) -> None:
    log = tmp_path / "toy.log"
    rotate(log)
    with log.open("ab") as program:
        program.write(b"x" * (LOG_LIMIT_BYTES + 1))
        program.flush()
        rotate(log)
        program.write(b"after")

    assert log.read_bytes() == b"after"
    assert (tmp_path / "toy.log.1").stat().st_size == LOG_LIMIT_BYTES + 1
    assert log.stat().st_mode & 0o077 == 0


def test_a_pid_that_belongs_to_another_process_now_is_not_the_one_recorded() -> None:
    started = start_time(os.getpid())
    assert started is not None

    assert is_running(os.getpid(), started)
    assert not is_running(os.getpid(), started - 100)
