from __future__ import annotations

import io
from datetime import UTC, datetime
from typing import Any

import pydicom
import pytest
from msgspec.structs import replace
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from hilum.dicom.edits import Edits, edited
from hilum.dicom.recode import CannotRecode, pieces
from hilum.part10 import data_set_offset

AT = datetime(2026, 11, 26, 12, tzinfo=UTC)


def edits(**values: str) -> Edits:
    return Edits(values=values, at=AT)


def written(dataset: Dataset, syntax: str = ExplicitVRLittleEndian) -> bytes:
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", "1.2.3"
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def apply(part10: bytes, wanted: Edits) -> Dataset:
    """The object as a receiver reads it."""
    at = data_set_offset(part10)
    syntax = pydicom.dcmread(io.BytesIO(part10), stop_before_pixels=True).file_meta.TransferSyntaxUID
    found = edited(part10, at, syntax, wanted)
    assert found is not None
    return pydicom.dcmread(io.BytesIO(part10[:at] + b"".join(pieces(found.parts, 1 << 20))))


def an_object(**values: Any) -> Dataset:
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.PatientName, dataset.PatientID = "Meier^Anna", "4711"
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return dataset


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_the_object_has_the_new_values_and_says_what_they_were(syntax: str) -> None:
    found = apply(written(an_object(), syntax), edits(PatientName="Maier^Anna", PatientID="4712"))

    assert (found.PatientName, found.PatientID) == ("Maier^Anna", "4712")
    (item,) = found.OriginalAttributesSequence
    assert (item.ReasonForTheAttributeModification, item.ModifyingSystem, item.SourceOfPreviousValues) == ("COERCE", "HILUM", "")
    assert item.AttributeModificationDateTime == "20261126120000+0000"
    (before,) = item.ModifiedAttributesSequence
    assert (before.PatientName, before.PatientID) == ("Meier^Anna", "4711")


def test_an_attribute_that_was_not_there_is_added_and_was_empty() -> None:
    found = apply(written(an_object()), edits(AccessionNumber="A1"))

    assert found.AccessionNumber == "A1"
    assert found.OriginalAttributesSequence[0].ModifiedAttributesSequence[0].AccessionNumber == ""


def test_items_of_former_changes_stay_in_front() -> None:
    former = Dataset()
    former.ModifyingSystem = "RIS"
    dataset = an_object(OriginalAttributesSequence=Sequence([former]))
    found = apply(written(dataset), edits(PatientID="4712"))

    assert [item.ModifyingSystem for item in found.OriginalAttributesSequence] == ["RIS", "HILUM"]


@pytest.mark.parametrize("name", ["CT_small.dcm", "JPEG2000.dcm", "MR_small_implicit.dcm"])
def test_pixels_and_all_else_stay_as_they_were(name: str) -> None:
    path = get_testdata_file(name)
    assert isinstance(path, str)
    with open(path, "rb") as file:  # noqa: PTH123  # a name of pydicom's
        part10 = file.read()
    before, found = pydicom.dcmread(path), apply(part10, edits(PatientName="Other^Name"))

    assert found.PixelData == before.PixelData
    for element in before:
        if element.keyword not in ("PatientName", "OriginalAttributesSequence") and element.tag.element:
            assert found[element.tag].value == element.value, element.keyword


def test_a_value_that_does_not_fit_the_character_set_has_the_whole_object_written_in_utf_8() -> None:
    inner = Dataset()
    inner.CodeMeaning = "Schädel"
    dataset = an_object(PatientComments="Größe", ProcedureCodeSequence=Sequence([inner]))
    found = apply(written(dataset), edits(PatientName="Дворжак^Антонин"))

    assert found.SpecificCharacterSet == "ISO_IR 192"
    assert (found.PatientName, found.PatientComments) == ("Дворжак^Антонин", "Größe")
    assert found.ProcedureCodeSequence[0].CodeMeaning == "Schädel"
    assert found.OriginalAttributesSequence[0].ModifiedAttributesSequence[0].PatientName == "Meier^Anna"


def test_items_with_a_character_set_of_their_own_are_written_in_utf_8_too() -> None:
    inner = Dataset()
    inner.SpecificCharacterSet = "ISO_IR 144"
    inner.CodeMeaning = "Череп"
    found = apply(written(an_object(ProcedureCodeSequence=Sequence([inner]))), edits(PatientName="Дворжак^Антонин"))

    assert found.ProcedureCodeSequence[0].CodeMeaning == "Череп"
    assert found.ProcedureCodeSequence[0].SpecificCharacterSet == "ISO_IR 192"


