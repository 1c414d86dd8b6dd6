from __future__ import annotations

import pytest

from hilum.hl7.validation import structure_of, validated

ORDER = (
    "MSH|^~\\&|RIS|NORTH|HILUM|NORTH|20260102100000||{kind}|M1|P|{version}\r"
    "PID|1||SYNTH0001^^^NORTH^MR||Synthetic^Sam\rPV1|1|O\r"
    "ORC|NW|P0001^RIS|F0001^RIS||SC\rOBR|1|P0001^RIS|F0001^RIS|CTCHEST^CT chest^NORTH\rZDS|2.25.1^NORTH^Application^DICOM\r"
)


def an_order(kind: str = "ORM^O01^ORM_O01", version: str = "2.5.1") -> str:
    return ORDER.format(kind=kind, version=version)


def codes(text: str) -> list[tuple[str, str]]:
    return [(fault.code, fault.path) for fault in validated(text)]


def test_a_message_that_fits_has_no_findings() -> None:
    assert codes(an_order()) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (an_order().replace("ORC|NW", "ORC|"), ("field-missing", "ORC-1")),
        (an_order() + "FOO|1\r", ("segment-unknown", "FOO")),
        (an_order() + "AIS|1\r", ("segment-not-allowed", "AIS")),
        (an_order("ADT^A08^ADT_A01"), ("segment-missing", "EVN")),
        (an_order("XYZ^Q99"), ("message-unknown", "MSH-9")),
        (an_order("ADT^Q99"), ("message-unknown", "MSH-9")),
        (an_order(version="9.9"), ("version-unknown", "MSH-12")),
        (an_order(kind=""), ("message-type-missing", "MSH-9")),
        (an_order().replace("|M1|", "||"), ("control-id-missing", "MSH-10")),
        ("hello", ("unreadable", "MSH")),
    ],
)
def test_what_the_grammar_does_not_allow_is_found(text: str, found: tuple[str, str]) -> None:
    assert found in codes(text)


def test_no_finding_holds_a_value() -> None:
    text = an_order().replace("Synthetic^Sam", "Synthetic^Sam^" + "x" * 300).replace("ORC|NW", "ORC|") + "FOO|SYNTH0001\r"

    assert not [fault for fault in validated(text) if "SYNTH" in fault.sentence.upper()]


@pytest.mark.parametrize(
    ("version", "code", "trigger", "structure", "name"),
    [
        ("2.5.1", "ADT", "A08", "", "ADT_A01"),
        ("2.5.1", "ADT", "A40", "ADT_A39", "ADT_A39"),
        ("2.5.1", "ADT", "A40", "", "ADT_A39"),
        ("2.3", "ADT", "A11", "", "ADT_A09"),
        ("2.1", "ADT", "A08", "", "ADT_A08"),
        ("2.5.1", "SIU", "S14", "SIU_S12", "SIU_S12"),
        ("2.5.1", "ORM", "O01", "WRONG", "ORM_O01"),
        ("2.8", "ORM", "O01", "", ""),
    ],
)
def test_a_structure_is_found_also_where_a_message_does_not_say_it(
    version: str, code: str, trigger: str, structure: str, name: str
) -> None:
    assert structure_of(version, code, trigger, structure) == name


@pytest.mark.parametrize("text", [an_order() + "OBX|1|" + "^" * 500, an_order() + "PID\r" * 50, an_order().replace("|", "|^~\\&|")])
def test_nothing_stops_it(text: str) -> None:
    validated(text)
