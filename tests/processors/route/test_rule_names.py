"""Sequences, private elements and facts of complete studies in rules."""

from typing import Any

import pytest

from hilum.dicom import Header
from hilum.errors import Misconfigured, Quarantine
from hilum.events import InstanceAccepted
from hilum.settings import Rule
from hilum.testing import an_instance, dicom_json
from processors.route.facts import StudyFacts, StudyRoute
from processors.route.language import EXAMPLES, STUDY_EXAMPLES
from processors.route.rules import Rules

CODES = "RequestedProcedureCodeSequence"
CREATOR = {"00090011": {"vr": "LO", "Value": ["SYNTH 01"]}}


def item(**attributes: Any) -> dict[str, Any]:
    return dicom_json(attributes)


def matches(when: str, header: dict[str, Any] | None = None, **attributes: Any) -> bool:
    event = InstanceAccepted.following(an_instance())
    whole = Header(dicom_json({"Modality": "CT"} | attributes) | (header or {}))
    return bool(Rules([Rule(name="r", when=when, to=("pacs",))]).destinations(event, whole))


@pytest.mark.parametrize(
    "when",
    [
        f'{CODES}[0].CodeValue == "P1"',
        f'$any([each.CodeValue == "P2" for each in {CODES}])',
        f'"P2" in [each.CodeValue for each in {CODES}]',
        f"{CODES}.length == 2",
        f'{CODES}[0].ReferencedSeriesSequence[0].SeriesInstanceUID == "2.25.9"',
        f"{CODES}&[5]&.CodeValue == null",
        "ReferencedStudySequence.is_empty",
    ],
)
def test_what_is_in_a_sequence_is_found_by_its_path(when: str) -> None:
    items = [item(CodeValue="P1", ReferencedSeriesSequence=[item(SeriesInstanceUID="2.25.9")]), item(CodeValue="P2")]

    assert matches(when, RequestedProcedureCodeSequence=items)


@pytest.mark.parametrize(
    "when",
    [f'{CODES}[0].CodeValue == "P1"', f"{CODES}[0].Rows > 5", f'$any([each.CodeValue == "P1" for each in {CODES}])', 'ImageType[0] == "X"'],
)
def test_a_rule_that_asks_for_an_item_that_is_not_there_does_not_match(when: str) -> None:
    assert not matches(when)
    assert not matches(when, RequestedProcedureCodeSequence=[item(CodingSchemeDesignator="99SYN")])


def test_an_item_beyond_the_last_is_absent_too() -> None:
    assert not matches(f'{CODES}[3].CodeValue == "P1"', RequestedProcedureCodeSequence=[item(CodeValue="P1")])


def test_a_misspelt_name_within_a_sequence_is_refused_with_the_nearest() -> None:
    with pytest.raises(Misconfigured, match=r"'CodeVale' within a sequence.*Did you mean CodeValue\?"):
        matches(f'{CODES}[0].CodeVale == "P1"')


@pytest.mark.parametrize(
    ("element", "when"),
    [
        ({"vr": "LO", "Value": ["abc"]}, 'tag("0009,1010", "SYNTH 01") == "abc"'),
        ({"vr": "LO", "Value": ["abc"]}, 'tag("(0009,xx10)", "SYNTH 01") == "abc"'),
        ({"vr": "DS", "Value": [2.5]}, 'tag("0009,1010", "SYNTH 01") > 2'),
        ({"vr": "CS", "Value": ["A", "B"]}, '"B" in tag("0009,1010", "SYNTH 01")'),
        ({"vr": "UN", "InlineBinary": "YWJjIA=="}, 'tag("0009,1010", "SYNTH 01") == "abc"'),
    ],
    ids=["text", "xx", "number", "list", "bytes"],
)
def test_a_private_element_is_found_in_the_block_that_its_creator_has_reserved(element: dict[str, Any], when: str) -> None:
    assert matches(when, CREATOR | {"00091110": element, "00091010": {"vr": "LO", "Value": ["another creator's"]}})


@pytest.mark.parametrize("when", ['tag("0009,1010", "OTHER") == "abc"', 'tag("0009,1011", "SYNTH 01") < 5'])
def test_a_private_element_that_is_not_there_is_absent(when: str) -> None:
    assert not matches(when, CREATOR | {"00091110": {"vr": "LO", "Value": ["abc"]}})
    assert matches('tag("0009,1010", "OTHER") == null')


def test_the_private_example_of_the_reference_page_means_what_the_page_says() -> None:
    [when] = [each for each in EXAMPLES if each.startswith("tag(")]

    assert matches(when, {"00090012": {"vr": "LO", "Value": ["GEMS_IDEN_01"]}, "00091202": {"vr": "SH", "Value": ["CT01"]}})
    assert not matches(when, {"00090012": {"vr": "LO", "Value": ["OTHER"]}, "00091202": {"vr": "SH", "Value": ["CT01"]}})


