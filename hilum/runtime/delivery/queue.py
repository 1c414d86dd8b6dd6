"""The ledger as one worker sees it: claim, settle, put off, release.

A claim is a lease: `claimed_by` and `lease_until`. Whatever a worker writes about a row holds only while the row is pending
and claimed by it, so a delivery is settled once, whoever else may have claimed it after the lease ran out.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
import psycopg
from msgspec import Struct

from hilum import bus, database
from hilum.events import DeliverySettled, ObjectRef, following_id
from hilum.sink import Delivery, Settled

#: A claim ends by itself after so long without `renew`.
LEASE_S = 60

_COLUMNS = """
    delivery_id, destination, receipt, study_instance_uid, series_instance_uid, sop_instance_uid, sop_class_uid, transfer_syntax_uid,
    bucket, object_key, size_bytes, sha256, config_version, traceparent, attempts, received_at
"""
_DUE = "destination = %(destination)s AND not_before <= now() AND (lease_until IS NULL OR lease_until < now())"
_READY = f"state = 'pending' AND {_DUE}"
#: The same, spelled so that PostgreSQL cannot read the index of pending rows for it, but looks rows up by study or key: that index
#: looks short to it and may be long, because the statistics of a queue are always out of date.
_PENDING = "lower(d.state) = 'pending'"
#: A claim that a power cut undoes is only made again: it need not wait for the disk.
_LIGHTLY = "set_config('synchronous_commit', 'off', true)"
_NEXT = "ORDER BY priority DESC, not_before LIMIT"
_PICK = {
    False: f"SELECT delivery_id, {_LIGHTLY} FROM delivery WHERE {_READY} {_NEXT} %(limit)s FOR UPDATE SKIP LOCKED",  # noqa: S608  # constants
    # What is ready of the study whose turn it is.
    True: f"""
        SELECT delivery_id, {_LIGHTLY} FROM delivery d
        WHERE {_PENDING} AND {_DUE} AND study_instance_uid = (SELECT study_instance_uid FROM delivery WHERE {_READY} {_NEXT} 1)
        {_NEXT} %(limit)s FOR UPDATE SKIP LOCKED
    """,  # noqa: S608  # constants
}
_CLAIM = {
    grouped: f"""
        WITH picked AS MATERIALIZED ({pick}),
        claimed AS (
            UPDATE delivery d SET claimed_by = %(worker)s, lease_until = now() + make_interval(secs => %(lease_s)s)
            FROM picked WHERE d.delivery_id = picked.delivery_id
            RETURNING d.*)
        SELECT {_COLUMNS} FROM claimed ORDER BY priority DESC, not_before, series_instance_uid, sop_instance_uid
    """  # noqa: S608  # constants
    for grouped, pick in _PICK.items()
}
#: What a worker may still write about.
MINE = f"{_PENDING} AND d.claimed_by = %(worker)s"
_SETTLE = f"""
    WITH said AS MATERIALIZED (
        SELECT * FROM json_to_recordset(%(said)s::json)
            AS said(delivery_id text, state text, peer_status text, comment text, topic text, key text, headers json, value text)),
    settled AS (
        UPDATE delivery d SET state = said.state, peer_status = said.peer_status, comment = said.comment, settled_at = %(settled_at)s,
            attempts = d.attempts + 1, claimed_by = NULL, lease_until = NULL
        FROM said WHERE d.delivery_id = said.delivery_id AND {MINE}
        RETURNING d.delivery_id),
    outbox AS (
        INSERT INTO outbox (topic, key, headers, value)
        SELECT topic, key, headers::jsonb, convert_to(value, 'UTF8') FROM said JOIN settled USING (delivery_id))
    SELECT delivery_id FROM settled
"""  # noqa: S608  # constants
_PUT_OFF = f"""
    UPDATE delivery d SET attempts = d.attempts + said.counted::int, not_before = now() + make_interval(secs => said.after_s),
        peer_status = said.peer_status, comment = said.comment, claimed_by = NULL, lease_until = NULL
    FROM json_to_recordset(%(said)s::json) AS said(delivery_id text, after_s float8, counted boolean, peer_status text, comment text)
    WHERE d.delivery_id = said.delivery_id AND {MINE}
"""  # noqa: S608  # constants
_RELEASE = f"""
    UPDATE delivery d SET claimed_by = NULL, lease_until = NULL WHERE d.delivery_id = ANY(%(ids)s) AND {MINE}
    RETURNING {_LIGHTLY}
