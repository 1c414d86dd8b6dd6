"""What an answer says of a service as a whole: what to do about it, and how long to leave it alone."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

#: Longest time that a service may ask Hilum to wait (Retry-After, RFC 9110 10.2.3).
LONGEST_WAIT_S = 3600.0
_DEFAULT_WAIT_S = 5.0
#: What to do about an answer that concerns the service as a whole.
FIXES = {
    301: "It is elsewhere: set `url` to where it is.",
    302: "It is elsewhere: set `url` to where it is.",
    307: "It is elsewhere: set `url` to where it is.",
    308: "It is elsewhere: set `url` to where it is.",
    401: "Check `username` and `password`, `token` or `token_file`.",
    403: "Ask its administrator to let these credentials store.",
    404: "Check that `url` is what comes before /studies.",
    405: "Check that `url` is what comes before /studies, and that the service takes STOW-RS.",
    407: "A proxy is between that wants credentials.",
    501: "The service takes no STOW-RS.",
    502: "What is in front of the service does not reach it.",
    504: "What is in front of the service does not reach it.",
}


def retry_after_s(value: str) -> float:
    """Seconds to wait by Retry-After: a number or a date (RFC 9110 10.2.3)."""
    try:
        wait_s = float(value) if value.strip().isdecimal() else (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds()
    except (ValueError, TypeError):
        wait_s = _DEFAULT_WAIT_S
    return min(LONGEST_WAIT_S, max(0.0, wait_s))
