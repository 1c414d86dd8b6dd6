from __future__ import annotations

import unicodedata
import zlib
from collections.abc import Callable
from datetime import date
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import FileDataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from hilum.order_events import Identifier, Patient
from processors.anonymize.verify import Fact, Hit, Scope, facts_of, facts_of_patient, second_look
from tests.processors.anonymize.verifying import an_original, an_output, item, part10


def hits(original: FileDataset, output: FileDataset, **scope: object) -> set[tuple[str, str]]:
    found = second_look(part10(original), part10(output), Scope(**scope))  # type: ignore[arg-type]
    return {(hit.place, hit.kind) for hit in found}


def test_nothing_is_found_where_nothing_is() -> None:
    assert hits(an_original(), an_output()) == set()


def test_an_object_that_was_not_touched_is_full_of_it() -> None:
    found = hits(an_original(), an_original())

    assert {kind for _, kind in found} == {"name", "id", "phrase", "date", "uid", "same"}
    assert {"(0010,0010)", "(0010,0020)", "(0010,0030)", "(0008,0018)", "(0002,0003)", "(0040,0275)/(0040,1001)"} <= {
        place for place, _ in found
    }


# ------------------------------------------------------------------------------------------------ names


@pytest.mark.parametrize(
    "text",
    [
        "Mueller",
        "seen by MÜLLER",
        "Muller, Anna",
        "anna",
        "Mu\u0308ller",
        "(Müller)",
        "Dr.Müller-Anna",
        "x_müller_1",
        "MUELLERANNA",
        "Anna  Müller",
    ],
)
def test_a_name_is_found_split_and_in_any_order_case_and_spelling(text: str) -> None:
    assert hits(an_original("Müller^Anna"), an_output(StudyDescription=text)) == {("(0008,1030)", "name")}


@pytest.mark.parametrize("text", ["login quaggler1", "QUAGGLER2024", "the Quagglers", "Quaggler's"])
def test_a_name_is_found_as_a_user_s_and_as_a_family_s(text: str) -> None:
    assert hits(an_original("Quaggler^Jo"), an_output(StudyDescription=text)) == {("(0008,1030)", "name")}


def test_letters_of_the_north_are_found_in_both_spellings() -> None:
    for text in ("Øbergård", "Oebergaard", "OBERGARD"):
        assert hits(an_original("Øbergård^Jo"), an_output(StudyDescription=text)) == {("(0008,1030)", "name")}


@pytest.mark.parametrize("text", ["Mullerian duct", "annals", "Hannah", "mullers12345"])
def test_a_name_within_a_word_is_another_word(text: str) -> None:
    assert hits(an_original("Muller^Anna"), an_output(StudyDescription=text)) == set()


@pytest.mark.parametrize(
    ("name", "text"), [("Li^Wu", "Wu Li"), ("Lung^May", "MAY, LUNG"), ("Test^Chest", "Chest^Test"), ("Ng^Al", "ng al")]
)
def test_a_name_of_short_or_common_words_is_found_where_both_are(name: str, text: str) -> None:
    assert hits(an_original(name), an_output(SeriesDescription=text)) == {("(0008,103E)", "name")}


@pytest.mark.parametrize("name", ["Lung^May", "Test^Chest", "Axial^Primary", "Contrast^Model", "Anonymous^Patient"])
def test_common_words_alone_are_no_name(name: str) -> None:
    assert (
        hits(an_original(name), an_output(SeriesDescription="test lung chest may contrast", PatientComments="anonymous patient")) == set()
    )


def test_a_name_of_one_common_word_is_found_where_it_stood() -> None:
    assert hits(an_original("Lung"), an_output(PatientName="LUNG ")) == set()
    assert hits(an_original("Lung"), an_output(PatientName="Lung")) == {("(0010,0010)", "name")}


@pytest.mark.parametrize("text", ["山田太郎", "患者 山田 太郎 様", "山田^太郎", "yamada", "やまだ たろう", "太郎", "Tarou"])
def test_a_name_is_found_in_each_of_its_scripts(text: str) -> None:
    original = an_original("Yamada^Tarou=山田^太郎=やまだ^たろう")

    assert hits(original, an_output(StudyDescription=text)) == {("(0008,1030)", "name")}


