"""What the index knows of instances that were decided on before, and of studies."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
import psycopg
from msgspec import Struct
from psycopg.rows import dict_row

from hilum.database.deidentified import MADE_HERE, STUDIES_MADE_HERE
from hilum.database.merges import is_of, person
from hilum.errors import TryAgain
from hilum.events import Finding, Instance, InstanceAccepted, ObjectRef, Source
from hilum.settings import Settings


class Decided(Struct, frozen=True, kw_only=True):
    """What was decided on an instance: of which receipts, which object they brought (SHA-256 of the data set), and which deliveries."""

    #: Those with a decision of their own, other than on repeats, first received first.
    receipts: tuple[str, ...]
    sha256: str
    #: Ids of all deliveries that were ever planned.
    deliveries: tuple[str, ...] = ()
    #: The object as it is now, and what is known of it.
    object: ObjectRef | None = None
    study_instance_uid: str = ""
    series_instance_uid: str = ""
    sop_class_uid: str = ""
    transfer_syntax_uid: str = ""
    received_at: datetime | None = None
    #: Digests of objects that it was before it was corrected.
    before: tuple[str, ...] = ()

    def following(self, receipt: str, deliveries: Iterable[str]) -> Decided:
        """With one more receipt, and what was planned for it."""
        return Decided(receipts=(*self.receipts, receipt), sha256=self.sha256, deliveries=(*self.deliveries, *deliveries))


class IndexedStudy(Struct, frozen=True, kw_only=True):
    """What the index knows of a study. `attributes`, by keyword, identify the patient: they are compared, and kept nowhere."""

    #: The last complete revision; 0: none.
    revision: int = 0
    #: Instances, those that rejection notes name included; and those.
    instances: int = 0
    withdrawn: int = 0
    #: Rejection notes of it that name something, and that none names.
    notes: int = 0
    #: How it fits its orders; empty: it was held against none yet.
    order_match: str = ""
    attributes: dict[str, str | None] = {}


class Person(Struct, frozen=True, kw_only=True):
    """Who a patient is after merges: the key that names it, its identifier, and whether that is another one than was asked about."""

    key: str
    patient_id: str
    issuer: str
    merged: bool


class Noted(Struct, frozen=True, kw_only=True):
    """The rejection note that names an instance, and the study that the note is of."""

    note: str
    study_instance_uid: str


#: Decisions that say nothing of their own: a repeat of what was here.
_REPEATS = ("duplicate", "returned", "ignored")

_DECIDED = """
SELECT sop_instance_uid, receipt, sha256, delivery_ids, decision, bucket, object_key, size_bytes, study_instance_uid, series_instance_uid,
       sop_class_uid, transfer_syntax_uid, received_at
FROM receipt WHERE sop_instance_uid = ANY(%(uids)s) AND decision IS NOT NULL AND decision <> ALL(%(repeats)s)
ORDER BY received_at, receipt
"""

_OF_STUDY = """
SELECT sop_instance_uid FROM instance WHERE study_instance_uid = %(study)s AND sop_instance_uid > %(after)s
ORDER BY sop_instance_uid LIMIT %(limit)s
"""

_FAILING = """
SELECT sop_instance_uid, receipt, r.study_instance_uid, series_instance_uid, sop_class_uid, transfer_syntax_uid, bucket, object_key,
       size_bytes, sha256, adapter, calling_aet, called_aet, peer, association, received_at, findings
FROM failed_rule AS failed JOIN receipt AS r USING (receipt, sop_instance_uid)
WHERE sop_instance_uid = ANY(%(uids)s) AND failed.config_version <> %(version)s AND object_key IS NOT NULL AND adapter IS NOT NULL
ORDER BY failed_at LIMIT %(limit)s
"""

_STUDIES = """
SELECT asked.study_instance_uid, coalesce(state.revision, 0) AS revision, coalesce(state.instances + state.withdrawn, 0) AS instances,
       coalesce(state.withdrawn, 0) AS withdrawn,
       (SELECT count(DISTINCT noted.note) FROM withdrawn AS noted WHERE noted.study_instance_uid = asked.study_instance_uid
            AND NOT EXISTS (SELECT FROM withdrawn AS other WHERE other.sop_instance_uid = noted.note)) AS notes,
       study.received_at IS NOT NULL AS described,
       study.patient_id AS "PatientID", study.issuer_of_patient_id AS "IssuerOfPatientID", study.patient_name AS "PatientName",
       study.patient_birth_date AS "PatientBirthDate", study.patient_sex AS "PatientSex", study.study_date AS "StudyDate",
       study.study_id AS "StudyID", study.accession_number AS "AccessionNumber", coalesce(match.outcome, '') AS order_match
