from __future__ import annotations

import json
import socket
import ssl
import threading
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import trustme

from bench.peers import free_port
from hilum.hl7.message import parse
from hilum.mllp import END, START, framed
from hilum.testing import eventually

from .listening import Peer, a_message, listening, secured


def test_a_message_is_acknowledged_and_durable(tmp_path: Path) -> None:
    with listening(tmp_path) as running, Peer(running.port) as peer:
        answer = peer.asked(a_message("M42"))
        [event] = running.received()

    assert (answer.get("MSA-1"), answer.get("MSA-2")) == ("AA", "M42")
    assert (answer.get("MSH-3"), answer.get("MSH-4"), answer.get("MSH-5"), answer.get("MSH-6")) == ("HILUM", "NORTH", "RIS", "NORTH")
    assert (answer.get("MSH-9.1"), answer.get("MSH-9.2"), answer.get("MSH-9.3"), answer.get("MSH-12")) == ("ACK", "O01", "ACK", "2.5.1")
    assert (event.control_id, event.code, event.trigger, event.structure) == ("M42", "ORM", "O01", "ORM_O01")
    assert (event.sending_application, event.peer, event.version) == ("RIS", "127.0.0.1", "2.5.1")
    assert event.text == a_message("M42")


def test_what_was_acknowledged_is_there_after_a_new_start(tmp_path: Path) -> None:
    with listening(tmp_path) as running, Peer(running.port) as peer:
        peer.asked(a_message("M1"))

    with listening(tmp_path) as running, Peer(running.port) as peer:
        peer.asked(a_message("M1"))  # a repeat, also over a new start
        peer.asked(a_message("M2"))

        assert [event.control_id for event in running.received()] == ["M1", "M2"]


def test_pipelined_messages_are_answered_in_their_order(tmp_path: Path) -> None:
    with listening(tmp_path) as running, Peer(running.port) as peer:
        peer.send(b"".join(framed(a_message(f"M{number}").encode()) for number in range(300)))
        answers = [peer.answer() for _ in range(300)]

        assert [answer and answer.get("MSA-2") for answer in answers] == [f"M{number}" for number in range(300)]
        assert [event.control_id for event in running.received()] == [f"M{number}" for number in range(300)]


def test_a_strict_sender_is_answered_in_order_too(tmp_path: Path) -> None:
    with listening(tmp_path, senders={"ris": {"applications": ["RIS"], "validation": "strict"}}) as running, Peer(running.port) as peer:
        contents = [a_message("M1"), a_message("M2", sender="OTHER"), a_message("M3", kind="XYZ^Q1"), a_message("M4", sender="OTHER")]
        peer.send(b"".join(framed(content.encode()) for content in contents))
        answers = [answer.get("MSA-1") + answer.get("MSA-2") for _ in contents if (answer := peer.answer())]

        assert answers == ["AAM1", "AAM2", "ARM3", "AAM4"]
        assert [event.sender for event in running.received()] == ["ris", "", ""]


def test_processes_validate_and_one_that_dies_is_no_fault_of_the_message(tmp_path: Path) -> None:
    with listening(tmp_path, processes=True, validation="strict") as running, Peer(running.port) as peer:
        assert peer.asked(a_message("M1", kind="XYZ^Q1")).get("MSA-1") == "AR"
        for child in psutil.Process().children(recursive=True):
            if "spawn_main" in " ".join(child.cmdline()):
                child.kill()
        codes = [peer.asked(a_message(f"M{number}")).get("MSA-1") for number in (2, 3, 4)]

        assert codes[-1] == "AA"
        assert set(codes) <= {"AA", "AR"}


def test_a_message_byte_by_byte_is_one_message(tmp_path: Path) -> None:
    with listening(tmp_path) as running, Peer(running.port) as peer:
        for byte in framed(a_message().encode()):
            peer.send(bytes([byte]))
        answer = peer.answer()

        assert answer is not None
        assert answer.get("MSA-1") == "AA"


