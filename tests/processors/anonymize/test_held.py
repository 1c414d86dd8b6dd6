"""Bad input: no object is made, and a sentence says why without a value of it."""

from __future__ import annotations

import struct
import zlib
from contextlib import suppress
from mmap import ACCESS_READ, mmap
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from processors.anonymize.engine import anonymize
from processors.anonymize.held import Held, HeldReason
from processors.anonymize.policy import Policy
from tests.processors.anonymize.objects import Raw, a_context, a_file, a_policy, an_object, encoded, held, out_of, part10, read, samples

DATES = a_policy("retain-modified-dates")
FULL = a_policy("retain-full-dates")
PRIVATE = a_policy("retain-safe-private")
UIDS = a_policy("retain-uids")
CLEAN = a_policy("clean-descriptors")


def with_elements(*elements: Raw, character_set: bytes = b"ISO_IR 100") -> bytes:
    own: list[Raw] = [(0x00080005, "CS", character_set)] if character_set else []
    return a_file([*own, *elements])


LATIN: Raw = (0x00080070, "LO", b"M\xfcller")
SIEMENS: Raw = (0x00190010, "LO", b"SIEMENS MR HEADER")


@pytest.mark.parametrize(
    ("original", "policy", "reason"),
    [
        pytest.param(b"", "basic", HeldReason.UNREADABLE, id="nothing"),
        pytest.param(b"%PDF-1.7" * 100, "basic", HeldReason.UNREADABLE, id="no DICOM"),
        pytest.param(a_file([], sop_class="1.2.840.113619.4.30"), "basic", HeldReason.PRIVATE_SOP_CLASS, id="private SOP class"),
        pytest.param(a_file([], sop_class="1.2.840.10008.1.3.10"), "basic", HeldReason.PRIVATE_SOP_CLASS, id="DICOMDIR"),
        pytest.param(a_file([], sop_class="1.2.840.10008.5.1.4.1.1.104.1"), "basic", HeldReason.DOCUMENT, id="encapsulated PDF"),
        pytest.param(a_file([(0x00080016, "UI", b"1.2.840.10008.5.1.4.1.1.4\0")]), "basic", HeldReason.UNREADABLE, id="two SOP classes"),
        pytest.param(a_file([(0x00100020, "LO", b"P1")])[:-4], "basic", HeldReason.TRUNCATED, id="truncated"),
        pytest.param(a_file([(0x00080050, "??", b"")]), "basic", HeldReason.UNREADABLE, id="no VR"),
        pytest.param(a_file([(0x00280010, "LT", b"Doe")]), "basic", HeldReason.VR_UNEXPECTED, id="text for a number"),
        pytest.param(a_file([(0x00280010, "US", b"\1\1Doe^Jane")]), "basic", HeldReason.VR_UNEXPECTED, id="a number and more"),
        pytest.param(a_file([(0x00081155, "UI", b"1.2.x")]), "basic", HeldReason.UID_INVALID, id="no UID"),
        pytest.param(a_file([(0x00081155, "UI", b"Doe^Jane")]), UIDS, HeldReason.UID_INVALID, id="no UID, UIDs retained"),
        pytest.param(a_file([(0x00081155, "UI", b"1." * 40 + b"1")]), "basic", HeldReason.UID_INVALID, id="long UID"),
        pytest.param(a_file([(0x00080020, "DA", b"29.02.2024")]), DATES, HeldReason.DATE_INVALID, id="wrong date, moved"),
        pytest.param(a_file([(0x00080020, "DA", b"20240230")]), FULL, HeldReason.DATE_INVALID, id="no such day, kept"),
        pytest.param(a_file([(0x00080020, "DA", b"Doe")]), FULL, HeldReason.DATE_INVALID, id="a name for a date"),
        pytest.param(a_file([(0x00080030, "TM", b"noon")]), DATES, HeldReason.DATE_INVALID, id="wrong time"),
        pytest.param(a_file([(0x0008002A, "DT", b"2024-02-29T10")]), DATES, HeldReason.DATE_INVALID, id="wrong date and time"),
        pytest.param(with_elements((0x00100010, "PN", "Müller".encode())), "basic", HeldReason.CHARACTER_SET, id="UTF-8 as Latin-1"),
        pytest.param(with_elements((0x00081030, "LO", "Müller".encode())), CLEAN, HeldReason.CHARACTER_SET, id="UTF-8 as Latin-1, cleaned"),
        pytest.param(with_elements((0x00080070, "LO", "Müller".encode())), "basic", HeldReason.CHARACTER_SET, id="UTF-8 as Latin-1, kept"),
        pytest.param(
            with_elements((0x00080070, "LO", b"M\xfcller"), character_set=b"ISO_IR 192"),
            "basic",
            HeldReason.CHARACTER_SET,
            id="Latin-1 as UTF-8",
        ),
        pytest.param(
            with_elements((0x00080070, "LO", b"M\xfcller"), character_set=b""), "basic", HeldReason.CHARACTER_SET, id="no character set"
        ),
        pytest.param(with_elements(character_set=b"DOE^JANE"), "basic", HeldReason.CHARACTER_SET, id="unknown character set"),
        pytest.param(with_elements(SIEMENS, (0x0019100C, "IS", b"Doe^Jane")), PRIVATE, HeldReason.PRIVATE_CREATOR, id="private value"),
        pytest.param(with_elements(SIEMENS, (0x0019100C, "LO", b"1000")), PRIVATE, HeldReason.PRIVATE_CREATOR, id="private VR"),
        pytest.param(with_elements(SIEMENS, (0x0019100E, "FD", b"Doe^J ")), PRIVATE, HeldReason.PRIVATE_CREATOR, id="private numbers"),
        pytest.param(a_file([(0x00100020, "LO", b"P1"), (0x00100020, "LO", b"P2")]), "basic", HeldReason.UNREADABLE, id="an element twice"),
        pytest.param(a_file([], syntax="1.2.840.10008.1.2")[:-20], "basic", HeldReason.TRUNCATED, id="truncated, implicit"),
        pytest.param(
            a_file([], sop_class="1.2.840.10008.5.1.4.1.1.2"),
            a_policy(more='refuse = ["1.2.840.10008.5.1.4.1.1.2"]'),
            HeldReason.POLICY,
            id="refused",
        ),
    ],
)
def test_no_object_is_made_of(original: bytes, policy: Policy | str, reason: HeldReason) -> None:
    stop = held(original, policy)

    assert stop.reason == reason
    assert stop.fix
    assert not any(each in str(stop) for each in ("Doe", "Müller", "1.2.x", "20240230", "29.02.2024", "noon"))


