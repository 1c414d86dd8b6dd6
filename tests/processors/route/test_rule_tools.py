"""Rules' own tests, why a rule does not match, what is odd about rules, and what they stand for."""

from typing import Any

import pytest

from hilum.errors import Misconfigured
from hilum.events import InstanceAccepted
from hilum.settings import Example, Rule, Settings
from hilum.testing import an_instance
from processors.route.compiled import compiled
from processors.route.examples import check, tried
from processors.route.explain import explain
from processors.route.lint import doubts_of
from processors.route.names import Asked
from processors.route.text import written
from processors.route.why import Why, why

# Their own tests


def a_rule(when: str = 'Modality == "CT"', *tests: Example, **more: Any) -> Rule:
    return Rule(name="r", when=when, to=("pacs",), tests=tests, **more)


def test_a_rule_does_with_its_examples_what_they_say() -> None:
    rule = a_rule('Modality == "CT"', Example(matches=True, header={"Modality": "CT"}), Example(matches=False, header={"Modality": "MR"}))

    assert [each.ok for each in tried([rule])] == [True, True]


@pytest.mark.parametrize(
    ("example", "sentence"),
    [
        (Example(matches=True, header={"Modality": "MR"}), "test 1: it is to match, and does not"),
        (Example(matches=False, says="a CT", header={"Modality": "CT"}), r"test 1 \(a CT\): it is to be left alone, and matches"),
        (Example(matches=True, header={"Modalty": "CT"}), r"'Modalty', which is unknown\. Did you mean Modality\?"),
        (Example(matches=True, header={"Modality": True}), "the value of Modality does not fit"),
        (Example(matches=True, header={"ProcedureCodeSequence": "x"}), "Write a list of tables"),
        (Example(matches=True, arrival={"calling_aete": "CT1"}), r"Did you mean calling_aet\?"),
        (Example(matches=True, study={"instances": 2}), "is for rules with on"),
    ],
)
def test_an_example_that_fails_or_cannot_be_read_is_named_with_its_rule(example: Example, sentence: str) -> None:
    with pytest.raises(Misconfigured, match=sentence):
        check(a_rule('Modality == "CT"', example))


@pytest.mark.parametrize(
    ("when", "example"),
    [
        ('calling_aet == "CT1"', Example(matches=True, arrival={"calling_aet": "CT1"})),
        ('"pixel-short" in findings', Example(matches=True, arrival={"findings": ["pixel-short"]})),
        ('ProcedureCodeSequence[0].CodeValue == "X"', Example(matches=True, header={"ProcedureCodeSequence": [{"CodeValue": "X"}]})),
        ('tag("0009,1010", "SYNTH") == "a"', Example(matches=True, header={"0009,0010": "SYNTH", "0009,1010": "a"})),
        ('PatientName == "TEST^A" and Rows > 5', Example(matches=True, header={"PatientName": "TEST^A", "Rows": 6})),
        ('"PRIMARY" in ImageType', Example(matches=True, header={"ImageType": ["ORIGINAL", "PRIMARY"]})),
        ("1 / Rows > 0", Example(matches=False, header={})),
    ],
)
def test_an_example_may_say_whatever_a_rule_may_ask(when: str, example: Example) -> None:
    check(a_rule(when, example))


def test_an_example_on_which_the_rule_fails_says_so() -> None:
    with pytest.raises(Misconfigured, match="the rule fails on it"):
        check(a_rule("1 / Rows > 0", Example(matches=True, header={"Rows": 0})))


@pytest.mark.parametrize(("instances", "matches"), [(2, True), (1, False)])
def test_an_example_of_a_study_rule_says_how_the_study_is(instances: int, matches: bool) -> None:
    example = Example(matches=matches, header={"Modality": "CT"}, study={"instances": instances})

    check(a_rule('Modality == "CT"', example, on="study", study="instances > 1"))


# Why not


def why_of(when: str, **attributes: Any) -> Why:
    event = InstanceAccepted.following(an_instance(**attributes))
    return why(compiled(a_rule(when)), Asked(event, event.instance.header))


