"""A rule that fails on an object takes it from no other rule, and decides on it once it is a better one."""

from __future__ import annotations

from typing import Any

import pytest

from hilum.events import CommandOutcome, Event, InstanceRouted
from hilum.settings import Rule
from processors.route.rules import Rules
from tests.processors.route.hospital import STUDY, Hospital, a_note, changes_of, decisions

ALL = Rule(name="all", when="true", to=("archive",))
BAD = Rule(name="bad", when="Rows / (Columns - 128) > 1", to=("pacs",))
GOOD = Rule(name="bad", when="Rows / (Columns + 128) > 1", to=("pacs",))
SIZE: dict[str, Any] = {"Rows": 512, "Columns": 128}


def failed(events: list[Event]) -> list[tuple[tuple[str, ...], bool]]:
    return [(tuple(each.rule for each in event.failed), event.mended) for event in events if isinstance(event, InstanceRouted)]


def applied(hospital: Hospital, version: str, *rules: Rule) -> list[Event]:
    """Other rules are in force, and `hilum apply` has the study looked at."""
    hospital.catch_up()
    hospital.apply(version, Rules(rules))
    [outcome] = hospital.look()
    assert isinstance(outcome, CommandOutcome)
    return hospital.wait(seconds=1)


def test_the_other_rules_decide_and_the_failure_is_said_in_words() -> None:
    hospital = Hospital(Rules([ALL, BAD]))

    said = hospital.arrive(**SIZE)

    assert decisions(said) == [("deliver", ("archive",))]
    [routed] = [each for each in said if isinstance(each, InstanceRouted)]
    assert [(each.rule, each.says) for each in routed.failed] == [("bad", "Rule 'bad' could not be evaluated: division by zero.")]
    assert hospital.quarantined == {}


def test_an_object_that_only_a_failing_rule_may_want_is_held() -> None:
    hospital = Hospital(Rules([BAD]))

    assert decisions(hospital.arrive(**SIZE)) == [("held", ())]


def test_a_corrected_rule_decides_by_itself_and_sends_only_what_is_new() -> None:
    hospital = Hospital(Rules([ALL, BAD]))
    hospital.arrive(**SIZE)

    said = applied(hospital, "v2", ALL, GOOD)

    assert (decisions(said), failed(said)) == ([("deliver", ("pacs",))], [((), True)])
    assert said[0].config_version == "v2"  # type: ignore[attr-defined]
    hospital.catch_up()
    assert hospital.index.failed() == {}
    assert decisions(hospital.wait(hours=48)) == []


def test_without_the_rule_the_object_is_settled() -> None:
    hospital = Hospital(Rules([BAD]))
    hospital.arrive(**SIZE)

    said = applied(hospital, "v2", Rule(name="mr", when='Modality == "MR"', to=("pacs",)))

    assert (decisions(said), failed(said)) == ([("no-rule", ())], [((), True)])


def test_a_rule_that_fails_again_is_asked_again_under_the_next_configuration() -> None:
    hospital = Hospital(Rules([ALL, BAD]))
    hospital.arrive(**SIZE)

    again = applied(hospital, "v2", ALL, BAD)
    assert (decisions(again), failed(again)) == ([("held", ())], [(("bad",), False)])

    assert decisions(applied(hospital, "v3", ALL, GOOD)) == [("deliver", ("pacs",))]


def test_the_same_rules_are_not_asked_again() -> None:
    hospital = Hospital(Rules([ALL, BAD]))
    hospital.arrive(**SIZE)
    hospital.catch_up()

    assert decisions(hospital.wait(hours=30)) == []
    assert hospital.instance("2.25.3") is not None, "it is remembered for as long as it waits"


def test_rules_that_came_without_apply_are_asked_within_ten_minutes() -> None:
    hospital = Hospital(Rules([ALL, BAD]))
    hospital.arrive(**SIZE)
    hospital.catch_up()
    hospital.apply("v2", Rules([ALL, GOOD]))

    assert decisions(hospital.wait(minutes=11)) == [("deliver", ("pacs",))]


