"""Performed steps said to a RIS: as they came, in their order, to one that behaves and one that does not."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.sop_class import ModalityPerformedProcedureStep  # type: ignore[attr-defined]  # made at import

from bench.peers import free_port
from hilum.events import ProcedureStepChanged, decode, encode
from hilum.notices import Notice, Notified, Outgoing
from hilum.part10 import Part10
from hilum.procedures import Procedures
from hilum.settings import Settings
from hilum.settings import Spool as SpoolSettings
from hilum.sink import NotYet, Outage, Park, sink_of
from hilum.testing import MemoryStore
from ingest.worklist.performed import event_of
from sinks.mpps import Mpps, Said, Steps
from tests.ingest.worklist.steps import running
from tests.ingest.worklist.test_performed import CREATE, END, STEP, Modality
from tests.sinks.test_hl7 import Listed, a_delivery

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def a_sink(port: int, **settings: Any) -> Mpps:
    found = sink_of("ris", {"type": "mpps", "host": "127.0.0.1", "port": port, "aet": "HILUM", "timeout_s": 30, **settings})
    assert isinstance(found, Mpps)
    assert isinstance(found, Notified)
    return found


def texts_of(sink: Mpps, events: list[ProcedureStepChanged]) -> list[str]:
    made = [sink.compose(Notice(kind="mpps", control_id=f"H{n}", step=event), {}) for n, event in enumerate(events)]
    return [each.text if each is not None else "" for each in made]


@pytest.fixture
def events(tmp_path: Path) -> list[ProcedureStepChanged]:
    """A step that begins, goes on and ends."""
    modality = Modality(Settings(data=str(tmp_path / "modality"), spool=SpoolSettings(min_free_bytes=0)))
    modality.create(SpecificCharacterSet="ISO_IR 100", PatientName="Müller^Jörg", PatientWeight="71.5")
    modality.set({"SpecificCharacterSet": "ISO_IR 192", "PerformedProcedureStepDescription": "Иванов"})
    modality.set(END)
    return modality.events()


class Sending:
    """A session, as a worker uses it."""

    def __init__(self, sink: Mpps, texts: list[str]) -> None:
        self.queued = Listed(0)
        self.queued.all = [Outgoing(delivery_id=f"d{n}", number=n, control_id=f"H{n}", text=text) for n, text in enumerate(texts)]
        self.queued.pending = {each.delivery_id for each in self.queued.all}
        self.now = 0.0
        self.session = Steps(sink.peer(), self.queued, 60.0, lambda: self.now)  # type: ignore[arg-type]  # a list instead

    def work(self, *numbers: int) -> list[Any]:
        """Deliver these as one batch; what became of each, until an outage."""
        batch = [a_delivery(n) for n in numbers]
        self.session.begin(batch)
        found: list[Any] = []
        for delivery in batch:
            try:
                found.append(self.session.deliver(delivery, Part10(MemoryStore(), delivery.object)).state)
            except (Park, NotYet) as error:
                found.append(type(error))
            except Outage:
                return [*found, Outage]
        return found


@contextmanager
def a_ris(answer: Any) -> Iterator[tuple[int, list[tuple[str, str, Dataset]]]]:
    """pynetdicom's SCP, which answers what `answer` says of each message; its port, and what came."""
    came: list[tuple[str, str, Dataset]] = []

    def created(event: evt.Event) -> tuple[int | Dataset, Dataset]:
        came.append(("create", str(event.assoc.requestor.ae_title), event.attribute_list))
        return answer(len(came)), event.attribute_list

    def changed(event: evt.Event) -> tuple[int | Dataset, Dataset]:
        came.append(("set", str(event.assoc.requestor.ae_title), event.modification_list))
        return answer(len(came)), event.modification_list

    ae = AE(ae_title="RIS")
    ae.add_supported_context(ModalityPerformedProcedureStep)
    handlers: list[Any] = [(evt.EVT_N_CREATE, created), (evt.EVT_N_SET, changed)]
    server: Any = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    try:
        yield server.socket.getsockname()[1], came
    finally:
        server.shutdown()


