"""Planted identifiers: a value that fits its VR in every row of Table E.1-1, at every place, in objects of twelve SOP classes, under
every option and the shipped policies, through both engines. Whatever the table removes is nowhere in the bytes of what leaves; whatever
an option keeps is there, at the top level and three sequences deep.

What is expected is read from the table's file here, not asked of the rules.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from datetime import date
from functools import cache
from importlib.resources import files
from pathlib import Path

import pydicom
import pytest
from msgspec import Struct
from pydicom import dcmread
from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataelem import RawDataElement

from hilum.dicom.file_meta import part10_head
from hilum.errors import Misconfigured
from processors.anonymize.engine import anonymize
from processors.anonymize.held import Held
from processors.anonymize.options import OPTIONS, Option
from processors.anonymize.outgoing import outgoing
from processors.anonymize.policy import Policy, policy, shipped
from processors.anonymize.table import standard
from tests.processors.anonymize.objects import Raw, a_context, a_file, a_policy, encoded, flat, out_of, read

#: One of pydicom's test files for each SOP class.
FILES = [
    "CT_small.dcm",
    "MR_small.dcm",
    "examples_palette.dcm",
    "examples_ybr_color.dcm",
    "SC_rgb_small_odd.dcm",
    "rtdose_1frame.dcm",
    "rtplan.dcm",
    "rtstruct.dcm",
    "liver_1frame.dcm",
    "reportsi.dcm",
    "test-SR.dcm",
    "waveform_ecg.dcm",
]
FREE = ("LO", "LT", "SH", "ST", "UC", "UT")
TIMES = ("DA", "DT", "TM")
#: Elements that lead to the third sequence in depth; nothing removes them.
WAY_DOWN = 0x00081115
#: TimezoneOffsetFromUTC, which stays with the times that are moved by whole days.
OFFSET = 0x00080201
TOP, DEEP, UNKNOWN, CONTENT, PRIVATE, LOW = range(6)
#: Of `DEEP`, before the row's own tag.
DOWN = (WAY_DOWN, 0) * 3
#: The first group that a data set may have; rows of lower ones are planted where they must not be.
FIRST_GROUP = 8


class Row(Struct, frozen=True):
    tag: int
    vr: str
    basic: str
    options: dict[str, str]


@cache
def rows() -> tuple[Row, ...]:
    text = (files("processors.anonymize.data") / "e1_1.csv").read_text(encoding="utf-8")
    found = []
    for each in csv.DictReader(text.splitlines()):
        if "x" in each["tag"] or each["tag"] == "private":
            continue
        tag = int(each["tag"], 16)
        vr = dictionary_VR(tag) if dictionary_has_tag(tag) else "LT"  # newer than the pinned dictionary
        found.append(
            Row(tag, vr, each["basic"], {option.column: each[option.column] for option in Option if option.column and each[option.column]})
        )
    return tuple(found)


def action(row: Row, policy: Policy) -> str:
    """What the table says under the policy's options: what moves dates wins over what keeps them, that over what cleans."""
    said = {option: row.options[option.column] for option in policy.chosen if option.column in row.options}
    if Option.RETAIN_MODIFIED_DATES in said:
        return "C"
    return next((code for code in "KC" if code in said.values()), row.basic)


