from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hilum.hours import Hours

#: A Monday.
MONDAY = datetime(2024, 2, 26, tzinfo=UTC)


def at(day: int, hour: int, minute: int = 0) -> datetime:
    return MONDAY + timedelta(days=day, hours=hour, minutes=minute)


@pytest.mark.parametrize(
    ("text", "moment", "is_open"),
    [
        ("", at(0, 3), True),
        ("Mo-Fr 18:00-07:00", at(0, 17, 59), False),
        ("Mo-Fr 18:00-07:00", at(0, 18), True),
        ("Mo-Fr 18:00-07:00", at(0, 3), False),  # Sunday's night
        ("Mo-Fr 18:00-07:00", at(5, 6, 59), True),  # Friday's night
        ("Mo-Fr 18:00-07:00", at(5, 7), False),
        ("Sa,Su 00:00-24:00", at(6, 23, 59), True),
        ("Sa,Su 00:00-24:00", at(0, 0), False),
        ("Sa-Mo 08:00-09:00", at(0, 8), True),
        ("22:00-06:00", at(3, 5), True),
        ("mo 08:00-09:00; tu 10:00-11:00", at(1, 10, 30), True),
    ],
)
def test_hours_are_open_when_they_say_so(text: str, moment: datetime, is_open: bool) -> None:
    assert Hours.read(text, "UTC").is_open(moment) is is_open


def test_hours_are_those_of_their_time_zone() -> None:
    assert Hours.read("18:00-19:00", "America/New_York").is_open(at(0, 23, 30))  # UTC-5 in February


def test_the_next_opening_is_told() -> None:
    assert Hours.read("Mo-Fr 18:00-07:00", "UTC").opens_at(at(5, 7, 30)) == at(7, 18)


@pytest.mark.parametrize(
    "text", ["always", "Mo-Fr", "Mx 08:00-09:00", "Mo 25:00-26:00", "Mo 08:60-09:00", "Mo 08:00-08:00", "Mo 24:00-03:00"]
)
def test_what_says_no_hours_is_refused_in_words(text: str) -> None:
    with pytest.raises(ValueError, match=r"no day|no span|no time|no length"):
        Hours.read(text)


def test_a_time_zone_that_nobody_knows_is_refused() -> None:
    with pytest.raises(ValueError, match="no time zone"):
        Hours.read("08:00-09:00", "Mars/Olympus")


@given(
    st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6), st.integers(0, 1439), st.integers(1, 1440)), min_size=1, max_size=3),
    st.integers(0, 7 * 1440 - 1),
)
def test_what_opens_next_is_open_and_nothing_before_it_is(spans: list[tuple[int, int, int, int]], minute: int) -> None:
    days = ("Mo", "Tu", "We", "Th", "Fr", "Sa", "Su")
    written = "; ".join(
        f"{days[a]}-{days[b]} {begin // 60:02}:{begin % 60:02}-{end // 60:02}:{end % 60:02}" for a, b, begin, end in spans if begin != end
    )
    hours, now = Hours.read(written, "UTC"), MONDAY + timedelta(minutes=minute)
    opens = hours.opens_at(now)

    assert opens is not None
    assert hours.is_open(opens)
    assert opens == now or not hours.is_open(opens - timedelta(minutes=1))
