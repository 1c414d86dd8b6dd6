"""What of pydicom's test files can be stored."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread

from tests.storable import NOT_STORABLE, TRUNCATED, a_sample, differences, missing, reason_not_to_store, shipped, storable


def test_every_file_is_storable_or_has_its_reason() -> None:
    reasons = {name: reason for reason, names in NOT_STORABLE.items() if reason != TRUNCATED for name in names}

    found = {name: reason for name in shipped() if (reason := reason_not_to_store(name))}

    assert found == reasons
    assert len(storable()) == len(shipped()) - sum(map(len, NOT_STORABLE.values())) == 161


@pytest.mark.peer("dcmdump")
@pytest.mark.parametrize("name", sorted(NOT_STORABLE[TRUNCATED]))
def test_what_is_called_truncated_ends_in_the_middle_of_an_element(name: str) -> None:
    found = subprocess.run(["dcmdump", "-q", "-E", str(a_sample(name).path)], capture_output=True, check=False)

    assert found.returncode != 0


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("test_files/MR_small.dcm", lambda ds: setattr(ds, "PatientID", "other")),
        ("test_files/MR_small.dcm", lambda ds: delattr(ds, "PatientID")),
        ("test_files/MR_small_bigendian.dcm", lambda ds: setattr(ds, "PixelData", bytes(8192))),
        ("test_files/MR_small.dcm", lambda ds: ds.add_new(0x00091001, "UN", b"12")),
        ("test_files/rtplan.dcm", lambda ds: setattr(ds.BeamSequence[0], "BeamName", "other")),
        ("test_files/MR_small_RLE.dcm", lambda ds: setattr(ds, "PixelData", ds.PixelData[:-2])),
    ],
)
def test_a_change_is_a_difference(name: str, change: Callable[[Dataset], None]) -> None:
    sample = a_sample(name)
    ds = dcmread(sample.path)
    assert differences(ds, sample.data_set) == set()

    change(ds)

    assert len(differences(ds, sample.data_set)) == 1


def test_one_encoding_of_an_object_is_as_good_as_another() -> None:
    one, other = a_sample("test_files/MR_small_bigendian.dcm"), a_sample("test_files/MR_small_implicit.dcm")

    assert differences(dcmread(one.path), other.data_set) == set()


def test_an_object_that_is_none_of_those_expected_is_an_error() -> None:
    small, rle = a_sample("test_files/MR_small.dcm"), a_sample("test_files/MR_small_RLE.dcm")
    assert missing([small, rle], [small.path.read_bytes()]) == {rle.name}

    with pytest.raises(AssertionError, match="none of the files"):
        missing([small], [small.path.read_bytes(), small.path.read_bytes()])


def test_pixels_that_were_decompressed_to_something_else_are_an_error(tmp_path: Path) -> None:
    rle, small = a_sample("test_files/MR_small_RLE.dcm"), dcmread(a_sample("test_files/MR_small.dcm").path)
    small.save_as(tmp_path / "right.dcm")
    small.PixelData = bytes(len(small.PixelData))
    small.save_as(tmp_path / "wrong.dcm")

    assert missing([rle], [(tmp_path / "right.dcm").read_bytes()]) == set()
    with pytest.raises(AssertionError, match="PixelData"):
        missing([rle], [(tmp_path / "wrong.dcm").read_bytes()])
