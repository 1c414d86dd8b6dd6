"""Risky kinds: held unless the policy says what becomes of them."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest

from hilum.errors import Misconfigured
from processors.anonymize.about import about
from processors.anonymize.held import Held
from processors.anonymize.outgoing import prepared
from processors.anonymize.policy import policy, policy_of
from processors.anonymize.risky import Kind, kinds_of
from processors.anonymize.source import read_source
from tests.processors.anonymize.objects import a_file, a_policy, an_object, part10, samples
from tests.processors.anonymize.test_pixels import a_region, an_image

_STORAGE = "1.2.840.10008.5.1.4.1.1."


def kinds(**attributes: Any) -> set[Kind]:
    return set(kinds_of(about(read_source(part10(an_image(**attributes))))))


@pytest.mark.parametrize(
    ("attributes", "kind"),
    [
        ({"SOPClassUID": _STORAGE + "6.1"}, Kind.ULTRASOUND),
        ({"SOPClassUID": _STORAGE + "3.1"}, Kind.ULTRASOUND),
        ({"Modality": "US"}, Kind.ULTRASOUND),
        ({"Modality": "IVUS"}, Kind.ULTRASOUND),
        ({"SequenceOfUltrasoundRegions": [a_region(0, 0, 1, 1)]}, Kind.ULTRASOUND),
        ({"SOPClassUID": _STORAGE + "7"}, Kind.SECONDARY_CAPTURE),
        ({"SOPClassUID": _STORAGE + "7.4"}, Kind.SECONDARY_CAPTURE),
        ({"ConversionType": "WSD"}, Kind.SECONDARY_CAPTURE),
        ({"ConversionType": "DF"}, Kind.DIGITIZED_FILM),
        ({"Modality": "HC"}, Kind.DIGITIZED_FILM),
        ({"SOPClassUID": _STORAGE + "12.2"}, Kind.FLUOROSCOPY),
        ({"Modality": "XA"}, Kind.FLUOROSCOPY),
        ({"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}, Kind.SCREEN_SAVE),
        ({"ImageType": ["DERIVED", "SECONDARY", "OTHER", "CSA REPORT"]}, Kind.SCREEN_SAVE),
        ({"ImageType": ["ORIGINAL", "SECONDARY", "OTHER", "CT_SOM5 PROT"]}, Kind.SCREEN_SAVE),
        ({"ImageType": ["DERIVED", "SECONDARY", "DOSE_REPORT"]}, Kind.SCREEN_SAVE),
        ({"ImageType": ["DERIVED", "SECONDARY", "PROTOCOL"]}, Kind.SCREEN_SAVE),
        ({"ImageType": ["DERIVED", "SECONDARY", "SAVED"]}, Kind.SCREEN_SAVE),
        ({"Modality": "CT", "SamplesPerPixel": 3}, Kind.SCREEN_SAVE),
        ({"Modality": "MR", "SamplesPerPixel": 3}, Kind.SCREEN_SAVE),
        ({"Modality": "CT", "PhotometricInterpretation": "PALETTE COLOR"}, Kind.SCREEN_SAVE),
        ({"ImageType": ["DERIVED", "SECONDARY", "RESULTS"]}, Kind.SCREEN_SAVE),
        ({"ImageType": ["DERIVED", "SECONDARY", "DOSEINFO"]}, Kind.SCREEN_SAVE),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LABEL", "NONE"]}, Kind.SLIDE_LABEL),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "OVERVIEW", "NONE"]}, Kind.SLIDE_OVERVIEW),
        ({"ImageType": ["DERIVED", "PRIMARY", "THUMBNAIL", "RESAMPLED"]}, Kind.SLIDE_OVERVIEW),
        ({"SpecimenLabelInImage": "YES"}, Kind.SPECIMEN_LABEL),
        ({"BurnedInAnnotation": "YES"}, Kind.BURNED_IN),
        ({"BurnedInAnnotation": "yes"}, Kind.BURNED_IN),
        ({"SOPClassUID": _STORAGE + "77.1.4"}, Kind.PHOTOGRAPH),
        ({"SOPClassUID": _STORAGE + "104.1"}, Kind.ENCAPSULATED_PDF),
        ({"SOPClassUID": _STORAGE + "104.2"}, Kind.ENCAPSULATED_CDA),
        ({"SOPClassUID": _STORAGE + "104.3"}, Kind.ENCAPSULATED_MODEL),
        ({"SOPClassUID": _STORAGE + "68.1"}, Kind.SURFACE),
        ({"SOPClassUID": _STORAGE + "11.1"}, Kind.PRESENTATION_STATE),
        ({"SOPClassUID": _STORAGE + "88.33"}, Kind.SR_TEXT),
        ({"SOPClassUID": _STORAGE + "88.59"}, Kind.SR_TEXT),
        ({"SOPClassUID": _STORAGE + "481.3"}, Kind.RT_LABEL),
        ({"IconImageSequence": [an_object()]}, Kind.ICON),
        ({"BodyPartExamined": "HEAD", "SliceThickness": "1.0"}, Kind.HEAD_VOLUME),
        ({"BodyPartExamined": "BRAIN"}, Kind.HEAD_VOLUME),
        ({"BodyPartExamined": "CHEST", "Modality": "CR"}, Kind.RADIOGRAPH),
        ({"BodyPartExamined": "CHEST", "SOPClassUID": _STORAGE + "1.1"}, Kind.RADIOGRAPH),
        ({"samples_": 3, "Modality": "NM"}, Kind.SCREEN_SAVE),
        ({"samples_": 3, "Modality": "ZZ"}, Kind.SCREEN_SAVE),
        ({"ImageType": ["DERIVED", "SECONDARY", "TABLE"]}, Kind.SCREEN_SAVE),
        ({"ImageType": ["DERIVED", "SECONDARY", "LOCALIZER", "GRAPH"]}, Kind.SCREEN_SAVE),
        ({"ImageType": ["DERIVED", "SECONDARY", "MONTAGE"]}, Kind.SCREEN_SAVE),
        ({"ImageType": ["DERIVED", "SECONDARY", "SCOUT", "PROTOCOLPAGE"]}, Kind.SCREEN_SAVE),
        ({"SeriesDescription": "Patient Protocol"}, Kind.SCREEN_SAVE),
        ({"SeriesDescription": "999 dose report"}, Kind.SCREEN_SAVE),
        ({"SOPClassUID": "1.2.840.10008.5.1.1.29"}, Kind.DIGITIZED_FILM),
        ({"SOPClassUID": "1.2.840.10008.5.1.1.30"}, Kind.DIGITIZED_FILM),
        ({"SOPClassUID": _STORAGE + "77.1"}, Kind.PHOTOGRAPH),
        ({"SOPClassUID": _STORAGE + "77.2"}, Kind.PHOTOGRAPH),
        ({"SOPClassUID": _STORAGE + "13.1.1", "BodyPartExamined": "HEAD"}, Kind.HEAD_VOLUME),
        ({"SOPClassUID": _STORAGE + "13.1.2", "BodyPartExamined": "CHEST"}, Kind.HEAD_VOLUME),
        ({"ImageType": ["DERIVED", "SECONDARY", "REFORMATTED", "VRT"], "SliceThickness": "5.0"}, Kind.HEAD_VOLUME),
        ({"ImageType": ["DERIVED", "SECONDARY", "3D", "VOLUME_RENDERED"], "SliceThickness": "5.0"}, Kind.HEAD_VOLUME),
        ({"SOPClassUID": _STORAGE + "9.4.1"}, Kind.VOICE),
        ({"SOPClassUID": _STORAGE + "9.4.2"}, Kind.VOICE),
        ({"Modality": "AU"}, Kind.VOICE),
    ],
)
def test_a_kind_is_known(attributes: dict[str, Any], kind: Kind) -> None:
    assert kind in kinds(**attributes)


def a_waveform(source: bytes, interpretation: bytes, syntax: str) -> bytes:
    of_channel: Any = [[(0x00080100, "SH", source)]]
    waveform: Any = [
        (0x003A0200, "SQ", [[(0x003A0208, "SQ", of_channel)]]),
        (0x54001004, "US", b"\x08\x00" if syntax != "1.2.840.10008.1.2.2" else b"\x00\x08"),
        (0x54001006, "CS", interpretation),
        (0x54001010, "OB", bytes(4)),
    ]
    return a_file([(0x54000100, "SQ", [waveform])], sop_class=_STORAGE + "9.1.2", syntax=syntax)


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"])
@pytest.mark.parametrize(
    ("source", "interpretation", "found"),
    [
        (b"109111", b"SB", {Kind.VOICE}),
        (b"109115", b"SB", {Kind.VOICE}),
        (b"2:1 ", b"MB", {Kind.VOICE}),
        (b"2:1 ", b"AB", {Kind.VOICE}),
        (b"2:1 ", b"SB", set()),
        (b"1091110 ", b"SB", set()),
    ],
)
def test_a_channel_of_sound_is_known(source: bytes, interpretation: bytes, found: set[Kind], syntax: str) -> None:
    assert set(kinds_of(about(read_source(a_waveform(source, interpretation, syntax))))) == found


@pytest.mark.parametrize("name", ["basic", "research"])
def test_shipped_policies_hold_recorded_voices(name: str) -> None:
    with pytest.raises(Held, match="voice"):
        prepared(a_waveform(b"109110", b"SB", "1.2.840.10008.1.2.1"), policy(name))


@pytest.mark.parametrize(
    "attributes",
    [
        {"SliceThickness": "5.0"},
        {"SliceThickness": "5.0", "BurnedInAnnotation": "NO"},
        {"Modality": "DX", "SOPClassUID": _STORAGE + "1.1", "BurnedInAnnotation": "NO"},
        {"BodyPartExamined": "CHEST", "SliceThickness": "1.0"},
        {"BodyPartExamined": "HEAD", "SliceThickness": "5.0"},
        {"BodyPartExamined": "HEAD", "SliceThickness": "1.0", "ImagesInAcquisition": "3"},
        {"BodyPartExamined": "KNEE", "SOPClassUID": _STORAGE + "4", "Modality": "MR"},
        {"BodyPartExamined": "KNEE", "SOPClassUID": _STORAGE + "13.1.1"},
        {"SliceThickness": "5.0", "SeriesDescription": "Abdomen protocol 3"},
        {"SliceThickness": "5.0", "ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]},
    ],
)
def test_an_ordinary_image_is_of_none(attributes: dict[str, Any]) -> None:
    assert kinds(**attributes) == set()


_FACES = [
    "HEAD",
    "CRANIUM",
    "CEREBRUM",
    "IAM",
    "PAROTID",
    "DENTAL",
    "SINUS",
    "ORBIT",
    "NECK",
    "HEADNECK",
    "CSPINE",
    "WHOLEBODY",
    "KOPF",
    "ÖHR",
    "",
]


@pytest.mark.parametrize("part", _FACES)
def test_thin_slices_of_what_may_have_a_face_are_a_head_volume(part: str) -> None:
    assert kinds(BodyPartExamined=part, SliceThickness="1") == {Kind.HEAD_VOLUME}


@pytest.mark.parametrize("part", ["CHEST", "CHESTABDPELVIS", "THORAX_ABDOMEN", "LEFT KNEE", "LSPINE"])
def test_thin_slices_of_what_has_no_face_are_none(part: str) -> None:
    assert kinds(BodyPartExamined=part, SliceThickness="1") == set()


@pytest.mark.parametrize(("apart_mm", "found"), [("2.5", {Kind.HEAD_VOLUME}), ("3", {Kind.HEAD_VOLUME}), ("3.1", set())])
def test_slices_are_thin_up_to_three_millimetres(apart_mm: str, found: set[Kind]) -> None:
    assert kinds(BodyPartExamined="HEAD", SliceThickness=apart_mm) == found


@pytest.mark.parametrize("policy_name", ["option", "kind"])
def test_an_option_to_take_faces_out_holds_heads_that_nobody_defaces(policy_name: str) -> None:
    text = {"option": 'options = ["clean-recognizable-visual-features"]', "kind": 'refuse = ["head-volume"]'}[policy_name]

    with pytest.raises(Held, match="head-volume"):
        prepared(part10(an_image(BodyPartExamined="HEAD", SliceThickness="1")), policy_of(text, "mine"))


def test_a_thin_slice_that_names_no_part_is_held_where_heads_are() -> None:
    with pytest.raises(Held, match="head-volume"):
        prepared(part10(an_image(SliceThickness="1")), a_policy(more='[kinds]\nhead-volume = "hold"'))


def test_what_every_kind_means_is_said() -> None:
    assert all(kind.meaning and kind.unsaid in kind.sayable for kind in Kind)


@pytest.mark.parametrize("name", ["basic", "research"])
def test_shipped_policies_hold_risky_images_and_let_ordinary_ones_out(name: str) -> None:
    of = policy(name)
    prepared(part10(an_image()), of)
    risky: list[dict[str, Any]] = [{"Modality": "US"}, {"BurnedInAnnotation": "YES"}, {"ConversionType": "WSD"}]
    for attributes in risky:
        with pytest.raises(Held) as held:
            prepared(part10(an_image(**attributes)), of)
        assert held.value.reason == "risky-kind"


def test_a_kind_passes_if_the_policy_says_why() -> None:
    of = a_policy(more='[kinds]\nultrasound = "pass: looked at by hand"')
    file = part10(an_image(Modality="US"))

    assert prepared(file, of).part10 is file


def test_each_kind_needs_its_own_word() -> None:
    of = a_policy(more='[kinds]\nultrasound = "pass: looked at by hand"')
    with pytest.raises(Held, match="burned-in"):
        prepared(part10(an_image(Modality="US", BurnedInAnnotation="YES")), of)


def test_masked_kinds_without_a_mask_are_held() -> None:
    with pytest.raises(Held) as held:
        prepared(part10(an_image(Modality="US")), a_policy(more='[kinds]\nultrasound = "mask"'))
    assert held.value.reason == "no-mask"


def test_a_mask_that_paints_nothing_does_not_do_for_burned_in_text() -> None:
    of = a_policy(more='[kinds]\nburned-in = "mask"\n[[masks]]\nclean = true')
    with pytest.raises(Held, match="text is burned into it"):
        prepared(part10(an_image(BurnedInAnnotation="YES")), of)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[kinds]\nultrasond = "hold"', "there is no kind"),
        ('[kinds]\nultrasound = "release"', "cannot be 'release'"),
        ('[kinds]\nultrasound = "pass"', "nothing says why"),
        ('[kinds]\nultrasound = "hold: because"', "has no reason"),
        ('[kinds]\nencapsulated-pdf = "pass: fine"', "cannot be 'pass'"),
        ('[kinds]\nvideo = "mask"', "cannot be 'mask'"),
        ("[[masks]]\nrows = 3", "says nothing"),
        ("[[masks]]\nclean = true\nboxes = [[0, 0, 1, 1]]", "says two things"),
        ("[[masks]]\nboxes = [[0, 0, 0, 1]]", "is none"),
        ('options = ["retain-uids"]\n[[masks]]\nboxes = [[0, 0, 1, 1]]', "a UID of its own"),
        ('options = ["retain-uids"]\n[text]\nfound = "mask"', "a UID of its own|retain-uids"),
        ('options = ["retain-uids"]\n[kinds]\nhead-volume = "deface"', "heads are defaced"),
        ("[text]\nthreshold = 2", "threshold"),
        ('[[masks]]\nsop_class = "1.2.3"\nclean = true', "no SOP class"),
    ],
)
def test_a_mistake_in_a_policy_is_named(text: str, says: str) -> None:
    with pytest.raises(Misconfigured, match=says):
        policy_of(text, "mine")


def test_all_samples_are_looked_at_without_a_fault() -> None:
    for data in samples().values():
        with suppress(Held):
            set(kinds_of(about(read_source(data))))


@pytest.mark.parametrize("value", [b"", b"\1\0"])
def test_an_object_may_end_with_a_short_element(value: bytes) -> None:
    for syntax in ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"):
        seen = about(read_source(a_file([(0x00280010, "US", value)], syntax=syntax)))

        assert seen.places[0x00280010][1] - seen.places[0x00280010][0] == len(value)


def test_an_object_that_ends_within_an_element_is_held() -> None:
    file = a_file([(0x00280010, "US", b"\1\0")])
    for cut in range(1, 10):
        with pytest.raises(Held) as held:
            about(read_source(file[:-cut]))
        assert held.value.reason == "truncated"