"""  # noqa: S608  # constants


class PutOff(Struct, frozen=True, kw_only=True):
    """An attempt that did not settle the delivery."""

    after_s: float
    #: Whether it counts as an attempt; one that only waits for the destination's word does not.
    counted: bool = True
    peer_status: str = ""
    #: What Hilum says about it, and the peer's own words, as in `Settled`.
    comment: str = ""
    peer_comment: str = ""


class Queue:
    """What is pending for `destination`, for the one worker that goes by `worker`, a name that no other worker ever has.

    Every method raises one of `hilum.database.AWAY`, or `TryAgain`, while PostgreSQL is away, and may then be called again.
    """

    def __init__(self, dsn: str, destination: str, worker: str, writer: bus.Writer, *, grouped: bool = False) -> None:
        self.worker = worker
        self._dsn = dsn
        self._destination = destination
        self._writer = writer
        self._grouped = grouped
        self._connection: psycopg.Connection[Any] | None = None

    def claim(self, limit: int, lease_s: float = LEASE_S) -> list[Delivery]:
        """Up to `limit` deliveries that are due and that nobody else has, most urgent first; if `grouped`, of one study."""
        values = {"destination": self._destination, "limit": limit, "worker": self.worker, "lease_s": lease_s}
        return [_delivery(row) for row in self._connected().execute(_CLAIM[self._grouped], values)]

    def record(self, outcomes: Sequence[tuple[Delivery, Settled | PutOff]]) -> set[str]:
        """Write what became of claimed deliveries; those that are settled in one transaction with an event of each in the outbox.

        Returns the ids of those that are settled now: one that another worker has meanwhile is left to that one. May be repeated.
        """
        settled = [(delivery, outcome) for delivery, outcome in outcomes if isinstance(outcome, Settled)]
        put_off = [(delivery, outcome) for delivery, outcome in outcomes if isinstance(outcome, PutOff)]
        if put_off:
            values = [
                {
                    "delivery_id": delivery.delivery_id,
                    "after_s": outcome.after_s,
                    "counted": outcome.counted,
                    "peer_status": outcome.peer_status,
                    "comment": _told(outcome),
                }
                for delivery, outcome in put_off
            ]
            self._connected().execute(_PUT_OFF, {"worker": self.worker, "said": _json(values)})
        if not settled:
            return set()
        return {row[0] for row in self._connected().execute(_SETTLE, self._said(settled))}

    def release(self, deliveries: Sequence[Delivery]) -> None:
        """Give claimed deliveries back as they were."""
        if deliveries:
            self._connected().execute(_RELEASE, {"ids": [each.delivery_id for each in deliveries], "worker": self.worker})

    def close(self) -> None:
        """Close the connection; it is opened again when needed."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _said(self, settled: Sequence[tuple[Delivery, Settled]]) -> dict[str, Any]:
        now = datetime.now(UTC)
        time = bus.timestamp(now)
        said = []
        for delivery, outcome in settled:
            trace = delivery.traceparent.encode() or None
            record = self._writer.record(_event(delivery, outcome, now), settled_id(delivery.delivery_id), trace=trace, time=time)
            said.append(
                {
                    "delivery_id": delivery.delivery_id,
                    "state": outcome.state,
                    "peer_status": outcome.peer_status,
                    "comment": _told(outcome),
                    "topic": record.topic,
                    "key": record.key.decode(),
                    "headers": {name: _text(value) for name, value in record.headers},
                    "value": record.value.decode(),
                }
            )
        return {"worker": self.worker, "settled_at": now, "said": _json(said)}

    def _connected(self) -> psycopg.Connection[Any]:
        if self._connection is None or self._connection.closed:
            self._connection = database.connect(self._dsn, name=f"hilum deliver {self._destination}"[:63])
            # Every statement here is a look-up by an index, whatever the statistics say.
            self._connection.execute("SET enable_seqscan = off; SET enable_bitmapscan = off")
        return self._connection


def settled_id(delivery_id: str) -> str:
    """The id of the event that says how the delivery ended: the same whenever it is said."""
    return following_id(delivery_id, "deliver", 0)


def _told(outcome: Settled | PutOff) -> str:
    """Hilum's words and the peer's, for the ledger. The peer's may name a patient, so no event, log or metric has them."""
    return f"{outcome.comment} {outcome.peer_comment}".strip()


def _event(delivery: Delivery, outcome: Settled, now: datetime) -> DeliverySettled:
    return DeliverySettled(
        delivery_id=delivery.delivery_id,
        receipt=delivery.receipt,
        destination=delivery.destination,
        study_instance_uid=delivery.study_instance_uid,
        series_instance_uid=delivery.series_instance_uid,
        sop_instance_uid=delivery.sop_instance_uid,
        sha256=delivery.object.sha256,
        state=outcome.state,
        attempts=delivery.attempts + 1,
        peer_status=outcome.peer_status,
        comment=outcome.comment,
        config_version=delivery.config_version,
        settled_at=now,
    )


def _json(values: list[dict[str, Any]]) -> str:
    """One parameter for all rows: PostgreSQL reads it faster than psycopg writes arrays."""
    return msgspec.json.encode(values).decode()


def _text(value: str | bytes | None) -> str:
    return value.decode() if isinstance(value, bytes) else value or ""


def _delivery(row: tuple[Any, ...]) -> Delivery:
    fields = dict(zip(_COLUMNS.replace(",", " ").split(), row, strict=True))
    found = {name: fields.pop(name) for name in ("bucket", "object_key", "size_bytes", "sha256")}
    ref = ObjectRef(
        bucket=found["bucket"] or "", key=found["object_key"] or "", size_bytes=found["size_bytes"] or 0, sha256=found["sha256"] or ""
    )
    received_at = fields.pop("received_at")
    values: dict[str, Any] = {name: "" if value is None else value for name, value in fields.items()}
    return Delivery(object=ref, received_at=received_at, **values)
