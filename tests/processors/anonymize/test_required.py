"""Attributes that a class requires: what is written wrongly in them is neither left out nor made up, and no policy takes them away."""

from __future__ import annotations

import pytest
from pydicom.dataset import Dataset

from processors.anonymize.held import HeldReason
from processors.anonymize.policy import Policy
from tests.processors.anonymize.objects import Raw, a_context, a_file, a_policy, deidentified, held, out_of, read

ENHANCED_CT, RT_PLAN = "1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.481.5"
ID: Raw = (0x00100020, "LO", b"P1")


def made(*elements: Raw, of: Policy | str = "basic", sop_class: str = "", trace: bool = False) -> Dataset:
    original = a_file([ID, *elements], sop_class=sop_class) if sop_class else a_file([ID, *elements])
    return read(out_of(original, a_context(of), trace=trace))


@pytest.mark.parametrize(
    ("tag", "vr", "value"),
    [
        (0x00080008, "CS", b"o-x "),
        (0x00080060, "CS", b"c.t."),
        (0x00180060, "DS", b"120 kV"),
        (0x00200013, "IS", b"1a"),
        (0x00200032, "DS", b"0mm\\1mm\\2mm "),
        (0x00200037, "DS", b"nan\\0\\0\\0\\1\\0 "),
        (0x00280004, "CS", b"monochrome2 "),
        (0x00280030, "DS", b"0,66\\0,66 "),
        (0x00281052, "DS", b"-1024,0 "),
    ],
)
def test_what_is_none_of_its_vr_where_the_class_requires_one_is_held(tag: int, vr: str, value: bytes) -> None:
    stop = held(a_file([ID, (tag, vr, value)]))

    assert stop.reason == HeldReason.VALUE_MALFORMED
    assert stop.place == f"({tag >> 16:04X},{tag & 0xFFFF:04X})"
    assert stop.fix


@pytest.mark.parametrize("trace", [False, True], ids=["fast", "plain"])
def test_what_the_class_does_not_require_goes(trace: bool) -> None:
    assert "TableHeight" not in made((0x00181130, "DS", b"15,5"), trace=trace)


@pytest.mark.parametrize("trace", [False, True], ids=["fast", "plain"])
@pytest.mark.parametrize("value", [b"\t-1024\r\n", b"-1024 \0\0", b"-1024\0"])
def test_what_stands_around_a_number_and_says_nothing_holds_no_object(value: bytes, trace: bool) -> None:
    assert made((0x00281052, "DS", value), trace=trace).RescaleIntercept == -1024


def test_a_number_that_functional_groups_require_is_held() -> None:
    measures: Raw = (0x00289110, "SQ", [[(0x00280030, "DS", b"0,66\\0,66 ")]])

    assert held(a_file([ID, (0x52009229, "SQ", [[measures]])], sop_class=ENHANCED_CT)).reason == HeldReason.VALUE_MALFORMED


def test_of_image_type_the_two_values_that_it_must_have_are_required() -> None:
    kept = made((0x00080008, "CS", b"ORIGINAL\\PRIMARY\\o-x")).ImageType

    assert list(kept) == ["ORIGINAL", "PRIMARY", ""]
    assert held(a_file([ID, (0x00080008, "CS", b"ORIGINAL\\o-x\\AXIAL ")])).reason == HeldReason.VALUE_MALFORMED


def test_what_the_profile_empties_is_emptied_if_it_is_none() -> None:
    assert made((0x00100040, "CS", b"w.d."), of=a_policy("retain-patient-characteristics")).PatientSex == ""


@pytest.mark.parametrize("wish", ["remove", "empty"])
def test_what_must_be_there_and_may_be_empty_is_emptied(wish: str) -> None:
    assert made((0x00180050, "DS", b"1.5 "), of=a_policy(more=f'[attributes]\nSliceThickness = "{wish}"')).SliceThickness is None


@pytest.mark.parametrize("wish", ["remove", "empty"])
def test_an_object_is_held_whose_class_requires_a_code_that_the_policy_takes_away(wish: str) -> None:
    stop = held(a_file([ID, (0x00102210, "CS", b"BIPED ")]), a_policy(more=f'[attributes]\nAnatomicalOrientationType = "{wish}"'))

    assert stop.reason == HeldReason.POLICY
    assert stop.place == "(0010,2210)"


def test_windows_may_go() -> None:
    more = '[attributes]\nWindowCenter = "remove"\nWindowWidth = "remove"'
    of = a_policy(more=f'refuse = ["Ophthalmic Optical Coherence Tomography En Face Image Storage"]\n{more}')

    assert "WindowCenter" not in made((0x00281050, "DS", b"40"), (0x00281051, "DS", b"80"), of=of)


@pytest.mark.parametrize("trace", [False, True], ids=["fast", "plain"])
@pytest.mark.parametrize("options", [(), ("retain-uids",)])
@pytest.mark.parametrize("tag", [0x00080018, 0x0020000D, 0x0020000E])
def test_an_object_whose_own_uid_is_a_nought_is_held(tag: int, options: tuple[str, ...], trace: bool) -> None:
    stop = held(a_file([ID, (tag, "UI", b"0\0")]), a_policy(*options), trace=trace)

    assert stop.reason == HeldReason.UID_INVALID
    assert stop.place == f"({tag >> 16:04X},{tag & 0xFFFF:04X})"


def test_a_nought_for_the_uid_of_something_else_stands_for_none() -> None:
    assert made((0x00081155, "UI", b"0\0")).ReferencedSOPInstanceUID == "0"


@pytest.mark.parametrize("trace", [False, True], ids=["fast", "plain"])
@pytest.mark.parametrize("options", [(), ("retain-safe-private",)])
@pytest.mark.parametrize("tag", [0x00209213, 0x00209238, 0x00720054, 0x00720056])
def test_a_private_creator_that_is_not_of_the_safe_list_is_free_text(tag: int, options: tuple[str, ...], trace: bool) -> None:
    assert b"Brandt" not in out_of(a_file([ID, (tag, "LO", b"Brandt Oliver ")]), a_context(a_policy(*options)), trace=trace)


def test_a_private_creator_of_the_safe_list_stays() -> None:
    of = a_policy("retain-safe-private")

    assert made((0x00209213, "LO", b"SIEMENS MR HEADER "), of=of).DimensionIndexPrivateCreator == "SIEMENS MR HEADER"


def test_what_is_required_with_what_is_gone_goes_too() -> None:
    person = made((0x00102297, "PN", b"Doe^John"), (0x00102298, "CS", b"OWNER "))

    assert not person.get("ResponsiblePerson")
    assert "ResponsiblePersonRole" not in person


def test_all_who_are_called_as_nobody_are_not_one_patient() -> None:
    def pseudonym(patient_id: str, study: str) -> str:
        return str(deidentified(_of(patient_id, study)).PatientID)

    assert pseudonym("UNKNOWN", "1.2.3") != pseudonym("UNKNOWN", "1.2.4")
    assert pseudonym("UNKNOWN", "1.2.3") == pseudonym("0", "1.2.3") == pseudonym("", "1.2.3")


def _of(patient_id: str, study: str) -> Dataset:
    ds = read(a_file([]))
    ds.PatientID, ds.StudyInstanceUID = patient_id, study
    return ds
