"""Forms in which a birth date is written and the dates of a study hardly are: six digits, and the month in Roman numerals."""

from __future__ import annotations

from processors.anonymize.verify.forms import Form

_ROMAN = ("i", "ii", "iii", "iv", "v", "vi", "vii", "viii", "ix", "x", "xi", "xii")
_ROMAN_IN_BYTES = tuple(each.encode() for each in _ROMAN)


def birth_forms(written: bytes) -> tuple[Form, ...]:
    """Patterns for a day, as a DA has it, besides those that are looked for of every date."""
    year, short, month, day = written[:4], written[2:4], written[4:6], written[6:8]
    compact = (short + month + day, day + month + short, month + day + short)
    with_roman = _ROMAN_IN_BYTES[int(month) - 1] + year
    return (
        Form(compact, _compact, compact),
        Form((day + with_roman, day.lstrip(b"0") + with_roman), _with_roman, (int(day), int(month), int(year))),
    )


def _compact(*digits: bytes) -> str:
    some = "|".join(each.decode() for each in digits)
    return f"(?:^|[^0-9.,])(?:{some})(?:[^0-9.,]|[.,](?:[^0-9]|$)|$)"


def _with_roman(day: int, month: int, year: int) -> str:
    number = f"0?{day}" if day < 10 else str(day)
    return rf"(?:^|[^0-9]){number}[ ./\-]{{1,2}}{_ROMAN[month - 1]}[ ./\-]{{1,2}}{year:04d}(?:[^0-9]|$)"
