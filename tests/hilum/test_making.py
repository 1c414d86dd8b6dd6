"""A destination is not said to be silent while Hilum makes an object for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom.data import get_testdata_file

from hilum.dicom.decoding import decoded
from hilum.edited import MadePart10
from hilum.making import Attempt, making
from hilum.part10 import Part10
from hilum.runtime.delivery.worker import QUIET_S, Shared
from hilum.testing import Clock, MemoryStore, a_delivery
from tests.ledger import DELIVERED, Scripted


class Watched:
    """An attempt by a clock that only moves when told to, as a destination's status sees it."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.attempt = Attempt(lambda: self.clock().timestamp())
        self.shared = Shared("pacs", Scripted(answer=lambda *_: DELIVERED))
        self.shared.under_way["w1"] = self.attempt

    def waits(self, seconds: float = QUIET_S + 2) -> str:
        """What is said of the destination after so long."""
        self.clock.forward(seconds=seconds)
        return self.shared.away()


@pytest.fixture
def watched() -> Iterator[Watched]:
    made = Watched()
    with made.attempt.under_way():
        yield made


def test_time_in_which_an_object_is_made_is_not_the_destinations(watched: Watched) -> None:
    with making():
        assert watched.waits() == ""
        with making():
            assert watched.waits() == ""
        assert watched.waits() == ""

    assert watched.waits(QUIET_S - 1) == ""
    assert "given no answer for 10 s" in watched.waits(2)


def test_without_an_attempt_making_changes_nothing() -> None:
    with making():
        pass


class MadeSlowly(MadePart10):
    """An object of which the making takes long."""

    def __init__(self, store: MemoryStore, watched: Watched) -> None:
        super().__init__(store, Part10(store, a_delivery(store).object))
        self.watched, self.said = watched, list[str]()

    def _pieces_of(self, original: object, at: int) -> Iterator[bytes]:
        del original, at
        self.said.append(self.watched.waits())
        yield b"made"


def test_what_is_de_identified_or_edited_is_made(watched: Watched) -> None:
    made = MadeSlowly(MemoryStore(), watched)

    assert made.file() == b"made"
    assert made.said == [""]
    assert watched.waits(1) == ""


def test_between_two_frames_that_are_decoded_it_is_the_destinations_turn(watched: Watched) -> None:
    file = Path(str(get_testdata_file("MR_small_RLE.dcm"))).read_bytes()

    found = decoded(file, "1.2.840.10008.1.2.5")

    assert watched.waits(1) == ""
    assert all("given no answer" in watched.waits() for _ in found.frames)
