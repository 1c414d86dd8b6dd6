"""What commands and libraries say on standard error: nothing of an object's values, whatever is wrong with them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hilum.dicom.file_meta import part10_head
from tests.processors.anonymize.objects import CT, a_file, encoded

_VALUE = "ZAPHODSON^QUIXY"


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """A folder with two files whose UIDs are a name, and one whose data set is not in the VRs that its File Meta announces."""
    folder = tmp_path / "in"
    folder.mkdir()
    uid = 0x0020000D, "UI", _VALUE.encode()
    for n in (1, 2):
        (folder / f"{n}.dcm").write_bytes(a_file([uid, (0x00080018, "UI", f"{_VALUE}{n}".encode())]))
    implicit = encoded([(0x00080016, "UI", CT.encode()), (0x00080018, "UI", _VALUE.encode()), uid], explicit=False)
    (folder / "3.dcm").write_bytes(part10_head(CT, "1.2.3", "1.2.840.10008.1.2.1") + implicit)
    return folder


def python(*arguments: object) -> str:
    done = subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode in (1, 4), done.stderr
    return done.stderr


def test_what_is_wrong_with_uids_of_files_is_not_quoted_by_processes_of_a_run(odd: Path, tmp_path: Path) -> None:
    key = tmp_path / "key"
    common = ("--policy", "basic", "--key", key, "--unpublished")
    subprocess.run([sys.executable, "-m", "hilum", "deid", "keys", "make", "--key", key], check=True, capture_output=True)

    files = ("--out", tmp_path / "out", "--manifest", tmp_path / "manifest.csv", "--jobs", 2)
    said = python("-m", "hilum", "deid", "run", odd, *files, *common)

    assert _VALUE.casefold() not in said.casefold()
    assert "Warning" not in said


def test_pydicom_is_silent_in_each_process_that_has_hilum(odd: Path) -> None:
    read = f"import hilum, pydicom\nfor n in '123': str(pydicom.dcmread({str(odd)!r} + f'/{{n}}.dcm'))\nraise SystemExit(1)"

    assert python("-c", read) == ""


def test_an_error_that_nobody_foresaw_is_told_without_what_it_says() -> None:
    fails = f"@cli.app.command()\ndef fails() -> None:\n    raise ValueError({_VALUE!r})\n"

    said = python("-c", f"import sys\nfrom hilum import cli\n{fails}sys.argv = ['hilum', 'fails']\ncli.main()")

    assert said.startswith("hilum: This failed in a way nobody foresaw: ValueError at ")
    assert _VALUE not in said
    assert "Traceback" not in said
