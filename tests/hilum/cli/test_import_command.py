"""`hilum import` where nothing needs to run."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bench.running import hilum
from hilum.cli import app
from hilum.records import Records
from hilum.spool import Spool, read_arrival
from hilum.synthetic import write_ct_study
from hilum.testing import eventually


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_ct_study(tmp_path / "study", 3, rows=8, columns=8, patient="SYNTH4711")
    (tmp_path / "study" / "README.txt").write_text("no object")
    return tmp_path / "study"


@pytest.fixture(autouse=True)
def data(tmp_path: Path) -> Path:
    """The data directory."""
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def run(tmp_path: Path, *arguments: object) -> tuple[int, dict[str, Any]]:
    done = CliRunner().invoke(app, ["import", *map(str, arguments), "--json", "--data", str(tmp_path / "data")])
    return done.exit_code, json.loads(done.stdout)


def test_everything_is_taken_with_its_sender_and_the_exit_code_says_so(folder: Path, tmp_path: Path) -> None:
    code, found = run(tmp_path, folder, "--sender", "CD_DESK")

    assert (code, found["taken"], found["skipped"]) == (0, 3, {"no-dicom": 1})
    spool = Spool(tmp_path / "data" / "spool")
    arrivals = [read_arrival(spool.read(receipt))[0] for receipt in spool.waiting()]
    assert {(arrival.adapter, arrival.calling_aet) for arrival in arrivals} == {("media", "CD_DESK")}


def test_an_import_leaves_a_record_which_its_objects_name(folder: Path, tmp_path: Path) -> None:
    (folder / "bad.dcm").touch()
    run(tmp_path, folder, "--sender", "CD_DESK")
    run(tmp_path, folder, "--dry-run")

    records, spool = Records(tmp_path / "data" / "spool" / "associations"), Spool(tmp_path / "data" / "spool")
    [record] = [records.read(name) for name in records.waiting()]
    assert record is not None
    assert (record.adapter, record.calling_aet, record.peer, record.ended) == ("media", "CD_DESK", "import", "complete")
    assert (record.objects, record.statuses) == (3, {"taken": 3, "empty": 1})
    named = {read_arrival(spool.read(receipt))[0].association for receipt in spool.waiting()}
    assert named == {record.association}


def test_it_says_that_nothing_runs_that_would_publish(folder: Path, tmp_path: Path) -> None:
    _, found = run(tmp_path, folder)

    assert any("waits in the spool until `hilum up`" in note for note in found["notes"])
    assert any("The index could not be asked" in note for note in found["notes"])


def test_for_people_it_ends_with_a_summary(folder: Path, tmp_path: Path) -> None:
    (folder / "bad.dcm").touch()

    done = CliRunner().invoke(app, ["import", str(folder), "--data", str(tmp_path / "data")])

    assert done.exit_code == 6
    assert "bad.dcm" in done.stdout
    assert "The file is empty." in done.stdout
    assert "SYNTH4711" not in done.output


def test_into_a_data_directory_that_does_not_exist_nothing_is_taken(folder: Path, data: Path) -> None:
    data.rmdir()

    done = hilum("import", folder, "--data", data, check=False)

    assert done.returncode == 2
    assert f"{data} does not exist" in done.stderr
    assert "--config as `hilum up` has" in done.stderr
    assert not data.exists()


def test_a_spool_elsewhere_is_place_enough(folder: Path, data: Path, tmp_path: Path) -> None:
    data.rmdir()
    (tmp_path / "spool").mkdir()
    (tmp_path / "hilum.toml").write_text(f'[spool]\npath = "{tmp_path / "spool"}"\n')

    hilum("import", folder, "--data", data, "--config", tmp_path / "hilum.toml")

    assert len(Spool(tmp_path / "spool").waiting()) == 3


def test_a_dry_run_leaves_nothing_behind(folder: Path, data: Path, tmp_path: Path) -> None:
    data.rmdir()
    code, found = run(tmp_path, folder, "--dry-run")

    assert (code, found["taken"], len(found["objects"])) == (0, 3, 3)
    assert not (tmp_path / "data").exists()


def test_a_folder_without_objects_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()

    assert run(tmp_path, tmp_path / "empty")[0] == 1


def test_a_sender_that_is_no_ae_title_is_refused(folder: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "hilum", "import", folder, "--sender", "much too long a name", "--data", tmp_path / "data"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 2
    assert "at most 16 characters" in done.stderr


def test_a_path_that_does_not_exist_is_an_error_of_its_own(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "hilum", "import", tmp_path / "nowhere", "--data", tmp_path / "data"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 3
    assert done.stderr.startswith("hilum: ")
    assert "does not exist" in done.stderr


def test_ctrl_c_ends_it_with_a_summary_and_the_next_run_goes_on(tmp_path: Path) -> None:
    files = write_ct_study(tmp_path / "study", 40, rows=8, columns=8)
    command = [sys.executable, "-c", _STUCK, str(tmp_path / "study"), str(tmp_path / "data")]
    spool = Spool(tmp_path / "data" / "spool")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        eventually(lambda: len(spool.waiting()) >= 5)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
    first = json.loads(output)
    assert (process.returncode, first["interrupted"]) == (6, True)
    assert 5 <= first["taken"] < len(files)

    code, second = run(tmp_path, tmp_path / "study")

    assert code == 0
    assert (second["taken_before"], second["taken"]) == (first["taken"], len(files) - first["taken"])
    assert len(spool.waiting()) == len(files)


#: An import whose disk stands still after a dozen syncs, until Ctrl-C.
_STUCK = """
import signal, sys, threading
from hilum import spool
from hilum.cli import main

interrupted, quick, sync = threading.Event(), iter(range(12)), spool.os.fdatasync

def interrupt(*_):
    interrupted.set()
    raise KeyboardInterrupt

def synced(fd):
    if next(quick, None) is None:
        interrupted.wait(60)
    sync(fd)

signal.signal(signal.SIGINT, interrupt)
spool.os.fdatasync = synced
sys.argv = ["hilum", "import", sys.argv[1], "--json", "--data", sys.argv[2]]
main()
"""
