"""Enter messages for HL7 and MPPS destinations into the ledger: what becomes of studies and steps, and what others said."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from msgspec.structs import replace

from hilum import telemetry
from hilum.bundle import Bundle, Following, InForce, since
from hilum.bundle import history as history_of
from hilum.database.deliveries import CHANNEL
from hilum.database.notice_facts import OfOrder, matched, of_patient, of_study, order_facts, order_of_step, orders_of
from hilum.database.told import begin, begun
from hilum.errors import TryAgain
from hilum.events import (
    DeliverySettled,
    InstanceQuarantined,
    MessageReceived,
    OrderChanged,
    ProcedureStepChanged,
    StudyChanged,
    following_id,
)
from hilum.notices import Composed, Notice, Notified
from hilum.procedure_events import PerformedOf
from hilum.role import Role
from hilum.runtime.tables import Envelope, TableRole
from hilum.settings import Settings
from hilum.sink import sinks_of

log = telemetry.logger("notices")

Said = StudyChanged | DeliverySettled | InstanceQuarantined | ProcedureStepChanged | MessageReceived | OrderChanged
#: So long a study may not be in the index yet; then its message says what is known.
_INDEXED_WITHIN = timedelta(seconds=60)
#: So long how a study fits its orders may not be known yet, where orders are matched at all.
_MATCHED_WITHIN = timedelta(seconds=5)
_LOOK_S = 0.1
#: How long messages are kept after they were entered, once they are settled.
_KEPT_DAYS = 30
_TIDY_S = 3600.0
_ORDERS = {
    "scheduled": "order-scheduled",
    "arrived": "order-scheduled",
    "in-progress": "order-started",
    "completed": "order-completed",
    "discontinued": "order-discontinued",
}
_STEP = {"in-progress": "step-started", "completed": "step-completed", "discontinued": "step-discontinued"}

_SETTLED = """
    SELECT st.revision FROM study_state st
    WHERE st.study_instance_uid = %(study)s AND st.state = 'complete' AND st.revision > 0
        AND EXISTS (SELECT FROM delivery WHERE study_instance_uid = %(study)s AND destination = %(destination)s)
        AND NOT EXISTS (
            SELECT FROM delivery WHERE study_instance_uid = %(study)s AND destination = %(destination)s AND state IN ('pending', 'parked'))
"""
_ENTER = """
    WITH entered AS (
        INSERT INTO delivery (delivery_id, destination, receipt, study_instance_uid, sop_instance_uid, rules, config_version, traceparent,
            received_at, not_before)
        VALUES (%(delivery_id)s, %(destination)s, '', '', '', %(rules)s, '', %(traceparent)s, %(at)s, clock_timestamp())
        ON CONFLICT DO NOTHING RETURNING delivery_id)
    INSERT INTO hl7_outgoing (delivery_id, destination, kind, study_instance_uid, control_id, message_id, text, content, bucket,
        object_key)
    SELECT delivery_id, %(destination)s, %(kind)s, %(study)s, %(control_id)s, %(message_id)s, %(text)s, %(content)s, %(bucket)s,
        %(object_key)s FROM entered
"""
_TIDY = """
    DELETE FROM hl7_outgoing o USING delivery d
    WHERE o.delivery_id = d.delivery_id AND o.created_at < now() - make_interval(days => %s) AND d.state NOT IN ('pending', 'parked')
