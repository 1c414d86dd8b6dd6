"""Cancel deliveries that are not made yet: row, and event in the outbox, in the open transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
import psycopg
from psycopg.rows import dict_row

from hilum import bus
from hilum.database.deliveries import settled_id
from hilum.events import DeliverySettled

_CANCEL = """
UPDATE delivery SET state = 'cancelled', settled_at = %(now)s, parked_at = NULL, claimed_by = NULL, lease_until = NULL,
    attempts = attempts + (claimed_by IS NOT NULL)::int,
    comment = concat_ws(' ', nullif(delivery.comment, ''), coalesce(%(says)s::text, said.comment))
FROM json_to_recordset(%(said)s::json) AS said(id text, comment text)
WHERE delivery_id = said.id AND state IN ('pending', 'parked')
RETURNING delivery_id, receipt, destination, study_instance_uid, series_instance_uid, sop_instance_uid, sha256, attempts,
    said.comment AS comment, config_version, traceparent, round
"""
_UNSETTLED = """
SELECT delivery_id FROM delivery
WHERE sop_instance_uid = ANY (%s) AND study_instance_uid = ANY (%s) AND state IN ('pending', 'parked')
"""
_TELL = "INSERT INTO outbox (topic, key, headers, value) VALUES (%s, %s, %s::jsonb, %s)"


def unsettled(connection: psycopg.Connection, sop_instance_uids: Sequence[str], study_instance_uids: Sequence[str]) -> list[str]:
    """The deliveries of these instances of these studies that have no final state, whoever asked for them."""
    found = connection.execute(_UNSETTLED, (list(sop_instance_uids), list(study_instance_uids)))
    return [delivery_id for (delivery_id,) in found]


def cancel(
    connection: psycopg.Connection, writer: bus.Writer, why: Mapping[str, str], now: datetime, *, says: str | None = None
) -> list[str]:
    """Cancel those of these deliveries that have no final state; `why` has for each id the comment. Returns the ids of those cancelled now.

    The ledger has `says` instead, if that is given: what a person wrote stays there, since nobody knows whom it names.

    One that a worker has in its hands is cancelled, too: what that worker writes of it does not count any more, and its peer may
    have got the object: that counts as an attempt.
    """
    said = msgspec.json.encode([{"id": delivery_id, "comment": why[delivery_id]} for delivery_id in sorted(why)]).decode()
    with connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(_CANCEL, {"said": said, "now": now, "says": says}).fetchall()
        for row in rows:
            trace = (row.pop("traceparent") or "").encode() or None
            round_ = row.pop("round")
            values: dict[str, Any] = {name: "" if value is None else value for name, value in row.items()}
            event = DeliverySettled(state="cancelled", settled_at=now, **values)
            record = writer.record(event, settled_id(event.delivery_id, round_), trace=trace, time=bus.timestamp(now))
            headers = {name: value.decode() if isinstance(value, bytes) else value or "" for name, value in record.headers}
            cursor.execute(_TELL, (record.topic, record.key.decode(), msgspec.json.encode(headers).decode(), record.value))
    return [row["delivery_id"] for row in rows]
