"""Originals and outputs for the tests of the second look: small, with all that a header has, and de-identified by hand."""

from __future__ import annotations

import io
from collections.abc import Sequence

from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian

from hilum.synthetic import ct_study
from processors.anonymize.verify import second_look


def part10(ds: FileDataset) -> bytes:
    file = io.BytesIO()
    plain = Dataset()
    plain.update(ds)
    plain.preamble, plain.file_meta, syntax = ds.preamble, ds.file_meta, ds.file_meta.TransferSyntaxUID
    dcmwrite(file, plain, implicit_vr=syntax.is_implicit_VR, little_endian=syntax.is_little_endian, enforce_file_format=True)
    return file.getvalue()


def an_original(name: str = "Doe^Jane", patient_id: str = "4711-0815", born: str = "19470313", **elements: object) -> FileDataset:
    """A small CT whose patient has this name and identifier."""
    ds = next(ct_study(1, rows=8, columns=8))
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.PatientName, ds.PatientID, ds.PatientBirthDate = name, patient_id, born
    for keyword, value in elements.items():
        setattr(ds, keyword, value)
    return ds


def an_output(syntax: str = ExplicitVRLittleEndian, **elements: object) -> FileDataset:
    """What may be left of it: nothing that tells whose it is."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, UID("2.25.118")
    meta.TransferSyntaxUID = UID(syntax)
    ds = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    ds.SpecificCharacterSet, ds.ImageType = "ISO_IR 192", ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.SOPClassUID, ds.SOPInstanceUID, ds.StudyInstanceUID = CTImageStorage, "2.25.118", "2.25.119"
    ds.Modality, ds.Manufacturer, ds.ManufacturerModelName = "CT", "Synthetic Medical", "Model 9"
    ds.StudyDescription, ds.BodyPartExamined, ds.PatientSex = "CT chest with contrast", "CHEST", "F"
    ds.PatientName, ds.PatientID, ds.PatientBirthDate = "DQBD88XNMCQGF0BY^PSEUDONYM", "DQBD88XNMCQGF0BY", ""
    ds.StudyDate, ds.ContentTime, ds.SliceThickness, ds.PixelSpacing = "20170211", "101010.123", "1.0", [0.7, 0.7]
    ds.PatientIdentityRemoved, ds.DeidentificationMethod = "YES", "Hilum"
    ds.Rows, ds.Columns, ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 8, 8, 8, 8, 7, 0
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.PixelData = b"\0" * 64
    for keyword, value in elements.items():
        setattr(ds, keyword, value)
    return ds


def item(**elements: object) -> Dataset:
    ds = Dataset()
    for keyword, value in elements.items():
        setattr(ds, keyword, value)
    return ds


def kinds_in(texts: Sequence[str], name: str = "Doe^Jane", patient_id: str = "4711-0815", born: str = "19470313") -> list[set[str]]:
    """For each of some texts of one output, the kinds of what the second look finds of this patient in it."""
    output = an_output()
    block = output.private_block(0x0029, "TEXTS", create=True)
    for at, text in enumerate(texts):
        block.add_new(at, "UT", text)
    found = second_look(part10(an_original(name, patient_id, born)), part10(output))
    return [{hit.kind for hit in found if hit.place == f"(0029,10{at:02X})"} for at in range(len(texts))]
