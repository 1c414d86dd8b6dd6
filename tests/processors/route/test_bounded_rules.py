"""Every rule comes to an end on every object."""

import subprocess
import sys

import pytest

from hilum.errors import Misconfigured, Quarantine
from hilum.events import InstanceAccepted
from hilum.settings import Rule
from hilum.testing import an_instance
from processors.route.bounded import MAX_TEXT_CHARS
from processors.route.rules import Rules


def taken(when: str, **attributes: object) -> bool:
    event = InstanceAccepted.following(an_instance(**attributes))
    return bool(Rules([Rule(name="r", when=when, to=("pacs",))]).destinations(event))


@pytest.mark.parametrize(
    ("when", "text"),
    [
        ('StudyDescription =~~ "(a+)+$"', "a" * 60 + "!"),
        ('StudyDescription =~~ "^(\\\\w+\\\\s?)*$"', "CT Thorax Abdomen Becken mit KM nativ und venös, Lunge, Leber, Niere"),
        ('StudyDescription =~~ "(a|aa)+$"', "a" * 60 + "!"),
    ],
)
def test_an_expression_that_takes_for_ever_elsewhere_is_answered_at_once(when: str, text: str) -> None:
    rule = f"Rule(name='r', when={when!r}, to=('pacs',))"
    asked = f"""
from hilum.events import InstanceAccepted
from hilum.settings import Rule
from hilum.testing import an_instance
from processors.route.rules import Rules
event = InstanceAccepted.following(an_instance(StudyDescription={text!r}))
print(bool(Rules([{rule}]).destinations(event)))
"""
    # In a process of its own, which can be ended: an expression that does not end holds the interpreter.
    said = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, timeout=300, check=True)

    assert said.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("when", "says"),
    [
        ('StudyDescription =~~ "(?=chest)"', "invalid perl operator"),
        (r'StudyDescription =~~ "(a)\\1"', "invalid escape sequence"),
        ('StudyDescription =~~ "["', "missing ]"),
        ('StudyDescription =~~ "(a{1000}){1000}"', "invalid repetition size"),
    ],
)
def test_an_expression_that_cannot_be_matched_in_linear_time_is_refused(when: str, says: str) -> None:
    with pytest.raises(Misconfigured, match="regular expression that cannot be used") as refused:
        taken(when)

    assert says in refused.value.sentence
    assert "RE2" in refused.value.fix


def test_an_expression_that_an_object_would_make_is_refused() -> None:
    with pytest.raises(Misconfigured, match="must stand in the rule"):
        taken("StudyDescription =~ SeriesDescription")


@pytest.mark.parametrize("when", ["[x for x in $range(10000000000)].length > 1", "1 << 99999999999 > Rows"])
def test_what_may_take_any_memory_is_refused(when: str) -> None:
    with pytest.raises(Misconfigured):
        taken(when)


def test_lists_in_lists_are_gone_through_only_so_far() -> None:
    nested = "[[[1 for a in ImageType] for b in ImageType] for c in ImageType].length > 1"

    assert taken(nested, ImageType=["A"] * 5)
    with pytest.raises(Quarantine, match="more than 20,000 values"):
        taken(nested, ImageType=["A"] * 60)


def test_a_text_of_any_length_is_not_searched() -> None:
    assert taken('PatientComments =~~ "x$"', PatientComments="a" * 2000 + "x")
    with pytest.raises(Quarantine, match="is longer than"):
        taken('PatientComments =~~ "x$"', PatientComments="a" * MAX_TEXT_CHARS + "x")


def test_groups_of_an_expression_are_text() -> None:
    assert taken('StudyDescription =~ "(CT) (.*)" and $re_groups[1] == "Schädel"', StudyDescription="CT Schädel")


def test_case_is_ignored_for_all_letters() -> None:
    assert taken('StudyDescription =~~ "(?i)schädel"', StudyDescription="CT SCHÄDEL")


@pytest.mark.parametrize("when", ["Rows / 0 > 1", "Rows // 0 > 1", "Rows % (2 - 2) > 1"])
def test_a_division_by_zero_that_every_object_would_meet_is_refused(when: str) -> None:
    with pytest.raises(Misconfigured, match="divides by zero"):
        taken(when)


def test_a_division_by_zero_is_called_so() -> None:
    with pytest.raises(Quarantine, match="division by zero"):
        taken("Rows / (Columns - 128) > 1", Rows=128, Columns=128)


def test_a_date_that_is_compared_with_a_number_is_told_to_be_text() -> None:
    with pytest.raises(Misconfigured) as refused:
        taken("StudyDate > 20240101")

    assert "Dates and times are text" in refused.value.fix


def test_a_fact_of_studies_in_when_is_told_where_it_belongs() -> None:
    with pytest.raises(Misconfigured) as refused:
        taken("instances > 3")

    assert "belongs into the rule's `study`" in refused.value.fix