@pytest.mark.parametrize(
    ("study", "asked_for", "left_alone"),
    [
        ("true", StudyFacts(instances=1, series=1), None),
        ('"CT" in modalities and instances > 1', StudyFacts(instances=2, series=1, modalities=("CT",)), StudyFacts(instances=2, series=1)),
        ("revision == 1", StudyFacts(instances=1, series=1), StudyFacts(instances=1, series=1, revision=2)),
        ("matching == instances", StudyFacts(instances=1, series=1), StudyFacts(instances=2, series=1)),
    ],
)
def test_a_study_example_of_the_reference_page_means_what_the_page_says(
    study: str, asked_for: StudyFacts, left_alone: StudyFacts | None
) -> None:
    assert study in STUDY_EXAMPLES
    rules = Rules([a_study_rule(study)])

    assert rules.of_study(asked_for, {"whole": 1})
    assert left_alone is None or not rules.of_study(left_alone, {"whole": 1})


def test_a_standard_element_may_be_named_by_its_number() -> None:
    assert matches('tag("0008,0060") == "CT"')


@pytest.mark.parametrize(
    ("when", "sentence"),
    [
        ('tag("0009,1010") == "a"', "without its creator"),
        ('tag("00091010", "C") == "a"', "is no tag"),
        ('tag(Modality, "C") == "a"', "works out what to ask"),
        ('tag("0008,0060", "C") == "a"', "not private"),
        ('tags("0008,0060") == "a"', r"Did you mean tag\?"),
    ],
)
def test_a_number_that_cannot_be_found_is_refused(when: str, sentence: str) -> None:
    with pytest.raises(Misconfigured, match=sentence):
        matches(when)


def test_a_private_element_that_the_event_left_out_is_never_taken_for_absent() -> None:
    event = InstanceAccepted.following(an_instance())
    cut = Header(CREATOR, cut=frozenset({"00091110"}))
    rules = Rules([Rule(name="r", when='tag("0009,1010", "SYNTH 01") == "abc"', to=("pacs",))])

    assert "00091110" in rules.tags
    with pytest.raises(Quarantine, match="too long"):
        rules.destinations(event, cut)


def test_a_rule_of_ten_thousand_characters_is_refused() -> None:
    with pytest.raises(Misconfigured, match=r"Rule 'r' has 100\d\d characters in its `when`"):
        matches("Modality == " + '"' + "x" * 10_000 + '"')


# Complete studies


def a_study_rule(study: str = "true", **more: Any) -> Rule:
    return Rule(name="whole", on="study", when='Modality == "CT"', study=study, to=("pacs",), **more)


def test_an_instance_tells_which_study_rules_it_is_a_part_of_and_goes_nowhere_by_them() -> None:
    event = InstanceAccepted.following(an_instance(Modality="CT"))

    matched = Rules([a_study_rule()]).matched(event)

    assert (matched.destinations, matched.study_rules) == ({}, ("whole",))


@pytest.mark.parametrize(
    ("study", "goes"),
    [
        ("true", True),
        ("instances > 1", True),
        ('"CT" in modalities and series == 2', True),
        ("matching == instances", False),
        ("revision > 1", False),
        ('reason == "idle"', True),
        ("order_match == null", False),
        ('order_match == ""', True),
    ],
)
def test_a_study_rule_asks_for_facts_of_the_complete_study(study: str, goes: bool) -> None:
    facts = StudyFacts(instances=3, series=2, modalities=("CT", "SR"), reason="idle")

    routes = Rules([a_study_rule(study, send="matching", priority=5)]).of_study(facts, {"whole": 2})

    assert routes == ((StudyRoute(rule="whole", to=("pacs",), send="matching", priority=5),) if goes else ())


def test_a_study_rule_that_no_instance_is_a_part_of_sends_nothing() -> None:
    facts = StudyFacts(instances=3, series=1)

    assert Rules([a_study_rule()]).of_study(facts, {}) == ()
    assert Rules([]).of_study(facts, {"whole": 2}) == ()


@pytest.mark.parametrize(
    ("study", "sentence"),
    [
        ("instancs > 1", r"Did you mean instances\?"),
        ('Modality == "CT"', "Did you mean modalities"),
        ("1 / (revision - 1) > 0", r"fails on a study with 1 instances in 1 series, revision 1: division by zero"),
        ('modalities[0] == "CT"', "fails on a study"),
        ("instances", "gives a number, not true or false"),
        ('instances == "2"', "they are never equal"),
        ("x" * 9000, "has 9000 characters in its `study`"),
    ],
)
def test_a_study_condition_that_cannot_work_is_refused(study: str, sentence: str) -> None:
    with pytest.raises(Misconfigured, match=f"Rule 'whole'.*{sentence}"):
        Rules([a_study_rule(study)])


def test_a_destination_has_the_highest_priority_of_the_rules_that_ask_for_it() -> None:
    rules = Rules(
        [Rule(name="a", to=("pacs", "archive")), Rule(name="b", to=("pacs",), priority=7), Rule(name="c", to=("pacs",), priority=2)]
    )

    matched = rules.matched(InstanceAccepted.following(an_instance()))

    assert matched.priorities == {"pacs": 7, "archive": 0}
