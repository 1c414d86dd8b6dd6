"""Objects for `bench/deid.py`: a series as a scanner makes it, in which a few elements differ, and objects each of another patient."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import FileDataset
from pydicom.uid import UID

_LETTERS = "abdefghiklmnoprstuvz"


def write_series(sources: Sequence[Path], folder: Path, count: int) -> Path:
    """Write `count` objects that differ in what differs from slice to slice: instance, position, times and exposure."""
    return _write(sources, folder, count, patients=False)


def write_patients(sources: Sequence[Path], folder: Path, count: int) -> Path:
    """Write `count` objects of as many patients and studies."""
    return _write(sources, folder, count, patients=True)


def _write(sources: Sequence[Path], folder: Path, count: int, *, patients: bool) -> Path:
    folder.mkdir()
    for number in range(count):
        ds = dcmread(sources[number % len(sources)])
        _slice(ds, number)
        if patients:
            _patient(ds, number)
        ds.save_as(folder / f"{number:05d}.dcm", enforce_file_format=True)
    return folder


def _slice(ds: FileDataset, number: int) -> None:
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = UID(f"1.2.826.0.1.3680043.8.498.77.{1000 + number * 7}")
    ds.InstanceNumber = number + 1
    ds.ImagePositionPatient = [-180, -180.5, round(-123.5 + number * 1.25, 3)]
    ds.SliceLocation = ds.ImagePositionPatient[2]
    for kind in ("InstanceCreation", "Acquisition", "Content"):
        setattr(ds, f"{kind}Time", f"10{number // 60 % 60:02d}{number % 60:02d}.{123 + number * 17 % 999_000:06d}")
    ds.XRayTubeCurrent, ds.Exposure = 200 + number * 3 % 150, 100 + number % 90


def _patient(ds: FileDataset, number: int) -> None:
    word = "".join(_LETTERS[number // 20**place % 20] for place in range(3))
    ds.PatientName, ds.PatientID, ds.AccessionNumber = f"Quag{word}ler^Jane", f"MRN{5_551_000 + number * 31}", f"ACC{778_100 + number}"
    ds.PatientBirthDate = f"19{40 + number % 50}0{1 + number % 9}1{number % 10}"
    for kind, root in (("Study", 77), ("Series", 78)):
        setattr(ds, f"{kind}InstanceUID", f"1.2.826.0.1.3680043.8.498.{root}.{number + 1}")
        setattr(ds, f"{kind}Date", f"202406{10 + number % 20}")
        setattr(ds, f"{kind}Time", f"09{number // 60 % 60:02d}{number % 60:02d}")
    ds.FrameOfReferenceUID = f"1.2.826.0.1.3680043.8.498.79.{number + 1}"
