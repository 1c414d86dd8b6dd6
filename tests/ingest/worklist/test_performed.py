"""Performed procedure steps (PS3.4 F.7.2): what is taken, refused, kept and told."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE
from pynetdicom.sop_class import ModalityPerformedProcedureStep  # type: ignore[attr-defined]  # made at import

from hilum.asking import ready
from hilum.dicom import tag_of
from hilum.errors import TryAgain
from hilum.events import ProcedureStepChanged, ResourceWanted, StepPerformed, StudyExpected, encode
from hilum.procedures import Procedures
from hilum.settings import Settings
from hilum.settings import Spool as SpoolSettings
from ingest.dicom.commands import N_CREATE_RQ, N_SET_RQ, Command
from ingest.dicom.commitment import Scu
from ingest.dicom.negotiation import PERFORMED_STEP, Context
from ingest.dicom.performed import Performing
from ingest.dicom.services import Services
from ingest.dicom.worklist_answers import PERFORMED_ANSWERS
from ingest.worklist.telling import Teller, events_of
from tests.ingest.worklist.steps import EXPLICIT, data_set, encoded, running

STEP = "2.25.500"
CREATE: dict[str, Any] = {
    "ScheduledStepAttributesSequence": {
        "StudyInstanceUID": "2.25.1",
        "AccessionNumber": "ACC1",
        "RequestedProcedureID": "RP1",
        "ScheduledProcedureStepID": "SPS1",
    },
    "PatientName": "Doe^John",
    "PatientID": "PID1",
    "PerformedProcedureStepID": "PPS1",
    "PerformedStationAETitle": "CT1",
    "PerformedProcedureStepStartDate": "20260705",
    "PerformedProcedureStepStartTime": "0801",
    "PerformedProcedureStepStatus": "IN PROGRESS",
    "PerformedSeriesSequence": [],
    "Modality": "CT",
}
SERIES: dict[str, Any] = {
    "SeriesInstanceUID": "2.25.2",
    "ProtocolName": "Thorax",
    "ReferencedImageSequence": {"ReferencedSOPClassUID": "1.2.840.10008.5.1.4.1.1.2", "ReferencedSOPInstanceUID": "2.25.3"},
    "ReferencedNonImageCompositeSOPInstanceSequence": {
        "ReferencedSOPClassUID": "1.2.840.10008.5.1.4.1.1.88.67",
        "ReferencedSOPInstanceUID": "2.25.4",
    },
}
END: dict[str, Any] = {
    "PerformedProcedureStepStatus": "COMPLETED",
    "PerformedProcedureStepEndDate": "20260705",
    "PerformedProcedureStepEndTime": "0810",
    "PerformedSeriesSequence": SERIES,
}
WRONG_ENTRY: dict[str, Any] = {
    **{keyword: value for keyword, value in END.items() if keyword != "PerformedSeriesSequence"},
    "PerformedProcedureStepStatus": "DISCONTINUED",
    "PerformedProcedureStepDiscontinuationReasonCodeSequence": {
        "CodeValue": "110514",
        "CodingSchemeDesignator": "DCM",
        "CodeMeaning": "Incorrect worklist entry selected",
    },
}


class Modality:
    """Says what it does to a `Performing`, without sockets."""

    def __init__(self, settings: Settings, performing: Performing | None = None) -> None:
        self.procedures = Procedures(settings)
        self._performing = performing or Performing(self.procedures)
        self._scu = Scu("a1", "CT1", "HILUM", "192.0.2.1")

    def _say(self, field: int, uid: str, data: bytes, sop_class: str = PERFORMED_STEP) -> tuple[int, str]:
        command = Command(field=field, message_id=1, has_data_set=True, sop_class_uid=sop_class, sop_instance_uid=uid)
        answer = self._performing.take(self._scu, command, Context(abstract_syntax=PERFORMED_STEP, transfer_syntax=EXPLICIT), data)
        return answer.status, answer.comment

    def create(self, uid: str = STEP, *, without: str = "", **changes: Any) -> tuple[int, str]:
        keys = {keyword: value for keyword, value in (CREATE | changes).items() if keyword != without}
        return self._say(N_CREATE_RQ, uid, encoded(data_set(keys)))

    def set(self, keys: dict[str, Any], uid: str = STEP) -> tuple[int, str]:
        return self._say(N_SET_RQ, uid, encoded(data_set(keys)))

    def events(self) -> list[ProcedureStepChanged]:
        return [each.event for each in self.procedures.untold()]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data=str(tmp_path), spool=SpoolSettings(min_free_bytes=0))


@pytest.fixture
def modality(settings: Settings) -> Modality:
    return Modality(settings)


def test_a_step_is_begun_and_completed(modality: Modality) -> None:
    assert modality.create() == (0x0000, "")
    assert modality.set({"PerformedProcedureStepDescription": "Thorax"}) == (0x0000, "")
    assert modality.set(END) == (0x0000, "")

    first, second, last = modality.events()
    assert (first.state, first.revision, first.step_id, first.scheduled[0].accession_number) == ("in-progress", 1, "PPS1", "ACC1")
    assert (second.state, second.revision, second.description) == ("in-progress", 2, "Thorax")
    assert (last.state, last.revision, last.end_time, last.objects) == ("completed", 3, "0810", 2)
    [series] = last.series
    assert [each.sop_instance_uid for each in (*series.images, *series.non_images)] == ["2.25.3", "2.25.4"]
    assert (last.patient_name, last.calling_aet, last.key) == ("Doe^John", "CT1", "2.25.1")


@pytest.mark.parametrize(
    "keyword",
    [
        "ScheduledStepAttributesSequence",
        "PerformedProcedureStepID",
        "PerformedStationAETitle",
        "PerformedProcedureStepStartDate",
        "PerformedProcedureStepStartTime",
        "PerformedProcedureStepStatus",
        "Modality",
    ],
)
def test_without_an_attribute_of_type_1_a_step_is_not_created(modality: Modality, keyword: str) -> None:
    empty: Any = [] if keyword.endswith("Sequence") else ""
    assert modality.create(without=keyword) == (0x0120, f"Missing Attribute: {keyword}")
    assert modality.create(**{keyword: empty}) == (0x0121, f"Missing Attribute Value: {keyword}")
    assert modality.events() == []


def test_each_scheduled_step_must_have_its_study(modality: Modality) -> None:
    assert modality.create(ScheduledStepAttributesSequence={"AccessionNumber": "A"})[0] == 0x0120


def test_an_attribute_of_type_2_may_be_absent(modality: Modality) -> None:
    assert modality.create(without="PatientName")[0] == 0x0000


def test_a_step_begins_in_progress(modality: Modality) -> None:
    assert modality.create(PerformedProcedureStepStatus="COMPLETED")[0] == 0x0106


def test_a_step_is_created_once(modality: Modality) -> None:
    modality.create()

    assert modality.create(PatientName="Other") == (0x0111, "Duplicate SOP Instance")
    assert len(modality.events()) == 1


def test_a_step_that_was_not_created_cannot_be_set(modality: Modality) -> None:
    assert modality.set(END)[0] == 0x0112


@pytest.mark.parametrize("status", ["COMPLETED", "DISCONTINUED"])
def test_after_a_final_state_nothing_may_change(modality: Modality, status: str) -> None:
    modality.create()
    assert modality.set(END | {"PerformedProcedureStepStatus": status})[0] == 0x0000

    for keys in (END, {"PerformedProcedureStepDescription": "x"}, {"PerformedProcedureStepStatus": "IN PROGRESS"}):
        assert modality.set(keys) == (0x0110, "Performed Procedure Step Object may no longer be updated")
    assert len(modality.events()) == 2


@pytest.mark.parametrize("keyword", ["PerformedProcedureStepEndDate", "PerformedProcedureStepEndTime", "PerformedSeriesSequence"])
def test_a_step_is_completed_only_with_its_end_and_its_series(modality: Modality, keyword: str) -> None:
    modality.create(without="PerformedSeriesSequence")

    assert modality.set({key: value for key, value in END.items() if key != keyword}) == (0x0120, f"Missing Attribute: {keyword}")
    assert modality.set(END | {keyword: [] if keyword.endswith("Sequence") else ""})[0] == 0x0121
    assert modality.set(END)[0] == 0x0000


def test_a_step_that_was_broken_off_at_once_has_no_series(modality: Modality) -> None:
    modality.create()

    assert modality.set(WRONG_ENTRY)[0] == 0x0000
    assert modality.events()[-1].is_wrong_entry


def test_an_unknown_status_is_refused(modality: Modality) -> None:
    modality.create()

    assert modality.set({"PerformedProcedureStepStatus": "PAUSED"})[0] == 0x0106


def test_what_only_a_creation_may_say_stays_and_the_modality_is_warned(modality: Modality) -> None:
    modality.create()

    assert modality.set({"PatientName": "Other^Patient", "PerformedProcedureStepDescription": "x"})[0] == 0x0107
    last = modality.events()[-1]
    assert (last.patient_name, last.description) == ("Doe^John", "x")


@pytest.mark.parametrize("keyword", ["ServiceEpisodeID", "ServiceEpisodeDescription", "AdmissionID", "StudyID", "PerformedStationName"])
def test_no_attribute_that_the_table_does_not_allow_is_set(modality: Modality, keyword: str) -> None:
    modality.create(**{keyword: "before"})
    modality.set({keyword: "after"})

    known = modality.procedures.get(STEP)
    assert known is not None
    assert known.attributes[tag_of(keyword)]["Value"] == ["before"]


def test_text_of_two_character_sets_is_kept_together(modality: Modality) -> None:
    modality.create(SpecificCharacterSet="ISO_IR 192", PatientName="Иванов^Пётр")
    modality.set({"SpecificCharacterSet": "ISO_IR 100", "PerformedProcedureStepDescription": "Schädel"})

    last = modality.events()[-1]
    assert (last.patient_name, last.description) == ("Иванов^Пётр", "Schädel")


def test_requests_that_are_none_are_refused(modality: Modality) -> None:
    assert modality.create("not a uid")[0] == 0x0117
    assert modality.create("")[0] == 0x0117
    assert modality._say(N_CREATE_RQ, STEP, b"", "1.2.3")[0] == 0x0118
    assert modality._say(N_CREATE_RQ, STEP, b"\x08\0")[0] == 0x0110


def test_unscheduled_group_and_append_cases_are_told_as_they_are(modality: Modality) -> None:
    items = [data_set({"StudyInstanceUID": uid, "ScheduledProcedureStepID": step}) for uid, step in (("2.25.1", "A"), ("2.25.9", "B"))]
    assert modality.create(ScheduledStepAttributesSequence=items)[0] == 0x0000
    assert modality.create("2.25.501")[0] == 0x0000
    assert modality.create("2.25.502", ScheduledStepAttributesSequence={"StudyInstanceUID": "2.25.1", "AccessionNumber": ""})[0] == 0x0000

    group, appended, unscheduled = modality.events()
    assert group.study_instance_uids == ("2.25.1", "2.25.9")
    assert appended.study_instance_uids == ("2.25.1",)
    assert unscheduled.scheduled[0].step_id == ""
    assert sorted(modality.procedures.scheduled()) == [
        ("2.25.1", "A", "in-progress", False),
        ("2.25.1", "SPS1", "in-progress", False),
        ("2.25.9", "B", "in-progress", False),
    ]


def test_a_full_disk_refuses_before_anything_is_kept(tmp_path: Path) -> None:
    full = Modality(Settings(data=str(tmp_path), spool=SpoolSettings(min_free_bytes=2**60)))

    assert full.create()[0] == 0x0213
    assert full.events() == []


def test_a_receiver_that_starts_on_a_full_disk_refuses_steps_until_there_is_room(small_disk: Path) -> None:
    filler = small_disk / "filler"
    disk = os.statvfs(small_disk)
    filler.write_bytes(bytes(disk.f_bavail * disk.f_frsize))
    services = Services.of(Settings(data=str(small_disk), spool=SpoolSettings(min_free_bytes=0)), threading.Event())
    assert services.performing is not None
    modality = Modality(Settings(data=str(small_disk), spool=SpoolSettings(min_free_bytes=0)), services.performing)

    assert modality.create()[0] == 0x0213
    filler.unlink()
    assert modality.create()[0] == 0x0000


def test_a_disk_that_is_full_in_the_middle_of_it_changes_nothing_and_the_modality_may_say_it_again(small_disk: Path) -> None:
    other = small_disk / "other"
    other.write_bytes(bytes(300_000))
    modality = Modality(Settings(data=str(small_disk), spool=SpoolSettings(min_free_bytes=0)))
    kept: list[str] = []
    for uid in (f"2.25.{500 + n}" for n in range(10_000)):
        status, comment = modality.create(uid, PatientComments="x" * 4000)
        if status:
            break
        kept.append(uid)
    reference = data_set({"ReferencedSOPClassUID": "1.2.840.10008.5.1.4.1.1.2", "ReferencedSOPInstanceUID": "2.25.3"})
    refused = modality.set(END | {"PerformedSeriesSequence": {**SERIES, "ReferencedImageSequence": [reference] * 500}}, kept[0])[0]
    before = [(each.sop_instance_uid, each.revision) for each in modality.events()]
    other.unlink()
    again = [modality.set(END, kept[0])[0], modality.create(uid)[0]]

    assert (status, comment, refused) == (0x0213, "Resource limitation; try again later", 0x0213)
    assert before == [(uid, 1) for uid in kept][:100]
    assert again == [0x0000, 0x0000]
    known = modality.procedures.get(kept[0])
    assert known is not None
    assert known.state == "completed"


def test_a_disk_that_fails_is_said(settings: Settings, modality: Modality) -> None:
    assert modality.events() == []
    with sqlite3.connect(settings.spool_dir / "procedures.sqlite") as connection:
        connection.execute("DROP TABLE untold")

    assert modality.create()[0] == 0x0110


def test_it_is_on_the_disk_before_it_is_answered(settings: Settings, modality: Modality) -> None:
    modality.create()

    assert [each.event.sop_instance_uid for each in Procedures(settings).untold()] == [STEP]
    with Procedures(settings)._local.reading() as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
        assert connection.execute("PRAGMA synchronous").fetchone() == (3,)  # EXTRA: also the folder


def test_the_file_is_for_its_owner_alone(settings: Settings, modality: Modality) -> None:
    modality.create()

    assert [file.stat().st_mode & 0o077 for file in settings.spool_dir.glob("procedures.sqlite*")] == [0]


def test_what_is_told_is_forgotten_in_time_and_what_is_not_stays(modality: Modality) -> None:
    modality.create()
    modality.create("2.25.501")
    modality.procedures.told([modality.procedures.untold()[0].number])

    assert modality.procedures.forget_before(time.time() + 60) == 1
    assert modality.procedures.get(STEP) is None
    assert modality.procedures.get("2.25.501") is not None
    assert modality.procedures.scheduled() == [("2.25.1", "SPS1", "in-progress", False)]


# What is told


def told(event: ProcedureStepChanged, objects: Callable[[], Iterator[str]] = lambda: iter(()), *, hold: bool = True) -> list[Any]:
    said = [each for _, each in events_of(event, objects, hold=hold)]
    assert said.pop(1) == StepPerformed.of(event)  # what the stage `orders` is told, each time
    return said


def test_a_completed_step_says_which_objects_its_study_should_have(modality: Modality) -> None:
    modality.create()
    modality.set(END)
    begun, ended = modality.events()

    assert told(begun) == [begun]
    _, expected = told(ended, lambda: iter(["2.25.3", "2.25.4", "2.25.3"]))
    assert isinstance(expected, StudyExpected)
    assert (expected.study_instance_uid, expected.source, expected.sop_instance_uids) == ("2.25.1", "mpps", ("2.25.3", "2.25.4"))


def test_many_objects_are_named_by_several_events(modality: Modality) -> None:
    modality.create()
    modality.set(END)

    _, *expected = told(modality.events()[-1], lambda: map(str, range(9_000)))
    assert [len(each.sop_instance_uids) for each in expected] == [4_000, 4_000, 1_000]


def test_in_the_group_case_no_study_is_said_to_have_them(modality: Modality) -> None:
    items = [data_set({"StudyInstanceUID": uid}) for uid in ("2.25.1", "2.25.9")]
    modality.create(ScheduledStepAttributesSequence=items)
    modality.set(END)

    assert len(told(modality.events()[-1], lambda: iter(["2.25.3"]))) == 1


def test_a_wrong_worklist_entry_holds_the_study(modality: Modality) -> None:
    modality.create()
    modality.set(WRONG_ENTRY)
    ended = modality.events()[-1]

    _, wanted = told(ended, lambda: iter(["2.25.3"]))
    assert isinstance(wanted, ResourceWanted)
    assert (wanted.resource, wanted.held) == ("study/2.25.1", True)
    assert "110514" in wanted.why
    assert len(told(ended, hold=False)) == 1


def test_orders_are_told_of_studies_and_steps_and_of_no_number_of_a_patient_or_an_order(modality: Modality) -> None:
    modality.create()
    [event] = modality.events()
    told = StepPerformed.of(event)

    assert [(each.study_instance_uid, each.step_id) for each in told.scheduled] == [("2.25.1", "SPS1")]
    assert not any(word in encode(told) for word in (b"ACC1", b"PID1", b"Doe", b"RP1"))


class Kafka:
    """Acknowledges, or does not."""

    def __init__(self) -> None:
        self.away = False
        self.ids: list[str] = []
        self._open: list[Callable[[Any, Any], None]] = []

    def produce(self, topic: str, value: bytes, key: bytes, *, headers: Any, on_delivery: Callable[[Any, Any], None]) -> None:
        del topic, value, key
        self.ids.append(dict(headers)["ce_id"].decode())
        self._open.append(on_delivery)

    def poll(self, timeout: float) -> int:
        del timeout
        return 0

    def flush(self, timeout: float) -> int:
        del timeout
        if self.away:
            return len(self._open)
        for each in self._open:
            each(None, None)
        self._open.clear()
        return 0


def test_what_kafka_does_not_acknowledge_is_told_again_under_the_same_ids(settings: Settings, modality: Modality) -> None:
    modality.create()
    modality.set(END)
    kafka = Kafka()
    teller = Teller(settings, modality.procedures, lambda: kafka)
    kafka.away = True
    with pytest.raises(TryAgain):
        teller.tell()
    assert modality.procedures.waiting() == 2

    kafka.away = False
    assert teller.tell() == 2

    assert modality.procedures.waiting() == 0
    assert len(kafka.ids) == 10
    assert kafka.ids[:5] == kafka.ids[5:]
    assert len(set(kafka.ids)) == 5
    assert teller.tell() == 0


def test_a_step_of_very_many_objects_fits_into_an_event(modality: Modality) -> None:
    def reference(n: int) -> Dataset:
        return data_set({"ReferencedSOPClassUID": "1.2.840.10008.5.1.4.1.1.2", "ReferencedSOPInstanceUID": f"2.25.{10**37 + n}"})

    modality.create()
    assert (
        modality.set(END | {"PerformedSeriesSequence": {**SERIES, "ReferencedImageSequence": [reference(n) for n in range(9_000)]}})[0] == 0
    )

    last = modality.events()[-1]
    assert (last.objects, last.references_cut, last.series[0].images) == (9_001, True, ())


# On the receiver's sockets


def test_pynetdicom_performs_a_step(tmp_path: Path) -> None:
    with running(tmp_path) as receiver:
        ae = AE(ae_title="CT1")
        ae.add_requested_context(ModalityPerformedProcedureStep, [EXPLICIT])
        association = ae.associate("127.0.0.1", receiver.port, ae_title="HILUM")
        try:
            answers = []
            for ask, said in [
                (association.send_n_create, CREATE),
                (association.send_n_create, CREATE),
                (association.send_n_set, END),
                (association.send_n_set, END),
            ]:
                ready(association)
                answer, _ = ask(data_set(said), ModalityPerformedProcedureStep, STEP)
                answers.append(answer)
        finally:
            association.release()
        assert [each.Status for each in answers] == [0x0000, 0x0111, 0x0000, 0x0110]
        assert answers[-1].ErrorID == 0xA710
        assert answers[-1].ErrorComment == "Performed Procedure Step Object may no longer be updated"
        events = [each.event for each in Procedures(receiver.settings).untold()]
        assert [(each.state, each.peer) for each in events] == [("in-progress", "127.0.0.1"), ("completed", "127.0.0.1")]


def test_every_comment_fits_into_its_element() -> None:
    assert all(len(each.comment) <= 64 and each.comment.isascii() for each in PERFORMED_ANSWERS)
