"""What becomes of each risky kind on its way out, by the policies that come with Hilum."""

from __future__ import annotations

from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, ExplicitVRLittleEndian

from hilum.anonymizing import NotAnonymized
from processors.anonymize.delivering import Outgoing
from processors.anonymize.policy import policy, shipped
from processors.anonymize.risky import Kind
from tests.processors.anonymize.objects import KEY, an_object, part10, read
from tests.processors.anonymize.test_pixels import a_region, an_image

_STORAGE = "1.2.840.10008.5.1.4.1.1."
_OVERVIEW = ["DERIVED", "PRIMARY", "OVERVIEW", "RESAMPLED"]
#: By kind, what makes an object one that nothing else would hold.
HELD: list[tuple[Kind, dict[str, Any]]] = [
    (Kind.ULTRASOUND, {"SOPClassUID": _STORAGE + "6.1"}),
    (Kind.ULTRASOUND, {"SOPClassUID": _STORAGE + "3.1"}),
    (Kind.ULTRASOUND, {"Modality": "US"}),
    (Kind.ULTRASOUND, {"SequenceOfUltrasoundRegions": [a_region(0, 0, 3, 3)]}),
    (Kind.SECONDARY_CAPTURE, {"SOPClassUID": _STORAGE + "7"}),
    (Kind.SECONDARY_CAPTURE, {"SOPClassUID": _STORAGE + "7.4"}),
    (Kind.SECONDARY_CAPTURE, {"ConversionType": "WSD"}),
    (Kind.FLUOROSCOPY, {"SOPClassUID": _STORAGE + "12.1"}),
    (Kind.FLUOROSCOPY, {"SOPClassUID": _STORAGE + "12.2"}),
    (Kind.SCREEN_SAVE, {"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}),
    (Kind.DIGITIZED_FILM, {"ConversionType": "DF"}),
    (Kind.PHOTOGRAPH, {"SOPClassUID": _STORAGE + "77.1.4"}),
    (Kind.SLIDE_LABEL, {"SOPClassUID": _STORAGE + "77.1.6", "ImageType": ["ORIGINAL", "PRIMARY", "LABEL", "NONE"]}),
    (Kind.SLIDE_OVERVIEW, {"SOPClassUID": _STORAGE + "77.1.6", "ImageType": _OVERVIEW}),
    (Kind.SPECIMEN_LABEL, {"SOPClassUID": _STORAGE + "77.1.6", "SpecimenLabelInImage": "YES"}),
    (Kind.BURNED_IN, {"BurnedInAnnotation": "YES"}),
    (Kind.RADIOGRAPH, {"SOPClassUID": _STORAGE + "1", "Modality": "CR"}),
    (Kind.RADIOGRAPH, {"SOPClassUID": _STORAGE + "1.2", "Modality": "MG"}),
    (Kind.SURFACE, {"SOPClassUID": _STORAGE + "68.1"}),
    (Kind.VOICE, {"SOPClassUID": _STORAGE + "9.4.1", "Modality": "AU"}),
]
#: As its SOP class has them, and held for what they are whatever a policy says.
DOCUMENTS = [(Kind.ENCAPSULATED_PDF, "1"), (Kind.ENCAPSULATED_CDA, "2"), *((Kind.ENCAPSULATED_MODEL, each) for each in "345")]
VIDEO = [*(f"4.{number}" for number in range(100, 109)), "7.1", "7.2"]
#: The shipped policies say of these that they are cleaned as attributes are, or, of the last one, nothing.
CLEANED = [(Kind.PRESENTATION_STATE, "11.1"), (Kind.SR_TEXT, "88.33"), (Kind.RT_LABEL, "481.3")]

both = pytest.mark.parametrize("name", shipped())


def made(file: bytes, name: str) -> Dataset:
    return read(b"".join(Outgoing(policy(name), KEY).made(file).parts))


def why(file: bytes, name: str) -> str:
    with pytest.raises(NotAnonymized) as held:
        made(file, name)
    assert held.value.reason == "risky-kind"
    assert held.value.fix
    return str(held.value)


@both
@pytest.mark.parametrize(("kind", "attributes"), HELD)
def test_it_is_held(name: str, kind: Kind, attributes: dict[str, Any]) -> None:
    assert f"kind, {kind}:" in why(part10(an_image(**attributes)), name)


@both
@pytest.mark.parametrize(("kind", "number"), DOCUMENTS)
def test_documents_are_held(name: str, kind: Kind, number: str) -> None:
    ds = an_object(SOPClassUID=f"{_STORAGE}104.{number}", EncapsulatedDocument=b"Doe, Jane\0")

    assert f"kind, {kind}:" in why(part10(ds), name)


@both
@pytest.mark.parametrize("number", VIDEO)
def test_video_is_held(name: str, number: str) -> None:
    ds = an_image()
    ds.PixelData = encapsulate([b"\0\0\1\xb3" + bytes(60)])
    ds["PixelData"].is_undefined_length = True

    assert f"kind, {Kind.VIDEO}:" in why(part10(ds, UID(f"1.2.840.10008.1.2.{number}")), name)


@both
@pytest.mark.parametrize(("kind", "suffix"), CLEANED)
def test_text_that_the_shipped_policies_clean_is_gone(name: str, kind: Kind, suffix: str) -> None:
    said = {"ContentDescription": "of Doe Jane, call 555 0199", "RTPlanLabel": "DOE_0199", "StructureSetLabel": "DOE_0199"}
    item = Dataset()
    item.ValueType, item.TextValue = "TEXT", "seen with Doe, Jane, 555 0199"

    done = made(part10(an_object(SOPClassUID=_STORAGE + suffix, ContentSequence=[item], **said)), name)

    assert "0199" not in str(done)
    assert policy(name).kinds[kind] == "clean"


@both
def test_icons_are_taken_out_and_the_object_leaves(name: str) -> None:
    done = made(part10(an_image(IconImageSequence=[an_image(2, 2)])), name)

    assert "IconImageSequence" not in done
    assert "PixelData" in done


@both
def test_an_ordinary_image_and_a_head_leave(name: str) -> None:
    done = made(part10(an_image(BodyPartExamined="HEAD", SliceThickness="1")), name)

    assert done.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert "BurnedInAnnotation" not in done


@both
def test_bits_that_are_no_part_of_samples_hold_an_image(name: str) -> None:
    drawn = part10(an_image(bits=16, stored=12, PixelData=b"\0\x10" * 96))

    assert why(drawn, name).startswith("It is of a risky kind, unused-bits:")


def test_every_kind_is_spoken_of_here() -> None:
    spoken_of = {kind for kind, _ in (*HELD, *DOCUMENTS, *CLEANED)} | {Kind.VIDEO, Kind.ICON, Kind.HEAD_VOLUME, Kind.UNUSED_BITS}

    assert spoken_of == set(Kind)
