"""Policies: what they may say, and every mistake in them named."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from hilum.candidate import read
from hilum.errors import Misconfigured
from processors.anonymize.policy import policy, policy_of, policy_of_builtins, shipped


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('options = ["retain-uid"]', "Did you mean retain-uids"),
        ('options = ["retain-full-dates", "retain-modified-dates"]', "contradict each other"),
        ('[attributes]\nPatientNam = "remove"', "Did you mean PatientName"),
        ('[attributes]\nPatientName = "keep"', "would not be the Basic Profile"),
        ('[attributes]\nPatientID = "empty"\n"(0010,0020)" = "remove"', "the same attribute"),
        ('[attributes]\nSOPInstanceUID = "remove"', "the object is none"),
        ('[attributes]\nPatientAge = "clean"', "cannot be cleaned"),
        ('[attributes]\nRows = "remove"', "nobody can read the object"),
        ('[attributes]\nPixelSpacing = "replace"', "nobody can read the object"),
        ('[attributes]\nSliceThickness = "replace"', "taken for a measurement"),
        ('[attributes]\nSpecificCharacterSet = "replace"', "Hilum writes it itself"),
        ('[attributes]\nPixelData = "replace"', "nobody can read the object"),
        ('[attributes]\n"PatientName/PatientID" = "remove"', "is no sequence"),
        ('[attributes]\nTransferSyntaxUID = "replace"', "Hilum writes it itself|no attribute"),
        ('[attributes]\nSOPClassUID = "replace"', "Hilum writes it itself"),
        ('[attributes]\nPatientIdentityRemoved = "remove"', "Hilum writes it itself"),
        ('[attributes]\nDeidentificationMethod = "keep"', "Hilum writes it itself"),
        ('[attributes]\nContentSequence = "replace"', "is a sequence"),
        ('[attributes]\nPatientSex = "replace"', "is a code"),
        ('[attributes]\nModality = "remove"', "type 1 in Computed Radiography Image Storage, CT Image Storage"),
        ('[attributes]\nImageType = "empty"', "type 1 in .*CT Image Storage"),
        ('[attributes]\nImagePositionPatient = "remove"', "type 1 in .*MR Image Storage"),
        ('[attributes]\n"SharedFunctionalGroupsSequence/PixelMeasuresSequence/PixelSpacing" = "remove"', "nobody can read the object"),
        ('[attributes]\n"MeasuredValueSequence/NumericValue" = "remove"', "type 1 in .*Basic Text SR Storage"),
        ('refuse = ["CT"]', "Did you mean CT Image Storage"),
        ('refuse = ["CT Image Storag"]', "Did you mean CT Image Storage"),
        ('refuse = ["1.2.840.10008.5.1.4.1.1.2 "]', r"Did you mean 1\.2\.840\.10008\.5\.1\.4\.1\.1\.2\?"),
        ('refuse = ["ultrasond"]', "Did you mean ultrasound"),
        ('refuse = ["1.2.3"]', "no SOP class of PS3.6"),
        ('refuse = ["ultrasound"]\nkinds.ultrasound = "mask"', "kinds say something else"),
        ('options = ["clean-recognizable-visual-features"]\nkinds.head-volume = "pass: x"', "heads pass"),
        ('[attributes]\nPatientID = "hash"', "PatientID"),
        ('[[private]]\ncreator = "X"\nelement = "0019,xx0C"\nvr = "IS"', "do not have retain-safe-private"),
        ('options = ["retain-safe-private"]\n[[private]]\ncreator = "X"\nelement = "0018,xx0C"\nvr = "IS"', "is no private element"),
        ('options = ["retain-safe-private"]\n[[private]]\ncreator = "X"\nelement = "0019,xx0C"\nvr = "SQ"', "cannot be kept"),
        ('character_set = "latin-1"', "no term"),
        ('option = ["retain-uids"]', "option"),
        ("options = [", "is not TOML"),
        ('words = ["two words"]', "not one word"),
        ('domain = "a b"', "domain"),
    ],
)
def test_a_mistake_is_named(text: str, says: str) -> None:
    with pytest.raises(Misconfigured, match=says):
        policy_of(text, "mine")


def test_all_mistakes_are_named_at_once() -> None:
    with pytest.raises(Misconfigured) as wrong:
        policy_of('options = ["nothing"]\n[attributes]\nNonsense = "remove"\nPatientName = "keep"', "mine")

    assert all(each in str(wrong.value) for each in ("'nothing'", "'Nonsense'", "PatientName"))


SPOILED = """
options = ["retain-fulldates", 3]
refuse = [1]
[attributes]
StudyDescription = "cleann"
SoftwareVersion = "remove"
"(0008,008)" = "remove"
PixelData = "remove"
"RequestAttributesSequence/PatientNam" = "remove"
[kinds]
ultrasound = "mark"
sr-text = 3
[[private]]
creator = "ACME"
element = "0018,xx0C"
vr = "DS"
[[masks]]
rows = -1
boxes = [[0, 0, 0, 40]]
[[masks]]
rows = 480
"""
MISTAKES = [
    "options[#2] cannot be 3",
    "options: there is no option 'retain-fulldates'",
    "refuse[#1] cannot be 1",
    'attributes.StudyDescription cannot be "cleann". Did you mean clean?',
    "attributes: 'SoftwareVersion' is no attribute of the dictionary. Did you mean SoftwareVersions?",
    "attributes: '(0008,008)' is no attribute of the dictionary",
    "attributes: PixelData cannot be remove",
    "attributes: 'PatientNam' of 'RequestAttributesSequence/PatientNam' is no attribute of the dictionary. Did you mean PatientName?",
    "kinds: ultrasound cannot be 'mark'",
    "kinds.sr-text cannot be 3",
    "private: '0018,xx0C' is no private element",
    "masks[#1].rows cannot be -1",
    "masks: the mask number 2 says nothing",
]


def test_each_mistake_of_a_file_is_named_at_once_with_the_file_and_the_key(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(SPOILED, encoding="utf-8")

    with pytest.raises(Misconfigured) as wrong:
        policy("mine", tmp_path)

    lines = str(wrong.value).splitlines()[1:]
    assert [each for each in MISTAKES if f"- {file}: {each}" not in str(wrong.value)] == []
    assert len(lines) == len(MISTAKES)


def test_mistakes_of_several_policies_say_of_which_each_is(tmp_path: Path) -> None:
    (tmp_path / "policies").mkdir()
    for name, text in (("one", 'options = ["retain-uid"]'), ("other", "[[masks]]\nrows = -1\n[kinds]\nultrasound = 1")):
        (tmp_path / "policies" / f"{name}.toml").write_text(text, encoding="utf-8")
    tables = (f'[destinations.{name}]\ntype = "folder"\npath = "/srv"\npolicy = "{name}"\n' for name in ("one", "other"))
    (tmp_path / "destinations.toml").write_text("".join(tables), encoding="utf-8")

    with pytest.raises(Misconfigured) as wrong:
        read(tmp_path)

    said = str(wrong.value).splitlines()[1:]
    assert [each.count(f"{name}.toml: ") for each, name in zip(said, ("one", "other", "other"), strict=True)] == [1, 1, 1]


def test_sop_classes_are_refused_by_uid_name_or_keyword_and_are_one() -> None:
    uid = "1.2.840.10008.5.1.4.1.1.2"
    versions = {policy_of(f'refuse = ["{each}"]', "mine").version for each in (uid, "CT Image Storage", "CTImageStorage")}

    assert policy_of('refuse = ["CTImageStorage"]', "mine").refuse == (uid,)
    assert len(versions) == 1


def test_a_name_of_a_sop_class_and_of_its_retired_predecessor_is_of_both() -> None:
    assert len(policy_of('refuse = ["Nuclear Medicine Image Storage"]', "mine").refuse) == 2


def test_a_refused_kind_is_held() -> None:
    assert policy_of('refuse = ["head-volume"]', "mine").version == policy_of('kinds.head-volume = "hold"', "mine").version


def test_an_attribute_may_be_removed_where_the_classes_that_need_it_are_refused() -> None:
    removed = '[attributes]\nBodyPartExamined = "remove"'
    with pytest.raises(Misconfigured, match="type 1 in Corneal Topography Map Storage"):
        policy_of(removed, "mine")

    assert policy_of(f'refuse = ["Corneal Topography Map Storage"]\n{removed}', "mine").attributes


def test_a_published_policy_is_the_one_that_was_read() -> None:
    read_ = policy_of('options = ["clean-recognizable-visual-features"]\nrefuse = ["CT Image Storage", "icon"]', "mine")

    assert policy_of_builtins(msgspec.to_builtins(read_)).version == read_.version


def test_the_shipped_policies_are_right() -> None:
    assert shipped() == ["basic", "research"]
    assert policy("basic").options == ()
    assert "retain-modified-dates" in policy("research").options


def test_the_version_names_what_a_policy_says_and_not_how() -> None:
    one = policy_of('summary = "a"\noptions = ["retain-uids", "clean-graphics"]', "mine")
    same = policy_of('options = ["clean-graphics", "retain-uids"]', "mine")
    other = policy_of('options = ["retain-uids", "clean-graphics"]\n[attributes]\nManufacturer = "remove"', "mine")

    assert len(one.version) == 12
    assert one.version == same.version
    assert one.version != other.version


def test_the_versions_of_shipped_policies_change_only_on_purpose() -> None:
    """What left under them is listed by these; a change of the table, of the engine or of the policy gives another."""
    assert (policy("basic").version, policy("research").version) == ("7b7ebfd12017", "d7f5ba4ae9d3")


def test_a_sites_policy_wins_over_a_shipped_one(tmp_path: Path) -> None:
    (tmp_path / "basic.toml").write_text('options = ["retain-uids"]', encoding="utf-8")

    assert policy("basic", tmp_path).options == ("retain-uids",)
    assert policy("research", tmp_path).options != ()


def test_an_unknown_policy_is_named_with_the_nearest() -> None:
    with pytest.raises(Misconfigured, match="Did you mean research"):
        policy("reserch")


def test_a_value_of_the_wrong_shape_names_its_file_and_hides_no_other_mistake() -> None:
    shape = "[[masks]]\nboxes = [[1, 2, 3]]\n"

    with pytest.raises(Misconfigured, match=r"^mine\.toml: masks"):
        policy_of(shape, "mine", "mine.toml")
    with pytest.raises(Misconfigured) as both:
        policy_of(f'options = ["retain-uid"]\n{shape}', "mine", "mine.toml")
    assert "Did you mean retain-uids" in str(both.value)
    assert "masks" in str(both.value)
