"""The launcher `./dev`, in a checkout in which Python and uv are stand-ins."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from hilum.testing import eventually

# Makes an environment only when the test lets it, and says so; otherwise it is Python.
PYTHON = f"""\
#!/bin/sh
if [ "$1 $2" = "-m venv" ]; then
    echo made >> environments
    while [ ! -e may-be-made ]; do sleep 0.02; done
    mkdir -p .venv/bin
    cp "$0" .venv/bin/python
else
    exec {sys.executable} "$@"
fi
"""


@pytest.fixture
def checkout() -> Iterator[Path]:
    """A folder that other accounts may pass through and write to."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copy(Path(__file__).parents[1] / "dev", folder)
        for file in ("pyproject.toml", "uv.lock"):
            (folder / file).touch()
        (folder / "programs").mkdir()
        for program, text in (("python", PYTHON), ("uv", "#!/bin/sh\n")):
            (folder / "programs" / program).write_text(text)
            (folder / "programs" / program).chmod(0o755)
        folder.chmod(0o777)
        yield folder


def dev(checkout: Path, user: str | None = None) -> subprocess.Popen[str]:
    """`./dev python`, which says that it runs."""
    programs = checkout / "programs"
    return subprocess.Popen(
        [checkout / "dev", "python", "-c", "print('runs')"],
        env={"PATH": f"{programs}:/usr/bin:/bin", "HILUM_PYTHON": str(programs / "python")},
        cwd=checkout,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        user=user,
    )


def an_environment(checkout: Path, mode: int) -> Path:
    """Something in place of an environment, which others could remove; its interpreter has this mode."""
    python = checkout / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    for path, its_mode in ((python, mode), (python.parent, 0o777), (python.parent.parent, 0o777)):
        path.chmod(its_mode)
    return python


def test_an_environment_is_made_once_and_then_used(checkout: Path) -> None:
    (checkout / "may-be-made").touch()

    outcomes = [dev(checkout).communicate(timeout=60) for _ in range(2)]

    assert outcomes == [("runs\n", "")] * 2
    assert (checkout / "environments").read_text() == "made\n"


def test_an_environment_whose_interpreter_is_gone_is_made_anew(checkout: Path) -> None:
    (checkout / "may-be-made").touch()
    an_environment(checkout, 0o700).unlink()

    assert dev(checkout).communicate(timeout=60) == ("runs\n", "")


def test_two_at_once_make_it_once(checkout: Path) -> None:
    with dev(checkout) as first:
        eventually((checkout / "environments").exists)
        with dev(checkout) as second:
            assert second.stderr
            assert second.stderr.readline() == "./dev: another ./dev makes .venv; waiting for it.\n"

            (checkout / "may-be-made").touch()

            assert [each.communicate(timeout=60) for each in (first, second)] == [("runs\n", "")] * 2
    assert (checkout / "environments").read_text() == "made\n"


def test_an_interpreter_that_may_not_be_executed_is_told_of_and_left_alone(checkout: Path) -> None:
    python = an_environment(checkout, 0o600)

    said = dev(checkout).communicate(timeout=60)

    assert said == ("", f"./dev: {python} may not be executed. Allow it, or remove {checkout / '.venv'} if nothing runs from it.\n")
    assert python.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to run as another account")
def test_the_environment_of_another_account_is_told_of_and_left_alone(checkout: Path) -> None:
    python = an_environment(checkout, 0o700)

    said, errors = dev(checkout, user="daemon").communicate(timeout=60)

    assert said == ""
    assert errors.startswith(f"./dev: {checkout / '.venv'} belongs to another account and is not ready for this one. ")
    assert len(errors.splitlines()) == 1
    assert python.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to run as another account")
def test_a_checkout_that_may_not_be_written_to_is_told_of(checkout: Path) -> None:
    checkout.chmod(0o755)

    said, errors = dev(checkout, user="daemon").communicate(timeout=60)

    assert (said, len(errors.splitlines())) == ("", 1)
    assert errors.startswith(f"./dev: {checkout} may not be written to, so .venv cannot be made. ")
