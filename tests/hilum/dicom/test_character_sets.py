"""Character sets that pydicom does not know, or reads otherwise than PS3.5 has them."""

from __future__ import annotations

import pytest

from hilum.dicom.values import LITTLE, decoded, encodings_of
from hilum.dicom.writing import character_set
from processors.anonymize.charsets import charset
from processors.anonymize.held import Held

_IR_58 = b"\\ISO 2022 IR 58"
#: PS3.5 K.2 and K.3.
_NAME = b"Zhang^XiaoDong=\x1b$)A\xd5\xc5^\x1b$)A\xd0\xa1\xb6\xab="
_TEXT = b"The first line includes \x1b$)A\xd6\xd0\xce\xc4.\r\nThe second line includes \x1b$)A\xd6\xd0\xce\xc4, too.\r\nThe third line.\r\n"
_LINES = "The first line includes 中文.\r\nThe second line includes 中文, too.\r\nThe third line.\r\n"


def test_chinese_by_code_extensions_is_read() -> None:
    assert decoded(_NAME, encodings_of(_IR_58)) == "Zhang^XiaoDong=张^小东="
    assert decoded(_TEXT, encodings_of(_IR_58)) == _LINES


def test_a_header_has_chinese_names_by_groups() -> None:
    convert = LITTLE["PN"].convert
    assert convert is not None
    assert convert(_NAME, encodings_of(_IR_58)) == [{"Alphabetic": "Zhang^XiaoDong", "Ideographic": "张^小东"}]


def test_it_is_designated_anew_behind_what_ends_it() -> None:
    chosen = character_set("", "ISO 2022 IR 58")
    assert chosen is not None
    assert chosen.encode("Zhang^XiaoDong=张^小东=") == _NAME
    written = chosen.encode(_LINES)
    assert written is not None
    assert written.count(b"\x1b$)A") == 2
    assert decoded(written, chosen.encodings) == _LINES
    assert chosen.encode("한글") is None


@pytest.mark.parametrize(
    ("terms", "text"),
    [
        (("ISO_IR 203",), "5 €, Œuvre"),
        (("ISO 2022 IR 100", "ISO 2022 IR 203"), "Müller^Žofie\r\n5 €"),
        (("", "ISO 2022 IR 149"), "한글\r\n김^희중=洪^吉洞"),
        (("", "ISO 2022 IR 87"), "山田^太郎=やまだ^たろう"),
        (("ISO 2022 IR 100", "ISO 2022 IR 144", "ISO 2022 IR 58"), "Müller^Люкceмбypг=张^小东"),
    ],
)
def test_what_is_written_in_a_set_is_read_in_it(terms: tuple[str, ...], text: str) -> None:
    chosen = character_set(*terms)
    assert chosen is not None
    written = chosen.encode(text)
    assert written is not None
    assert decoded(written, encodings_of("\\".join(terms).encode())) == text


def test_de_identification_takes_both_and_still_no_lie() -> None:
    assert charset(_IR_58).text(_NAME, 0x00100010) == "Zhang^XiaoDong=张^小东="
    assert charset(b"ISO_IR 203").text(b"5 \xa4", 0x00081030) == "5 €"
    assert charset(_IR_58).bytes("头部") == b"\x1b$)A\xcd\xb7\xb2\xbf"
    for lie in (b"\x1b$)C\xfb\xf3", b"\x1b$)A\xd5", b"\xd5\xc5"):
        with pytest.raises(Held):
            charset(_IR_58 if lie[:1] == b"\x1b" else b"").text(lie, 0x00100010)
    with pytest.raises(Held):
        charset(b"ISO_IR 100").text(_NAME, 0x00100010)


@pytest.mark.parametrize(
    "terms",
    [("ISO-IR 100",), ("utf-8",), ("latin-1",), ("ISO_IR 999",), ("ISO_IR 192", "ISO 2022 IR 87"), ("", "GB18030"), ("", "ISO_2022_IR_87")],
)
def test_what_pydicom_would_take_for_another_set_is_none(terms: tuple[str, ...]) -> None:
    assert character_set(*terms) is None
