"""HAPI's client and server, python-hl7's `mllp_send`, and a raw socket exchange the whole message set with Hilum."""

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


def test_hilums_client_sends_the_whole_set_to_hapis_server() -> None:
    with hapi_server() as port, MllpClient("127.0.0.1", port) as client:
        answers = [parse(client.send(message.encode()).decode()) for message in SET]

    assert [(answer.get("MSA-1"), answer.get("MSA-2")) for answer in answers] == [("AA", control_id) for control_id in IDS]


@pytest.mark.parametrize("message", SET, ids=lambda message: parse(message).get("MSH-9.2"))
def test_the_set_is_what_the_grammar_allows(message: str) -> None:
    assert [fault for fault in validated(message) if fault.grave] == []
