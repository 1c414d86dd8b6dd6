from __future__ import annotations

from datetime import UTC, datetime

import pytest

from hilum.storage.marker import KEY, LISTED_S, STALE_AFTER_S, Marker, Watch
from hilum.testing import MemoryStore

BUCKET = "originals"


class Both:
    def __init__(self) -> None:
        self.store, self.s = MemoryStore(), 1000.0
        self.watch = Watch(self.store, BUCKET, lambda: self.s)
        self.marker = self.another()

    def another(self) -> Marker:
        return Marker(self.store, BUCKET, lambda: self.s)

    def listed(self) -> set[str]:
        return set(self.watch.listed({"a", "b", "c"}))


@pytest.fixture
def both() -> Both:
    return Both()


def test_without_a_marker_nothing_is_listed(both: Both) -> None:
    assert both.listed() == set()


def test_keys_stay_listed_for_a_while_after_they_were_deleted(both: Both) -> None:
    assert both.marker.write(["a"]) == datetime(2024, 2, 29, 12, tzinfo=UTC), "the store's clock"
    both.marker.done()
    both.s += LISTED_S - 1
    both.marker.tidy()
    both.marker.write(["b"])
    assert both.listed() == {"a", "b"}

    both.s += 2
    both.marker.write(["c"])

    assert both.listed() == {"b", "c"}


def test_the_marker_goes_once_nothing_needs_to_be_listed(both: Both) -> None:
    both.marker.write(["a"])
    both.marker.done()
    both.s += LISTED_S + 1

    both.marker.tidy()

    assert (BUCKET, KEY) not in both.store.objects


def test_what_another_process_listed_stays_listed(both: Both) -> None:
    both.marker.write(["a"])

    both.another().write(["b"])

    assert both.listed() == {"a", "b"}


def test_the_marker_of_a_process_that_is_gone_holds_nobody_up_for_ever(both: Both) -> None:
    both.marker.write(["a"])
    assert both.listed() == {"a"}

    both.s += STALE_AFTER_S + 1

    assert both.listed() == set()
