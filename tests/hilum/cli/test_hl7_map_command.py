"""How `hilum hl7 map` answers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hilum.cli import app
from hilum.errors import Misconfigured

MESSAGE = "MSH|^~\\&|RIS||||20261126||ORM^O01|C|P|2.3.1\rPID|||4711||Müller^Anna\rORC|NW|P1\rOBR|1|P1||CT^Head||||||||||||||A1\r"


@pytest.fixture
def message(tmp_path: Path) -> Path:
    file = tmp_path / "order.hl7"
    file.write_bytes(b"\x0b" + MESSAGE.encode("latin-1") + b"\x1c\r")
    return file


def test_it_shows_what_a_message_becomes(message: Path) -> None:
    shown = CliRunner().invoke(app, ["hl7", "map", str(message)]).stdout.splitlines()

    assert shown[0] == "ORM^O01: order, by the profile HL7 v2 (documented)"
    assert "patient.name\tMüller^Anna" in shown
    assert "order.accession\tA1" in shown


def test_json_has_all_of_it(message: Path) -> None:
    found = json.loads(CliRunner().invoke(app, ["hl7", "map", str(message), "--json"]).stdout)

    assert found["mapped"]["orders"][0]["facts"]["accession"]["value"] == "A1"


def test_of_a_message_from_which_nothing_follows_it_shows_whom_it_names(tmp_path: Path) -> None:
    file = tmp_path / "document.hl7"
    file.write_text("MSH|^~\\&|D||||||MDM^T02|1|P|2.5.1\rPID|||4711\rTXA|1|DI||||||||||DOC-1||P1\r", newline="")
    shown = CliRunner().invoke(app, ["hl7", "map", str(file)]).stdout.splitlines()

    assert shown[0].startswith("MDM^T02: other")
    assert {"names patients\t4711", "names orders\tP1"} <= set(shown)


def test_an_unknown_sender_is_refused(message: Path) -> None:
    error = CliRunner().invoke(app, ["hl7", "map", str(message), "--sender", "ris"]).exception

    assert isinstance(error, Misconfigured)
    assert error.reason == "hl7-sender-unknown"


def test_what_is_no_message_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "no.hl7"
    file.write_text("Hello")
    error = CliRunner().invoke(app, ["hl7", "map", str(file)]).exception

    assert isinstance(error, Misconfigured)
    assert error.reason == "hl7-unreadable"
