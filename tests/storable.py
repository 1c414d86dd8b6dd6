"""pydicom's test files as objects to store: which are, why the others are not, and whether what arrived is what was in the file."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom.data
from msgspec import Struct
from pydicom import DataElement, Dataset, dcmread
from pydicom.datadict import keyword_for_tag
from pydicom.dataelem import RawDataElement
from pydicom.errors import InvalidDicomError
from pydicom.pixels.utils import get_expected_length
from pydicom.tag import BaseTag
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)
from pydicom.values import convert_value

_SHIPPED = Path(pydicom.data.__file__).parent

NOT_DICOM = "is no DICOM file"
NO_FILE_META = "has no File Meta Information, so that only a sender that guesses knows its transfer syntax"
NO_TRANSFER_SYNTAX = "names no transfer syntax in its File Meta Information"
NO_SOP_UIDS = "has no SOP Class UID and no SOP Instance UID in its data set, as the directory of a medium has none"
OTHER_ENCODING = "is in Implicit VR under a transfer syntax of Explicit VR, so that no program can read it and send it"
TRUNCATED = "ends in the middle of an element: it is no whole object"

#: Why the rest of the files cannot be stored, by their paths below pydicom's data. `test_storable.py` keeps this true.
NOT_STORABLE = {
    NOT_DICOM: {
        "charset_files/FileInfo.txt",
        "test_files/README.txt",
        "test_files/crayons.icc",
        "test_files/dicomdirtests/README.txt",
        "test_files/dicomdirtests/TINY_ALPHA/README",
        "test_files/rtplan.dump",
        "test_files/rtstruct.dump",
        "test_files/test1.json",
        "test_files/test_PN.json",
        "test_files/zipMR.gz",
    },
    NO_FILE_META: {
        "test_files/ExplVR_BigEndNoMeta.dcm",
        "test_files/ExplVR_LitEndNoMeta.dcm",
        "test_files/no_meta.dcm",
        "test_files/rtstruct.dcm",
    },
    NO_TRANSFER_SYNTAX: {"test_files/meta_missing_tsyntax.dcm"},
    NO_SOP_UIDS: {
        "charset_files/chrSQEncoding.dcm",
        "charset_files/chrSQEncoding1.dcm",
        "test_files/UN_sequence.dcm",
        "test_files/dicomdirtests/DICOMDIR",
        "test_files/dicomdirtests/DICOMDIR-bigEnd",
        "test_files/dicomdirtests/DICOMDIR-empty.dcm",
        "test_files/dicomdirtests/DICOMDIR-implicit",
        "test_files/dicomdirtests/DICOMDIR-nooffset",
        "test_files/dicomdirtests/DICOMDIR-nopatient",
        "test_files/dicomdirtests/DICOMDIR-reordered",
        "test_files/dicomdirtests/TINY_ALPHA/DICOMDIR",
        "test_files/empty_charset_LEI.dcm",
        "test_files/nested_priv_SQ.dcm",
        "test_files/no_meta_group_length.dcm",
        "test_files/priv_SQ.dcm",
    },
    OTHER_ENCODING: {"test_files/SC_rgb_jpeg.dcm"},
    TRUNCATED: {"test_files/MR_truncated.dcm", "test_files/rtplan_truncated.dcm"},
}
#: Of the files without File Meta Information, those that are objects.
BARE_DATA_SETS = ("test_files/ExplVR_BigEndNoMeta.dcm", "test_files/ExplVR_LitEndNoMeta.dcm", "test_files/rtstruct.dcm")

#: The bytes of a number in what pydicom leaves as bytes (PS3.5 6.2).
_WIDTHS = {"OW": 2, "OF": 4, "OL": 4, "OD": 8, "OV": 8}
_DATA_SET_TRAILING_PADDING = 0xFFFCFFFC
#: What compression changes beside the pixels: their colour space, how they are laid out, and that they lost something (PS3.3 C.7.6.1.1.5).
_RECODED = {
    "PixelData",
    "PhotometricInterpretation",
    "PlanarConfiguration",
    "LossyImageCompression",
    "LossyImageCompressionRatio",
    "LossyImageCompressionMethod",
    "DerivationDescription",
    "IconImageSequence",
}
#: What pydicom decodes without plugins. Not Big Endian: of pixels of 32 bits it swaps four bytes, where dcmtk swaps OW by two.
_DECODED = {ImplicitVRLittleEndian, ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, RLELossless}


class Sample(Struct, frozen=True, kw_only=True):
    """A file that can be stored. `name` is its path below pydicom's data."""

    name: str
    path: Path
    sop_instance_uid: str
    #: Empty if the file does not say.
    transfer_syntax: str

    @property
    def data_set(self) -> Dataset:
        """What is in the file, read once."""
        return _read(self.path)


