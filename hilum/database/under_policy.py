"""Deliveries that were entered to leave de-identified: what waits remembers it, whatever becomes of the destination's policy.

The row's `under_policy` is set as it is entered, by the policy that its destination has then; again as a worker claims it; and here, of
what an earlier release entered, or what was entered before there was a policy. `identified` is a person's decision that it leaves as it
is where there is no policy; a policy ends it.
"""

from __future__ import annotations

from typing import Any

import psycopg
from msgspec import Struct

from hilum.database.found import rows

# What a worker has in its hands meanwhile is remembered by its claim.
_REMEMBER = """
    WITH waiting AS (
        SELECT delivery_id FROM delivery
        WHERE destination = %(destination)s AND state IN ('pending', 'parked') AND (under_policy IS NULL OR identified)
        FOR UPDATE SKIP LOCKED)
    UPDATE delivery d SET under_policy = %(policy)s, identified = false FROM waiting WHERE d.delivery_id = waiting.delivery_id
"""


def remember(connection: psycopg.Connection[Any], destination: str, policy: str) -> None:
    """What waits for a destination that has a policy is to leave by one. Raises one of `AWAY`."""
    connection.execute(_REMEMBER, {"destination": destination, "policy": policy})


class _Project(Struct, frozen=True):
    project: str


def projects(dsn: str, policy: str) -> list[str]:
    """The projects that a policy ever had, and its own name, which is its project unless it says another. Raises `TryAgain`."""
    found = rows(dsn, _Project, "SELECT project FROM policy_project WHERE policy = %(policy)s", {"policy": policy})
    return sorted({policy, *(each.project for each in found)})
