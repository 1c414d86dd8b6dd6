from __future__ import annotations

from io import BytesIO
from pathlib import Path

import pydicom.data
import pytest
from pydicom import dcmread

from hilum.media.errors import Skipped, Unreadable, Why
from hilum.media.intake import Intake
from hilum.media.sources import File
from hilum.part10 import data_set_offset
from hilum.spool import Spool, SpoolFull, read_arrival
from hilum.synthetic import write_ct_study
from hilum.testing import encoded

SAMPLES = Path(pydicom.data.__file__).parent / "test_files"
UIDS = {
    "SOPClassUID": "1.2.840.10008.5.1.4.1.1.2",
    "SOPInstanceUID": "2.25.3",
    "StudyInstanceUID": "2.25.1",
    "SeriesInstanceUID": "2.25.2",
}


class Full(Exception):
    pass


def give_up(full: SpoolFull) -> None:
    raise Full(full.sentence)


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool")


@pytest.fixture
def intake(spool: Spool) -> Intake:
    return Intake(spool, adapter="media", sender="CD", max_object_bytes=2**20, full=give_up)


@pytest.fixture
def slice_file(tmp_path: Path) -> Path:
    return write_ct_study(tmp_path / "study", 1, rows=8, columns=8)[0]


def refused(intake: Intake, path: Path) -> Unreadable:
    with pytest.raises(Unreadable) as error:
        intake.take(File(path))
    return error.value


def nothing_is_left(spool: Spool) -> bool:
    return not spool.waiting() and not spool.unfinished()


def test_the_data_set_is_in_the_spool_byte_for_byte_with_who_sent_it(spool: Spool, intake: Intake, slice_file: Path) -> None:
    taken = intake.take(File(slice_file))

    [receipt] = spool.waiting()
    spooled, original = spool.read(receipt), slice_file.read_bytes()
    arrival, at = read_arrival(spooled)
    meta = dcmread(slice_file).file_meta
    assert spooled[at:] == original[data_set_offset(original) :]
    assert (arrival.adapter, arrival.calling_aet, arrival.sop_instance_uid) == ("media", "CD", meta.MediaStorageSOPInstanceUID)
    assert arrival.transfer_syntax_uid == meta.TransferSyntaxUID
    assert (taken.outcome, taken.receipt) == ("taken", receipt)


def test_a_data_set_without_file_meta_is_taken_if_it_has_all_uids(spool: Spool, intake: Intake, tmp_path: Path) -> None:
    (tmp_path / "IM1").write_bytes(encoded(UIDS))

    intake.take(File(tmp_path / "IM1"))

    spooled = spool.read(spool.waiting()[0])
    assert spooled[read_arrival(spooled)[1] :] == encoded(UIDS)
    assert dcmread(BytesIO(spool.read(spool.waiting()[0]))).StudyInstanceUID == "2.25.1"


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID", "SOPClassUID"])
def test_one_without_file_meta_and_a_uid_is_refused(spool: Spool, intake: Intake, tmp_path: Path, keyword: str) -> None:
    (tmp_path / "IM1").write_bytes(encoded({key: value for key, value in UIDS.items() if key != keyword}))

    error = refused(intake, tmp_path / "IM1")

    assert error.why is Why.IDENTIFIER_MISSING
    assert keyword in error.sentence
    assert nothing_is_left(spool)


def test_compressed_pixel_data_without_file_meta_is_refused(spool: Spool, intake: Intake, tmp_path: Path) -> None:
    whole = (SAMPLES / "JPEG2000.dcm").read_bytes()
    (tmp_path / "IM1").write_bytes(whole[data_set_offset(whole) :])

    assert "nobody can tell how" in refused(intake, tmp_path / "IM1").sentence
    assert nothing_is_left(spool)


def test_a_truncated_file_is_refused_and_nothing_of_it_is_kept(spool: Spool, intake: Intake, slice_file: Path) -> None:
    slice_file.write_bytes(slice_file.read_bytes()[:-10])

    error = refused(intake, slice_file)

    assert error.why is Why.TRUNCATED
    assert "ends 10 bytes before the end of element (7FE0,0010)" in error.sentence
    assert nothing_is_left(spool)


def test_an_object_that_is_too_large_is_refused(spool: Spool, slice_file: Path) -> None:
    small = Intake(spool, adapter="media", sender="", max_object_bytes=100, full=give_up)

    assert refused(small, slice_file).why is Why.TOO_LARGE
    assert nothing_is_left(spool)


def test_the_directory_of_a_medium_is_no_object(spool: Spool, intake: Intake) -> None:
    with pytest.raises(Skipped) as skipped:
        intake.take(File(SAMPLES / "dicomdirtests" / "DICOMDIR"))

    assert skipped.value.why is Why.DICOMDIR
    assert nothing_is_left(spool)


def test_while_the_spool_is_full_its_owner_is_asked_whether_to_wait(tmp_path: Path, slice_file: Path) -> None:
    spool = Spool(tmp_path / "spool", min_free_bytes=2**62)
    intake = Intake(spool, adapter="media", sender="", max_object_bytes=2**20, full=give_up)

    with pytest.raises(Full, match="nearly full"):
        intake.take(File(slice_file))


def test_once_there_is_space_again_it_goes_on(tmp_path: Path, slice_file: Path) -> None:
    spool = Spool(tmp_path / "spool", min_free_bytes=2**62)
    asked = []

    def make_space(full: SpoolFull) -> None:
        asked.append(full)
        spool._min_free_bytes = 0

    Intake(spool, adapter="media", sender="", max_object_bytes=2**20, full=make_space).take(File(slice_file))

    assert len(asked) == 1
    assert len(spool.waiting()) == 1
