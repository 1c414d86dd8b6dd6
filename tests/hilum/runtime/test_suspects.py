"""Is it the destination, or the study? As the workers of a destination decide it, on a clock of the test's."""

from __future__ import annotations

import pytest

from hilum.runtime.delivery.suspects import COSTLY_S, LONGEST_REST_S, PATIENCE, STRIKES, Suspects
from hilum.sink import Delivery
from hilum.testing import MemoryStore, a_delivery

_STORE = MemoryStore()


def an_object(study: str, n: int = 0) -> Delivery:
    return a_delivery(_STORE, StudyInstanceUID=study, SOPInstanceUID=f"{study}.{n}")


@pytest.fixture
def time() -> list[float]:
    return [0.0]


@pytest.fixture
def suspects(time: list[float]) -> Suspects:
    return Suspects(lambda: time[0])


def strike(suspects: Suspects, study: str, count: int = STRIKES, took_s: float = 0.0) -> list[bool]:
    return [suspects.put_off(an_object(study, n), took_s) for n in range(count)]


def test_one_study_is_never_the_destinations_fault_and_rests_by_itself(suspects: Suspects) -> None:
    assert not any(strike(suspects, "2.25.1", 50))
    assert suspects.resting() == {"2.25.1"}
    assert not suspects.rests("2.25.2")


def test_a_single_object_that_is_put_off_again_and_again_lets_its_study_go_on(suspects: Suspects) -> None:
    for _ in range(10):
        suspects.put_off(an_object("2.25.1"), 0.0)

    assert suspects.resting() == frozenset()


def test_three_studies_in_a_row_are_the_destinations_fault(suspects: Suspects) -> None:
    assert [suspects.put_off(an_object(f"2.25.{n}"), 0.0) for n in (1, 2, 3, 4)] == [False, False, True, True]


def test_studies_that_were_not_taken_while_another_was_say_nothing_about_the_destination(suspects: Suspects) -> None:
    strike(suspects, "2.25.1"), strike(suspects, "2.25.2")
    suspects.success(an_object("2.25.9"))

    assert not any(strike(suspects, study)[-1] for study in ("2.25.1", "2.25.2"))
    assert [suspects.put_off(an_object(f"2.25.{n}"), 0.0) for n in (3, 4, 5)] == [False, False, True]


def test_a_study_is_free_of_suspicion_once_an_object_of_it_is_taken(suspects: Suspects) -> None:
    strike(suspects, "2.25.1")
    suspects.success(an_object("2.25.1", 7))

    assert suspects.resting() == frozenset()
    assert suspects.avoided() == (frozenset(),)


def test_rests_grow_to_a_limit_and_end(suspects: Suspects, time: list[float]) -> None:
    rests = []
    for _ in range(20):
        strike(suspects, "2.25.1")
        began = time[0]
        while suspects.rests("2.25.1"):
            time[0] += 0.5
        rests.append(time[0] - began)

    assert rests[:3] == [1.0, 2.0, 4.0]
    assert rests[-1] == LONGEST_REST_S


def test_a_study_that_costs_much_time_rests_at_once_and_longer_than_it_cost(suspects: Suspects, time: list[float]) -> None:
    suspects.put_off(an_object("2.25.1"), 6 * COSTLY_S)

    time[0] = PATIENCE * 6 * COSTLY_S - 1
    assert suspects.rests("2.25.1")
    time[0] += 2
    assert not suspects.rests("2.25.1")


def test_a_destination_is_tried_again_with_another_study_than_those_that_struck(suspects: Suspects) -> None:
    strike(suspects, "2.25.1"), strike(suspects, "2.25.2"), strike(suspects, "2.25.3", 1)

    assert suspects.avoided()[0] == {"2.25.1", "2.25.2", "2.25.3"}


def test_if_nothing_else_waits_it_is_tried_with_another_study_than_the_last_time(suspects: Suspects) -> None:
    strike(suspects, "2.25.1", 1), strike(suspects, "2.25.2", 1)
    suspects.tries("2.25.2")

    assert [set(each) for each in suspects.avoided()] == [{"2.25.1", "2.25.2"}, {"2.25.2"}, set()]
