"""Dates in their usual forms: as a pattern for one day, and all those that a text may say, whosever they are."""

from __future__ import annotations

import calendar
import re
from collections.abc import Iterable, Iterator
from datetime import date
from functools import lru_cache
from typing import Any

import re2

#: Names of months in languages of Europe, folded.
_MONTHS = (
    "jan january januar janner jaenner janvier janv enero ene gennaio gen janeiro januari stycznia",
    "feb february februar feber fevrier fevr febrero febbraio fevereiro fev februari lutego",
    "mar march marz maerz mrz mars marzo marco maart marts marca",
    "apr april avr avril abr abril aprile kwietnia",
    "may mai mayo maggio mag maio mei maj maja",
    "jun june juni juin junio giugno giu junho czerwca",
    "jul july juli juil juillet julio luglio lug julho lipca",
    "aug august aout ago agosto augustus augusti sierpnia",
    "sep sept september septembre septiembre setiembre settembre setembro set wrzesnia",
    "oct october okt oktober octobre octubre ottobre ott outubro out pazdziernika",
    "nov november novembre noviembre novembro listopada",
    "dec december dez dezember decembre dic diciembre dicembre dezembro desember grudnia",
)
_MONTH_OF = {name.encode(): number for number, names in enumerate(_MONTHS, 1) for name in names.split()}
#: Numbers, and where names of months begin.
_NAMES = "|".join(sorted((name for names in _MONTHS for name in names.split()), key=len, reverse=True))
#: What stands between the parts of a date.
_APART = r"(?: ?[\-/._,:] ?| )"
#: Digits that a year, a month or a day by itself has.
_LENGTHS = (1, 2, 4)
_PARTS = re.compile(f"([0-9]+)|(?=({_NAMES}))[a-z]".encode("ascii"))


def day_key(day: date) -> int:
    """A day without its century, which dates do not always say."""
    return _key(day.year, day.month, day.day)


def _key(year: int, month: int, day: int) -> int:
    return (year % 100 * 100 + month) * 100 + day


def _date_pattern(
    *, year: str, year_of_two: str, month: str, day: str, loose_month: str, loose_day: str, month_name: str, compact: bool
) -> str:
    """One pattern for dates in their usual forms, of the patterns for their parts.

    Year first, day first and month first, with separators; with the name of the month; and as the beginning of a DT or of an ISO time;
    with `compact`, as eight digits in other orders as well, and with two digits of the year in more ways.
    """
    y, yy, m, d, loose_m, loose_d = year, year_of_two, month, day, loose_month, loose_day
    forms = [
        f"{y}{m}{d}(?:[0-9]{{2,6}})?",
        f"{y}{_APART}{loose_m}{_APART}{loose_d}",
        f"(?:{loose_d}{_APART}{loose_m}|{loose_m}{_APART}{loose_d}){_APART}{y}",
        *(f"(?:{d}{sep}{m}|{m}{sep}{d}){sep}{yy}" for sep in ("/", r"\.", "-")),
        rf"{loose_d}(?:st|nd|rd|th|er|o)?\.?[ \-/_]?(?:de |of )?{month_name}\.?,?[ \-/_]?(?:del? )?(?:{y}|'?{yy})",
        rf"{month_name}\.?[ \-/_]?{loose_d}(?:st|nd|rd|th)?,?(?:[ \-/_]?{y}|[ \-/_]'?{yy})",
        rf"{y}[ \-/_]?{month_name}[ \-/_]?{loose_d}",
        rf"{y}\xe5\xb9\xb4{loose_m}\xe6\x9c\x88{loose_d}\xe6\x97\xa5",
    ]
    if compact:
        forms += [f"{d}{m}{y}", f"{m}{d}{y}", *(f"{yy}{sep}{m}{sep}{d}" for sep in ("/", r"\.", "-"))]
        forms += [rf"{loose_d}[/.]{loose_m}[/.]{yy}|{loose_m}/{loose_d}/{yy}"]
    return f"(?:^|[^0-9])(?:{'|'.join(forms)})(?:[^0-9]|$)"


