"""An order on the log becomes a step on the worklist; the modality performs it; the step leaves, the study is held, the RIS is told."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace
from pynetdicom import AE
from pynetdicom.sop_class import ModalityPerformedProcedureStep  # type: ignore[attr-defined]  # made at import

from hilum import desired
from hilum.asking import ready
from hilum.database import connect
from hilum.database.told import begin_now
from hilum.events import OrderChanged, ProcedureStepChanged, StepPerformed, StudyExpected
from hilum.order_events import Identifier, Order
from hilum.settings import Dicom, Postgres, Settings, Worklist
from hilum.settings import Spool as SpoolSettings
from hilum.testing import eventually
from ingest.worklist import role as worklist_role
from processors.index import role as index_role
from processors.notices import role as notices_role
from tests.ingest.worklist.steps import EXPLICIT, Running, a_step, an_order, data_set, ids_of, steps_query
from tests.ingest.worklist.test_performed import CREATE, END, WRONG_ENTRY
from tests.mllp_receiver import receiver

if TYPE_CHECKING:
    from tests.conftest import Log

pytestmark = pytest.mark.system


def today(number: str) -> Order:
    start = datetime.now(UTC) + timedelta(hours=1)
    step = replace(a_step(number, f"{start:%Y%m%d%H%M}", "CT", "CT1"), start_at=start)
    order = an_order(number, step)
    return replace(order, placer=Identifier(value=f"P{number}"), filler=Identifier(value=f"F{number}"))


def mpps(port: int, *messages: tuple[str, str, dict[str, Any]]) -> list[int]:
    ae = AE(ae_title="CT1")
    ae.add_requested_context(ModalityPerformedProcedureStep, [EXPLICIT])
    association = ae.associate("127.0.0.1", port, ae_title="HILUM")
    try:
        send: dict[str, Callable[..., Any]] = {"create": association.send_n_create, "set": association.send_n_set}
        statuses = []
        for what, uid, keys in messages:
            ready(association)
            statuses.append(int(send[what](data_set(keys), ModalityPerformedProcedureStep, uid)[0].Status))
        return statuses
    finally:
        association.release()


def create_for(number: str) -> dict[str, Any]:
    of = {
        "StudyInstanceUID": f"2.25.10{number}",
        "AccessionNumber": f"ACC{number}",
        "PlacerOrderNumberImagingServiceRequest": f"P{number}",
        "ScheduledProcedureStepID": f"SPS{number}",
    }
    return CREATE | {"ScheduledStepAttributesSequence": of}


def test_a_day_of_a_modality(log: Log, postgres: str, tmp_path: Path) -> None:
    log.make(partitions=1)
    with receiver() as ris:
        destinations = {"ris": {"type": "hl7", "host": "127.0.0.1", "port": ris.port, "on": ["step-started", "step-completed"]}}
        settings = Settings(
            data=str(tmp_path),
            kafka=log.settings.kafka,
            postgres=Postgres(dsn=postgres),
            dicom=Dicom(port=0),
            spool=SpoolSettings(min_free_bytes=0, spare_bytes=0),
            worklist=Worklist(serve=True, mpps=True, refresh_s=0.2),
            destinations=destinations,
        )
        begin_now(postgres, destinations)  # as `hilum up` does
        with log.running(worklist_role(settings), index_role(settings), notices_role(settings)):
            modality = Running(settings)
            try:
                _day(log, postgres, modality)
            finally:
                modality.end()
            eventually(lambda: _told(postgres) == ["step-started", "step-started", "step-completed"], what="the RIS is to be told")


def _told(dsn: str) -> list[str]:
    with connect(dsn) as connection:
        return [kind for (kind,) in connection.execute("SELECT kind FROM hl7_outgoing ORDER BY number")]


def _day(log: Log, dsn: str, modality: Running) -> None:
    log.say(*(OrderChanged(order=today(number), change="new", changed_at=datetime.now(UTC)) for number in ("1", "2", "3")))
    eventually(lambda: ids_of(modality.find(steps_query())[0]) == ["SPS1", "SPS2", "SPS3"], what="the steps are on the worklist")
    [answer] = modality.find({"AccessionNumber": "ACC1", "StudyInstanceUID": "", **steps_query()})[0]
    assert answer.StudyInstanceUID == "2.25.101"

    assert mpps(modality.port, ("create", "2.25.501", create_for("1")), ("create", "2.25.502", create_for("2"))) == [0, 0]
    eventually(lambda: ids_of(modality.find(steps_query())[0]) == ["SPS3"], what="begun steps have left")
    assert mpps(modality.port, ("set", "2.25.501", END), ("set", "2.25.502", WRONG_ENTRY)) == [0, 0]
    eventually(lambda: ids_of(modality.find(steps_query())[0]) == ["SPS2", "SPS3"], what="the wrong choice is back")

    events = log.events(ProcedureStepChanged, 4)
    assert sorted((each.sop_instance_uid, each.revision, each.state) for each in events) == [
        ("2.25.501", 1, "in-progress"),
        ("2.25.501", 2, "completed"),
        ("2.25.502", 1, "in-progress"),
        ("2.25.502", 2, "discontinued"),
    ]
    told = log.events(StepPerformed, 4)  # on a topic of one partition, for the stage `orders`
    assert [StepPerformed.of(each) for each in events] == told
    [expected] = log.events(StudyExpected, 1)
    assert (expected.study_instance_uid, expected.sop_instance_uids) == ("2.25.101", ("2.25.3", "2.25.4"))
    held = eventually(lambda: desired.read(modality.settings).held, what="the study is held")
    assert set(held) == {"2.25.102"}

    cancelled = replace(today("3"), status="cancelled", version=2)
    log.say(OrderChanged(order=cancelled, change="cancelled", changed_at=datetime.now(UTC)))
    eventually(lambda: ids_of(modality.find(steps_query())[0]) == ["SPS2"], what="the cancelled one has left")

    def indexed() -> list[tuple[Any, ...]]:
        with connect(dsn) as connection:
            return connection.execute("SELECT sop_instance_uid, state, wrong_entry FROM v_performed_step ORDER BY 1").fetchall()

    eventually(lambda: indexed() == [("2.25.501", "completed", False), ("2.25.502", "discontinued", True)], what="they are indexed")
