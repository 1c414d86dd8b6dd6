"""Objects, policies and comparisons that the tests of de-identification share."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Iterator
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
from pydicom import dcmread
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import UID, ExplicitVRLittleEndian

from hilum.dicom.file_meta import part10_head
from processors.anonymize.engine import anonymize
from processors.anonymize.held import Held
from processors.anonymize.keys import key_of
from processors.anonymize.policy import Policy, policy, policy_of
from processors.anonymize.pseudonyms import Pseudonyms
from processors.anonymize.result import Context
from processors.anonymize.table import vr_of

CT = "1.2.840.10008.5.1.4.1.1.2"
KEY = key_of(bytes(range(1, 33)))


def a_policy(*options: str, more: str = "", name: str = "test") -> Policy:
    """A policy with these options; `more` is TOML."""
    return policy_of(f"options = {list(options)!r}\n{more}", name)


def a_context(of: Policy | str = "basic", **more: Any) -> Context:
    """What the engine needs, with a fixed key."""
    chosen = policy(of) if isinstance(of, str) else of
    return Context(policy=chosen, pseudonyms=Pseudonyms(KEY, chosen.domain), **more)


def part10(ds: Dataset, syntax: UID = ExplicitVRLittleEndian) -> bytes:
    """A data set as a file."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    meta.TransferSyntaxUID = syntax
    file = FileDataset("", ds, file_meta=meta, preamble=b"\0" * 128)
    out = BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        file.save_as(out, implicit_vr=syntax.is_implicit_VR, little_endian=syntax.is_little_endian, enforce_file_format=True)
    return out.getvalue()


def an_object(**attributes: Any) -> Dataset:
    """A small CT image of somebody, in which attributes may be others."""
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = UID("1.2.840.10008.5.1.4.1.1.2"), UID("1.2.3.4.5.6")
    ds.StudyInstanceUID, ds.SeriesInstanceUID = "1.2.3.4.1", "1.2.3.4.2"
    ds.StudyDate, ds.StudyTime, ds.AccessionNumber, ds.Modality = "20240229", "101112", "A123", "CT"
    ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.PatientSex = "Doe^Jane", "P1", "19500102", "F"
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    return ds


#: An element as bytes: tag, VR, and its value, or the items of a sequence.
Raw = tuple[int, str, "bytes | list[list[Raw]]"]
LONG = frozenset(("OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"))


def encoded(elements: list[Raw], *, explicit: bool = True, delimited: bool = False, big: bool = False) -> bytes:
    """Elements as they stand, right or wrong; sequences with lengths, or `delimited`."""
    order = ">" if big else "<"
    out = []
    for tag, vr, value in elements:
        if isinstance(value, list):
            inside = explicit and vr != "UN"
            items = [encoded(item, explicit=inside, delimited=delimited, big=big) for item in value]
            ends = struct.pack(f"{order}HHI", 0xFFFE, 0xE00D, 0) if delimited else b""
            length = 0xFFFFFFFF if delimited else None
            raw = b"".join(struct.pack(f"{order}HHI", 0xFFFE, 0xE000, length or len(item)) + item + ends for item in items)
            raw += struct.pack(f"{order}HHI", 0xFFFE, 0xE0DD, 0) if delimited else b""
            size = 0xFFFFFFFF if delimited else len(raw)
        else:
            raw = value + b" " * (len(value) % 2)
            size = len(raw)
        head = struct.pack(f"{order}HH", tag >> 16, tag & 0xFFFF)
        if not explicit:
            head += struct.pack(f"{order}I", size)
        elif vr in LONG:
            head += vr.encode() + struct.pack(f"{order}2xI", size)
        else:
            head += vr.encode() + struct.pack(f"{order}H", size)
        out += [head, raw]
    return b"".join(out)


def a_file(elements: list[Raw], *, syntax: str = "1.2.840.10008.1.2.1", sop_class: str = CT, **how: bool) -> bytes:
    """A Part 10 file of elements as they stand; what identifies an object is added if it is not among them."""
    there = {each[0] for each in elements}
    own: list[Raw] = [
        (0x00080016, "UI", sop_class.encode() + b"\0" * (len(sop_class) % 2)),
        (0x00080018, "UI", b"1.2.3.4.5.6\0"),
        (0x0020000D, "UI", b"1.2.3.4.1\0"),
    ]
    every = sorted([*elements, *(each for each in own if each[0] not in there)], key=lambda each: each[0])
    explicit, big = syntax != "1.2.840.10008.1.2", syntax == "1.2.840.10008.1.2.2"
    return part10_head(sop_class, "1.2.3.4.5.6", syntax) + encoded(every, explicit=explicit, big=big, **how)


def out_of(original: bytes, context: Context, **more: Any) -> bytes:
    """The de-identified file."""
    return b"".join(anonymize(original, context, **more).parts)


def read(file: bytes) -> FileDataset:
    """With pydicom, silently."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return dcmread(BytesIO(file))


def deidentified(ds: Dataset, of: Policy | str = "basic", **more: Any) -> FileDataset:
    """A data set de-identified, and read again."""
    return read(out_of(part10(ds), a_context(of), **more))


def held(original: bytes, of: Policy | str = "basic", **more: Any) -> Held:
    """Why an object is held. Fails if it is not."""
    try:
        anonymize(original, a_context(of), **more)
    except Held as reason:
        return reason
    raise AssertionError("it was not held")


def flat(ds: Dataset, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], str, bytes]]:
    """Every element of a data set with its place, its VR and its bytes; of a sequence how many items it has."""
    for tag in sorted(ds.keys()):
        element = ds.get_item(tag, keep_deferred=True)
        assert element is not None
        place = (*path, int(tag))
        no_sequence = isinstance(element, RawDataElement) and (element.VR not in ("SQ", "UN", None) or " or " in vr_of(int(tag)))
        value = None if no_sequence else ds[tag].value
        if isinstance(value, Sequence):
            yield place, "SQ", str(len(value)).encode()
            for n, item in enumerate(value):
                yield from flat(item, (*place, n))
        elif isinstance(element, RawDataElement):
            vr = element.VR or ""
            yield place, "" if tag.is_private else vr if vr not in ("", "UN") else vr_of(int(tag)), bytes(element.value or b"")
        else:
            yield place, element.VR, repr(element.value).encode()


@cache
def samples() -> dict[str, bytes]:
    """pydicom's test files that are whole Part 10 files, by name."""
    found = {}
    for path in sorted((Path(pydicom.__file__).parent / "data" / "test_files").glob("*.dcm")):
        data = path.read_bytes()
        if data[128:132] == b"DICM" and len(data) < 2_000_000:
            found[path.name] = data
    return found
