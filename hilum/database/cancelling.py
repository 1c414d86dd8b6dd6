"""Cancel deliveries that are not made yet: row, and event in the outbox, in the open transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
import psycopg
from psycopg.rows import dict_row

from hilum import bus
from hilum.events import DeliverySettled, following_id

_CANCEL = """
UPDATE delivery SET state = 'cancelled', settled_at = %(now)s, claimed_by = NULL, lease_until = NULL,
    comment = said.comment
FROM json_to_recordset(%(said)s::json) AS said(id text, comment text)
WHERE delivery_id = said.id AND state IN ('pending', 'parked')
RETURNING delivery_id, receipt, destination, study_instance_uid, series_instance_uid, sop_instance_uid, sha256, attempts,
    said.comment AS comment, config_version, traceparent
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


def cancel(connection: psycopg.Connection, writer: bus.Writer, why: Mapping[str, str], now: datetime) -> list[str]:
    """Cancel those of these deliveries that have no final state; `why` has for each id the comment. Returns the ids of those cancelled now.

    One that a worker has in its hands is cancelled, too: what that worker writes of it does not count any more, and its peer may
    have got the object.
    """
    said = msgspec.json.encode([{"id": delivery_id, "comment": why[delivery_id]} for delivery_id in sorted(why)]).decode()
    with connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(_CANCEL, {"said": said, "now": now}).fetchall()
        for row in rows:
            trace = (row.pop("traceparent") or "").encode() or None
            values: dict[str, Any] = {name: "" if value is None else value for name, value in row.items()}
            event = DeliverySettled(state="cancelled", settled_at=now, **values)
            settled_id = following_id(event.delivery_id, "deliver", 0)  # the same whoever settles it
            record = writer.record(event, settled_id, trace=trace, time=bus.timestamp(now))
            headers = {name: value.decode() if isinstance(value, bytes) else value or "" for name, value in record.headers}
            cursor.execute(_TELL, (record.topic, record.key.decode(), msgspec.json.encode(headers).decode(), record.value))
    return [row["delivery_id"] for row in rows]