@pytest.mark.parametrize(("charset", "name", "text"), [
    ("ISO_IR 100", "Gärtner^Zoë", "Gärtner"),
    ("ISO_IR 144", "Люкceмбypг^Анна", "Люкceмбypг"),
    (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎", "山田 太郎"),
    ("GB18030", "Wang^XiaoDong=王^小东", "王小东"),
    (["", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞=홍^길동", "홍 길동"),
])  # fmt: skip
def test_a_name_is_found_in_the_output_s_character_set(charset: str | list[str], name: str, text: str) -> None:
    original = an_original(name, SpecificCharacterSet=charset)

    assert hits(original, an_output(SpecificCharacterSet=charset, StudyDescription=text)) == {("(0008,1030)", "name")}


_SPELLED_OTHERWISE = [
    ("Quaggler^Jo", "4711-0815", "Quag\u200bgler", "name"),
    ("Quaggler^Jo", "4711-0815", "Quag\u00adgler", "name"),
    ("Quag\u00adgler^Jo", "4711-0815", "Quaggler", "name"),
    ("قباني^لنزار", "4711-0815", "قبـــاني", "name"),
    ("Yamada^Tarou=山田^太郎=やまだ^たろう", "4711-0815", "ヤマダ タロウ", "name"),
    ("ヤマダ^タロウ", "4711-0815", "やまだ", "name"),
    ("ﾔﾏﾀﾞ^ﾀﾛｳ", "4711-0815", "やまだ たろう", "name"),
    ("Doe^Jane", "PQX-77123", "PQX-٧٧١٢٣", "id"),
    ("Doe^Jane", "PQX-77123", "pqx ７７१२३", "id"),
]


@pytest.mark.parametrize(("name", "patient_id", "text", "kind"), _SPELLED_OTHERWISE)
def test_what_looks_alike_is_alike(name: str, patient_id: str, text: str, kind: str) -> None:
    assert hits(an_original(name, patient_id), an_output(StudyDescription=text)) == {("(0008,1030)", kind)}


def test_chinese_by_code_extensions_is_found_and_so_it_is_in_bytes() -> None:
    original = an_original(SpecificCharacterSet="ISO_IR 100")
    name = b"Zhang^XiaoDong=\x1b$)A\xd5\xc5^\x1b$)A\xd0\xa1\xb6\xab="  # PS3.5 K.2
    file = part10(original).replace(b"CS\x0a\0ISO_IR 100", b"CS\x10\0\\ISO 2022 IR 58 ")
    file = file.replace(b"\x10\0\x10\0PN\x08\0Doe^Jane", b"\x10\0\x10\0PN" + bytes([len(name), 0]) + name)
    assert name in file
    output = an_output()
    output.add_new(0x00091001, "UN", "王 小东".encode("gb2312"))

    assert second_look(file, part10(an_output(StudyDescription="CT 小东"))) == (Hit("(0008,1030)", "name"),)
    assert second_look(file, part10(output)) == (Hit("(0009,1001)", "name"),)


@pytest.mark.parametrize(("term", "codec", "name"), [("58", "gb2312", "张^小东"), ("149", "euc_kr", "洪^吉洞")])
def test_a_name_is_found_where_its_character_set_is_not_designated(term: str, codec: str, name: str) -> None:
    output = an_output(SpecificCharacterSet=["", f"ISO 2022 IR {term}"])
    output.add_new(0x00081030, "LO", name.replace("^", "").encode(codec))

    assert hits(an_original(f"Zhang^X={name}"), output) == {("(0008,1030)", "name")}


def test_utf_8_that_is_declared_as_latin_1_is_read_as_both() -> None:
    output = an_output(SpecificCharacterSet="ISO_IR 100")
    output.add_new(0x00081030, "LO", b"")
    raw = part10(output).replace(b"\x08\x000\x10LO\x00\x00", b"\x08\x000\x10LO\x08\x00" + "Gärtner".encode())

    assert second_look(part10(an_original("Gärtner^Zoë")), raw) == (Hit("(0008,1030)", "name"),)


@pytest.mark.parametrize("charset", ["ISO_IR 100", "ISO_IR 192"])
def test_one_value_in_utf_8_is_found_beside_one_in_latin_1(charset: str) -> None:
    output = an_output(SpecificCharacterSet=charset)
    output.add_new(0x00081030, "LO", b"")
    output.add_new(0x0008103E, "LO", b"")
    raw = part10(output).replace(b"\x08\x000\x10LO\x00\x00", b"\x08\x000\x10LO\x08\x00" + "Gärtner".encode())
    raw = raw.replace(b"\x08\x00>\x10LO\x00\x00", b"\x08\x00>\x10LO\x04\x00" + "f\xfcr ".encode("latin-1"))

    assert second_look(part10(an_original("Gärtner^Zoë")), raw) == (Hit("(0008,1030)", "name"),)


@pytest.mark.parametrize("encoded", ["latin-1", "utf-8", "utf-16-le"])
def test_an_accent_hides_no_name_in_bytes_of_which_nobody_knows_the_character_set(encoded: str) -> None:
    output = an_output()
    output.private_block(0x0029, "X", create=True).add_new(0x10, "UN", b"\x02\x01\0\0" + "GÄRTNER".encode(encoded) + b"\x05\0")

    assert hits(an_original("Gärtner^Zoë"), output) == {("(0029,1010)", "name")}


def test_many_values_are_looked_for() -> None:
    people = [f"Qa{n:03d}quist^Ann".translate(str.maketrans("0123456789", "abcdefghij")) for n in range(300)]
    dates = [f"19{n:02d}0{n % 9 + 1}11" for n in range(10, 99)]
    original = an_original(NameOfPhysiciansReadingStudy=people, DateOfLastCalibration=dates)

    found = hits(original, an_output(ImageComments="Qajjquist, no: Qacjjquist, on 11.09.1998"))

    assert found == {("(0020,4000)", "name"), ("(0020,4000)", "date")}


def test_names_of_staff_are_looked_for_as_well() -> None:
    original = an_original(OperatorsName="Okonkwo^Otto", PerformingPhysicianName=["Petrova^Olga", "Quist^Per"])

    found = hits(original, an_output(ImageComments="Quist, then Okonkwo"))

    assert found == {("(0020,4000)", "name")}


def test_a_person_s_code_is_one_of_a_person() -> None:
    person = item(CodeValue="OP-99123", CodeMeaning="Okonkwo, Otto", CodingSchemeDesignator="99X")
    original = an_original(OperatorIdentificationSequence=[item(PersonIdentificationCodeSequence=[person])])

    assert hits(original, an_output(ImageComments="by op99123")) == {("(0020,4000)", "id")}
    assert hits(original, an_output(ImageComments="by Okonkwo")) == {("(0020,4000)", "name")}


# ------------------------------------------------------------------------------------------------ identifiers


IDENTIFIERS = """47110815|ID 4711-0815.|4711 0815|47.11.08.15|4711/0815|004711-0815|mrn=47110815;|4 7 1 1 0 8 1 5|4711 - 0815|4711\u20130815
    |MRN47110815|P0047110815|47110815A|4711-0815/1|4711-0815-01|47,110,815|47'110'815"""


@pytest.mark.parametrize("text", [each.strip() for each in IDENTIFIERS.split("|")])
def test_an_identifier_is_found_with_and_without_punctuation(text: str) -> None:
    assert ("(0020,4000)", "id") in hits(an_original(patient_id="4711-0815"), an_output(ImageComments=text))
    assert ("(0020,4000)", "id") in hits(an_original(patient_id="0047110815"), an_output(ImageComments=text))


def test_a_long_number_is_found_without_the_letters_of_its_identifier() -> None:
    assert hits(an_original(patient_id="MRN0047110815"), an_output(ImageComments="no 47110815")) == {("(0020,4000)", "id")}
    assert hits(an_original(patient_id="MRN-477-123"), an_output(ImageComments="no 477123")) == set()  # in less than seven digits
    assert hits(an_original(AccessionNumber="CT20170211"), an_output(SeriesDate="20170211")) == set()  # nor a day


@pytest.mark.parametrize("text", ["147110815", "471108159", "4711 and 0815", "4711\\0815"])
def test_part_of_a_longer_number_is_no_identifier(text: str) -> None:
    assert hits(an_original(patient_id="4711-0815"), an_output(ImageComments=text)) == set()


def test_a_number_without_end_is_looked_for_or_the_object_held() -> None:
    found = second_look(part10(an_original(patient_id="7" * 5000)), part10(an_output(ImageComments="7" * 5000)))

    assert found
    assert {hit.kind for hit in found} <= {"id", "unreadable"}


@pytest.mark.parametrize("patient_id", ["1024", "2024", "1200", "123", "TEST", "PHANTOM"])
def test_a_number_or_word_that_is_everywhere_is_no_identifier(patient_id: str) -> None:
    assert hits(an_original(patient_id=patient_id), an_output(ImageComments=f"{patient_id} of test phantom")) == set()


def test_codes_that_say_how_it_was_de_identified_are_no_identifiers() -> None:
    output = an_output(DeidentificationMethodCodeSequence=[item(CodeValue="113107", CodingSchemeDesignator="DCM")])

    assert hits(an_original(patient_id="113107"), output) == set()


@pytest.mark.parametrize("patient_id", ["1", "12", "TEST", "2024", "A"])
def test_yet_it_is_found_where_it_stood(patient_id: str) -> None:
    assert hits(an_original(patient_id=patient_id), an_output(PatientID=patient_id)) == {("(0010,0020)", "id")}


def test_a_short_number_is_found_in_text_and_not_within_a_decimal() -> None:
    original = an_original(patient_id="7031")

    assert hits(original, an_output(ImageComments="spacing 0.7031, 7031.5, 17031")) == set()
    assert hits(original, an_output(ImageComments="number 7031.")) == {("(0020,4000)", "id")}


def test_in_numbers_only_a_long_one_that_is_the_whole_counts() -> None:
    assert hits(an_original(patient_id="70312"), an_output(KVP="70312", PixelSpacing=["0.70312", "70312"])) == set()
    assert hits(an_original(patient_id="7031250"), an_output(PixelSpacing=["0.7031250", "1"])) == set()
    assert hits(an_original(patient_id="7031250"), an_output(SeriesNumber="7031250")) == {("(0020,0011)", "id")}
    assert hits(an_original(patient_id="101010"), an_output(ContentTime="101010.123")) == set()


def test_an_accession_number_and_a_telephone_number_are_identifiers() -> None:
    original = an_original(AccessionNumber="RX2026-5511", PatientTelephoneNumbers="+43 (1) 555 01 23 45")

    assert hits(original, an_output(ImageComments="see rx 2026 5511")) == {("(0020,4000)", "id")}
    assert hits(original, an_output(ImageComments="call 01/555012345")) == {("(0020,4000)", "id")}


def test_addresses_and_institutions_are_found_as_they_stand() -> None:
    original = an_original(PatientAddress="12 Kettle Lane^Springfield", InstitutionName="Example Hospital of the Lakes")

    assert hits(original, an_output(ImageComments="lives 12, kettle lane")) == {("(0020,4000)", "phrase")}
    assert hits(original, an_output(ImageComments="EXAMPLE HOSPITAL OF THE LAKES")) == {("(0020,4000)", "phrase")}
    assert hits(original, an_output(ImageComments="hospital lakes")) == set()


# ------------------------------------------------------------------------------------------------ dates and UIDs

FORMS = """19470313|1947-03-13|1947/3/13|1947.03.13|13.03.1947|13.3.1947|13. 3. 1947|03/13/1947|13/03/1947|13-03-1947|13031947|13.03.47
    |13 March 1947|March 13, 1947|13-MAR-1947|Mar 13 1947|13. März 1947|13 mars 1947|13 de marzo de 1947|1947年3月13日|1947-03-13T10:00
    |born19470313|19470313101500.123|13th of March 1947|1947-Mar-13"""


@pytest.mark.parametrize("text", [each.strip() for each in FORMS.split("|")])
def test_a_birth_date_is_found_in_its_usual_forms(text: str) -> None:
    for scope in ({}, {"dates": "kept"}):
        assert hits(an_original(born="19470313"), an_output(ImageComments=f"* {text}"), **scope) == {("(0020,4000)", "date")}


@pytest.mark.parametrize("text", ["119470313", "194703131", "13.03.1948", "1947", "March 1947", "13.03.19470"])
def test_another_date_or_number_is_not_it(text: str) -> None:
    assert hits(an_original(born="19470313"), an_output(ImageComments=text)) == set()


def test_dates_of_the_study_are_looked_for_unless_they_are_kept() -> None:
    output = an_output(ImageComments="compared with 2026-01-02", ContentDate="20260102")

    assert hits(an_original(), output) == {("(0020,4000)", "date"), ("(0008,0023)", "date")}
    assert hits(an_original(), output, dates="shifted") == {("(0020,4000)", "date"), ("(0008,0023)", "date")}
    assert hits(an_original(), output, dates="kept") == set()


def test_a_moved_date_may_be_another_date_of_the_original() -> None:
    original = an_original(StudyDate="20260102", SeriesDate="20250203")

    assert hits(original, an_output(StudyDate="20250203"), dates="shifted") == set()
    assert hits(original, an_output(SeriesDate="20250203"), dates="shifted") == {("(0008,0021)", "date")}
    assert hits(original, an_output(CurveDate="20250203"), dates="shifted") == {("(0008,0025)", "date")}


def test_whoever_is_born_on_the_day_of_the_study_has_no_date_to_hide() -> None:
    assert hits(an_original(born="20260102"), an_output(StudyDate="20260102"), dates="kept") == set()


def test_a_date_within_a_dt_is_found() -> None:
    original = an_original(AcquisitionDateTime="20260104101010.5+0100")

    assert hits(original, an_output(FrameReferenceDateTime="20260104")) == {("(0018,9151)", "date")}


def test_uids_are_looked_for_unless_they_are_kept() -> None:
    original = an_original(FrameOfReferenceUID="1.2.3.4.55.66.77")
    output = an_output(FrameOfReferenceUID="1.2.3.4.55.66.77", ImageComments="of 1.2.3.4.55.66.77")

    assert hits(original, output) == {("(0020,0052)", "uid"), ("(0020,4000)", "uid")}
    assert hits(original, output, uids=True) == set()


def test_below_the_root_of_the_standard_only_registered_uids_are_everybody_s() -> None:
    forged = "1.2.840.10008.19610412.77123"
    original = an_original(patient_id="PQX-77123", FrameOfReferenceUID=forged)

    assert hits(original, an_output(FrameOfReferenceUID=forged)) == {("(0020,0052)", "uid")}
    assert hits(an_original(patient_id="19610412"), an_output(FrameOfReferenceUID=forged)) == {("(0020,0052)", "id")}
    registered = "1.2.840.10008.1.4.1.1"
    assert hits(an_original(FrameOfReferenceUID=registered), an_output(FrameOfReferenceUID=registered)) == set()


def test_a_uid_that_stands_for_none_is_none() -> None:
    assert hits(an_original(FrameOfReferenceUID="0"), an_output(FrameOfReferenceUID="0")) == set()


def test_what_the_policy_keeps_is_not_looked_for() -> None:
    original = an_original(DeviceSerialNumber="SN-778899", StationName="ROOM-QQ7", InstitutionName="Example Hospital")
    output = an_output(DeviceSerialNumber="SN-778899", StationName="ROOM-QQ7", InstitutionName="Example Hospital")

    assert {place for place, _ in hits(original, output)} == {"(0018,1000)", "(0008,1010)", "(0008,0080)"}
    assert hits(original, output, device=True, institution=True) == set()
    assert hits(original, output, keep=frozenset({0x00181000, 0x00081010, 0x00080080})) == set()


@pytest.mark.parametrize(
    ("name", "maker"), [("Philips^Medical", "Philips Medical Systems"), ("Philips", "PHILIPS "), ("Siemens^Jo", "SIEMENS")]
)
def test_a_known_maker_s_name_is_there_by_nature(name: str, maker: str) -> None:
    assert hits(an_original(name, Manufacturer=maker), an_output(Manufacturer=maker)) == set()


@pytest.mark.parametrize("keyword", ["Manufacturer", "ManufacturerModelName"])
@pytest.mark.parametrize(
    ("name", "patient_id", "text", "kind"),
    [
        ("Zaphodson^Quixy", "1", "Zaphodson Quixy", "name"),
        ("Li^May", "1", "May Li", "name"),
        ("Philips^Quixy", "1", "Philips Quixy", "name"),
        ("Doe^Jane", "A123", "A123", "id"),
    ],
)
def test_what_else_is_written_as_maker_or_model_excuses_nobody(keyword: str, name: str, patient_id: str, text: str, kind: str) -> None:
    original = an_original(name, patient_id, **{keyword: text})

    assert {found for _, found in hits(original, an_output(**{keyword: text}))} == {kind}


def test_a_device_may_be_named_like_its_model() -> None:
    original = an_original(StationName="QUAGGLER", ManufacturerModelName="Quaggler 9000")

    assert hits(original, an_output(ManufacturerModelName="Quaggler 9000")) == set()


def test_the_policy_s_name_is_nobody_s_where_it_is_written_and_nowhere_else() -> None:
    original, scope = part10(an_original("Quaggler^Ann")), Scope.of((), name="quaggler-study")
    output = an_output(DeidentificationMethod=["PS3.15", "Hilum policy quaggler-study"])

    assert second_look(original, part10(output)) == (Hit("(0012,0063)", "name"),)
    assert second_look(original, part10(output), scope) == ()
    output.SoftwareVersions = "quaggler-study"
    assert second_look(original, part10(output), scope) == (Hit("(0018,1020)", "name"),)
    output.SoftwareVersions, output.DeidentificationMethod = "1", ["Hilum policy quaggler-study", "of Quaggler"]
    assert second_look(original, part10(output), scope) == (Hit("(0012,0063)", "name"),)


@pytest.mark.parametrize(
    ("patient_id", "uid", "kinds"),
    [
        ("7712345", "1.2.826.0.1.99999.7712345.19610412.1", {"id", "date"}),
        ("PQX-77123", "1.2.826.0.1.99999.77123.1", {"id"}),
        ("0077123", "1.2.826.0.1.99999.77123.1", {"id"}),
        ("0077123", "1.2.826.0.1.99999.177123.1", set()),
        ("771234", "1.2.826.0.1.99999.20151110771234.1", {"id"}),
        ("771234", "1.2.826.0.1.99999.207712347.1", set()),
        ("77123456", "1.2.826.0.1.99999.2077123456000.1", {"id"}),
        ("4711", "1.2.826.0.1.99999.4711.1", set()),
        ("10008", "1.2.840.10008.5.1.4.1.1.2", set()),
        ("4711", "1.2.826.0.1.12041961.1", {"date"}),
        ("4711", "1.2.826.0.1.5.1961.4.12.1", {"date"}),
        ("4711", "1.2.826.0.1.5.19610412093015.1", {"date"}),
        ("4711", "1.2.826.0.1.5.20151110093015.1", set()),
    ],
)
def test_identifiers_and_the_birth_date_are_looked_for_in_uids_that_stay(patient_id: str, uid: str, kinds: set[str]) -> None:
    original = an_original("Quaggler^Ann", patient_id, "19610412", StudyInstanceUID=uid, StudyDate="20151110")
    output = an_output(StudyInstanceUID=uid, ReferencedStudySequence=[item(ReferencedSOPInstanceUID=uid)])

    found = hits(original, output, uids=True)
    assert found == {(place, kind) for place in ("(0020,000D)", "(0008,1110)/(0008,1155)") for kind in kinds}


def test_who_is_born_on_the_day_of_the_study_has_no_date_to_hide_in_uids() -> None:
    uid = "1.2.826.0.1.5.20151110093015.1"
    original = an_original(born="20151110", StudyInstanceUID=uid, StudyDate="20151110")

    assert hits(original, an_output(StudyInstanceUID=uid), uids=True) == set()


def test_an_accession_number_is_looked_for_in_uids_that_stay_and_a_known_former_identifier() -> None:
    output = an_output(StudyInstanceUID="1.2.826.0.1.99123", SeriesInstanceUID="1.2.826.0.1.887766.5")
    original = an_original(AccessionNumber="A99123")

    found = second_look(part10(original), part10(output), Scope(uids=True), [Fact("id", 0, b"MRN 887766")])
    assert set(found) == {Hit("(0020,000D)", "id"), Hit("(0020,000E)", "id")}


def test_values_that_only_the_caller_knows_are_looked_for() -> None:
    output = part10(an_output(ImageComments="formerly MRN-887766"))

    found = second_look(part10(an_original()), output, also=[Fact("id", 0, b"MRN 887766")])

    assert found == (Hit("(0020,4000)", "id"),)


# ------------------------------------------------------------------------------------------------ places


def in_private(ds: FileDataset, text: bytes) -> None:
    ds.private_block(0x0029, "QUAG", create=True).add_new(0x10, "LO", text.decode("latin-1"))


def in_private_un(ds: FileDataset, text: bytes) -> None:
    ds.private_block(0x0029, "QUAG", create=True).add_new(0x10, "UN", b"\x01\x02" + text + b"\xff")


def in_a_creator(ds: FileDataset, text: bytes) -> None:
    ds.private_block(0x0029, text.decode("latin-1"), create=True).add_new(0x10, "LO", "x")


def three_deep(ds: FileDataset, text: bytes) -> None:
    ds.ContentSequence = [item(ContentSequence=[item(), item(ContentSequence=[item(TextValue=text.decode("latin-1"))])])]


def in_two_bytes_a_letter(ds: FileDataset, text: bytes) -> None:
    ds.private_block(0x0029, "QUAG", create=True).add_new(0x10, "OB", b"\x07" + text.decode("latin-1").encode("utf-16-le") + b"\x07\x07")


def in_an_overlay(ds: FileDataset, text: bytes) -> None:
    ds.add_new(0x60003000, "OW", b"\xff" * 100 + b" " + text + b" " * (len(text) % 2 + 1))


def in_file_meta(ds: FileDataset, text: bytes) -> None:
    ds.file_meta.ImplementationVersionName = text[:16].decode("latin-1")


def in_the_preamble(ds: FileDataset, text: bytes) -> None:
    ds.preamble = (b"II*\0" + text).ljust(128, b"\0")


def in_a_pdf(ds: FileDataset, text: bytes) -> None:
    first, second = text[: len(text) // 2], text[len(text) // 2 :]
    stream = zlib.compress(b"BT /F1 12 Tf [(" + first + b") -20 (" + second + b")] TJ ET")
    ds.EncapsulatedDocument = b"%PDF-1.4\n1 0 obj <</Filter/FlateDecode>>\nstream\n" + stream + b"\nendstream endobj\n%%EOF\n"


def in_a_cda(ds: FileDataset, text: bytes) -> None:
    ds.EncapsulatedDocument = b"<?xml version='1.0'?><name>" + text[:3] + b"<b/>&#" + str(text[3]).encode() + b";" + text[4:] + b"</name>  "


def behind_the_pixels(ds: FileDataset, text: bytes) -> None:
    ds.add_new(0xFFFCFFFC, "OB", b" " + text + b" " * (len(text) % 2 + 1))


def beside_the_icon_s_pixels(ds: FileDataset, text: bytes) -> None:
    ds.IconImageSequence = [
        item(Rows=1, BitsAllocated=8, PixelData=b"\0\0", SourceImageSequence=[item(ImageComments=text.decode("latin-1"))])
    ]


def in_a_uid(ds: FileDataset, text: bytes) -> None:
    ds.add_new(0x00080018, "UI", text.decode("latin-1"))


def in_a_number(ds: FileDataset, text: bytes) -> None:
    ds.add_new(0x00200011, "LO", text.decode("latin-1"))


def in_fragments(ds: FileDataset, text: bytes) -> None:
    block = ds.private_block(0x0029, "QUAG", create=True)
    block.add_new(0x10, "OB", b"\xfe\xff\x00\xe0\0\0\0\0\xfe\xff\x00\xe0\x10\0\0\0" + text.ljust(16)[:16])
    ds[block.get_tag(0x10)].is_undefined_length = True


def in_latin_bytes_of_an_unknown_kind(ds: FileDataset, text: bytes) -> None:
    ds.private_block(0x0029, "QUAG", create=True).add_new(0x10, "UN", "für ".encode("latin-1") + text)


def in_xml_of_an_unknown_kind(ds: FileDataset, text: bytes) -> None:
    escaped = text[:2] + f"&#x{text[2]:x};".encode() + text[3:]
    ds.private_block(0x0029, "QUAG", create=True).add_new(0x10, "UN", b"name = '" + escaped + b"'")


def in_a_vr_that_lies(ds: FileDataset, text: bytes) -> None:
    ds.add_new(0x00100020, "UI", text.decode("latin-1"))


PLACES: list[Callable[[FileDataset, bytes], None]] = [
    in_private, in_private_un, in_a_creator, three_deep, in_two_bytes_a_letter, in_an_overlay, in_file_meta, in_the_preamble, in_a_pdf,
    in_a_cda, behind_the_pixels, beside_the_icon_s_pixels, in_a_uid, in_a_number, in_fragments, in_latin_bytes_of_an_unknown_kind,
    in_xml_of_an_unknown_kind, in_a_vr_that_lies,
]  # fmt: skip


@pytest.mark.parametrize("place", PLACES, ids=lambda place: str(place.__name__))
@pytest.mark.parametrize(("text", "kind"), [(b"Quaggler", "name"), (b"4711-0815", "id"), (b"1947-03-13", "date"), (b"QUAGG", "name")])
def test_it_is_found_wherever_it_is(place: Callable[[FileDataset, bytes], None], text: bytes, kind: str) -> None:
    original = an_original("Quaggler^Quagg", "4711-0815")
    output = an_output()
    place(output, text)

    assert kind in {hit.kind for hit in second_look(part10(original), part10(output))}


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian])
def test_every_encoding_is_read(syntax: str) -> None:
    output = an_output(syntax, ContentSequence=[item(ContentSequence=[item(TextValue="Quaggler")])])
    original = an_original("Quaggler^Ann")

    found = second_look(part10(original), part10(output))

    assert found == (Hit("(0040,A730)/(0040,A730)/(0040,A160)", "name"),)


def test_pixel_data_is_left_out() -> None:
    assert hits(an_original("Quaggler^Ann"), an_output(PixelData=b"Quaggler" * 8)) == set()


def test_short_words_come_about_by_chance_in_bytes_and_not_in_text() -> None:
    original = an_original("Quag^Ann")
    output = an_output()
    block = output.private_block(0x0029, "X", create=True)
    block.add_new(0x10, "OB", b"\x01\xff" * 200 + b" QUAG \xff\x01")
    assert hits(original, output) == set()

    block.add_new(0x11, "OB", b"\x01\xff" * 200 + b"is of QUAG \xff\x01")
    block.add_new(0x12, "OB", b"QUAG")
    assert hits(original, output) == {("(0029,1011)", "name"), ("(0029,1012)", "name")}


# ------------------------------------------------------------------------------------------------ parts, faults


@given(st.lists(st.integers(0, 3000), max_size=12))
@settings(max_examples=30, deadline=None)
def test_the_output_may_come_in_parts(cuts: list[int]) -> None:
    original, raw = part10(an_original("Quaggler^Ann")), part10(an_output(ImageComments="Quaggler"))
    edges = [0, *sorted(min(cut, len(raw)) for cut in cuts), len(raw)]
    parts = [memoryview(raw)[a:b] for a, b in pairwise(edges)]

    assert second_look(original, parts) == (Hit("(0020,4000)", "name"),)


@pytest.mark.parametrize("pixels", [70_000, 300_000])
def test_what_is_behind_large_values_is_found(pixels: int) -> None:
    output = an_output(PixelData=b"\0" * pixels, ImageComments="x" * 40_000)
    output.private_block(0x0029, "X", create=True).add_new(0x10, "OB", b"\0" * 200_000 + b" Quaggler ")
    output.add_new(0xFFFCFFFC, "OB", b"Quaggler")

    assert hits(an_original("Quaggler^Ann"), output) == {("(0029,1010)", "name"), ("(FFFC,FFFC)", "name")}


def test_behind_fragments_as_well() -> None:
    original = an_original("Quaggler^Ann")
    plain = an_output()
    del plain.PixelData
    fragments = (
        b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\0\0\0\0" + b"\xfe\xff\x00\xe0" + (100_000).to_bytes(4, "little")
    )
    tail = b"\xfe\xff\xdd\xe0\0\0\0\0" + b"\xfc\xff\xfc\xffOB\0\0\x08\0\0\0Quaggler"
    raw = part10(plain) + fragments + b"\0" * 100_000 + tail

    assert second_look(part10(original), raw) == (Hit("(FFFC,FFFC)", "name"),)


def in_frames(*fragments: bytes) -> bytes:
    """An output with these fragments, and nothing behind them."""
    plain = an_output()
    del plain.PixelData
    items = (b"", *fragments)
    whole = b"".join(b"\xfe\xff\x00\xe0" + len(each).to_bytes(4, "little") + each for each in items)
    return part10(plain) + b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xff" + whole + b"\xfe\xff\xdd\xe0\0\0\0\0"


@pytest.mark.parametrize("noise", [0, 9_000, 200_000])
@pytest.mark.parametrize("frames", [1, 40])
@pytest.mark.parametrize("at_the_end", [True, False])
def test_text_beside_the_samples_of_compressed_frames_is_found(noise: int, frames: int, *, at_the_end: bool) -> None:
    samples, text = b"\xff\xd8\xff" + b"\x83\0\x91" * (noise // 3), b"by Jane Quaggler"
    hidden = samples + text if at_the_end else samples[:9] + text + samples[9:]
    clean = (samples + b"\0" * (len(samples) % 2),) * (frames - 1)

    assert second_look(part10(an_original("Quaggler^Jane")), in_frames(*clean, hidden + b"\0" * (len(hidden) % 2))) == (
        Hit("(7FE0,0010)", "name"),
    )
    assert second_look(part10(an_original("Quaggler^Jane")), in_frames(*clean, samples + b"\0" * (len(samples) % 2))) == ()


@pytest.mark.parametrize("text", [b"Quaggler", b"xQ Quaggler x", "Quaggler".encode("utf-16-le")])
@pytest.mark.parametrize("zeros", [0, 5000])
@pytest.mark.parametrize("noise", [0, 9_000, 2_000_000])
def test_text_behind_the_end_of_an_image_is_found_whatever_follows_it(text: bytes, zeros: int, noise: int) -> None:
    frame = b"\xff\xd8\xff" + b"\x83\0\x91" * (noise // 3) + b"\xff\xd9" + bytes(zeros) + text + b"\0" * 3000 + b"\xff\xd9"

    assert second_look(part10(an_original("Quaggler^Jane")), in_frames(frame + b"\0" * (len(frame) % 2))) == (Hit("(7FE0,0010)", "name"),)


def test_another_end_of_an_image_in_front_of_text_hides_none() -> None:
    frame = b"\xff\xd8\xff" + b"\x83" * 9000 + b"\xff\xd9" + b"\x83" * 1017 + b"\xff\xd9" + b"Quaggler" + b"\x83" * 2000

    assert second_look(part10(an_original("Quaggler^Jane")), in_frames(frame + b"\0" * (len(frame) % 2))) == (Hit("(7FE0,0010)", "name"),)


def test_tables_of_jpeg_are_no_identifiers() -> None:
    table = bytes(range(0x25, 0x2B)) + b"456789:CDEFGHIJSTUVWXYZcdefghijstuvwxyz"

    assert second_look(part10(an_original(patient_id="456789")), in_frames(b"\xff\xd8\xff\xc4" + table)) == ()


@given(st.integers(0, 3000), st.binary(max_size=4))
@settings(max_examples=60, deadline=None)
def test_damage_raises_nothing(at: int, damage: bytes) -> None:
    raw, good = part10(an_output()), part10(an_original())
    broken = raw[:at] + damage + raw[at + len(damage) :]

    second_look(good, broken)
    second_look(broken, good)


@pytest.mark.parametrize("raw", [b"", b"\0" * 200, b"\0" * 128 + b"DICM"])
def test_what_cannot_be_read_is_not_passed(raw: bytes) -> None:
    good = part10(an_output())

    assert second_look(good, raw) == (Hit("output", "unreadable"),)
    assert second_look(raw, good) == (Hit("original", "unreadable"),)


def test_a_file_that_ends_early_is_not_passed() -> None:
    good, cut = part10(an_original()), part10(an_output())[:-65]

    assert second_look(good, cut) == (Hit("output", "unreadable"),)


def test_nesting_without_end_is_not_passed() -> None:
    raw = part10(an_output())
    deep = b"\x40\x00\x30\xa7SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff" * 5000

    assert second_look(part10(an_original()), raw + deep) == (Hit("output", "unreadable"),)


# ------------------------------------------------------------------------------------------------ whatever identity

FAMILIES = [
    "Quaggler",
    "O'Quimby",
    "Zürchner",
    "van der Quist",
    "Smith-Qualm",
    "Ng",
    "Lung",
    "Wójcikowska",
    "Åkeqvist",
    "Straße",
    "Łukaszewski",
]
GIVENS = ["Anna", "Bo", "May", "Zoë", "Jean-Luc", "Chest", "Björn"]
names = st.tuples(st.sampled_from(FAMILIES), st.sampled_from(GIVENS))
texts = st.sampled_from(["{}", "seen by {}", "{}.", "({})", "a-{}-b", "note: {}; end"])
plain = {"ß": "ss", "ø": "o", "ł": "l", "Ł": "L"}


def spelled(text: str, how: str) -> str:
    if how == "ascii":
        text = "".join(plain.get(each, each) for each in text)
        return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return {"upper": text.upper(), "lower": text.lower(), "nfd": unicodedata.normalize("NFD", text)}.get(how, text)


@given(
    names,
    texts,
    st.sampled_from(["{f} {g}", "{g} {f}", "{f}, {g}", "{f}^{g}", "{g}_{f}"]),
    st.sampled_from(["", "upper", "lower", "ascii", "nfd"]),
)
@settings(max_examples=60, deadline=None)
def test_whatever_the_name_it_is_found(name: tuple[str, str], around: str, order: str, how: str) -> None:
    text = around.format(spelled(order.format(f=name[0], g=name[1]), how))

    assert ("(0020,4000)", "name") in hits(an_original("^".join(name)), an_output(ImageComments=text))


@given(
    st.text("ABCDEFGHJKLMNPQRSTUVWXYZ0123456789", min_size=6, max_size=15).map(lambda text: f"{text}7"),  # no word of the vocabulary
    st.lists(st.sampled_from(["", "-", " ", ".", "/", "_"]), min_size=16, max_size=16),
    texts,
)
@settings(max_examples=60, deadline=None)
def test_whatever_the_identifier_it_is_found(identifier: str, between: list[str], around: str) -> None:
    text = around.format(
        "".join(character + mark for character, mark in zip(identifier, [*between[: len(identifier) - 1], ""], strict=False))
    )

    assert ("(0020,4000)", "id") in hits(an_original(patient_id=identifier), an_output(ImageComments=text))


DATES = ["%Y%m%d", "%Y-%m-%d", "%d.%m.%Y", "%m/%d/%Y", "%d/%m/%Y", "%d %B %Y", "%B %d, %Y", "%d-%b-%Y", "%d%m%Y", "%Y%m%d101500"]
DATES += ["%y%m%d", "%d%m%y", "%d-%m-%y", "%m/%d/%y", "%d.%m.%y", "%d. %b '%y", "%Y:%m:%d", "%d - %m - %Y"]


@given(st.dates(min_value=date(1901, 1, 1), max_value=date(2025, 12, 31)), st.sampled_from(DATES), texts)
@settings(max_examples=60, deadline=None)
def test_whatever_the_birth_date_it_is_found(born: date, form: str, around: str) -> None:
    text = around.format(born.strftime(form))

    assert ("(0020,4000)", "date") in hits(an_original(born=f"{born:%Y%m%d}"), an_output(ImageComments=text))


@given(
    st.sampled_from(PLACES),
    st.sampled_from(
        ["Quaggler", "JANE QUAGGLER", "quaggler, jane", "4711-0815", "4711 0815", "47110815", "1947-03-13", "13.03.1947", "13-MAR-1947"]
    ),
)
@settings(max_examples=100, deadline=None)
def test_whatever_the_place_and_the_form_it_is_found(place: Callable[[FileDataset, bytes], None], text: str) -> None:
    output = an_output()
    place(output, text.encode())

    assert second_look(part10(an_original("Quaggler^Jane", "4711-0815", "19470313")), part10(output))


letters = st.text(st.characters(categories=("Lu", "Ll", "Lo")), min_size=1, max_size=12)


@given(letters, letters, st.text("0123456789ABCX-./ ", max_size=16), st.dates(min_value=date(1901, 1, 1), max_value=date(2025, 12, 31)))
@settings(max_examples=150, deadline=None)
def test_whatever_the_identity_a_clean_object_is_clean(family: str, given_name: str, identifier: str, born: date) -> None:
    original = an_original(f"{family}^{given_name}", identifier, f"{born:%Y%m%d}")

    assert hits(original, an_output()) == set()


def test_no_hit_shows_a_value() -> None:
    found = second_look(part10(an_original("Quaggler^Ann")), part10(an_output(ImageComments="Quaggler")))

    assert "uaggler" not in repr(found).lower()


def test_what_is_known_of_the_patient_or_of_the_object_before_is_looked_for_as_well() -> None:
    patient = Patient(
        key="k",
        ids=(Identifier(value="NEW-1234567"),),
        name="Quaggler^Jané",
        birth_date="19470313",
        former_ids=(Identifier(value="OLD-7654321"),),
    )
    before = facts_of(part10(an_original("Mistaken^Ann")), Scope())

    def kinds(text: str, *also: Fact) -> set[str]:
        return {
            hit.kind
            for hit in second_look(part10(an_original("Xyzzy^Q", born="19011224")), part10(an_output(ImageComments=text)), also=also)
        }

    for text, kind in (("new1234567", "id"), ("OLD 7654321", "id"), ("Quaggler", "name"), ("JANÉ", "name"), ("13.03.1947", "date")):
        assert kinds(text, *facts_of_patient(patient)) == {kind}
        assert kinds(text) == set()
    assert kinds("Mistaken", *before) == {"name"}
    assert facts_of(b"no file", Scope()) == ()