@lru_cache(maxsize=1024)
def date_forms(day: date, *, compact: bool) -> str:
    """One pattern for a day in its usual forms; with `compact`, as eight digits in other orders as well, and more."""
    year, month, number = f"{day.year:04d}", f"{day.month:02d}", f"{day.day:02d}"
    return _date_pattern(
        year=year,
        year_of_two=year[2:],
        month=month,
        day=number,
        loose_month=f"0?{day.month}" if day.month < 10 else month,
        loose_day=f"0?{day.day}" if day.day < 10 else number,
        month_name=f"(?:{_MONTHS[day.month - 1].replace(' ', '|')})",
        compact=compact,
    )


@lru_cache(maxsize=1)
def _any_date() -> Any:
    """A pattern for whatever `date_forms` can be of any day."""
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.never_capture = True
    pattern = _date_pattern(
        year="(?:1[89]|[2-9][0-9])[0-9][0-9]",
        year_of_two="[0-9][0-9]",
        month="(?:0[1-9]|1[0-2])",
        day="(?:0[1-9]|[12][0-9]|3[01])",
        loose_month="(?:0?[1-9]|1[0-2])",
        loose_day="(?:0?[1-9]|[12][0-9]|3[01])",
        month_name=f"(?:{_NAMES})",
        compact=True,
    )
    return re2.compile(pattern.encode("ascii"), options)


def days_said(text: bytes) -> frozenset[int]:
    """The days of all that may be a date in a folded text, and of some that is none."""
    if _any_date().search(text) is None:
        return frozenset()
    said: set[int] = set()
    # Numbers, one after the other, and the months whose names stand between one and the one before; some names are in others.
    numbers: list[bytes] = []
    before: list[list[int]] = [[]]
    for number, name in _PARTS.findall(text):
        if number:
            numbers.append(number)
            before.append([])
        else:
            before[-1].append(_MONTH_OF[name])
    lengths = [len(number) for number in numbers]
    may_be_part = [length in _LENGTHS for length in lengths]
    for at, length in enumerate(lengths):
        if length > _LENGTHS[-1]:
            said.update(_within(numbers[at], before[at]))
            continue
        if not may_be_part[at] or (at + 1 < len(lengths) and not may_be_part[at + 1]):
            continue
        first, *more = map(int, numbers[at : at + 3])
        if more:
            said |= {
                _key(year, month, day) for month in (*before[at], *before[at + 1]) for year, day in ((first, more[0]), (more[0], first))
            }
        if len(more) > 1 and may_be_part[at + 2]:
            second, third = more
            said |= {_key(first, second, third), _key(third, second, first), _key(third, first, second)}
    return frozenset(said)


def _within(number: bytes, months: Iterable[int]) -> Iterator[int]:
    """The days that a number of more than four digits may say, behind the names of these months."""
    if 8 <= len(number) <= 14:
        year, one, other = (int(number[begin:end]) for begin, end in ((0, 4), (4, 6), (6, 8)))
        yield _key(year, one, other)
        one, other, year = (int(number[begin:end]) for begin, end in ((0, 2), (2, 4), (4, 8)))
        yield _key(year, one, other)
        yield _key(year, other, one)
    elif len(number) <= 6:  # `may 52004`
        for month in months:
            yield _key(int(number[-4:]), month, int(number[:-4]))


@lru_cache(maxsize=4096)
def day_of(raw: bytes) -> date | None:
    """The day of a DA or DT, None if it is none or a stand-in for one."""
    text = raw[:10].decode("latin-1").replace(".", "") if raw[4:5] == b"." else raw[:8].decode("latin-1")
    if len(text) != 8 or not text.isdigit() or not text.isascii():
        return None
    year, month, day = int(text[:4]), int(text[4:6]), int(text[6:])
    if year < 1850 or not 1 <= month <= 12 or not 1 <= day <= calendar.monthrange(year, month)[1] or text in ("19000101", "99991231"):
        return None
    return date(year, month, day)


@lru_cache(maxsize=4096)
def written(day: date) -> bytes:
    """A day as a DA (PS3.5 6.2)."""
    return f"{day.year:04d}{day.month:02d}{day.day:02d}".encode()
