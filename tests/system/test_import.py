"""From a CD, an archive and a watched folder into the index, on a whole Hilum."""

from __future__ import annotations

import json
import shutil
import threading
import zipfile
from hashlib import sha256
from pathlib import Path

import msgspec
import pytest
from pydicom import dcmread

from bench.running import RunningHilum
from hilum.part10 import data_set_offset
from hilum.roles import find_role
from hilum.settings import Folder
from hilum.synthetic import write_ct_study
from hilum.testing import eventually

pytestmark = pytest.mark.system


def digests(files: list[Path]) -> list[str]:
    return sorted(sha256(whole[data_set_offset(whole) :]).hexdigest() for whole in (file.read_bytes() for file in files))


def received(one_hilum: RunningHilum, files: list[Path]) -> list[tuple[str, str, str]]:
    """Digest, adapter and sender of what the index has of the study."""
    study = str(dcmread(files[0]).StudyInstanceUID)
    rows = one_hilum.rows("SELECT sha256, adapter, calling_aet FROM receipt WHERE study_instance_uid = %s ORDER BY sha256", study)
    return [tuple(row) for row in rows]


def test_what_is_imported_is_indexed_and_known_when_it_is_imported_again(one_hilum: RunningHilum, tmp_path: Path) -> None:
    files = write_ct_study(tmp_path / "study", 4, rows=16, columns=16)
    with zipfile.ZipFile(tmp_path / "cd.zip", "w") as archive:
        for file in files:
            archive.write(file, f"DICOM/{file.name}")

    first = json.loads(one_hilum.command("import", tmp_path / "cd.zip", "--sender", "CD_DESK", "--json").stdout)
    one_hilum.come_to_rest()
    second = json.loads(one_hilum.command("import", tmp_path / "study", "--json").stdout)
    one_hilum.come_to_rest()

    assert (first["taken"], first["notes"]) == (4, [])
    assert (second["taken"], second["indexed"]) == (0, 4)
    assert received(one_hilum, files) == [(digest, "media", "CD_DESK") for digest in digests(files)]


def test_what_is_put_into_a_watched_folder_is_indexed(one_hilum: RunningHilum, tmp_path: Path) -> None:
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    folder = Folder(path=str(inbox), sender="SCANNER", stable_s=0, after="delete")
    role, stop = find_role("folder", msgspec.structs.replace(one_hilum.settings, folders={"inbox": folder})), threading.Event()
    thread = threading.Thread(target=role.run, args=(stop,))
    thread.start()
    try:
        files = write_ct_study(tmp_path / "study", 3, rows=16, columns=16)
        for file in files:
            shutil.copy(file, inbox / f".{file.name}")
            (inbox / f".{file.name}").rename(inbox / file.name)
        eventually(lambda: not list(inbox.iterdir()))
    finally:
        stop.set()
        thread.join(60)
    one_hilum.come_to_rest()

    assert received(one_hilum, files) == [(digest, "folder", "SCANNER") for digest in digests(files)]
