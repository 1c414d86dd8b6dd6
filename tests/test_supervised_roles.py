"""What looks after the programs that tests kill: one that ends by itself is started again, and a failure says what ended."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from hilum.services.process import Child
from hilum.testing import eventually
from tests.roles import roles

#: Ends by itself the first time, and with 7 when it is asked to the next time.
ENDS_ONCE = """
import pathlib, signal, sys
been = pathlib.Path(sys.argv[1])
if not been.exists():
    been.touch()
    sys.exit("It was fenced.")
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
been.write_text("again")
signal.pause()
"""


def a_child(folder: Path) -> Child:
    argv = [sys.executable, "-c", ENDS_ONCE, str(folder / "been")]
    return Child(name="worker", argv=argv, log=folder / "worker.log", ready=lambda: True)


def started_again(folder: Path) -> bool:
    return (folder / "been").exists() and (folder / "been").read_text() == "again"


def test_what_ends_by_itself_is_started_again_and_ends_when_it_is_asked_to(tmp_path: Path) -> None:
    with roles(a_child(tmp_path)) as running:
        running.start()
        eventually(lambda: started_again(tmp_path))
        assert running.end() == {"worker": 7}

    [ended] = running.ended
    assert "worker ended with exit code 1 by itself" in ended
    assert "It was fenced." in ended


def test_what_was_killed_stays_ended(tmp_path: Path) -> None:
    (tmp_path / "been").touch()  # it does not end by itself
    with roles(a_child(tmp_path)) as running:
        running.start("worker")
        running.kill("worker")
        running.look()
        assert running.ended == []
        assert running.end() == {}


def test_what_a_test_fails_with_has_notes_of_what_ended_and_of_the_logs(tmp_path: Path) -> None:
    def fails() -> None:
        with roles(a_child(tmp_path)) as running:
            running.start()
            eventually(lambda: started_again(tmp_path))
            raise ValueError

    with pytest.raises(ValueError) as failed:
        fails()

    ended, log = failed.value.__notes__
    assert "worker ended with exit code 1 by itself" in ended
    assert log.startswith("worker runs; the end of its log:\nIt was fenced.")
