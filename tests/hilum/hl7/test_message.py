from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hilum.hl7.delimiters import DEFAULT, Delimiters
from hilum.hl7.message import Message, NotHl7, build, each_path, parse, write

MSH = "MSH|^~\\&|RIS|NORTH|HILUM|NORTH|20260101120000||ORM^O01^ORM_O01|42|P|2.5"
values = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
#: HL7 has no empty values at the end of anything: `A^^` and `A` say the same.
parts = st.lists(values.filter(bool), min_size=1, max_size=3)
fields = st.lists(st.lists(parts, min_size=1, max_size=3), min_size=1, max_size=3)


def a_message(*segments: str, end: str = "\r") -> Message:
    return parse(end.join([MSH, *segments]) + end)


@given(values)
def test_an_escaped_value_comes_back(value: str) -> None:
    assert DEFAULT.unescape(DEFAULT.escaped(value)) == value


@given(values)
def test_an_escaped_value_has_no_delimiter_but_the_escape_character(value: str) -> None:
    assert not set("|^~&\r\n") & set(DEFAULT.escaped(value))


@given(fields)
def test_a_field_comes_back_as_it_was_written(field: list[list[list[str]]]) -> None:
    found = a_message("ZZZ||" + write(field)).first("ZZZ")

    assert found is not None
    assert found.field(2) == field


@given(st.text(max_size=300))
def test_no_text_does_more_than_not_be_hl7(text: str) -> None:
    try:
        found = parse(text)
    except NotHl7:
        return
    assert parse(found.text).all == found.all


@given(st.text("MSHPID|^~\\&123\r\n\x00 ", max_size=120))
def test_what_is_read_reads_the_same_again(text: str) -> None:
    found = a_message(text)

    assert parse(found.text).text == found.text


@pytest.mark.parametrize("end", ["\r", "\n", "\r\n", "\r\r\n", "\n\n"])
def test_segments_end_with_any_line_end(end: str) -> None:
    assert [segment.name for segment in a_message("PID|1", "OBR|1", end=end).all] == ["MSH", "PID", "OBR"]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("PID-3", "A1"),
        ("PID-3.4", "NORTH"),
        ("PID-3.4.2", "1.2.3"),
        ("PID-3[2].1", "B2"),
        ("PID-3[3].1", ""),
        ("PID-5.2", "JANE"),
        ("OBX-5", "first"),
        ("OBX[2]-5", "second"),
        ("OBX[3]-5", ""),
        ("PID-99", ""),
        ("MSH-1", "|"),
        ("MSH-2", "^~\\&"),
        ("MSH-3", "RIS"),
        ("MSH-9.2", "O01"),
        ("NTE-3", "a|b^c&d\\e\nf"),
    ],
)
def test_a_path_names_one_value(path: str, value: str) -> None:
    found = a_message(
        "PID|1||A1^^^NORTH&1.2.3&ISO^MR~B2||DOE^JANE", "OBX|1|TX|||first", "OBX|2|TX|||second", r"NTE|1||a\F\b\S\c\T\d\E\e\.br\f"
    )

    assert found.get(path) == value


@pytest.mark.parametrize("path", ["PID", "pid-3", "PID-0", "PID-3.", "PID-3[0]", "PID.3", ""])
def test_what_is_no_path_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="is no path into a message"):
        a_message().get(path)


def test_a_field_to_delete_is_two_quotation_marks() -> None:
    found = a_message('PID|1||""').first("PID")

    assert found is not None
    assert found.field(3) == [[['""']]]
    assert found.field(4) == []


def test_delimiters_are_those_of_the_message() -> None:
    found = parse("MSH#*~!$#RIS\rPID#1##A*B$C~D!S!E\r")

    assert found.delimiters == Delimiters("#", "*", "~", "!", "$")
    assert found.first("PID").field(3) == [[["A"], ["B", "C"]], [["D*E"]]]  # type: ignore[union-attr]  # it is there


def test_the_truncation_character_of_version_2_7_is_one() -> None:
    found = parse("MSH|^~\\&#|RIS\rPID|1||A\\P\\B\r")

    assert found.delimiters.truncation == "#"
    assert found.get("PID-3") == "A#B"


def test_fewer_encoding_characters_are_overlooked() -> None:
    found = parse("MSH|^~|RIS\rPID|1||A^B\\T\\&C\r")

    assert found.odd == ("encoding-characters-missing",)
    assert found.get("PID-3.2") == "B\\T\\&C"


@pytest.mark.parametrize(
    ("text", "code", "field"),
    [
        ("", "100", 0),
        ("PID|1", "100", 0),
        ("MSH", "102", 1),
        ("MSHA^~\\&", "102", 1),
        ("MSH|", "101", 2),
        ("MSH||RIS", "101", 2),
        ("MSH|^^\\&|RIS", "102", 2),
        ("MSH|RIS|NORTH", "102", 2),
    ],
)
def test_a_header_that_cannot_be_read_says_where(text: str, code: str, field: int) -> None:
    with pytest.raises(NotHl7) as stop:
        parse(text)

    assert (stop.value.code, stop.value.field) == (code, field)


def test_a_line_that_begins_with_no_segment_goes_on_with_the_one_before() -> None:
    found = a_message("OBX|1|TX|||Report", "second line", "", "third", "OBX|2|TX|||x", end="\n")

    assert found.get("OBX-5") == "Report\nsecond line\nthird"
    assert found.odd == ("segment-broken",)


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (r"\X0D\ ", "\r "),
        (r"\XC3A9\ ", "é "),
        (r"\XE9\ ", "é "),
        (r"\H\bold\N\ ", "bold "),
        (r"a\.br\b", "a\nb"),
        (r"a\.sp3\b", "a\n\n\nb"),
        (r"a\.in+4\b", "ab"),
        (r"\Zsite\ ", r"\Zsite\ "),
        (r"C:\temp", r"C:\temp"),
        ("\\", "\\"),
        (r"\\\\", r"\\\\"),
        (r"\E\F\E\ ", r"\F\ "),
        (r"\X5C465C\ ", r"\F\ "),
    ],
)
def test_escape_sequences_are_taken_once(raw: str, value: str) -> None:
    assert DEFAULT.unescape(raw) == value


def test_ten_thousand_repetitions_are_read() -> None:
    found = a_message("PID|1||" + "~".join(f"A{n}^^^NORTH" for n in range(10_000)))

    assert found.get("PID-3[10000].1") == "A9999"


def test_the_trigger_of_an_old_message_is_in_its_event() -> None:
    found = parse("MSH|^~\\&|RIS||||||ADT|1|P|2.1\rEVN|A08|\r")

    assert (found.code, found.trigger) == ("ADT", "A08")


def test_a_message_is_built_of_values() -> None:
    text = build([("MSH", ["RIS", "", "", "", "", "", [[["ACK"], ["A01"]]]]), ("PID", ["1", "", "a|b"])])

    assert text == "MSH|^~\\&|RIS||||||ACK^A01\rPID|1||a\\F\\b\r"


def test_every_field_that_has_something_is_shown_by_its_path() -> None:
    assert list(each_path(a_message("NTE|1||x", "NTE|2")))[-3:] == [("NTE-1", "1"), ("NTE-3", "x"), ("NTE[2]-1", "2")]
