"""Queries and what PS3.4 K.6.1.2 with C.2.2.2 says they find, asked by dcmtk and pynetdicom; dcmtk's wlmscpfs beside."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.ingest.worklist.steps import ITEMS, STEP, Running, findscu, ids_of, running, steps_query, wlmscpfs

PAGE = (Path(__file__).parents[3] / "docs" / "operations" / "worklist.md").read_text(encoding="utf-8")
ALL = " ".join(ITEMS)
UNICODE = {"SpecificCharacterSet": "ISO_IR 192"}


class Row(NamedTuple):
    """A query, the steps that it finds, and the section that says so."""

    keys: dict[str, Any]
    finds: str
    section: str


TABLE = {
    "everything": Row(steps_query(), ALL, "C.2.2.2.3"),
    "one modality": Row(steps_query(Modality="CT"), "SPS1 SPS2 SPS4 SPS6 SPS9B", "C.2.2.2.1"),
    "a modality in small letters": Row(steps_query(Modality="ct"), "", "C.2.2.2.1"),
    "one station": Row(steps_query(ScheduledStationAETitle="CT1"), "SPS1 SPS4 SPS6 SPS9B", "C.2.2.2.1"),
    "the second station of a step": Row(steps_query(ScheduledStationAETitle="CT2"), "SPS2 SPS4", "C.2.2.2.1"),
    "a station in other letters": Row(steps_query(ScheduledStationAETitle="DX1"), "", "C.2.2.2.1"),
    "one day": Row(steps_query(ScheduledProcedureStepStartDate="20260706"), "SPS4 SPS5 SPS10", "C.2.2.2.1"),
    "two days": Row(steps_query(ScheduledProcedureStepStartDate="20260706-20260707"), "SPS4 SPS5 SPS6 SPS7 SPS10", "C.2.2.2.5.1"),
    "until a day": Row(steps_query(ScheduledProcedureStepStartDate="-20260705"), "SPS1 SPS2 SPS3", "C.2.2.2.5.1"),
    "from a day": Row(steps_query(ScheduledProcedureStepStartDate="20260708-"), "SPS8 SPS9 SPS9B", "C.2.2.2.5.1"),
    "a time of any day": Row(steps_query(ScheduledProcedureStepStartTime="0900-1000"), "SPS2 SPS8 SPS9", "C.2.2.2.5.2"),
    "a time by its precision": Row(steps_query(ScheduledProcedureStepStartTime="1800"), "SPS3 SPS5", "C.2.2.2.1"),
    "a time to the second": Row(steps_query(ScheduledProcedureStepStartTime="180000"), "SPS3", "C.2.2.2.1"),
    "one range of date and time": Row(
        steps_query(ScheduledProcedureStepStartDate="20260705-20260707", ScheduledProcedureStepStartTime="1000-1800"),
        "SPS2 SPS3 SPS4 SPS5 SPS6",
        "K.6.1.2.2",
    ),
    "from a moment": Row(
        steps_query(ScheduledProcedureStepStartDate="20260707-", ScheduledProcedureStepStartTime="1800-"),
        "SPS7 SPS8 SPS9 SPS9B",
        "K.6.1.2.2",
    ),
    "hours of one day": Row(
        steps_query(ScheduledProcedureStepStartDate="20260705", ScheduledProcedureStepStartTime="0900-1800"), "SPS2 SPS3", "C.2.2.2.5.2"
    ),
    "several keys, of one step": Row(
        steps_query(Modality="CT", ScheduledStationAETitle="CT1", ScheduledProcedureStepStartDate="20260709"), "SPS9B", "C.2.2.2.6"
    ),
    "a step id": Row(steps_query(ScheduledProcedureStepID="SPS9"), "SPS9", "C.2.2.2.1"),
    "a name": Row({"PatientName": "Doe^John", **steps_query()}, "SPS1", "C.2.2.2.1"),
    "a name in other letters": Row({"PatientName": "doe^jane^q", **steps_query()}, "SPS2", "C.2.2.2.1"),
    "the beginning of a name": Row({"PatientName": "DO*", **steps_query()}, "SPS1 SPS2 SPS4", "C.2.2.2.4"),
    "a family name": Row({"PatientName": "Doe^*", **steps_query()}, "SPS1 SPS2", "C.2.2.2.4"),
    "a family name without a given one": Row({"PatientName": "Smith^*", **steps_query()}, "SPS7", "PS3.5 6.2.1"),
    "one unknown letter": Row({"PatientName": "Sm?th", **steps_query()}, "SPS7", "C.2.2.2.4"),
    "a name without its accents": Row({"PatientName": "MULLER^JORG", **steps_query()}, "SPS3", "C.2.2.2.1"),
    "a name in Latin-1": Row({"SpecificCharacterSet": "ISO_IR 100", "PatientName": "müller*", **steps_query()}, "SPS3", "C.2.2.2"),
    "an ideographic name": Row({**UNICODE, "PatientName": "=山田*", **steps_query()}, "SPS5", "PS3.5 6.2.1"),
    "the alphabetic group alone": Row({"PatientName": "Yamada^Tarou", **steps_query()}, "SPS5", "PS3.5 6.2.1"),
    "a Cyrillic name": Row({**UNICODE, "PatientName": "иванов^*", **steps_query()}, "SPS6", "C.2.2.2.4"),
    "a physician": Row(steps_query(ScheduledPerformingPhysicianName="*^greg"), "SPS2", "C.2.2.2.4"),
    "a patient id": Row({"PatientID": "PID1", **steps_query()}, "SPS1", "C.2.2.2.1"),
    "a patient id in small letters": Row({"PatientID": "pid1", **steps_query()}, "", "C.2.2.2.1"),
    "an accession number": Row({"AccessionNumber": "ACC9", **steps_query()}, "SPS9 SPS9B", "C.2.2.2.1"),
    "any accession number, or none": Row({"AccessionNumber": "*", **steps_query()}, ALL, "K.2.2.1.1.1"),
    "a birth date": Row({"PatientBirthDate": "19850316", **steps_query()}, "SPS3", "C.2.2.2.1"),
    "no unknown birth date": Row(
        {"PatientBirthDate": "-20991231", **steps_query()}, " ".join(id_ for id_ in ITEMS if id_ != "SPS8"), "K.2.2.1.1.1"
    ),
    "a list of studies": Row({"StudyInstanceUID": ["2.25.101", "2.25.103"], **steps_query()}, "SPS1 SPS3", "C.2.2.2.2"),
    "a procedure": Row({"RequestedProcedureID": "RP5", **steps_query()}, "SPS5", "C.2.2.2.1"),
    "a priority": Row({"RequestedProcedurePriority": "STAT", **steps_query()}, "SPS5", "C.2.2.2.1"),
    "a code": Row({"RequestedProcedureCodeSequence": {"CodeValue": "C1"}, **steps_query()}, ALL, "C.2.2.2.6"),
    "a code that nothing has": Row({"RequestedProcedureCodeSequence": {"CodeValue": "C2"}, **steps_query()}, "", "C.2.2.2.6"),
    "an unknown key": Row({"PatientReligiousPreference": "X", **steps_query()}, ALL, "C.2.2.1.3"),
}

#: Where wlmscpfs of dcmtk 3.6 answers otherwise: what it finds. The reasons are on the page of the worklist.
DIFFERENT: dict[str, str] = {
    "a time by its precision": "SPS3",
    "a step id": ALL,
    "a name in other letters": "",
    "the beginning of a name": "SPS2",
    "a family name": "SPS1",
    "a family name without a given one": "",
    "a name without its accents": "",
    "a name in Latin-1": "",
    "an ideographic name": "",
    "the alphabetic group alone": "",
    "a Cyrillic name": "",
    "a physician": "",
    "a list of studies": ALL,
    "a code that nothing has": ALL,
}


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("receiver")) as found:
        yield found


@pytest.fixture(scope="module")
def beside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with wlmscpfs(tmp_path_factory.mktemp("wlmscpfs")) as port:
        yield port


def test_the_table_has_at_least_twenty_queries() -> None:
    assert len(TABLE) >= 20


@pytest.mark.parametrize("row", TABLE.values(), ids=TABLE)
def test_pynetdicom_is_answered_as_the_standard_says(receiver: Running, row: Row) -> None:
    answers, statuses = receiver.find(row.keys)

    assert ids_of(answers) == sorted(row.finds.split())
    assert statuses[-1] == 0x0000
    pending = 0xFF01 if "PatientReligiousPreference" in row.keys else 0xFF00
    assert set(statuses[:-1]) <= {pending}


@pytest.mark.parametrize("row", TABLE.values(), ids=TABLE)
def test_findscu_is_answered_as_the_standard_says(receiver: Running, row: Row, tmp_path: Path) -> None:
    assert ids_of(findscu(receiver.port, row.keys, tmp_path / "find")) == sorted(row.finds.split())


@pytest.mark.parametrize("name", TABLE)
def test_wlmscpfs_finds_the_same_but_for_what_the_page_lists(beside: int, name: str, tmp_path: Path) -> None:
    row = TABLE[name]
    found = ids_of(findscu(beside, row.keys, tmp_path / "find"))

    assert found == sorted(DIFFERENT.get(name, row.finds).split())
    if name in DIFFERENT:
        assert f"| {name} |" in PAGE


def test_each_answer_has_every_key_that_was_asked_for(receiver: Running) -> None:
    answers, _ = receiver.find({"PatientName": "", "AccessionNumber": "ACC1", "MedicalAlerts": "", **steps_query(Modality="")})

    [answer] = answers
    assert answer.AccessionNumber == "ACC1"
    assert answer.MedicalAlerts in (None, "")
    assert str(answer.PatientName) == "Doe^John"
    assert answer[STEP].value[0].Modality == "CT"
    assert sorted(element.keyword for element in answer) == ["AccessionNumber", "MedicalAlerts", "PatientName", STEP]


def test_a_sequence_without_keys_is_answered_whole(receiver: Running) -> None:
    answers, _ = receiver.find({"PatientID": "PID2", STEP: []})

    [step] = answers[0][STEP].value
    assert (step.ScheduledProcedureStepID, step.Modality, str(step.ScheduledPerformingPhysicianName)) == ("SPS2", "CT", "House^Greg")
