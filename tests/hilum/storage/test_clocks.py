from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from hilum.storage.clocks import Clocks
from hilum.testing import Clock


class Times:
    """The tables, of which the clock is the machine's own unless told otherwise."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.ahead = timedelta()
        self.last: datetime | None = None
        self.seen: tuple[datetime, datetime] | None = None

    def now(self) -> datetime:
        return self.clock() + self.ahead

    def newest(self) -> datetime | None:
        return self.last

    def steady_since(self, now: datetime, *, jumped: bool, tolerance: timedelta, gap: timedelta) -> datetime:
        seen, since = self.seen or (now, now)
        if jumped or now < seen - tolerance or now > seen + gap:
            since = now
        self.seen = now, since
        return since


class Machine:
    def __init__(self) -> None:
        self.clock = Clock()
        self.times = Times(self.clock)
        self.elapsed = 0.0
        self.start()

    def start(self) -> None:
        self.clocks = Clocks(self.clock, lambda: self.elapsed)

    def runs(self, **time: float) -> str:
        """Time passes, by its clock, too; why nothing may expire then."""
        for _ in range(24):
            part = timedelta(**time) / 24
            self.clock.moment += part
            self.elapsed += part.total_seconds()
            says = self.clocks.look(self.times)[1]
        return says


@pytest.fixture
def machine() -> Machine:
    made = Machine()
    made.clocks.look(made.times)
    assert made.runs(hours=25) == ""
    return made


def test_nothing_expires_on_the_first_day() -> None:
    machine = Machine()

    assert "has run evenly only since" in machine.runs(hours=23)
    assert machine.runs(hours=2) == ""


@pytest.mark.parametrize("days", [-400, -1, 1, 400])
def test_after_a_jump_nothing_expires_for_a_day(machine: Machine, days: int) -> None:
    machine.clock.forward(days=days)

    assert "has run evenly only since" in machine.runs(hours=20)
    assert machine.runs(hours=5) == ""


@pytest.mark.parametrize("days", [-3, 3])
def test_a_jump_while_nothing_ran_is_noticed_too(machine: Machine, days: int) -> None:
    machine.clock.forward(days=days)
    machine.start()

    assert "has run evenly only since" in machine.runs(hours=1)


def test_a_restart_costs_nothing(machine: Machine) -> None:
    machine.clock.forward(hours=1)
    machine.start()

    assert machine.runs(minutes=1) == ""


def test_clocks_that_differ_stop_it(machine: Machine) -> None:
    machine.times.ahead = timedelta(minutes=10)

    assert "600 s apart" in machine.runs(minutes=1)


def test_objects_of_the_future_stop_it(machine: Machine) -> None:
    machine.times.last = machine.clock() + timedelta(days=2)

    assert "which is not yet" in machine.runs(minutes=1)


def test_the_earlier_clock_counts(machine: Machine) -> None:
    machine.times.ahead = timedelta(minutes=-2)

    assert machine.clocks.look(machine.times)[0] == machine.clock() - timedelta(minutes=2)
