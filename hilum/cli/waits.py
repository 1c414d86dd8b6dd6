"""Deliveries as commands show them: each that has no final state with why it waits, and none with a next attempt in the past."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

from msgspec.structs import replace

if TYPE_CHECKING:
    from hilum.database.deliveries import ListedDelivery
    from hilum.database.queries import DeliveriesOfStudy
    from hilum.settings import Settings
    from hilum.waiting import Circumstances

D = TypeVar("D", bound="ListedDelivery")


def explained(settings: Settings, deliveries: Sequence[D], *, place: bool = False) -> list[D]:
    """The same with why each one waits; with `place`, also how many come before it. Raises `TryAgain`, `Misconfigured`."""
    from hilum.database.queues import before, refused, without_order
    from hilum.waiting import Waiter, circumstances

    if not any(each.state == "pending" for each in deliveries):
        return list(deliveries)
    now, dsn = circumstances(settings), settings.postgres.dsn
    put_off = refused(dsn, {each.study_instance_uid for each in deliveries if each.state == "pending"})
    lacking = without_order(dsn, {each.study_instance_uid for each in deliveries if now.asks_for_orders(each.destination)})
    found = []
    for each in deliveries:
        if each.state != "pending":
            found.append(each)
            continue
        due_at = each.next_attempt_at
        waiter = Waiter(
            destination=each.destination,
            study_instance_uid=each.study_instance_uid,
            priority=each.priority,
            attempts=each.attempts,
            not_before=due_at,
            in_hand=each.in_hand,
            before=before(dsn, each.destination, each.priority, due_at, now.wanted.held) if place and due_at else None,
            refused=put_off.get((each.destination, each.study_instance_uid), 0),
            without_order=each.study_instance_uid in lacking,
        )
        found.append(replace(each, waits_because=now.because(waiter), next_attempt_at=now.next_attempt_at(waiter)))
    return found


def of_study(now: Circumstances, study: str, groups: Sequence[DeliveriesOfStudy], dsn: str) -> list[DeliveriesOfStudy]:
    """The same for what waits of one study, by destination."""
    from hilum.database.queues import refused, without_order
    from hilum.waiting import Waiter

    put_off = refused(dsn, [study]) if any(each.state == "pending" for each in groups) else {}
    lacking = without_order(dsn, [study]) if any(now.asks_for_orders(each.destination) for each in groups) else ()
    found = []
    for each in groups:
        if each.state != "pending":
            found.append(each)
            continue
        waiter = Waiter(
            destination=each.destination,
            study_instance_uid=study,
            priority=each.priority,
            attempts=each.attempts,
            not_before=each.next_attempt_at,
            in_hand=each.in_hand == each.deliveries,
            refused=put_off.get((each.destination, study), 0),
            without_order=study in lacking,
        )
        found.append(replace(each, waits_because=now.because(waiter), next_attempt_at=now.next_attempt_at(waiter)))
    return found
