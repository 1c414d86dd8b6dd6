from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hilum.hl7.charset import CODECS, decode, encode


def a_message(charset: str, name: str = "DOE^JOHN") -> str:
    return f"MSH|^~\\&|RIS|NORTH|HILUM|NORTH|20260101||ADT^A08|1|P|2.5||||||{charset}\rPID|1||A1||{name}\r"


@pytest.mark.parametrize(
    ("charset", "name", "python"),
    [
        ("ASCII", "DOE^JOHN", "ascii"),
        ("8859/1", "MÜLLER^JÖRG", "latin-1"),
        ("8859/2", "WAŁĘSA^LECH", "iso8859-2"),
        ("8859/5", "ИВАНОВ^ИВАН", "iso8859-5"),
        ("8859/7", "ΔΙΟΝΥΣΙΟΣ", "iso8859-7"),
        ("8859/8", "שרון^דבורה", "iso8859-8"),
        ("8859/9", "YILDIZ^IŞIL", "iso8859-9"),
        ("8859/15", "ŒUVRE^€", "iso8859-15"),
        ("GB 18030-2000", "王^小东", "gb18030"),
        ("KS X 1001", "김^희중", "euc_kr"),
        ("BIG-5", "許功蓋^陳", "big5"),
        ("UNICODE UTF-8", "山田^太郎", "utf-8"),
        ("UTF-8", "山田^太郎", "utf-8"),
        ("UNICODE UTF-16", "山田^太郎", "utf-16"),
        ("UNICODE UTF-32", "山田^太郎", "utf-32"),
        ("UNICODE UTF-16", "山田^太郎", "utf-16-be"),
        ("ISO IR100", "MÜLLER", "latin-1"),
        ("~ISO IR87", "ヤマダ^タロウ=山田^太郎", "iso2022_jp"),
        ("ASCII~ISO IR87~ISO IR159", "山田^太郎", "iso2022_jp"),
    ],
)
def test_a_declared_character_set_is_read(charset: str, name: str, python: str) -> None:
    text = a_message(charset, name)
    found = decode(text.encode(python))

    assert found.text.lstrip("\ufeff") == text
    assert (found.declared, found.odd, found.lossy) == (charset, (), False)


def test_backslash_and_caret_as_second_bytes_are_no_delimiters() -> None:
    text = a_message("BIG-5", "許功蓋")
    assert b"\\" in "許功".encode("big5")

    assert decode(text.encode("big5")).text == text


def test_every_codec_of_the_table_is_one_of_pythons() -> None:
    for name, codec in CODECS.items():
        assert codec == "iso2022" or encode("A", name), name


def test_hl7s_own_escapes_change_the_set() -> None:
    raw = a_message("~ISO IR87", "@").encode().replace(b"@", b"\\M2442\\;3ED\\C2842\\^X")

    assert "PID|1||A1||山田^X\r" in decode(raw).text


def test_korean_and_japanese_in_one_message_are_read() -> None:
    raw = a_message("ASCII~ISO IR87~KS X 1001", "@").encode()
    raw = raw.replace(b"@", b"\x1b$B;3ED\x1b(B^\x1b$)C" + "김희중".encode("euc_kr"))

    assert "||山田^김희중\r" in decode(raw).text


def test_a_set_ends_with_its_segment() -> None:
    raw = a_message("8859/1~ISO IR87", "\u00fc").encode("latin-1") + b"NTE|1||\x1b$B;3\rNTE|2||\xfc\r"

    assert decode(raw).text.endswith("NTE|1||山\rNTE|2||ü\r")


@pytest.mark.parametrize(
    ("charset", "name", "odd"),
    [
        ("", b"DOE", ()),
        ("", "MÜLLER".encode(), ("character-set-missing",)),
        ("", "MÜLLER".encode("cp1252"), ("character-set-missing",)),
        ("CNS 11643-1992", "MÜLLER".encode(), ("character-set-unknown",)),
        ("KLINGON", b"DOE", ("character-set-unknown",)),
        ("ASCII", "MÜLLER".encode("latin-1"), ("character-invalid",)),
        ("UNICODE UTF-8", "MÜLLER".encode("latin-1"), ("character-invalid",)),
        ("ASCII~ISO IR87", b"\x1b$Bx", ("character-invalid",)),
        ("ASCII~ISO IR87", b"\x1b%5x", ("character-set-escape-unknown", "character-invalid")),
    ],
)
def test_what_does_not_fit_is_read_and_said(charset: str, name: bytes, odd: tuple[str, ...]) -> None:
    found = decode(a_message(charset, "@").encode().replace(b"@", name))

    assert found.odd == odd
    assert found.lossy == ("character-invalid" in odd)
    assert found.text.startswith("MSH|^~\\&|RIS|NORTH")


def test_a_senders_set_is_taken_where_a_message_declares_none() -> None:
    found = decode(a_message("", "WAŁĘSA").encode("iso8859-2"), "8859/2")

    assert ("WAŁĘSA" in found.text, found.odd) == (True, ())


@given(st.binary(max_size=300))
def test_any_bytes_are_read_as_something(raw: bytes) -> None:
    assert isinstance(decode(b"MSH|^~\\&|" + raw).text, str)
    assert isinstance(decode(raw, "8859/1").text, str)


def test_what_a_set_cannot_write_is_refused() -> None:
    assert encode("é", "8859/1") == b"\xe9"
    for text, name in (("é", ""), ("山", "8859/1"), ("a", "CNS 11643-1992")):
        with pytest.raises(ValueError):
            encode(text, name)
