"""The command as a process: its name, its version, its help."""

from __future__ import annotations

import subprocess
import sys

import pytest

from hilum import __version__


def hilum(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "hilum", *arguments], capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize("arguments", [("--version",), ("version",)])
def test_the_version_is_told(arguments: tuple[str, ...]) -> None:
    done = hilum(*arguments)

    assert (done.returncode, done.stdout) == (0, f"hilum {__version__}\n")


@pytest.mark.parametrize(("arguments", "usage"), [((), "Usage: hilum [OPTIONS]"), (("study",), "Usage: hilum study [OPTIONS]")])
def test_a_name_alone_shows_its_help_and_is_no_failure(arguments: tuple[str, ...], usage: str) -> None:
    done = hilum(*arguments)

    assert done.returncode == 0
    assert done.stdout.strip().startswith(usage)


def test_a_wrong_command_is_told_by_the_name_that_people_type() -> None:
    done = hilum("stdy")

    assert done.returncode == 2
    assert done.stderr.startswith("Usage: hilum ")
