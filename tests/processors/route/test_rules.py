import pytest

from hilum.errors import Misconfigured, Quarantine
from hilum.events import InstanceAccepted
from hilum.settings import Rule
from hilum.testing import an_instance
from processors.route.language import EXAMPLES
from processors.route.rules import Rules
from processors.validate import findings


def destinations(when: str, event: InstanceAccepted) -> list[str]:
    return list(Rules([Rule(name="r", when=when, to=("pacs",))]).destinations(event))


def accepted(**attributes: object) -> InstanceAccepted:
    return InstanceAccepted.following(an_instance(**attributes))


@pytest.mark.parametrize(
    "when",
    [
        "true",
        'Modality == "CT"',
        'Modality in ["CT", "MR"]',
        '"PRIMARY" in ImageType',
        "SliceThickness < 2",
        'StudyDescription =~ "Chest.*"',
        "InstitutionName == null",
        "SliceThickness < 2 and Rows == 512",
    ],
)
def test_a_rule_matches_what_it_describes(when: str) -> None:
    event = accepted(Modality="CT", ImageType=["ORIGINAL", "PRIMARY"], SliceThickness="1.5", StudyDescription="Chest CT", Rows=512)

    assert destinations(when, event) == ["pacs"]


@pytest.mark.parametrize("when", ["false", 'Modality == "MR"', '"DERIVED" in ImageType', "SliceThickness < 2", 'StudyDescription == "x"'])
def test_a_rule_leaves_alone_what_it_does_not_describe(when: str) -> None:
    assert destinations(when, accepted(Modality="CT")) == []


#: For each example of the reference page an object that it asks for and, unless it asks for all, one that it leaves alone.
ASKED: dict[str, tuple[dict[str, object], dict[str, object] | None]] = {
    "true": ({}, None),
    'Modality in ["CT", "MR"]': ({"Modality": "MR"}, {"Modality": "US"}),
    'Modality not in ["SR", "PR", "KO"]': ({"Modality": "CT"}, {"Modality": "PR"}),
    '"DERIVED" in ImageType': ({"ImageType": ["DERIVED", "PRIMARY"]}, {"ImageType": ["ORIGINAL", "PRIMARY"]}),
    'ImageType&[2] == "LOCALIZER"': ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, {"ImageType": ["ORIGINAL", "PRIMARY"]}),
    "SliceThickness <= 1.5": ({"SliceThickness": 1.5}, {"SliceThickness": None}),
    'StudyDate >= "20240101"': ({"StudyDate": "20240101"}, {"StudyDate": "20231231"}),
    'StudyDescription =~~ "(?i)chest|thorax"': ({"StudyDescription": "CT Thorax"}, {"StudyDescription": None}),
    'calling_aet == "CT1" and Modality == "CT"': ({"calling_aet": "CT1", "Modality": "CT"}, {"calling_aet": "CT1", "Modality": "SR"}),
    'InstitutionName == null or InstitutionName.as_upper == "NORTH CLINIC"': (
        {"InstitutionName": "North Clinic"},
        {"InstitutionName": "South Clinic"},
    ),
    'Modality == "MG" or (Modality == "DX" and Rows > 2000)': ({"Modality": "DX", "Rows": 2001}, {"Modality": "DX", "Rows": 512}),
    '"uid-leading-zero" in findings': ({"SOPInstanceUID": "1.2.03"}, {"SOPInstanceUID": "1.2.3"}),
    'ReferencedStudySequence[0].ReferencedSOPInstanceUID == "1.2.3"': (
        {"ReferencedStudySequence": [{"00081155": {"vr": "UI", "Value": ["1.2.3"]}}]},
        {"ReferencedStudySequence": None},
    ),
    '$any([each.CodeValue == "RPID16" for each in ProcedureCodeSequence])': (
        {"ProcedureCodeSequence": [{}, {"00080100": {"vr": "SH", "Value": ["RPID16"]}}]},
        {"ProcedureCodeSequence": [{"00080100": {"vr": "SH", "Value": ["OTHER"]}}]},
    ),
}


@pytest.mark.parametrize("when", [when for when in EXAMPLES if not when.startswith("tag(")])  # private ones: test_rule_names.py
def test_an_example_of_the_reference_page_means_what_the_page_says(when: str) -> None:
    asked_for, left_alone = ASKED[when]

    def validated(attributes: dict[str, object]) -> InstanceAccepted:
        event = an_instance(**attributes)
        return InstanceAccepted.following(event, tuple(findings(event.instance)))

    assert destinations(when, validated(asked_for)) == ["pacs"]
    assert left_alone is None or destinations(when, validated(left_alone)) == []


@pytest.mark.parametrize(
    ("when", "matches"),
    [
        ('StudyDescription != "x"', True),
        ('StudyDescription =~ ".*"', False),
        ('StudyDescription !~ ".*"', True),
        ('"x" in StudyDescription', False),
        ("ImageType.is_empty", True),
        ('SliceThickness < 2 or Modality == "CT"', False),
        ('Modality == "CT" or SliceThickness < 2', True),
        ("(SliceThickness ?? 1) < 2", True),
    ],
)
def test_what_is_absent_is_taken_as_the_reference_page_says(when: str, matches: bool) -> None:
    event = accepted(Modality="CT", StudyDescription=None, SliceThickness=None, ImageType=None)

    assert destinations(when, event) == (["pacs"] if matches else [])


