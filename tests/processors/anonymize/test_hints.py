"""The quick way of the second look says nothing else than its patterns do."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from itertools import product, zip_longest

import pytest
import re2
from hypothesis import example, given, settings
from hypothesis import strategies as st

from processors.anonymize.verify.dates import date_forms, day_key, days_said
from processors.anonymize.verify.facts import Fact
from processors.anonymize.verify.folding import folded, searchable
from processors.anonymize.verify.hints import LONG_BYTES, Searched
from processors.anonymize.verify.lookalikes import of_one_script
from processors.anonymize.verify.scope import Scope
from processors.anonymize.verify.sought import Sought, sought

_NAMES = ["Quaggler^Jo", "Müller^Anna Maria", "Li^Wu", "Yamada^Tarou=山田^太郎", "王^小东", "Ωmega^ℂarl", "O'Brien^Søren", "Test^Chest"]
_IDS = ["4711-0815", "0012345", "4711", "A7.3", "+49 (30) 1234-5678", "ÄB-12345"]
_PHRASES = ["12 Long Road, Springfield", "St. Mary's General"]
_BETWEEN = ["", " ", "-", ".", "/", "_", ", ", "^", "\0", "\x01", "0", "s", "x", "ä", "\u3000"]
_PIECES = [
    each.lower()
    for value in (*_NAMES, *_IDS, *_PHRASES)
    for part in (value, *value.replace("^", " ").replace("-", " ").replace("=", " ").replace(",", " ").split())
    for each in (part, part.replace("ü", "ue"))
]


def matches(pattern: str, text: bytes) -> bool:
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    return re2.compile(pattern.encode("ascii"), options).search(text) is not None


def looked_for() -> Sought:
    facts = [Fact(kind, 0, value.encode(), b"ISO_IR 192") for kind, values in (("name", _NAMES), ("id", _IDS)) for value in values]
    facts += [Fact("phrase", 0, value.encode()) for value in _PHRASES]
    facts += [Fact("date", 0x00100030, b"19470305"), Fact("date", 0x00080020, b"20241112")]
    return sought(frozenset(facts), frozenset(), Scope())


_texts = st.lists(st.sampled_from([*_PIECES, *_BETWEEN, *_BETWEEN, "5", "mar", "1947", "12.11.", "24"]), max_size=9).map("".join)


@given(_texts)
@settings(max_examples=300, deadline=None)
def test_a_hint_is_wherever_its_form_is(text: str) -> None:
    found = looked_for()
    patterns = [form.pattern for _, form in found.forms] + [date_forms(day, compact=compact) for _, day, compact in found.dates]
    raw = text.encode()
    expected = [pattern for pattern in patterns if matches(pattern, raw)]

    assert [pattern for _, pattern in found.kinds_in(Searched.of(raw))] == expected
    assert found.is_in(Searched.of(raw)) == bool(expected)


_letters = st.one_of(
    st.text("aeoumcdlnsäöüßøåæ'-", min_size=1, max_size=9),
    st.text("аеорсухклнАВЕКМНОРСТabekx", min_size=1, max_size=6),
    st.text(st.characters(categories=("Lu", "Ll", "Lo", "Mn")), min_size=1, max_size=5),
)
_SPELLED: list[Callable[[str], str]] = [
    str, str.upper, str.title, lambda text: " ".join(text), lambda text: "".join(each if each.isascii() else "?" for each in text),
    lambda text: text.replace("ü", "ue").replace("å", "aa"), lambda text: text.encode().decode("latin-1"), of_one_script,
]  # fmt: skip


@given(_letters, _letters, st.sampled_from(_SPELLED), st.sampled_from(["", "j", "dr", "12", " ", "mac ", "'"]))
@settings(max_examples=200, deadline=None)
def test_a_hint_is_in_whatever_the_form_of_a_name_is_in(family: str, given_name: str, spelled: Callable[[str], str], around: str) -> None:
    found = sought(frozenset([Fact("name", 0, f"{family}^{given_name}".encode(), b"ISO_IR 192")]), frozenset(), Scope())
    raw = searchable(f"{around}{spelled(family)}{around} {spelled(given_name)}".encode(), b"ISO_IR 192")

    expected = [form.pattern for _, form in found.forms if matches(form.pattern, raw)]
    assert [pattern for _, pattern in found.kinds_in(Searched.of(raw))] == expected


@pytest.mark.parametrize("name", ["山田^太郎", "王^小东", "김^철수", "長谷川^左衛門尉"])
def test_spaces_as_wide_as_signs_may_be_between_any_two(name: str) -> None:
    found = sought(frozenset([Fact("name", 0, name.encode(), b"ISO_IR 192")]), frozenset(), Scope())
    signs = folded(name.replace("^", ""))
    for spaces in product(["", "\u3000", " "], repeat=min(len(signs), 6) - 1):
        raw = "".join(map("".join, zip_longest(signs, spaces, fillvalue=""))).encode()

        assert any(matches(form.pattern, raw) for _, form in found.forms)
        assert found.is_in(Searched.of(raw))


@given(_texts)
@settings(max_examples=50, deadline=None)
def test_a_long_text_is_found_to_hold_what_a_short_one_does(text: str) -> None:
    found, raw = looked_for(), text.encode() + b" "

    assert found.is_in(Searched.of(raw + b"\x02" * LONG_BYTES)) == found.is_in(Searched.of(raw))


def test_texts_that_are_joined_hold_what_each_does_and_no_more() -> None:
    found = looked_for()
    parts = [Searched.of(each) for each in (b"quag", b"gler", b"19470", b"305")]

    assert not found.is_in(Searched.joined(parts))
    assert found.is_in(Searched.joined([*parts, Searched.of(b"seen by quaggler")]))


@pytest.mark.parametrize("text", [b"q\0u\0a\0g\0g\0l\0e\0r\0", b"1\x009\x004\x007\x000\x003\x000\x005\x00"])
@pytest.mark.parametrize("more", [0, LONG_BYTES])
def test_letters_of_two_bytes_are_read_without_their_padding(text: bytes, more: int) -> None:
    found, searched = looked_for(), Searched.of(text + b"\0" * more)

    assert not found.is_in(searched)
    assert found.is_in(searched.without_nul())


_numbers = st.sampled_from(["5", "05", "3", "03", "1947", "47", "19470305", "05031947", "194703051030", "7", "11", "2024", "51947"])
_names = st.sampled_from(["mar", "march", "marz", "maart", "jan", "nov", "janovember", "marzo", "aout", "maggio", "outubro", "settembre"])
_apart = st.sampled_from(["", "", " ", "-", "/", ".", ". ", ", ", "th", "rd ", " of ", " de ", "x", "年", "月", "日", "\0"])


@given(st.lists(st.one_of(_numbers, _names, _apart), min_size=1, max_size=9).map("".join))
@settings(max_examples=500, deadline=None)
@example("marzoctober 5 2024")
@example("5thmay52004")
def test_a_day_is_known_wherever_its_pattern_is(text: str) -> None:
    raw = text.encode()
    for day in (date(1947, 3, 5), date(1947, 5, 3), date(2024, 11, 5), date(2024, 10, 5), date(2004, 5, 5)):
        if matches(date_forms(day, compact=True), raw):
            assert day_key(day) in days_said(raw)


def test_what_is_no_date_says_no_day() -> None:
    assert days_said(b"0.661468\\0.661468\x01-1024\x0116-bit 3d 120 kv 99/99/99") == frozenset()


def test_another_century_is_told_from_it_by_the_pattern_alone() -> None:
    found = looked_for()

    assert not found.is_in(Searched.of(b"5.3.1847"))
    assert found.is_in(Searched.of(b"5.3.1947"))
