"""Hours of the week in which something may be done, as a person writes them: `Mo-Fr 18:00-07:00; Sa,Su 00:00-24:00`.

A span that ends before it begins goes on into the next day. Without hours, it is always time.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from msgspec import Struct

DAYS = ("Mo", "Tu", "We", "Th", "Fr", "Sa", "Su")
_DAY_MINUTES = 24 * 60
_SPAN = re.compile(r"(?:(?P<days>[A-Za-z ,-]+?)\s+)?(?P<begin>\d{1,2}:\d\d)\s*-\s*(?P<end>\d{1,2}:\d\d)\Z")
_SHOULD = "Write hours as `Mo-Fr 18:00-07:00; Sa,Su 00:00-24:00`."


class Span(Struct, frozen=True):
    """Minutes of a day, on some days; those from 24:00 on are of the next day."""

    days: frozenset[int]
    begin: int
    end: int


class Hours(Struct, frozen=True):
    """Spans of the week in one time zone; none: always."""

    spans: tuple[Span, ...] = ()
    zone: tzinfo | None = None

    @classmethod
    def read(cls, text: str, zone: str = "") -> Hours:
        """What `text` says, on the clock of `zone` (this machine's, if empty). Raises `ValueError` that says how to write it."""
        spans = tuple(_span(part.strip()) for part in text.split(";") if part.strip())
        try:
            return cls(spans, ZoneInfo(zone) if zone else None)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError(f"{zone!r} is no time zone that this machine knows; write it as `Europe/Vienna`") from None

    def is_open(self, now: datetime) -> bool:
        """Whether it is time at `now`, a moment with a time zone."""
        local = now.astimezone(self.zone)
        minute = local.hour * 60 + local.minute
        return not self.spans or any(_within(span, local.weekday(), minute) for span in self.spans)

    def opens_at(self, now: datetime) -> datetime | None:
        """The next whole minute from `now` on at which it is time; None if there is none within eight days."""
        if self.is_open(now):
            return now
        at = now.replace(second=0, microsecond=0)
        for _ in range(8 * _DAY_MINUTES):
            at += timedelta(minutes=1)
            if self.is_open(at):
                return at
        return None


def _within(span: Span, day: int, minute: int) -> bool:
    return (day in span.days and span.begin <= minute < span.end) or (
        (day - 1) % 7 in span.days and span.begin <= minute + _DAY_MINUTES < span.end
    )


def _span(text: str) -> Span:
    found = _SPAN.match(text)
    if found is None:
        raise ValueError(f"{text!r} is no span of hours. {_SHOULD}")
    begin, end = _minutes(found["begin"]), _minutes(found["end"])
    if begin in (end, _DAY_MINUTES):
        raise ValueError(f"{text!r} has no length. {_SHOULD}")
    return Span(_days(found["days"] or "Mo-Su"), begin, end if end > begin else end + _DAY_MINUTES)


def _minutes(text: str) -> int:
    hour, _, minute = text.partition(":")
    minutes = int(hour) * 60 + int(minute)
    if int(minute) > 59 or minutes > _DAY_MINUTES:
        raise ValueError(f"{text} is no time of day. {_SHOULD}")
    return minutes


def _days(text: str) -> frozenset[int]:
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = (each.strip() for each in part.partition("-"))
        begin, end = _day(first), _day(last or first)
        found |= {(begin + n) % 7 for n in range((end - begin) % 7 + 1)}
    return frozenset(found)


def _day(name: str) -> int:
    if name.title() not in DAYS:
        raise ValueError(f"{name!r} is no day; days are {', '.join(DAYS)}")
    return DAYS.index(name.title())