def test_another_hilum_gets_each_message_as_it_came_and_a_repetition_changes_nothing(
    tmp_path: Path, events: list[ProcedureStepChanged]
) -> None:
    with running(tmp_path / "ris") as ris:
        sending = Sending(a_sink(ris.port), texts_of(a_sink(ris.port), events))
        assert sending.work(2, 0, 1) == ["delivered"] * 3
        sending.queued.pending = set()
        assert sending.work(0) == ["already_there"]
        assert sending.work(2) == ["already_there"]
        sending.session.close()
        said = [each.event for each in Procedures(ris.settings).untold()]
    assert [(each.sop_instance_uid, each.state, each.calling_aet) for each in said] == [
        (STEP, "in-progress", "CT1"),
        (STEP, "in-progress", "CT1"),
        (STEP, "completed", "CT1"),
    ]
    assert (said[-1].patient_name, said[-1].description, said[-1].objects) == ("Müller^Jörg", "Иванов", 2)
    assert said[-1].series == events[-1].series


def test_text_and_numbers_arrive_as_the_modality_wrote_them(events: list[ProcedureStepChanged]) -> None:
    with a_ris(lambda _: 0x0000) as (port, came):
        sending = Sending(a_sink(port, calling_aet="HILUM"), texts_of(a_sink(port), events))
        assert sending.work(0, 1, 2) == ["delivered"] * 3
        sending.session.close()
    first = came[0][2]
    assert (came[0][:2], first.SpecificCharacterSet, str(first.PatientName), first.PatientWeight) == (
        ("create", "HILUM"),
        "ISO_IR 100",
        "Müller^Jörg",
        71.5,
    )
    assert "PatientName" not in came[1][2]
    assert [what for what, *_ in came] == ["create", "set", "set"]
    assert first.PerformedStationAETitle == CREATE["PerformedStationAETitle"]


class Waking:
    """An association of pynetdicom whose reader wakes from the pause of the last request at the third look."""

    is_established = True

    def __init__(self) -> None:
        self.looks = 0
        self.looks_before: list[int] = []

    @property
    def _is_paused(self) -> bool:
        self.looks += 1
        return self.looks < 3

    def send_n_set(self, *_: object) -> tuple[Dataset, None]:
        self.looks_before.append(self.looks)
        answer = Dataset()
        answer.Status = 0x0000
        return answer, None


def test_a_message_is_not_said_before_the_reader_of_its_answer_is_awake() -> None:
    waking, peer = Waking(), a_sink(1).peer()
    peer._association, peer._calling = waking, "HILUM"  # type: ignore[assignment]  # as much of one as is needed

    assert peer.say("HILUM", Said(sop_instance_uid=STEP, create=False, attributes={})) == (0x0000, 0)
    assert waking.looks_before == [3]


@pytest.mark.parametrize(("status", "state"), [(0x0107, "delivered"), (0x0116, "delivered"), (0x0111, "already_there"), (0x0106, Park)])
def test_each_status_has_its_outcome(events: list[ProcedureStepChanged], status: int, state: Any) -> None:
    with a_ris(lambda _: status) as (port, _):
        sending = Sending(a_sink(port), texts_of(a_sink(port), events[:1]))
        assert sending.work(0) == [state]
        sending.session.close()


@pytest.mark.parametrize(("status", "at_last"), [(0x0110, Park), (0x0213, Outage)])
def test_what_it_cannot_take_for_now_holds_up_the_others(events: list[ProcedureStepChanged], status: int, at_last: Any) -> None:
    with a_ris(lambda n: status if n <= 4 else 0x0000) as (port, came):
        sending = Sending(a_sink(port), texts_of(a_sink(port), events))
        assert [sending.work(0, 1) for _ in range(3)] == [[Outage]] * 3
        sending.now = 60.0
        assert sending.work(0, 1) == [at_last, *(["delivered"] if at_last is Park else [])]
        sending.session.close()
    assert [what for what, *_ in came] == ["create"] * 4 + ["set"] * (at_last is Park)


