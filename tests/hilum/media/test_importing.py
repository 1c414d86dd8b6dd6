from __future__ import annotations

import shutil
import threading
import zipfile
from pathlib import Path

import pydicom.data
import pytest
from pydicom.uid import generate_uid

from hilum.errors import NotFound, TryAgain
from hilum.media.errors import Why
from hilum.media.importing import Import, Summary
from hilum.media.intake import Found
from hilum.media.journal import Journal
from hilum.part10 import data_set_offset
from hilum.spool import Spool, read_arrival
from hilum.synthetic import write_ct_study
from hilum.testing import encoded, eventually

DICOMDIR_TESTS = Path(pydicom.data.__file__).parent / "test_files" / "dicomdirtests"


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool")


@pytest.fixture
def medium(tmp_path: Path) -> Path:
    """A file-set of pydicom's as it would lie on a CD: 50 objects, their DICOMDIR, and a README."""
    return shutil.copytree(DICOMDIR_TESTS / "TINY_ALPHA", tmp_path / "cd")


@pytest.fixture
def study(tmp_path: Path) -> Path:
    write_ct_study(tmp_path / "study", 6, rows=8, columns=8)
    return tmp_path / "study"


def zipped(folder: Path, archive: Path) -> Path:
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as target:
        for path in sorted(folder.rglob("*")):
            target.write(path, path.relative_to(folder))
    return archive


def data_sets(spool: Spool) -> list[bytes]:
    found = (spool.read(receipt) for receipt in spool.waiting())
    return sorted(content[read_arrival(content)[1] :] for content in found)


def data_sets_below(folder: Path) -> list[bytes]:
    found = (path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != "DICOMDIR")
    return sorted(content[data_set_offset(content) :] for content in found if content[128:132] == b"DICM")


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class FakeIndex:
    def __init__(self, *known: str, away_after: int = 1000) -> None:
        self.known = known
        self.left = away_after

    def has(self, found: Found) -> bool:
        self.left -= 1
        if self.left < 0:
            raise TryAgain("away")
        return found.sop_instance_uid in self.known


def test_a_medium_is_taken_whole_and_left_as_it_was(medium: Path, spool: Spool) -> None:
    before = everything(medium)

    summary = Import([medium], spool).run()

    assert (summary.taken, summary.skipped, summary.complete) == (50, {Why.DICOMDIR: 1, Why.NO_DICOM: 1}, True)
    assert data_sets(spool) == data_sets_below(medium)
    assert everything(medium) == before


def test_the_directory_may_be_named_instead_of_its_medium(medium: Path, spool: Spool) -> None:
    assert Import([medium / "DICOMDIR"], spool).run().taken == 50


def test_a_medium_in_an_archive_is_the_same_medium(medium: Path, spool: Spool, tmp_path: Path) -> None:
    archive = zipped(medium, tmp_path / "cd.zip")

    summary = Import([archive], spool).run()

    assert (summary.taken, summary.skipped, summary.missing) == (50, {Why.DICOMDIR: 1, Why.NO_DICOM: 1}, [])
    assert data_sets(spool) == data_sets_below(medium)


def test_every_sample_that_lies_beside_a_directory_is_taken_named_or_not(spool: Spool) -> None:
    summary = Import([DICOMDIR_TESTS], spool).run()

    assert (summary.taken, summary.unreadable, summary.missing) == (81, [], [])


@pytest.mark.parametrize("in_archive", [False, True])
def test_files_that_the_directory_names_and_that_are_not_there_are_named(
    medium: Path, spool: Spool, tmp_path: Path, in_archive: bool
) -> None:
    gone = medium / "PT000000" / "ST000000" / "SE000000" / "IM000007"
    gone.unlink()
    root = zipped(medium, tmp_path / "cd.zip") if in_archive else medium

    summary = Import([root], spool).run()

    assert summary.taken == 49
    assert summary.missing == [str(root / gone.relative_to(medium))]
    assert not summary.complete


