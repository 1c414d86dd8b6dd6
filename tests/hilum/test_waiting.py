"""Why a delivery waits, as `hilum.waiting` puts it into words."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from hilum.database.queues import Outage, QueueNow
from hilum.desired import Desired
from hilum.events import Limits, ResourceWanted
from hilum.settings import Settings
from hilum.sink import URGENT
from hilum.waiting import Circumstances, Waiter

NOW = datetime(2024, 2, 26, 12, tzinfo=UTC)  # a Monday
PACS: dict[str, Any] = {"type": "archive"}


def wanted(resource: str, **what: Any) -> ResourceWanted:
    return ResourceWanted(resource=resource, by="ann", since=NOW, **what)


def now(destinations: dict[str, dict[str, Any]] | None = None, **what: Any) -> Circumstances:
    return Circumstances(settings=Settings(destinations={"pacs": PACS} if destinations is None else destinations), now=NOW, **what)


def a_waiter(**what: Any) -> Waiter:
    known: dict[str, Any] = {"destination": "pacs", "study_instance_uid": "2.25.1", "not_before": NOW - timedelta(minutes=1)}
    return Waiter(**known | what)


def a_queue(**what: Any) -> QueueNow:
    known: dict[str, Any] = {"destination": "pacs", "due": 0, "in_hand": 0, "put_off": 0, "next_attempt_at": None, "of_studies": {}}
    return QueueNow(**known | what)


PAUSED = Desired(destinations={"pacs": wanted("destination/pacs", paused=True, why="moved")})
HELD = Desired(held={"2.25.1": wanted("study/2.25.1", held=True, why="vip")})
CLOSED: dict[str, dict[str, Any]] = {"pacs": {**PACS, "hours": "Mo 18:00-19:00", "time_zone": "UTC"}}
GROUP: dict[str, dict[str, Any]] = {"one": PACS, "both": {"type": "group", "members": ["one"]}}


@pytest.mark.parametrize(
    ("circumstances", "waiter", "says"),
    [
        (now(wanted=HELD), a_waiter(), "held by ann since "),
        (now(wanted=HELD), a_waiter(), ": vip"),
        (now(wanted=PAUSED), a_waiter(), "paused by ann since "),
        (now(wanted=PAUSED), a_waiter(), ": moved"),
        (now(outages={"pacs": Outage(destination="pacs", says="Nobody is there.", since=NOW)}), a_waiter(), "Nobody is there. (since "),
        (now(CLOSED), a_waiter(), "outside its hours, until Mon 18:00"),
        (now({}), a_waiter(), "there is no such destination any more"),
        (now({"pacs": {"type": "dicon"}}), a_waiter(), "there is no destination type 'dicon'"),
        (now({"pacs": {"type": "group", "members": ["nobody"]}}), a_waiter(), "there is no destination 'nobody'"),
        (now(delivers=False), a_waiter(), "no process of the role deliver"),
        (now(), a_waiter(attempts=2, not_before=NOW + timedelta(hours=1)), "waits for its next attempt"),
        (now(), a_waiter(not_before=NOW + timedelta(hours=1)), "is looked at again later"),
        (now(), a_waiter(refused=30), "its study rests between attempts, since 30 objects of it were not taken"),
        (now({"pacs": {**PACS, "objects_per_s": 2}}), a_waiter(), "limited to 2 objects/s"),
        (now(queues={"pacs": a_queue(due=12)}), a_waiter(), "is due, one of 12"),
        (now(), a_waiter(before=7), "7 are due before it"),
        (now(), a_waiter(before=0), "it is due now, and next"),
        (now({"pacs": {**PACS, "require_order": "hold"}}), a_waiter(without_order=True), "waits for an order that fits"),
        (now(), a_waiter(without_order=True), "is due"),
        (now(), a_waiter(in_hand=True), "a worker has it in its hands"),
        (now(unknown="Kafka does not answer."), a_waiter(), "Kafka does not answer."),
        (
            now(GROUP, wanted=Desired(destinations={"one": wanted("destination/one", paused=True)})),
            a_waiter(destination="both"),
            "all members of the group are paused",
        ),
    ],
)
def test_whatever_a_delivery_waits_for_is_said(circumstances: Circumstances, waiter: Waiter, says: str) -> None:
    assert says in circumstances.because(waiter)


def test_what_is_urgent_does_not_wait_for_hours() -> None:
    assert now(CLOSED).because(a_waiter(priority=URGENT)) == "is due"


def test_a_next_attempt_is_never_in_the_past() -> None:
    later = NOW + timedelta(seconds=1)

    assert now().next_attempt_at(a_waiter()) is None
    assert now().next_attempt_at(a_waiter(not_before=later)) == later
    assert now().next_attempt_at(a_waiter(not_before=later, in_hand=True)) is None


def test_a_queue_says_what_of_it_is_held_and_put_off() -> None:
    queue = a_queue(due=20, put_off=3, next_attempt_at=NOW + timedelta(hours=1), of_studies={"2.25.1": 20})

    says = now(wanted=HELD, queues={"pacs": queue}, without_order={"pacs": 17}).queue("pacs")
    assert "20 of held studies" in says
    assert "17 wait for an order that fits" in says
    assert "3 wait for their next attempt, the first at 2024-02-2" in says


def test_a_queue_that_moves_says_so_and_an_empty_one_nothing() -> None:
    moving = now({"pacs": {**PACS, "megabytes_per_s": 3}}, queues={"pacs": a_queue(due=2)})

    assert moving.queue("pacs") == "2 are due, limited to 3 MB/s"
    assert now().queue("pacs") == ""


def test_limits_are_those_of_people_and_for_the_rest_of_the_settings() -> None:
    limits = Limits(objects_per_s=5, max_associations=1, hours="")
    table = {"pacs": {**PACS, "objects_per_s": 2, "megabytes_per_s": 4, "hours": "Mo 18:00-19:00"}}

    assert now(table).limits("pacs") == "2 objects/s, 4 MB/s, Mo 18:00-19:00"
    assert (
        now(table, wanted=Desired(destinations={"pacs": wanted("destination/pacs", limits=limits)})).limits("pacs")
        == "5 objects/s, 4 MB/s, 1 association"
    )
