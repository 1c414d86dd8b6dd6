"""Delimiters and escape sequences (HL7 v2.5.1 2.5.4 and 2.7)."""

from __future__ import annotations

import re
from functools import lru_cache

from msgspec import Struct

#: Escape sequences of formatted text (2.7.6) that begin a new line.
_LINES = re.compile(r"\.(?:br|ce|sp(?P<lines>\d{0,2}))", re.IGNORECASE)
#: Those that only say how it looks, as do highlighting and its end (2.7.2).
_LOOKS = re.compile(r"\.(in|ti|sk|fi|nf)[+-]?\d*|[HN]", re.IGNORECASE)
_HEX = re.compile(r"X(?:[0-9A-Fa-f]{2})+")
#: HL7 keeps control characters out of its text; of what is escaped, only line ends and tabs mean something.
_CONTROLS = {0: None}


class Delimiters(Struct, frozen=True):
    """The characters that a message is built with, as its MSH-1 and MSH-2 say."""

    field: str = "|"
    component: str = "^"
    repetition: str = "~"
    escape: str = "\\"
    subcomponent: str = "&"
    #: From version 2.7 on (2.5.5.2); empty in most messages.
    truncation: str = ""

    @property
    def encoding(self) -> str:
        """MSH-2."""
        return self.component + self.repetition + self.escape + self.subcomponent + self.truncation

    def unescape(self, raw: str) -> str:
        """The value that `raw` stands for. What is no escape sequence stays as it is, and no result is looked at again."""
        escape = self.escape
        if not escape or escape not in raw:
            return raw
        return _sequences(escape).sub(lambda found: self._meaning(found[1], found[0]), raw)

    def escaped(self, value: str) -> str:
        """`value`, written so that `unescape` gives it back. Line ends become `\\X0D\\` and `\\X0A\\`."""
        written = _written(self)
        return "".join(written.get(character, character) for character in value)

    def _meaning(self, code: str, whole: str) -> str:
        value = _letters(self).get(code)
        if value is not None:
            return value
        if _HEX.fullmatch(code):
            return _from_hex(code[1:])
        if lines := _LINES.fullmatch(code):
            return "\n" * int(lines["lines"] or 1)
        if _LOOKS.fullmatch(code):
            return ""
        return whole


DEFAULT = Delimiters()


@lru_cache(maxsize=64)
def _letters(delimiters: Delimiters) -> dict[str, str]:
    return {
        "F": delimiters.field,
        "S": delimiters.component,
        "T": delimiters.subcomponent,
        "R": delimiters.repetition,
        "E": delimiters.escape,
        "P": delimiters.truncation or "#",
    }


@lru_cache(maxsize=64)
def _written(delimiters: Delimiters) -> dict[str, str]:
    escape = delimiters.escape
    if not escape:
        return {}
    letters = {value: f"{escape}{letter}{escape}" for letter, value in _letters(delimiters).items() if value and letter != "P"}
    if delimiters.truncation:
        letters[delimiters.truncation] = f"{escape}P{escape}"
    return {"\r": f"{escape}X0D{escape}", "\n": f"{escape}X0A{escape}"} | letters


@lru_cache(maxsize=64)
def _sequences(escape: str) -> re.Pattern[str]:
    """An escape sequence: on one line, so that a stray escape character does not swallow text."""
    one = re.escape(escape)
    return re.compile(f"{one}([A-Za-z.][^{one}\r\n]*){one}")


def _from_hex(digits: str) -> str:
    raw = bytes.fromhex(digits)
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    return text.translate(_CONTROLS)
