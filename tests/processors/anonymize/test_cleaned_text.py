"""Cleaned text: what is known to be harmless stays, whoever else is named in it goes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.anonymize.words import cleaned, name_words, vocabulary


@pytest.mark.parametrize(
    "text",
    [
        "CT Chest with contrast 5 mm",
        "Knee left 3.0mm T2",
        "segment 1",
        "Abdomen / pelvis (portal venous phase)",
        "120 kV, 45 mAs",
        "ax T1 post",
        "slice 5 mm, 3 of 12",
        "C5/6 and L4/5",
        "120 kV, 350 mA, 500 ms",
        "95 % of 4711 mm",
        "patient 89 years old",
        "delay 120s",
    ],
)
def test_what_describes_an_examination_stays(text: str) -> None:
    assert cleaned(text) == text


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("Chest of Zebulon Quimby", "Chest of"),
        ("Seen by Dr. White, chest clear", "Seen by chest clear"),
        ("chest, phone 555-123-4567", "chest, phone"),
        ("phone 01 71 55 51 chest", "phone chest"),
        ("MRN 12345678 lung", "lung"),
        ("Lung Müller", "Lung"),
        ("93 years old, chest", "years old, chest"),
        ("12.03.1955 lung", "lung"),
        ("aged 95, female", "female"),
        ("female 95 chest", "female chest"),
        ("95 year old female", "year old female"),
        ("old female (95)", "old female"),
        ("chest of 101 years", "chest of years"),
        ("12 May 61 chest", "chest"),
        ("chest May 12 61", "chest"),
        ("chest 12th of May in 61", "chest of in"),
        ("12-Dez-61 lung", "lung"),
        ("3. märz lung", "lung"),
        ("12may 61 lung", "lung"),
        ("lung 06 CT 64 CT 99 CT 88", "lung CT CT CT"),
        ("chest 06 64 99 88", "chest"),
        ("phone +43 664 chest", "phone chest"),
        ("chest call 12 left 34", "chest left"),
        ("lung 12345 mm", "lung mm"),
        ("lung 664 / 9988776 chest", "lung chest"),
        ("9988x 776d lung", "lung"),
        ("lung 12 chest 34 knee 56 left 7", "lung chest knee left"),
        ("Zebulon\r\nlung\r\nQuimby\r\nclear", "lung\r\nclear"),
    ],
)
def test_who_and_when_goes(text: str, left: str) -> None:
    assert cleaned(text) == left


def test_a_name_that_is_a_word_goes_where_the_object_names_it() -> None:
    assert cleaned("chest of Hand", names=name_words(b"Hand^Jane")) == "chest of"


def test_a_sites_own_words_stay() -> None:
    assert cleaned("Thorax Durchleuchtung", frozenset({"durchleuchtung"})) == "Thorax Durchleuchtung"


def test_common_names_are_no_words() -> None:
    names = "smith johnson williams brown jones garcia miller davis mary james robert john michael david william may rose grace mark"

    assert sorted(set(names.split()) & vocabulary()) == []


@given(st.text(alphabet="bcdfgjkqxz", min_size=5, max_size=20), st.sampled_from(["lung {}", "{}, chest", "chest ({}) 5 mm", "{}"]))
def test_whatever_word_is_unknown_never_stays(word: str, around: str) -> None:
    assert word not in cleaned(around.format(word))


@given(st.integers(1000, 10**12), st.sampled_from(["tel {}", "{} lung", "no. {}", "id {} 5 mm"]))
def test_a_long_number_without_a_unit_never_stays(number: int, around: str) -> None:
    assert str(number) not in cleaned(around.format(number))


@given(
    st.integers(90, 129),
    st.sampled_from(
        ["aged {}", "{} years", "age {} female", "{}-year-old", "female, {}", "{} old female", "patient ({}) chest", "{} y", "age: {}"]
    ),
)
def test_an_age_over_89_never_stays_whatever_the_order(age: int, around: str) -> None:
    assert str(age) not in cleaned(around.format(age))


@given(
    st.integers(1, 28),
    st.sampled_from(["Jan", "MARCH", "may", "Juni", "sept.", "décembre"]),
    st.integers(40, 89),
    st.sampled_from(
        ["{d} {m} {y}", "{m} {d}, {y}", "{d}. {m} {y}", "{d}-{m}-{y}", "{d}. {m} {y} lung", "chest {m} {d} {y}", "{y} {m} {d}"]
    ),
)
def test_a_day_with_the_name_of_its_month_never_stays(day: int, month: str, year: int, around: str) -> None:
    left = cleaned(around.format(d=day, m=month, y=year))

    assert not any(each.isdigit() for each in left)


@given(st.lists(st.integers(10, 89).map(str), min_size=4, max_size=6), st.sampled_from([" ", "-", "/", " . ", " CT ", " left ", ", "]))
def test_a_telephone_number_in_pairs_never_stays(pairs: list[str], between: str) -> None:
    assert not any(each.isdigit() for each in cleaned("lung " + between.join(pairs)).replace("C5", ""))
