from __future__ import annotations

from hilum.runtime.pace import MOST_BYTES, MOST_EVENTS, Pace


def steady(seconds_per_event: float, bytes_per_event: int = 2000) -> Pace:
    pace = Pace()
    for _ in range(100):
        pace.took(pace.limit, pace.limit * bytes_per_event, pace.limit * seconds_per_event)
    return pace


def test_a_batch_is_what_can_be_handled_in_half_a_second() -> None:
    assert 45 <= steady(0.010).limit <= 50


def test_a_batch_of_quick_events_has_a_bound() -> None:
    assert steady(0.00001).limit == MOST_EVENTS


def test_a_batch_of_large_events_has_a_bound_in_bytes() -> None:
    assert steady(0.00001, bytes_per_event=2**20).limit == MOST_BYTES // 2**20


def test_a_handler_that_takes_longer_than_a_batch_gets_one_event_at_a_time() -> None:
    assert steady(3.0).limit == 1


def test_a_batch_that_fails_is_halved_until_one_event_is_tried_by_itself() -> None:
    pace = Pace()
    limits = []
    while pace.limit > 1:
        pace.failed(pace.limit)
        limits.append(pace.limit)

    assert limits == [50, 25, 12, 6, 3, 1]


def test_a_batch_that_succeeds_at_most_doubles_the_next() -> None:
    pace = Pace()
    pace.failed(8)
    pace.took(4, 4000, 0.0001)

    assert pace.limit == 8