def test_one_that_is_away_or_no_mpps_scp_is_an_outage(events: list[ProcedureStepChanged], tmp_path: Path) -> None:
    nobody = free_port()
    assert Sending(a_sink(nobody), texts_of(a_sink(nobody), events)).work(0) == [Outage]
    [step] = a_sink(nobody).check(Settings())
    assert not step.ok
    assert step.fix
    with running(tmp_path / "other", mpps=False) as other:
        assert Sending(a_sink(other.port), texts_of(a_sink(other.port), events)).work(0) == [Outage]


def test_a_check_asks_for_an_association(tmp_path: Path) -> None:
    with running(tmp_path / "ris") as ris:
        assert [step.ok for step in a_sink(ris.port).check(Settings())] == [True]


def test_only_the_steps_of_some_modalities_are_passed_on(events: list[ProcedureStepChanged]) -> None:
    notice = Notice(kind="mpps", control_id="H1", step=events[0])

    assert a_sink(1).wants(notice)
    assert a_sink(1, modalities=["CT1"]).wants(notice)
    assert not a_sink(1, modalities=["MR1"]).wants(notice)
    assert not a_sink(1).wants(Notice(kind="step-started", control_id="H1"))


def test_a_message_of_which_the_event_has_not_all_is_put_aside(events: list[ProcedureStepChanged]) -> None:
    cut = msgspec.structs.replace(events[0], said={}, said_cut=True)

    assert a_sink(1).wants(Notice(kind="mpps", control_id="H1", step=cut))

    assert texts_of(a_sink(1), [cut]) == [""]
    assert Sending(a_sink(1), [""]).work(0) == [Park]


def test_an_n_set_of_which_nothing_may_be_set_is_no_message_for_others(tmp_path: Path) -> None:
    modality = Modality(Settings(data=str(tmp_path / "modality"), spool=SpoolSettings(min_free_bytes=0)))
    modality.create()
    modality.set({"SpecificCharacterSet": "ISO_IR 100", "PatientName": "Doe^Jane"})

    wanted = [a_sink(1).wants(Notice(kind="mpps", control_id="H1", step=event)) for event in modality.events()]
    assert wanted == [True, False]


def a_completion(objects: int) -> dict[str, Any]:
    """An N-SET that refers to so many objects, whose UIDs have 20 digits at random, as some modalities make them."""
    digits = random.Random(1)  # UIDs of a test

    def refer(number: int) -> dict[str, Any]:
        uid = f"1.3.12.2.1107.5.1.4.66045.{digits.randrange(10**19, 10**20)}.{number}"
        return {"00081150": {"vr": "UI", "Value": ["1.2.840.10008.5.1.4.1.1.4"]}, "00081155": {"vr": "UI", "Value": [uid]}}

    series = {"0020000E": {"vr": "UI", "Value": ["2.25.7"]}, "00081140": {"vr": "SQ", "Value": [refer(n) for n in range(objects)]}}
    return {"00400252": {"vr": "CS", "Value": ["COMPLETED"]}, "00400340": {"vr": "SQ", "Value": [series]}}


def test_what_is_said_of_30000_objects_fits_into_an_event_and_what_does_not_is_known_to_be_cut() -> None:
    said = a_completion(30_000)
    data = encode(event_of(STEP, 3, said, said, NOW))
    event = decode(ProcedureStepChanged, data)

    assert len(data) < 1_000_000
    assert (event.all_said, event.objects, event.said_cut) == (said, 30_000, False)

    more = a_completion(60_000)
    cut = event_of(STEP, 3, more, more, NOW)
    assert len(encode(cut)) < 1_000_000
    assert (cut.all_said, cut.objects, cut.said_cut) == ({}, 60_000, True)


def test_a_step_of_6000_objects_is_passed_on_whole() -> None:
    said = a_completion(6_000)
    with a_ris(lambda _: 0x0000) as (port, came):
        sending = Sending(a_sink(port), texts_of(a_sink(port), [event_of(STEP, 3, said, said, NOW)]))
        assert sending.work(0) == ["delivered"]
        sending.session.close()
    assert len(came[0][2].PerformedSeriesSequence[0].ReferencedImageSequence) == 6_000
