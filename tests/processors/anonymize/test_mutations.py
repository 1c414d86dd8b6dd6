"""The second look at an engine that is wrong: rules dropped, levels skipped, pseudonyms that are none. Each is seen, or says why not.

It is the engine that ships, the one on bytes, under both shipped policies.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
from msgspec.structs import replace
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRLittleEndian

from hilum.dicom.file_meta import part10_head
from processors.anonymize.delivering import scope_of
from processors.anonymize.engine import edited
from processors.anonymize.held import Held
from processors.anonymize.identity import Subject
from processors.anonymize.options import Option
from processors.anonymize.policy import Policy, PrivateElement, policy
from processors.anonymize.pseudonyms import Pseudonyms
from processors.anonymize.result import Context
from processors.anonymize.rules import Act, Decision, Level, Rules
from processors.anonymize.source import read_source
from processors.anonymize.stamp import stamp
from processors.anonymize.table import standard, vr_of
from processors.anonymize.verify import Hit, second_look
from processors.anonymize.verify.sought import vocabulary
from tests.processors.anonymize.objects import CT, KEY, a_context, an_object, part10
from tests.processors.anonymize.test_planted import action, rows

SEED = 7
#: Under each policy, beside one for each action code and class of VR.
MORE = 40
POLICIES = ("basic", "research")
NAME, IDENTIFIER, BORN = "Quaggler^Jane", "4711081", "19470313"
UID = "1.2.3.44.55.66.77"
CLASSES = {
    **dict.fromkeys(("LO", "LT", "SH", "ST", "UC", "UT"), "text"),
    **dict.fromkeys(("DA", "DT"), "date"),
    **dict.fromkeys(("DS", "IS"), "number as text"),
    **dict.fromkeys(("OB", "OW", "UN"), "bytes"),
    **dict.fromkeys(("FD", "FL", "SL", "SS", "UL", "US", "SV", "UV", "OF", "OD", "OL"), "number"),
}
#: What a rule lets through that is dropped, and that nobody could tell whose it is by itself: by class of VR, or action code and class.
#: The list is in docs/decisions/0037-the-second-look.md as well.
CANNOT_BE_SEEN = {
    "TM": "A time of day is no value by which somebody is known, and others' objects have the same one.",
    "AS": "An age is in years: a number that every object has.",
    "number": "A binary number is compared with nothing: any of its bytes may be there by chance.",
    "K text": "Text that an option keeps stays whatever it says, by its rule and without it.",
    "K SQ": "A sequence that an option keeps is gone into by its rule and without it.",
}
#: Of VRs whose values an option keeps: none of theirs.
NO_VALUE = b"of Quaggler "
DECISION = Path(__file__).parents[3] / "docs" / "decisions" / "0037-the-second-look.md"


def class_of(vr: str) -> str:
    return CLASSES.get(vr[:2], vr[:2])


def planted(vr: str) -> object:
    """A value that is valid for its VR and tells whose the object is, as far as its VR can."""
    values: dict[str, object] = {
        **dict.fromkeys(("LO", "LT", "SH", "ST", "UC", "UT"), "of Quaggler"),
        **dict.fromkeys(("OB", "OW", "UN"), b" Quaggler "),
        **dict.fromkeys(("CS", "AE"), "QUAGGLER"),
        **dict.fromkeys(("DS", "IS"), IDENTIFIER),
        "PN": "Quaggler^J",
        "UI": UID,
        "DA": BORN,
        "DT": BORN + "101112",
        "TM": "101112",
        "AS": "077Y",
        "UR": "http://x/Quaggler",
    }
    if vr == "SQ":
        item = Dataset()
        item.ReviewerName, item.TextValue = "Quaggler^J", "of Quaggler"
        return [item]
    return values.get(vr, 1)


def let_through(found: Decision) -> Decision:
    return replace(found, act=Act.DESCEND if found.vr == "SQ" else Act.KEEP)


class Everything(Level):
    """A place at which everything stays as it is."""

    def decide(self, tag: int, vr: str) -> Decision:
        return let_through(super().decide(tag, vr))


class Wrong(Rules):
    """Rules that let something through, and what is in it."""

    def __init__(self, policy: Policy, wrong: Callable[[Level, int], bool]) -> None:
        super().__init__(policy, "1.2.840.10008.5.1.4.1.1.2")
        self._wrong = wrong

    def decision(self, level: Level, tag: int, vr: str) -> Decision:
        found = super().decision(level, tag, vr)
        return let_through(found) if self._wrong(level, tag) else found

    def level(self, around: Level, decision: Decision) -> Level:
        right = super().level(around, decision)
        if isinstance(around, Everything) or self._wrong(around, decision.tag):
            return Everything(self, right.place, right.mood, right.trail, 1)
        return right


def looked_at(ds: Dataset, rules: Rules, context: Context) -> tuple[Hit, ...]:
    original = part10(ds)
    made = edited(read_source(original), rules, context)
    return second_look(original, made.parts, scope_of(context.policy))


def somebody(**attributes: object) -> Dataset:
    return an_object(
        PatientName=NAME,
        PatientID=IDENTIFIER,
        PatientBirthDate=BORN,
        ReferencedSOPInstanceUIDInFile=UID,
        StudyDate="20240229",
        **attributes,
    )


class Mutation(NamedTuple):
    policy: str
    tag: int
    #: As Table E.1-1 has it under the policy's options.
    code: str
    vr: str

    @property
    def unseen(self) -> str:
        """The key of why it cannot be seen, `""` if it can."""
        kind = class_of(self.vr)
        if kind == "TM" and self.tag >> 16 == 0x0010:  # of the patient's birth, which is compared
            return ""
        return next((key for key in (f"{self.code} {kind}", kind) if key in CANNOT_BE_SEEN and (self.code != "K" or kind != "AS")), "")


@cache
def mutations() -> tuple[Mutation, ...]:
    """One for each policy, code and class of VR, and more by chance."""
    draw, found = random.Random(SEED), []
    for name in POLICIES:
        by = policy(name)
        every = [
            Mutation(name, row.tag, action(row, by), row.vr[:2])
            for row in rows()
            if row.tag >> 16 >= 8 and vr_of(row.tag) and row.tag != 0x00080016
        ]
        draw.shuffle(every)
        first = list({(each.code, class_of(each.vr)): each for each in every}.values())
        found += first + [each for each in every if each not in first][:MORE]
    return tuple(found)


def test_there_are_enough_of_them() -> None:
    for name in POLICIES:
        drawn = [each for each in mutations() if each.policy == name]
        of_table = {(action(row, policy(name)), class_of(row.vr)) for row in rows() if row.tag >> 16 >= 8 and vr_of(row.tag)}

        assert len(drawn) >= 60
        assert {(each.code, class_of(each.vr)) for each in drawn} == of_table
        assert sum(not each.unseen for each in drawn) >= 60
    codes = {row.basic for tag, row in standard().rows.items() if tag >> 16 >= 8}
    assert codes | {"K", "C"} == {each.code for each in mutations()}


def test_what_cannot_be_seen_is_said_where_the_second_look_is_described() -> None:
    said = DECISION.read_text(encoding="utf-8")

    assert [why for why in CANNOT_BE_SEEN.values() if why not in said] == []
    assert {each.unseen for each in mutations()} - {""} == CANNOT_BE_SEEN.keys()


def test_whatever_the_engine_writes_itself_tells_of_nobody() -> None:
    everything = stamp(a_context("basic").policy, KEY.id, frozenset(Option))
    said = {
        word
        for each in everything.iterall()
        if each.VR in ("LO", "SH", "CS")
        for word in re.findall(r"\b[a-z]{4,}\b", str(each.value).lower())
    }

    assert said - vocabulary() == set()


@pytest.mark.parametrize("mutation", mutations(), ids=lambda each: f"{each.policy}-{each.tag:08X}-{each.code}-{each.vr}")
def test_a_dropped_rule_is_seen(mutation: Mutation) -> None:
    _, tag, _, vr = mutation
    context = a_context(mutation.policy)
    ds = somebody()
    if mutation.code == "K" and class_of(vr) not in ("text", "number", "SQ"):
        ds[tag] = RawDataElement(Tag(tag), vr, len(NO_VALUE), NO_VALUE, 0, False, True)
    else:
        nothing = {"K text": "", "K SQ": [Dataset()]}  # else it is seen with its rule, too
        ds.add_new(tag, vr, nothing.get(mutation.unseen, planted(vr)))
    with suppress(Held):  # then nothing leaves, and nothing has to be seen
        assert looked_at(ds, Rules(context.policy, CT), context) == ()
    found = {hit.place for hit in looked_at(ds, Wrong(context.policy, lambda _, each: each == tag), context)}

    if mutation.unseen:
        assert found == set()
    else:
        assert any(place.startswith(f"({tag >> 16:04X},{tag & 0xFFFF:04X})") for place in found)


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("skipped", [0x00081032, 0x00081115, 0x0040A730])
def test_a_skipped_level_is_seen(name: str, skipped: int) -> None:
    context = a_context(name)
    deep, inner, outer = Dataset(), Dataset(), Dataset()
    deep.ReviewerName, deep.TextValue = "Quaggler^J", "of Quaggler"
    inner.ContentSequence = [deep]
    outer.ReferencedSeriesSequence = [inner]
    ds = somebody(ProcedureCodeSequence=[outer])

    assert looked_at(ds, Rules(context.policy, CT), context) == ()
    found = looked_at(ds, Wrong(context.policy, lambda _, each: each == skipped), context)

    assert {hit.place for hit in found} == {f"(0008,1032)/(0008,1115)/(0040,A730)/{each}" for each in ("(300E,0008)", "(0040,A160)")}


#: What no row of the table names by its tag: groups, and what the dictionary does not know.
ELSEWHERE = {
    "an overlay's text": (0x60004000, "LT"),
    "an overlay": (0x60003000, "OW"),
    "a curve": (0x50003000, "OW"),
    "a curve's label": (0x50002500, "LO"),
    "an unknown element": (0x00080FFE, "UN"),
    "text that only its VR judges": (0x001811A4, "LO"),
    "text of Hilum's own list": (0x00189900, "LO"),
    "padding of the data set": (0xFFFCFFFC, "OB"),
}


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("what", ELSEWHERE)
def test_a_dropped_rule_that_is_in_no_row_is_seen(name: str, what: str) -> None:
    tag, vr = ELSEWHERE[what]
    context = a_context(name)
    ds = somebody()
    ds.add_new(tag, vr, planted(vr))
    wrong = Wrong(context.policy, lambda _, each: each == tag)

    assert looked_at(ds, Rules(context.policy, CT), context) == ()
    assert f"({tag >> 16:04X},{tag & 0xFFFF:04X})" in {hit.place for hit in looked_at(ds, wrong, context)}


class Trusting(Rules):
    """Rules that let any private element of one creator through."""

    def __init__(self, policy: Policy, creator: str) -> None:
        super().__init__(policy, CT)
        self.private = {(creator, 0x0009, 0x10): PrivateElement(creator=creator, element="0009,xx10", vr="LO", name="")}
        self.creators = {(creator, 0x0009): {0x10}}

    def of_private(self, creator: str, tag: int) -> Decision | None:
        return Decision(Act.KEEP, tag, "", "LO", "K", "", private=self.private[creator, tag >> 16, tag & 0xFF])


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize(("creator", "place"), [("ACME", "(0009,1010)"), ("QUAGGLER", "(0009,0010)")])
def test_a_private_element_that_is_let_through_is_seen(name: str, creator: str, place: str) -> None:
    context = a_context(name)
    ds = somebody()
    ds.add_new(0x00090010, "LO", creator)
    ds.add_new(0x00091010, "LO", "of Quaggler")

    assert looked_at(ds, Rules(context.policy, CT), context) == ()
    assert place in {hit.place for hit in looked_at(ds, Trusting(context.policy, creator), context)}


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("kept_part", ["preamble", "File Meta"])
def test_a_head_of_the_original_is_seen(name: str, kept_part: str) -> None:
    """An engine that forgets to write the head anew."""
    context = a_context(name)
    data_set = part10(somebody())[132:]
    meta = {0x16: b"QUAGGLER"} if kept_part == "File Meta" else {}
    preamble = b"Quaggler" if kept_part == "preamble" else b""
    original = preamble.ljust(128, b"\0") + part10_head(CT, "1.2.3.4.5.6", ExplicitVRLittleEndian, meta)[128:] + after_meta(data_set)
    made = b"".join(edited(read_source(original), Rules(context.policy, CT), context).parts)
    theirs, ours = len(original) - len(after_meta(data_set)), len(made) - len(after_meta(made[132:]))

    assert second_look(original, [made], scope_of(context.policy)) == ()
    assert second_look(original, [original[:theirs], made[ours:]], scope_of(context.policy)) != ()


def after_meta(file: bytes) -> bytes:
    """The data set of what follows `DICM`."""
    return file[12 + int.from_bytes(file[8:12], "little") :]


class NoUid(Pseudonyms):
    def _uid(self, uid: str) -> str:
        return uid


class NoPatient(Pseudonyms):
    def _patient_id(self, subject: Subject) -> str:
        return IDENTIFIER


class NoAccession(Pseudonyms):
    def accession_number(self, value: str, issuer: str = "") -> str:
        return value


class NoShift(Pseudonyms):
    def _days(self, subject: Subject) -> int:
        return 0


def of(kind: type[Pseudonyms]) -> Iterator[Context]:
    for name in ("basic", "research"):
        context = a_context(name)
        yield replace(context, pseudonyms=kind(KEY, context.policy.domain))


@pytest.mark.parametrize(
    ("kind", "place"), [(NoUid, "(0008,0018)"), (NoPatient, "(0010,0020)"), (NoAccession, "(0008,0050)"), (NoShift, "(0008,0020)")]
)
def test_a_pseudonym_that_is_none_is_seen(kind: type[Pseudonyms], place: str) -> None:
    ds = somebody(AccessionNumber="RX20265511")
    places = set()
    for context in of(kind):
        places |= {hit.place for hit in looked_at(ds, Rules(context.policy, str(ds.SOPClassUID)), context)}

    assert place in places