def test_code_extensions_are_written_in_utf_8_if_need_be() -> None:
    dataset = an_object(SpecificCharacterSet=["", "ISO 2022 IR 87"], PatientName="Yamada^Tarou=山田^太郎")
    found = apply(written(dataset), edits(PatientName="Yamada^Jirou=山田^次郎"))

    assert found.SpecificCharacterSet == "ISO_IR 192"
    assert str(found.PatientName) == "Yamada^Jirou=山田^次郎"
    assert str(found.OriginalAttributesSequence[0].ModifiedAttributesSequence[0].PatientName) == "Yamada^Tarou=山田^太郎"


@pytest.mark.parametrize(
    ("name", "comments", "takes", "written_in"),
    [
        ("Дворжак^Антонин", "plain", ("ISO_IR 144", "ISO_IR 192"), "ISO_IR 144"),
        ("Дворжак^Антонин", "plain", ("ISO_IR 101", "ISO_IR 144"), "ISO_IR 144"),
        ("Дворжак^Антонин", "Größe", ("ISO_IR 144", "ISO_IR 192"), "ISO_IR 192"),
        ("Dvořák^Antonín", "Größe", ("ISO_IR 101",), "ISO_IR 101"),
        ("山田^太郎", "Größe", ("GB18030",), "GB18030"),
        ("Müller^Jörg", "Größe", ("ISO_IR 101",), "ISO_IR 100"),
    ],
)
def test_it_is_written_in_the_first_character_set_of_the_destination_that_holds_all_of_its_text(
    name: str, comments: str, takes: tuple[str, ...], written_in: str
) -> None:
    inner = Dataset()
    inner.CodeMeaning = comments
    dataset = an_object(PatientComments=comments, ProcedureCodeSequence=Sequence([inner]))
    found = apply(written(dataset), replace(edits(PatientName=name), character_sets=takes))

    assert (found.SpecificCharacterSet, found.PatientName, found.PatientComments) == (written_in, name, comments)
    assert found.ProcedureCodeSequence[0].CodeMeaning == comments
    assert found.OriginalAttributesSequence[0].ModifiedAttributesSequence[0].PatientName == "Meier^Anna"


@pytest.mark.parametrize(("name", "comments"), [("Дворжак^Антонин", "plain"), ("Dvořák^Antonín", "señor")])
def test_what_is_of_no_character_set_of_the_destination_is_left_to_a_person(name: str, comments: str) -> None:
    part10 = written(an_object(PatientComments=comments))

    with pytest.raises(CannotRecode, match="not all of its text is of ISO_IR 101"):
        edited(part10, data_set_offset(part10), ExplicitVRLittleEndian, replace(edits(PatientName=name), character_sets=("ISO_IR 101",)))


def test_a_value_of_the_character_set_leaves_it_as_it_is() -> None:
    found = apply(written(an_object()), edits(PatientName="Müller^Jörg"))

    assert (found.SpecificCharacterSet, found.PatientName) == ("ISO_IR 100", "Müller^Jörg")


def test_digital_signatures_are_left_out_and_said_to_be() -> None:
    part10 = written(an_object(DigitalSignaturesSequence=Sequence([Dataset()])))
    found = edited(part10, data_set_offset(part10), ExplicitVRLittleEndian, edits(PatientID="4712"))

    assert found is not None
    assert found.signatures_dropped
    assert "DigitalSignaturesSequence" not in apply(part10, edits(PatientID="4712"))


def test_an_object_that_has_the_values_is_not_edited() -> None:
    part10 = written(an_object())

    assert edited(part10, data_set_offset(part10), ExplicitVRLittleEndian, edits(PatientID="4711")) is None


def test_a_value_that_is_too_long_is_not_written() -> None:
    part10 = written(an_object())

    assert edited(part10, data_set_offset(part10), ExplicitVRLittleEndian, edits(AccessionNumber="A" * 17)) is None


def test_the_same_edits_give_the_same_bytes() -> None:
    part10 = written(an_object())

    assert apply(part10, edits(PatientID="4712")) == apply(part10, edits(PatientID="4712"))


@pytest.mark.parametrize("syntax", [ExplicitVRBigEndian])
def test_big_endian_is_left_to_a_person(syntax: str) -> None:
    with pytest.raises(CannotRecode):
        edited(b"\0" * 200, 132, syntax, edits(PatientID="4712"))


def test_text_that_is_not_of_its_character_set_is_left_to_a_person() -> None:
    dataset = an_object(SpecificCharacterSet="ISO_IR 192", PatientComments="plain")
    part10 = written(dataset).replace(b"ISO_IR 192", b"ISO_IR 166").replace(b"plain ", b"\xfc\xfd\xfe\xff  ")

    with pytest.raises(CannotRecode, match="character set"):
        edited(part10, data_set_offset(part10), ExplicitVRLittleEndian, edits(PatientName="Дворжак^Антонин"))
