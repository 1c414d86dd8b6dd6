"""What the index knows of instances that were decided on before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import psycopg
from msgspec import Struct

from hilum.errors import TryAgain
from hilum.settings import Settings


class Decided(Struct, frozen=True, kw_only=True):
    """What was decided on an instance: of which receipts, which object they brought (SHA-256 of the data set), and which deliveries."""

    #: Those with a decision other than "duplicate", first received first.
    receipts: tuple[str, ...]
    sha256: str
    #: Ids of all deliveries that were ever planned.
    deliveries: tuple[str, ...] = ()

    def following(self, receipt: str, deliveries: Iterable[str]) -> Decided:
        """With one more receipt, and what was planned for it."""
        return Decided(receipts=(*self.receipts, receipt), sha256=self.sha256, deliveries=(*self.deliveries, *deliveries))


class IndexedInstances:
    """Looks instances up in the index, with a connection of its own that is opened again after an outage."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._connection: psycopg.Connection | None = None

    def decided(self, sop_instance_uids: Sequence[str]) -> Mapping[str, Decided]:
        """What was decided on these instances, as far as the index has it; the object is that of the first receipt.

        Raises `TryAgain` while PostgreSQL is away.
        """
        found: dict[str, Decided] = {}
        try:
            if self._connection is None or self._connection.closed:
                self._connection = psycopg.connect(self._settings.postgres.dsn, autocommit=True, connect_timeout=5)
            rows = self._connection.execute(
                "SELECT sop_instance_uid, receipt, sha256, delivery_ids FROM receipt WHERE sop_instance_uid = ANY(%s)"
                " AND decision IS NOT NULL AND decision <> 'duplicate' ORDER BY received_at, receipt",
                (list(sop_instance_uids),),
            )
            for uid, receipt, sha256, deliveries in rows:
                known = found.get(uid) or Decided(receipts=(), sha256=sha256)
                found[uid] = known.following(receipt, deliveries or ())
        except psycopg.OperationalError as error:
            self._connection = None
            raise TryAgain(f"PostgreSQL cannot be asked ({type(error).__name__}).") from None
        return found
