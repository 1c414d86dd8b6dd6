"""`hilum send` where nothing needs to run."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hilum.cli import app
from hilum.synthetic import write_ct_study
from tests.peers import pacs


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_ct_study(tmp_path / "study", 3, rows=8, columns=8)
    (tmp_path / "study" / "README.txt").write_text("no object")
    return tmp_path / "study"


def test_a_dry_run_shows_what_would_be_sent_and_connects_to_nobody(folder: Path) -> None:
    done = CliRunner().invoke(app, ["send", str(folder), "--dry-run", "--port", "1", "--host", "127.0.0.1"])

    assert done.exit_code == 0
    assert "Would be sent: 3 objects; no DICOM objects: 1 file." in done.stdout


def test_a_file_that_is_no_object_is_named_once(folder: Path) -> None:
    with pacs() as there:
        done = CliRunner().invoke(app, ["send", str(folder), "--port", str(there.port), "--host", "127.0.0.1", "--aet", "PACS"])

    text = folder / "README.txt"
    assert f"{text}\tnot sent\tno DICOM object with SOP class, instance and transfer syntax.\n" in done.stdout
    assert done.stdout.endswith("Stored at PACS: 3 of 4 files.\n")


def test_a_dry_run_for_machines_names_class_and_transfer_syntax_of_each(folder: Path) -> None:
    done = CliRunner().invoke(app, ["send", str(folder), "--dry-run", "--json"])

    found = json.loads(done.stdout)
    assert [Path(each["file"]).suffix for each in found] == [".dcm"] * 3
    assert {(each["sop_class"], each["transfer_syntax"]) for each in found} == {("1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1")}
