from __future__ import annotations

import warnings
from pathlib import Path

import pydicom
import pytest

from processors.anonymize.offline import uids_in, uids_of_any

SAMPLES = sorted(
    path
    for folder in ("test_files", "charset_files")
    for path in (Path(pydicom.__file__).parent / "data" / folder).rglob("*")
    if path.is_file()
)


def test_uids_that_are_read_quickly_are_those_that_pydicom_reads() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what pydicom thinks of its samples
        assert [uids_in(path) for path in SAMPLES] == [uids_of_any(path) for path in SAMPLES]


@pytest.mark.parametrize("cut", [0, 200, 20_000])
def test_a_file_that_ends_too_early_has_the_uids_that_are_there(tmp_path: Path, cut: int) -> None:
    whole = next(path for path in SAMPLES if path.name == "CT_small.dcm")
    path = tmp_path / "cut.dcm"
    path.write_bytes(whole.read_bytes()[:cut])

    assert uids_in(path) == (uids_of_any(whole) if cut == 20_000 else uids_of_any(path))
