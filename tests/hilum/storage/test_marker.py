from __future__ import annotations

from datetime import UTC, datetime

import pytest

from hilum.storage.marker import KEY, LISTED_S, STALE_AFTER_S, Marker, Watch
from hilum.testing import MemoryStore
from ingest.stored import FRESH_S, Stored

BUCKET = "originals"


class Both:
    def __init__(self) -> None:
        self.store, self.s = MemoryStore(), 1000.0
        self.watch = Watch(self.store, BUCKET, lambda: self.s)
        self.marker = self.another()
        self.stored = Stored(self.store, BUCKET, lambda: self.s)

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


class TestWhatIsStoredAndNotTold:
    def test_it_is_told_if_nobody_deletes_under_its_key(self, both: Both) -> None:
        both.stored.note("r1", "a")
        both.stored.note("r2", "b")
        both.marker.write(["a"])

        assert both.stored.kept(["r1", "r2"]) == {"r2"}

    def test_one_that_was_not_looked_at_for_long_is_stored_again(self, both: Both) -> None:
        both.stored.note("r1", "a")
        both.s += 61

        assert both.stored.kept(["r1"]) == set()

    def test_one_that_could_not_be_told_for_long_is_stored_again(self, both: Both) -> None:
        both.stored.note("r1", "a")
        assert both.stored.is_fresh("r1")

        both.s += FRESH_S

        assert not both.stored.is_fresh("r1")
