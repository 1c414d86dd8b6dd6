from __future__ import annotations

from dataclasses import dataclass

import pytest

from ingest.dicom.crowd import WINDOW_S, Crowd, one_to_give_way
from tests.ingest.dicom.test_strangers import Seconds


@dataclass(frozen=True)
class Connection:
    number: int
    peer: str = "192.0.2.7"
    requested: bool = False


ASKED = [Connection(n, f"198.51.100.{n}", requested=True) for n in range(10)]


@pytest.mark.parametrize(
    ("connections", "newcomer", "gives_way"),
    [
        ([Connection(1)], "192.0.2.8", None),
        ([*ASKED[:9], Connection(1), Connection(2)], "192.0.2.8", 1),
        (ASKED, "192.0.2.8", None),
        ([Connection(n) for n in range(5)], "192.0.2.7", 0),
        ([Connection(n) for n in range(5)], "192.0.2.8", None),
        ([Connection(9, "192.0.2.9"), *(Connection(n) for n in range(5))], "192.0.2.7", 0),
        ([Connection(n, requested=True) for n in range(6)], "192.0.2.7", None),
    ],
    ids=["room", "full", "all have asked", "half is of the address", "of another address", "its own goes first", "they have asked"],
)
def test_the_oldest_that_has_not_asked_gives_way(connections: list[Connection], newcomer: str, gives_way: int | None) -> None:
    found = one_to_give_way(connections, newcomer, 10)

    assert (found and found.number) == gives_way


def test_a_crowd_is_logged_once_a_minute_and_said_for_as_long() -> None:
    clock = Seconds()
    crowd = Crowd(clock)
    assert crowd.says() == ""

    assert [crowd.closed(peer) for peer in ("192.0.2.7", "192.0.2.7", "192.0.2.8")] == [True, False, False]
    assert crowd.says() == "Within a minute 3 connections without a request for an association had to make room, 2 of them from 192.0.2.7."

    clock.now += WINDOW_S
    assert crowd.says() == ""
    assert crowd.closed("192.0.2.8")
