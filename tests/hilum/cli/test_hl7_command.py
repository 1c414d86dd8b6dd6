"""How `hilum hl7` sends, shows and validates."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import trustme
from msgspec.structs import replace
from typer.testing import CliRunner

from bench.peers import free_port
from hilum.cli import app
from hilum.contract.hl7_examples import HL7_EXAMPLES, MESSAGE_ID, TEXT
from hilum.database import connect
from hilum.database.hl7_messages import write_messages
from hilum.errors import Misconfigured, TryAgain
from hilum.events import MessageReceived, MessageRefused
from tests.ingest.hl7.listening import a_message, listening, secured


def run(*arguments: object, **more: Any) -> Any:
    return CliRunner().invoke(app, ["hl7", *map(str, arguments)], **more)


@pytest.mark.parametrize(
    ("contents", "codes", "exit_code"),
    [
        ([a_message("M1").encode(), b"\x0b" + a_message("M2").encode() + b"\x1c\r"], ["AA", "AA"], 0),
        ([a_message("M1").encode(), b"hello"], ["AA", "AE"], 6),
        ([b"hello"], ["AE"], 1),
    ],
)
def test_messages_are_sent_and_their_acknowledgements_shown(
    contents: list[bytes], codes: list[str], exit_code: int, tmp_path: Path
) -> None:
    files = [tmp_path / f"{number}.hl7" for number in range(len(contents))]
    for file, content in zip(files, contents, strict=True):
        file.write_bytes(content)
    with listening(tmp_path) as running:
        done = run("send", *files, "--to", f"127.0.0.1:{running.port}", "--json")

    assert done.exit_code == exit_code
    assert [each["code"] for each in json.loads(done.stdout)] == codes


def test_what_an_answer_says_twice_is_shown_once(tmp_path: Path) -> None:
    (tmp_path / "a.hl7").write_text("hello")
    with listening(tmp_path) as running:
        done = run("send", tmp_path / "a.hl7", "--to", f"127.0.0.1:{running.port}")

    assert done.stdout.count("does not begin with MSH") == 1


def test_a_batch_is_answered_message_by_message(tmp_path: Path) -> None:
    (tmp_path / "batch.hl7").write_text(f"BHS|^~\\&|RIS\r{a_message('M1')}{a_message('M2')}BTS|2\r")
    with listening(tmp_path) as running:
        done = run("send", tmp_path / "batch.hl7", "--to", f"127.0.0.1:{running.port}", "--json")

    assert [each["control_id"] for each in json.loads(done.stdout)] == ["M1", "M2"]


def test_what_is_sent_may_come_from_standard_input(tmp_path: Path) -> None:
    with listening(tmp_path) as running:
        done = run("send", "-", "--to", f"127.0.0.1:{running.port}", input=a_message("M1"))

    assert "AA\tM1" in done.stdout


def test_a_receiver_that_wants_a_certificate_is_shown_one(tmp_path: Path) -> None:
    (tmp_path / "a.hl7").write_text(a_message("M1"))
    tls, port = secured(tmp_path, trustme.CA()), free_port()
    send = ("send", tmp_path / "a.hl7", "--to", f"127.0.0.1:{port}", "--ca", tmp_path / "ca.pem")
    with listening(tmp_path, tls=tls, tls_port=port):
        without = run(*send)
        shown = run(*send, "--certificate", tmp_path / "ris.pem")

    assert isinstance(without.exception, TryAgain)
    assert "certificate" in str(without.exception)
    assert "AA\tM1" in shown.stdout


@pytest.mark.parametrize(
    ("to", "kind", "says"),
    [("nowhere", Misconfigured, "is no HOST:PORT"), ("127.0.0.1:1", TryAgain, "cannot be reached"), ("", TryAgain, "No HL7 listener")],
)
def test_where_nobody_listens_it_says_so(to: str, kind: type[Exception], says: str, tmp_path: Path) -> None:
    (tmp_path / "a.hl7").write_text(a_message())
    done = run("send", tmp_path / "a.hl7", *(["--to", to] if to else []), "--data", tmp_path)

    assert isinstance(done.exception, kind)
    assert says in str(done.exception)


@pytest.mark.parametrize(("more", "exit_code", "found"), [("", 0, []), ("FOO|1\r", 1, ["segment-unknown"])])
def test_a_message_is_held_against_its_grammar(more: str, exit_code: int, found: list[str], tmp_path: Path) -> None:
    (tmp_path / "a.hl7").write_text(a_message(more=more))
    done = run("validate", tmp_path / "a.hl7", "--json")

    assert done.exit_code == exit_code
    assert [each["code"] for each in json.loads(done.stdout)] == found


@pytest.fixture
def elsewhere(postgres: str) -> dict[str, str]:
    """An environment with a database that has a message and a refused one."""
    events = [HL7_EXAMPLES[MessageReceived](), HL7_EXAMPLES[MessageRefused]()]
    with connect(postgres) as connection:
        write_messages(connection, [events[0], replace(events[1], message_id="refused")])  # type: ignore[list-item]  # these two
    store = {"HILUM_S3__ENDPOINT": "http://none:1", "HILUM_S3__ACCESS_KEY": "none", "HILUM_S3__SECRET_KEY": "none"}
    return {"HILUM_POSTGRES__DSN": postgres, "HILUM_KAFKA__BOOTSTRAP": "none:1", **store}


@pytest.mark.system
def test_messages_are_listed_shown_and_not_replayed_unasked(elsewhere: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    viewer = {"type": "hl7", "host": "127.0.0.1", "port": 1, "on": ["message"]}
    lab = {**viewer, "forward": ["ZZZ"]}
    monkeypatch.setattr("hilum.desired.destinations", lambda settings: replace(settings, destinations={"viewer": viewer, "lab": lab}))
    listed = run("list", "--json", env=elsewhere)
    assert {line["message_id"]: line["refused"] for line in json.loads(listed.stdout)} == {
        MESSAGE_ID: None,
        "refused": "encoding-characters",
    }

    shown = run("show", "M000042", env=elsewhere)
    assert "PID-5\tSynthetic^Sam" in shown.stdout
    assert "segment-end-not-cr" in shown.stdout

    raw = run("show", "M000042", "--raw", env=elsewhere)
    assert raw.stdout_bytes == TEXT.encode("latin-1")

    assert run("replay", "M000042", env=elsewhere, input="n\n").exit_code == 4
    dry = run("replay", "M000042", "--dry-run", env=elsewhere)
    assert dry.exit_code == 0
    assert "not passed on again (--pass-on does that): viewer." in dry.stdout
    assert "They are passed on again: viewer." in run("replay", "M000042", "--dry-run", "--pass-on", env=elsewhere).stdout
    assert isinstance(run("replay", "refused", "--yes", env=elsewhere).exception, Misconfigured)
