"""HL7 destinations: what is said, the client against receivers that behave and that do not, and the order of messages."""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import hl7apy.parser
import pytest
import trustme
from hl7apy.consts import VALIDATION_LEVEL

from bench.hapi import hapi_server
from bench.peers import free_port
from hilum.errors import Misconfigured, TryAgain
from hilum.events import MessageReceived, ObjectRef
from hilum.hl7.message import Message, parse
from hilum.hl7.outgoing import FACTS, changed, filled, xpn
from hilum.mllp_client import MllpClient
from hilum.notices import Notice, Notified, Outgoing
from hilum.part10 import Part10
from hilum.settings import Rule, Settings
from hilum.sink import Delivery, NotYet, Outage, Park, sink_of, sinks_of
from hilum.testing import MemoryStore
from sinks.hl7 import Hl7
from sinks.hl7.client import Client
from sinks.hl7.session import Messages
from tests.mllp_receiver import Receiver, acknowledgement, python_hl7, receiver

STUDY = {
    "StudyInstanceUID": "2.25.1",
    "AccessionNumber": "ACC|1",
    "PlacerOrderNumber": "P1",
    "FillerOrderNumber": "F1",
    "RequestedProcedureID": "RP1",
    "ProcedureCode": "CTHEAD",
    "ProcedureMeaning": "CT head",
    "ProcedureScheme": "L",
    "PatientID": "PID1",
    "IssuerOfPatientID": "HOSP",
    "PatientIDType": "MR",
    "PatientName": "Müller^Jörg^^Dr^Jr",
    "PatientBirthDate": "19850316",
    "PatientSex": "M",
    "StudyDate": "20260705",
    "StudyTime": "0801",
    "StudyDescription": "Thorax",
    "ModalitiesInStudy": "CT\\SR",
    "Instances": "312",
    "Revision": "1",
}


def a_sink(**settings: Any) -> Hl7:
    found = sink_of("ris", {"type": "hl7", "host": "127.0.0.1", "port": 2575, **settings})
    assert isinstance(found, Hl7)
    assert isinstance(found, Notified)
    return found


def a_notice(kind: str = "study-completed", **facts: str) -> Notice:
    return Notice(kind=kind, study_instance_uid="2.25.1", control_id="H1", facts=facts)


def text_of(sink: Hl7, notice: Notice, study: Mapping[str, str]) -> str:
    composed = sink.compose(notice, study)
    assert composed is not None
    return composed.text


def a_message(text: str = "", **values: Any) -> MessageReceived:
    text = text or "MSH|^~\\&|RIS|HOSP|HILUM||20260101||ADT^A08^ADT_A01|C1|P|2.5\rPID|1||A~B^^^X\rZPI|secret\r"
    said: dict[str, Any] = {
        "message_id": "m1",
        "received_at": datetime(2026, 1, 1, tzinfo=UTC),
        "sha256": "0" * 64,
        "size_bytes": len(text),
        "text": text,
    }
    return MessageReceived(
        **said | {"size_bytes": len(text), "code": "ADT", "trigger": "A08", "control_id": "C1", "sender": "ris"} | values
    )


# What is said


@pytest.mark.parametrize("kind", ["ORU^R01", "OMG^O19", "ORM^O01"])
@pytest.mark.parametrize("event", ["study-opened", "study-completed", "delivered", "quarantined", "step-discontinued"])
def test_each_message_has_who_it_is_about_and_how_things_stand(kind: str, event: str) -> None:
    message = parse(text_of(a_sink(message=kind, receiving_application="RIS"), a_notice(event, Destination="pacs"), STUDY))

    assert f"{message.code}^{message.trigger}" == kind
    assert (message.get("MSH-3"), message.get("MSH-5"), message.get("MSH-10"), message.get("MSH-12")) == ("HILUM", "RIS", "H1", "2.5.1")
    assert (message.get("PID-3"), message.get("PID-3.4"), message.get("PID-7"), message.get("PID-8")) == ("PID1", "HOSP", "19850316", "M")
    assert message.get("PID-3.5") == "MR"
    assert [message.get(f"OBR-4.{n}") for n in (1, 2, 3)] == ["CTHEAD", "CT head", "L"]
    assert [message.get(f"PID-5.{n}") for n in range(1, 6)] == ["Müller", "Jörg", "", "Jr", "Dr"]
    assert (message.get("OBR-2"), message.get("OBR-3"), message.get("OBR-18"), message.get("OBR-24")) == ("P1", "F1", "ACC|1", "CT")
    if kind == "ORU^R01":
        said = {segment.get(3): segment.get(5) for segment in message.segments("OBX")}
        assert said["HILUM-EVENT"] == event
        assert said["113014"] == "2.25.1"
        assert message.get("OBR-25")
    else:
        assert message.get("ORC-1") == "SC"
        assert message.get("ORC-5") in ("IP", "CM", "HD", "DC")