def token(row: Row, n: int) -> bytes:
    """A value of the row's VR that is nowhere else; in free text with somebody else's name and telephone number."""
    vr = row.vr
    if row.tag == OFFSET:
        return b"-0917"
    if vr in ("LT", "ST", "UC", "UT", "LO"):
        return b"TOKQ%05d Zeb%05dulon 555-86%05d" % (n, n, n)
    if vr in ("SH", "AE", "CS"):
        return b"TOKQ%05d" % n
    if vr == "PN":
        return b"TOKQ%05d^Zeb%05dulon" % (n, n)
    if vr == "UR":
        return b"http://tokq%05d.example" % n
    if vr == "UI":
        return b"1.2.826.0.1.%05d" % n
    if vr == "DA":
        return b"17%02d%02d%02d" % (n % 97, n // 97 % 12 + 1, n // 97 // 12 % 28 + 1)
    if vr == "DT":
        return b"1650%02d%02d101112.%06d" % (n % 12 + 1, n % 28 + 1, 900_000 + n)
    if vr == "TM":
        return b"101112.%06d" % (900_000 + n)
    if vr == "DS":
        return b"7.77%05d" % n
    if vr == "IS":
        return b"77%05d" % n
    if vr == "AS":
        return b"047Y"
    if vr == "US":
        return b"\x77\x77"
    return b"TOKQ%05d" % n


#: In the File Meta: AE titles, presentation addresses, the version's name, private information.
META = {
    0x13: b"TOKQ99975",
    **dict.fromkeys((0x16, 0x17, 0x18), b"TOKQ99998"),
    **dict.fromkeys((0x26, 0x27, 0x28), b"http://tokq99976.example"),
    0x0100: b"1.2.826.0.1.99977",
    0x0102: b"TOKQ99998 ",
}
#: What stands in front of a planted number, in whichever VR.
TRACES = re.compile(rb"(TOKQ|tokq|Zeb|CODE|555-86|\.0\.1\.|\.0\.2\.|1112\.9)(\d{5})|(?<!\d)(17\d{6})")
MARKS = {b"CODE": b"code ", b".0.2.": b"uid "}


def traces(out: bytes) -> set[bytes]:
    """Everything in `out` that looks like something planted: numbers, those in items of sequences with what they are of, and days."""
    return {MARKS.get(each[1], b"") + (each[2] or each[3]) for each in TRACES.finditer(out)}


class Planted(Struct):
    row: Row
    n: int
    place: int

    @property
    def value(self) -> bytes:
        return token(self.row, self.n)


def planted_at(place: int) -> list[Planted]:
    low = place == LOW
    return [Planted(row, 10_000 * place + at + 1, place) for at, row in enumerate(rows()) if (row.tag >> 16 < FIRST_GROUP) is low]


def planted_sets() -> dict[int, list[Planted]]:
    return {place: planted_at(place) for place in (TOP, DEEP, UNKNOWN, CONTENT, PRIVATE, LOW)}


def content_items() -> list[list[Raw]]:
    """One content item of each kind that tells something (PS3.3 C.17.3.2), with a concept name that tells as well."""

    def of(kind: bytes, n: int, *value: Raw) -> list[Raw]:
        concept: Raw = (0x0040A043, "SQ", [[(0x00080104, "LO", b"TOKQ%05d Zeb%05dulon" % (n, n))]])
        return sorted([(0x0040A040, "CS", kind), concept, *value], key=lambda each: each[0])

    return [
        of(b"TEXT", 99_980, (0x0040A160, "UT", b"TOKQ99981 Zeb99981ulon 555-8699981")),
        of(b"PNAME", 99_982, (0x0040A123, "PN", b"TOKQ99983^Zeb99983ulon")),
        of(b"UIDREF", 99_984, (0x0040A124, "UI", b"1.2.826.0.1.99985")),
        of(b"DATETIME", 99_986, (0x0040A120, "DT", b"16500101101112.999987")),
        of(b"CODE", 99_988, (0x0040A168, "SQ", [[(0x00080104, "LO", b"TOKQ99989 Zeb99989ulon")]])),
        of(b"IMAGE", 99_978, (0x00081199, "SQ", [[(0x00081155, "UI", b"1.2.826.0.1.99979")]])),
    ]


def element(planted: Planted, vr: str = "") -> Raw:
    row = planted.row
    if row.vr == "SQ":
        # A code stays in a sequence that is cleaned; its meaning is text.
        inside = [(0x00080100, "SH", b"CODE%05d" % planted.n), (0x00080104, "LO", b"TOKQ%05d Zeb%05dulon" % (planted.n, planted.n))]
        return row.tag, vr or "SQ", [[*inside, (0x00081155, "UI", b"1.2.826.0.2.%05d" % planted.n)]]
    return row.tag, vr or row.vr.partition(" ")[0], planted.value


def base(name: str) -> tuple[str, dict[int, Raw]]:
    """The SOP class of a test file, and those of its elements that no row is about."""
    taken = {row.tag for row in rows()}
    ds = dcmread(Path(pydicom.__file__).parent / "data" / "test_files" / name, force=True)  # one has no preamble
    found: dict[int, Raw] = {}
    for tag in list(ds.keys()):
        raw = ds.get_item(tag, keep_deferred=True)
        vr = dictionary_VR(tag) if dictionary_has_tag(tag) else ""
        small = isinstance(raw, RawDataElement) and raw.length < 1000 and len(vr) == 2 and vr != "SQ"
        if small and int(tag) not in taken and tag != 0x00080005:
            assert raw is not None
            found[int(tag)] = (int(tag), vr, raw.value or b"")
    return str(ds.SOPClassUID), found


def an_object(name: str, sets: dict[int, list[Planted]]) -> bytes:
    sop_class, elements = base(name)
    for planted in sets[TOP]:
        elements[planted.row.tag] = element(planted)
    deep = [element(planted) for planted in sets[DEEP]]
    unknown = [element(planted, "UN") for planted in sets[UNKNOWN] if planted.row.vr != "SQ"]
    content = [element(planted) for planted in sets[CONTENT]]
    overlays: list[Raw] = [(0x60000022, "LO", b"TOKQ99971 "), (0x60003000, "OW", b"TOKQ99972 ")]
    low = [element(planted) for planted in sets[LOW]]
    elements[WAY_DOWN] = (WAY_DOWN, "SQ", [[(WAY_DOWN, "SQ", [[(WAY_DOWN, "SQ", [deep])]])], unknown, low, overlays])
    items: list[list[Raw]] = [*content_items(), content]
    for _ in range(2):
        items = [
            [(0x0040A040, "CS", b"CONTAINER"), (0x0040A160, "UT", b"TOKQ99990 Zeb99990ulon"), (0x0040A730, "SQ", items)],
            *content_items(),
        ]
    elements[0x0040A730] = (0x0040A730, "SQ", items)
    # No row is about the attribute itself, since it is of the whole class; there it is held (`test_held.py`).
    elements[0x00420011] = (0x00420011, "OB", b"%PDF-1.7 (TOKQ99970 Zeb99970ulon 555-8699970) Tj ")
    elements[0x00080000] = (0x00080000, "UL", b"TOKQ")
    elements[0x00290010] = (0x00290010, "LO", b"TOKQ99991 CREATOR")
    elements[0x00291010] = (0x00291010, "LO", b"TOKQ99992")
    elements[0x00291020] = (0x00291020, "SQ", [[element(planted) for planted in sets[PRIVATE]]])
    elements[0x50020022] = (0x50020022, "LO", b"TOKQ99973 ")
    elements[0x501E200C] = (0x501E200C, "OW", b"TOKQ99974 ")
    elements[0x50003000] = (0x50003000, "OW", b"TOKQ99993 ")
    elements[0x60020022] = (0x60020022, "LO", b"TOKQ99994 ")
    elements[0x60023000] = (0x60023000, "OW", b"TOKQ99995 ")
    elements[0x60024000] = (0x60024000, "LT", b"TOKQ99996 ")
    elements[0x00091099] = (0x00091099, "UN", b"TOKQ99997 ")
    head = part10_head(sop_class, "1.2.826.0.1.99998", "1.2.840.10008.1.2.1", META)
    data_set = encoded([elements[tag] for tag in sorted(elements)])
    return b"TOKQ99999".ljust(128, b"\0") + head[128:] + data_set


def policies() -> Iterator[Policy]:
    tabled = [option.keyword for option in Option if option.column]
    yield a_policy(name="nothing")
    for keyword in tabled:
        yield a_policy(keyword, name=keyword)
    yield a_policy(*(each for each in tabled if each != "retain-full-dates"), name="all-moved")
    yield a_policy(*(each for each in tabled if each != "retain-modified-dates"), name="all-full")
    yield from (policy(name) for name in shipped())
    assert len(tabled) == len(OPTIONS) - 2


def kept_wrongly(out: bytes, found: dict[tuple[object, ...], bytes], policy: Policy, sets: dict[int, list[Planted]]) -> Iterator[str]:
    left = traces(out)
    for each in (planted for place in sets.values() for planted in place):
        row, code = each.row, action(each.row, policy)
        keeps_times = (row.vr in TIMES or row.tag == OFFSET) and code in "KC"
        if code == "K" or keeps_times:
            continue
        if row.vr in ("AS", "US", "DS", "IS"):
            if each.place == TOP and found.get((row.tag,), b"").rstrip(b" \0") == each.value:
                yield f"{row.tag:08X} at {each.place}: stays under {policy.name}"
            continue
        marks = {each.value if row.vr == "DA" else b"%05d" % each.n}
        if row.vr == "SQ" and code != "C":
            marks.add(b"code %05d" % each.n)
        if row.vr == "SQ" and (code in ("X", "Z", "X/Z") or Option.RETAIN_UIDS not in policy.chosen):
            marks.add(b"uid %05d" % each.n)
        if marks & left:
            yield f"{row.tag:08X} {row.vr} {code} at {each.place}: leaves under {policy.name}"
    allowed = {b"99979", b"99985", b"99998"} if Option.RETAIN_UIDS in policy.chosen else set()
    allowed |= {b"99987"} if policy.chosen & {Option.RETAIN_FULL_DATES, Option.RETAIN_MODIFIED_DATES} else set()
    yield from (f"place {n} leaves under {policy.name}" for n in range(99_970, 100_000) if b"%d" % n in left - allowed)


def lost_wrongly(found: dict[tuple[object, ...], bytes], policy: Policy, sets: dict[int, list[Planted]]) -> Iterator[str]:
    for each in (*sets[TOP], *sets[DEEP]):
        row, code = each.row, action(each.row, policy)
        moved = code == "C" and row.vr in ("TM", "DT")
        if (code != "K" and not moved) or not dictionary_has_tag(row.tag):
            continue
        there = found.get((*(DOWN if each.place == DEEP else ()), row.tag))
        if row.vr == "SQ" and there != b"1":
            yield f"{row.tag:08X} at {each.place}: its item is lost under {policy.name}"
        day = 8 if row.vr == "DT" and moved else 0  # dates move, times of day do not
        if row.vr != "SQ" and (there is None or there[day:].rstrip(b" \0") != each.value[day:].rstrip(b" \0")):
            yield f"{row.tag:08X} {row.vr} at {each.place}: is lost under {policy.name}"


def not_moved(found: dict[tuple[object, ...], bytes], policy: Policy, sets: dict[int, list[Planted]]) -> Iterator[str]:
    """Dates that did not move all by the same number of days."""
    days = set()
    for each in (*sets[TOP], *sets[DEEP]):
        if each.row.vr == "DA" and Option.RETAIN_MODIFIED_DATES in policy.chosen and action(each.row, policy) == "C":
            there = found.get((*(DOWN if each.place == DEEP else ()), each.row.tag), each.value)
            before, after = (date.fromisoformat(value.decode().strip()) for value in (each.value, there))
            days.add((after - before).days)
    if days and (len(days) > 1 or 0 in days):
        yield f"dates moved by {days} days under {policy.name}"


def problems_of(original: bytes, policy: Policy, sets: dict[int, list[Planted]], *, trace: bool) -> Iterator[str]:
    out = out_of(original, a_context(policy), trace=trace)
    found = {place: value for place, _, value in flat(read(out))}
    for problem in (*kept_wrongly(out, found, policy, sets), *lost_wrongly(found, policy, sets), *not_moved(found, policy, sets)):
        yield f"{problem}, {'plain' if trace else 'bytes'}"


@pytest.mark.parametrize("name", FILES)
def test_no_planted_value_leaves_and_what_options_keep_stays(name: str) -> None:
    sets = planted_sets()
    original = an_object(name, sets)
    planted = {int(each) for each in re.findall(rb"(?:TOKQ|tokq|\.0\.1\.|\.9)(99\d{3})", original)}
    assert planted == set(range(99_970, 100_000))
    problems: list[str] = []

    for n, by in enumerate(policies()):
        problems += problems_of(original, by, sets, trace=False)
        # Of the plain engine, which ships what is rare, each policy with some of the files.
        if by.name in shipped() or (n + FILES.index(name)) % 6 == 0:
            problems += problems_of(original, by, sets, trace=True)

    assert problems == []


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5])
def test_an_encapsulated_document_never_leaves(number: int) -> None:
    """PDF, CDA, STL, OBJ and MTL: nothing is cleaned in them, and no policy can say that they pass."""
    planted: list[Raw] = [(0x00100020, "LO", b"P1"), (0x00420011, "OB", b"%PDF-1.7 (TOKQ99970 Zeb99970ulon) Tj")]
    document = a_file(planted, sop_class=f"1.2.840.10008.5.1.4.1.1.104.{number}")

    for by in policies():
        for way in (outgoing, anonymize):
            with pytest.raises(Held):
                way(document, a_context(by))
    for said in ("pass: why", "clean", "mask"):
        with pytest.raises(Misconfigured):
            a_policy(more=f'kinds.encapsulated-pdf = "{said}"')


