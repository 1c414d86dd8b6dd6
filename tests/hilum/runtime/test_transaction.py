from __future__ import annotations

import threading

import pytest
from confluent_kafka import KafkaError

from hilum.errors import Stopped
from hilum.runtime.transaction import BeginAnew, end_of, within


@pytest.mark.parametrize(
    ("code", "age_s", "kind", "words"),
    [
        (KafkaError._FENCED, 0.2, Stopped, "Another process runs as hilum.north.route.1."),
        (KafkaError._FENCED, 7.0, BeginAnew, "open for too long"),
        (KafkaError._FATAL, 0.2, BeginAnew, "cannot go on"),
    ],
)
def test_a_producer_that_another_has_replaced_stops_and_one_that_was_too_slow_begins_anew(
    code: int, age_s: float, kind: type[Exception], words: str
) -> None:
    end = end_of(KafkaError(code), age_s, "hilum.north.route.1")

    assert isinstance(end, kind)
    assert words in str(end)


def test_a_call_that_does_not_come_back_is_not_waited_for() -> None:
    never = threading.Event()

    def hangs() -> None:
        never.wait(60)

    with pytest.raises(TimeoutError):
        within(0.05, hangs)
    never.set()


def test_what_a_call_raises_is_raised_where_it_is_waited_for() -> None:
    def fails() -> None:
        raise ZeroDivisionError

    within(5, lambda: None)
    with pytest.raises(ZeroDivisionError):
        within(5, fails)
