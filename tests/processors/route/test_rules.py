import pytest

from hilum.errors import Misconfigured, Quarantine
from hilum.events import InstanceAccepted
from hilum.settings import Rule
from hilum.testing import an_instance
from processors.route.rules import Rules


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
    "when", ['Modality == "CT', "1/0 == 1", "Modality + 1 == 3", "PixelData == 1", "ProcedureCodeSequence == 1", "x" * 9000]
)
def test_a_rule_that_cannot_work_is_refused_when_it_is_read(when: str) -> None:
    with pytest.raises(Misconfigured, match="Rule 'r'"):
        Rules([Rule(name="r", when=when, to=())])


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