def test_every_row_is_planted_everywhere() -> None:
    tags = {row.tag for row in rows()}

    for place, planted in planted_sets().items():
        assert {each.row.tag for each in planted} == {tag for tag in tags if (tag >> 16 < FIRST_GROUP) is (place == LOW)}
    assert len(tags) == len(standard().rows)
    assert len({str(base(name)[0]) for name in FILES}) >= 12


@pytest.mark.parametrize("option", [option.keyword for option in Option if option.column])
def test_harmless_words_stay_in_every_row_that_an_option_cleans(option: str) -> None:
    by = a_policy(option)
    cleaned = [row for row in rows() if row.vr in FREE and row.tag != OFFSET and action(row, by) == "C" and dictionary_has_tag(row.tag)]
    head = part10_head("1.2.840.10008.5.1.4.1.1.2", "1.2.3", "1.2.840.10008.1.2.1")
    own: list[Raw] = [(0x00080016, "UI", b"1.2.840.10008.5.1.4.1.1.2\0"), (0x00080018, "UI", b"1.2.3\0"), (0x00100020, "LO", b"P1")]
    elements = sorted([*own, *((row.tag, row.vr, b"Chest Zebulon") for row in cleaned)])

    made = read(out_of(head + encoded(elements), a_context(by)))

    assert {made[row.tag].value for row in cleaned} <= {"Chest"}