def test_a_medium_that_is_mounted_in_lower_case_lacks_nothing(medium: Path, spool: Spool) -> None:
    (medium / "PT000000").rename(medium / "pt000000")

    assert Import([medium], spool).run().missing == []


def test_a_file_that_the_directory_names_and_that_is_no_dicom_file_is_no_stray_file(medium: Path, spool: Spool) -> None:
    bad = medium / "PT000000" / "ST000000" / "SE000000" / "IM000007"
    bad.write_bytes(bytes(5000))

    summary = Import([medium], spool).run()

    assert [(problem.file, problem.why) for problem in summary.unreadable] == [(str(bad), Why.NO_DICOM)]
    assert summary.skipped == {Why.DICOMDIR: 1, Why.NO_DICOM: 1}


def test_files_that_cannot_be_taken_are_named_with_why_and_the_others_are_taken(study: Path, spool: Spool) -> None:
    whole = sorted(study.rglob("*.dcm"))
    whole[0].write_bytes(whole[0].read_bytes()[:-100])
    (study / "empty.dcm").touch()
    (study / "text.dcm").write_text("no image")
    (study / "archive.zip").write_bytes(b"PK\x03\x04 and no more")

    summary = Import([study], spool).run()

    whys = {Path(problem.file).name: problem.why for problem in summary.unreadable}
    assert whys == {whole[0].name: Why.TRUNCATED, "empty.dcm": Why.EMPTY, "text.dcm": Why.NO_DICOM, "archive.zip": Why.ARCHIVE}
    assert summary.taken == 5
    assert not summary.complete


def test_the_same_data_set_twice_is_taken_once(study: Path, spool: Spool, tmp_path: Path) -> None:
    shutil.copytree(study, study / "copy")
    zipped(study, tmp_path / "copies.zip")

    summary = Import([study, tmp_path / "copies.zip"], spool).run()

    assert (summary.taken, summary.duplicates) == (6, 18)
    assert len(spool.waiting()) == 6


def test_paths_within_others_count_once(study: Path, spool: Spool) -> None:
    run = Import([study, next(study.rglob("*.dcm")), study], spool)

    assert run.count() == 6
    assert run.run().duplicates == 0


def test_an_archive_within_an_archive_is_not_opened_and_that_is_said(study: Path, spool: Spool, tmp_path: Path) -> None:
    (tmp_path / "outer").mkdir()
    zipped(study, tmp_path / "outer" / "inner.zip")

    summary = Import([zipped(tmp_path / "outer", tmp_path / "outer.zip")], spool).run()

    assert (summary.taken, summary.skipped) == (0, {Why.NESTED_ARCHIVE: 1})


def test_a_dry_run_tells_what_it_would_take_and_takes_nothing(study: Path, spool: Spool) -> None:
    summary = Import([study], spool, dry_run=True, delete_imported=True).run()

    assert (summary.taken, len(summary.objects), spool.waiting()) == (6, 6, [])
    assert {each.transfer_syntax_uid for each in summary.objects} == {"1.2.840.10008.1.2.1"}
    assert len(everything(study)) == 6


def test_what_does_not_exist_is_an_error(tmp_path: Path, spool: Spool) -> None:
    with pytest.raises(NotFound, match="does not exist"):
        Import([tmp_path / "nowhere"], spool)


# What came before


def test_what_the_index_has_is_not_taken_again(study: Path, spool: Spool) -> None:
    first = Import([study], spool, dry_run=True).run().objects[0]

    summary = Import([study], spool, index=FakeIndex(first.sop_instance_uid)).run()

    assert (summary.taken, summary.indexed) == (5, 1)


def test_an_index_that_goes_away_stops_nothing(study: Path, spool: Spool) -> None:
    summary = Import([study], spool, index=FakeIndex(away_after=2)).run()

    assert summary.taken == 6
    assert any("index cannot be asked any more" in note for note in summary.notes)