NAMES: list[Raw] = [(0x00100010, "PN", b"Doe^Jane"), (0x00100020, "LO", b"P1"), (0x00100010, "PN", b"Roe^John")]
#: A sequence that stays, with a code in it.
CODES: list[Raw] = [(0x00080100, "SH", b"T-1"), (0x00080102, "SH", b"SRT"), (0x00080104, "LO", b"x"), (0x00080100, "SH", b"T-2")]


@pytest.mark.parametrize("trace", [False, True])
@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"])
@pytest.mark.parametrize("delimited", [False, True])
@pytest.mark.parametrize(
    ("elements", "place"),
    [
        pytest.param(NAMES, "(0010,0010)", id="with another one between"),
        pytest.param([(0x00100020, "LO", b"P1"), (0x00082228, "SQ", [CODES])], "(0008,0100)", id="in an item"),
        pytest.param([(0x00100020, "LO", b"P1"), (0x00082228, "UN", [CODES])], "(0008,0100)", id="in an item under UN"),
        pytest.param([(0x00100020, "LO", b"P1"), (0x00082228, "SQ", [[(0x00082228, "SQ", [CODES])]])], "(0008,0100)", id="deeper"),
        pytest.param([*NAMES[:2], (0x00287FE0, "UR", b"x "), (0x00100010, "PN", b"Roe^John")], "(0010,0010)", id="at the end"),
    ],
)
def test_the_same_element_twice_is_held_wherever_the_second_is(
    elements: list[Raw], place: str, syntax: str, trace: bool, delimited: bool
) -> None:
    explicit, big = syntax != "1.2.840.10008.1.2", syntax == "1.2.840.10008.1.2.2"
    original = a_file([], syntax=syntax) + encoded(elements, explicit=explicit, big=big, delimited=delimited)

    with pytest.raises(Held, match="The same element is there twice") as stop:
        anonymize(original, a_context("basic"), trace=trace)
    assert stop.value.place.endswith(place)


def test_an_element_in_two_items_is_not_there_twice() -> None:
    items: list[list[Raw]] = [[(0x00081155, "UI", b"1.2.3.4 ")], [(0x00081155, "UI", b"1.2.3.5 ")]]

    for trace in (False, True):
        assert out_of(a_file([(0x00100020, "LO", b"P1"), (0x00081140, "SQ", items)]), a_context("basic"), trace=trace)


def test_every_reason_says_what_it_means() -> None:
    assert all(reason.meaning.endswith(".") for reason in HeldReason)


def test_sequences_nested_too_deep_are_held() -> None:
    inside: list[Raw] = []
    for _ in range(40):
        inside = [(0x00081115, "SQ", [inside])]

    assert held(a_file(inside)).reason == HeldReason.NESTING


def test_removed_sequences_nested_without_end_are_held() -> None:
    """They are gone through to find where they end."""
    inside: list[Raw] = []
    for _ in range(200):
        inside = [(0x00081115, "SQ", [inside])]

    assert held(a_file([(0x00091010, "SQ", [inside])], delimited=True)).reason == HeldReason.NESTING


