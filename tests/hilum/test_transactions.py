from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from hilum.dicom.commitment import Report
from hilum.transactions import KEPT, Transaction, Transactions, new_uid

NOON = datetime(2024, 2, 29, 12, tzinfo=UTC)


def a_transaction(uid: str = "2.25.9", at: datetime = NOON, **deliveries: str) -> Transaction:
    return Transaction(transaction_uid=uid, destination="pacs", asked_at=at, deliveries=deliveries or {"d1": "2.25.1", "d2": "2.25.2"})


@pytest.fixture
def transactions(tmp_path: Path) -> Transactions:
    return Transactions(tmp_path)


def state_of(transactions: Transactions, delivery: str) -> str:
    promise = transactions.promise(delivery)
    return promise.state if promise else "none"


def test_what_is_asked_is_known_to_other_processes(transactions: Transactions, tmp_path: Path) -> None:
    other = Transactions(tmp_path)
    assert state_of(other, "d1") == "none"

    transactions.keep(a_transaction())

    assert state_of(other, "d1") == "asked"
    assert state_of(other, "d3") == "none"


def test_a_report_tells_of_each_instance(transactions: Transactions, tmp_path: Path) -> None:
    transactions.keep(a_transaction(d1="2.25.1", d2="2.25.2", d3="2.25.3"))
    assert state_of(transactions, "d1") == "asked"

    assert Transactions(tmp_path).report(Report(transaction_uid="2.25.9", committed=("2.25.1",), failed={"2.25.2": 0x0112}))

    assert [state_of(transactions, each) for each in ("d1", "d2", "d3")] == ["committed", "failed", "failed"]
    promise = transactions.promise("d2")
    assert promise is not None
    assert promise.reason == 0x0112


def test_a_report_on_what_nobody_asked_for_is_not_taken(transactions: Transactions) -> None:
    assert not transactions.report(Report(transaction_uid="2.25.9", committed=("2.25.1",), failed={}))


def test_the_latest_transaction_of_a_delivery_counts(transactions: Transactions) -> None:
    transactions.keep(a_transaction("2.25.8", NOON, d1="2.25.1"))
    transactions.report(Report(transaction_uid="2.25.8", committed=(), failed={"2.25.1": 0x0110}))
    transactions.keep(a_transaction("2.25.9", NOON + timedelta(seconds=1), d1="2.25.1"))

    assert state_of(transactions, "d1") == "asked"


def test_a_promise_that_was_used_is_used_up_and_the_file_goes_with_the_last(transactions: Transactions, tmp_path: Path) -> None:
    transactions.keep(a_transaction())
    transactions.done_with("d1")
    assert (state_of(transactions, "d1"), state_of(transactions, "d2")) == ("none", "asked")

    transactions.done_with("d2")
    assert not list((tmp_path / "sent").iterdir())


def test_what_a_promise_settled_is_known_to_others_until_it_is_in_the_ledger(tmp_path: Path) -> None:
    time = [0.0]
    transactions = Transactions(tmp_path, lambda: time[0])
    transactions.keep(a_transaction())
    transactions.report(Report(transaction_uid="2.25.9", committed=("2.25.1", "2.25.2"), failed={}))
    transactions.done_with("d1", settled=True)
    transactions.done_with("d2", settled=True)

    assert (state_of(transactions, "d1"), state_of(Transactions(tmp_path), "d1")) == ("none", "committed")
    time[0] = 61.0
    transactions.sweep()
    assert not list((tmp_path / "sent").iterdir())


def test_what_is_left_of_a_transaction_keeps_its_file(tmp_path: Path) -> None:
    time = [0.0]
    transactions = Transactions(tmp_path, lambda: time[0])
    transactions.keep(a_transaction())
    transactions.done_with("d1", settled=True)
    time[0] = 61.0
    transactions.sweep()
    assert state_of(transactions, "d2") == "asked"

    transactions.done_with("d2")
    time[0] = 122.0
    transactions.sweep()
    assert not list((tmp_path / "sent").iterdir())


def test_what_nobody_came_for_is_removed_in_time(transactions: Transactions) -> None:
    transactions.keep(a_transaction())
    transactions.forget_old(NOON + KEPT)
    assert state_of(transactions, "d1") == "asked"

    transactions.forget_old(NOON + KEPT + timedelta(seconds=1))
    assert state_of(transactions, "d1") == "none"


def test_a_file_of_another_making_harms_nothing(transactions: Transactions, tmp_path: Path) -> None:
    (tmp_path / "sent" / "2.25.1.json").write_text("what")
    transactions.keep(a_transaction())

    assert state_of(transactions, "d1") == "asked"


def test_transaction_uids_are_uids_and_differ() -> None:
    uids = {new_uid() for _ in range(100)}

    assert len(uids) == 100
    assert all(len(uid) <= 64 and uid.startswith("2.25.") for uid in uids)
