"""Values as a preview shows them to a person."""

from __future__ import annotations

import struct

from processors.anonymize.charsets import Charset

#: Longer ones are told by their size.
LONGEST = 200
_MOST_NUMBERS = 16
_NUMBERS = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "UV": "Q", "SV": "q", "FL": "f", "FD": "d"}


def printable(raw: bytes, vr: str, text: Charset, *, big_endian: bool = False) -> str:
    """A value for people: text as it is decoded, numbers, tags; of what is neither, or too long, its size.

    `vr` may be of the dictionary, as `US or SS`: then the first one is taken.
    """
    vr = vr.partition(" ")[0]
    order = ">" if big_endian else "<"
    if vr == "AT" and 0 < len(raw) <= 4 * _MOST_NUMBERS and len(raw) % 4 == 0:
        return " ".join(f"({group:04X},{element:04X})" for group, element in struct.iter_unpack(f"{order}HH", raw))
    code = _NUMBERS.get(vr)
    if code is not None:
        size = struct.calcsize(f"{order}{code}")
        if len(raw) % size == 0 and len(raw) <= size * _MOST_NUMBERS:
            return "\\".join(f"{number:g}" if code in "fd" else str(number) for (number,) in struct.iter_unpack(f"{order}{code}", raw))
        return f"{len(raw)} bytes"
    bare = raw.rstrip(b" \0")
    if len(bare) > LONGEST or any(byte < 0x20 and byte not in b"\r\n\t\f\x1b" for byte in bare):
        return f"{len(raw)} bytes"
    return text.for_people(bare)
