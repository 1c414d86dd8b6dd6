"""Values of DICOM elements as DICOM JSON values (PS3.5 6.2 to PS3.18 F.2.3).

Nothing here fails on an odd value. A number in IS or DS becomes a JSON number; what is no number stays text, as it came.
Padding goes; a NUL inside text becomes U+FFFD, since databases take none; bytes that are not of the character set become
U+FFFD, too. What JSON cannot say (NaN, a value of the wrong length) raises `UnsayableError`, and is left out and listed as such.
"""

from __future__ import annotations

import binascii
import struct
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from msgspec import Struct

from hilum.dicom.character_sets import convert_encodings, default_encoding, read_extended

Encodings = tuple[str, ...]
#: JSON values of one element, None for an empty one; `[]` if the element is empty.
Convert = Callable[[bytes, Encodings], list[Any]]

#: The repertoire where (0008,0005) says nothing; pydicom reads it as Latin-1, as most senders mean it.
DEFAULT_ENCODINGS: Encodings = (default_encoding,)


class UnsayableError(ValueError):
    """JSON has no form for this value."""


class Vr(Struct, frozen=True):
    """How values of one VR are read."""

    name: str
    #: Whether its explicit form has a 32-bit length (PS3.5 7.1.2).
    long: bool
    #: None for bytes, which JSON shows as base64.
    convert: Convert | None
    #: Whether a long value is bulk: it stays out of headers.
    bulk: bool


@lru_cache(maxsize=256)
def encodings_of(specific_character_set: bytes) -> Encodings:
    """Python's names of the character sets in the value of (0008,0005); unknown ones are read as Latin-1."""
    terms = [term.strip(" \0") for term in specific_character_set.decode("latin-1").split("\\")]
    try:
        return tuple(convert_encodings(terms)) or DEFAULT_ENCODINGS
    except (LookupError, ValueError):
        return DEFAULT_ENCODINGS


def decoded(raw: bytes, encodings: Encodings) -> str:
    """`raw` as text (PS3.5 6.1). What does not decode becomes U+FFFD."""
    if b"\x1b" not in raw:
        try:
            return raw.decode(encodings[0])
        except UnicodeError:
            return raw.decode(encodings[0], "replace")
    try:
        return read_extended(raw, encodings)
    except (UnicodeError, LookupError, ValueError):
        return raw.decode(encodings[0], "replace")


def _clean(text: str) -> str:
    return text.replace("\0", "\ufffd") if "\0" in text else text


def _words(raw: bytes, _: Encodings) -> list[Any]:
    """VRs of the default repertoire: spaces around mean nothing."""
    text = raw.decode("latin-1")
    if "\\" in text:
        return [_clean(part.strip(" \0")) or None for part in text.split("\\")]
    text = text.strip(" \0")
    return [text if "\0" not in text else _clean(text)] if text else []


def _texts(raw: bytes, encodings: Encodings) -> list[Any]:
    """LO, SH, UC: text with several values."""
    text = decoded(raw, encodings)
    if "\\" in text:
        return [_clean(part.strip(" \0")) or None for part in text.split("\\")]
    text = text.strip(" \0")
    return [text if "\0" not in text else _clean(text)] if text else []


def _long_text(raw: bytes, encodings: Encodings) -> list[Any]:
    """LT, ST, UT: one value; a backslash is a character, spaces in front count."""
    text = decoded(raw, encodings).rstrip(" \0")
    return [_clean(text)] if text else []


def _address(raw: bytes, _: Encodings) -> list[Any]:
    """UR: one value."""
    text = raw.decode("latin-1").rstrip(" \0")
    return [_clean(text)] if text else []


_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")


def _names(raw: bytes, encodings: Encodings) -> list[Any]:
    """PN: component groups by name (PS3.18 F.2.2), empty ones left out."""
    text = decoded(raw, encodings).strip(" \0")
    if not text:
        return []
    names: list[Any] = []
    for name in text.split("\\"):
        groups = [_clean(group.strip(" \0")) for group in name.split("=", 2)]
        names.append({label: group for label, group in zip(_GROUPS, groups, strict=False) if group} or None)
    return names if any(names) else []


