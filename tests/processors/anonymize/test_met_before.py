"""What was met before is not found out again, and comes to the same: in the engine, and in the second look."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from processors.anonymize.charsets import charset
from processors.anonymize.held import Held
from processors.anonymize.keys import key_of
from processors.anonymize.known_runs import Run, Runs
from processors.anonymize.pseudonyms import Pseudonyms
from processors.anonymize.result import Context
from processors.anonymize.verify import second_look
from processors.anonymize.verify.reading import TRIED_AGAIN_AFTER, Reader
from tests.processors.anonymize.objects import Raw, a_context, a_file, a_policy, an_object, encoded, flat, out_of, part10, read, samples

SAFE = a_policy("retain-safe-private", "retain-device-identity")
CLEANING = a_policy("clean-descriptors", "retain-modified-dates")
CONTEXTS = [a_context(), a_context("research"), a_context(SAFE), a_context(CLEANING)]
#: Elements as a series has them, each in a few ways, or not there.
CHOICES: dict[int, tuple[str, list[bytes]]] = {
    0x00080005: ("CS", [b"ISO_IR 100", b"ISO_IR 192"]),
    0x00080008: ("CS", [b"ORIGINAL\\PRIMARY", b"a^b ", b"Chest "]),
    0x00080018: ("UI", [b"1.2.3.4.5.6\0", b"1.2.3.4.5.7\0", b"1.2.3.4.5.10"]),
    0x00080020: ("DA", [b"20240229", b"20240301"]),
    0x00080080: ("LO", [b"Hospital", b"H\xf6spital"]),
    0x00081030: ("LO", [b"CT Chest", b"Seen by Doe "]),
    0x00081115: ("SQ", [b"1.2.3.4\0", b"1.2.3.5\0"]),
    0x00100010: ("PN", [b"Doe^Jane", b"Chest^Lung"]),
    0x00100020: ("LO", [b"P1", b"P2", b"P100"]),
    0x00180060: ("DS", [b"120 ", b"Doe "]),
    0x00190010: ("LO", [b"SIEMENS MR HEADER ", b"SOMEBODY"]),
    0x0019100C: ("IS", [b"1000", b"2000"]),
    0x00191099: ("LO", [b"Doe^Jane"]),
    0x00200013: ("IS", [b"1 ", b"2 ", b"100 "]),
    0x00280303: ("CS", [b"MODIFIED"]),
    0x00281050: ("DS", [b"40\\1", b"40\\12 "]),
    0x7FE00010: ("OW", [b"\1\2" * 8]),
}


@st.composite
def series(draw: st.DrawFn) -> list[bytes]:
    """Objects that have most of their elements in common."""
    fixed = {tag: draw(st.sampled_from([*values, b"-"])) for tag, (_, values) in CHOICES.items()}
    varying = draw(st.lists(st.sampled_from(sorted(CHOICES)), max_size=4, unique=True))
    syntax = draw(st.sampled_from(["1.2.840.10008.1.2.1", "1.2.840.10008.1.2"]))
    found = []
    for _ in range(4):
        here = fixed | {tag: draw(st.sampled_from([*CHOICES[tag][1], b"-"])) for tag in varying}
        elements: list[Raw] = []
        for tag, value in here.items():
            vr = CHOICES[tag][0]
            if value != b"-":
                elements.append((tag, vr, [[(0x00081155, "UI", value)]] if vr == "SQ" else value))
        found.append(a_file(elements, syntax=syntax))
    return found


def outcome(original: bytes, context: Context, *, trace: bool) -> object:
    try:
        return list(flat(read(out_of(original, context, trace=trace))))
    except Held:
        return "held"


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(objects=series(), context=st.sampled_from(CONTEXTS))
def test_what_was_met_before_becomes_what_the_plain_engine_makes_of_it(objects: list[bytes], context: Context) -> None:
    for original in (*objects, *objects):
        assert outcome(original, context, trace=False) == outcome(original, context, trace=True)


def test_dates_that_two_patients_share_move_by_each_ones_days() -> None:
    context = a_context("research")
    days = {str(read(out_of(part10(an_object(PatientID=who)), context)).StudyDate) for who in ("P1", "P2", "P1", "P2")}

    assert len(days) == 2


def test_a_word_that_is_the_name_of_one_patient_stays_in_the_others_objects() -> None:
    context = a_context(CLEANING)
    said = [
        read(out_of(part10(an_object(PatientName=name, StudyDescription="CT Chest")), context)).get("StudyDescription", "")
        for name in ("Doe^Jane", "Chest^Jane", "Doe^Jane", "Chest^Jane")
    ]

    assert said == ["CT Chest", "CT", "CT Chest", "CT"]


def test_what_is_alike_for_all_patients_of_a_project_is_not_for_those_of_another_key() -> None:
    one = a_context()
    other = Context(policy=one.policy, pseudonyms=Pseudonyms(key_of(bytes(32)), one.policy.domain))
    frames = [
        str(read(out_of(part10(an_object(PatientID=who, FrameOfReferenceUID="1.2.3.4")), context)).FrameOfReferenceUID)
        for who, context in (("P1", one), ("P2", one), ("P1", other), ("P2", other), ("P1", one))
    ]

    assert frames[0] == frames[1] == frames[4]
    assert frames[2] == frames[3] != frames[0]


def test_a_private_element_stays_only_behind_its_creator() -> None:
    context = a_context(SAFE)
    own: list[Raw] = [(0x0019100C, "IS", b"1000"), (0x00200013, "IS", b"1 ")]
    kept = a_file([(0x00190010, "LO", b"SIEMENS MR HEADER "), *own])
    others = a_file([(0x00190010, "LO", b"SOMEBODY"), *own])

    for _ in range(3):
        assert 0x0019100C in read(out_of(kept, context))
        assert 0x0019100C not in read(out_of(others, context))


def test_a_private_element_that_varies_stays_behind_a_creator_that_does_not() -> None:
    context = a_context(SAFE)
    for n in range(1, 5):
        original = a_file([(0x00180050, "DS", b"1 "), (0x00190010, "LO", b"SIEMENS MR HEADER "), (0x0019100C, "IS", f"{n}000".encode())])
        assert read(out_of(original, context))[0x0019100C].value == n * 1000


def test_text_is_read_by_the_character_set_of_its_own_object() -> None:
    context = a_context(CLEANING)

    def an_image(number: int, terms: bytes) -> bytes:
        text: Raw = (0x00081030, "LO", b"CT L\xfcng")
        return a_file([(0x00080005, "CS", terms), (0x00080018, "UI", f"1.2.{number}".encode()), (0x00080060, "CS", b"CT"), text])

    for number in range(10, 14):
        assert outcome(an_image(number, b"ISO_IR 100"), context, trace=False) != "held"
        assert outcome(an_image(number, b"ISO_IR 192"), context, trace=False) == "held"


def a_run(*values: bytes) -> Run:
    parts = [encoded([(0x00180050 + n, "DS", value)]) for n, value in enumerate(values)]
    ends = [sum(map(len, parts[: n + 1])) for n in range(len(parts))]
    return Run(b"".join(parts), ends, [0x00180050 + n for n in range(len(parts))], charset(b""), {})


def test_a_run_is_parted_at_the_element_that_differs() -> None:
    runs, run, other = Runs(6), a_run(b"1 ", b"2 ", b"3 ", b"4 "), a_run(b"1 ", b"9 ", b"3 ", b"4 ")
    runs.add(run)

    before = runs.parted(run, other.whole, 0)

    assert before is not None
    assert before.whole == a_run(b"1 ").whole
    assert sorted(each.whole for each in runs.values()) == sorted([before.whole, run.whole[20:]])


def test_no_more_runs_are_remembered_than_there_is_room_for() -> None:
    runs = Runs(6)
    for n in range(20_000):
        runs.add(a_run(f"{n:08d}".encode(), b"x" * 600))

    assert sum(len(each.whole) for each in runs.values()) <= 4 * 2**20


EVERYTHING = Reader(lambda tag, vr: (1, f"{tag:08X}{vr}"), 2)


def seen(data: bytes) -> tuple[Counter[object], Counter[object]]:
    """What is read element by element, and what as passages."""
    passages = EVERYTHING.passages(data)
    return Counter(EVERYTHING.read(data)[1]), Counter(each for passage in passages for each in (passage.lanes or [[], []])[1])


@pytest.mark.parametrize(
    "name", ["CT_small.dcm", "MR_small_bigendian.dcm", "rtplan.dcm", "reportsi.dcm", "image_dfl.dcm", "liver_1frame.dcm"]
)
def test_passages_hold_what_is_read_element_by_element(name: str) -> None:
    data = samples()[name]
    for at in range(132 + 400, min(len(data), 3000), 7):  # one other byte each time: a value, or a head
        changed = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        try:
            one, other = seen(changed)
        except Exception as error:  # whatever is wrong with it, both say so
            with pytest.raises(type(error)):
                EVERYTHING.read(changed)
            continue
        assert one == other


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(objects=series())
def test_the_second_look_reads_the_same_in_what_it_met_before(objects: list[bytes]) -> None:
    for original in (*objects, *objects):
        one, other = seen(original)
        assert one == other


def an_output(text: str) -> bytes:
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID, ds.Modality, ds.Manufacturer = "1.2.840.10008.5.1.4.1.1.2", "2.25.9", "CT", "Maker"
    ds.StudyDescription, ds.SeriesDescription, ds.PatientSex = text, "Axial", "O"
    return part10(ds)


def test_what_was_clean_for_one_patient_is_searched_again_for_another() -> None:
    clean, telling = part10(an_object()), part10(an_object(PatientName="Quaggler^Ann"))

    for _ in range(3):
        assert second_look(clean, an_output("of Quaggler")) == ()
        assert [hit.place for hit in second_look(telling, an_output("of Quaggler"))] == ["(0008,1030)"]


def test_a_series_is_met_again_after_many_objects_that_had_nothing_in_common() -> None:
    reader = Reader(lambda *_: (1, ""), 2)
    tags = [(0x00181000 + at, "LO") for at in range(8)]

    def a_mixed(number: int) -> bytes:
        return a_file([(tag, vr, f"{number:04d}{tag:04x}".encode()) for tag, vr in tags])

    def read_anew(number: int) -> int:
        new = reader.passages(a_mixed(number))[0]
        return sum(each[1].tag >= tags[0][0] for each in (new.lanes or [[], []])[1])

    for number in range(20):
        reader.passages(a_mixed(number))
    of_a_series = [read_anew(9999) for _ in range(TRIED_AGAIN_AFTER + 4)]

    assert of_a_series[5] == of_a_series[TRIED_AGAIN_AFTER - 30] > 0, "what varies so far is not tried"
    assert of_a_series[-1] == 0
