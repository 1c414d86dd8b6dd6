"""A marked object for tests of a destination: a small secondary capture of nobody, always the same one."""

from __future__ import annotations

from io import BytesIO

from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import UID, SecondaryCaptureImageStorage

from hilum.dicom.file_meta import part10_head
from hilum.upper_layer import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN

SOP_CLASS_UID = str(SecondaryCaptureImageStorage)
#: Under 2.25 by random numbers that are kept here (PS3.5 B.2), so that a second test adds nothing to what the first one left.
STUDY_INSTANCE_UID = "2.25.166093475930862719542070583115927341068"
SERIES_INSTANCE_UID = "2.25.216483019375502861744195036628150937402"
SOP_INSTANCE_UID = "2.25.87310562944018837261950347112860459233"
PATIENT_ID = "HILUM-TEST"
_SIDE = 64


def data_set(transfer_syntax_uid: str = EXPLICIT_VR_LITTLE_ENDIAN) -> bytes:
    """The data set, in Explicit or Implicit VR Little Endian: a Secondary Capture Image (PS3.3 A.8.1) that says what it is."""
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = SecondaryCaptureImageStorage, UID(SOP_INSTANCE_UID)
    ds.StudyInstanceUID, ds.SeriesInstanceUID = UID(STUDY_INSTANCE_UID), UID(SERIES_INSTANCE_UID)
    ds.ImageType = ["DERIVED", "SECONDARY"]
    ds.PatientID, ds.PatientName, ds.PatientBirthDate, ds.PatientSex = PATIENT_ID, "HILUM^TEST", "", ""
    ds.StudyDate, ds.StudyTime, ds.StudyID, ds.AccessionNumber, ds.ReferringPhysicianName = "20260101", "000000", "HILUM-TEST", "", ""
    ds.StudyDescription = ds.SeriesDescription = "Hilum test object, may be deleted"
    ds.Modality, ds.ConversionType, ds.Manufacturer = "OT", "SYN", "Hilum"
    ds.SeriesNumber, ds.InstanceNumber, ds.PatientOrientation, ds.BurnedInAnnotation = 1, 1, "", "NO"
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.Rows, ds.Columns = 1, "MONOCHROME2", _SIDE, _SIDE
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 8, 8, 7, 0
    ds.PixelData = bytes(4 * max(x, y) for y in range(_SIDE) for x in range(_SIDE))
    ds["PixelData"].VR = "OB" if transfer_syntax_uid == EXPLICIT_VR_LITTLE_ENDIAN else "OW"
    out = DicomBytesIO()
    out.is_little_endian, out.is_implicit_VR = True, transfer_syntax_uid == IMPLICIT_VR_LITTLE_ENDIAN
    write_dataset(out, ds)
    return out.getvalue()


def part10() -> BytesIO:
    """The object as a Part 10 file in Explicit VR Little Endian."""
    return BytesIO(part10_head(SOP_CLASS_UID, SOP_INSTANCE_UID, EXPLICIT_VR_LITTLE_ENDIAN) + data_set())