def test_an_object_whose_identity_is_unknown_is_held() -> None:
    ds = an_object()
    del ds.PatientID, ds.StudyInstanceUID

    assert "neither a PatientID" in str(held(part10(ds)))


def test_wrong_dates_do_not_matter_where_dates_go() -> None:
    made = read(out_of(a_file([(0x00080020, "DA", b"Doe")]), a_context("basic")))

    assert made["StudyDate"].value == ""


def test_text_without_a_character_set_is_read_as_the_policy_says() -> None:
    policy = a_policy(more='character_set = "ISO_IR 100"')

    made = out_of(with_elements((0x00080070, "LO", b"M\xfcller"), character_set=b""), a_context(policy))

    assert b"M\xfcller" in made


def test_identifiers_under_wrong_or_unknown_vrs_go() -> None:
    elements: list[Raw] = [
        (0x00081070, "UN", b"Doe^Jane"),
        (0x00104000, "OB", b"Doe^Jane"),
        (0x00102154, "SQ", [[(0x00104000, "LT", b"Doe")]]),
    ]

    assert b"Doe" not in out_of(a_file(elements), a_context("basic"))


def test_text_that_holds_another_element_goes() -> None:
    """As in an object whose lengths are wrong: what comes behind a kept text is read as part of it."""
    swallowed = b"ACME" + encoded([(0x00100010, "PN", b"Doe^Jane")])

    for vr in ("LO", "AE", "UN"):
        assert b"Doe" not in out_of(a_file([(0x00080070, vr, swallowed)]), a_context("basic"))


def test_images_beside_the_objects_own_go() -> None:
    icon: Raw = (0x00880200, "SQ", [[(0x7FE00010, "OW", b"Doe^Jane")]])
    elsewhere: Raw = (0x00081115, "SQ", [[(0x7FE00010, "OW", b"Doe^Jane")]])

    made = out_of(a_file([elsewhere, icon, (0x7FE00010, "OW", b"pixels")]), a_context("basic"))

    assert (b"Doe" in made, b"pixels" in made) == (False, True)


def test_an_error_of_the_library_shows_nothing_of_the_object() -> None:
    """What pydicom says quotes values; big endian objects are read by it."""
    stop = held(a_file([(0x00081140, "UN", b"Doe^Jane Doe^Jane")], syntax="1.2.840.10008.1.2.2")[:-3])

    assert "Doe" not in str(stop)
    assert stop.__cause__ is None


def test_a_deflated_object_is_deflated_again() -> None:
    whole = a_file([(0x00100010, "PN", b"Doe^Jane"), (0x00080070, "LO", b"ACME")], syntax="1.2.840.10008.1.2.1.99")
    start = 144 + struct.unpack_from("<I", whole, 140)[0]
    stream = zlib.compressobj(wbits=-15)
    packed = whole[:start] + stream.compress(whole[start:]) + stream.flush()

    made = read(out_of(packed, a_context("basic")))

    assert (made.Manufacturer, made.file_meta.TransferSyntaxUID.name) == ("ACME", "Deflated Explicit VR Little Endian")
    assert "Doe" not in str(made)


def test_large_pixel_data_is_a_slice_of_the_original(tmp_path: Path) -> None:
    pixels = bytes(4 * 2**20)
    (tmp_path / "it.dcm").write_bytes(a_file([(0x7FE00010, "OW", pixels)]))
    with (tmp_path / "it.dcm").open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as mapped:
        parts = anonymize(mapped, a_context("basic")).parts
        slices = [part for part in parts if isinstance(part, memoryview)]

        assert sum(map(len, slices)) > len(pixels)
        assert sum(len(part) for part in parts if isinstance(part, bytes)) < 10_000
        for part in slices:
            part.release()
        del parts


SMALL = [data for data in samples().values() if len(data) < 40_000]
CONTEXTS = [a_context("basic"), a_context("research"), a_context(FULL)]


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_whatever_the_bytes_are_it_is_an_object_or_held(data: st.DataObject) -> None:
    """Bytes changed, cut, doubled: nothing but `Held` is raised, with trace and without."""
    whole = bytearray(data.draw(st.sampled_from(SMALL)))
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(st.integers(0, len(whole) - 1))
        how = data.draw(st.sampled_from(["byte", "cut", "double", "length"]))
        if how == "byte":
            whole[at] = data.draw(st.integers(0, 255))
        elif how == "cut":
            del whole[at : at + data.draw(st.integers(1, 50))]
        elif how == "double":
            whole[at:at] = whole[at : at + 30]
        else:
            whole[at : at + 4] = b"\xff\xff\xff\xff"
        if not whole:
            break
    context = data.draw(st.sampled_from(CONTEXTS))
    for trace in (False, True):
        with suppress(Held):
            anonymize(bytes(whole), context, trace=trace)
