"""Worklist queries on the receiver's sockets: limits, cancelling, stations, character sets, and what breaks the protocol."""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from hilum import upper_layer as ul
from hilum.dicom.writing import character_set, encode, fitted
from hilum.settings import Dicom, Settings, Station
from hilum.testing import eventually
from hilum.worklist import Worklist
from ingest.dicom import aborts, negotiation
from ingest.dicom.acceptor import Acceptor, Answers
from ingest.dicom.commands import Command
from ingest.dicom.negotiation import MODALITY_WORKLIST, Context, Request
from ingest.dicom.worklist import Finder, Following
from ingest.dicom.worklist_answers import FOUND, MATCH
from ingest.worklist.query import BadQuery, read_query
from tests.ingest.worklist.steps import EXPLICIT, ITEMS, STEP, data_set, encoded, findscu, ids_of, put, running, steps_query

CONTEXTS = [ul.Context(abstract_syntax=MODALITY_WORKLIST, transfer_syntax=EXPLICIT)]


def a_command(field: int, message_id: int = 7, *, answers: int = 0, has_data_set: bool = True) -> bytes:
    elements = [(0x0100, field), (0x0120, answers) if answers else (0x0110, message_id), (0x0800, 1 if has_data_set else 0x0101)]
    body = b"".join(struct.pack("<HHIH", 0, element, 2, value) for element, value in sorted(elements))
    raw = struct.pack("<HHII", 0, 0, 4, len(body)) + body
    return ul.data_header(1, len(raw), last=True, command=True) + raw


def a_find(identifier: bytes) -> bytes:
    return a_command(0x0020) + ul.data_header(1, len(identifier), last=True) + identifier


class Asking:
    """An acceptor whose every query finds `matches` steps."""

    def __init__(self, matches: int) -> None:
        self.acceptor = Acceptor(self._negotiate, self._never, self._never, find=self._find)
        self.taken = 0
        self._matches = matches
        self.acceptor.receive(memoryview(bytearray(ul.associate_rq("CT1", "HILUM", CONTEXTS, 16384))))

    def _negotiate(self, request: Request) -> tuple[dict[int, Context] | None, bytes]:
        return negotiation.accept(request, Dicom(), (MODALITY_WORKLIST,))

    def _never(self, *_: Any) -> Any:
        raise AssertionError

    def _find(self, _: Command, __: Context, ___: bytes) -> Answers:
        for _n in range(self._matches):
            self.taken += 1
            yield MATCH, b"\0" * 20_000
        yield FOUND, None

    def statuses(self, out: bytes) -> list[int]:
        found = []
        while out:
            _, length = ul.read_header(out[:6])
            found += [ul.read_response(raw).status for _, is_command, _, raw in ul.pdvs(out[6 : 6 + length]) if is_command]
            out = out[6 + length :]
        return found

    def receive(self, data: bytes) -> bytes:
        return self.acceptor.receive(memoryview(bytearray(data)))


def test_answers_come_piece_by_piece() -> None:
    asking = Asking(100)
    assert asking.receive(a_find(b"")) == b""

    assert asking.acceptor.finding
    assert asking.statuses(asking.acceptor.more()) == [0xFF00, 0xFF00]
    assert asking.taken == 2


def test_a_cancelled_query_ends_with_fe00_and_the_association_goes_on() -> None:
    asking = Asking(100)
    asking.receive(a_find(b""))
    asking.acceptor.more()

    assert asking.receive(a_command(0x0FFF, answers=7, has_data_set=False)) == b""

    assert asking.statuses(asking.acceptor.more()) == [0xFE00]
    assert not asking.acceptor.finding
    assert asking.acceptor.between_messages
    asking.receive(a_find(b""))
    assert asking.statuses(asking.acceptor.more()) == [0xFF00, 0xFF00]


def test_a_cancel_of_another_message_changes_nothing() -> None:
    asking = Asking(1)
    asking.receive(a_find(b""))

    asking.receive(a_command(0x0FFF, answers=6, has_data_set=False))

    assert asking.statuses(asking.acceptor.more()) == [0xFF00, 0x0000]


