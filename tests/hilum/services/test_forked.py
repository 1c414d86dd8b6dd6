"""Forks of a process that has imported Hilum; that a fork is a child like any other, `test_service_process.py` tells."""

import os

import pytest

from hilum.errors import HilumError, Misconfigured, NotFound, Quarantine, Reason, Stopped, TryAgain
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
