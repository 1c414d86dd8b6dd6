"""Compare the contents of two objects that have one SOPInstanceUID and two digests: are they one image, encoded twice?

Objects are read into memory whole, so that this is for the rare case only, in threads beside the loop.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import Any, Literal

import pydicom
from msgspec import Struct
from pydicom.dataelem import DataElement, RawDataElement, convert_raw_data_element
from pydicom.dataset import Dataset, FileDataset
from pydicom.encaps import generate_frames
from pydicom.sequence import Sequence as DicomSequence
from pydicom.tag import BaseTag

from hilum.errors import NotFound
from hilum.events import ObjectRef
from hilum.store import ObjectStore

#: Objects beyond this size are not compared.
MOST_BYTES = 512 * 2**20

_PIXELS = (0x7FE00010, 0x7FE00008, 0x7FE00009)
#: What an object without pixels is about: documents, measurements, waveforms, presentation states, contours, spectra.
_CONTENT = frozenset({0x0040A730, 0x00420011, 0x54000100, 0x00700001, 0x30060039, 0x00660002, 0x56000020})
#: How text and pixels are encoded, and what may differ between two encodings of the same (PS3.5 8.2, PS3.3 C.7.6.3.1.2).
_OF_ENCODING = frozenset({0x00080005, 0x00280002, 0x00280004, 0x00280006, 0xFFFCFFFC})
_TEXT = frozenset({"AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UR", "UT"})


class Comparison(Struct, frozen=True, kw_only=True):
    """`same`: equal elements and pixels; `header`: equal pixels; `pixels`: they differ; `unknown`: nobody can tell."""

    result: Literal["same", "header", "pixels", "unknown"]
    #: The tags of the top level that differ, `GGGGEEEE`, without their values.
    tags: tuple[str, ...] = ()
    #: Why nobody can tell.
    says: str = ""


class StoredContents:
    """Compares objects of the object store."""

    def __init__(self, store: ObjectStore, why_gone: Callable[[ObjectRef], str] = lambda _: "") -> None:
        """`why_gone` says why an object is not there, or nothing if it should be."""
        self._store = store
        self._why_gone = why_gone

    def compare(self, first: ObjectRef, second: ObjectRef) -> Comparison:
        """Compare two stored objects; of one that has expired, nobody can tell.

        Raises `TryAgain` while the store does not answer, `NotFound` if one is gone that did not expire.
        """
        largest = max(first.size_bytes, second.size_bytes)
        if largest > MOST_BYTES:
            return Comparison(result="unknown", says=f"One has {largest:,} bytes; objects beyond {MOST_BYTES:,} are not compared.")
        try:
            before = self._store.get(first.bucket, first.key)
        except NotFound:
            if not (says := self._why_gone(first)):
                raise
            return Comparison(result="unknown", says=f"They cannot be compared. {says}")
        return compare(before, self._store.get(second.bucket, second.key))


def compare(first: bytes, second: bytes) -> Comparison:
    """Compare two Part 10 files (PS3.10 7), whatever their transfer syntaxes. Never raises on their contents."""
    try:
        one, other = (pydicom.dcmread(io.BytesIO(each), force=True) for each in (first, second))
        tags = tuple(f"{tag:08X}" for tag in _differing(one, other))
        if any(int(tag, 16) in _CONTENT for tag in tags):
            return Comparison(result="pixels", tags=tags)
        equal, says = _equal_pixels(one, other)
    except Exception as error:  # whatever is wrong with them, a person must look
        return Comparison(result="unknown", says=f"They cannot be read ({type(error).__name__}).")
    if equal is None:
        return Comparison(result="unknown", tags=tags, says=says)
    if not equal:
        return Comparison(result="pixels", tags=tags)
    return Comparison(result="header" if tags else "same", tags=tags)


def _differing(one: Dataset, other: Dataset) -> Iterator[BaseTag]:
    """The tags of elements that differ; pixels, group lengths and what describes the encoding left out."""
    for tag in sorted({*one.keys(), *other.keys()}):
        if tag in _PIXELS or tag in _OF_ENCODING or tag.element == 0:
            continue
        if tag not in one or tag not in other or not _equal_elements(one, other, tag):
            yield tag


def _equal_elements(one: Dataset, other: Dataset, tag: BaseTag) -> bool:
    raw, other_raw = one.get_item(tag), other.get_item(tag)
    if isinstance(raw, RawDataElement) and isinstance(other_raw, RawDataElement):
        if raw.VR == other_raw.VR == "UN" or (raw.VR is None and other_raw.VR is None and tag.is_private):
            return (raw.value or b"").rstrip(b"\0 ") == (other_raw.value or b"").rstrip(b"\0 ")
        # Where one side does not know what the element is, the other does.
        known = {each.VR for each in (raw, other_raw) if each.VR not in (None, "UN")}
        if len(known) == 1:
            vr = known.pop()
            sides = ((raw, one), (other_raw, other))
            pair = [convert_raw_data_element(each._replace(VR=vr), encoding=ds._character_set) for each, ds in sides]
            return _equal_values(*pair)
    return _equal_values(one[tag], other[tag])


def _equal_values(one: DataElement, other: DataElement) -> bool:
    if isinstance(one.value, DicomSequence) or isinstance(other.value, DicomSequence):
        if not isinstance(one.value, DicomSequence) or not isinstance(other.value, DicomSequence) or len(one.value) != len(other.value):
            return False
        return all(next(_differing(left, right), None) is None for left, right in zip(one.value, other.value, strict=True))
    return bool(_bare(one.value, one.VR) == _bare(other.value, other.VR))


def _bare(value: Any, vr: str) -> Any:
    """The value without what only pads it."""
    if isinstance(value, bytes):
        return value.rstrip(b"\0")
    if value is None or value == "" or (not isinstance(value, (int, float)) and hasattr(value, "__len__") and len(value) == 0):
        return ""
    if vr in _TEXT and isinstance(value, str):
        return value.rstrip(" \0")
    return value


def _equal_pixels(one: FileDataset, other: FileDataset) -> tuple[bool | None, str]:
    """Whether the pixels are equal; None, with the reason, if that cannot be told."""
    having = [next((tag for tag in _PIXELS if tag in ds), None) for ds in (one, other)]
    if having[0] != having[1]:
        return False, ""
    if having[0] is None:
        return True, ""
    syntaxes = [ds.file_meta.TransferSyntaxUID for ds in (one, other)]
    values = [ds[having[0]].value for ds in (one, other)]
    if syntaxes[0] == syntaxes[1] and values[0].rstrip(b"\0") == values[1].rstrip(b"\0"):
        return True, ""
    if having[0] != 0x7FE00010:
        return values[0].rstrip(b"\0") == values[1].rstrip(b"\0"), ""
    if (one.get("NumberOfFrames") or 1) != (other.get("NumberOfFrames") or 1):
        return False, ""
    try:
        return _equal_decoded(one, other), ""
    except Exception as error:
        if syntaxes[0] == syntaxes[1] and syntaxes[0].is_encapsulated:
            frames = [list(generate_frames(value, number_of_frames=int(one.get("NumberOfFrames") or 1))) for value in values]
            if [frame.rstrip(b"\0") for frame in frames[0]] == [frame.rstrip(b"\0") for frame in frames[1]]:
                return True, ""
        names = " and ".join(dict.fromkeys(syntax.name for syntax in syntaxes))
        return None, f"Their pixels cannot be decoded ({names}; {type(error).__name__})."


def _equal_decoded(one: FileDataset, other: FileDataset) -> bool:
    """Frame by frame, colours as RGB. Raises whatever a decoder raises."""
    import numpy  # takes long to load, and most processes never compare
    from pydicom.pixels.utils import iter_pixels

    frames, others = iter_pixels(one), iter_pixels(other)
    return all(numpy.array_equal(frame, another) for frame, another in zip(frames, others, strict=True))
