"""Enter every decision into the ledger: one row a delivery, from which the destination's workers take it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import UTC, datetime

import psycopg

from hilum import bus
from hilum.database.cancelling import cancel, unsettled
from hilum.database.deliveries import CHANNEL, THERE, DeliveryRow
from hilum.database.rows import Insert
from hilum.events import InstanceRouted
from hilum.role import Role
from hilum.runtime.tables import Envelope, TableRole
from hilum.settings import Settings
from hilum.storage.records import EXPIRED, SHARED_LOCK

_insert = Insert("delivery", DeliveryRow, "ON CONFLICT (delivery_id) DO NOTHING")
_HURRY = """
    UPDATE delivery d SET priority = urgent.priority FROM urgent_study AS urgent
    WHERE d.delivery_id = ANY(%s) AND urgent.study_instance_uid = d.study_instance_uid AND d.priority < urgent.priority
"""
# One whose own arrival the decision did not know came again: the index may not have it yet.
_EXPIRED = f"""
    SELECT d.delivery_id, x.decided_at, x.policy
    FROM delivery AS d JOIN expiry AS x ON x.bucket = d.bucket AND x.object_key = d.object_key
    WHERE d.delivery_id = ANY (%s) AND d.state = 'pending' AND d.receipt = ANY (x.receipts) AND {EXPIRED.format("d")}
"""  # noqa: S608  # constants
# The destination got another object under this UID, or it was tried, and this one it has not got yet. So that a worker's hands count, this
# comes after what takes the first back.
_REPLACES = """
    UPDATE delivery d SET replaces = true
    WHERE d.delivery_id = ANY(%(ids)s) AND EXISTS (
        SELECT FROM delivery AS first
        WHERE first.sop_instance_uid = d.sop_instance_uid AND first.study_instance_uid = d.study_instance_uid
            AND first.destination = d.destination AND first.sha256 <> d.sha256
            AND (first.state = ANY(%(there)s) OR first.state <> 'rejected' AND (first.attempts > 0 OR first.claimed_by IS NOT NULL)))
        AND NOT EXISTS (
        SELECT FROM delivery AS same
        WHERE same.sop_instance_uid = d.sop_instance_uid AND same.study_instance_uid = d.study_instance_uid
            AND same.destination = d.destination AND same.sha256 = d.sha256 AND same.state = ANY(%(there)s))
"""


class Ledger:
    """Reads `imaging.instance.routed.v1`; a delivery that is in the ledger stays as it is, unless it is taken back."""

    name = "ledger"
    apart_s = 0.05  # a delivery can begin only once it is here

    def __init__(self, settings: Settings | None = None) -> None:
        self._writer = bus.Writer(settings or Settings(), self.name)

    def apply(self, connection: psycopg.Connection, events: Sequence[tuple[InstanceRouted, Envelope]]) -> None:
        """See `hilum.runtime.tables.Tables`."""
        rows: dict[str, DeliveryRow] = {}
        for event, envelope in events:
            for delivery in event.deliveries:
                if delivery.delivery_id in rows:
                    continue
                rows[delivery.delivery_id] = DeliveryRow(
                    delivery_id=delivery.delivery_id,
                    destination=delivery.destination,
                    receipt=event.receipt,
                    study_instance_uid=event.study_instance_uid,
                    series_instance_uid=event.series_instance_uid,
                    sop_instance_uid=event.sop_instance_uid,
                    sop_class_uid=event.sop_class_uid,
                    transfer_syntax_uid=event.transfer_syntax_uid,
                    bucket=event.object.bucket,
                    object_key=event.object.key,
                    size_bytes=event.object.size_bytes,
                    sha256=event.object.sha256,
                    rules=delivery.rules,
                    priority=delivery.priority,
                    config_version=event.config_version,
                    traceparent=envelope.traceparent,
                    received_at=event.received_at,
                    under_policy=delivery.policy or None,
                )
        if rows:  # what expires is decided before these are planned, or sees them
            connection.execute(SHARED_LOCK)
        if _insert(connection, [rows[delivery_id] for delivery_id in sorted(rows)]):
            connection.execute(_HURRY, (list(rows),))
            destinations = sorted({row.destination for row in rows.values()})
            connection.execute("SELECT pg_notify(%s, destination) FROM unnest(%s::text[]) AS destination", (CHANNEL, destinations))
        # Said of one study in order, on one topic: what is taken back here is in the ledger by now.
        why = {
            delivery_id: "A correction took its place." if event.decision == "corrected" else "A rejection note names it."
            for event, _ in events
            for delivery_id in event.cancels
        }
        why |= _expired(connection, rows)
        withdrawn = [event for event, _ in events if event.decision == "withdrawn"]
        if withdrawn:  # and what people have asked for besides
            of = [event.sop_instance_uid for event in withdrawn], [event.study_instance_uid for event in withdrawn]
            why |= dict.fromkeys(unsettled(connection, *of), "A rejection note names it.")
        if why:
            cancel(connection, self._writer, why, datetime.now(UTC))
        corrected = [
            delivery.delivery_id
            for event, _ in events
            if event.decision == "corrected" or event.revision > 1
            for delivery in event.deliveries
        ]
        if corrected:
            connection.execute(_REPLACES, {"ids": corrected, "there": list(THERE)})


def _expired(connection: psycopg.Connection, delivery_ids: Collection[str]) -> dict[str, str]:
    """Those of these deliveries whose original has expired, with the reason: as when a whole study is to go once more."""
    found = connection.execute(_EXPIRED.encode(), (list(delivery_ids),)) if delivery_ids else ()
    return {delivery_id: f"The original expired on {at:%Y-%m-%d} by {policy}." for delivery_id, at, policy in found}


def role(settings: Settings) -> Role:
    """The role `ledger`."""
    return TableRole(settings, Ledger(settings))
