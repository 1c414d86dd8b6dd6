from __future__ import annotations

from pathlib import Path

import pytest

from hilum.events import AssociationEnded
from hilum.records import Records
from hilum.summed import OTHERS, Summed
from hilum.testing import Clock


class Place:
    """Records, and what sums them up."""

    def __init__(self, path: Path) -> None:
        self.clock = Clock()
        self.records = Records(path)
        self.summed = Summed(self.records, "stow", "request", self.clock)

    def request(self, calling_aet: str = "PORTAL", peer: str = "192.0.2.7", objects: int = 1) -> str:
        """A request from its beginning to its end; the id of its record."""
        record = self.summed.begin(calling_aet, peer)
        self.summed.end(record, statuses={"0x0000": objects}, objects=objects, size_bytes=10 * objects)
        return record

    def written(self, *, everything: bool = False) -> list[AssociationEnded]:
        """The records that are written now."""
        self.summed.write(everything=everything)
        names = self.records.waiting()
        found = [self.records.read(name) for name in names]
        self.records.remove(names)
        return [record for record in found if record is not None]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_a_record_is_written_once_its_minute_is_over(place: Place) -> None:
    first = place.request(objects=2)
    place.clock.forward(seconds=59)
    assert place.request(objects=3) == first
    assert place.written() == []

    place.clock.forward(seconds=1)
    [record] = place.written()
    assert (record.association, record.requests, record.objects, record.size_bytes) == (first, 2, 5, 50)
    assert (record.ended_at - record.opened_at).total_seconds() == 59
    assert place.request() != first


def test_a_record_waits_for_the_request_that_takes_longer(place: Place) -> None:
    long = place.summed.begin("PORTAL", "192.0.2.7")
    place.clock.forward(minutes=10)
    place.request()
    assert place.written() == []

    place.summed.end(long, statuses={"0x0000": 1}, objects=1)
    assert [record.association for record in place.written()] == [long]


def test_each_sender_and_address_has_a_record_of_its_own(place: Place) -> None:
    records = {place.request("PORTAL"), place.request("LAB"), place.request("LAB", "192.0.2.8")}

    assert len(records) == 3
    assert {record.association for record in place.written(everything=True)} == records


def test_what_came_to_nothing_leaves_no_record(place: Place) -> None:
    place.summed.end(place.summed.begin("PORTAL", "192.0.2.7"))

    assert place.written(everything=True) == []


def test_refusals_are_summed_up_by_their_reason(place: Place) -> None:
    for reason in ("no key", "no key", "blocked"):
        place.summed.refuse("", "192.0.2.7", reason, "401")

    assert {record.refused: record.requests for record in place.written(everything=True)} == {"no key": 2, "blocked": 1}


def test_a_flood_of_addresses_makes_no_flood_of_records(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hilum.summed.MOST_AT_ONCE", 10)
    for number in range(100):
        place.summed.refuse("", f"192.0.2.{number}", "no key", "401")

    records = place.written(everything=True)
    assert len(records) == 11
    assert sum(record.requests for record in records) == 100
    assert [record.requests for record in records if record.peer == OTHERS] == [90]


def test_a_disk_that_fails_costs_the_record_only(place: Place, tmp_path: Path) -> None:
    place.request()
    tmp_path.rmdir()
    place.summed.write(everything=True)
    tmp_path.mkdir()

    place.request()
    assert len(place.written(everything=True)) == 1
