import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hilum.cli import app
from hilum.commitments import Commitment, Commitments
from hilum.dicom.commitment import Failure, FailureReason, Reference
from hilum.errors import NotFound

CT = "1.2.840.10008.5.1.4.1.1.2"
NOON = datetime(2024, 2, 29, 12, tzinfo=UTC)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """One request that waits for its SCU, and one that has ended."""
    commitments = Commitments(tmp_path / "spool" / "commitments")
    references = (Reference(CT, "2.25.3"), Reference(CT, "2.25.4"))
    for number in (1, 2):
        asked = commitments.ask(
            Commitment(
                id=f"c{number}",
                transaction_uid=f"2.25.{number}00",
                calling_aet="CT1",
                called_aet="HILUM",
                peer="10.1.2.3",
                association="",
                asked_at=NOON + timedelta(minutes=number),
                objects=2,
                references=references,
            )
        )
        failures = (Failure(references[1], FailureReason.NO_SUCH_INSTANCE),)
        commitments.change(
            asked.id, state="decided", decided_at=NOON, failures=failures, failed=1, attempts=3, says="It cannot be reached."
        )
    commitments.finish("c1", state="reported", ended_at=NOON, says="reported")
    return tmp_path


def run(data: Path, *arguments: str) -> str:
    result = CliRunner().invoke(app, ["commitment", *arguments, "--data", str(data)], catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


def test_what_is_open_is_listed_and_the_rest_if_asked_for(data: Path) -> None:
    assert [each["transaction_uid"] for each in json.loads(run(data, "list", "--json"))] == ["2.25.200"]
    assert [each["state"] for each in json.loads(run(data, "list", "--all", "--json"))] == ["reported", "decided"]


def test_the_list_is_for_people_too(data: Path) -> None:
    shown = run(data, "list")

    assert "It cannot be reached." in shown
    assert "2.25.100" not in shown


def test_a_request_is_shown_object_by_object(data: Path) -> None:
    [shown] = json.loads(run(data, "show", "2.25.100", "--json"))

    assert (shown["state"], shown["calling_aet"], shown["attempts"]) == ("reported", "CT1", 3)
    assert shown["references"] == [
        {"sop_class_uid": CT, "sop_instance_uid": "2.25.3", "result": "committed"},
        {"sop_class_uid": CT, "sop_instance_uid": "2.25.4", "result": "no-such-instance"},
    ]
    assert "no-such-instance" in run(data, "show", "c2")


def test_a_report_that_waits_is_tried_again_at_once(data: Path) -> None:
    commitments = Commitments(data / "spool" / "commitments")
    commitments.change("c2", not_before=NOON + timedelta(days=9999))

    assert "2.25.200: its report to CT1 is tried again." in run(data, "retry")
    found = commitments.get("c2")
    assert found is not None
    assert (found.state, found.attempts, found.not_before) == ("decided", 3, None)


def test_a_report_that_was_given_up_is_tried_once_more_if_it_is_named(data: Path) -> None:
    commitments = Commitments(data / "spool" / "commitments")
    commitments.finish("c2", state="given-up", ended_at=NOON)
    assert "No report waits for its SCU." in run(data, "retry")

    assert "2.25.200: its report to CT1 is tried again." in run(data, "retry", "2.25.200")
    found = commitments.get("c2")
    assert found is not None
    assert (found.state, found.attempts, found.not_before, found.ended_at) == ("decided", 0, None, None)
    assert [each.id for each in commitments.done()] == ["c1"]


def test_what_was_reported_is_not_tried_again(data: Path) -> None:
    result = CliRunner().invoke(app, ["commitment", "retry", "2.25.100", "--data", str(data)])

    assert result.exit_code == 4
    assert "Nothing to try: 2.25.100 was reported." in result.stdout


def test_what_is_not_there_is_not_found(data: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"no storage commitment request 1\.2\.3"):
        run(data, "show", "1.2.3")
    with pytest.raises(NotFound, match="Run this where the spool is"):
        run(tmp_path / "elsewhere", "list")
    assert not (tmp_path / "elsewhere").exists()


def test_where_nothing_was_asked_there_is_nothing_to_show(tmp_path: Path) -> None:
    (tmp_path / "spool").mkdir()

    assert "No request is open." in run(tmp_path, "list")
