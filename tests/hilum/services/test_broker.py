"""The program that ends a broker's former life before it becomes the broker, with a stand-in for Java."""

import subprocess
import sys
from pathlib import Path

import pytest

from hilum.services.kafka import BROKER

# As `java … kafka.Kafka CONFIG` would, it does what the file CONFIG says.
STAND_IN = """\
#!{python}
import os, sys, time
run = open(sys.argv[-1]).read()
with open("ran", "a") as ran:
    print(os.path.basename(sys.argv[-1]), os.getpid(), file=ran)
exec(run)
"""

FENCES = """\
print("Performing controller activation", flush=True)
print("x WARN a disk is slow", flush=True)
print("x INFO Fencing broker 1", flush=True)
print("x DEBUG Processed maybeFenceStaleBroker", flush=True)
time.sleep(60)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    java = tmp_path / "java"
    java.write_text(STAND_IN.format(python=sys.executable))
    java.chmod(0o700)
    (tmp_path / "controller").write_text(FENCES)
    (tmp_path / "broker").write_text("print('the broker runs')")
    return tmp_path


def start(folder: Path, metadata: str) -> tuple[int, str, list[list[str]]]:
    """Exit code, output, and what ran (configuration, pid)."""
    argv: list[str | Path] = [sys.executable, "-I", "-S", BROKER, metadata, "controller", "broker", folder / "java", "-Xmx1m"]
    done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout, [line.split() for line in (folder / "ran").read_text().splitlines()]


def test_a_new_broker_has_nothing_to_end(folder: Path) -> None:
    code, output, ran = start(folder, "metadata")

    assert (code, output) == (0, "the broker runs\n")
    assert [name for name, _ in ran] == ["broker"]


def test_the_former_broker_is_ended_first_and_only_warnings_are_passed_on(folder: Path) -> None:
    (folder / "metadata").mkdir()

    code, output, ran = start(folder, "metadata")

    assert (code, output) == (0, "x WARN a disk is slow\nthe broker runs\n")
    assert [name for name, _ in ran] == ["controller", "broker"]
    assert not Path(f"/proc/{ran[0][1]}").exists()


def test_a_controller_that_fails_says_why_and_there_is_no_broker(folder: Path) -> None:
    (folder / "metadata").mkdir()
    (folder / "controller").write_text("sys.exit('the log is damaged')")

    code, output, ran = start(folder, "metadata")

    assert (code, output) == (1, "the log is damaged\n")
    assert [name for name, _ in ran] == ["controller"]
