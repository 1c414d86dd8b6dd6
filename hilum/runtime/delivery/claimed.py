"""A delivery as a worker claims it: the columns of its row, and what is made of them."""

from __future__ import annotations

from typing import Any

from hilum.events import ObjectRef
from hilum.sink import Delivery

#: What a `Delivery` is made of.
COLUMNS = """
    delivery_id, destination, receipt, study_instance_uid, series_instance_uid, sop_instance_uid, sop_class_uid, transfer_syntax_uid,
    bucket, object_key, size_bytes, sha256, config_version, traceparent, attempts, received_at, priority, round, abandoned, replaces,
    under_policy, identified
"""


def delivery_of(row: tuple[Any, ...]) -> Delivery:
    """The delivery of a row with the columns `COLUMNS`, and the sender's titles if they are there."""
    names = *COLUMNS.replace(",", " ").split(), "calling_aet", "called_aet"
    fields = dict(zip(names, row, strict=False))
    found = {name: fields.pop(name) for name in ("bucket", "object_key", "size_bytes", "sha256")}
    ref = ObjectRef(
        bucket=found["bucket"] or "", key=found["object_key"] or "", size_bytes=found["size_bytes"] or 0, sha256=found["sha256"] or ""
    )
    received_at = fields.pop("received_at")
    values: dict[str, Any] = {name: "" if value is None else value for name, value in fields.items()}
    return Delivery(object=ref, received_at=received_at, **values)
