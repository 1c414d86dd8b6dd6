from __future__ import annotations

import os
import shutil
import zipfile
from pathlib import Path

import msgspec
import pytest

from hilum.errors import Misconfigured
from hilum.part10 import data_set_offset
from hilum.settings import Folder, Settings
from hilum.spool import Spool, read_arrival
from hilum.synthetic import write_ct_study
from ingest.folder import check
from ingest.folder.watch import Watch, watches

STABLE_S = 10.0


class Inbox:
    """A watched folder, and a clock that only moves when told to."""

    def __init__(self, tmp_path: Path) -> None:
        self.path = tmp_path / "inbox"
        self.path.mkdir()
        self.spool = Spool(tmp_path / "spool")
        self.data = tmp_path / "data"
        self.now = 1000.0
        self.files = write_ct_study(tmp_path / "study", 3, rows=8, columns=8, patient="SYNTH4711")
        self.set()

    def set(self, **folder: object) -> None:
        """Watch with these settings, as after a restart."""
        table = {"path": str(self.path), "sender": "SCANNER", "stable_s": STABLE_S, **folder}
        self.settings = Settings(data=str(self.data), folders={"inbox": msgspec.convert(table, Folder)})
        self.restart()

    def restart(self) -> None:
        [self.watch] = watches(self.settings, self.spool)

    def put(self, name: str = "IM1.dcm", content: bytes | None = None) -> Path:
        target = self.path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(self.files[0].read_bytes() if content is None else content)
        return target

    def look(self, *, after_s: float = 0.0) -> None:
        self.now += after_s
        self.watch.look(self.now)

    def settle(self) -> None:
        """Look, let files become stable, look again, and once more where half-written ones count as failed."""
        self.look()
        self.look(after_s=STABLE_S)
        self.look(after_s=6 * STABLE_S)

    @property
    def taken(self) -> int:
        return len(self.spool.waiting())

    def names(self) -> list[str]:
        return sorted(str(path.relative_to(self.path)) for path in self.path.rglob("*") if path.is_file())

    def health(self) -> str:
        return self.watch.health().says


@pytest.fixture
def inbox(tmp_path: Path) -> Inbox:
    return Inbox(tmp_path)


def test_a_file_is_taken_once_it_has_not_changed_for_a_while(inbox: Inbox) -> None:
    inbox.put()
    inbox.look()
    inbox.look(after_s=STABLE_S - 1)
    assert inbox.taken == 0

    inbox.look(after_s=1)

    [receipt] = inbox.spool.waiting()
    spooled, original = inbox.spool.read(receipt), inbox.files[0].read_bytes()
    arrival, at = read_arrival(spooled)
    assert spooled[at:] == original[data_set_offset(original) :]
    assert (arrival.adapter, arrival.calling_aet) == ("folder", "SCANNER")


def test_a_file_that_still_grows_waits(inbox: Inbox) -> None:
    whole = inbox.files[0].read_bytes()
    inbox.put(content=whole[:500])
    for end in (700, 900, len(whole)):
        inbox.look(after_s=STABLE_S - 1)
        inbox.put(content=whole[:end])
        inbox.look(after_s=STABLE_S - 1)
    assert inbox.taken == 0

    inbox.look(after_s=STABLE_S)

    assert inbox.taken == 1


def test_where_files_are_renamed_into_the_folder_none_needs_to_wait(inbox: Inbox) -> None:
    inbox.set(stable_s=0)
    inbox.put()
    inbox.look()

    assert inbox.taken == 1


@pytest.mark.parametrize("name", [".IM1.dcm", "IM1.dcm.tmp", "IM1.PART", "~IM1", ".hidden/IM1.dcm", "done/IM1.dcm", "failed/IM1.dcm"])
def test_what_is_unfinished_by_its_name_or_has_been_here_is_left_alone(inbox: Inbox, name: str) -> None:
    inbox.set(after="move")
    inbox.put(name)
    inbox.settle()

    assert inbox.taken == 0
    assert inbox.names() == [name]


def test_links_lead_nowhere(inbox: Inbox) -> None:
    inbox.path.joinpath("link.dcm").symlink_to(inbox.files[0])
    inbox.path.joinpath("study").symlink_to(inbox.files[0].parent)
    inbox.settle()

    assert inbox.taken == 0


# What becomes of files


