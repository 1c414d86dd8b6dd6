"""The settings that decide pseudonyms and dates beside policy and key: every machine must have those by which objects left before.

Under a key the first machine that delivers puts down its own. Another one, or the same one later, lets nothing out by others until an
administrator accepts them; then those hold, and a machine that still has the former ones lets nothing out.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec
import psycopg
from msgspec import Struct

from hilum.database import AWAY, away, connect
from hilum.database.found import rows
from hilum.deid_sections import Deid
from hilum.errors import Misconfigured

#: Who put down what a machine had first.
FIRST = "the first machine"
_IN_FORCE = "SELECT settings_id, said FROM deid_settings WHERE key_id = %(key_id)s ORDER BY accepted_at DESC LIMIT 1"
_ALONE = "SELECT pg_advisory_xact_lock(hashtext('hilum.deid_settings'))"
_PUT = """
    INSERT INTO deid_settings (key_id, settings_id, said, accepted_by, why)
    VALUES (%(key_id)s, %(settings_id)s, %(said)s::jsonb, %(by)s, %(why)s)
"""


class Accepted(Struct, frozen=True, kw_only=True):
    """Settings that held under a key, from a moment on until the next ones."""

    key_id: str
    settings_id: str
    said: dict[str, Any]
    accepted_at: datetime
    accepted_by: str
    why: str


def check(connection: psycopg.Connection[Any], key_id: str, deid: Deid) -> None:
    """Raise `Misconfigured` if objects leave under this key by other settings; where none ever did, these are put down.

    Raises one of `AWAY`.
    """
    found = _in_force(connection, key_id)
    if found is None:
        with connection.transaction():
            connection.execute(_ALONE)
            found = _in_force(connection, key_id)
            if found is None:
                connection.execute(_PUT, _values(key_id, deid, FIRST, ""))
                return
    if found[0] != deid.settings_id:
        raise Misconfigured(
            "settings-differ",
            f"Objects leave under the key {key_id} by other settings, and by those of this machine patients would get other pseudonyms or "
            f"dates: {differences(found[1], deid)}. Nothing leaves.",
            fix="Set them here as they were; or, if they are to change for all that leaves from now on, set them on every machine, then: "
            "hilum deid settings accept --why",
        )


def differences(said: Mapping[str, Any], deid: Deid) -> str:
    """Which settings are others than `said`, in words; empty if none is."""
    told = []
    for name, value in deid.deciding.items():
        if said.get(name) == value:
            continue
        if isinstance(value, dict):
            told.append(f"deid.{name} is another list")
        else:
            told.append(f"deid.{name} is {value!r} and was {said.get(name)!r}")
    return ", ".join(told)


def accept(dsn: str, key_id: str, deid: Deid, *, by: str, why: str) -> None:
    """From now on these settings hold under this key. Raises `TryAgain`."""
    try:
        with connect(dsn, name="hilum settings") as connection, connection.transaction():
            connection.execute(_ALONE)
            connection.execute(_PUT, _values(key_id, deid, by, why))
    except AWAY as error:
        raise away(dsn, error) from None


def listed(dsn: str, key_id: str = "", settings_id: str = "") -> list[Accepted]:
    """What held, oldest first: under a key or all, and only with this id if one is given. Raises `TryAgain`, `Misconfigured`."""
    statement = """
        SELECT * FROM deid_settings WHERE %(key_id)s IN ('', key_id) AND %(settings_id)s IN ('', settings_id) ORDER BY key_id, accepted_at
    """
    return rows(dsn, Accepted, statement, {"key_id": key_id, "settings_id": settings_id})


def _in_force(connection: psycopg.Connection[Any], key_id: str) -> tuple[str, dict[str, Any]] | None:
    return connection.execute(_IN_FORCE, {"key_id": key_id}).fetchone()


def _values(key_id: str, deid: Deid, by: str, why: str) -> dict[str, Any]:
    said = msgspec.json.encode(deid.deciding).decode()
    return {"key_id": key_id, "settings_id": deid.settings_id, "said": said, "by": by, "why": why}