def test_a_cancel_after_the_end_changes_nothing() -> None:
    asking = Asking(0)
    asking.receive(a_find(b""))
    assert asking.statuses(asking.acceptor.more()) == [0x0000]

    assert asking.receive(a_command(0x0FFF, answers=7, has_data_set=False)) == b""
    assert asking.acceptor.between_messages


def test_another_request_amid_the_answers_is_aborted() -> None:
    asking = Asking(10)
    asking.receive(a_find(b""))

    assert asking.receive(a_command(0x0030, 8, has_data_set=False)) == ul.pdu(ul.Pdu.ABORT, bytes((0, 0, 2, 2)))
    assert asking.acceptor.ended == aborts.COMMAND_AMID_ANSWERS.says
    assert not asking.acceptor.finding


def test_worklist_is_accepted_only_where_the_settings_say_so() -> None:
    request = negotiation.read_request(ul.associate_rq("CT1", "HILUM", CONTEXTS, 16384)[6:])

    assert negotiation.accept(request, Dicom())[0] == {}
    assert set(negotiation.accept(request, Dicom(), (MODALITY_WORKLIST,))[0]) == {1}


def test_without_a_file_of_steps_nothing_is_said_of_whether_there_are_any(tmp_path: Path) -> None:
    with running(tmp_path, items=None) as receiver:
        assert receiver.find(steps_query()) == ([], [0xA700])


def test_a_query_that_matches_more_than_may_be_ends_with_a700(tmp_path: Path) -> None:
    with running(tmp_path, max_answers=3) as receiver:
        answers, statuses = receiver.find(steps_query())
        assert statuses == [0xFF00] * 3 + [0xA700]
        assert ids_of(answers) == ["SPS1", "SPS2", "SPS3"]
        assert receiver.find(steps_query(Modality="MR"))[1] == [0xFF00, 0xFF00, 0x0000]


