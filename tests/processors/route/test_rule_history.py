"""Candidate rules asked about what came in."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import psycopg
import pytest

from hilum.database import connect
from hilum.events import InstanceAccepted
from hilum.settings import Rule
from hilum.testing import an_instance, dicom_json
from processors.route.history import Outcome, Tally, _Group, replay, studies_since
from processors.route.rules import Rules

SINCE = datetime(2024, 1, 1, tzinfo=UTC)
ALL = Rule(name="all", to=("archive",))
THIN = Rule(name="thin", when='Modality == "CT" and SliceThickness < 2', to=("pacs",))


def a_group(count: int = 10, study: str = "2.25.1", **attributes: Any) -> _Group:
    event = InstanceAccepted.following(an_instance(StudyInstanceUID=study, **attributes))
    return _Group(event=event, modality=str(attributes.get("Modality", "CT")), count=count)


def outcome(current: list[Rule], candidate: list[Rule], *studies: list[_Group]) -> Outcome:
    tally = Tally(Rules(current), Rules(candidate), SINCE)
    for groups in studies:
        tally.add(groups[0].event.instance.study_instance_uid, groups)
    return tally.finished()


def test_what_goes_somewhere_newly_is_counted_by_destination_with_an_example() -> None:
    found = outcome([ALL], [ALL, THIN], [a_group(10, SliceThickness=1), a_group(5, SliceThickness=5)], [a_group(7, study="2.25.2")])

    pacs, archive = found.destinations["pacs"], found.destinations["archive"]
    assert (pacs.newly.instances, pacs.newly.studies, pacs.newly.examples) == (10, 1, ["2.25.1"])
    assert (archive.takes.instances, archive.newly.instances) == (22, 0)
    assert (found.instances, found.studies) == (22, 2)


def test_what_no_longer_goes_somewhere_is_counted() -> None:
    found = outcome([ALL, THIN], [ALL], [a_group(10, SliceThickness=1)])

    assert (found.destinations["pacs"].no_longer.instances, found.destinations["pacs"].takes.instances) == (10, 0)


def test_what_one_comparison_kept_out_is_counted_by_that_comparison() -> None:
    found = outcome([], [THIN], [a_group(10, SliceThickness=5), a_group(3, Modality="MR", SliceThickness=1)], [a_group(2, study="2.25.2")])

    assert [(near.rule, near.missed, near.count.instances, near.count.studies) for near in found.near] == [
        ("thin", "SliceThickness < 2", 12, 2),
        ("thin", 'Modality == "CT"', 3, 1),
    ]


def test_a_rule_of_one_comparison_misses_nothing_nearly() -> None:
    assert outcome([], [Rule(name="mr", when='Modality == "MR"', to=("pacs",))], [a_group()]).near == []


def test_a_study_rule_sends_all_of_the_study_or_what_matches() -> None:
    study = [a_group(10), a_group(2, Modality="SR")]

    def taken(send: str) -> int:
        rule = msgspec.convert(
            {"name": "w", "on": "study", "when": 'Modality == "CT"', "study": "series == 1", "send": send, "to": ["pacs"]}, Rule
        )
        return outcome([], [rule], study).destinations["pacs"].newly.instances

    assert (taken("all"), taken("matching")) == (12, 10)


def test_what_a_rule_fails_on_is_counted_as_such() -> None:
    found = outcome([], [Rule(name="f", when="1 / Rows > 0", to=("pacs",))], [a_group(4, Rows=0)])

    assert (found.rules["f"].fails.instances, found.rules["f"].takes.instances) == (4, 0)


@pytest.mark.system
class TestOnPostgreSQL:
    @pytest.fixture
    def index(self, postgres: str) -> str:
        """Two studies: one of a CT series with three instances that came today, and one that came long ago."""
        with connect(postgres) as connection:
            for number in range(3):
                self.put(connection, f"2.25.3{number}", "2.25.1", datetime.now(UTC), number + 1)
            self.put(connection, "2.25.99", "2.25.9", datetime.now(UTC) - timedelta(days=60), 1)
        return postgres

    def put(self, connection: psycopg.Connection, sop: str, study: str, at: datetime, number: int) -> None:
        header = msgspec.json.encode(dicom_json({"Modality": "CT", "SliceThickness": 1.25, "InstanceNumber": 1})).decode()
        what = {"sop": sop, "study": study, "series": f"{study}.1", "at": at, "number": str(number), "header": header}
        connection.execute(
            "INSERT INTO series (series_instance_uid, study_instance_uid, modality, header, receipt, received_at)"
            " VALUES (%(series)s, %(study)s, 'CT', %(header)s, %(sop)s, %(at)s) ON CONFLICT DO NOTHING",
            what,
        )
        connection.execute(
            "INSERT INTO instance (sop_instance_uid, series_instance_uid, study_instance_uid, sop_class_uid, transfer_syntax_uid,"
            " instance_number, bucket, object_key, size_bytes, sha256, receipt, received_at)"
            " VALUES (%(sop)s, %(series)s, %(study)s, '1.2', '1.2.840.10008.1.2', %(number)s, 'b', 'k', 1, 'x', %(sop)s, %(at)s)",
            what,
        )
        connection.execute(
            "INSERT INTO receipt (receipt, adapter, calling_aet, called_aet, peer, findings)"
            " VALUES (%(sop)s, 'dicom', 'CT1', 'HILUM', '::1', '[]')",
            what,
        )

    def test_only_what_came_since_is_asked_about(self, index: str) -> None:
        now = datetime.now(UTC) + timedelta(minutes=1)

        assert studies_since(index, now - timedelta(days=30), now) == 1
        assert studies_since(index, now - timedelta(days=90), now) == 2

    def test_a_rule_is_asked_with_header_sender_and_what_differs_between_instances(self, index: str) -> None:
        now = datetime.now(UTC) + timedelta(minutes=1)
        rule = Rule(name="r", when='calling_aet == "CT1" and SliceThickness < 2 and InstanceNumber > 1', to=("pacs",))
        asked: list[None] = []

        found = replay(index, Rules([ALL]), Rules([rule]), now - timedelta(days=30), now, lambda: asked.append(None))

        assert found.destinations["pacs"].newly.instances == 2
        assert found.destinations["archive"].no_longer.instances == 3
        assert found.by_series == ["SliceThickness"]
        assert len(asked) == 1
