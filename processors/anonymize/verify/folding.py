"""Text as the second look compares it: without case, without accents, in UTF-8; and what a value may say in each of its readings."""

from __future__ import annotations

import html
import re
import unicodedata
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

from pydicom.charset import decode_bytes

from hilum.dicom.character_sets import convert_encodings
from processors.anonymize.verify.lookalikes import of_one_script

#: Letters that are no letter with an accent, and are written so where a keyboard has none.
_LETTERS = str.maketrans({"ø": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "æ": "ae", "œ": "oe", "ı": "i", "・": " ", "·": " "})
#: Signs that are typed where a name has an apostrophe.
APOSTROPHES = str.maketrans(dict.fromkeys("`\u00b4\u2018\u2019\u201b\u2032\u02bc", "'"))
_LETTERS |= APOSTROPHES | {0x2212: "-", 0xFFFD: "?"}
_ESCAPED = re.compile(rb"&#?[0-9A-Za-z]{2,8};|%[0-9A-Fa-f]{2}|\\u[0-9A-Fa-f]{4}|\\'[0-9A-Fa-f]{2}")
_IN_JSON_OR_RTF = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|'([0-9A-Fa-f]{2}))")
#: By category: separators of words and dashes.
_BLANKS_AND_DASHES = {"Zs": " ", "Zl": "\n", "Zp": "\n", "Pd": "-"}
#: At these, a code extension ends (PS3.5 6.1.2.5.3).
_RESETS = {ord(each) for each in "\r\n\t\f^=\\"}


def folded(text: str) -> str:
    """`text` without case and accents: `Müller` and `MULLER` are `muller`, `Groß` and `GROSS` are `gross`.

    What nobody sees goes (soft hyphens, zero widths, the tatweel that stretches Arabic words), katakana is hiragana, digits, letters,
    dashes, apostrophes and blanks of all kinds are those of ASCII, and Chinese characters are simplified: traditional ones, and those that
    Japan writes otherwise.
    """
    if text.isascii():
        return text.lower()
    parts = unicodedata.normalize("NFKD", text.casefold().translate(_LETTERS))
    return "".join([_folded(each) for each in parts])


@lru_cache(maxsize=8192)
def _folded(character: str) -> str:
    """A character of decomposed text as it is compared; `""` if it says nothing."""
    kind = unicodedata.category(character)
    if kind in ("Mn", "Cf") or character == "\u0640":
        return ""
    if kind in _BLANKS_AND_DASHES:
        return _BLANKS_AND_DASHES[kind]
    if kind == "Lu":  # of mathematics, which have no other case before they are decomposed
        return character.lower()
    if "\u30a1" <= character <= "\u30f6" or character in "\u30fd\u30fe":  # katakana that hiragana has, and its marks of repetition
        return chr(ord(character) - 0x60)
    if "\u3400" <= character <= "\u9fff" or "\U00020000" <= character <= "\U0003ffff":
        return _simplified(character)
    digit = unicodedata.digit(character, None)
    return character if digit is None else str(digit)


def _simplified(character: str) -> str:
    """By itself, so that it is the same in a name and in a text: OpenCC goes by the words around it if there are any."""
    japanese, traditional = _converters()
    return str(traditional.convert(japanese.convert(character)))


@lru_cache(maxsize=1)
def _converters() -> tuple[Any, Any]:
    from opencc import OpenCC  # 3 MB and some milliseconds, which sites without such names do not need

    return OpenCC("jp2t"), OpenCC("t2s")


def is_escaped(raw: bytes) -> bool:
    """Whether some letters may be written as HTML, URLs, JSON or RTF do it (`M&uuml;ller`, `M%C3%BCller`, `M\\u00fcller`, `M\\'fcller`)."""
    return _ESCAPED.search(raw) is not None


def is_plain(raw: bytes) -> bool:
    """Whether a text says what its bytes say in ASCII, and nothing else."""
    return raw.isascii() and b"\x1b" not in raw and not is_escaped(raw)


def _unescaped(text: str) -> str:
    return html.unescape(unquote(_IN_JSON_OR_RTF.sub(lambda found: chr(int(found[1] or found[2], 16)), text)))


def texts(raw: bytes, charset: bytes) -> list[str]:
    """What `raw` may say: in the declared character sets, and in UTF-8 where it is that, whatever is declared."""
    if raw.isascii() and b"\x1b" not in raw:
        text = raw.decode("ascii")
        return [text, _unescaped(text)] if is_escaped(raw) else [text]
    found = [_declared(raw, charset)]
    try:
        found.append(raw.decode("utf-8"))
    except UnicodeDecodeError:
        found.append(raw.decode("latin-1"))
    if b"\x1b" not in raw:  # of two bytes a letter, and not designated where it stands, as some write it
        for encoding in _encodings(charset)[1:]:
            if encoding in ("iso_ir_58", "euc_kr"):
                found.append(raw.decode(encoding, "replace"))
    found += [once for text in found if (once := _once(text))]
    if is_escaped(raw):
        found += [_unescaped(text) for text in found]
    return list(dict.fromkeys(found))


def _once(text: str) -> str:
    """What was UTF-8, was read as Latin-1 or as Windows has it, and encoded as UTF-8 once more (`MÃ¼ller`); `""` if it was not."""
    for codec in ("latin-1", "cp1252"):
        try:
            return text.encode(codec).decode("utf-8")
        except UnicodeError:
            continue
    return ""


def searchable(raw: bytes, charset: bytes) -> bytes:
    """`raw` folded, as UTF-8, in each of its readings."""
    if is_plain(raw):
        return raw.lower()
    return b"\x01".join([each.encode("utf-8", "replace") for text in texts(raw, charset) for each in both(text)])


def both(text: str) -> list[str]:
    """`text` folded, as it is and with each word in letters of one script, if that is another one."""
    found = folded(text)
    other = folded(alike) if (alike := of_one_script(text)) is not text else found
    return [found] if found == other else [found, other]


@lru_cache(maxsize=256)
def _encodings(charset: bytes) -> tuple[str, ...]:
    terms = [term.strip(" \0") for term in charset.decode("latin-1").split("\\")]
    try:
        return tuple(convert_encodings(terms))
    except (LookupError, ValueError):
        return ("latin-1",)


def _declared(raw: bytes, charset: bytes) -> str:
    try:
        return decode_bytes(raw, _encodings(charset) or ("latin-1",), _RESETS).replace("\x1b$)A", "")  # pydicom leaves this one in
    except (UnicodeError, LookupError, ValueError):
        return raw.decode("latin-1")
