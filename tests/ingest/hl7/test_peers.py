"""HAPI's client and server, python-hl7's `mllp_send`, and a raw socket exchange the whole message set with Hilum, in both directions."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from bench.hapi import hapi_send, hapi_server
from hilum.hl7.message import parse
from hilum.hl7.validation import validated
from hilum.mllp_client import MllpClient
from tests.mllp_receiver import python_hl7, receiver

from .listening import Peer, listening
from .messages import message_set

pytestmark = pytest.mark.system
SET = message_set()
IDS = [f"S{number}" for number in range(len(SET))]


def test_hapis_client_sends_the_whole_set(tmp_path: Path) -> None:
    with listening(tmp_path) as running:
        assert hapi_send(running.port, SET) == [f"AA {control_id}" for control_id in IDS]
        events = running.received()

    assert [event.control_id for event in events] == IDS
    for event, sent in zip(events, SET, strict=True):
        for segment in parse(sent).all:
            assert segment.text.rstrip("|^") in event.text, f"{segment.name} of {event.control_id}"  # HAPI leaves out empty components


def test_python_hl7_sends_the_whole_set(tmp_path: Path) -> None:
    file = tmp_path / "messages"
    file.write_bytes(b"".join(b"\x0b" + message.encode() + b"\x1c\r" for message in SET))
    with listening(tmp_path) as running:
        command: list[str | Path] = [Path(sys.executable).with_name("mllp_send"), "--port", str(running.port), "--file", file, "127.0.0.1"]
        done = subprocess.run(command, capture_output=True, timeout=60)
        assert done.returncode == 0, done.stderr
        events = running.received()

    assert re.findall(rb"MSA\|AA\|(S\d+)", done.stdout) == [control_id.encode() for control_id in IDS]
    assert [event.text for event in events] == SET


def test_a_raw_socket_sends_the_whole_set(tmp_path: Path) -> None:
    with listening(tmp_path) as running, Peer(running.port) as peer:
        answers = [peer.asked(message) for message in SET]
        events = running.received()

    assert [(answer.get("MSA-1"), answer.get("MSA-2")) for answer in answers] == [("AA", control_id) for control_id in IDS]
    assert [event.text for event in events] == SET


def hilum_sends_all_to(port: int) -> list[tuple[str, str]]:
    """MSA-1 and MSA-2 of each acknowledgement that Hilum's client gets."""
    with MllpClient("127.0.0.1", port) as client:
        answers = [parse(client.send(message.encode()).decode()) for message in SET]
    return [(answer.get("MSA-1"), answer.get("MSA-2")) for answer in answers]


def test_hapis_server_takes_the_whole_set(tmp_path: Path) -> None:
    with hapi_server(tmp_path / "taken") as port:
        assert hilum_sends_all_to(port) == [("AA", control_id) for control_id in IDS]

    taken = (tmp_path / "taken").read_text("utf-8").split("\x1c")[:-1]
    assert [parse(text).get("MSH-10") for text in taken] == IDS
    for text, sent in zip(taken, SET, strict=True):
        for segment in parse(sent).all:
            assert segment.text.rstrip("|^") in text, f"{segment.name} of {parse(sent).get('MSH-10')}"


def test_python_hl7s_server_takes_the_whole_set() -> None:
    with python_hl7() as (port, taken):
        assert hilum_sends_all_to(port) == [("AA", control_id) for control_id in IDS]

    assert [text.rstrip("\r") for text in taken] == [message.rstrip("\r") for message in SET]


def test_a_raw_socket_takes_the_whole_set() -> None:
    with receiver() as peer:
        assert hilum_sends_all_to(peer.port) == [("AA", control_id) for control_id in IDS]

    assert peer.raw == [message.encode() for message in SET]


#: What `docs/operations/orders.md` says of which messages something becomes, and documents, which are kept and passed on.
NAMED = {
    *(f"ADT^A{number:02}" for number in (*range(1, 9), 11, 12, 13, 18, 24, 28, 31, 34, 37, 40, 45, 47)),
    *("ORM^O01", "OMI^O23", "OMG^O19", "ORU^R01", "MDM^T02", "SIU^S12", "SIU^S13", "SIU^S14", "SIU^S15"),
}


def test_the_set_has_every_message_that_hilum_makes_something_of() -> None:
    assert {f"{parse(message).get('MSH-9.1')}^{parse(message).get('MSH-9.2')}" for message in SET} == NAMED


@pytest.mark.parametrize("message", SET, ids=lambda message: f"{parse(message).get('MSH-9.2')}-{parse(message).get('ORC-1')}")
def test_the_set_is_what_the_grammar_allows(message: str) -> None:
    assert [fault for fault in validated(message) if fault.grave] == []