def test_broken_off_it_goes_on_where_it_was(study: Path, spool: Spool, tmp_path: Path) -> None:
    half = sorted(study.rglob("*.dcm"))[:3]
    first = Journal(tmp_path / "imports", [study], "")
    Import(half, spool, journal=first).run()
    first.end(complete=False)

    second = Journal(tmp_path / "imports", [study], "")
    summary = Import([study], spool, journal=second).run()
    second.end(complete=True)

    assert (summary.taken, summary.taken_before) == (3, 3)
    assert len(spool.waiting()) == 6
    assert list((tmp_path / "imports").iterdir()) == []


def test_a_journal_that_was_cut_in_the_middle_of_a_line_is_good_up_to_there(study: Path, spool: Spool, tmp_path: Path) -> None:
    first = Journal(tmp_path / "imports", [study], "")
    Import([study], spool, journal=first).run()
    first.end(complete=False)
    [file] = (tmp_path / "imports").iterdir()
    file.write_bytes(file.read_bytes()[:-5])

    second = Journal(tmp_path / "imports", [study], "")

    assert len(second.earlier) == 5
    second.add(b"x" * 32)
    second.end(complete=False)
    assert len(Journal(tmp_path / "imports", [study], "").earlier) == 6


def test_another_medium_at_the_same_place_is_another_one(study: Path, spool: Spool, tmp_path: Path) -> None:
    first = Journal(tmp_path / "imports", [study], "")
    Import([study], spool, journal=first).run()
    first.end(complete=False)
    for n, path in enumerate(sorted(study.rglob("*.dcm"))):
        uids = {"SOPInstanceUID": generate_uid(), "StudyInstanceUID": "2.25.1", "SeriesInstanceUID": "2.25.2"}
        path.write_bytes(encoded({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2", **uids, "InstanceNumber": n}))

    assert Import([study], spool, journal=Journal(tmp_path / "imports", [study], "")).run().taken == 6


# Deleting


def test_asked_to_it_deletes_what_is_synced_and_nothing_else(study: Path, spool: Spool) -> None:
    bad = study / "bad.dcm"
    bad.write_text("no image")
    (study / "notes.txt").write_text("keep me")

    summary = Import([study], spool, delete_imported=True).run()

    assert (summary.taken, summary.deleted) == (6, 6)
    assert sorted(everything(study)) == ["bad.dcm", "notes.txt"]


@pytest.mark.parametrize("more", ["", "report.pdf", "bad.dcm"])
def test_an_archive_is_deleted_only_if_all_in_it_is_taken(study: Path, spool: Spool, tmp_path: Path, more: str) -> None:
    if more:
        (study / more).write_text("no image")
    archive = zipped(study, tmp_path / "study.zip")

    summary = Import([archive], spool, delete_imported=True).run()

    assert summary.taken == 6
    assert archive.exists() == bool(more)


def test_what_came_before_this_run_is_not_deleted(study: Path, spool: Spool) -> None:
    first = Import([study], spool, dry_run=True).run().objects[0]

    Import([study], spool, index=FakeIndex(first.sop_instance_uid), delete_imported=True).run()

    assert len(everything(study)) == 1


# Pressure


def test_a_full_spool_is_waited_for_and_that_is_said_once(study: Path, tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", min_free_bytes=2**62)
    said: list[str] = []
    run = Import([study], spool, says=said.append)
    thread = threading.Thread(target=run.run)
    thread.start()
    eventually(lambda: said)
    assert "nearly full" in said[0]
    assert "goes on by itself" in said[0]

    spool._min_free_bytes = 0
    thread.join(60)

    assert run.summary.taken == 6
    assert len(said) == 1


def test_an_import_that_waits_can_be_broken_off(study: Path, tmp_path: Path) -> None:
    def break_off(_: str) -> None:
        raise KeyboardInterrupt

    summary: Summary = Import([study], Spool(tmp_path / "spool", min_free_bytes=2**62), says=break_off).run()

    assert summary.interrupted
    assert summary.taken == 0
