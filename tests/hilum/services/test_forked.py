"""Forks of a process that has imported Hilum; that a fork is a child like any other, `test_service_process.py` tells."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hilum.errors import HilumError, Misconfigured, NotFound, Quarantine, Reason, Stopped, TryAgain
from hilum.services import forked
from hilum.services.forked import done_aside


def raising(error: HilumError) -> None:
    raise error


def test_what_is_done_aside_is_done_in_another_process() -> None:
    assert done_aside(os.getpid) != os.getpid()


@pytest.mark.parametrize(
    "error",
    [
        Misconfigured("no-way", "It cannot be.", fix="Do not."),
        TryAgain("It is away.", fix="Wait.", after_s=3.0),
        Quarantine(Reason.TRUNCATED, "It ends early.", found="1", expected="2"),
        NotFound("It is not there."),
        Stopped("It is over."),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_comes_back_from_there_as_it_was(error: HilumError) -> None:
    with pytest.raises(type(error)) as stop:
        done_aside(raising, error)

    assert str(stop.value) == str(error)
    assert vars(stop.value) == vars(error)


# Ctrl-C goes to all processes of the terminal; this one comes while the program is being imported of which the others are forks.
INTERRUPTED = """
import os, signal
os.kill(os.getpid(), signal.SIGINT)

def main(arguments):
    print(signal.pthread_sigmask(signal.SIG_BLOCK, []))
"""

PROGRAM = """
import signal
from pathlib import Path
from hilum.services.forked import Forked, have_imported
have_imported(["program"])
log = Path({folder!r}, "log")
log.touch()
Forked(["program"], "role", log, {{}}, signal.SIGKILL).wait()
print(signal.pthread_sigmask(signal.SIG_BLOCK, []), log.read_text())
"""


@pytest.mark.skipif(not forked.POSSIBLE, reason="programs are started anew here")
def test_ctrl_c_does_not_disturb_what_is_being_imported_and_is_not_kept_from_programs(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(INTERRUPTED)
    program = [sys.executable, "-c", PROGRAM.format(folder=str(tmp_path))]
    path = {**os.environ, "PYTHONPATH": str(tmp_path)}

    done = subprocess.run(program, env=path, capture_output=True, text=True, timeout=60, check=False)

    assert (done.stdout.split(), done.stderr) == (["set()", "set()"], "")


CRASHING = """
import ctypes

def main(arguments):
    ctypes.string_at(0)
"""

FROZEN = """
import gc

def main(arguments):
    print(gc.get_freeze_count() > 1000)
"""


@pytest.mark.skipif(not forked.POSSIBLE, reason="programs are started anew here")
def test_a_program_that_a_library_crashes_says_in_its_log_where_it_was(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(CRASHING)
    program = PROGRAM.format(folder=str(tmp_path))
    path = {**os.environ, "PYTHONPATH": str(tmp_path)}

    done = subprocess.run([sys.executable, "-c", program], env=path, capture_output=True, text=True, timeout=60, check=False)

    assert "Segmentation fault" in done.stdout
    assert "program.py" in done.stdout


@pytest.mark.skipif(not forked.POSSIBLE, reason="programs are started anew here")
def test_looking_for_cycles_leaves_alone_what_programs_share(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(FROZEN)
    program = [sys.executable, "-c", PROGRAM.format(folder=str(tmp_path))]

    done = subprocess.run(program, env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, timeout=60, check=False)

    assert (done.stdout.split()[-1], done.stderr) == ("True", "")


IMPORTING = """
import runpy, sys

class Interrupted:
    def find_spec(self, name, path=None, target=None):
        if name == "hilum.cli":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupted())
runpy.run_module("hilum", run_name="__main__")
"""


def test_ctrl_c_before_the_command_is_imported_shows_no_traceback() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORTING], capture_output=True, text=True, timeout=60, check=False)

    assert (done.returncode, done.stderr) == (128 + signal.SIGINT, "")