def _integers(raw: bytes, _: Encodings) -> list[Any]:
    return [_integer(part) for part in raw.split(b"\\")] if raw.strip(b" \0") else []


def _integer(part: bytes) -> Any:
    part = part.strip(b" \0")
    if not part:
        return None
    if len(part) <= 15 and b"_" not in part:  # a double holds any integer of 15 digits; Python's underscores are no DICOM
        try:
            return int(part)
        except ValueError:
            pass
    return _clean(part.decode("latin-1"))


def _decimals(raw: bytes, _: Encodings) -> list[Any]:
    return [_decimal(part) for part in raw.split(b"\\")] if raw.strip(b" \0") else []


def _decimal(part: bytes) -> Any:
    part = part.strip(b" \0")
    if not part:
        return None
    if b"_" not in part:
        try:
            number = float(part)
        except ValueError:
            pass
        else:
            if number - number == 0.0:  # neither NaN nor infinite
                return number
    return _clean(part.decode("latin-1"))


@lru_cache(maxsize=512)
def _layout(order: str, code: str, count: int) -> struct.Struct:
    return struct.Struct(f"{order}{count}{code}")


def _numbers(order: str, code: str) -> Convert:
    size = struct.calcsize(code)
    one = struct.Struct(order + code)

    def convert(raw: bytes, _: Encodings) -> list[Any]:
        if len(raw) == size:
            return [*one.unpack(raw)]
        count, rest = divmod(len(raw), size)
        if rest:
            raise UnsayableError
        return [*_layout(order, code, count).unpack(raw)]

    return convert


def _floats(order: str, code: str) -> Convert:
    numbers = _numbers(order, code)

    def convert(raw: bytes, encodings: Encodings) -> list[Any]:
        values = numbers(raw, encodings)
        if any(value - value != 0.0 for value in values):
            raise UnsayableError
        return values

    return convert


def _tags(order: str) -> Convert:
    def convert(raw: bytes, _: Encodings) -> list[Any]:
        count, rest = divmod(len(raw), 4)
        if rest:
            raise UnsayableError
        pairs = _layout(order, "H", 2 * count).unpack(raw)
        return [f"{group:04X}{element:04X}" for group, element in zip(pairs[::2], pairs[1::2], strict=True)]

    return convert


def base64(raw: bytes) -> str:
    """`raw` as `InlineBinary` (PS3.18 F.2.7)."""
    return binascii.b2a_base64(raw, newline=False).decode("ascii")


def _swapped(_: bytes, __: Encodings) -> list[Any]:
    """Words of a big endian data set: `InlineBinary` is little endian."""
    raise UnsayableError


def _table(order: str) -> dict[str, Vr]:
    text: dict[str, tuple[Convert, Sequence[str]]] = {
        "words": (_words, ("AE", "AS", "CS", "DA", "DT", "TM", "UI")),
        "texts": (_texts, ("LO", "SH", "UC")),
        "long texts": (_long_text, ("LT", "ST", "UT")),
        "address": (_address, ("UR",)),
        "names": (_names, ("PN",)),
    }
    table = {name: Vr(name, name in ("UC", "UT", "UR"), convert, bulk=False) for convert, names in text.values() for name in names}
    table |= {name: Vr(name, False, convert, bulk=True) for name, convert in (("IS", _integers), ("DS", _decimals), ("AT", _tags(order)))}
    for name, code in {"US": "H", "SS": "h", "UL": "I", "SL": "i", "UV": "Q", "SV": "q"}.items():
        table[name] = Vr(name, name in ("UV", "SV"), _numbers(order, code), bulk=True)
    table |= {name: Vr(name, False, _floats(order, code), bulk=True) for name, code in (("FL", "f"), ("FD", "d"))}
    table |= {name: Vr(name, True, None, bulk=True) for name in ("OB", "OD", "OF", "OL", "OV", "OW", "UN", "SQ")}
    if order == ">":
        table |= {name: Vr(name, True, _swapped, bulk=True) for name in ("OD", "OF", "OL", "OV", "OW")}
    return table


#: Every VR of PS3.5 6.2, for little and for big endian.
LITTLE = _table("<")
BIG = _table(">")