def test_kept_files_stay_as_they_are_and_are_taken_once(inbox: Inbox) -> None:
    inbox.put("a/IM1.dcm")
    inbox.settle()
    inbox.restart()
    inbox.settle()

    assert inbox.taken == 1
    assert inbox.names() == ["a/IM1.dcm"]


def test_a_kept_file_that_is_replaced_is_taken_again(inbox: Inbox) -> None:
    inbox.put()
    inbox.settle()
    inbox.put(content=inbox.files[1].read_bytes())
    os.utime(inbox.path / "IM1.dcm", (1, 1))
    inbox.settle()

    assert inbox.taken == 2


def test_a_share_that_is_away_for_a_while_makes_nothing_new(inbox: Inbox) -> None:
    inbox.put()
    inbox.settle()
    aside = inbox.path.rename(inbox.path.with_name("aside"))
    inbox.look()
    assert not inbox.watch.health().ready
    assert "mount the share" in inbox.health()
    inbox.path.mkdir()
    inbox.settle()
    inbox.path.rmdir()
    aside.rename(inbox.path)
    inbox.settle()

    assert inbox.taken == 1


def test_moved_files_keep_their_place_under_done(inbox: Inbox) -> None:
    inbox.set(after="move")
    inbox.put("a/IM1.dcm")
    inbox.settle()

    assert (inbox.taken, inbox.names()) == (1, ["done/a/IM1.dcm"])


def test_nothing_in_done_is_ever_overwritten(inbox: Inbox) -> None:
    inbox.set(after="move")
    for file in inbox.files:
        inbox.put(content=file.read_bytes())
        inbox.settle()

    assert inbox.taken == 3
    assert sorted(path.read_bytes() for path in (inbox.path / "done").iterdir()) == sorted(file.read_bytes() for file in inbox.files)


def test_deleted_files_are_gone_once_they_are_in_the_spool(inbox: Inbox) -> None:
    inbox.set(after="delete")
    inbox.put()
    inbox.put("notes.txt", b"not an image")
    inbox.settle()

    assert (inbox.taken, inbox.names()) == (1, ["notes.txt"])


def test_killed_between_sync_and_move_it_takes_the_file_again_and_moves_it_then(inbox: Inbox) -> None:
    inbox.set(after="move")
    inbox.put()

    class Killed(BaseException):
        pass

    def die(*_: object) -> None:
        raise Killed

    inbox.watch._put_away = die  # type: ignore[method-assign,assignment]  # what a kill at this point leaves is what is tested
    with pytest.raises(Killed):
        inbox.settle()
    assert (inbox.taken, inbox.names()) == (1, ["IM1.dcm"])
    shutil.rmtree(inbox.data)  # as if what was remembered had not been written yet
    inbox.restart()
    inbox.settle()

    assert (inbox.taken, inbox.names()) == (2, ["done/IM1.dcm"])


def test_a_file_that_cannot_be_moved_is_taken_once_and_moved_when_that_is_possible(inbox: Inbox, tmp_path: Path) -> None:
    (tmp_path / "done").write_text("a file is in the way")
    inbox.set(after="move", done=str(tmp_path / "done"))
    inbox.put()
    inbox.settle()
    inbox.settle()
    assert (inbox.taken, inbox.names()) == (1, ["IM1.dcm"])
    assert "it was taken, and cannot be moved" in inbox.health()

    (tmp_path / "done").unlink()
    inbox.restart()
    inbox.settle()

    assert (inbox.taken, inbox.names()) == (1, [])
    assert (tmp_path / "done" / "IM1.dcm").exists()


# What cannot be taken


def test_a_file_that_cannot_be_taken_is_set_aside_with_why(inbox: Inbox) -> None:
    inbox.set(after="move")
    inbox.put("a/IM1.dcm", inbox.files[0].read_bytes()[:-10])
    inbox.put("a/IM2.dcm")
    inbox.settle()

    assert inbox.names() == ["done/a/IM2.dcm", "failed/a/IM1.dcm", "failed/a/IM1.dcm.txt"]
    text = (inbox.path / "failed" / "a" / "IM1.dcm.txt").read_text()
    assert "ends 10 bytes before the end of element (7FE0,0010)" in text
    assert "SYNTH4711" not in text