@cache
def _read(path: Path) -> Dataset:
    return dcmread(path, force=True)


def shipped() -> list[str]:
    """All files that pydicom ships for tests, without what it would download."""
    folders = (_SHIPPED / "charset_files", _SHIPPED / "test_files")
    return sorted(str(path.relative_to(_SHIPPED)) for folder in folders for path in folder.rglob("*") if path.is_file())


def reason_not_to_store(name: str) -> str:
    """Why a file cannot be stored, found from its content; empty if it can. It does not see that a file ends too early."""
    try:
        ds = dcmread(_SHIPPED / name)
    except InvalidDicomError:
        bare = dcmread(_SHIPPED / name, force=True) if name.endswith(".dcm") else Dataset()
        return NO_FILE_META if len(bare) else NOT_DICOM
    syntax = ds.file_meta.get("TransferSyntaxUID")
    if not syntax:
        return NO_TRANSFER_SYNTAX
    raw = [ds.get_item(tag) for tag in ds.keys()]  # noqa: SIM118  # iterating a Dataset decodes its elements
    if any(isinstance(element, RawDataElement) and element.is_implicit_VR != syntax.is_implicit_VR for element in raw):
        return OTHER_ENCODING
    return "" if ds.get("SOPClassUID") and ds.get("SOPInstanceUID") else NO_SOP_UIDS


def a_sample(name: str) -> Sample:
    """The file of this name."""
    ds = _read(_SHIPPED / name)
    syntax = str(ds.file_meta.get("TransferSyntaxUID", "")) if hasattr(ds, "file_meta") else ""
    return Sample(name=name, path=_SHIPPED / name, sop_instance_uid=str(ds.SOPInstanceUID), transfer_syntax=syntax)


@cache
def storable() -> tuple[Sample, ...]:
    """All files that are not in `NOT_STORABLE`."""
    unfit = set().union(*NOT_STORABLE.values())
    return tuple(a_sample(name) for name in shipped() if name not in unfit)


def in_runs(samples: Iterable[Sample]) -> list[list[Sample]]:
    """The samples in runs within which no SOP Instance UID comes twice, for peers that keep one object under each."""
    runs: list[list[Sample]] = []
    seen: list[set[str]] = []
    for sample in samples:
        n = next((n for n, uids in enumerate(seen) if sample.sop_instance_uid not in uids), len(runs))
        if n == len(runs):
            runs.append([])
            seen.append(set())
        runs[n].append(sample)
        seen[n].add(sample.sop_instance_uid)
    return runs


def missing(expected: Iterable[Sample], arrived: Iterable[bytes]) -> set[str]:
    """The names of samples that did not arrive.

    Each of `arrived`, Part 10 files, must be element-equal to a sample of its own; one whose pixels the sender compressed or
    decompressed, but for the elements that say so. Raises `AssertionError` if one is not.
    """
    left: dict[str, list[Sample]] = {}
    for sample in expected:
        left.setdefault(sample.sop_instance_uid, []).append(sample)
    for part10 in arrived:
        ds = dcmread(BytesIO(part10))
        candidates = left.get(str(ds.SOPInstanceUID), [])
        found = {sample.name: differences(ds, sample.data_set) for sample in candidates}
        same = [sample for sample in candidates if not found[sample.name]] or [
            sample for sample in candidates if found[sample.name] <= _RECODED and _is_recoded(ds, sample)
        ]
        assert same, f"{ds.SOPInstanceUID} in {ds.file_meta.TransferSyntaxUID} is none of the files that are left: {found}"
        candidates.remove(same[0])
    return {sample.name for samples in left.values() for sample in samples}


