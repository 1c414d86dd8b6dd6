"""Text of an object, by the character set that it names (PS3.3 C.12.1.1.2), and by no other: what does not decode holds the object."""

from __future__ import annotations

import re
from functools import lru_cache

from hilum.dicom.values import decoded, encodings_of
from hilum.dicom.writing import CharacterSet, character_set
from processors.anonymize.held import Held, HeldReason, shown

_FIX = "Have SpecificCharacterSet corrected at the sender, or set `character_set` in the policy if it is left out there."
#: Encodings of one byte a character, in which bytes of UTF-8 read as something, too.
_SINGLE = re.compile(r"(iso8859|latin|iso_8859|iso_ir_166|tis_620|cp1252)", re.IGNORECASE)
#: What is no character of text (PS3.5 6.1.2.3, 6.1.3).
CONTROLS = re.compile("[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f\x7f-\x9f]")


class Charset:
    """How text of one data set, or of one item of a sequence, is encoded."""

    __slots__ = ("_encodings", "_named", "_set", "_single")

    def __init__(self, value: bytes, assumed: str = "") -> None:
        """`value` is that of (0008,0005), `b""` if there is none; `assumed` what then holds. Raises `Held` for an unknown term."""
        terms = tuple(term.strip(" \0") for term in value.decode("latin-1").split("\\"))
        if not any(terms):
            terms = (assumed,)
        found = character_set(*terms)
        if found is None:
            raise Held(
                HeldReason.CHARACTER_SET, "It names a character set that is no term of PS3.3 C.12.1.1.2.", fix=_FIX, place="(0008,0005)"
            )
        self._set: CharacterSet = found
        self._named = found.terms != ("",)
        self._encodings = encodings_of("\\".join(terms).encode("latin-1"))
        self._single = len(terms) == 1 and _SINGLE.match(self._encodings[0]) is not None

    def text(self, raw: bytes, tag: int) -> str:
        """The value `raw` of element `tag` as text. Raises `Held` if it is not of this character set, without guessing another one."""
        if raw.isascii() and b"\x1b" not in raw:
            return raw.decode("ascii")
        if not self._named:
            raise Held(
                HeldReason.CHARACTER_SET, "Text outside ASCII, and no SpecificCharacterSet to read it by.", fix=_FIX, place=shown(tag)
            )
        text = decoded(raw, self._encodings)
        if "\ufffd" in text or "\x1b" in text or CONTROLS.search(text.replace("\0", "")):
            raise Held(HeldReason.CHARACTER_SET, "Text that is not of the character set that it is said to be.", fix=_FIX, place=shown(tag))
        if self._single and _is_utf8(raw):
            raise Held(HeldReason.CHARACTER_SET, "Text in UTF-8 that is said to be of another character set.", fix=_FIX, place=shown(tag))
        return text

    def for_people(self, raw: bytes) -> str:
        """`raw` as far as it can be read, for a preview."""
        return decoded(raw, self._encodings)

    def bytes(self, text: str) -> bytes:
        """`text` encoded; what the set does not hold becomes a question mark."""
        if text.isascii():
            return text.encode("ascii")
        encoded = self._set.encode(text)
        return encoded if encoded is not None else text.encode("ascii", "replace")


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


@lru_cache(maxsize=64)
def charset(value: bytes, assumed: str = "") -> Charset:
    """See `Charset`."""
    return Charset(value, assumed)