def test_what_looks_cut_short_is_given_more_time_than_what_does_not(inbox: Inbox) -> None:
    inbox.set(after="move")
    whole = inbox.files[0].read_bytes()
    inbox.put(content=whole[:-10])
    inbox.look()
    inbox.look(after_s=2 * STABLE_S)
    assert inbox.names() == ["IM1.dcm"]

    inbox.put(content=whole)
    inbox.look()
    inbox.look(after_s=STABLE_S)

    assert inbox.names() == ["done/IM1.dcm"]


def test_a_kept_file_that_cannot_be_taken_stays_and_health_says_where_to_look(inbox: Inbox) -> None:
    inbox.put(content=b"")
    inbox.settle()

    assert inbox.names() == ["IM1.dcm"]
    assert "1 file not taken" in inbox.health()
    assert "The file is empty." in (inbox.data / "folders" / "inbox.json").read_text()
    assert "IM1" not in inbox.health()


def test_what_is_no_dicom_file_stays_and_is_not_read_again(inbox: Inbox) -> None:
    inbox.set(after="move")
    inbox.put("VIEWER.EXE", b"MZ")
    inbox.settle()

    assert inbox.names() == ["VIEWER.EXE"]
    assert "1 file without an object left alone" in inbox.health()


# Archives


def an_archive(inbox: Inbox, **more: bytes) -> Path:
    with zipfile.ZipFile(inbox.path / "study.zip", "w") as archive:
        for file in inbox.files:
            archive.write(file, file.name)
        for name, content in more.items():
            archive.writestr(name, content)
    return inbox.path / "study.zip"


def test_an_archive_is_taken_as_a_whole(inbox: Inbox) -> None:
    inbox.set(after="move")
    an_archive(inbox, README=b"read me")
    inbox.settle()

    assert (inbox.taken, inbox.names()) == (3, ["done/study.zip"])


@pytest.mark.parametrize("name", ["bad.dcm", "inner.zip"])
def test_an_archive_of_which_something_cannot_be_taken_fails_and_says_what(inbox: Inbox, name: str) -> None:
    inbox.set(after="move")
    an_archive(inbox, **{name: b"PK\x03\x04 no image"})
    inbox.settle()

    assert inbox.names() == ["failed/study.zip", "failed/study.zip.txt"]
    text = (inbox.path / "failed" / "study.zip.txt").read_text()
    assert "Taken from it: 3 objects. These were not:" in text
    assert f"{name}: " in text


def test_an_archive_that_holds_more_than_objects_is_not_deleted(inbox: Inbox) -> None:
    inbox.set(after="delete")
    an_archive(inbox, **{"report.pdf": b"%PDF"})
    inbox.settle()

    assert (inbox.taken, inbox.names()) == (3, ["study.zip"])


# Settings


def a_watch(tmp_path: Path, **tables: dict[str, str]) -> Settings:
    return Settings(data=str(tmp_path), folders={name: msgspec.convert(table, Folder) for name, table in tables.items()})


@pytest.mark.parametrize(
    ("tables", "what"),
    [
        ({"Inbox": {"path": "/in"}}, "its name"),
        ({"inbox": {"path": "in"}}, "path is not an absolute path"),
        ({"inbox": {"path": "/in", "done": "done"}}, "done is not an absolute path"),
        ({"inbox": {"path": "/in", "failed": "/in"}}, "done or failed is the folder itself"),
        ({"one": {"path": "/in"}, "other": {"path": "/in/deeper"}}, "folder of folders.one"),
    ],
)
def test_settings_that_cannot_work_are_refused(tmp_path: Path, tables: dict[str, dict[str, str]], what: str) -> None:
    with pytest.raises(Misconfigured, match=what):
        check(a_watch(tmp_path, **tables))


def test_a_memory_that_cannot_be_read_costs_duplicates_only(inbox: Inbox) -> None:
    inbox.put()
    inbox.settle()
    (inbox.data / "folders" / "inbox.json").write_text("{ half")
    inbox.restart()
    inbox.settle()

    assert inbox.taken == 2


def test_a_watch_has_no_state_of_its_own_until_it_looks(tmp_path: Path) -> None:
    [watch] = watches(a_watch(tmp_path, inbox={"path": str(tmp_path / "in")}), Spool(tmp_path / "spool"))

    assert isinstance(watch, Watch)
    assert not (tmp_path / "folders").exists()