FROM unnest(%(uids)s::text[]) AS asked (study_instance_uid)
LEFT JOIN study ON study.study_instance_uid = asked.study_instance_uid
LEFT JOIN study_state AS state ON state.study_instance_uid = asked.study_instance_uid
LEFT JOIN match ON match.about = 'study' AND match.id = asked.study_instance_uid
WHERE study.received_at IS NOT NULL OR state.revision IS NOT NULL
"""

_PERSONS = f"""
SELECT asked.value, asked.issuer AS asked_issuer, found.patient_key, found.patient_id, found.issuer,
       EXISTS (SELECT FROM patient_id AS known JOIN patient AS former USING (patient_key)
               WHERE former.merged_into = found.patient_key AND {is_of("asked.value", "asked.issuer")}) AS merged
FROM json_to_recordset(%(ids)s::json) AS asked (value text, issuer text), LATERAL ({person("asked.value", "asked.issuer")}) AS found
"""


class IndexedInstances:
    """Looks instances and studies up in the index, with a connection of its own that is opened again after an outage.

    Every method asks once, however much is asked for, and raises `TryAgain` while PostgreSQL is away.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._connection: psycopg.Connection[dict[str, Any]] | None = None

    def decided(self, sop_instance_uids: Sequence[str]) -> Mapping[str, Decided]:
        """What was decided on these instances, as far as the index has it.

        The object is that of the first receipt, unless a later one was taken for its correction.
        """
        rows: dict[str, list[dict[str, Any]]] = {}
        for row in self._ask(_DECIDED, {"uids": list(sop_instance_uids), "repeats": list(_REPEATS)}):
            rows.setdefault(row["sop_instance_uid"], []).append(row)
        return {uid: _decided(found) for uid, found in rows.items()}

    def studies(self, study_instance_uids: Sequence[str]) -> Mapping[str, IndexedStudy]:
        """What is known of these studies; one of which nothing is known is left out."""
        found: dict[str, IndexedStudy] = {}
        for row in self._ask(_STUDIES, {"uids": list(study_instance_uids)}) if study_instance_uids else ():
            uid, described = row.pop("study_instance_uid"), row.pop("described")
            state = {name: row.pop(name) for name in ("revision", "instances", "withdrawn", "notes", "order_match")}
            found[uid] = IndexedStudy(**state, attributes=row if described else {})
        return found

    def persons(self, ids: Sequence[tuple[str, str]]) -> Mapping[tuple[str, str], Person]:
        """Who the patients with these identifiers and issuers are after merges; who is not known, or not for sure, is left out."""
        asked = msgspec.json.encode([{"value": value, "issuer": issuer} for value, issuer in ids]).decode()
        return {
            (row["value"], row["asked_issuer"]): Person(
                key=row["patient_key"], patient_id=row["patient_id"], issuer=row["issuer"], merged=row["merged"]
            )
            for row in self._ask(_PERSONS, {"ids": asked})
        }

    def withdrawn(self, sop_instance_uids: Sequence[str]) -> Mapping[str, Noted]:
        """Those of these instances that a rejection note names, with the note."""
        query = "SELECT sop_instance_uid, note, study_instance_uid FROM withdrawn WHERE sop_instance_uid = ANY(%(uids)s)"
        rows = self._ask(query, {"uids": list(sop_instance_uids)})
        return {row["sop_instance_uid"]: Noted(note=row["note"], study_instance_uid=row["study_instance_uid"]) for row in rows}

    def made_here(self, sop_instance_uids: Sequence[str]) -> Collection[str]:
        """Those of these instances that left de-identified, under these UIDs."""
        return {row["sent_as"] for row in self._ask(MADE_HERE, {"uids": list(sop_instance_uids)})} if sop_instance_uids else ()

    def studies_made_here(self, study_instance_uids: Sequence[str]) -> Collection[str]:
        """Those of these studies that have a UID under which objects left de-identified."""
        rows = self._ask(STUDIES_MADE_HERE, {"uids": list(study_instance_uids)}) if study_instance_uids else ()
        return {row["sent_study"] for row in rows}

    def failing(self, sop_instance_uids: Sequence[str], config_version: str, limit: int) -> Mapping[str, InstanceAccepted]:
        """Those of these instances on which rules of another version than this one failed, `limit` at most, without their headers."""
        if not sop_instance_uids:
            return {}
        values = {"uids": list(sop_instance_uids), "version": config_version, "limit": limit}
        return {row["sop_instance_uid"]: _as_it_came(row) for row in self._ask(_FAILING, values)}

    def failing_of(self, study_instance_uids: Sequence[str]) -> Mapping[str, Sequence[str]]:
        """For each of these studies, its instances on which rules failed; one without any is left out."""
        query = "SELECT study_instance_uid, array_agg(sop_instance_uid) AS uids FROM failed_rule WHERE study_instance_uid = ANY(%(uids)s)"
        rows = self._ask(query + " GROUP BY study_instance_uid", {"uids": list(study_instance_uids)})
        return {row["study_instance_uid"]: row["uids"] for row in rows}

    def of_study(self, study_instance_uid: str, after: str, limit: int) -> Sequence[str]:
        """The study's instances, in the order of their UIDs, from behind `after`."""
        rows = self._ask(_OF_STUDY, {"study": study_instance_uid, "after": after, "limit": limit})
        return [row["sop_instance_uid"] for row in rows]

    def unpublished(self) -> datetime | None:
        """When the oldest object came that lies in a spool and is not published; None if no spool is behind."""
        [row] = self._ask("SELECT min(oldest_at) AS oldest FROM spool_backlog WHERE seen_at > now() - interval '1 minute'", {})
        oldest: datetime | None = row["oldest"]
        return oldest

    def _ask(self, query: str, values: Mapping[str, object]) -> list[dict[str, Any]]:
        try:
            if self._connection is None or self._connection.closed:
                self._connection = psycopg.connect(self._settings.postgres.dsn, autocommit=True, connect_timeout=5, row_factory=dict_row)
            return self._connection.execute(query.encode(), values).fetchall()
        except psycopg.OperationalError as error:
            self._connection = None
            raise TryAgain(f"PostgreSQL cannot be asked ({type(error).__name__}).") from None


