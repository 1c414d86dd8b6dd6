"""`hilum worklist`, and what a modality does with its answer, against a receiver with the steps of the truth table."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from typer.testing import CliRunner, Result

from hilum.cli import app
from hilum.errors import Misconfigured, TryAgain
from hilum.modality_scu import Performed, scheduled_steps
from hilum.peer import NoAssociation, Peer
from hilum.procedures import Procedures
from tests.ingest.worklist.steps import Running, running
from tests.peers import pacs


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("worklist")) as found:
        yield found


def ask(receiver: Running, *options: str) -> Result:
    return CliRunner().invoke(app, ["worklist", "--host", "127.0.0.1", "--port", str(receiver.port), "--aet", "HILUM", *options])


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        (("--accession", "ACC1"), ["SPS1"]),
        (("--date", "20260705", "--modality", "CT"), ["SPS1", "SPS2"]),
        (("--station", "MR1"), ["SPS3", "SPS7"]),
        (("--patient", "PID4"), ["SPS4"]),
        (("--date", "20990101-"), []),
    ],
    ids=" ".join,
)
def test_steps_are_asked_for_by_their_keys(receiver: Running, options: tuple[str, ...], steps: list[str]) -> None:
    found = json.loads(ask(receiver, *options, "--json").stdout)

    assert sorted(each["00400100"]["Value"][0]["00400009"]["Value"][0] for each in found) == steps


def test_a_step_is_a_line(receiver: Running) -> None:
    said = ask(receiver, "--accession", "ACC4").stdout

    assert "20260706 0700\tACC4\tPID4\tDoering^Ida\tCT\tCT1, CT2\tThorax\tSPS4\t2.25.104" in said
    assert ask(receiver, "--accession", "NONE").stdout == "No step fits.\n"


def test_a_key_that_dicom_does_not_allow_is_refused_with_a_sentence(receiver: Running) -> None:
    error = ask(receiver, "--date", "tomorrow").exception

    assert isinstance(error, Misconfigured)
    assert str(error) == "'tomorrow' cannot be looked for as ScheduledProcedureStepStartDate. Write it as DICOM does."


def test_who_serves_no_worklist_is_told_apart_from_who_is_not_there(free_port: int) -> None:
    peer = Peer(host="127.0.0.1", port=free_port, aet="PACS", calling_aet="CT1")
    with pytest.raises(NoAssociation, match="cannot be reached"):
        scheduled_steps(peer)
    with pacs() as there, pytest.raises(TryAgain, match="takes no worklist queries"):
        scheduled_steps(Peer(host="127.0.0.1", port=there.port, aet="PACS", calling_aet="CT1"))


def test_what_is_found_is_begun_and_completed(receiver: Running) -> None:
    peer = Peer(host="127.0.0.1", port=receiver.port, aet="HILUM", calling_aet="CT1")
    [item] = scheduled_steps(peer, of_order=[("AccessionNumber", "ACC3")])
    performed = Performed(peer, item)

    assert performed.begin(datetime(2026, 7, 5, 18, tzinfo=UTC)) == 0x0000
    assert performed.complete(datetime(2026, 7, 5, 18, 20, tzinfo=UTC), "2.25.2", [("1.2.840.10008.5.1.4.1.1.4", "2.25.3")]) == 0x0000

    first, last = [each.event for each in Procedures(receiver.settings).untold()]
    assert (first.state, first.study_instance_uid, first.patient_name, first.scheduled[0].accession_number) == (
        "in-progress",
        "2.25.103",
        "Müller^Jörg",
        "ACC3",
    )
    assert (last.state, last.objects, last.station_aet) == ("completed", 1, "CT1")
