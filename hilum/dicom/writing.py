"""DICOM JSON (PS3.18 F.2) into an encoded data set, for answers to queries: text, UIDs, numbers in text and sequences.

Text that a character set does not hold is transliterated, so that a device that knows one set only still shows a name; ideographs are
not, since nobody can tell how they are read.
"""

from __future__ import annotations

import base64
import struct
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from anyascii import anyascii
from msgspec import Struct

from hilum.dicom.character_sets import STAND_ALONE, convert_encodings, extended, python_encoding
from hilum.dicom.romanizing import has_ideographs, romanized

SPECIFIC_CHARACTER_SET = "00080005"
UNICODE = "ISO_IR 192"
#: Names of the default repertoire, which pydicom takes for Latin-1.
_DEFAULT = ("", "ISO_IR 6", "ISO 2022 IR 6")
_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")
#: VRs whose text the character set is of (PS3.5 6.1.2.3).
_TEXT = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})
_LONG = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"})
_NUMBERS = {"US": "<H", "SS": "<h", "UL": "<I", "SL": "<i", "UV": "<Q", "SV": "<q", "FL": "<f", "FD": "<d"}

#: Characters that separate values, here or in HL7.
_SEPARATORS = {ord(character): " " for character in "\\^=|~&\r\n"}

Json = Mapping[str, Any]


class CharacterSet(Struct, frozen=True):
    """A value of (0008,0005), and Python's names of it."""

    terms: tuple[str, ...]
    encodings: tuple[str, ...]

    def encode(self, text: str) -> bytes | None:
        """`text` in this set; None if it does not hold all of it."""
        return _encode(text, self.encodings)


@lru_cache(maxsize=64)
def character_set(*terms: str) -> CharacterSet | None:
    """The set of these terms (PS3.3 C.12.1.1.2), or None if Hilum does not know it. Without terms: the default repertoire."""
    if all(term in _DEFAULT for term in terms):
        return CharacterSet(("",), ("ascii",))
    alone = len(terms) == 1 or STAND_ALONE.isdisjoint(terms)
    if not alone or not python_encoding.keys() >= set(terms):
        return None  # pydicom would take another one
    found = tuple(convert_encodings(list(terms)))
    if terms[0] in _DEFAULT:
        found = ("ascii", *found[1:])
    return CharacterSet(terms, found)


def holds(attributes: Json, chosen: CharacterSet) -> bool:
    """Whether all text of a data set can be said in a character set."""
    return all(chosen.encode(text) is not None for text in _texts(attributes))


def is_ascii(attributes: Json) -> bool:
    """Whether a data set needs no (0008,0005)."""
    return all(text.isascii() for text in _texts(attributes))


def encode(attributes: Json, chosen: CharacterSet, *, explicit: bool) -> bytes:
    """The data set in Explicit or Implicit VR Little Endian, with (0008,0005) if it has more than ASCII in it.

    Of attributes that are bulk, those that are in the JSON itself (`InlineBinary`).
    """
    if not is_ascii(attributes) and chosen.terms != ("",):
        attributes = {**attributes, SPECIFIC_CHARACTER_SET: {"vr": "CS", "Value": list(chosen.terms)}}
    return _elements(attributes, chosen, explicit)


def fitted(text: str, chosen: CharacterSet) -> str:
    """`text` with every character that `chosen` does not hold transliterated: accents go first, then the letter's nearest in ASCII."""
    if chosen.encode(text) is not None:
        return text
    return transliterated(text, lambda character: chosen.encode(character) is not None)


def transliterated(text: str, fits: Callable[[str], bool]) -> str:
    """`text` with each character that does not fit replaced by its nearest; what separates values in DICOM and HL7 never comes of it."""
    if text.isascii() or fits(text):
        return text
    return "".join(_nearest(character, fits) for character in unicodedata.normalize("NFC", text))


def _nearest(character: str, fits: Callable[[str], bool]) -> str:
    if fits(character):
        return character
    bare = "".join(each for each in unicodedata.normalize("NFKD", character) if not unicodedata.combining(each))
    if bare and fits(bare):
        return bare
    return "?" if has_ideographs(character) else anyascii(character).translate(_SEPARATORS) or "?"