@pytest.mark.parametrize(
    "keys",
    [
        steps_query(ScheduledProcedureStepStartTime="soon"),
        steps_query(ScheduledProcedureStepStartTime="2500-"),
        steps_query(ScheduledProcedureStepStartDate="-"),
        steps_query(ScheduledProcedureStepStartDate="20261301"),
        steps_query(ScheduledProcedureStepStartDate="20260101-", ScheduledProcedureStepStartTime="x-"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_a_date_or_time_that_is_none_is_refused(receiver: Any, keys: dict[str, Any]) -> None:
    assert receiver.find(keys) == ([], [0xA900])


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    stations = {
        "MR1": Station(stations=("MR1",)),
        "XRAY": Station(modalities=("DX", "CR")),
        "LATIN": Station(character_set="ISO_IR 100"),
        "ASCII": Station(character_set="ISO_IR 6"),
        "TOKYO": Station(character_set="\\ISO 2022 IR 87"),
    }
    with running(tmp_path_factory.mktemp("receiver"), stations=stations) as found:
        yield found


def test_two_items_of_keys_are_refused(receiver: Any) -> None:
    two = data_set(steps_query())
    two[STEP].value.append(deepcopy(two[STEP].value[0]))

    assert receiver.find(dict.fromkeys((), None) | {STEP: list(two[STEP].value)}) == ([], [0xA900])


def test_a_station_is_told_of_its_steps_and_of_those_of_none(receiver: Any) -> None:
    assert ids_of(receiver.find(steps_query(), calling="MR1")[0]) == ["SPS10", "SPS3", "SPS5", "SPS7"]
    assert ids_of(receiver.find(steps_query(), calling="XRAY")[0]) == ["SPS8"]


def name_told(receiver: Any, patient_id: str, calling: str, **keys: str) -> tuple[str, Any]:
    [answer] = receiver.find({"PatientID": patient_id, "PatientName": "", **keys, **steps_query()}, calling=calling)[0]
    return str(answer.PatientName), answer.get("SpecificCharacterSet")


def test_an_answer_is_in_the_character_set_of_the_station_and_transliterated_if_need_be(receiver: Any) -> None:
    assert name_told(receiver, "PID3", "LATIN") == ("Müller^Jörg", "ISO_IR 100")
    assert name_told(receiver, "PID6", "LATIN") == ("Ivanov^Petr", "ISO_IR 100")
    assert name_told(receiver, "PID3", "ASCII") == ("Muller^Jorg", None)
    assert name_told(receiver, "PID5", "LATIN") == ("Yamada^Tarou", "ISO_IR 100")
    assert name_told(receiver, "PID5", "TOKYO") == ("Yamada^Tarou=山田^太郎", ["", "ISO 2022 IR 87"])


def test_without_one_in_the_settings_it_is_in_that_of_the_query_if_it_fits(receiver: Any) -> None:
    assert name_told(receiver, "PID3", "CT1", SpecificCharacterSet="ISO_IR 100") == ("Müller^Jörg", "ISO_IR 100")
    assert name_told(receiver, "PID6", "CT1", SpecificCharacterSet="ISO_IR 100") == ("Иванов^Пётр", "ISO_IR 192")
    assert name_told(receiver, "PID1", "CT1", SpecificCharacterSet="ISO_IR 100") == ("Doe^John", None)


def test_what_changes_in_the_file_is_seen_soon(tmp_path: Path) -> None:
    with running(tmp_path) as receiver:
        put(receiver.settings, {"new": {**ITEMS["SPS1"], "00100020": {"vr": "LO", "Value": ["NEW"]}}})
        eventually(lambda: receiver.find({"PatientID": "NEW", **steps_query()})[0], what="the new step is found")
        Worklist(receiver.settings).put({}, {"new", "SPS2"})
        eventually(lambda: len(receiver.find(steps_query())[0]) == len(ITEMS) - 1, what="both steps are gone")


def test_text_in_many_scripts_fits_any_character_set() -> None:
    latin1, default = character_set("ISO_IR 100"), character_set("")
    assert latin1 is not None
    assert default is not None
    assert fitted("Łódź Ñ", latin1) == "Lódz Ñ"
    assert fitted("Straße", default) == "Strasse"
    assert fitted("\N{SNOWMAN}", default).isascii()
    assert encode({"00104000": {"vr": "LT", "Value": ["é"]}}, default, explicit=True) == b"\x10\0\0@LT\2\0e "


def test_an_identifier_without_keys_and_one_with_too_many_values_are_refused() -> None:
    for keys in ({}, {"SpecificCharacterSet": "ISO_IR 100"}, {"PatientID": [str(n) for n in range(100)]}):
        with pytest.raises(BadQuery):
            read_query(encoded(data_set(keys)), EXPLICIT)
    assert read_query(encoded(data_set({"StudyInstanceUID": [f"2.25.{n}" for n in range(5_000)]})), EXPLICIT).tests


def test_the_receiver_says_when_there_is_no_worklist_and_when_it_is_old(tmp_path: Path) -> None:
    finder = Finder(Settings(data=str(tmp_path)))
    assert "no worklist yet" in finder.says()
    put(Settings(data=str(tmp_path)))
    Following(Settings(data=str(tmp_path)), finder, threading.Event()).look()
    assert finder.says() == ""
    finder.as_of -= 3600
    assert "60 minutes old" in finder.says()


def test_a_character_set_that_nobody_knows_is_none() -> None:
    assert character_set("ISO_IR 999") is None


def test_an_identifier_that_cannot_be_read_is_refused() -> None:
    with pytest.raises(BadQuery):
        read_query(encoded(data_set({"PatientName": "A"}))[:-1] + b"\x10\0\x20", EXPLICIT)


def test_findscu_cancels_a_long_answer(tmp_path: Path) -> None:
    # More than all that lies between the two can hold, so that the C-CANCEL comes amid the answers, however late it comes.
    many = {f"s{n}": ITEMS["SPS1"] | {"00104000": {"vr": "LT", "Value": ["x" * 10_000]}} for n in range(1_500)}
    with running(tmp_path / "hilum", many, max_answers=0) as receiver:
        folder = tmp_path / "find"
        found = findscu(receiver.port, {"PatientComments": "", **steps_query()}, folder, cancel_after=3)
        assert 3 <= len(found) < len(many)
