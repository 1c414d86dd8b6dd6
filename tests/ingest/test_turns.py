from __future__ import annotations

from collections import deque

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from hilum.bus import Record
from hilum.testing import Clock
from ingest.turns import GATHER_S, IN_ORDER_S, READ_S, Turns

RECORD = Record(topic="imaging.instance.received.v1", key=b"2.25.1", value=b"{}", headers=[])


class Desk:
    """Turns on a clock that is set by hand."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.turns = Turns(lambda: self.clock().timestamp())

    def uploading(self, receipt: str, instance: str) -> None:
        self.turns.expect(receipt)
        self.turns.begin(receipt)
        self.turns.is_read(receipt, instance)

    def stored(self, receipt: str) -> None:
        self.turns.is_stored(receipt, RECORD)
        self.turns.end(receipt)

    def told(self, after_s: float = 2 * GATHER_S) -> list[str]:
        self.clock.forward(seconds=after_s)
        told = [receipt for receipt, _ in self.turns.next()]
        self.turns.leave(told)
        return told


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_those_that_are_stored_are_told_in_the_order_of_their_receipts(desk: Desk) -> None:
    for receipt in "cab":
        desk.uploading(receipt, receipt)
        desk.stored(receipt)
    assert desk.told() == ["a", "b", "c"]


def test_a_younger_one_waits_a_moment_for_an_older_one(desk: Desk) -> None:
    desk.uploading("a", "2.25.1")
    desk.uploading("b", "2.25.2")
    desk.stored("b")
    assert desk.told(after_s=0.0) == []


def test_it_waits_no_longer_than_that_for_another_instance(desk: Desk) -> None:
    desk.uploading("a", "2.25.1")
    desk.uploading("b", "2.25.2")
    desk.stored("b")
    assert desk.told(after_s=IN_ORDER_S) == ["b"]


def test_it_waits_for_the_same_instance_as_long_as_that_takes(desk: Desk) -> None:
    desk.uploading("a", "2.25.1")
    desk.uploading("b", "2.25.1")
    desk.stored("b")
    assert desk.told(after_s=3600.0) == []
    desk.stored("a")
    assert desk.told() == ["a", "b"]


def test_while_the_store_refuses_the_older_one_the_same_instance_waits(desk: Desk) -> None:
    desk.uploading("a", "2.25.1")
    desk.uploading("b", "2.25.1")
    desk.turns.end("a")
    desk.stored("b")
    assert desk.told() == []
    desk.uploading("a", "2.25.1")
    desk.stored("a")
    assert desk.told() == ["a", "b"]


def test_nothing_waits_for_an_older_one_that_cannot_be_told(desk: Desk) -> None:
    desk.uploading("a", "2.25.1")
    desk.uploading("b", "2.25.1")
    desk.turns.leave(["a"])
    desk.turns.end("a")
    desk.stored("b")
    assert desk.told() == ["b"]


def test_the_same_instance_waits_until_the_log_has_an_older_one(desk: Desk) -> None:
    desk.uploading("a", "2.25.1")
    desk.stored("a")
    assert [receipt for receipt, _ in desk.turns.next()] == ["a"]
    desk.uploading("b", "2.25.1")
    desk.stored("b")
    assert desk.told(after_s=3600.0) == []
    desk.turns.leave(["a"])
    assert desk.told() == ["b"]


def test_of_those_that_may_be_told_one_waits_whose_older_one_is_to_be_stored_once_more(desk: Desk) -> None:
    for receipt, instance in (("a", "2.25.1"), ("b", "2.25.1"), ("c", "2.25.2")):
        desk.uploading(receipt, instance)
        desk.stored(receipt)
    _, *kept = desk.turns.next()
    assert [receipt for receipt, _ in desk.turns.in_turn(kept)] == ["c"]
    desk.uploading("a", "2.25.1")
    desk.stored("a")
    assert desk.told() == ["a", "b"]


def test_which_instance_an_older_one_is_gets_known_before_a_younger_one_is_told(desk: Desk) -> None:
    desk.turns.expect("a")
    desk.uploading("b", "2.25.1")
    desk.stored("b")
    assert desk.told(after_s=3600.0) == []  # no thread has come to it yet
    desk.turns.begin("a")
    assert desk.told(after_s=READ_S / 2) == []
    desk.turns.is_read("a", "2.25.1")
    assert desk.told(after_s=3600.0) == []


def test_one_that_takes_long_to_read_holds_up_others_for_a_while_only(desk: Desk) -> None:
    desk.turns.expect("a")
    desk.turns.begin("a")
    desk.uploading("b", "2.25.2")
    desk.stored("b")
    assert desk.told(after_s=READ_S) == ["b"]


def test_what_could_not_be_told_is_given_again_in_its_place(desk: Desk) -> None:
    for receipt in "ab":
        desk.uploading(receipt, "2.25.1")
        desk.stored(receipt)
    stored = desk.turns.next()
    assert [receipt for receipt, _ in stored] == ["a", "b"]
    desk.turns.put_back(stored)
    assert desk.told() == ["a", "b"]


class EveryOneOnceAndEachInstanceInOrder(RuleBasedStateMachine):
    """Uploads of a few instances that begin in order, end in any, and fail now and then."""

    def __init__(self) -> None:
        super().__init__()
        self.desk = Desk()
        self.waiting: deque[str] = deque()
        self.instance: dict[str, str] = {}
        self.uploading: list[str] = []
        self.told: list[str] = []

    @rule(instance=st.sampled_from("xyz"))
    def arrives(self, instance: str) -> None:
        receipt = f"{len(self.instance):04d}"
        self.instance[receipt] = instance
        self.waiting.append(receipt)

    @precondition(lambda self: self.waiting and len(self.uploading) < 4)
    @rule()
    def is_uploaded(self) -> None:
        receipt = self.waiting.popleft()
        self.uploading.append(receipt)
        self.desk.uploading(receipt, self.instance[receipt])

    @precondition(lambda self: self.uploading)
    @rule(which=st.integers(0, 3), fails=st.booleans())
    def upload_ends(self, which: int, fails: bool) -> None:
        receipt = self.uploading.pop(which % len(self.uploading))
        if fails:
            self.desk.turns.end(receipt)
            self.waiting = deque(sorted([receipt, *self.waiting]))
        else:
            self.desk.stored(receipt)

    @rule(after_s=st.sampled_from([0.0, GATHER_S, READ_S, 60.0]))
    def some_are_told(self, after_s: float) -> None:
        self.told += self.desk.told(after_s)

    @invariant()
    def each_instance_is_told_in_order(self) -> None:
        for instance in "xyz":
            told = [receipt for receipt in self.told if self.instance[receipt] == instance]
            assert told == sorted(set(told))

    def teardown(self) -> None:
        while self.waiting or self.uploading:
            if self.waiting:
                self.is_uploaded()
            self.upload_ends(0, fails=False)
        self.some_are_told(60.0)
        assert sorted(self.told) == sorted(self.instance)


TestEveryOneOnceAndEachInstanceInOrder = EveryOneOnceAndEachInstanceInOrder.TestCase
