"""Synthetic studies for the demo, the benchmarks and the tests: made-up patients, headers as a scanner writes them."""

from __future__ import annotations

import random
import sys
from array import array
from collections.abc import Iterator
from pathlib import Path

from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian


def ct_study(
    slices: int,
    *,
    rows: int = 512,
    columns: int = 512,
    seed: int = 7,
    patient: str = "SYNTH0001",
    frames: int = 1,
    study_instance_uid: str = "",
) -> Iterator[FileDataset]:
    """A CT study of one series: `slices` objects of `rows` x `columns` 16-bit pixels, 528 kB each at 512 x 512.

    Its UIDs are made up, that of the study unless it is given, as by a worklist.
    The same arguments give the same objects, UIDs included. The pixels are a disc with noise, another one on each slice.
    """
    uids = random.Random(f"{seed}/{patient}/{slices}/{rows}/{columns}/{frames}")  # noqa: S311  # repeatable on purpose

    def uid() -> str:
        return f"2.25.{uids.getrandbits(128)}"

    pixels = _disc(rows, columns, seed)
    study, series, frame = uid(), uid(), uid()
    study = study_instance_uid or study
    for number in range(1, slices + 1):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, UID(uid())
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
        _header(ds, number, study, series, frame, patient)
        ds.SOPClassUID, ds.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
        ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.Rows, ds.Columns = 1, "MONOCHROME2", rows, columns
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
        if frames > 1:
            ds.NumberOfFrames = frames
        shift = 2 * (number % columns)
        ds.PixelData = (pixels[shift:] + pixels[:shift]) * frames
        yield ds


def write_ct_study(folder: Path, slices: int, **options: object) -> list[Path]:
    """Write `ct_study(slices, **options)` into `folder`, one file an object; their paths in order."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, ds in enumerate(ct_study(slices, **options)):  # type: ignore[arg-type]  # passed through by name
        path = folder / f"{number:05d}.dcm"
        ds.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def _disc(rows: int, columns: int, seed: int) -> bytes:
    noise = random.Random(seed).randbytes(rows * columns)  # noqa: S311  # repeatable on purpose
    pixels = array("H", (value >> 2 for value in noise))
    for y in range(rows):
        half = int(max(0.0, (rows / 2.5) ** 2 - (y - rows / 2) ** 2) ** 0.5)
        for x in range(columns // 2 - half, columns // 2 + half):
            pixels[y * columns + x] += 1000
    if sys.byteorder == "big":
        pixels.byteswap()
    return pixels.tobytes()


def _code(value: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "SCT", meaning
    return item


def _header(ds: Dataset, number: int, study: str, series: str, frame: str, patient: str) -> None:
    """About 90 elements, four sequences and one private block."""
    ds.SpecificCharacterSet, ds.ImageType = "ISO_IR 100", ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.InstanceCreationDate, ds.InstanceCreationTime = "20260102", "101010.123"
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = study, series, frame
    for kind in ("Study", "Series", "Acquisition", "Content"):
        setattr(ds, kind + "Date", "20260102")
        setattr(ds, kind + "Time", "101010.123")
    ds.AccessionNumber, ds.Modality, ds.Manufacturer = "SYN" + patient[-4:], "CT", "Synthetic Medical"
    ds.InstitutionName, ds.InstitutionAddress, ds.ReferringPhysicianName = "Example Hospital", "1 Example Road", "Referrer^Rita"
    ds.StationName, ds.StudyDescription, ds.SeriesDescription = "CT01", "CT chest", "Axial 1.0 B40"
    ds.InstitutionalDepartmentName, ds.OperatorsName, ds.ManufacturerModelName = "Radiology", "Operator^Otto", "Model 9"
    ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.PatientSex = "Synthetic^Sam", patient, "19700101", "O"
    ds.IssuerOfPatientID, ds.PatientAge, ds.PatientSize, ds.PatientWeight = "EXAMPLE", "056Y", "1.7", "70"
    ds.BodyPartExamined, ds.ScanOptions, ds.SliceThickness, ds.KVP = "CHEST", "HELICAL", "1.0", "120"
    ds.DataCollectionDiameter, ds.DeviceSerialNumber, ds.SoftwareVersions = "500", "123456", "1.2.3"
    ds.ProtocolName, ds.ReconstructionDiameter, ds.GantryDetectorTilt = "Chest routine", "360", "0"
    ds.TableHeight, ds.RotationDirection, ds.ExposureTime, ds.XRayTubeCurrent = "150", "CW", 500, 200
    ds.Exposure, ds.FilterType, ds.GeneratorPower, ds.FocalSpots = 100, "BODY", 24, ["0.7", "0.7"]
    ds.ConvolutionKernel, ds.PatientPosition, ds.StudyID = "B40", "HFS", "1"
    ds.SeriesNumber, ds.AcquisitionNumber, ds.InstanceNumber = 2, 1, number
    ds.PositionReferenceIndicator = "SN"
    ds.ImagePositionPatient, ds.ImageOrientationPatient = [-180, -180, float(number)], [1, 0, 0, 0, 1, 0]
    ds.SliceLocation, ds.PixelSpacing = float(number), [0.7, 0.7]
    ds.WindowCenter, ds.WindowWidth, ds.RescaleIntercept, ds.RescaleSlope = [40, -600], [400, 1500], -1024, 1
    ds.RescaleType, ds.RequestedProcedureDescription = "HU", "CT chest"
    ds.ProcedureCodeSequence = [_code("169069000", "CT of chest")]
    ds.AnatomicRegionSequence = [_code("51185008", "Thorax")]
    reference = Dataset()
    reference.ReferencedSOPClassUID = CTImageStorage
    reference.ReferencedSOPInstanceUID = "2.25.1"
    ds.ReferencedImageSequence = [reference]
    request = Dataset()
    request.RequestedProcedureID, request.ScheduledProcedureStepID = "RP1", "SPS1"
    ds.RequestAttributesSequence = [request]
    ds.PerformedProcedureStepStartDate, ds.PerformedProcedureStepStartTime = "20260102", "101010"
    ds.PerformedProcedureStepID, ds.PerformedProcedureStepDescription = "PPS1", "CT chest"
    block = ds.private_block(0x0029, "HILUM SYNTHETIC", create=True)
    block.add_new(0x10, "OB", bytes(range(256)) * 6)
    block.add_new(0x11, "LO", "private text")
