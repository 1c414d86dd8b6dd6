"""Each row of the table of wrong orders in `docs/reference/hl7.md`: sent to a listener, and what the commands show of it."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hilum.cli import app
from hilum.database import connect
from hilum.database.orders import write_matches, write_orders, write_patients
from hilum.events import OrderChanged, PatientChanged
from tests.ingest.hl7.listening import Peer, listening
from tests.processors.match.room import Room
from tests.processors.orders.ris import Site
from tests.wrong_orders import WRONG_ORDERS, WrongOrder

pytestmark = pytest.mark.system


def sent(example: WrongOrder, path: Path) -> tuple[list[str], Site, Room]:
    """MSA-1 of each acknowledgement, and the stages after they have taken what the listener tells."""
    site, room, answers = Site(), Room(), []
    with listening(path) as running, Peer(running.port) as peer:
        for each in example.sent:
            if isinstance(each, str):
                answers.append(peer.asked("".join(f"{line.strip()}\r" for line in each.strip().splitlines())).get("MSA-1"))
                room.give(*(said for said in site.give(running.received()[-1]) if isinstance(said, OrderChanged)))
            else:
                room.give(each)
    return answers, site, room


def shown(*arguments: str) -> str:
    """What a command prints."""
    done = CliRunner().invoke(app, list(arguments))
    assert done.exception is None, done.exception
    return done.stdout


def assert_says(output: str, facts: tuple[tuple[str, str], ...]) -> None:
    """Each fact has its line: what was noticed by its code, anything else behind its label. Orders are told by their placer numbers."""
    lines = [line.split("\t") for line in output.splitlines()]
    for label, value in facts:
        if label == "Noticed":
            assert value in [line[0] for line in lines], lines
        elif label == "Orders":
            head = next(n for n, line in enumerate(lines) if line[:2] == ["Accession", "Placer"])
            placers = [line[1] for line in itertools.takewhile(lambda line: line != [""], lines[head + 1 :])]
            assert sorted(placers) == sorted(value.split(", "))
        else:
            [said] = [line[1] for line in lines if line[0] == label and len(line) == 2]
            assert sorted(said.split(", ")) == sorted(value.split(", ")), label


@pytest.mark.parametrize("example", WRONG_ORDERS, ids=lambda example: example.title.replace(" ", "-"))
def test_each_has_its_acknowledgement_and_is_shown(
    example: WrongOrder, postgres: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"POSTGRES__DSN": postgres, "KAFKA__BOOTSTRAP": "127.0.0.1:1", "S3__ENDPOINT": "http://127.0.0.1:1"}.items():
        monkeypatch.setenv(f"HILUM_{name}", value)
    answers, site, room = sent(example, tmp_path)
    [uid] = {event.study_instance_uid for event in room.said if event.about == "study"}
    with connect(postgres) as connection:
        write_patients(connection, [event for event in site.said if isinstance(event, PatientChanged)])
        write_orders(connection, [event for event in site.said if isinstance(event, OrderChanged)])
        write_matches(connection, room.said)
        connection.execute("INSERT INTO study (study_instance_uid, receipt, received_at) VALUES (%s, 'r', now())", (uid,))

    assert tuple(answers) == example.answers
    for placer, facts in example.orders.items():
        assert_says(shown("order", "show", placer), facts)
    for identifier, noted in example.patients.items():
        assert [line.split("\t")[-1] for line in shown("patient", "show", identifier).splitlines()[1:]] == [noted]
    assert_says(shown("study", "match", uid), example.study)
