"""What the demo tells in the end."""

from __future__ import annotations

from msgspec import convert

from hilum.account import Account
from hilum.demo import last_account

NONE = dict.fromkeys((name for name, kind in Account.__annotations__.items() if kind == "int"), 0)


def account(*, delivered: int, pending: int = 0, parked: int = 0, caught_up: bool = True) -> Account:
    return convert({**NONE, "delivered": delivered, "pending": pending, "parked": parked, "caught_up": caught_up}, Account)


def test_the_account_is_that_of_a_hilum_at_rest_though_deliveries_came_late_into_the_ledger() -> None:
    looks = iter([account(delivered=1, caught_up=False), account(delivered=1, pending=1), account(delivered=2), account(delivered=0)])

    assert last_account(lambda: next(looks)) == account(delivered=2)


def test_what_waits_for_a_person_is_not_waited_for() -> None:
    looks = iter([account(delivered=1, pending=1, parked=1), account(delivered=0)])

    assert last_account(lambda: next(looks)) == account(delivered=1, pending=1, parked=1)


def test_what_does_not_come_is_told_when_the_time_is_over() -> None:
    assert last_account(lambda: account(delivered=1, pending=1), within_s=0) == account(delivered=1, pending=1)