def differences(arrived: Dataset, file: Dataset) -> set[str]:
    """Elements that are not the same in both, by keyword or tag.

    Group lengths (PS3.5 7.2) and trailing padding (PS3.10 7.2) belong to an encoding, not to the object.
    """
    tags = {tag for ds in (arrived, file) for tag in ds.keys() if tag.element != 0} - {_DATA_SET_TRAILING_PADDING}  # noqa: SIM118  # Dataset iterates elements
    unequal = (tag for tag in tags if tag not in arrived or tag not in file or not _same(arrived, file, tag))
    return {keyword_for_tag(tag) or str(tag) for tag in unequal}


def _is_recoded(arrived: Dataset, sample: Sample) -> bool:
    """Whether only the sender's compression differs, with the same pixels as far as pydicom decodes them by itself."""
    now, before = UID(arrived.file_meta.TransferSyntaxUID), UID(sample.transfer_syntax)
    if now == before or not (now.is_compressed or before.is_compressed):
        return False
    if {now, before} <= _DECODED:
        return bool(np.array_equal(arrived.pixel_array, sample.data_set.pixel_array))
    return now.is_compressed or len(arrived.PixelData) >= get_expected_length(arrived)


def _same_bytes(one: RawDataElement, other: RawDataElement) -> bool:
    vrs_agree = one.VR == other.VR or None in (one.VR, other.VR)  # Implicit VR says none
    return vrs_agree and one.is_little_endian == other.is_little_endian and one.value == other.value


def _same(arrived: Dataset, file: Dataset, tag: BaseTag) -> bool:
    raw, unread = arrived.get_item(tag), file.get_item(tag)
    if isinstance(raw, RawDataElement) and isinstance(unread, RawDataElement) and _same_bytes(raw, unread):
        return True  # as most are; to read them takes longer than all else
    one, other = arrived[tag], file[tag]
    if isinstance(one.value, bytes) and isinstance(other.value, bytes):
        return _even(_little_endian(one, arrived)) == _even(_little_endian(other, file))
    if other.VR == "UN" != one.VR:
        other = _as(one.VR, other.value, file)
    elif isinstance(raw, RawDataElement) and (one.VR != other.VR or raw.VR == "UN"):
        one = _as(other.VR, raw.value, arrived, little_endian=raw.is_little_endian or raw.VR == "UN")
    if one.is_empty and other.is_empty:
        return True
    if one.VR == other.VR == "SQ":
        return len(one.value) == len(other.value) and not any(differences(a, b) for a, b in zip(one.value, other.value, strict=True))
    return bool(one.value == other.value)


def _as(vr: str, value: bytes | None, ds: Dataset, *, little_endian: bool = True) -> DataElement:
    """A value of which one side does not say the VR, as the other side states it.

    Implicit VR says none, and pydicom then goes by its dictionary; UN is Little Endian wherever it stands, for no sender can swap it
    (PS3.5 6.2.2).
    """
    raw = RawDataElement(BaseTag(0), vr, len(value or b""), value or b"", 0, True, little_endian)
    return DataElement(0, vr, convert_value(vr, raw, ds.original_character_set), already_converted=True)


def _little_endian(element: DataElement, ds: Dataset) -> bytes:
    """Numbers that pydicom leaves as bytes, in the order of Little Endian."""
    value: bytes = element.value
    width = _WIDTHS.get(element.VR, 1)
    if width == 1 or ds.original_encoding[1] is not False:
        return value
    whole = len(value) // width * width
    return np.frombuffer(value[:whole], f"u{width}").byteswap().tobytes() + value[whole:]


def _even(value: bytes) -> bytes:
    """With the byte that makes the length even (PS3.5 7.1.1), which a sender adds where the file lacks it."""
    return value + b"\0" * (len(value) % 2)
