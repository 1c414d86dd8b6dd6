"""What must be in a text for a form to be in it: found out quickly, without a pattern that would first have to be compiled.

Two things of a text tell. Bared of all but letters and digits, it holds the letters and digits of each form that is in it, whatever
stands between them there; and of all dates it says the days are known, whosever they are. Both are of the text alone, so that they are
made once of a passage that stands in the objects of many patients.
"""

from __future__ import annotations

from msgspec import Struct

from processors.anonymize.verify.dates import days_said

#: A longer text is searched with all forms at once, which a pattern does better the longer it is.
LONG_BYTES = 16 * 1024

#: What a text is bared of: patterns have it between the parts of a form, and in it, but not in its letters.
_NO_LETTERS = bytes(each for each in range(0x80) if not (0x30 <= each <= 0x39 or 0x61 <= each <= 0x7A))


class Searched(Struct, frozen=True):
    """A folded text as it is searched."""

    text: bytes
    #: Its letters and digits; `b""` if it is long.
    bare: bytes
    #: The days of all that may be a date in it, as `day_key` has them; empty if it is long.
    days: frozenset[int]

    @classmethod
    def of(cls, text: bytes) -> Searched:
        """`text`, which is folded (see `folding`)."""
        if not text:
            return _NOTHING
        if len(text) > LONG_BYTES:
            return cls(text, b"", frozenset())
        return cls(text, bared(text), days_said(text) | days_said(text.replace(b"\0", b"")) if b"\0" in text else days_said(text))

    @classmethod
    def joined(cls, some: list[Searched]) -> Searched:
        """Several texts as one, in which nothing goes from one over to the next."""
        some = [each for each in some if each.text]
        if len(some) < 2:
            return some[0] if some else _NOTHING
        return cls(
            b"\x01".join([each.text for each in some]),
            b"\x01".join([each.bare for each in some]),
            frozenset().union(*[each.days for each in some]),
        )

    def without_nul(self) -> Searched:
        """The text without padding, as of letters of two bytes."""
        text = self.text.replace(b"\0", b"")
        return Searched.of(text) if self.is_long else Searched(text, self.bare, self.days)  # `days` are of both

    @property
    def is_long(self) -> bool:
        """Whether it is to be searched with patterns alone."""
        return len(self.text) > LONG_BYTES


_NOTHING = Searched(b"", b"", frozenset())


def bared(text: bytes) -> bytes:
    """The lower-case letters and digits of a text in UTF-8, what is not ASCII included."""
    return text.translate(None, _NO_LETTERS)