def test_an_index_that_is_late_is_waited_for() -> None:
    hospital = Hospital(Rules([ALL, BAD]))
    hospital.arrive(**SIZE)
    hospital.apply("v2", Rules([ALL, GOOD]))

    assert decisions(hospital.wait(minutes=11)) == []
    hospital.catch_up()
    assert decisions(hospital.wait(seconds=6)) == [("deliver", ("pacs",))]


def test_more_than_are_read_at_once_are_all_decided() -> None:
    hospital = Hospital(Rules([ALL, BAD]))
    for number in range(230):
        hospital.arrive(f"2.25.{100 + number}", **SIZE)
    said = applied(hospital, "v2", ALL, GOOD)
    said += hospital.wait(seconds=6)
    said += hospital.wait(seconds=6)

    assert decisions(said) == [("deliver", ("pacs",))] * 230


def test_a_worker_that_dies_before_the_commit_decides_once() -> None:
    hospital = Hospital(Rules([ALL, BAD]))
    hospital.arrive(**SIZE)
    hospital.catch_up()
    hospital.apply("v2", Rules([ALL, GOOD]))
    hospital.clock.forward(minutes=11)
    hospital.fire(crash=True)
    hospital.start()

    assert decisions(hospital.wait(seconds=1)) == [("deliver", ("pacs",))]


def test_an_object_that_is_gone_or_withdrawn_is_settled() -> None:
    hospital = Hospital(Rules([BAD]))
    hospital.arrive("2.25.3", **SIZE)
    hospital.arrive("2.25.4", **SIZE)
    hospital.arrive("2.25.5", **a_note("113001", "2.25.4"))
    hospital.stored.gone.add("2.25.3")

    said = applied(hospital, "v2", GOOD)

    assert sorted(decisions(said)) == [("no-rule", ()), ("withdrawn", ())]
    hospital.catch_up()
    assert hospital.index.failed() == {}


@pytest.mark.parametrize("again", [True, False])
def test_the_same_object_again_goes_nowhere_twice(again: bool) -> None:
    hospital = Hospital(Rules([ALL, BAD]))
    hospital.arrive(**SIZE)
    if again:
        assert decisions(hospital.arrive(**SIZE)) == [("duplicate", ())]

    assert decisions(applied(hospital, "v2", ALL, GOOD)) == [("deliver", ("pacs",))]
    assert decisions(hospital.arrive(**SIZE)) == [("duplicate", ())]


class TestRulesForStudies:
    WHOLE = Rule(name="ct", when="Rows / (Columns - 128) > 1", to=("pacs",), on="study", send="matching")
    MENDED = Rule(name="ct", when="Rows / (Columns + 128) > 1", to=("pacs",), on="study", send="matching")

    def test_while_the_study_is_open_the_object_is_taken_into_it(self) -> None:
        hospital = Hospital(Rules([ALL, self.WHOLE]))
        hospital.arrive(**SIZE)

        assert decisions(applied(hospital, "v2", ALL, self.MENDED)) == [("waits", ())]
        said = hospital.wait(hours=2)

        assert decisions(said) == [("deliver", ("pacs",))]
        assert changes_of(said) == [("completed", 1, "idle")]

    def test_after_the_study_was_complete_it_is_part_of_the_next_revision(self) -> None:
        hospital = Hospital(Rules([ALL, self.WHOLE]))
        hospital.arrive(**SIZE)
        assert changes_of(hospital.wait(hours=2)) == [("completed", 1, "idle")]

        reopened = applied(hospital, "v2", ALL, self.MENDED)
        said = hospital.wait(hours=2)

        assert changes_of(reopened) == [("reopened", 2, "images")]
        assert decisions(said) == [("deliver", ("pacs",))]
        assert [(each[0], each[1]) for each in changes_of(said)] == [("completed", 2)]
        assert hospital.study(STUDY).instances == 1, "it is the same object"
