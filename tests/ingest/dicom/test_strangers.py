from __future__ import annotations

from ingest.dicom.strangers import MOST_OF_ALL, MOST_OF_PEER, WINDOW_S, Strangers


class Seconds:
    """A monotonic clock that only moves when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_few_attempts_of_an_address_are_remembered_each_minute() -> None:
    clock = Seconds()
    strangers = Strangers(clock)

    assert [strangers.is_remembered("192.0.2.7") for _ in range(MOST_OF_PEER + 2)] == [True] * MOST_OF_PEER + [False] * 2
    assert strangers.is_remembered("192.0.2.8")

    clock.now += WINDOW_S
    assert strangers.is_remembered("192.0.2.7")


def test_who_comes_from_ever_other_addresses_is_not_remembered_without_end() -> None:
    strangers = Strangers(Seconds())

    assert sum(strangers.is_remembered(f"2001:db8::{n:x}") for n in range(10 * MOST_OF_ALL)) == MOST_OF_ALL
