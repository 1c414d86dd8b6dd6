"""Why an original is not there."""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct

from hilum.database.found import rows
from hilum.events import ObjectRef

_WHY = "SELECT policy, decided_by, decided_at FROM expiry WHERE bucket = %(bucket)s AND object_key = %(key)s"


class _Expired(Struct, frozen=True):
    policy: str
    decided_by: str
    decided_at: datetime


def why_gone(dsn: str, ref: ObjectRef) -> str:
    """When and by which term an original expired, in a sentence; empty if it did not. Raises `TryAgain`, `Misconfigured`."""
    for found in rows(dsn, _Expired, _WHY, {"bucket": ref.bucket, "key": ref.key}):
        return (
            f"The original expired on {found.decided_at:%Y-%m-%d} by {found.policy} ({found.decided_by}): its bytes are not kept any more."
        )
    return ""