"""


class Notices:
    """Reads what destinations may be told of; each of them is told once of each fact, from when it is there on."""

    name = "notices"
    apart_s = 0.1

    def __init__(
        self,
        settings: Settings,
        following: Following | None = None,
        history: Callable[[Settings], Sequence[Bundle]] = history_of,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        """`history` gives every configuration that was ever published; `pause` waits so many seconds."""
        self._pause = pause
        self._following = following
        self._settings = settings
        self._sinks: dict[str, Notified] = {}
        self._delivered_to: frozenset[str] = frozenset()
        self._since: Mapping[str, datetime] = {}
        self._begun = False
        self._history = history
        self._tidy_at = time.monotonic() + _TIDY_S
        if following is None:
            self._configure(settings)

    def _configure(self, settings: Settings) -> None:
        self._sinks = {name: sink for name, sink in sinks_of(settings).items() if isinstance(sink, Notified)}
        self._delivered_to = frozenset(each for sink in self._sinks.values() for each in getattr(sink, "delivered_to", ()))
        self._settings = settings
        self._begun = False

    def follow(self, connection: psycopg.Connection) -> None:
        """Take what is configured, and write down since when each destination is told. To be called also while nothing happens."""
        if self._following is not None:
            self._following.take(self._configure)
        if self._begun:
            return
        self._since = begun(connection)
        new = self._sinks.keys() - self._since.keys()
        if new:
            known = self._history(self._settings) if isinstance(self._settings, InForce) else []
            for name in new:
                begin(connection, [name], since(known, name))
            self._since = begun(connection)
        self._begun = True

    def apply(
        self,
        connection: psycopg.Connection,
        events: Sequence[
            tuple[StudyChanged | DeliverySettled | InstanceQuarantined | ProcedureStepChanged | MessageReceived | OrderChanged, Envelope]
        ],
    ) -> None:
        """See `hilum.runtime.tables.Tables`."""
        if not self._begun:
            self.follow(connection)
        if not self._sinks:
            return
        told: set[str] = set()
        for event, envelope in events:
            for notice in self._notices(connection, event):
                told |= self._tell(connection, notice, event, envelope)
        if told:
            connection.execute("SELECT pg_notify(%s, destination) FROM unnest(%s::text[]) AS destination", (CHANNEL, sorted(told)))
        if time.monotonic() > self._tidy_at:
            self._tidy_at = time.monotonic() + _TIDY_S
            connection.execute(_TIDY, (_KEPT_DAYS,))

    def _notices(self, connection: psycopg.Connection, event: Said) -> Iterator[Notice]:
        """What an event is to those that may be told, each with a control id that is the same whenever the event comes."""
        if isinstance(event, MessageReceived):
            if not event.replays or event.pass_on:
                yield Notice(kind="message", control_id=event.control_id, message=event)
        elif isinstance(event, ProcedureStepChanged):
            yield from _of_step(event)
            what = f"{event.sop_instance_uid}/{event.revision}"
            yield Notice(kind="mpps", study_instance_uid=event.study_instance_uid, control_id=_control_id(f"mpps/{what}"), step=event)
        elif isinstance(event, OrderChanged):
            # Only what modalities made of it: what messages say of an order, whoever sent them knows.
            if event.change == "performed" or (event.change == "new" and event.order.performed):
                yield from _of_order(event)
        elif isinstance(event, InstanceQuarantined):
            facts = {"Reason": str(event.reason), "Sentence": event.reason.meaning}
            what = event.study_instance_uid or event.receipt
            yield _of_study("quarantined", event.study_instance_uid, f"{what}/{event.reason}", facts)
        elif isinstance(event, StudyChanged):
            if event.change in ("opened", "completed"):
                kind = f"study-{event.change}"
                facts = {"Instances": str(event.instances), "Revision": str(event.revision)}
                yield _of_study(kind, event.study_instance_uid, f"{event.study_instance_uid}/{event.change}/{event.revision}", facts)
            if event.change == "completed":
                for destination in sorted(self._delivered_to):
                    yield from self._delivered(connection, event.study_instance_uid, destination)
        elif event.destination in self._delivered_to and event.study_instance_uid:
            yield from self._delivered(connection, event.study_instance_uid, event.destination)

    def _delivered(self, connection: psycopg.Connection, study: str, destination: str) -> Iterator[Notice]:
        """Once for each revision: the study is complete, and nothing of it is pending for the destination."""
        row = connection.execute(_SETTLED, {"study": study, "destination": destination}).fetchone()
        if row is not None:
            facts = {"Destination": destination, "Revision": str(row[0])}
            yield _of_study("delivered", study, f"{study}/delivered/{destination}/{row[0]}", facts)

    def _tell(self, connection: psycopg.Connection, notice: Notice, event: Said, envelope: Envelope) -> set[str]:
        """Enter the notice for all that want it; their names. Of a study that serves several orders, each order is told."""
        told: set[str] = set()
        about: list[tuple[Notice, Mapping[str, str]]] = []
        for name, sink in self._sinks.items():
            if not sink.wants(notice) or envelope.time < self._since[name]:
                continue
            about = about or list(self._about(connection, notice, envelope))
            for each, study in about:
                if each.message is None:  # two receivers may be one system, which is told two things
                    each = replace(each, control_id=_control_id(f"{each.control_id}/{name}"))
                message = sink.compose(each, study) or Composed(text="")
                source = event.message_id if isinstance(event, MessageReceived) else each.control_id
                values: dict[str, Any] = {
                    "delivery_id": following_id(f"{source}/{each.kind}", f"notices/{name}", 0),
                    "destination": name,
                    "rules": [each.kind],
                    "traceparent": envelope.traceparent,
                    "at": envelope.time,
                    "kind": each.kind,
                    "study": each.study_instance_uid,
                    "control_id": each.control_id.replace("\0", ""),  # PostgreSQL has no NUL
                    "message_id": event.message_id if isinstance(event, MessageReceived) else "",
                    "text": message.text.replace("\0", ""),
                    "content": message.content,
                    "bucket": message.bucket,
                    "object_key": message.object_key,
                }
                if connection.execute(_ENTER, values).rowcount:
                    telemetry.NOTICES.labels(notice.kind).inc()
                told.add(name)
        return told

    def _about(self, connection: psycopg.Connection, notice: Notice, envelope: Envelope) -> Iterator[tuple[Notice, Mapping[str, str]]]:
        """What is known of a notice's study and patient, of a study once for each of its orders.

        Raises `TryAgain` while the index may yet hear of the study.
        """
        if notice.message is not None or notice.step is not None:
            yield notice, {}
            return
        uid = notice.study_instance_uid
        study = of_study(connection, uid) if uid else None
        if notice.performs is not None:  # it says itself which order it is about
            order = order_of_step(connection, notice.performs)
            known = {"StudyInstanceUID": uid, **(study or {}), **order, **notice.facts}
            told = replace(notice, facts={**notice.facts, **of_patient(connection, known)})
            yield told, {"StudyInstanceUID": uid, **(study or {}), **order}
            return
        if notice.kind in _ORDERS.values():
            yield notice, {"StudyInstanceUID": uid, **(study or {})}
            return
        self._wait(connection, notice, envelope, is_known=study is not None)
        orders = orders_of(connection, uid) if uid else []
        found = {"StudyInstanceUID": uid, **(study or {})}
        found = {**found, **of_patient(connection, found)}
        for order_id, facts in orders or [OfOrder("", {})]:
            told = replace(notice, control_id=_control_id(f"{notice.control_id}/{order_id}")) if len(orders) > 1 else notice
            yield told, {**found, **facts}

    def _wait(self, connection: psycopg.Connection, notice: Notice, envelope: Envelope, *, is_known: bool) -> None:
        """Wait a while until it is known how a new study fits its orders. Raises `TryAgain` while the index may yet hear of the study."""
        age = datetime.now(UTC) - envelope.time
        uid = notice.study_instance_uid
        if not notice.kind.startswith("study-"):
            return
        if not is_known and age < _INDEXED_WITHIN:
            raise TryAgain(f"Study {uid} is not in the index yet.", after_s=0.5)
        while datetime.now(UTC) - envelope.time < _MATCHED_WITHIN and not matched(connection, uid):
            self._pause(_LOOK_S)  # here, since to read these events once more takes longer


def _of_study(kind: str, study: str, what: str, facts: Mapping[str, str]) -> Notice:
    return Notice(kind=kind, study_instance_uid=study, control_id=_control_id(f"{kind}/{what}"), facts=facts)


def _of_step(event: ProcedureStepChanged) -> Iterator[Notice]:
    """One for each order that is performed: in the group case there are several."""
    kind = _STEP[event.state]
    facts = {
        "PatientID": event.patient_id,
        "IssuerOfPatientID": event.issuer_of_patient_id,
        "PatientName": event.patient_name,
        "PatientBirthDate": event.patient_birth_date,
        "PatientSex": event.patient_sex,
        "StudyDate": event.start_date,
        "StudyTime": event.start_time,
        "StudyDescription": event.description,
        "ModalitiesInStudy": event.modality,
        "Instances": str(event.objects) if event.objects else "",
        "Reason": event.reason_code,
        "Sentence": event.reason_meaning,
    }
    for number, each in enumerate(_orders_of_step(event)):
        own = {
            "AccessionNumber": each.accession_number,
            "PlacerOrderNumber": each.placer_number,
            "FillerOrderNumber": each.filler_number,
            "RequestedProcedureID": each.procedure_id,
            "ScheduledProcedureStepID": each.step_id,
        }
        # An N-SET that changes no state is no news: it has the control id, and so the delivery, of the first of that state.
        control_id = _control_id(f"{kind}/{event.sop_instance_uid}" + f"/{number}" * bool(number))
        said = {name: value for name, value in (facts | own).items() if value}
        uid = each.study_instance_uid or event.study_instance_uid
        yield Notice(kind=kind, study_instance_uid=uid, control_id=control_id, facts=said, performs=each)


def _orders_of_step(event: ProcedureStepChanged) -> Sequence[PerformedOf]:
    """The first scheduled step of each requested procedure; the same at each change, since no N-SET changes what is performed."""
    found: dict[tuple[str, ...], PerformedOf] = {}
    for each in event.scheduled:
        key = (each.study_instance_uid, each.accession_number, each.placer_number, each.filler_number, each.procedure_id)
        found.setdefault(key, each)
    return list(found.values()) or [PerformedOf(study_instance_uid=event.study_instance_uid)]


def _of_order(event: OrderChanged) -> Iterator[Notice]:
    """The order's status as modalities have made it; none of one that a message called off or put on hold."""
    order = event.order
    if order.status not in _ORDERS or not order.procedures:
        return
    control_id = _control_id(f"order/{order.order_id}/{order.version}")
    uid = order.procedures[0].study_instance_uid
    yield Notice(kind=_ORDERS[order.status], study_instance_uid=uid, control_id=control_id, facts=order_facts(order))


def _control_id(what: str) -> str:
    """MSH-10 is at most 20 characters in most versions (HL7 v2.5.1 2.15.9.10)."""
    return "H" + following_id(what, "notices", 0).replace("-", "")[:19].upper()


class NoticesRole(TableRole):
    """The role, which follows the configuration in force."""

    def __init__(self, settings: Settings) -> None:
        self._follows = Following(settings, "notices") if settings.kafka.bootstrap else None
        self._notices = Notices(settings, self._follows)
        super().__init__(settings, self._notices)

    def between(self, connection: psycopg.Connection) -> None:
        """See `TableRole.between`."""
        with suppress(TryAgain), connection.transaction():  # where it is needed, it is tried again
            self._notices.follow(connection)

    def run(self, stop: threading.Event) -> None:
        """See `hilum.role.Role`."""
        with self._follows or nullcontext():
            super().run(stop)


def role(settings: Settings) -> Role:
    """The role `notices`."""
    return NoticesRole(settings)