@pytest.mark.parametrize("kind", ["ORU^R01", "OMG^O19"])  # of ORM^O01 hl7apy demands every member of a choice
def test_what_is_said_fits_the_grammar_of_its_version(kind: str) -> None:
    text = text_of(a_sink(message=kind), a_notice(), STUDY)

    parsed = hl7apy.parser.parse_message(text, validation_level=VALIDATION_LEVEL.TOLERANT, find_groups=True)

    assert parsed.validate()


def test_what_is_not_known_is_empty_and_nothing_fails() -> None:
    message = parse(text_of(a_sink(), a_notice(), {}))

    assert message.get("PID-3") == ""
    assert (message.get("OBR-4.1"), message.get("OBR-4.2")) == ("", "Imaging study")


def test_a_template_says_what_it_is_told_escaped(tmp_path: Path) -> None:
    template = tmp_path / "template.hl7"
    template.write_text(
        "MSH|^~\\&|X|||Y|${Now}||ZZZ^Z01|${ControlID}|P|2.3\nPID|||${PatientID}||${PatientName}\n\nOBX|1|ST|||${AccessionNumber}\n"
    )

    text = text_of(a_sink(template=str(template)), a_notice(), STUDY)

    message = parse(text)
    assert (message.get("MSH-10"), message.get("PID-5"), message.get("PID-5.4"), message.get("OBX-5")) == ("H1", "Müller", "Jr", "ACC|1")
    assert text.count("\r") == 3


def test_a_template_that_asks_for_what_is_not_known_is_refused(tmp_path: Path) -> None:
    template = tmp_path / "template.hl7"
    template.write_text("MSH|^~\\&|${Shoe}\n")
    settings = Settings(destinations={"ris": {"type": "hl7", "host": "h", "port": 1, "template": str(template)}})

    with pytest.raises(Misconfigured, match="'Shoe'"):
        sinks_of(settings)


def test_a_name_of_one_group_is_turned_round() -> None:
    assert xpn("Yamada^Tarou=山田^太郎") == [[["Yamada"], ["Tarou"]]]
    assert xpn("=山田^太郎") == [[["山田"], ["太郎"]]]
    assert xpn("") == [[]]


def test_every_fact_may_be_in_a_template() -> None:
    template = "|".join(f"${{{name}}}" for name in FACTS)

    assert filled(template, dict.fromkeys(FACTS, "a^b")).count("a") == len(FACTS)


# What is passed on


def test_messages_are_filtered_by_type_and_sender() -> None:
    def wants(message: MessageReceived, **settings: Any) -> bool:
        return a_sink(on=["message"], **settings).wants(Notice(kind="message", control_id="C1", message=message))

    assert wants(a_message())
    assert wants(a_message(), forward=["ADT"])
    assert wants(a_message(), forward=["ORM", "ADT^A08"], senders=["ris"])
    assert not wants(a_message(), forward=["ADT^A01"])
    assert not wants(a_message(), senders=["lab"])
    assert not a_sink().wants(Notice(kind="message", control_id="C1", message=a_message()))


def test_a_message_is_passed_on_with_what_is_set_and_without_what_is_left_out() -> None:
    sink = a_sink(on=["message"], set={"MSH-5": "PACS", "PID-3[2].4": "${PID-3[2].4}-${MSH-4}", "PID-8": "a|b"}, without=["ZPI"])

    text = text_of(sink, Notice(kind="message", control_id="C1", message=a_message()), {})

    assert text == "MSH|^~\\&|RIS|HOSP|PACS||20260101||ADT^A08^ADT_A01|C1|P|2.5\rPID|1||A~B^^^X-HOSP|||||a\\F\\b\r"