def test_many_connections_lose_nothing(tmp_path: Path) -> None:
    def sender(name: str) -> None:
        with Peer(running.port) as peer:
            for number in range(30):
                assert peer.asked(a_message(f"{name}-{number}")).get("MSA-1") == "AA"

    with listening(tmp_path) as running:
        threads = [threading.Thread(target=sender, args=(f"S{number}",)) for number in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        ids = [event.control_id for event in running.received()]

    assert len(ids) == 600
    for name in range(20):
        assert [each for each in ids if each.startswith(f"S{name}-")] == [f"S{name}-{number}" for number in range(30)]


@pytest.mark.parametrize(
    ("accept", "application", "codes"),
    [("", "", ["AA"]), ("AL", "NE", ["CA"]), ("AL", "AL", ["CA", "AA"]), ("NE", "AL", ["AA"]), ("SU", "", ["CA"]), ("NE", "NE", [])],
)
def test_the_acknowledgements_are_those_that_were_asked_for(accept: str, application: str, codes: list[str], tmp_path: Path) -> None:
    with listening(tmp_path) as running, Peer(running.port) as peer:
        peer.send(framed(a_message(accept=accept, application=application).encode()))
        peer.end()
        found = []
        while (answer := peer.answer()) is not None:
            found.append(answer.get("MSA-1"))

    assert found == codes


def test_a_sender_may_want_no_application_acknowledgement_behind_the_other(tmp_path: Path) -> None:
    senders = {"ris": {"applications": ["RIS"], "application_acknowledgement": False}}
    with listening(tmp_path, senders=senders) as running, Peer(running.port) as peer:
        assert peer.asked(a_message("M1", accept="AL", application="AL")).get("MSA-1") == "CA"
        assert peer.asked(a_message("M2", accept="AL", application="AL")).get("MSA-2") == "M2"


def test_a_full_disk_is_the_systems_fault_and_the_message_is_taken_later(tmp_path: Path) -> None:
    with listening(tmp_path, min_free_bytes=2**60) as running, Peer(running.port) as peer:
        answer = peer.asked(a_message("M1"))
        enhanced = peer.asked(a_message("M2", accept="AL", application="NE"))

        assert (answer.get("MSA-1"), answer.get("ERR-3.1")) == ("AR", "207")
        assert enhanced.get("MSA-1") == "CR"
        assert "nearly full" in running.listener.trouble
        running.journal._min_free_bytes = 0
        assert peer.asked(a_message("M1")).get("MSA-1") == "AA"
        assert running.listener.trouble == ""
        assert len(running.received()) == 1


def test_a_batch_is_answered_by_a_batch(tmp_path: Path) -> None:
    content = (
        "FHS|^~\\&|RIS|NORTH|HILUM|NORTH\rBHS|^~\\&|RIS|NORTH|HILUM|NORTH|||||B77\r" + a_message("M1") + a_message("M2") + "BTS|2\rFTS|1\r"
    )
    with listening(tmp_path) as running, Peer(running.port) as peer:
        peer.send(framed(content.encode()))
        raw = peer.raw_answer()
        assert raw is not None
        text = raw.decode()

        assert text.startswith("BHS|^~\\&|HILUM|NORTH|RIS|NORTH|")
        assert text.endswith("\rBTS|2\r")
        assert [segment.get(2) for segment in parse(text[text.index("MSH") :]).segments("MSA")] == ["M1", "M2"]
        assert [event.control_id for event in running.received()] == ["M1", "M2"]


def test_messages_that_merely_follow_each_other_in_a_block_are_each_answered(tmp_path: Path) -> None:
    with listening(tmp_path) as running, Peer(running.port) as peer:
        peer.send(framed((a_message("M1") + a_message("M2")).encode()))

        assert [answer.get("MSA-2") for _ in range(2) if (answer := peer.answer())] == ["M1", "M2"]


def test_an_acknowledgement_is_in_the_senders_character_set_and_delimiters(tmp_path: Path) -> None:
    content = a_message("M1", charset="8859/1").replace("RIS|NORTH|HILUM", "RÖNTGEN|NORTH|HILUM").replace("|", "#")
    with listening(tmp_path) as running, Peer(running.port) as peer:
        peer.send(framed(content.encode("latin-1")))
        raw = peer.raw_answer()

        assert raw is not None
        assert raw.startswith(b"MSH#^~\\&#HILUM#NORTH#R\xd6NTGEN#NORTH#")
        assert parse(raw.decode("latin-1")).get("MSH-18") == "8859/1"
        assert running.received()[0].sending_application == "RÖNTGEN"


def test_a_large_message_is_taken_whole(tmp_path: Path) -> None:
    content = a_message(more="OBX|1|ED|PDF||" + "QUJD" * 500_000 + "\rNTE|1||end\r")
    with listening(tmp_path) as running, Peer(running.port) as peer:
        assert peer.asked(content).get("MSA-1") == "AA"
        [event] = running.received()

    assert event.text_cut
    assert event.size_bytes == len(content)
    assert event.text.endswith("ZDS|2.25.3201^NORTH^Application^DICOM\r")
    assert event.object_key == f"hl7/{event.received_at:%Y/%m/%d}/{event.message_id}.hl7"


def test_more_connections_than_allowed_are_closed_at_once(tmp_path: Path) -> None:
    with listening(tmp_path, max_connections=2) as running, Peer(running.port) as first, Peer(running.port) as second:
        assert first.asked(a_message("M1")).get("MSA-1") == "AA"
        assert second.asked(a_message("M2")).get("MSA-1") == "AA"
        with Peer(running.port) as third, pytest.raises((ConnectionError, AssertionError)):
            third.asked(a_message())


def test_who_only_holds_connections_open_locks_nobody_out(tmp_path: Path) -> None:
    with listening(tmp_path, max_connections=2) as running, Peer(running.port) as silent:
        eventually(lambda: running.listener.connections == 1)
        with Peer(running.port), Peer(running.port) as sender:
            assert sender.asked(a_message()).get("MSA-1") == "AA"
            with pytest.raises((ConnectionError, AssertionError)):
                silent.asked(a_message())


def test_a_senders_character_set_holds_where_a_message_declares_none(tmp_path: Path) -> None:
    senders = {"ris": {"applications": ["RIS"], "character_set": "8859/2"}}
    with listening(tmp_path, senders=senders) as running, Peer(running.port) as peer:
        peer.asked(a_message().replace("Synthetic^Sam", "WAŁĘSA").encode("iso8859-2"))
        [event] = running.received()

    assert "||WAŁĘSA||" in event.text
    assert event.findings == ()


def test_a_block_that_never_ends_is_ended_by_time(tmp_path: Path) -> None:
    with listening(tmp_path, idle_timeout_s=0.5) as running, Peer(running.port) as peer:
        peer.send(START + b"MSH|^~\\&|RIS")

        assert peer.answer() is None
        [event] = eventually(running.refused)
        assert event.reason == "unterminated"


def test_a_block_that_drips_is_ended_by_time(tmp_path: Path) -> None:
    with listening(tmp_path, message_timeout_s=0.5) as running, Peer(running.port) as peer:
        peer.send(START + b"MSH|^~\\&|RIS")

        def dripped() -> bool:
            try:
                peer.send(b"x")
            except OSError:
                return True
            return False

        assert eventually(dripped)


def test_a_connection_without_a_block_may_be_idle(tmp_path: Path) -> None:
    with listening(tmp_path, idle_timeout_s=0.5) as running, Peer(running.port) as peer, Peer(running.port) as other:
        other.send(START + b"MSH")
        eventually(lambda: running.listener.connections == 1)

        assert peer.asked(a_message()).get("MSA-1") == "AA"


def test_garbage_from_one_address_is_kept_a_few_times_only(tmp_path: Path) -> None:
    with listening(tmp_path) as running:
        for number in range(20):
            with Peer(running.port) as peer:
                peer.send(b"GET / HTTP/1.1\r\n\r\n")
                peer.end()
                assert peer.answer() is None, number

        assert len(eventually(running.refused)) <= 5


def test_a_listener_that_ends_answers_what_it_took(tmp_path: Path) -> None:
    with listening(tmp_path) as running, Peer(running.port) as peer:
        peer.send(framed(a_message("M1").encode()) + framed(a_message("M2").encode()) + b"\x0bMSH|^~\\&|half")
        eventually(lambda: len(running.received()) == 2)
    with listening(tmp_path) as again:
        assert [event.control_id for event in again.received()] == ["M1", "M2"]


def test_tls_is_spoken_and_the_certificate_is_asked_for(tmp_path: Path) -> None:
    authority = trustme.CA()
    tls = secured(tmp_path, authority)
    context = ssl.create_default_context()
    authority.configure_trust(context)
    port = free_port()

    def wrap(raw: socket.socket) -> socket.socket:
        return context.wrap_socket(raw, server_hostname="127.0.0.1")

    with listening(tmp_path, tls=tls, tls_port=port) as running:
        with (
            pytest.raises((ssl.SSLError, ConnectionError, AssertionError)),
            Peer(port, lambda raw: context.wrap_socket(raw, server_hostname="127.0.0.1")) as peer,
        ):
            peer.asked(a_message("M1"))
        context.load_cert_chain(tmp_path / "ris.pem")
        with Peer(port, wrap) as peer:
            assert peer.asked(a_message("M2")).get("MSA-1") == "AA"
        assert [event.control_id for event in running.received()] == ["M2"]


def test_where_nothing_is_taken_without_tls_there_is_no_other_port(tmp_path: Path) -> None:
    tls = secured(tmp_path, trustme.CA())
    with listening(tmp_path, tls=tls, tls_port=free_port(), without_tls=False) as running:
        assert running.port == 0
        with Peer(running.listener.tls_port) as peer:
            peer.send(START + a_message("M1").encode() + END)
            with suppress(ConnectionError):
                assert not peer.socket.recv(1024).startswith(START)
        assert running.received() == []


def test_who_fails_to_shake_hands_is_logged_with_the_reason(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    tls = secured(tmp_path, trustme.CA())
    stranger = ssl.create_default_context()
    stranger.check_hostname, stranger.verify_mode = False, ssl.CERT_NONE
    port = free_port()
    with listening(tmp_path, tls=tls, tls_port=port):
        with suppress(OSError), stranger.wrap_socket(socket.create_connection(("127.0.0.1", port))) as secure:
            secure.recv(1)
        with socket.create_connection(("127.0.0.1", port)) as plain:
            plain.sendall(START + a_message("M1").encode() + END)
            with suppress(ConnectionError):
                plain.recv(1024)
        said = eventually(lambda: [json.loads(line) for line in capfd.readouterr().err.splitlines() if "handshake_failed" in line])

    assert [each["peer"] for each in said] == ["127.0.0.1"] * len(said)
    assert "peer did not return a certificate" in said[0]["says"]


def test_an_end_of_line_is_tolerated_after_the_end_block(tmp_path: Path) -> None:
    with listening(tmp_path) as running, Peer(running.port) as peer:
        peer.send(START + a_message("M1").replace("\r", "\n").encode() + END + b"\n")
        peer.answer()

        assert running.received()[0].text == a_message("M1")
