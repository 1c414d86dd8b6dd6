"""Character sets (PS3.3 C.12.1.1.2) as pydicom has them, with what its tables lack and what its reader leaves in the text.

Whoever reads or writes text imports pydicom's functions from here, so that no reader knows other character sets than the next.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from pydicom.charset import (
    CODES_TO_ENCODINGS,
    ENCODINGS_TO_CODES,
    STAND_ALONE_ENCODINGS,
    convert_encodings,
    decode_bytes,
    default_encoding,
    encode_string,
    python_encoding,
)

__all__ = ["STAND_ALONE", "convert_encodings", "default_encoding", "extended", "python_encoding", "read_extended"]

#: Terms that take no code extensions, and are none (PS3.3 C.12.1.1.2).
STAND_ALONE = frozenset(STAND_ALONE_ENCODINGS)

#: Latin alphabet no. 9, with the euro sign: newer than pydicom's tables.
_LATIN_9, _DESIGNATES_LATIN_9 = "iso8859_15", b"\x1b-b"
for _term in ("ISO_IR 203", "ISO 2022 IR 203"):
    python_encoding.setdefault(_term, _LATIN_9)
CODES_TO_ENCODINGS.setdefault(_DESIGNATES_LATIN_9, _LATIN_9)
ENCODINGS_TO_CODES.setdefault(_LATIN_9, _DESIGNATES_LATIN_9)

#: GB 2312 in G1 (PS3.5 K.2). pydicom thinks that Python's codec has to do with the designation: it leaves it in the text that it reads, and
#: out of the bytes that it writes.
_GB_2312, _DESIGNATES_GB_2312 = "iso_ir_58", b"\x1b$)A"
_IN_GB_2312 = re.compile(rb"\x1b\$\)A([^\x1b]*)")
# At these, a code extension ends (PS3.5 6.1.2.5.3). The backslash and the equals sign are among them because a value is decoded
# whole and divided afterwards: in GB18030, GBK and JIS X 0208 both can be the second byte of a character.
_RESETS = {ord(character) for character in "\r\n\t\f^=\\"}
_PARTS = re.compile(r"([\r\n\t\f^=\\]+)")


def read_extended(raw: bytes, encodings: Sequence[str]) -> str:
    """`raw`, which has code extensions (PS3.5 6.1.2.5), as text. Raises and warns as `pydicom.charset.decode_bytes` does."""
    if _GB_2312 not in encodings:
        return decode_bytes(raw, encodings, _RESETS)
    parts = enumerate(_IN_GB_2312.split(raw))
    return "".join(part.decode(_GB_2312, "replace") if n % 2 else decode_bytes(part, encodings, _RESETS) for n, part in parts)


def extended(text: str, encodings: Sequence[str]) -> bytes | None:
    """`text` with code extensions, designated anew behind each character that ends them; None if the sets do not hold all of it."""
    encoded = b"".join(_designated(part, encodings) for part in _PARTS.split(text))
    return encoded if read_extended(encoded, encodings) == text else None


def _designated(text: str, encodings: Sequence[str]) -> bytes:
    if text.isascii():
        return text.encode("ascii")
    if _GB_2312 in encodings[1:]:
        try:
            return _DESIGNATES_GB_2312 + text.encode(_GB_2312)
        except UnicodeError:
            pass
    return encode_string(text, encodings)
