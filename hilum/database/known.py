"""What the index knows of instances that were decided on before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import psycopg
from msgspec import Struct

from hilum.errors import TryAgain
from hilum.settings import Settings


class Decided(Struct, frozen=True, kw_only=True):
    """One receipt of an instance, and which object it brought (SHA-256 of the data set)."""

    receipt: str
    sha256: str


class IndexedInstances:
    """Looks instances up in the index, with a connection of its own that is opened again after an outage."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._connection: psycopg.Connection | None = None

    def decided(self, sop_instance_uids: Sequence[str]) -> Mapping[str, tuple[Decided, ...]]:
        """Receipts of these instances whose decision is known and not "duplicate", first received first.

        Raises `TryAgain` while PostgreSQL is away.
        """
        found: dict[str, tuple[Decided, ...]] = {}
        try:
            if self._connection is None or self._connection.closed:
                self._connection = psycopg.connect(self._settings.postgres.dsn, autocommit=True, connect_timeout=5)
            rows = self._connection.execute(
                "SELECT sop_instance_uid, receipt, sha256 FROM receipt WHERE sop_instance_uid = ANY(%s)"
                " AND decision IS NOT NULL AND decision <> 'duplicate' ORDER BY received_at, receipt",
                (list(sop_instance_uids),),
            )
            for uid, receipt, sha256 in rows:
                found[uid] = (*found.get(uid, ()), Decided(receipt=receipt, sha256=sha256))
        except psycopg.OperationalError as error:
            self._connection = None
            raise TryAgain(f"PostgreSQL cannot be asked ({type(error).__name__}).") from None
        return found
