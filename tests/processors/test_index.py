from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import Raw
from msgspec.structs import replace
from psycopg.rows import dict_row

from hilum.database import connect
from hilum.database.known import IndexedInstances
from hilum.database.troubles import failed_rules, stuck_studies, studies_with_failed_rules
from hilum.dicom.lossy import Lossy
from hilum.errors import Reason
from hilum.events import (
    AssociationEnded,
    ContextResult,
    Event,
    Finding,
    InputEvent,
    InstanceAccepted,
    InstanceQuarantined,
    InstanceReceived,
    InstanceRouted,
    MatchChanged,
    MessageReceived,
    MessageRefused,
    MessageValidated,
    OrderChanged,
    PatientChanged,
    PlannedDelivery,
    ProcedureStepChanged,
    RuleFailure,
    StudyChanged,
)
from hilum.runtime.tables import Envelope, events_of
from hilum.settings import Postgres, Settings
from hilum.testing import an_instance
from processors.index import LONGEST_TEXT, Index

pytestmark = pytest.mark.system
NOON = datetime(2024, 2, 29, 12, tzinfo=UTC)
TABLES = ("receipt", "study", "series", "instance", "quarantine", "study_state", "withdrawn")


def accepted(received: InstanceReceived, *findings: Finding) -> InstanceAccepted:
    return InstanceAccepted.following(received, findings)


def changed(change: str, revision: int, second: int, **what: Any) -> StudyChanged:
    return StudyChanged(
        study_instance_uid="2.25.1",
        change=change,
        revision=revision,
        instances=second,
        changed_at=NOON + timedelta(seconds=second),
        **what,
    )


def routed(received: InstanceReceived, *destinations: str, decision: str = "deliver", revision: int = 0) -> InstanceRouted:
    of = received.instance
    return InstanceRouted(
        receipt=of.receipt,
        study_instance_uid=of.study_instance_uid,
        series_instance_uid=of.series_instance_uid,
        sop_instance_uid=of.sop_instance_uid,
        sop_class_uid=of.sop_class_uid,
        transfer_syntax_uid=of.transfer_syntax_uid,
        object=of.object,
        received_at=of.received_at,
        decision=decision,  # type: ignore[arg-type]  # one of the literals
        deliveries=tuple(PlannedDelivery(delivery_id=f"{of.receipt}-{name}", destination=name, rules=("all",)) for name in destinations),
        config_version="0123456789ab",
        decided_at=NOON + timedelta(seconds=2),
        revision=revision,
    )


def quarantined(received: InstanceReceived, stage: str = "validate", at: datetime = NOON) -> InstanceQuarantined:
    of = received.instance
    return InstanceQuarantined(
        receipt=of.receipt,
        study_instance_uid=of.study_instance_uid,
        series_instance_uid=of.series_instance_uid,
        sop_instance_uid=of.sop_instance_uid,
        stage=stage,
        reason=Reason.UID_INVALID,
        sentence="A UID is no UID.",
        fix="Correct it.",
        found="1.2.x",
        quarantined_at=at,
        input=InputEvent(type="imaging.instance.received.v1", id=of.receipt, data=Raw(b'{"instance": {}}')),
    )


def said(event: Event) -> tuple[Event, Envelope]:
    """The event with an envelope that is the same each time."""
    what = type(event).__name__
    if isinstance(event, StudyChanged):
        return event, Envelope(id=f"{event.change}/{event.revision}", time=event.changed_at, traceparent="")
    receipt = event.instance.receipt if isinstance(event, InstanceReceived | InstanceAccepted) else event.receipt  # type: ignore[attr-defined]  # all others have one
    stage = event.stage if isinstance(event, InstanceQuarantined) else ""
    trace = f"00-{'1' * 32}-{abs(hash(what)) % 10**16:016d}-01"
    return event, Envelope(id=f"{receipt}/{what}/{stage}", time=NOON + timedelta(seconds=1), traceparent=trace)