@pytest.mark.parametrize(
    ("when", "text", "found"),
    [
        ('Modality == "CT" and Rows > 600', "Rows > 600", "Rows is 512"),
        ('Modality == "MR" or (Rows > 600 and Columns > 600)', 'Modality == "MR"', 'Modality is "CT"'),
        ('not (Modality == "CT")', 'not (Modality == "CT")', 'Modality is "CT"'),
        ('Modality not in ["CT", "MR"]', 'Modality not in ["CT", "MR"]', 'Modality is "CT"'),
        ("SliceThickness < 2", "SliceThickness < 2", "SliceThickness is absent"),
        ('"DERIVED" in ImageType', '"DERIVED" in ImageType', 'ImageType is "ORIGINAL", "PRIMARY"'),
        ('ImageType&[2] == "L"', 'ImageType&[2] == "L"', "ImageType&[2] is absent"),
        ('Modality.as_lower == "mr"', 'Modality.as_lower == "mr"', 'Modality.as_lower is "ct"'),
        ('tag("0009,1010", "C") == "x"', 'tag("0009,1010", "C") == "x"', 'tag("0009,1010", "C") is absent'),
    ],
)
def test_the_comparison_that_is_in_the_way_is_shown_with_what_it_found(when: str, text: str, found: str) -> None:
    reason = why_of(when, Modality="CT", Rows=512, ImageType=["ORIGINAL", "PRIMARY"])

    assert not reason.matches
    assert reason.near
    assert [(part.text, part.found) for part in reason.missed] == [(text, found)]


def test_what_matches_has_nothing_in_the_way() -> None:
    assert (why_of('Modality == "CT"').matches, why_of('Modality == "CT"').missed) == (True, ())


def test_two_comparisons_in_the_way_are_no_near_miss() -> None:
    reason = why_of('Modality == "MR" and Rows > 600', Rows=512)

    assert not reason.near
    assert len(reason.missed) == 2


def test_a_rule_that_fails_on_the_object_says_so() -> None:
    assert "division by zero" in why_of("1 / Rows > 0.5", Rows=0).fails


@pytest.mark.parametrize(
    "when",
    [
        'Modality == "CT"',
        'not (Modality == "CT")',
        'Modality not in ["CT", "MR"]',
        "(Rows ?? 1) > 5",
        'StudyDescription =~~ "(?i)chest"',
        "(Rows * 2) >= (Columns + 1)",
        '$any([each.CodeValue == "x" for each in ProcedureCodeSequence])',
        'ImageType&[2] == "L"',
        'tag("0009,1010", "C") == "x"',
        '(Modality == "CT") ? (Rows == 512) : false',
    ],
)
def test_an_expression_is_written_as_it_was_read(when: str) -> None:
    assert written(compiled(a_rule(when)).when.statement.expression) == when


# What is odd


def codes(*rules: Rule, **destinations: Any) -> list[tuple[str, str]]:
    settings = Settings(rules=rules, destinations=destinations or {"pacs": {}})
    return [(each.name, each.code) for each in doubts_of(settings)]


TESTED = (Example(matches=True, header={"Modality": "CT"}), Example(matches=False))


def test_rules_that_are_in_order_raise_no_doubt() -> None:
    assert codes(a_rule('Modality == "CT"', *TESTED)) == []


@pytest.mark.parametrize(
    ("rules", "doubt"),
    [
        ([a_rule("false", *TESTED)], ("r", "never")),
        ([Rule(name="all", to=("pacs",)), a_rule('Modality == "CT"', *TESTED)], ("r", "overlap")),
        (
            [Rule(name="first", when='Modality=="CT"', to=("pacs",), tests=TESTED), a_rule('Modality == "CT"', *TESTED)],
            ("r", "same-condition"),
        ),
        ([a_rule()], ("r", "untested")),
        ([a_rule('Modality == "CT"', TESTED[0])], ("r", "no-counterexample")),
        ([a_rule('Modality == "CT"', TESTED[1])], ("r", "no-example")),
        ([Rule(name="r", when='Modality == "CT"', to=("pacs", "pacs"), tests=TESTED)], ("r", "destination-twice")),
        ([], ("pacs", "destination-unused")),
    ],
    ids=lambda value: value[1] if isinstance(value, tuple) else "",
)
def test_what_is_odd_is_named(rules: list[Rule], doubt: tuple[str, str]) -> None:
    assert doubt in codes(*rules)


def test_a_more_urgent_rule_beside_one_for_everything_is_not_odd() -> None:
    assert codes(Rule(name="all", to=("pacs",)), a_rule('Modality == "CT"', *TESTED, priority=5)) == []


def test_an_explanation_names_every_comparison_and_what_each_name_stands_for() -> None:
    said = explain(a_rule('Modality == "CT" and calling_aet == "CT1" and ProcedureCodeSequence[0].CodeValue == "X"', priority=2))

    assert said.all_of == ['Modality == "CT"', 'calling_aet == "CT1"', 'ProcedureCodeSequence[0].CodeValue == "X"']
    assert {each.name: each.tag for each in said.names} == {
        "Modality": "(0008,0060)",
        "calling_aet": "",
        "ProcedureCodeSequence": "(0008,1032)",
        "CodeValue": "(0008,0100)",
    }
    assert said.goes == "The object goes to pacs, with priority 2 (before what is routine)."
