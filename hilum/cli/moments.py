"""Moments as people give them to a command: `2026-01-31`, `2026-01-31T18:00`, or how long ago: `30m`, `2h`, `3d`, `1w`."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from hilum.errors import Misconfigured

_AGO = re.compile(r"(\d{1,6})([mhdw])\Z")
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def moment_of(text: str, where: str, now: datetime | None = None) -> datetime | None:
    """The moment that `text`, given as `where`, stands for, on this machine's clock if it names no zone; None if it is empty.

    Raises `Misconfigured` if it is none.
    """
    if not text:
        return None
    try:
        if ago := _AGO.match(text):
            return (now or datetime.now(UTC)) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError):
        fix = "Write it as 2026-01-31, 2026-01-31T18:00, or as how long ago: 30m, 2h, 3d, 1w."
        raise Misconfigured("moment-invalid", f"{where}: {text!r} is no moment.", fix=fix) from None