def _as_it_came(row: Mapping[str, Any]) -> InstanceAccepted:
    source = {name: row[name] or "" for name in ("adapter", "calling_aet", "called_aet", "peer", "association")}
    return InstanceAccepted(
        instance=Instance(
            receipt=row["receipt"],
            study_instance_uid=row["study_instance_uid"] or "",
            series_instance_uid=row["series_instance_uid"] or "",
            sop_instance_uid=row["sop_instance_uid"],
            sop_class_uid=row["sop_class_uid"] or "",
            transfer_syntax_uid=row["transfer_syntax_uid"] or "",
            object=ObjectRef(bucket=row["bucket"], key=row["object_key"], size_bytes=row["size_bytes"] or 0, sha256=row["sha256"]),
            source=msgspec.convert(source, Source),
            received_at=row["received_at"],
            header_json=msgspec.Raw(b"{}"),
        ),
        findings=msgspec.convert(row["findings"] or [], tuple[Finding, ...]),
    )


def _decided(rows: Sequence[dict[str, Any]]) -> Decided:
    """What the receipts of one instance say, in the order in which they came."""
    now = next((row for row in reversed(rows) if row["decision"] == "corrected"), rows[0])
    ref = None
    if now["object_key"]:
        ref = ObjectRef(bucket=now["bucket"] or "", key=now["object_key"], size_bytes=now["size_bytes"] or 0, sha256=now["sha256"])
    return Decided(
        receipts=tuple(row["receipt"] for row in rows),
        sha256=now["sha256"],
        deliveries=tuple(delivery for row in rows for delivery in row["delivery_ids"] or ()),
        object=ref,
        study_instance_uid=now["study_instance_uid"] or "",
        series_instance_uid=now["series_instance_uid"] or "",
        sop_class_uid=now["sop_class_uid"] or "",
        transfer_syntax_uid=now["transfer_syntax_uid"] or "",
        received_at=now["received_at"],
        before=tuple(dict.fromkeys(row["sha256"] for row in rows if row["sha256"] != now["sha256"])),
    )
