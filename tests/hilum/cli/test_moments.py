from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from hilum.cli.moments import moment_of
from hilum.errors import Misconfigured

NOW = datetime(2024, 2, 29, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "ago"),
    [("30m", timedelta(minutes=30)), ("2h", timedelta(hours=2)), ("3d", timedelta(days=3)), ("1w", timedelta(weeks=1))],
)
def test_how_long_ago_is_a_moment(text: str, ago: timedelta) -> None:
    assert moment_of(text, "--since", NOW) == NOW - ago


def test_a_moment_with_its_zone_is_that_moment() -> None:
    assert moment_of("2024-02-29T13:00+01:00", "--since") == NOW


def test_a_day_is_its_beginning_on_this_machine_s_clock() -> None:
    found = moment_of("2024-02-29", "--since")

    assert found is not None
    assert found == datetime(2024, 2, 29).astimezone()  # this machine's clock


def test_nothing_given_is_none() -> None:
    assert moment_of("", "--since") is None


@pytest.mark.parametrize("text", ["yesterday", "3x", "2024-13-01", "-1d", "99999999d", "999999w"])
def test_what_is_no_moment_is_refused_with_how_to_write_one(text: str) -> None:
    with pytest.raises(Misconfigured, match=r"--since: .* is no moment. Write it as"):
        moment_of(text, "--since")