def write(connection: psycopg.Connection, *events: Event) -> None:
    Index().apply(connection, [said(event) for event in events])  # type: ignore[misc]  # the events of these tests are those it reads


def rows(connection: psycopg.Connection, table: str) -> list[dict[str, Any]]:
    return connection.cursor(row_factory=dict_row).execute(f"SELECT * FROM {table} AS t ORDER BY t::text").fetchall()  # noqa: S608  # a table's name


def row(connection: psycopg.Connection, table: str) -> dict[str, Any]:
    [only] = rows(connection, table)
    return only


@pytest.fixture
def connection(postgres: str) -> Iterator[psycopg.Connection]:
    with connect(postgres) as opened:
        yield opened


def test_the_index_reads_all_but_deliveries_commands_and_what_stages_ask_of_each_other() -> None:
    said = {InstanceReceived, InstanceAccepted, InstanceQuarantined, InstanceRouted, StudyChanged, AssociationEnded}
    of_orders = {OrderChanged, PatientChanged, MatchChanged, ProcedureStepChanged}
    of_messages = {MessageReceived, MessageRefused, MessageValidated}
    assert set(events_of(Index())) == said | of_orders | of_messages


def test_an_association_is_a_row_once_however_often_it_is_told(connection: psycopg.Connection) -> None:
    context = ContextResult(id=1, abstract_syntax="1.2.840.10008.5.1.4.1.1.2", transfer_syntaxes=("1.2.840.10008.1.2",), result=3)
    event = AssociationEnded(
        association="a1",
        calling_aet="CT1",
        called_aet="HILUM",
        peer="192.0.2.7",
        contexts=(context,),
        ended="released",
        objects=2,
        size_bytes=7,
        statuses={"0x0000": 2},
        opened_at=NOON,
        ended_at=NOON + timedelta(seconds=3),
    )
    for _ in range(2):
        Index().apply(connection, [(event, Envelope(id="a1", time=NOON, traceparent=""))])

    association = row(connection, "association")
    assert (association["calling_aet"], association["refused"], association["statuses"]) == ("CT1", None, {"0x0000": 2})
    assert association["contexts"][0]["result"] == 3


def test_a_received_instance_is_a_receipt_and_not_yet_a_study(connection: psycopg.Connection) -> None:
    write(connection, an_instance())

    receipt = row(connection, "receipt")
    assert receipt["received"]
    assert receipt["accepted_at"] is None
    assert receipt["decision"] is None
    assert (receipt["calling_aet"], receipt["called_aet"], receipt["adapter"]) == ("CT1", "HILUM", "dicom")
    assert (receipt["object_key"], receipt["size_bytes"]) == ("2.25.1/2.25.2/2.25.3/object.dcm", 528_000)
    assert rows(connection, "study") == []


def test_an_accepted_instance_can_be_found_by_study_series_and_instance(connection: psycopg.Connection) -> None:
    write(
        connection, accepted(an_instance(Rows=512, Columns=256, InstanceNumber=7, KVP="120"), Finding(code="private", sentence="Private."))
    )

    study, series, instance = row(connection, "study"), row(connection, "series"), row(connection, "instance")
    assert (study["patient_id"], study["patient_name"], study["accession_number"]) == ("MRN-1", "Marked^Patient", "A-1")
    assert (series["modality"], series["study_instance_uid"]) == ("CT", "2.25.1")
    assert series["header"]["00180060"]["Value"] == [120] or series["header"]["00180060"]["Value"] == ["120"]
    assert (instance["rows"], instance["columns"], instance["instance_number"]) == (512, 256, "7")
    assert row(connection, "receipt")["findings"] == [{"code": "private", "sentence": "Private."}]


