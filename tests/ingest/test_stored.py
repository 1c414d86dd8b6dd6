from __future__ import annotations

from hilum.storage.marker import LOOK_WITHIN_S, Marker
from hilum.testing import MemoryStore
from ingest.stored import FRESH_S, Stored

BUCKET = "originals"


class Untold:
    """Two objects that are stored and not told."""

    def __init__(self) -> None:
        self.store, self.s = MemoryStore(), 1000.0
        self.stored = Stored(self.store, BUCKET, lambda: self.s)
        self.stored.note("r1", "a")
        self.stored.note("r2", "b")


def test_what_nobody_deletes_under_its_key_may_be_told() -> None:
    untold = Untold()
    Marker(untold.store, BUCKET).write(["a"])

    assert untold.stored.kept(["r1", "r2"]) == {"r2"}


def test_what_was_not_looked_at_for_long_is_stored_again() -> None:
    untold = Untold()
    untold.s += LOOK_WITHIN_S + 1

    assert untold.stored.kept(["r1"]) == set()


def test_what_could_not_be_told_for_long_is_stored_again() -> None:
    untold = Untold()
    assert untold.stored.is_fresh("r1")

    untold.s += FRESH_S

    assert not untold.stored.is_fresh("r1")


def test_what_is_told_is_forgotten() -> None:
    untold = Untold()

    untold.stored.forget(["r1", "unknown"])

    assert not untold.stored.is_fresh("r1")
