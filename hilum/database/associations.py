"""What the index knows of associations that peers asked for: by sender, and one by one."""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct

from hilum.database.found import rows
from hilum.events import ContextResult


class SenderSummary(Struct, frozen=True, kw_only=True):
    """A calling AE title, and what came of its associations, requests or files. Refused ones count too.

    Who gave no title is told apart by network address.
    """

    #: Empty if none was given that is one.
    calling_aet: str
    #: How it came in, see `hilum.events.Adapter`.
    adapters: list[str]
    #: Network addresses from which it called, without ports.
    peers: list[str]
    implementation_version_name: str | None
    #: With STOW-RS, requests; with a watched folder, files.
    associations: int
    refused: int
    objects: int
    size_bytes: int
    last_at: datetime
    #: Why its last association was refused; None if it was not.
    last_refused: str | None


class AssociationOfSender(Struct, frozen=True, kw_only=True):
    """One association that is over, or was refused. See `hilum.events.AssociationEnded`."""

    association: str
    calling_aet: str
    called_aet: str
    peer: str
    implementation_class_uid: str | None
    implementation_version_name: str | None
    max_pdu_bytes: int
    certificate: str | None
    contexts: list[ContextResult]
    refused: str | None
    ended: str
    objects: int
    size_bytes: int
    statuses: dict[str, int]
    opened_at: datetime
    ended_at: datetime
    adapter: str
    requests: int


_SENDERS = """
SELECT calling_aet, array_agg(DISTINCT adapter ORDER BY adapter) AS adapters, array_agg(DISTINCT peer ORDER BY peer) AS peers,
       (array_agg(implementation_version_name ORDER BY ended_at DESC) FILTER (WHERE implementation_version_name IS NOT NULL))[1]
           AS implementation_version_name,
       sum(requests)::bigint AS associations, coalesce(sum(requests) FILTER (WHERE refused IS NOT NULL), 0)::bigint AS refused,
       sum(objects)::bigint AS objects, sum(size_bytes)::bigint AS size_bytes,
       max(ended_at) AS last_at, (array_agg(refused ORDER BY ended_at DESC))[1] AS last_refused
FROM association GROUP BY calling_aet, CASE WHEN calling_aet = '' THEN peer END
ORDER BY last_at DESC, calling_aet, peers LIMIT %(limit)s
"""

_ASSOCIATIONS = """
SELECT association, calling_aet, called_aet, peer, implementation_class_uid, implementation_version_name, max_pdu_bytes, certificate,
       contexts, refused, ended, objects, size_bytes, statuses, opened_at, ended_at, adapter, requests
FROM association WHERE calling_aet = %(which)s OR association = %(which)s OR (calling_aet = '' AND peer = %(which)s)
ORDER BY ended_at DESC, association LIMIT %(limit)s
"""


def list_senders(dsn: str, *, limit: int = 1000) -> list[SenderSummary]:
    """Every calling AE title that has asked for an association, the last one first."""
    return rows(dsn, SenderSummary, _SENDERS, {"limit": limit})


def associations_of(dsn: str, which: str, *, limit: int = 20) -> list[AssociationOfSender]:
    """The last associations of a calling AE title, or of an address without one, or the one with this id; the latest first."""
    return rows(dsn, AssociationOfSender, _ASSOCIATIONS, {"which": which, "limit": limit})