def test_what_left_de_identified_and_comes_back_is_a_receipt_and_no_study(postgres: str, connection: psycopg.Connection) -> None:
    made = Lossy(ratio=10.0).uid_of("2.25.3")  # a UUID of version 8, as pseudonyms are
    connection.execute("TRUNCATE deidentified")
    connection.execute(
        "INSERT INTO deidentified (delivery_id, destination, policy, policy_version, key_id, study_instance_uid, sop_instance_uid,"
        " sent_study, sent_series, sent_as) VALUES ('d', 'study', 'basic', 'v', 'k', '2.25.1', '2.25.3', '2.25.8', '2.25.9', %s),"
        " ('e', 'study', 'keeps', 'v', 'k', '2.25.1', '2.25.3', '2.25.1', '2.25.2', '2.25.3')",
        (made,),
    )
    received = an_instance(SOPInstanceUID=made, StudyInstanceUID="2.25.8")

    write(connection, received, accepted(received), routed(received, decision="returned"))

    assert row(connection, "receipt")["decision"] == "returned"
    assert rows(connection, "study") == rows(connection, "series") == rows(connection, "instance") == []
    known = IndexedInstances(Settings(postgres=Postgres(dsn=postgres)))
    assert known.made_here([made, "2.25.3"]) == {made}
    connection.execute("TRUNCATE deidentified")


def test_a_decision_names_the_deliveries_that_are_to_be_expected(connection: psycopg.Connection) -> None:
    write(connection, routed(an_instance(), "archive", "pacs"))

    receipt = row(connection, "receipt")
    assert (receipt["decision"], receipt["delivery_ids"]) == ("deliver", ["receipt-1-archive", "receipt-1-pacs"])
    assert receipt["expected_deliveries"] == 2


def test_a_decision_for_no_destination_expects_nothing(connection: psycopg.Connection) -> None:
    write(connection, routed(an_instance(), decision="no-rule"))

    assert row(connection, "receipt")["expected_deliveries"] == 0


def test_a_quarantined_event_is_kept_whole_and_marks_its_receipt(connection: psycopg.Connection) -> None:
    write(connection, quarantined(an_instance()))

    waiting, receipt = row(connection, "quarantine"), row(connection, "receipt")
    assert (waiting["stage"], waiting["reason"], waiting["found"], waiting["state"]) == ("validate", "uid-invalid", "1.2.x", "waiting")
    assert bytes(waiting["input"]) == b'{"instance": {}}'
    assert (receipt["quarantine_reason"], receipt["quarantine_stage"]) == ("uid-invalid", "validate")


def test_a_series_is_described_by_its_first_received_instance(connection: psycopg.Connection) -> None:
    first = an_instance(receipt="b", SOPInstanceUID="2.25.31", SeriesDescription="first", received_at=NOON)
    later = an_instance(receipt="a", SOPInstanceUID="2.25.32", SeriesDescription="later", received_at=NOON + timedelta(seconds=1))
    write(connection, accepted(later))
    assert row(connection, "series")["series_description"] == "later"

    write(connection, accepted(first))

    series = row(connection, "series")
    assert series["series_description"] == "first"
    assert series["header"]["0008103E"]["Value"] == ["first"]


def test_the_first_receipt_of_an_instance_is_the_one_that_the_index_shows(connection: psycopg.Connection) -> None:
    write(connection, accepted(an_instance(receipt="a", sha256="a" * 64)))
    write(connection, accepted(an_instance(receipt="b", sha256="b" * 64, received_at=NOON + timedelta(hours=1))))

    assert row(connection, "instance")["receipt"] == "a"
    assert [each["receipt"] for each in rows(connection, "receipt")] == ["a", "b"]


def test_nul_in_a_text_and_a_text_beyond_measure_stop_nobody(connection: psycopg.Connection) -> None:
    write(connection, accepted(an_instance(AccessionNumber="A\0B" + "1" * 70_000, SeriesDescription="nul\0 and back\\u0000slash", Rows=-1)))

    assert row(connection, "study")["accession_number"] == ("AB" + "1" * 70_000)[: LONGEST_TEXT - 1]
    assert row(connection, "series")["header"]["0008103E"]["Value"] == ["nul and back\\u0000slash"]
    assert row(connection, "instance")["rows"] is None


