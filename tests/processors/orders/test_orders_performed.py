"""What modalities perform (MPPS) and what it makes of an order's status, whichever is heard first."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import pytest

from hilum.events import Event, OrderChanged, StepPerformed
from hilum.order_events import Order
from hilum.procedure_events import PerformedOf

from .ris import START, Site, codes, order_message

UID = "2.25.77"
#: Minutes after START, which is 9 o'clock in Vienna.
ORDERED = order_message(uid=UID, at="20261126090000")


def mpps(state: Any, revision: int = 1, *, minute: int = 30, sop: str = "2.25.500", uid: str = UID, step: str = "S1", **more: Any) -> Event:
    of = PerformedOf(study_instance_uid=uid, step_id=step)
    at = START + timedelta(minutes=minute)
    return StepPerformed(sop_instance_uid=sop, revision=revision, state=state, scheduled=(of,), changed_at=at, **more)


def of(order: Order) -> tuple[str, str]:
    return order.status, order.performed


@pytest.fixture
def site() -> Site:
    found = Site()
    found.take(ORDERED)
    found.now += timedelta(hours=12)  # of all that is said here nothing is from the future
    return found


def test_the_order_follows_what_its_modality_says(site: Site) -> None:
    seen = []
    for state, revision in (("in-progress", 1), ("in-progress", 2), ("completed", 3)):
        said = site.give(mpps(state, revision))
        seen.append([(event.change, *of(event.order)) for event in said if isinstance(event, OrderChanged)])

    assert seen == [[("performed", "in-progress", "in-progress")], [], [("performed", "completed", "completed")]]


def test_the_status_of_its_steps_stays_what_messages_say(site: Site) -> None:
    site.give(mpps("completed"))

    assert [step.status for procedure in site.order("P1").procedures for step in procedure.steps] == ["scheduled"]


def test_a_step_that_is_broken_off_makes_its_order_discontinued_unless_it_was_the_wrong_one(site: Site) -> None:
    site.give(mpps("discontinued"))
    broken_off = of(site.order("P1"))
    site.give(mpps("discontinued", 2, wrong_entry=True))

    assert (broken_off, of(site.order("P1"))) == (("discontinued", "discontinued"), ("scheduled", ""))


def test_an_order_that_is_scheduled_anew_after_its_step_was_broken_off_is_scheduled(site: Site) -> None:
    site.give(mpps("discontinued", minute=30))
    site.take(order_message(control="XO", status="SC", uid=UID, at="20261126110000", start="20261128090000"))

    assert site.order("P1").status == "scheduled"


def test_a_ris_that_lags_behind_does_not_take_back_what_was_completed(site: Site) -> None:
    site.give(mpps("completed", minute=30))
    site.take(order_message(control="SC", status="IP", uid=UID, at="20261126110000"))

    assert site.order("P1").status == "completed"


@pytest.mark.parametrize("minute", [30, 300])
def test_what_was_cancelled_stays_so_whenever_it_was_performed(site: Site, minute: int) -> None:
    site.take(order_message(control="CA", uid=UID, at="20261126110000"))
    site.give(mpps("in-progress", minute=minute))

    assert of(site.order("P1")) == ("cancelled", "in-progress")


def test_a_cancellation_after_the_images_holds(site: Site) -> None:
    site.give(mpps("completed", minute=30))
    site.take(order_message(control="CA", uid=UID, at="20261126110000"))

    assert of(site.order("P1")) == ("cancelled", "completed")


@pytest.mark.parametrize(("minute", "noted"), [(30, False), (300, True)])
def test_what_is_performed_after_it_was_called_off_is_noted_and_what_came_late_is_not(site: Site, minute: int, noted: bool) -> None:
    site.take(order_message(control="CA", uid=UID, at="20261126110000"))
    site.give(mpps("in-progress", minute=minute))

    assert ("performed-after-all" in codes(site.said)) is noted


def test_one_of_two_steps_completed_is_an_order_in_progress() -> None:
    site = Site()
    site.take(order_message(uid=UID))
    two = order_message(control="XO", uid=UID, at="202611260905").replace("RP1|S1", "RP1|S2")
    site.take(two)
    site.give(mpps("completed"))
    first = of(site.order("P1"))
    site.give(mpps("completed", sop="2.25.501", step="S2"))

    assert (first, of(site.order("P1"))) == (("in-progress", "completed"), ("completed", "completed"))


def test_what_is_appended_to_a_step_takes_it_up_again(site: Site) -> None:
    site.give(mpps("completed"))
    site.give(mpps("in-progress", sop="2.25.501"))
    again = site.order("P1").status
    site.give(mpps("discontinued", 2, sop="2.25.501"))

    assert (again, site.order("P1").status) == ("in-progress", "completed")


def test_a_step_without_id_is_the_only_one_of_its_study(site: Site) -> None:
    site.give(mpps("in-progress", step=""))

    assert site.order("P1").status == "in-progress"


@pytest.mark.parametrize("more", [{"uid": "2.25.78"}, {"step": "S9"}])
def test_a_step_of_another_study_or_another_step_is_not_the_order_s(site: Site, more: dict[str, Any]) -> None:
    assert site.give(mpps("in-progress", **more)) == []
    assert site.order("P1").status == "scheduled"


def test_a_study_uid_that_hilum_made_or_that_was_offered_before_is_the_order_s() -> None:
    site = Site()
    site.take(order_message())
    offered = site.order("P1").procedures[0].study_instance_uid
    site.take(order_message(control="XO", uid=UID, at="202611260905"))
    site.give(mpps("in-progress", uid=offered))

    assert site.order("P1").status == "in-progress"


def test_an_order_of_which_two_numbers_turned_out_to_be_one_has_what_was_performed_of_either() -> None:
    site = Site()
    site.take(order_message(filler="", uid=UID))
    site.take(order_message(placer="", accession="", uid="2.25.78", at="202611260901"))
    site.give(mpps("in-progress", uid="2.25.78"))
    site.take(order_message(uid=UID, at="202611260902"))

    assert of(site.order("P1")) == ("in-progress", "in-progress")


def test_in_the_group_case_each_order_follows() -> None:
    site = Site()
    site.take(order_message(uid=UID))
    site.take(order_message(placer="P2", filler="F2", accession="A2", uid="2.25.78"))
    items = tuple(PerformedOf(study_instance_uid=uid, step_id="S1") for uid in (UID, "2.25.78"))
    site.give(StepPerformed(sop_instance_uid="2.25.500", revision=1, state="completed", scheduled=items, changed_at=START))

    assert [order.status for order in site.orders()] == ["completed", "completed"]


def test_whoever_is_heard_first_the_end_is_the_same() -> None:
    events: Sequence[Callable[[Site], object]] = (
        lambda site: site.take(ORDERED),
        lambda site: site.take(order_message(control="SC", status="IP", uid=UID, at="20261126093000"), "other"),
        lambda site: site.give(mpps("in-progress")),
        lambda site: site.give(mpps("completed", 2)),
        lambda site: site.give(mpps("discontinued", sop="2.25.501")),
    )
    ends = set()
    for order in itertools.permutations(events):
        site = Site()
        for each in order:
            each(site)
        ends.add(of(site.order("P1")))

    assert ends == {("completed", "completed")}


def test_who_says_again_that_it_is_scheduled_schedules_anew_what_was_broken_off_in_whatever_order_that_is_heard() -> None:
    again = order_message(control="SC", status="SC", uid=UID, at="20261126110000")
    events: Sequence[Callable[[Site], object]] = (
        lambda site: site.take(ORDERED),
        lambda site: site.take(order_message(control="SC", status="SC", uid=UID, at="20261126090500")),
        lambda site: site.give(mpps("discontinued")),
        lambda site: site.take(again, "other"),
    )
    ends = set()
    for order in itertools.permutations(events):
        site = Site()
        site.now += timedelta(hours=12)
        for each in order:
            each(site)
        ends.add(of(site.order("P1")))

    assert ends == {("scheduled", "discontinued")}


def test_what_is_performed_without_an_order_is_forgotten_in_time() -> None:
    site = Site()
    site.give(mpps("in-progress"))
    site.pass_time(days=401)

    assert site.state.rows == {}
