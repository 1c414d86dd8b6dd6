"""The event that tells how a delivery ended, and how the outbox keeps it."""

from __future__ import annotations

from datetime import datetime

from hilum import bus
from hilum.events import DeliverySettled
from hilum.sink import Delivery, Settled


def settled_event(delivery: Delivery, outcome: Settled, now: datetime, *, attempts: int | None = None) -> DeliverySettled:
    """The event that says how a delivery ended, after one more attempt than before unless `attempts` are given.

    Of what was de-identified it does not tell the new UID: with that, whoever reads events could tell whose it is.
    """
    cleaned, origin = outcome.deidentified, delivery.origin
    return DeliverySettled(
        delivery_id=delivery.delivery_id,
        receipt=delivery.receipt,
        destination=delivery.destination,
        study_instance_uid=origin.study_instance_uid,
        series_instance_uid=origin.series_instance_uid,
        sop_instance_uid=origin.sop_instance_uid,
        sha256=delivery.object.sha256,
        state=outcome.state,
        attempts=delivery.attempts + 1 if attempts is None else attempts,
        peer_status=outcome.peer_status,
        comment=outcome.comment,
        sent_as="" if cleaned else outcome.sent_as,
        policy=cleaned.policy if cleaned else "",
        policy_version=cleaned.policy_version if cleaned else "",
        key_id=cleaned.key_id if cleaned else "",
        config_version=delivery.config_version,
        settled_at=now,
    )


def headers_of(record: bus.Record) -> dict[str, str]:
    """The headers of a message, as the outbox keeps them."""
    return {name: _text(value) for name, value in record.headers}


def _text(value: str | bytes | None) -> str:
    return value.decode() if isinstance(value, bytes) else value or ""
