from __future__ import annotations

from pathlib import Path

import pydicom.data
import pytest
from pydicom import dcmread

from hilum.media.dicomdir import references, same_place
from hilum.media.errors import Unreadable
from hilum.media.sources import File

FOLDER = Path(pydicom.data.__file__).parent / "test_files" / "dicomdirtests"


@pytest.mark.parametrize(
    "name", ["DICOMDIR", "DICOMDIR-bigEnd", "DICOMDIR-implicit", "DICOMDIR-nopatient", "DICOMDIR-reordered", "TINY_ALPHA/DICOMDIR"]
)
def test_a_directory_names_the_files_that_pydicom_finds_in_it(name: str) -> None:
    records = dcmread(FOLDER / name).DirectoryRecordSequence
    expected = ["/".join(record.ReferencedFileID) for record in records if "ReferencedFileID" in record]

    assert references(File(FOLDER / name)) == expected
    assert len(expected) > 30


def test_an_empty_directory_names_nothing() -> None:
    assert references(File(FOLDER / "DICOMDIR-empty.dcm")) == []


def test_a_directory_that_cannot_be_read_says_so() -> None:
    with pytest.raises(Unreadable, match="cannot be read, so what it names is not checked"):
        references(File(FOLDER / "DICOMDIR-nooffset"))


def test_places_are_compared_as_media_are_mounted() -> None:
    assert same_place("/mnt/cd/images/im1.;1") == same_place("/mnt/cd/IMAGES/IM1")
