"""Names for devices that know ASCII or one set alone."""

from __future__ import annotations

import pytest

from hilum.dicom.romanizing import romanized
from hilum.dicom.writing import character_set, encode, transliterated


@pytest.mark.parametrize(
    ("name", "latin"),
    [
        ("やまだ^たろう", "Yamada^Tarou"),
        ("ヤマダ^タロー", "Yamada^Taro"),
        ("ﾔﾏﾀﾞ^ﾀﾛｳ", "Yamada^Tarou"),
        ("はっちょう^きっか", "Hatchou^Kikka"),
        ("ジュン^ウィ", "Jun^Wi"),
        ("홍^길동", "Hong^GilDong"),
        ("Иванов^Иван", "Ivanov^Ivan"),
    ],
)
def test_what_says_how_it_sounds_is_read(name: str, latin: str) -> None:
    assert romanized(name) == latin


def said(terms: str, **groups: str) -> str:
    """A name as a device with that character set gets it, in Python's characters."""
    chosen = character_set(*terms.split("\\"))
    assert chosen is not None
    element = encode({"00100010": {"vr": "PN", "Value": [groups]}}, chosen, explicit=True)
    value = element[element.index(b"PN") + 4 :]
    return value.decode("shift_jis" if "13" in terms else "utf-8" if "192" in terms else "latin-1").strip()


@pytest.mark.parametrize("terms", ["ISO_IR 6", "ISO_IR 100"])
def test_a_japanese_name_is_read_by_its_phonetic_group_and_never_as_chinese(terms: str) -> None:
    assert said(terms, Alphabetic="山田^太郎", Phonetic="やまだ^たろう") == "Yamada^Tarou"
    assert said(terms, Ideographic="山田^太郎", Phonetic="ﾔﾏﾀﾞ^ﾀﾛｳ") == "Yamada^Tarou"
    assert said(terms, Alphabetic="Yamada^Tarou", Ideographic="山田^太郎", Phonetic="やまだ^たろう") == "Yamada^Tarou"


@pytest.mark.parametrize("groups", [{"Alphabetic": "山田^太郎"}, {"Ideographic": "山田^太郎"}])
def test_who_says_not_how_it_is_read_has_no_name_there(groups: dict[str, str]) -> None:
    assert said("ISO_IR 100", **groups) == ""


def test_a_set_that_holds_a_name_gets_it_as_it_is() -> None:
    assert said("ISO_IR 192", Ideographic="山田^太郎", Phonetic="やまだ^たろう") == "=山田^太郎=やまだ^たろう"
    assert said("ISO_IR 13", Ideographic="山田^太郎", Phonetic="ﾔﾏﾀﾞ^ﾀﾛｳ") == "Yamada^Tarou==ﾔﾏﾀﾞ^ﾀﾛｳ"


def test_in_other_text_ideographs_are_left_open() -> None:
    assert transliterated("胸部 CT さき", str.isascii) == "?? CT saki"
