"""The policies of docs/operations/policies.md are valid, and do what the page says."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset

from hilum.errors import Misconfigured
from processors.anonymize.held import Held
from processors.anonymize.outgoing import outgoing
from processors.anonymize.policy import Policy, policy, policy_of
from tests.processors.anonymize.objects import a_context, a_file, a_policy, an_object, deidentified, out_of, part10, read
from tests.processors.anonymize.test_pixels import an_image

PAGE = Path(__file__).parents[3] / "docs" / "operations" / "policies.md"
US, CAPTURE = "1.2.840.10008.5.1.4.1.1.6.1", "1.2.840.10008.5.1.4.1.1.7"


@cache
def documented() -> dict[str, str]:
    """The policies of the page, by the headings above them."""
    sections = re.split(r"^## ", PAGE.read_text("utf-8"), flags=re.MULTILINE)[1:]
    found = ((each.partition("\n")[0], re.search(r"^```toml policy\n(.*?)^```", each, re.MULTILINE | re.DOTALL)) for each in sections)
    return {heading: block[1] for heading, block in found if block}


def written(beginning: str) -> Policy:
    [text] = [text for heading, text in documented().items() if heading.startswith(beginning)]
    return policy_of(text, "written")


def item(**attributes: Any) -> Dataset:
    made = Dataset()
    for keyword, value in attributes.items():
        setattr(made, keyword, value)
    return made


def test_every_key_of_a_policy_is_in_an_example() -> None:
    keys = {key for text in documented().values() for key in re.findall(r"^\[*(\w+)\]* *(?:=|$)", text, re.MULTILINE)}

    assert set(Policy.__struct_fields__) - {"name", "text"} <= keys  # `text` is on the page of pixels


def test_an_empty_file_is_the_basic_profile() -> None:
    empty, basic = deidentified(an_object(), policy_of("", "basic")), deidentified(an_object(), policy("basic"))

    assert (empty.StudyDate, empty.PatientID) == (basic.StudyDate, basic.PatientID)


def test_attributes_are_named_by_keyword_tag_and_path() -> None:
    step = item(ScheduledProcedureStepDescription="CT Thorax", ScheduledProcedureStepID="1")
    original = an_object(
        SoftwareVersions="V1",
        FilterType="WEDGE",
        RequestAttributesSequence=[step],
        ReferencedRequestSequence=[item(ScheduledProcedureStepDescription="CT Thorax", SoftwareVersions="V1")],
        SeriesDescription="HRCT Smith",
        StudyDescription="HRCT lungcad Smith",
        ConvolutionKernel="Smith",
        ReceiveCoilName="Smith",
    )
    made = deidentified(original, written("A project"))

    assert "SoftwareVersions" not in made
    assert made.FilterType is None or made.FilterType == ""
    assert ["ScheduledProcedureStepDescription" in each for each in made.RequestAttributesSequence] == [False]
    assert made.SeriesDescription not in ("", "HRCT Smith", "HRCT")
    assert made.StudyDescription == "HRCT lungcad"
    assert "Smith" not in made.get("ConvolutionKernel", "")
    assert made.ReceiveCoilName == "Smith"


def test_a_keyword_is_meant_in_every_sequence_and_a_path_there_alone() -> None:
    within = item(SoftwareVersions="V1", ConvolutionKernel="B30f")
    original = an_object(ConvolutionKernel="B30f", SoftwareVersions="V1", RequestAttributesSequence=[within])
    of = a_policy(
        "clean-descriptors", more='[attributes]\nSoftwareVersions = "remove"\n"RequestAttributesSequence/ConvolutionKernel" = "remove"'
    )
    without, made = deidentified(original, a_policy("clean-descriptors")), deidentified(original, of)

    assert "SoftwareVersions" in without.RequestAttributesSequence[0]
    assert "ConvolutionKernel" in without.RequestAttributesSequence[0]
    assert "SoftwareVersions" not in made
    assert made.ConvolutionKernel == "B30f"
    assert "SoftwareVersions" not in made.RequestAttributesSequence[0]
    assert "ConvolutionKernel" not in made.RequestAttributesSequence[0]


def test_two_policies_of_one_domain_give_the_same_pseudonym_and_of_two_others() -> None:
    written_, same, other = written("A project"), policy_of('domain = "lung-2026"', "second"), policy_of("", "third")
    ids = [deidentified(an_object(), each).PatientID for each in (written_, same, other)]

    assert ids[0] == ids[1] != ids[2]


def test_text_of_objects_without_a_character_set_is_read_as_the_policy_says() -> None:
    original = part10(an_object(PatientName="Doe^Jane", StudyDescription="HRCT")).replace(b"HRCT", "HR\u00dc ".encode("latin-1"))

    with pytest.raises(Held):
        out_of(original, a_context(a_policy("clean-descriptors")))
    assert out_of(original, a_context(written("A project")))


def test_private_elements_stay_by_creator_place_and_vr() -> None:
    original = an_object()
    block = original.private_block(0x0019, "ACME PERFUSION 01", create=True)
    block.add_new(0x0C, "DS", "12.5")
    block.add_new(0x0D, "LO", "CT Smith")
    block.add_new(0x0E, "DS", "13.5")
    other = original.private_block(0x0019, "ANOTHER", create=True)
    other.add_new(0x0C, "DS", "14.5")
    made = deidentified(original, written("Private"))
    kept = made.private_block(0x0019, "ACME PERFUSION 01")

    assert kept[0x0C].value == "12.5"
    assert kept[0x0D].value == "CT"
    assert 0x0E not in kept
    assert b"ANOTHER" not in part10(made)


@pytest.mark.parametrize(("vr", "value"), [("SH", "12.5"), ("DS", "Smith")])
def test_an_object_whose_private_element_is_not_what_the_policy_says_is_held(vr: str, value: str) -> None:
    wrong = part10_of_private(vr, value)

    with pytest.raises(Held, match="0019,100C"):
        out_of(wrong, a_context(written("Private")))


def part10_of_private(vr: str, value: str) -> bytes:
    element = (0x0019100C, vr, value.encode())
    return a_file([(0x00190010, "LO", b"ACME PERFUSION 01 "), element])


@pytest.mark.parametrize("vr", ["OB", "OW", "UN", "SQ", "LT"])
def test_what_nobody_can_look_into_cannot_be_kept(vr: str) -> None:
    [text] = [text for heading, text in documented().items() if heading.startswith("Private")]

    with pytest.raises(Misconfigured, match="cannot be kept"):
        policy_of(text.replace('"DS"', f'"{vr}"'), "mine")


def echo(model: str, **more: Any) -> bytes:
    return part10(an_image(SOPClassUID=US, Modality="US", Manufacturer="ACME", ManufacturerModelName=model, **more))


def left(original: bytes) -> Any:
    return read(b"".join(outgoing(original, a_context(written("Ultrasound"))).parts))


def test_masks_paint_what_they_fit_and_what_none_fits_is_held() -> None:
    painted = left(echo("ECHO 7")).pixel_array
    assert not painted[:2].any()
    assert not painted[2:4, 8:].any()
    assert painted[4:].all()
    assert left(echo("Probe 1")).pixel_array.all()
    for model in ("Unknown", "Portable"):  # the last one has no regions
        with pytest.raises(Held):
            left(echo(model))


def test_what_is_outside_of_regions_is_painted() -> None:
    region = item(
        RegionSpatialFormat=1, RegionDataType=1, RegionLocationMinX0=2, RegionLocationMinY0=2, RegionLocationMaxX1=5, RegionLocationMaxY1=5
    )
    painted = left(echo("Portable", SequenceOfUltrasoundRegions=[region])).pixel_array

    assert painted[2:6, 2:6].all()
    assert not painted[:2].any()


@pytest.mark.parametrize(
    ("original", "leaves"),
    [
        (an_image(SOPClassUID=CAPTURE, Modality="CT"), False),
        (an_image(SOPClassUID="1.2.840.10008.5.1.4.1.1.1", Modality="CR"), True),
        (an_image(BodyPartExamined="HEAD", SliceThickness="1"), False),
        (an_image(BodyPartExamined="CHEST", SliceThickness="1"), True),
    ],
    ids=["refused", "radiograph", "head", "chest"],
)
def test_what_is_refused_and_what_passes(original: Dataset, leaves: bool) -> None:
    if leaves:
        assert left(part10(original))
        return
    with pytest.raises(Held):
        left(part10(original))


def test_what_is_refused_is_refused_whatever_kinds_say() -> None:
    of = a_policy(more=f'refuse = ["{CAPTURE}"]\n[kinds]\nsecondary-capture = "pass: looked at"')

    with pytest.raises(Held):
        outgoing(part10(an_image(SOPClassUID=CAPTURE)), a_context(of))


def test_a_way_back_changes_nothing_of_what_leaves() -> None:
    of = written("A way back")
    [text] = [text for heading, text in documented().items() if heading.startswith("A way back")]
    without = policy_of(text.replace("reverse = true", ""), "written")

    assert of.reverse
    assert of.version == without.version
    assert out_of(part10(an_object()), a_context(of)) == out_of(part10(an_object()), a_context(without))


def test_mistakes_are_said_as_the_page_says() -> None:
    said = re.search(r"^```text\n(.*?)^```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert said is not None

    with pytest.raises(Misconfigured) as wrong:
        policy_of('options = ["retain-fulldates"]\n[attributes]\nStudyDescription = "cleann"', "lung", where="config/policies/lung.toml")
    assert str(wrong.value).strip() == said[1].strip()
