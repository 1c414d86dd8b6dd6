from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from hashlib import sha256
from pathlib import Path

import msgspec
import pytest

from hilum.errors import HilumError
from hilum.part10 import data_set_offset
from hilum.records import Records
from hilum.roles import find_role, role_names
from hilum.settings import Folder, Settings, doubts
from hilum.settings import Spool as SpoolSettings
from hilum.spool import Spool, read_arrival
from hilum.synthetic import write_ct_study
from hilum.testing import eventually
from ingest.folder import Folders


def settings_for(tmp_path: Path, *names: str, min_free_bytes: int = 0) -> Settings:
    folders = {}
    for name in names:
        (tmp_path / name).mkdir(exist_ok=True)
        folders[name] = Folder(path=str(tmp_path / name), stable_s=0, after="move")
    return Settings(data=str(tmp_path / "data"), spool=SpoolSettings(min_free_bytes=min_free_bytes), folders=folders)


@contextmanager
def running(role: Folders) -> Iterator[None]:
    """Run the role for as long as the block lasts."""
    stop, errors = threading.Event(), []

    def run() -> None:
        try:
            role.run(stop)
        except HilumError as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(60)
        assert not thread.is_alive()
        assert errors == []


def test_it_is_a_role() -> None:
    assert "folder" in role_names()
    assert find_role("folder", Settings()).name == "folder"


def test_each_folder_is_watched(tmp_path: Path) -> None:
    role = Folders(settings_for(tmp_path, "one", "two"), look_s=0.05)
    spool = Spool(tmp_path / "data" / "spool")
    files = write_ct_study(tmp_path / "study", 2, rows=8, columns=8)
    with running(role):
        for file, name in zip(files, ("one", "two"), strict=True):
            (tmp_path / name / ".part").write_bytes(file.read_bytes())
            (tmp_path / name / ".part").rename(tmp_path / name / file.name)
        eventually(lambda: len(spool.waiting()) == 2)
        eventually(lambda: all((tmp_path / name / "done").is_dir() for name in ("one", "two")))
        eventually(lambda: role.health().ready and role.health().lag == 0)

    records = Records(tmp_path / "data" / "spool" / "associations")
    found = [record for name in records.waiting() if (record := records.read(name))]
    assert sorted((record.peer, record.ended, record.objects) for record in found) == [
        ("folder one", "1 file", 1),
        ("folder two", "1 file", 1),
    ]
    named = {read_arrival(spool.read(receipt))[0].association for receipt in spool.waiting()}
    assert named == {record.association for record in found}
    assert role.health().says == "one: 1 object taken since the start; two: 1 object taken since the start"


def test_while_the_spool_is_full_files_wait_and_health_says_so(tmp_path: Path) -> None:
    role = Folders(settings_for(tmp_path, "one", min_free_bytes=2**62), look_s=0.05)
    [file] = write_ct_study(tmp_path / "one", 1, rows=8, columns=8)
    with running(role):
        eventually(lambda: "nearly full" in role.health().says)
        assert not role.health().ready
        assert role.health().lag == 1

    assert file.exists()


def test_a_folder_that_is_not_there_is_waited_for_and_holds_up_no_other(tmp_path: Path) -> None:
    settings = settings_for(tmp_path, "one", "two")
    (tmp_path / "one").rmdir()
    role = Folders(settings, look_s=0.05)
    write_ct_study(tmp_path / "two", 1, rows=8, columns=8)
    with running(role):
        eventually(lambda: "one: it is not there" in role.health().says)
        eventually(lambda: "two: 1 object taken" in role.health().says)
        (tmp_path / "one").mkdir()
        eventually(lambda: role.health().ready)


def test_two_processes_do_not_watch_one_folder_at_a_time(tmp_path: Path) -> None:
    settings = settings_for(tmp_path, "one")
    first, second = Folders(settings, look_s=0.05), Folders(settings, look_s=0.05)
    with running(first):
        eventually(lambda: first.health().ready)
        with running(second):
            eventually(lambda: "another process watches it" in second.health().says)


def test_without_a_folder_it_says_what_to_do(tmp_path: Path) -> None:
    role = Folders(Settings(data=str(tmp_path)))
    with running(role):
        eventually(lambda: role.health().ready)

    assert "add [folders.NAME]" in role.health().says


def test_folders_that_no_process_watches_are_doubtful(tmp_path: Path) -> None:
    assert any("no process in roles.processes has the role folder" in doubt for doubt in doubts(settings_for(tmp_path, "one")))


def test_names_of_files_reach_neither_log_nor_health(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    role = Folders(settings_for(tmp_path, "one"), look_s=0.05)
    (tmp_path / "one" / "DOE^JOHN.dcm").write_text("no image")
    with running(role):
        eventually(lambda: (tmp_path / "one" / "failed").is_dir())
        eventually(lambda: role.health().ready)
        health = role.health().says

    said = capfd.readouterr().err
    assert "folder_file_failed" in said
    assert "DOE" not in said + health


#: The role on a disk that takes its time and at last hangs, so that a kill finds it at work, however late it comes.
_ROLE = """
import itertools, sys, threading, time
import msgspec
from hilum import spool
from hilum.settings import Settings
from ingest.folder import Folders
sync = spool.os.fdatasync
syncs = itertools.count(1)
spool.os.fdatasync = lambda fd: (time.sleep(0.03 if next(syncs) <= 40 else 600), sync(fd))
Folders(msgspec.json.decode(sys.argv[1], type=Settings), look_s=0.01).run(threading.Event())
"""


def test_killed_again_and_again_it_loses_nothing(tmp_path: Path) -> None:
    settings = settings_for(tmp_path, "one")
    files = write_ct_study(tmp_path / "study", 60, rows=8, columns=8)
    contents = {sha256(content[data_set_offset(content) :]).digest() for content in map(Path.read_bytes, files)}
    for file in files:
        file.rename(tmp_path / "one" / file.name)
    spool, done = Spool(tmp_path / "data" / "spool"), tmp_path / "one" / "done"
    killed = 0

    def moved() -> int:
        return len(list(done.iterdir())) if done.exists() else 0

    while moved() < len(files):
        enough = min(moved() + 15, len(files))
        with subprocess.Popen([sys.executable, "-c", _ROLE, msgspec.json.encode(settings).decode()]) as process:
            eventually(partial(reached, moved, enough), what="it moves files")
            process.kill()
        killed += 1

    spooled = [spool.read(receipt) for receipt in spool.waiting()]
    assert killed >= 2, "it was killed at work at least once"
    assert {sha256(content[read_arrival(content)[1] :]).digest() for content in spooled} == contents
    assert len(spooled) - len(files) <= killed, "at most the file that was under way comes again"


def reached(count: Callable[[], int], enough: int) -> bool:
    return count() >= enough
