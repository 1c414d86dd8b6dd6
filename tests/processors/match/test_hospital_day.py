"""A day's scenario through the stages `orders` and `match`, in any order of arrival across senders: the truth table holds at the end."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from hypothesis import given, settings
from hypothesis import strategies as st

from hilum.events import MatchRequested, OrderChanged
from tests.hospital_day import QUEUES, TRUTH, WITHOUT_IMAGES
from tests.processors.match.room import Room
from tests.processors.orders.ris import Site


def live(choose: Callable[[list[str]], str], deliver: Callable[[], bool]) -> tuple[Site, Room]:
    """A day in which `choose` says who sends next, and `deliver` whether what orders said reaches match at once or later."""
    site, room = Site(), Room()
    left = {name: list(queue) for name, queue in QUEUES.items()}
    waiting: list[OrderChanged] = []
    while any(left.values()):
        sender = choose(sorted(name for name, queue in left.items() if queue))
        sent = left[sender].pop(0)
        if isinstance(sent, MatchRequested):
            room.give(sent)
        else:
            waiting += [event for event in site.take(sent, sender) if isinstance(event, OrderChanged)]
        while waiting and deliver():
            room.give(waiting.pop(0))
    room.give(*waiting)
    return site, room


def outcomes(site: Site, room: Room) -> Mapping[str, tuple[str, tuple[str, ...], tuple[str, ...]]]:
    """By study, as `TRUTH` has it."""
    placers = {order.order_id: order.placer.value for order in site.orders() if order.placer is not None}
    return {
        subject: (outcome, tuple(sorted(placers[each] for each in orders)), differing)
        for subject, (outcome, orders, differing) in room.outcomes().items()
        if subject not in placers
    }


def test_at_the_end_of_the_day_every_study_has_its_outcome() -> None:
    site, room = live(lambda senders: senders[-1], lambda: True)

    assert outcomes(site, room) == TRUTH


def test_orders_without_images_are_told_once_their_window_is_over() -> None:
    site, room = live(lambda senders: senders[0], lambda: True)
    room.pass_time(hours=80)
    placers = {order.order_id: order.placer.value for order in site.orders() if order.placer is not None}

    assert {placers[subject] for subject, found in room.outcomes().items() if found[0] == "no-images"} == WITHOUT_IMAGES


def test_a_merge_that_went_to_and_fro_leaves_the_patient_of_the_last_message() -> None:
    site, _ = live(lambda senders: senders[0], lambda: True)

    assert site.patient("A12").merged_into == ""
    assert site.patient("B12").merged_into == site.patient("A12").patient.key


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_it_is_the_same_when_senders_come_in_another_order(data: st.DataObject) -> None:
    chance = data.draw(st.randoms(use_true_random=False))
    site, room = live(chance.choice, lambda: chance.random() < 0.6)

    assert outcomes(site, room) == TRUTH