def test_an_unusable_uid_of_any_length_gets_its_receipt(connection: psycopg.Connection) -> None:
    write(connection, an_instance(SOPInstanceUID="".join(str(7**n) for n in range(400)), StudyInstanceUID=""))

    receipt = row(connection, "receipt")
    assert len(receipt["sop_instance_uid"]) == LONGEST_TEXT
    assert receipt["study_instance_uid"] is None


def test_a_value_that_was_cut_from_the_event_is_unknown_here(connection: psycopg.Connection) -> None:
    write(connection, accepted(an_instance(StudyDescription=None, header_cut=("00081030",))))

    assert row(connection, "study")["study_description"] is None


def test_what_waited_for_its_study_has_its_later_decision_and_all_its_deliveries(connection: psycopg.Connection) -> None:
    one = an_instance()
    write(connection, routed(one, "archive"), routed(one, "pacs", revision=1))
    write(connection, routed(one, decision="waits"))

    receipt = row(connection, "receipt")
    assert (receipt["decision"], receipt["delivery_ids"]) == ("deliver", ["receipt-1-archive", "receipt-1-pacs"])


def test_a_study_that_is_stuck_says_why_until_it_is_complete(postgres: str, connection: psycopg.Connection) -> None:
    write(connection, changed("opened", 1, 1), changed("stuck", 1, 2, reason="rule-failed", says="Rule 'ct' divides by zero."))
    assert (row(connection, "study_state")["state"], row(connection, "study_state")["says"]) == ("open", "Rule 'ct' divides by zero.")
    assert [each.says for each in stuck_studies(postgres)] == ["Rule 'ct' divides by zero."]

    write(connection, changed("completed", 1, 3, reason="idle"))
    assert (row(connection, "study_state")["state"], row(connection, "study_state")["says"]) == ("complete", None)


def test_a_study_is_shown_with_its_revision_and_why_it_is_complete(connection: psycopg.Connection) -> None:
    write(connection, accepted(an_instance()), changed("opened", 1, 1), changed("completed", 1, 2, reason="idle", missing=3))

    study = row(connection, "v_study")
    assert (study["state"], study["revision"], study["reason"], study["missing_count"]) == ("complete", 1, "idle", 3)
    assert study["completed_at"] == NOON + timedelta(seconds=2)


def test_an_object_on_which_a_rule_failed_is_kept_as_it_came_until_other_rules_have_decided(
    postgres: str, connection: psycopg.Connection
) -> None:
    received = an_instance()
    failed = (RuleFailure(rule="bad", says="Rule 'bad' could not be evaluated: division by zero."),)
    write(connection, accepted(received), replace(routed(received, "archive"), failed=failed, config_version="v1"))
    uid, study = received.instance.sop_instance_uid, received.instance.study_instance_uid
    known = IndexedInstances(Settings(postgres=Postgres(dsn=postgres)))

    [said] = failed_rules(postgres, study=study)
    assert (said.says, said.objects, said.studies) == (failed[0].says, 1, 1)
    assert studies_with_failed_rules(postgres, "v2") == [study]
    assert studies_with_failed_rules(postgres, "v1") == []
    assert known.failing_of([study]) == {study: [uid]}
    assert known.failing([uid], "v1", 10) == {}
    came = known.failing([uid], "v2", 10)[uid].instance
    assert (came.object, came.source, came.received_at) == (
        received.instance.object,
        received.instance.source,
        received.instance.received_at,
    )

    write(connection, replace(routed(received, "pacs"), mended=True))

    assert failed_rules(postgres) == []