def _texts(attributes: Json) -> Iterator[str]:
    for element in attributes.values():
        vr = element.get("vr")
        for value in element.get("Value", ()):
            if vr == "SQ":
                yield from _texts(value)
            elif vr == "PN":
                yield from (value or {}).values()
            elif vr in _TEXT and value is not None:
                yield str(value)


def _elements(attributes: Json, chosen: CharacterSet, explicit: bool) -> bytes:
    out = []
    for tag in sorted(attributes):
        element = attributes[tag]
        vr = element["vr"]
        value = _bytes(element) if "InlineBinary" in element else _value(vr, element.get("Value", ()), chosen, explicit)
        head = bytes.fromhex(tag)
        head = head[1::-1] + head[:1:-1]
        if not explicit:
            head += struct.pack("<I", len(value))
        elif vr in _LONG:
            head += vr.encode() + struct.pack("<2xI", len(value))
        else:
            value = value[:65_534]
            head += vr.encode() + struct.pack("<H", len(value))
        out += [head, value]
    return b"".join(out)


def _bytes(element: Json) -> bytes:
    value = base64.b64decode(element["InlineBinary"])
    return value + b"\0" * (len(value) % 2)


def _value(vr: str, values: Sequence[Any], chosen: CharacterSet, explicit: bool) -> bytes:
    if vr == "SQ":
        items = (_elements(item, chosen, explicit) for item in values)
        return b"".join(struct.pack("<HHI", 0xFFFE, 0xE000, len(item)) + item for item in items)
    if vr in _NUMBERS:
        return b"".join(struct.pack(_NUMBERS[vr], value) for value in values if value is not None)
    if vr == "AT":
        return b"".join(bytes.fromhex(tag)[1::-1] + bytes.fromhex(tag)[:1:-1] for tag in values if tag)
    if vr == "PN":
        encoded = b"\\".join(_name(value or {}, chosen) for value in values)
    elif vr in _TEXT:
        encoded = b"\\".join(_text("" if value is None else str(value), chosen) for value in values)
    else:
        encoded = b"\\".join(_plain(value) for value in values)
    return encoded + (b"\0" if vr == "UI" else b" ") * (len(encoded) % 2)


def _name(value: Mapping[str, str], chosen: CharacterSet) -> bytes:
    """Groups beside the alphabetic one are left out if the set does not hold them; the alphabetic one says who it is."""
    given = [value.get(label, "") for label in _GROUPS]
    groups = [_spelled(given, chosen), *("" if chosen.encode(group) is None else group for group in given[1:])]
    # A code extension ends at each delimiter, so each component is encoded by itself (PS3.5 6.2.1.2).
    return b"=".join(b"^".join(_text(component, chosen) for component in group.split("^")) for group in groups).rstrip(b"=")


def _spelled(groups: Sequence[str], chosen: CharacterSet) -> str:
    """The alphabetic group as `chosen` can say it; made of the phonetic one, if it has ideographs or is missed. Empty if nobody can."""
    alphabetic, *others = groups
    if alphabetic and (chosen.encode(alphabetic) is not None or not has_ideographs(alphabetic)):
        return alphabetic
    if not alphabetic and all(chosen.encode(group) is not None for group in others):
        return ""
    return next((romanized(group) for group in reversed(others) if group and not has_ideographs(group)), "")


def _text(text: str, chosen: CharacterSet) -> bytes:
    if text.isascii():
        return text.encode()
    return chosen.encode(text) or chosen.encode(fitted(text, chosen)) or text.encode("ascii", "replace")


def _plain(value: Any) -> bytes:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return b"" if value is None else str(value).encode("ascii", "replace")


@lru_cache(maxsize=16_384)
def _encode(text: str, encodings: tuple[str, ...]) -> bytes | None:
    if text.isascii():
        return text.encode()
    if len(encodings) == 1:
        try:
            encoded = text.encode(encodings[0])
        except UnicodeError:
            return None
        # ISO_IR 13 is JIS X 0201, in which every character is a byte; Python's codec has more.
        return None if encodings[0] == "shift_jis" and len(encoded) > len(text) else encoded
    if encodings[0] == "ascii":  # pydicom takes the default repertoire for Latin-1, which no device need read
        if any("\x80" <= character <= "\xff" for character in text):
            return None
        encodings = ("iso8859", *encodings[1:])
    return extended(text, encodings)
