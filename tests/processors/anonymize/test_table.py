"""The table of PS3.15 E.1-1 beside the same table as another package has it, row by row.

The two have one ancestor: that they agree shows that nothing was changed by accident, not that it is what the standard says.
"""

from __future__ import annotations

import pytest
from dicomanonymizer.dicom_anonymization_databases import dicomfields_2024b, dicomfields_2026c
from pydicom.datadict import keyword_dict, tag_for_keyword

from processors.anonymize.options import Option
from processors.anonymize.pseudonyms import Pseudonyms
from processors.anonymize.table import DEFAULTS, beyond, row_of, standard, vr_of
from processors.anonymize.types import types
from processors.anonymize.verify.identifying import STANDARD_UIDS
from tests.processors.anonymize.objects import KEY

CATEGORIES = {
    "D_TAGS": "D",
    "Z_TAGS": "Z",
    "X_TAGS": "X",
    "U_TAGS": "U",
    "Z_D_TAGS": "Z/D",
    "X_Z_TAGS": "X/Z",
    "X_D_TAGS": "X/D",
    "X_Z_D_TAGS": "X/Z/D",
    "X_Z_U_STAR_TAGS": "X/Z/U*",
}
#: Where the two say something else, and why. Empty: they say the same of every attribute.
DIFFERENCES: dict[int, str] = {}
#: Groups of attributes, which the package writes as tag and mask.
PATTERNS = {
    (0x5000, 0x0000, 0xFF00, 0x0000): "50xxxxxx",
    (0x6000, 0x3000, 0xFF00, 0xFFFF): "60xx3000",
    (0x6000, 0x4000, 0xFF00, 0xFFFF): "60xx4000",
}


def of_package(module: object) -> dict[tuple[int, ...], str]:
    return {tuple(tag): code for name, code in CATEGORIES.items() for tag in getattr(module, name)}


def test_every_row_has_the_basic_action_of_edition_2026c() -> None:
    theirs = {tag[0] << 16 | tag[1]: code for tag, code in of_package(dicomfields_2026c).items() if len(tag) == 2}
    ours = {tag: row.basic for tag, row in standard().rows.items()}

    assert len(ours) > 640
    assert {tag for tag in theirs | ours if theirs.get(tag) != ours.get(tag)} == set(DIFFERENCES)


def test_groups_of_attributes_have_the_same_action() -> None:
    theirs = {PATTERNS[tag]: code for tag, code in of_package(dicomfields_2026c).items() if len(tag) == 4}

    assert theirs == {name: row.basic for name, row in standard().patterns.items() if name != "private"}


def test_what_is_newer_than_the_options_columns_has_no_options() -> None:
    """Their columns are of 2024b: until they are read, the Basic Profile's action holds under every option."""
    older = {tag[0] << 16 | tag[1] for tag in of_package(dicomfields_2024b) if len(tag) == 2}
    newer = {tag: row for tag, row in standard().rows.items() if tag not in older}

    assert len(newer) > 30
    assert [row.name for row in newer.values() if row.options] == []


@pytest.mark.parametrize(
    ("keyword", "options"),
    [
        ("PatientSex", {"patient": "K"}),
        ("Allergies", {"patient": "C", "descriptors": "C"}),
        ("StationName", {"device": "K"}),
        ("StationAETitle", {"device": "C"}),
        ("DeviceUID", {"device": "K", "uids": "K"}),
        ("StudyDate", {"full_dates": "K", "modified_dates": "C"}),
        ("DateOfLastCalibration", {"device": "K", "full_dates": "K", "modified_dates": "C"}),
        ("InstitutionName", {"institution": "K"}),
        ("ContentSequence", {"structured": "C"}),
        ("GraphicAnnotationSequence", {"graphics": "C"}),
        ("PatientName", {}),
        ("PatientBirthDate", {}),
        ("UID", {}),
    ],
)
def test_options_are_those_of_the_standard(keyword: str, options: dict[str, str]) -> None:
    tag = tag_for_keyword(keyword)
    assert tag is not None

    assert standard().rows[tag].options == options


def test_every_option_about_attributes_has_rows() -> None:
    named = {column for row in (*standard().rows.values(), *standard().patterns.values()) for column in row.options}

    assert named == {option.column for option in Option if option.column}


def test_issuers_that_the_table_forgets_are_removed() -> None:
    for keyword in ("IssuerOfAccessionNumberSequence", "LocalNamespaceEntityID", "UniversalEntityID", "UniversalEntityIDType"):
        row = row_of(tag_for_keyword(keyword) or 0)
        assert row is not None
        assert (row.basic, row.in_table) == ("X", False)


def test_what_hilum_adds_is_not_in_the_table() -> None:
    assert not beyond().keys() & standard().rows.keys()
    assert all(vr_of(tag) for tag in beyond())


def test_long_text_is_never_kept_as_it_is() -> None:
    """Beside what the table says: names of makers and algorithms stay, sentences do not."""
    kept = {row.name for tag in keyword_dict.values() if vr_of(tag) in ("LT", "ST", "UT") and (row := row_of(tag)) and row.basic == "K"}

    assert kept == set()


@pytest.mark.parametrize(
    "keyword", ["PulseSequenceName", "ReceiveCoilName", "Radiopharmaceutical", "EnergyWindowName", "TypeOfFilters", "AcquisitionMode"]
)
def test_text_that_people_type_at_consoles_is_cleaned(keyword: str) -> None:
    row = row_of(tag_for_keyword(keyword) or 0)

    assert row is not None
    assert row.basic == "C"


def test_every_attribute_of_the_dictionary_is_decided() -> None:
    """Free text, names, dates and UIDs that nobody judged are never kept as they are."""
    judged = {*standard().rows, *beyond()}
    rows = {tag: row_of(tag) for tag in keyword_dict.values() if tag not in judged}

    assert all(rows.values())
    assert [tag for tag, row in rows.items() if row and vr_of(tag) in DEFAULTS and row.basic == "K"] == []


def test_the_types_know_the_required_attributes_of_an_image() -> None:
    place = types().classes["1.2.840.10008.5.1.4.1.1.2"]

    found = [
        types().type_of(place, tag_for_keyword(keyword) or 0)
        for keyword in ("StudyInstanceUID", "StudyDate", "Manufacturer", "StationName")
    ]

    assert found == ["1", "2", "2", "3"]


def test_types_are_known_in_sequences() -> None:
    place = types().classes["1.2.840.10008.5.1.4.1.1.66.4"]
    inside = types().inside(place, tag_for_keyword("SegmentSequence") or 0)

    assert types().type_of(inside, tag_for_keyword("SegmentLabel") or 0) == "1"


def test_sop_classes_that_are_de_identified_are_nobodys_uids() -> None:
    pseudonyms = Pseudonyms(KEY, "project")

    assert [uid for uid in types().classes if pseudonyms.uid(uid) != uid] == []
    assert {uid.encode() for uid in types().classes} <= STANDARD_UIDS