def _events() -> list[Event]:
    """Six arrivals: two of one instance, two instances of a series, one released from quarantine, one refused, one that waited for its
    study and was withdrawn; and what became of that study."""
    one = an_instance(receipt="1", SOPInstanceUID="2.25.31", SeriesDescription="one")
    again = an_instance(receipt="2", SOPInstanceUID="2.25.31", SeriesDescription="again")  # in the same moment
    other = an_instance(receipt="3", SOPInstanceUID="2.25.32", SeriesDescription="other", received_at=NOON - timedelta(seconds=1))
    released = an_instance(receipt="4", SOPInstanceUID="2.25.33", SeriesInstanceUID="2.25.22", received_at=NOON + timedelta(seconds=1))
    refused = an_instance(receipt="5", SOPInstanceUID="", StudyInstanceUID="2.25.1")
    waited = an_instance(receipt="6", SOPInstanceUID="2.25.34", received_at=NOON + timedelta(seconds=2))
    return [
        *(one, accepted(one), routed(one, "archive", "pacs")),
        *(again, accepted(again), routed(again, decision="duplicate")),
        *(other, accepted(other, Finding(code="a", sentence="A.")), routed(other, "archive")),
        *(released, quarantined(released), quarantined(released, "route", NOON + timedelta(seconds=5)), accepted(released)),
        routed(released, decision="no-rule"),
        *(refused, quarantined(refused)),
        *(
            waited,
            accepted(waited),
            routed(waited, decision="waits"),
            routed(waited, "pacs", revision=1),
            routed(waited, decision="withdrawn"),
        ),
        *(changed("opened", 1, 1), changed("completed", 1, 2, reason="idle"), changed("reopened", 2, 3, reason="images")),
        changed("withdrawn", 2, 4, note="2.25.80", code="113001", sop_instance_uids=("2.25.34", "2.25.35"), withdrawn=1),
    ]


EVENTS = _events()
WAYS = st.lists(st.sampled_from(range(len(EVENTS))), max_size=15).flatmap(
    lambda repeats: st.permutations([*range(len(EVENTS)), *repeats]).flatmap(
        lambda order: st.lists(st.integers(1, len(order) - 1), max_size=6).map(lambda cuts: (order, sorted({0, *cuts, len(order)})))
    )
)


@pytest.fixture
def written(postgres: str) -> Iterator[tuple[psycopg.Connection, list[list[dict[str, Any]]]]]:
    """A connection whose transaction is never committed, and what the tables hold when each event comes once, in order, alone."""
    with connect(postgres, autocommit=False) as opened:
        for event in EVENTS:
            write(opened, event)
        expected = [rows(opened, table) for table in TABLES]
        opened.rollback()
        yield opened, expected


@given(WAYS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_tables_are_the_same_whatever_the_order_batches_and_repeats(
    written: tuple[psycopg.Connection, list[list[dict[str, Any]]]], way: tuple[Sequence[int], list[int]]
) -> None:
    connection, expected = written
    order, cuts = way
    try:
        for start, end in pairwise(cuts):
            write(connection, *(EVENTS[number] for number in order[start:end]))
        assert [rows(connection, table) for table in TABLES] == expected
    finally:
        connection.rollback()


@pytest.mark.parametrize("together", [False, True])
def test_a_later_note_of_another_study_takes_the_place_of_one_that_named_what_never_came(
    connection: psycopg.Connection, together: bool
) -> None:
    first = changed("withdrawn", 1, 1, note="2.25.80", code="113001", sop_instance_uids=("2.25.3",))
    later = replace(changed("withdrawn", 1, 2, note="2.25.81", code="113001", sop_instance_uids=("2.25.3",)), study_instance_uid="2.25.2")
    for events in [(first, later)] if together else [(first,), (later,), (first,)]:
        write(connection, *events)

    named = row(connection, "withdrawn")
    assert (named["note"], named["study_instance_uid"]) == ("2.25.81", "2.25.2")