def test_what_is_not_changed_stays_to_the_letter() -> None:
    text = "MSH|^~\\&|A|B|C|D|20260101||ORU^R01|1|P|2.5\rOBX|1|TX|||line\\.br\\two\\E\\|\rOBX|2|TX|||x\r"

    assert changed(parse(text), {"OBX[2]-5": "y", "ZZZ-1": "nobody"}, ()) == text.replace("|||x\r", "|||y\r")


def test_a_message_of_which_not_all_is_here_is_not_changed() -> None:
    assert (
        a_sink(on=["message"], without=["ZPI"]).compose(Notice(kind="message", control_id="C1", message=a_message(text_cut=True)), {})
        is None
    )


# Settings


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"on": ["delivered"]}, "delivered_to"),
        ({"set": {"PID": "x"}}, "no path"),
        ({"set": {"PID-3": "${nothing}"}}, "no path"),
        ({"character_set": "CNS 11643"}, "character_set"),
        ({"workers": 2}, "workers"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(Misconfigured, match=says):
        a_sink(**settings)


@pytest.mark.parametrize("table", [{"type": "hl7"}, {"type": "mpps", "aet": "RIS"}], ids=["hl7", "mpps"])
def test_no_rule_and_no_group_sends_objects_to_it(table: dict[str, Any]) -> None:
    destinations: dict[str, dict[str, Any]] = {"ris": {"host": "h", "port": 1, **table}}
    sinks_of(Settings(destinations=destinations))

    with pytest.raises(Misconfigured, match="takes messages only"):
        sinks_of(Settings(destinations=destinations, rules=(Rule(name="all", to=("ris",)),)))
    with pytest.raises(Misconfigured, match="takes messages only"):
        sinks_of(Settings(destinations={"ris": {**destinations["ris"], "require_order": "hold"}}))
    with pytest.raises(Misconfigured, match="character_sets"):
        sinks_of(Settings(destinations={"ris": {**destinations["ris"], "character_sets": ["ISO_IR 100"]}}))
    with pytest.raises(Misconfigured, match="takes messages only"):
        sinks_of(Settings(destinations={**destinations, "both": {"type": "group", "members": ["ris"]}}))


# The client


def a_client(port: int, timeout_s: float = 60.0) -> Client:
    return Client(MllpClient("127.0.0.1", port, connect_timeout_s=60.0, timeout_s=timeout_s))


TEXT = b"MSH|^~\\&|HILUM||||20260101||ORU^R01|H1|P|2.5\rPID|1\r"


def test_one_connection_serves_many_messages() -> None:
    with receiver() as peer:
        client = a_client(peer.port)
        assert [client.send("H1", TEXT).code for _ in range(20)] == ["AA"] * 20
        client.close()
        assert peer.connections == 1


@pytest.mark.parametrize("code", ["AA", "AE", "AR", "CA", "CE", "CR"])
def test_each_code_is_understood(code: str) -> None:
    with receiver(lambda message: acknowledgement(message, code, error="207", says="no  room")) as peer:
        client = a_client(peer.port)
        answer = client.send("H1", TEXT)
        client.close()
    assert (answer.code, answer.error, answer.says) == (code, "207", "no room")
    assert answer.is_taken == (code in ("AA", "CA"))
    assert answer.is_rejected == (code in ("AR", "CR"))


def test_an_unsupported_type_is_no_rejection_that_passes() -> None:
    with receiver(lambda message: acknowledgement(message, "AR", error="200")) as peer:
        client = a_client(peer.port)
        assert not client.send("H1", TEXT).is_rejected
        client.close()


@pytest.mark.parametrize(
    "noise",
    [
        lambda message: acknowledgement(message, of="OTHER"),
        lambda _: b"garbage\r\n",
        lambda _: b"\x0bno hl7\x1c\r",
        lambda _: b"\x0bMSH|^~\\&|A\rMSA|ZZ|H1\r\x1c\r",
    ],
    ids=["another's", "garbage", "no message", "no code"],
)
def test_what_is_no_acknowledgement_of_the_message_is_passed_over(noise: Any) -> None:
    with receiver(lambda message: noise(message) + acknowledgement(message)) as peer:
        client = a_client(peer.port)
        assert client.send("H1", TEXT).code == "AA"
        client.close()


def test_an_acknowledgement_in_pieces_is_read() -> None:
    with receiver() as peer:
        peer.answer = lambda message: acknowledgement(message)[:5]
        client = a_client(peer.port, 0.2)
        with pytest.raises(Outage, match="gave no acknowledgement"):
            client.send("H1", TEXT)
        client.close()


@pytest.mark.parametrize("silent", [True, False], ids=["says nothing", "hangs up"])
def test_a_receiver_that_does_not_acknowledge_is_an_outage_and_the_next_message_has_a_new_connection(silent: bool) -> None:
    came: list[Message] = []

    def answer(message: Message) -> bytes | None:
        came.append(message)
        if len(came) > 1:
            return acknowledgement(message)
        if silent:
            return None
        raise ConnectionResetError

    with receiver(answer) as peer:
        client = a_client(peer.port, 0.2 if silent else 60.0)
        with pytest.raises(Outage):
            client.send("H1", TEXT)
        client._mllp._timeout_s = 60.0  # the next one is answered, and not for that in a hurry
        assert client.send("H1", TEXT).code == "AA"
        client.close()
        assert peer.connections == 2
        assert peer.control_ids == ["H1", "H1"]


def test_a_connection_that_was_closed_meanwhile_is_made_anew() -> None:
    with receiver() as peer:
        client = a_client(peer.port)
        client.send("H1", TEXT)
        peer.hang_up()
        assert client.send("H1", TEXT).code == "AA"
        client.close()


def test_nobody_there_is_an_outage_with_a_fix() -> None:
    with pytest.raises(Outage, match="cannot be reached") as outage:
        a_client(free_port()).send("H1", TEXT)
    assert outage.value.fix


def test_tls_is_spoken_and_the_receiver_is_known(tmp_path: Path) -> None:
    authority, other = trustme.CA(), trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    ca, wrong = tmp_path / "ca.pem", tmp_path / "other.pem"
    authority.cert_pem.write_to_path(ca)
    other.cert_pem.write_to_path(wrong)
    with receiver(tls=context) as peer:
        client = a_sink(port=peer.port, tls=True, tls_ca=str(ca)).client()
        assert [client.send("H1", TEXT).code for _ in range(2)] == ["AA", "AA"]
        client.close()
        assert peer.connections == 1
        with pytest.raises(Outage, match="speaks no TLS that fits"):
            a_sink(port=peer.port, tls=True, tls_ca=str(wrong)).client().send("H1", TEXT)


def test_a_check_connects_and_with_a_message_is_answered() -> None:
    with receiver(lambda message: acknowledgement(message, "AE")) as peer:
        assert [step.ok for step in a_sink(port=peer.port).check(Settings())] == [True]
        assert [step.ok for step in a_sink(port=peer.port).check(Settings(), with_object=True)] == [True, True]
        assert peer.messages[0].code == "NMQ"
    [step] = a_sink(port=peer.port, connect_timeout_s=0.5).check(Settings())
    assert not step.ok
    assert step.fix


# The order of messages


class Listed:
    """Messages in a list instead of the database, and which of them are pending."""

    def __init__(self, count: int) -> None:
        self.all = [Outgoing(delivery_id=f"d{n}", number=n, control_id=f"H{n}", text=a_text(n)) for n in range(count)]
        self.pending = {each.delivery_id for each in self.all}

    def messages(self, delivery_ids: Sequence[str]) -> list[Outgoing]:
        return [each for each in self.all if each.delivery_id in delivery_ids]

    def has_older(self, destination: str, number: int, but: Iterable[str]) -> bool:
        del destination
        return any(each.number < number and each.delivery_id in self.pending - set(but) for each in self.all)

    def close(self) -> None:
        pass


def a_text(number: int) -> str:
    return f"MSH|^~\\&|HILUM||||20260101||ORU^R01|H{number}|P|2.5|||||||UNICODE UTF-8\rPID|||||Łódź\r"


class Sending:
    """A session, as a worker uses it."""

    def __init__(self, peer: Receiver, count: int, *, character_set: str = "UNICODE UTF-8", **settings: Any) -> None:
        self.queued = Listed(count)
        self.stored: dict[tuple[str, str], bytes] = {}
        client = a_client(peer.port)
        queued: Any = self.queued  # a list instead
        self.session = Messages(client, queued, character_set, lambda *which: self.stored[which], **settings)

    def work(self, *numbers: int) -> dict[int, Any]:
        """Deliver these as one batch, in this order; what became of each, until an outage."""
        batch = [a_delivery(n) for n in numbers]
        self.session.begin(batch)
        found: dict[int, Any] = {}
        for number, delivery in zip(numbers, batch, strict=True):
            try:
                found[number] = self.session.deliver(delivery, Part10(MemoryStore(), delivery.object)).state
                self.queued.pending.discard(delivery.delivery_id)
            except (Park, NotYet) as error:
                found[number] = type(error)
                if isinstance(error, Park):
                    self.queued.pending.discard(delivery.delivery_id)
            except TryAgain as error:
                found[number] = type(error)
                break
        return found


def a_delivery(number: int) -> Delivery:
    nothing = ObjectRef(bucket="", key="", size_bytes=0, sha256="")
    empty: dict[str, Any] = dict.fromkeys(
        ("receipt", "study_instance_uid", "series_instance_uid", "sop_instance_uid", "sop_class_uid", "transfer_syntax_uid"), ""
    )
    return Delivery(delivery_id=f"d{number}", destination="ris", object=nothing, **empty)


@pytest.fixture
def peer() -> Iterator[Receiver]:
    with receiver() as found:
        yield found


def test_a_batch_goes_in_the_order_of_the_messages_whatever_the_order_of_its_rows(peer: Receiver) -> None:
    assert set(Sending(peer, 5).work(3, 0, 4, 1, 2).values()) == {"delivered"}

    assert peer.control_ids == ["H0", "H1", "H2", "H3", "H4"]


def test_a_batch_waits_for_an_older_message_that_is_not_in_it(peer: Receiver) -> None:
    sending = Sending(peer, 4)
    assert sending.work(1, 2) == {1: NotYet, 2: NotYet}
    assert peer.messages == []

    assert sending.work(0) == {0: "delivered"}
    assert sending.work(1, 2) == {1: "delivered", 2: "delivered"}


def test_what_comes_after_one_that_could_not_be_sent_waits(peer: Receiver) -> None:
    def hangs_up(message: Message) -> bytes:
        if message.get("MSH-10") == "H2":
            raise ConnectionResetError
        return acknowledgement(message)

    peer.answer = hangs_up
    sending = Sending(peer, 4)

    assert sending.work(0, 1, 2, 3) == {0: "delivered", 1: "delivered", 2: Outage}
    assert sending.work(3, 2) == {3: Outage}
    peer.answer = acknowledgement
    assert sending.work(3, 2) == {3: "delivered", 2: "delivered"}
    assert peer.control_ids == ["H0", "H1", "H2", "H2", "H2", "H3"]


def test_a_message_that_is_not_taken_for_its_content_is_put_aside_and_the_others_go_on(peer: Receiver) -> None:
    peer.answer = lambda message: acknowledgement(message, "AE" if message.get("MSH-10") == "H0" else "AA", error="101", says="Doe^John?")
    sending = Sending(peer, 2)

    assert sending.work(0, 1) == {0: Park, 1: "delivered"}


def test_what_the_receiver_objects_to_is_for_the_ledger_alone(peer: Receiver) -> None:
    peer.answer = lambda message: acknowledgement(message, "AE", error="101", says="Doe is nobody")
    sending = Sending(peer, 1)
    sending.session.begin([a_delivery(0)])

    with pytest.raises(Park) as park:
        sending.session.deliver(a_delivery(0), Part10(MemoryStore(), a_delivery(0).object))

    assert "Doe" not in str(park.value)
    assert (park.value.peer_status, park.value.peer_comment) == ("AE", "Doe is nobody")


def test_what_was_sent_before_an_outage_is_said_before_it_whatever_the_order_of_rows(peer: Receiver) -> None:
    peer.answer = lambda message: acknowledgement(message, "AR" if message.get("MSH-10") == "H1" else "AA")

    assert Sending(peer, 3).work(2, 1, 0) == {2: NotYet, 1: NotYet, 0: "delivered"}


def test_a_rejection_is_tried_again_for_as_long_as_it_takes_and_nothing_overtakes(peer: Receiver) -> None:
    peer.answer = lambda message: acknowledgement(message, "AR" if len(peer.messages) <= 50 else "AA")
    sending = Sending(peer, 2)

    assert [sending.work(0, 1) for _ in range(50)] == [{0: Outage}] * 50
    assert sending.work(0, 1) == {0: "delivered", 1: "delivered"}


@pytest.mark.parametrize("code", ["AE", "CE"])
def test_an_error_that_a_receiver_is_known_to_mean_for_now_is_tried_again(peer: Receiver, code: str) -> None:
    peer.answer = lambda message: acknowledgement(message, code, error="207")

    assert Sending(peer, 1).work(0) == {0: Park}
    assert Sending(peer, 1, try_again=["207"]).work(0) == {0: Outage}


def test_a_rejection_is_put_aside_after_so_long_if_that_is_asked_for(peer: Receiver) -> None:
    now = 0.0
    peer.answer = lambda message: acknowledgement(message, "AR" if message.get("MSH-10") == "H0" else "AA")
    sending = Sending(peer, 2, patience_s=60.0, clock=lambda: now)

    assert sending.work(0, 1) == {0: Outage}
    now = 59.0
    assert sending.work(0, 1) == {0: Outage}
    now = 60.0
    assert sending.work(0, 1) == {0: Park, 1: "delivered"}


def test_what_the_character_set_does_not_hold_is_transliterated(peer: Receiver) -> None:
    assert Sending(peer, 1, character_set="8859/1").work(0) == {0: "delivered"}

    assert peer.raw[0].endswith("PID|||||Lódz\r".encode("latin-1"))


def test_a_message_that_is_not_here_is_put_aside(peer: Receiver) -> None:
    sending = Sending(peer, 1)
    sending.queued.all[0] = Outgoing(delivery_id="d0", number=0, control_id="H0", text="")

    assert sending.work(0) == {0: Park}
    assert sending.work(7) == {7: Park}


def test_the_bytes_of_a_message_go_out_as_they_are(peer: Receiver) -> None:
    sending = Sending(peer, 2)
    here, stored = (f"MSH|^~\\&|A||||20260101||ADT^A08|H{n}|P|2.5|||||||8859/1\rPID|||||Müller\r".encode("latin-1") for n in (0, 1))
    sending.stored["b", "k"] = stored
    sending.queued.all[0] = Outgoing(delivery_id="d0", number=0, control_id="H0", text="x", content=here)
    sending.queued.all[1] = Outgoing(delivery_id="d1", number=1, control_id="H1", text="x", bucket="b", object_key="k")

    assert sending.work(0, 1) == {0: "delivered", 1: "delivered"}
    assert [raw.encode("latin-1") if isinstance(raw, str) else raw for raw in peer.raw] == [here, stored]


def test_a_control_id_with_what_the_database_does_not_hold_is_acknowledged(peer: Receiver) -> None:
    sending = Sending(peer, 1)
    content = b"MSH|^~\\&|A||||20260101||ADT^A08|H\x000|P|2.5\r"
    sending.queued.all[0] = Outgoing(delivery_id="d0", number=0, control_id="H0", text="x", content=content)

    assert sending.work(0) == {0: "delivered"}


def test_python_hl7_takes_every_message_once() -> None:
    with python_hl7() as (port, taken):
        client = a_client(port)
        facts = dict.fromkeys(FACTS, "") | STUDY | {"Event": "study-completed", "Now": "20260101000000+0000"}
        sink = a_sink()
        for n in range(50):
            text = text_of(sink, Notice(kind="study-completed", control_id=f"H{n}", facts={}), facts)
            assert client.send(f"H{n}", text.encode()).code == "AA"
        client.close()
        assert [parse(text).get("MSH-10") for text in taken] == [f"H{n}" for n in range(50)]
        assert "Müller" in taken[0]


@pytest.mark.system
@pytest.mark.parametrize("kind", ["ORU^R01", "OMG^O19", "ORM^O01"])
def test_hapi_takes_what_is_said(kind: str) -> None:
    with hapi_server() as port:
        client, sink = a_client(port), a_sink(message=kind)
        for n, event in enumerate(("study-opened", "study-completed", "delivered", "quarantined", "step-discontinued")):
            text = text_of(sink, Notice(kind=event, control_id=f"H{n}", facts={}), STUDY)
            assert client.send(f"H{n}", text.encode()).code == "AA"
        client.close()
