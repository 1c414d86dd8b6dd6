"""Which destinations keep the originals themselves."""

from __future__ import annotations

from hilum.settings import Settings


def in_place(settings: Settings) -> frozenset[str]:
    """The names of the destinations that adopt originals in place, and of groups that have such a member.

    What such a destination has got stays known by the ledger, also after the destination is gone.
    """
    archives = {
        name
        for name, table in settings.destinations.items()
        if table.get("type") == "archive" and not table.get("endpoint") and table.get("bucket", "") in ("", settings.s3.bucket)
    }
    groups = {
        name for name, table in settings.destinations.items() if table.get("type") == "group" and archives & set(table.get("members", ()))
    }
    return frozenset(archives | groups)
