"""What a study's order sets right in its objects, looked up when they are delivered: what is known by then holds.

The order's values are taken only where it is sure that the order is the study's: it is matched; or what differs is just what is to be
set right, and not the patient's identifier; or a person has accepted it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
import psycopg
from msgspec import Struct
from msgspec.structs import replace

from hilum.coercing import may_be_coerced
from hilum.database.merges import current
from hilum.database.persons import merged_by_nobody
from hilum.dicom.edits import UTF8, Edits
from hilum.dicom.encoding import EXPLICIT_BIG
from hilum.dicom.transcode import DEFLATED
from hilum.identity import is_nobodys
from hilum.order_events import Difference, Identifier, Order, Patient, RequestedProcedure
from hilum.settings import Settings
from hilum.sink import Delivery
from hilum.upper_layer import EXPLICIT_VR_LITTLE_ENDIAN

_MERGED = current("study.patient_id", "study.issuer_of_patient_id")
_MATCH = """
SELECT asked.receipt, receipt.calling_aet, match.outcome, match.differences, match.accepted_version = match.version AS accepted,
       match.changed_at, match.order_ids,
       (SELECT json_agg(scheduled_order.detail ORDER BY scheduled_order.order_id) FROM scheduled_order
        WHERE scheduled_order.order_id = ANY(match.order_ids)) AS details,
       (SELECT merged.detail || jsonb_build_object('at', merged.changed_at, 'was', study.patient_id)
        FROM study, LATERAL ({merged}) AS merged
        WHERE study.study_instance_uid = asked.study_instance_uid) AS survivor
FROM json_to_recordset(%s::json) AS asked (receipt text, study_instance_uid text)
LEFT JOIN receipt ON receipt.receipt = asked.receipt
LEFT JOIN match ON match.about = 'study' AND match.id = asked.study_instance_uid
""".replace("{merged}", _MERGED)

#: Transfer syntaxes in which no edits are made: such an object goes out in Explicit VR Little Endian, whatever sinks make of that.
_WRITTEN_FIRST = (DEFLATED, EXPLICIT_BIG)

#: What an order says of each attribute. What is empty is not taken.
_OF_PATIENT: Mapping[str, Callable[[Patient], str]] = {
    "PatientID": lambda patient: patient.ids[0].value if patient.ids else "",
    "IssuerOfPatientID": lambda patient: (patient.ids[0].issuer or patient.ids[0].universal_id) if patient.ids else "",
    "PatientName": lambda patient: patient.name,
    "PatientBirthDate": lambda patient: patient.birth_date,
    "PatientSex": lambda patient: patient.sex,
}
_OF_ORDER: Mapping[str, Callable[[Order], str]] = {
    "AdmissionID": lambda order: order.admission.value if order.admission is not None else "",
    "ReferringPhysicianName": lambda order: order.referring_physician,
    "RequestingService": lambda order: order.requesting_service,
}
#: What is of one of its procedures.
_OF_PROCEDURE: Mapping[str, Callable[[Order, RequestedProcedure], str]] = {
    "AccessionNumber": lambda order, procedure: accession.value if (accession := order.accession_of(procedure)) is not None else "",
    "RequestedProcedureDescription": lambda _, procedure: procedure.description,
    "StudyDescription": lambda _, procedure: procedure.description,
}


class _Survivor(Patient, frozen=True, kw_only=True):
    at: datetime
    #: PatientID of the images.
    was: str


class Coercions(Struct, frozen=True):
    """What is to be taken from orders, by the calling AE title of who sent the images."""

    by_sender: Mapping[str, tuple[str, ...]]
    #: Whether a delivery says that its study has no order that fits.
    warns: bool = False
    #: In which character sets an object may be written that has to be in another one.
    character_sets: tuple[str, ...] = (UTF8,)

    @classmethod
    def of_settings(cls, settings: Settings, *, warns: bool = False, character_sets: tuple[str, ...] = ()) -> Coercions:
        """What the table `senders` says; `character_sets` are the destination's."""
        by_sender = {aet: sender.coerce for aet, sender in settings.senders.items() if sender.coerce}
        return cls(by_sender, warns, character_sets or (UTF8,))

    @property
    def any(self) -> bool:
        """Whether anything needs to be looked up."""
        return bool(self.by_sender) or self.warns

    def of(self, connection: psycopg.Connection[Any], deliveries: Sequence[Delivery]) -> list[Delivery]:
        """The same deliveries with edits and remarks. Raises one of `hilum.database.AWAY`."""
        asked = [{"receipt": each.receipt, "study_instance_uid": each.study_instance_uid} for each in deliveries]
        rows = connection.execute(_MATCH, (msgspec.json.encode(asked).decode(),)).fetchall()
        found = {row[0]: (*row[1:-1], _surely_merged(connection, row[-1])) for row in rows}
        return [self._with(each, *found[each.receipt]) if each.receipt in found else each for each in deliveries]

    def _with(
        self,
        delivery: Delivery,
        calling_aet: str | None,
        outcome: str | None,
        differences: Any,
        accepted: bool | None,
        changed_at: datetime | None,
        order_ids: Sequence[str] | None,
        details: Any,
        survivor: _Survivor | None,
    ) -> Delivery:
        wanted = self.by_sender.get((calling_aet or "").strip(), ())
        differing = {each.attribute for each in msgspec.convert(differences or [], tuple[Difference, ...])}
        set_right = may_be_coerced(outcome or "", differing, wanted)
        remark = ""
        if self.warns and not accepted and not set_right:
            remark = _warning(outcome)
        edits = None
        if wanted and details and changed_at is not None and outcome in ("matched", "mismatched"):
            if accepted or set_right:
                orders = msgspec.convert(details, list[Order])
                edits = _of_orders(orders, wanted, changed_at, order_ids or (), study_instance_uid=delivery.study_instance_uid)
        elif wanted and survivor is not None:
            edits = _of_survivor(survivor, wanted)
        if edits is None:
            return replace(delivery, remark=remark) if remark else delivery
        edits = replace(edits, character_sets=self.character_sets)
        own = delivery.transfer_syntax_uid
        if own in _WRITTEN_FIRST:
            edits, own = replace(edits, stored_as=own), EXPLICIT_VR_LITTLE_ENDIAN
        return replace(delivery, edits=edits, transfer_syntax_uid=own, remark=remark)


