"""Objects that came before, as deliveries that nobody has entered: to see how they would leave now."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

import psycopg
from msgspec import Struct

from hilum.database import AWAY, away, connect
from hilum.database.deidentified import MAY_BE_THERE
from hilum.database.deliveries import NOT_WITHDRAWN
from hilum.database.found import rows
from hilum.errors import Misconfigured
from hilum.events import ObjectRef
from hilum.sink import Delivery
from hilum.storage.records import EXPIRED

#: Rows that are read at once.
CHUNK = 200
_COLUMNS = """d.sop_instance_uid, d.series_instance_uid, d.study_instance_uid, d.sop_class_uid, d.transfer_syntax_uid, d.bucket,
    d.object_key, d.size_bytes, d.sha256, d.receipt"""
_OF_STUDY = f"""
    SELECT {_COLUMNS} FROM instance AS d
    WHERE d.study_instance_uid = %(study)s AND {NOT_WITHDRAWN} AND NOT {EXPIRED.format("d")}
    ORDER BY d.series_instance_uid, length(d.instance_number), d.instance_number, d.sop_instance_uid
"""  # constants

#: What left by a policy, with `held` also what was held; each object once, as it left last. `{more}` are columns, `{expired}` a condition.
LEFT_BY = f"""
    SELECT DISTINCT ON (d.sop_instance_uid, d.sha256) {_COLUMNS}{{more}}
    FROM deidentified AS was JOIN delivery AS d USING (delivery_id)
    WHERE was.policy = %(policy)s AND (%(of)s = '' OR was.destination = %(of)s) AND was.destination <> %(to)s
        AND (%(since)s::timestamptz IS NULL OR coalesce(was.sent_at, was.begun_at) >= %(since)s)
        AND (d.state IN ('delivered', 'already_there', 'returned') AND was.sent_at IS NOT NULL
            OR %(held)s AND d.state = 'parked' AND was.sent_at IS NULL)
        AND {NOT_WITHDRAWN} AND {{expired}}
    ORDER BY d.sop_instance_uid, d.sha256, was.sent_at DESC NULLS LAST, was.begun_at DESC
"""  # constants
#: Of what left by a policy, what is at these destinations as another version made it, under the UIDs that it would have now.
_IN_THE_WAY = f"""
    SELECT count(*) AS objects, coalesce(array_agg(DISTINCT known.policy || ' ' || known.policy_version), '{{{{}}}}') AS versions
    FROM ({LEFT_BY.format(more="", expired="{expired}")}) AS again JOIN deidentified AS known USING (sop_instance_uid)
    WHERE known.destination = ANY(%(places)s) AND known.policy_version <> %(version)s AND {MAY_BE_THERE}
        AND (known.sent_as = known.sop_instance_uid OR known.project = %(project)s AND (%(key_id)s = '' OR known.key_id = %(key_id)s))
"""  # constants
_AS_IT_LEFT = ", was.destination, was.policy_version, was.key_id, was.sent_sha256, was.sent_at IS NOT NULL, was.settings_id"


class InTheWay(Struct, frozen=True, kw_only=True):
    """Objects that would be replaced, and as which policies and versions made them."""

    objects: int
    versions: list[str]


class Before(Struct, frozen=True, kw_only=True):
    """An object that left by a policy, or was held."""

    delivery: Delivery
    destination: str
    policy_version: str
    key_id: str
    #: Of the data set that left; empty if nobody knows.
    sent_sha256: str
    left: bool
    #: By which settings it was made; empty if nobody knows.
    settings_id: str = ""


def left_by(dsn: str, policy: str, *, of: str, to: str, since: datetime | None) -> Iterator[list[Before]]:
    """What left by a policy for other destinations than `to`, or was held, a few at a time. Raises `TryAgain`, `Misconfigured`."""
    query = LEFT_BY.format(more=_AS_IT_LEFT, expired=f"NOT {EXPIRED.format('d')}")
    for found in chunks(dsn, query, {"policy": policy, "of": of, "to": to, "since": since, "held": True}):
        yield [
            Before(
                delivery=delivery_of(row),
                destination=row[10],
                policy_version=row[11],
                key_id=row[12],
                sent_sha256=row[13] or "",
                left=row[14],
                settings_id=row[15] or "",
            )
            for row in found
        ]


def in_the_way(
    dsn: str, policy: str, *, of: str, to: str, since: datetime | None, places: Sequence[str], version: str, project: str, key_id: str
) -> InTheWay:
    """What is at these `places` as another version made it, of what would leave for `to` by a `version` and key now, under the same UIDs.

    Without `key_id` under any key. Raises `TryAgain`, `Misconfigured`.
    """
    values = {"policy": policy, "of": of, "to": to, "since": since, "held": True, "places": list(places), "version": version}
    query = _IN_THE_WAY.format(expired=f"NOT {EXPIRED.format('d')}")
    [found] = rows(dsn, InTheWay, query, {**values, "project": project, "key_id": key_id})
    return found


def kept_policy(dsn: str, version: str) -> dict[str, Any] | None:
    """The policy of a version by which anything left, as it was published: `version`, `policy`; None if it was not kept."""
    found = rows(dsn, _Kept, "SELECT version, content FROM deid_policy WHERE version = %(version)s", {"version": version})
    return {"version": found[0].version, "policy": found[0].content} if found else None


class _Kept(Struct, frozen=True):
    version: str
    content: dict[str, Any]


def of_study(dsn: str, study: str) -> Iterator[list[Delivery]]:
    """What is kept of a study, series by series, a few at a time. Raises `TryAgain`, `Misconfigured`."""
    for found in chunks(dsn, _OF_STUDY, {"study": study}):
        yield [delivery_of(row) for row in found]


def chunks(dsn: str, query: str, values: dict[str, Any]) -> Iterator[Sequence[tuple[Any, ...]]]:
    """The rows of a query, `CHUNK` at a time, however many there are. Raises `TryAgain`, `Misconfigured`."""
    try:
        with connect(dsn, name="hilum past", autocommit=False) as connection, connection.cursor("past") as cursor:
            cursor.execute(query.encode(), values)
            while found := cursor.fetchmany(CHUNK):
                yield found
    except psycopg.errors.UndefinedTable:
        raise Misconfigured("database-tables", "The database has no tables of Hilum's.", fix="Make them with `hilum provision`.") from None
    except AWAY as error:
        raise away(dsn, error) from None


def delivery_of(row: Sequence[Any]) -> Delivery:
    """The delivery of a row that begins with the columns above; nobody is its destination."""
    uid, series, study, sop_class, syntax, bucket, key, size_bytes, sha256, receipt = row[:10]
    return Delivery(
        delivery_id="",
        destination="",
        receipt=receipt or "",
        study_instance_uid=study,
        series_instance_uid=series or "",
        sop_instance_uid=uid,
        sop_class_uid=sop_class or "",
        transfer_syntax_uid=syntax or "",
        object=ObjectRef(bucket=bucket or "", key=key or "", size_bytes=size_bytes or 0, sha256=sha256 or ""),
    )
