"""Messages for HL7 destinations: from events into the ledger, and from there to the receiver by a delivery worker."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import psycopg
import pytest
from msgspec import Raw
from msgspec.structs import replace

from hilum import bus
from hilum.database import connect
from hilum.database.told import begin
from hilum.errors import Reason, TryAgain
from hilum.events import (
    DeliverySettled,
    InputEvent,
    InstanceAccepted,
    InstanceQuarantined,
    MatchChanged,
    MessageReceived,
    OrderChanged,
    PatientChanged,
    ProcedureStepChanged,
    StudyChanged,
)
from hilum.hl7.message import parse
from hilum.notices import message_destinations
from hilum.order_events import Identifier, Patient
from hilum.procedure_events import PerformedOf
from hilum.runtime.delivery.queue import Queue
from hilum.runtime.delivery.worker import Shared, Worker
from hilum.runtime.tables import Envelope, events_of
from hilum.settings import Postgres, Settings
from hilum.sink import sinks_of
from hilum.testing import MemoryStore, an_instance, eventually
from processors.index import Index
from processors.notices import Notices
from tests.ingest.worklist.steps import a_step, an_order
from tests.mllp_receiver import Receiver, acknowledgement, receiver

pytestmark = pytest.mark.system
NOW = datetime.now(UTC)
STUDY = "2.25.101"
STEPS = ("step-started", "step-completed", "step-discontinued")
OF_ORDERS = ("order-scheduled", "order-started", "order-completed", "order-discontinued")
EVERYTHING = ("study-opened", "study-completed", "delivered", "quarantined", *STEPS, *OF_ORDERS, "message")


class Hospital:
    """A database with a study and its order, and HL7 destinations, which begin when it is started."""

    def __init__(self, dsn: str, since: datetime | None = None, **destinations: dict[str, Any]) -> None:
        tables = {name: {"type": "hl7", "host": "127.0.0.1", "port": 1, **table} for name, table in destinations.items()}
        pacs = {"type": "folder", "path": "/nowhere"}
        self.settings = Settings(postgres=Postgres(dsn=dsn), destinations={"pacs": pacs, **tables})
        self.notices = Notices(self.settings)
        self.connection = connect(dsn)
        begin(self.connection, message_destinations(self.settings.destinations), since)

    def told(self, *events: Any, at: datetime | None = None) -> list[tuple[str, str]]:
        """Apply events; kind and destination of what is in the ledger."""
        moment = at or datetime.now(UTC)
        with self.connection.transaction():
            self.notices.apply(
                self.connection, [(event, Envelope(id=str(n), time=moment, traceparent="")) for n, event in enumerate(events)]
            )
        rows = self.connection.execute("SELECT kind, destination FROM hl7_outgoing ORDER BY number").fetchall()
        return [(kind, destination) for kind, destination in rows]

    def texts(self) -> list[str]:
        return [text for (text,) in self.connection.execute("SELECT text FROM hl7_outgoing ORDER BY number")]

    def index(self, *events: Any) -> None:
        with self.connection.transaction():
            Index().apply(self.connection, [(event, Envelope(id=str(n), time=NOW, traceparent="")) for n, event in enumerate(events)])


@pytest.fixture
def hospital(postgres: str) -> Iterator[Hospital]:
    found = Hospital(postgres, ris={"on": EVERYTHING, "delivered_to": ["pacs"]}, quiet={"on": []})
    instance = an_instance(StudyInstanceUID=STUDY, PatientID="PID1", PatientName="Doe^John", AccessionNumber="ACC1")
    found.index(InstanceAccepted.following(instance), OrderChanged(order=_order(), change="new", changed_at=NOW))
    yield found
    found.connection.close()


def _order() -> Any:
    return replace(an_order("1", a_step("1", "202607050800")), placer=Identifier(value="P1"), filler=Identifier(value="F1"))


def a_change(change: str, revision: int = 1) -> StudyChanged:
    return StudyChanged(study_instance_uid=STUDY, change=change, revision=revision, instances=3, changed_at=NOW)


def a_match(*order_ids: str) -> MatchChanged:
    said: dict[str, Any] = {"outcome": "matched", "cause": "images", "version": 1, "changed_at": NOW}
    return MatchChanged(about="study", study_instance_uid=STUDY, order_ids=order_ids, **said)


def a_step_event(state: Any, revision: int) -> ProcedureStepChanged:
    return ProcedureStepChanged(
        sop_instance_uid="2.25.500",
        revision=revision,
        state=state,
        study_instance_uid=STUDY,
        scheduled=(PerformedOf(study_instance_uid=STUDY, step_id="SPS1", placer_number="P7"),),
        changed_at=NOW,
    )


def a_message(number: int) -> MessageReceived:
    text = f"MSH|^~\\&|RIS||HILUM||20260101||ADT^A08|C{number}|P|2.5\rPID|1\r"
    said: dict[str, Any] = {"code": "ADT", "trigger": "A08", "sha256": "0" * 64, "text": text}
    return MessageReceived(message_id=f"m{number}", received_at=NOW, control_id=f"C{number}", size_bytes=1, **said)


def a_quarantine(instance: str, reason: Reason = Reason.IDENTIFIER_MISSING) -> InstanceQuarantined:
    return InstanceQuarantined(
        receipt=instance,
        study_instance_uid=STUDY,
        series_instance_uid="",
        sop_instance_uid=instance,
        stage="validate",
        reason=reason,
        sentence="",
        fix="",
        quarantined_at=NOW,
        input=InputEvent(type="t", id="1", data=Raw(b"{}")),
    )


def a_settled() -> DeliverySettled:
    return DeliverySettled(
        delivery_id="d",
        receipt="r",
        destination="pacs",
        study_instance_uid=STUDY,
        series_instance_uid="",
        sop_instance_uid="2.25.3",
        sha256="",
        state="delivered",
        attempts=1,
        config_version="",
        settled_at=NOW,
    )


def test_it_reads_what_may_be_told(postgres: str) -> None:
    assert set(events_of(Notices(Settings(postgres=Postgres(dsn=postgres))))) == {
        StudyChanged,
        DeliverySettled,
        InstanceQuarantined,
        ProcedureStepChanged,
        MessageReceived,
        OrderChanged,
    }


def test_a_study_is_told_with_its_patient_and_its_order(hospital: Hospital) -> None:
    assert hospital.told(a_change("opened", 0), a_change("completed")) == [("study-opened", "ris"), ("study-completed", "ris")]

    message = parse(hospital.texts()[1])
    assert (message.get("PID-3"), message.get("PID-5"), message.get("OBR-2"), message.get("OBR-3"), message.get("OBR-18")) == (
        "PID1",
        "Doe",
        "P1",
        "F1",
        "ACC1",
    )
    assert {segment.get(3): segment.get(5) for segment in message.segments("OBX")}["HILUM-INSTANCES"] == "3"


def test_a_study_is_told_as_of_who_its_patient_is_after_merges(hospital: Hospital) -> None:
    said: dict[str, Any] = {"version": 1, "change": "updated", "said_at": NOW, "changed_at": NOW}
    stays = Patient(key="stays", ids=(Identifier(value="PID2", issuer="NORTH"),), name="Roe^Jane")
    hospital.index(
        PatientChanged(patient=stays, **said),
        PatientChanged(patient=Patient(key="gone", ids=(Identifier(value="PID1"),)), merged_into="stays", **said),
    )
    hospital.told(a_change("completed"))

    message = parse(hospital.texts()[0])
    assert (message.get("PID-3.1"), message.get("PID-3.4"), message.get("PID-5.1")) == ("PID2", "NORTH", "Roe")


def test_each_order_of_a_study_is_told_that_was_matched_with_it(hospital: Hospital) -> None:
    other = replace(an_order("2", a_step("2", "202607050800")), placer=Identifier(value="P2"), accession=Identifier(value="ACC2"))
    hospital.index(OrderChanged(order=other, change="new", changed_at=NOW), a_match("o1", "o2"))
    told = hospital.told(a_change("completed"))

    assert hospital.told(a_change("completed")) == told == [("study-completed", "ris")] * 2
    messages = [parse(text) for text in hospital.texts()]
    assert [(each.get("OBR-2"), each.get("OBR-18")) for each in messages] == [("P1", _order().accession.value), ("P2", "ACC2")]
    assert len({each.get("MSH-10") for each in messages}) == 2


def test_a_study_with_a_uid_of_its_own_is_told_with_the_order_that_its_accession_number_named(hospital: Hospital) -> None:
    other = replace(an_order("2", a_step("2", "202607050800")), placer=Identifier(value="P2"))
    hospital.index(OrderChanged(order=other, change="new", changed_at=NOW), a_match("o2"))
    hospital.told(a_change("completed"))

    assert [parse(text).get("OBR-2") for text in hospital.texts()] == ["P2"]


def test_each_fact_is_told_once_however_often_it_comes(hospital: Hospital) -> None:
    again = [a_change("completed"), a_step_event("in-progress", 1), a_step_event("in-progress", 2), a_message(1), a_quarantine("a")]

    first = hospital.told(*again, a_quarantine("b"))
    assert first == [("study-completed", "ris"), ("step-started", "ris"), ("message", "ris"), ("quarantined", "ris")]
    assert hospital.told(*again) == first
    assert len(hospital.told(a_change("completed", 2), a_step_event("completed", 3), a_message(2))) == 7
    assert parse(hospital.texts()[1]).get("OBR-2") == "P7"


def test_an_order_is_told_as_modalities_make_it_and_not_what_its_own_messages_say(hospital: Hospital) -> None:
    def changed(change: str, status: Any, version: int, performed: Any = "") -> OrderChanged:
        return OrderChanged(order=replace(_order(), status=status, version=version, performed=performed), change=change, changed_at=NOW)

    said = [
        changed("new", "scheduled", 1),
        changed("performed", "in-progress", 2, "in-progress"),
        changed("status", "in-progress", 3, "in-progress"),
        changed("performed", "completed", 4, "completed"),
        changed("performed", "cancelled", 5, "completed"),
    ]
    told = hospital.told(*said)

    assert hospital.told(*said) == told == [("order-started", "ris"), ("order-completed", "ris")]
    message = parse(hospital.texts()[1])
    assert (message.get("OBR-2"), message.get("PID-3.1")) == ("P1", _order().patient.ids[0].value)


def test_a_step_is_told_as_of_who_its_patient_is_after_merges(hospital: Hospital) -> None:
    said: dict[str, Any] = {"version": 1, "change": "updated", "said_at": NOW, "changed_at": NOW}
    hospital.index(
        PatientChanged(patient=Patient(key="stays", ids=(Identifier(value="PID2"),), name="Roe^Jane"), **said),
        PatientChanged(patient=Patient(key="gone", ids=(Identifier(value="PID1"),)), merged_into="stays", **said),
    )
    hospital.told(replace(a_step_event("completed", 1), patient_id="PID1", patient_name="Doe^John"))

    message = parse(hospital.texts()[0])
    assert (message.get("PID-3.1"), message.get("PID-5.1")) == ("PID2", "Roe")


def test_what_was_before_a_destination_was_there_is_not_told(hospital: Hospital) -> None:
    assert hospital.told(a_change("completed"), at=NOW - timedelta(days=1)) == []


def test_a_study_that_the_index_does_not_have_yet_is_waited_for_and_not_for_ever(postgres: str) -> None:
    hospital = Hospital(postgres, NOW - timedelta(days=1), ris={"on": EVERYTHING, "delivered_to": ["pacs"]})
    unknown = StudyChanged(study_instance_uid="2.25.9", change="completed", revision=1, instances=1, changed_at=NOW)
    with pytest.raises(TryAgain):
        hospital.told(unknown)

    assert hospital.told(unknown, at=NOW - timedelta(minutes=2)) == [("study-completed", "ris")]
    hospital.connection.close()


def test_a_study_is_delivered_once_it_is_complete_and_nothing_of_it_is_pending(hospital: Hospital) -> None:
    def deliver(state: str, delivery: str) -> None:
        hospital.connection.execute(
            "INSERT INTO delivery (delivery_id, destination, receipt, study_instance_uid, sop_instance_uid, state)"
            " VALUES (%(id)s, 'pacs', 'r', %(study)s, %(id)s, %(state)s)"
            " ON CONFLICT (delivery_id) DO UPDATE SET state = excluded.state",
            {"id": delivery, "study": STUDY, "state": state},
        )

    deliver("delivered", "d1")
    assert hospital.told(a_settled()) == []  # it is not complete
    hospital.index(a_change("completed"))
    deliver("pending", "d2")
    assert hospital.told(a_settled()) == []
    deliver("delivered", "d2")
    assert hospital.told(a_settled(), a_settled()) == [("delivered", "ris")]
    assert hospital.told(a_settled()) == [("delivered", "ris")]


def test_messages_of_others_keep_their_control_id_and_their_order(hospital: Hospital) -> None:
    hospital.told(*(a_message(n) for n in range(5)))

    assert [parse(text).get("MSH-10") for text in hospital.texts()] == ["C0", "C1", "C2", "C3", "C4"]


def test_each_message_of_a_modality_is_passed_on_once(postgres: str) -> None:
    hospital = Hospital(postgres, mpps={"type": "mpps", "aet": "RIS"})
    said = {"00400252": {"vr": "CS", "Value": ["IN PROGRESS"]}}
    events = [replace(a_step_event("in-progress", revision), said=said, calling_aet="CT1") for revision in (1, 2)]

    assert hospital.told(*events, *events) == [("mpps", "mpps"), ("mpps", "mpps")]

    assert ['"create":true' in text for text in hospital.texts()] == [True, False]
    hospital.connection.close()


def test_reconcile_does_not_take_messages_for_objects(hospital: Hospital) -> None:
    hospital.told(a_message(1))

    assert hospital.connection.execute("SELECT receipt, study_instance_uid, state, rules FROM delivery").fetchall() == [
        ("", "", "pending", ["message"])
    ]


class Delivering:
    """One worker for the destination."""

    def __init__(self, hospital: Hospital, port: int) -> None:
        table = {**hospital.settings.destinations["ris"], "port": port, "retry_max_s": 0.1}
        settings = replace(hospital.settings, destinations={**hospital.settings.destinations, "ris": table})
        self.stop = threading.Event()
        self.shared = Shared("ris", sinks_of(settings)["ris"])
        queue = Queue(settings.postgres.dsn, "ris", "worker", bus.Writer(settings, "deliver"))
        worker = Worker(self.shared, queue, MemoryStore(), settings, threading.Event())
        self.thread = threading.Thread(target=worker.run, args=(self.stop,))
        self.thread.start()

    def end(self) -> None:
        self.stop.set()
        self.shared.wake.set()
        self.thread.join(60)
        assert not self.thread.is_alive()


def pending(connection: psycopg.Connection) -> int:
    return int(connection.execute("SELECT count(*) FROM delivery WHERE state = 'pending'").fetchall()[0][0])


def test_messages_arrive_in_order_over_a_receiver_that_comes_and_goes(hospital: Hospital) -> None:
    count = 60

    def answer(message: Any) -> bytes | None:
        if len(peer.messages) % 17 == 0:
            raise ConnectionResetError
        return acknowledgement(message)

    peer: Receiver
    with receiver() as peer:
        peer.answer = answer
        hospital.told(*(a_message(n) for n in range(count)))
        delivering = Delivering(hospital, peer.port)
        try:
            eventually(lambda: pending(hospital.connection) == 0, what="all are delivered")
        finally:
            delivering.end()
        came = peer.control_ids
    # What was not acknowledged comes again, under the same control id; nothing overtakes it.
    assert list(dict.fromkeys(came)) == [f"C{n}" for n in range(count)]
    assert all(int(after[1:]) - int(before[1:]) in (0, 1) for before, after in pairwise(came))
    settled = hospital.connection.execute("SELECT DISTINCT state, peer_status FROM delivery").fetchall()
    assert settled == [("delivered", "AA")]


def test_what_is_rejected_for_now_is_sent_again_after_growing_pauses_and_before_all_others(hospital: Hospital) -> None:
    def answer(message: Any) -> bytes:
        return acknowledgement(message, "AR" if len(peer.messages) <= 2 else "AA")

    peer: Receiver
    with receiver() as peer:
        peer.answer = answer
        hospital.told(*(a_message(n) for n in range(40)))
        began = time.monotonic()
        delivering = Delivering(hospital, peer.port)
        try:
            eventually(lambda: pending(hospital.connection) == 0, what="all are delivered")
        finally:
            delivering.end()
        assert peer.control_ids == ["C0", "C0", *(f"C{n}" for n in range(40))]
    assert time.monotonic() - began > 0.75 * (1 + 2)  # pauses of 1 and 2 s, a quarter less at most