def test_a_comparison_with_a_number_that_is_not_one_does_not_match() -> None:
    assert destinations("SliceThickness < 2", accepted(SliceThickness=None)) == []


def test_a_rule_asks_who_sent_the_object() -> None:
    event = accepted()

    assert destinations(f'calling_aet == "{event.instance.source.calling_aet}"', event) == ["pacs"]
    assert destinations('calling_aet == "SOMEONE_ELSE"', event) == []


def test_a_misspelt_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(Misconfigured, match=r"'r' names 'Modalty', which is unknown\. Did you mean Modality\?"):
        Rules([Rule(name="r", when='Modalty == "CT"', to=())])


@pytest.mark.parametrize(
    "when",
    [
        'Modality == "CT',
        "1/0 == 1",
        "Modality + 1 == 3",
        "PixelData == 1",
        "ProcedureCodeSequence == 1",
        "x" * 9000,
        " or ".join(["Rows > 1"] * 650),
    ],
)
def test_a_rule_that_cannot_work_is_refused_when_it_is_read(when: str) -> None:
    with pytest.raises(Misconfigured, match="Rule 'r'"):
        Rules([Rule(name="r", when=when, to=())])


@pytest.mark.parametrize(
    ("when", "sentence"),
    [
        ('ImageType == "ORIGINAL"', r'compares ImageType \(a list of texts\) with .* never equal\. Write "ORIGINAL" in ImageType\.'),
        ('"ORIGINAL" != ImageType', r'they always differ\. Write "ORIGINAL" not in ImageType\.'),
        ('findings == "uid-leading-zero"', r'Write "uid-leading-zero" in findings\.'),
        ("ImageType == null", r"Write ImageType\.is_empty\."),
        ("ImageType == [1]", r"a list of texts.*a list of numbers"),
        ('Rows == "abc"', r'compares Rows \(a number\) with "abc" \(text\): they are never equal'),
        ("Modality == $today", r"compares Modality \(text\) with \$today \(a moment\)"),
        ("Modality == $tody", r"names \$tody, which is unknown.*\$today"),
        ('Modality in ["CT", 5]', r"looks for Modality \(text\) in a list that holds a number"),
        ("5 in ImageType", r"looks for 5 \(a number\) in a list that holds text"),
        ("null in ImageType", r"looks for null in a list that holds text"),
        ("Modality", r"gives text, not true or false"),
        ("ImageType", r"gives a list of texts, not true or false"),
        ("not Modality", r"takes Modality \(text\) for true or false"),
        ('Modality == "CT" or "MR"', r'takes "MR" \(text\) for true or false.*Modality == "CT" or Modality == "MR"'),
        ('Modality == "CT" or ("MR" or "US")', r"has a part that is always true"),
        ("Modality ? true : false", r"takes Modality \(text\) for true or false"),
        ("$any([x for x in ImageType if x])", r"takes x \(text\) for true or false"),
        ("1 == 1", r"is always true, whatever the object"),
    ],
)
def test_a_rule_that_is_the_same_for_every_object_is_refused_with_what_was_probably_meant(when: str, sentence: str) -> None:
    with pytest.raises(Misconfigured, match=f"Rule 'r' .*{sentence}"):
        Rules([Rule(name="r", when=when, to=())])


@pytest.mark.parametrize(
    "when",
    [
        "true # everything",
        'ImageType == ["ORIGINAL", "PRIMARY"]',
        'Modality in ["CT", null]',
        "Rows != null",
        'ImageType[0] == "ORIGINAL"',
        "0.5 in PixelSpacing",
        '$any([each == "PRIMARY" for each in ImageType])',
        "$parse_datetime(StudyDate) < $now",
        'Modality == "CT" ? Rows == 512 : false',
    ],
)
def test_a_rule_that_compares_like_with_like_is_taken_and_asked(when: str) -> None:
    event = accepted(
        Modality="CT", ImageType=["ORIGINAL", "PRIMARY"], Rows=512, PixelSpacing=["0.5", "0.5"], StudyDate="20200131", StudyTime="101112"
    )

    assert destinations(when, event) == ["pacs"]


def test_names_that_are_no_attributes_are_not_looked_up_in_objects() -> None:
    rules = Rules([Rule(name="r", when='$any([each == "PRIMARY" for each in ImageType]) and $now > $today', to=())])

    assert rules.tags == {"00080008"}


def test_a_rule_that_fails_on_an_object_sets_the_object_aside_and_names_the_rule() -> None:
    with pytest.raises(Quarantine, match="Rule 'r' could not be evaluated"):
        destinations("1 / Rows > 0.5", accepted(Rows=0))


def test_each_destination_is_named_once_with_every_rule_that_asks_for_it() -> None:
    rules = Rules(
        [
            Rule(name="all", when="true", to=("archive", "pacs")),
            Rule(name="ct", when='Modality == "CT"', to=("pacs",)),
        ]
    )

    assert rules.destinations(accepted(Modality="CT")) == {"archive": ("all",), "pacs": ("all", "ct")}


def test_rules_tell_which_attributes_they_need() -> None:
    rules = Rules([Rule(name="r", when='Modality == "CT" and calling_aet == "CT1"', to=())])

    assert rules.tags == {"00080060"}