def _warning(outcome: str | None) -> str:
    """What a destination that warns says of a study; nothing of one that its order fits."""
    if outcome is None:
        return "Its study was not held against orders in time."
    return f"No order fits its study ({outcome})." if outcome != "matched" else ""


def _of_orders(
    orders: Sequence[Order], wanted: Sequence[str], at: datetime, order_ids: Sequence[str], *, study_instance_uid: str
) -> Edits | None:
    """What the study's orders say. Where one study serves several and they do not agree, such as on what was to be examined, it stays.

    So it does where an order has several procedures, and the StudyInstanceUID is that of none.
    """
    said = {}
    for name in wanted:
        values = {value for order in orders for value in _values(order, name, study_instance_uid)} - {""}
        if len(values) == 1:
            (said[name],) = values
    names = ", ".join(sorted(order_ids))
    return Edits(values=said, at=at, says=f"of its order{'s' if len(order_ids) > 1 else ''} {names}") if said else None


def _values(order: Order, name: str, study_instance_uid: str) -> Iterable[str]:
    if name in _OF_PATIENT:
        return (_OF_PATIENT[name](order.patient),)
    if name in _OF_ORDER:
        return (_OF_ORDER[name](order),)
    own = [each for each in order.procedures if study_instance_uid in (each.study_instance_uid, *each.former_uids)]
    return [_OF_PROCEDURE[name](order, each) for each in own or order.procedures]


def _surely_merged(connection: psycopg.Connection[Any], detail: Any) -> _Survivor | None:
    """Into whom a study's patient was merged; None if into nobody, or if that patient, or one in between, stands for nobody."""
    if detail is None:
        return None
    survivor = msgspec.convert(detail, _Survivor)
    was = Identifier(value=survivor.was)
    doubtful = is_nobodys(was) or not survivor.ids or is_nobodys(survivor.ids[0]) or merged_by_nobody(connection, was)
    return None if doubtful else survivor


def _of_survivor(patient: _Survivor, wanted: Sequence[str]) -> Edits | None:
    """Of a study without order whose patient was merged into another one."""
    values = {name: value for name in wanted if name in _OF_PATIENT and (value := _OF_PATIENT[name](patient))}
    return Edits(values=values, at=patient.at, says="of the patient into whom its patient was merged") if values else None
