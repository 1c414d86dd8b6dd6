"""What an object says of itself at its top level, as far as it decides whether and how its pixels may leave. Nothing is decoded."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from msgspec import Struct

from hilum.dicom.dataset import read_header
from hilum.dicom.encoding import UNDEFINED
from hilum.dicom.file_meta import LONG_VRS
from hilum.upper_layer import EXPLICIT_VR_LITTLE_ENDIAN
from processors.anonymize.held import Held, HeldReason, shown
from processors.anonymize.source import Source, truncated, unreadable

IMAGE_TYPE, SOP_CLASS, MODALITY, CONVERSION_TYPE, SERIES_DESCRIPTION = 0x00080008, 0x00080016, 0x00080060, 0x00080064, 0x0008103E
MANUFACTURER, MODEL, SOFTWARE = 0x00080070, 0x00081090, 0x00181020
BODY_PART, SLICE_THICKNESS, SPACING_BETWEEN, IMAGES_IN_ACQUISITION = 0x00180015, 0x00180050, 0x00180088, 0x00201002
REGIONS, SAMPLES, PHOTOMETRIC, FRAMES, PLANAR, ROWS, COLUMNS = (
    0x00186011,
    0x00280002,
    0x00280004,
    0x00280008,
    0x00280006,
    0x00280010,
    0x00280011,
)
BITS_ALLOCATED, BITS_STORED, HIGH_BIT, SIGNED, BURNED_IN, LOSSY = 0x00280100, 0x00280101, 0x00280102, 0x00280103, 0x00280301, 0x00282110
#: PatientIdentityRemoved and DeidentificationMethod.
REMOVED, METHOD = 0x00120062, 0x00120063
SPECIMEN_LABEL, ICON, WAVEFORMS, PIXEL_DATA = 0x00480010, 0x00880200, 0x54000100, 0x7FE00010
#: Where frames are in compressed pixel data, and how long they are (PS3.3 C.7.6.3.1.8).
OFFSETS, OFFSET_LENGTHS = 0x7FE00001, 0x7FE00002
SOP_INSTANCE, STUDY, SERIES = 0x00080018, 0x0020000D, 0x0020000E
#: SpecificCharacterSet, PatientID with its issuer and the qualifiers of that, OtherPatientIDs and its sequence.
_PATIENT = frozenset({0x00080005, 0x00080050, 0x00100020, 0x00100021, 0x00100024, 0x00101000, 0x00101002, 0x04000561})
#: What a decoder has to know.
OF_PIXELS = (SAMPLES, PHOTOMETRIC, FRAMES, PLANAR, ROWS, COLUMNS, BITS_ALLOCATED, BITS_STORED, HIGH_BIT, SIGNED, LOSSY)
FLOAT_PIXELS = frozenset({0x7FE00008, 0x7FE00009})
_WANTED = frozenset(
    {
        *(IMAGE_TYPE, SOP_CLASS, MODALITY, CONVERSION_TYPE, MANUFACTURER, MODEL, SOFTWARE, BODY_PART, SLICE_THICKNESS, SPACING_BETWEEN),
        *(IMAGES_IN_ACQUISITION, REGIONS, SAMPLES, PHOTOMETRIC, FRAMES, PLANAR, ROWS, COLUMNS, BITS_ALLOCATED, BITS_STORED, HIGH_BIT),
        *_PATIENT,
        *(SOP_INSTANCE, STUDY, SERIES),
        *(REMOVED, METHOD, SERIES_DESCRIPTION),
        *(SIGNED, BURNED_IN, LOSSY, SPECIMEN_LABEL, ICON, WAVEFORMS, PIXEL_DATA, OFFSETS, OFFSET_LENGTHS, *FLOAT_PIXELS),
    }
)
_NUMBERS = frozenset({SAMPLES, PLANAR, ROWS, COLUMNS, BITS_ALLOCATED, BITS_STORED, HIGH_BIT, SIGNED})
_MAX_DEPTH = 32
_LENGTHS = {
    big: (struct.Struct(order + "H").unpack_from, struct.Struct(order + "I").unpack_from) for big, order in ((False, "<"), (True, ">"))
}
#: Values longer than this are not looked at; none of those that are wanted is.
_LONGEST = 4096


class About(Struct, frozen=True):
    """The elements that were looked for. Text is in upper case, without padding; what is not there is empty or 0."""

    source: Source
    #: By tag, where values begin and end; with the VR as it is written, `b""` in implicit VR.
    places: dict[int, tuple[int, int, bytes]]

    def values(self, tag: int) -> list[str]:
        """Each value of a text element. Raises `Held` if it is longer than any such value is."""
        start, stop, _ = self.places.get(tag, (0, 0, b""))
        if stop - start > _LONGEST:
            raise unreadable("Its value is longer than any of its kind.", shown(tag))
        text = bytes(self.source.data[start:stop]).decode("latin-1").upper()
        return [part.strip(" \0") for part in text.split("\\")] if text else []

    def uid(self, tag: int) -> str:
        """A UID as it stands."""
        start, stop, _ = self.places.get(tag, (0, 0, b""))
        return bytes(self.source.data[start : min(stop, start + _LONGEST)]).decode("latin-1").strip(" \0")

    def text(self, tag: int) -> str:
        """The first value."""
        return next(iter(self.values(tag)), "")

    def number(self, tag: int) -> int:
        """A US. Raises `Held` if it is not two bytes long."""
        start, stop, _ = self.places.get(tag, (0, 0, b""))
        if stop - start not in (0, 2):
            raise unreadable("It is not one number.", shown(tag))
        return int.from_bytes(self.source.data[start:stop], "big" if self.source.big_endian else "little")

    def decimal(self, tag: int) -> float | None:
        """A DS or IS; None if it is not there or none."""
        try:
            return float(self.text(tag))
        except ValueError:
            return None

    @property
    def frames(self) -> int:
        """How many there are. Raises `Held` if NumberOfFrames is no number of frames."""
        text = self.text(FRAMES) or "1"
        if not (text.isascii() and text.isdecimal() and 0 < int(text) < 2**31):
            raise unreadable("It is no number of frames.", shown(FRAMES))
        return int(text)

    @property
    def has_pixels(self) -> bool:
        """Whether there is an image in it."""
        return not self.places.keys().isdisjoint({PIXEL_DATA, ROWS, *FLOAT_PIXELS})

    def patient(self) -> Mapping[str, Any]:
        """The identifiers of the patient (PS3.3 C.7.1.1) and AccessionNumber, as a header in DICOM JSON of nothing else."""
        elements = b"".join(self.element(tag) for tag in sorted(self.places.keys() & _PATIENT))
        return _header(elements, self.source.transfer_syntax_uid if not self.source.deflated else EXPLICIT_VR_LITTLE_ENDIAN)

    def element(self, tag: int) -> bytes:
        """A whole element as it is encoded, a copy."""
        start, stop, vr = self.places[tag]
        return bytes(self.source.data[start - (12 if vr in LONG_VRS else 8) : stop])


@lru_cache(maxsize=1024)
def _header(elements: bytes, syntax: str) -> Mapping[str, Any]:
    return read_header(elements, syntax).json if elements else {}


#: Heads met before, by byte order and bytes (tag and VR), of elements that are passed over: whether their length has 32 bits.
_PASSED: dict[bool, dict[bytes, bool]] = {False: {}, True: {}}
_MOST_HEADS = 8192


def about(source: Source) -> About:
    """Look at the top level of an object. Raises `Held` if it cannot be walked through to its end, or says something twice."""
    try:
        return _about(source)
    except struct.error:
        raise truncated() from None


def _about(source: Source) -> About:
    data, end, big = source.data, len(source.data), source.big_endian
    head, (short, long_) = struct.Struct(">HH" if big else "<HH").unpack_from, _LENGTHS[big]
    found: dict[int, tuple[int, int, bytes]] = {}
    at, explicit = source.start, source.explicit
    passed = _PASSED[big] if explicit else {}
    known = passed.get
    while at + 8 <= end:
        first = data[at : at + 6]
        is_long = known(first)
        if is_long is False:
            at += 8 + short(data, at + 6)[0]
            continue
        if is_long:
            (length,) = long_(data, at + 8)
            if length != UNDEFINED:
                at += 12 + length
                continue
        group, element = head(data, at)
        tag, vr = group << 16 | element, bytes(first[4:6]) if explicit else b""
        is_long = vr in LONG_VRS
        if explicit and tag not in _WANTED and len(passed) < _MOST_HEADS:
            passed[first] = is_long
        if not explicit:
            (length,) = long_(data, at + 4)
        else:
            (length,) = long_(data, at + 8) if is_long else short(data, at + 6)
        start = at + (12 if is_long else 8)
        at = behind_items(source, start, vr == b"SQ", 0) if length == UNDEFINED else start + length
        if tag in _WANTED:
            if tag in found:
                raise Held(HeldReason.UNREADABLE, "The same element is there twice.", fix="Correct it at its source.", place=shown(tag))
            found[tag] = (start, at, vr)
    if at != end:
        raise truncated()
    return About(source, found)


def behind_items(source: Source, at: int, explicit: bool, depth: int) -> int:
    """The position behind a value of undefined length, items or fragments."""
    data, end, order = source.data, len(source.data), ">" if source.big_endian else "<"
    if depth > _MAX_DEPTH:
        raise Held(HeldReason.NESTING, f"Sequences are nested more than {_MAX_DEPTH} deep.", fix="Correct it at its source.")
    while True:
        if end - at < 8:
            raise truncated()
        group, element, length = struct.unpack_from(order + "HHI", data, at)
        at += 8
        if group != 0xFFFE or element not in (0xE000, 0xE0DD):
            raise unreadable("A value without length holds something else than items.", shown(group << 16 | element))
        if element == 0xE0DD:
            return at
        if length != UNDEFINED:
            at += length
            continue
        while True:
            if end - at < 8:
                raise truncated()
            group, element, length = struct.unpack_from(order + "HHI", data, at)
            vr = bytes(data[at + 4 : at + 6])
            at += 8
            if group == 0xFFFE:
                break
            if explicit and vr in LONG_VRS:
                if end - at < 4:
                    raise truncated()
                (length,) = struct.unpack_from(order + "I", data, at)
                at += 4
            elif explicit:
                (length,) = struct.unpack_from(order + "H", data, at - 2)
            at = behind_items(source, at, explicit and vr == b"SQ", depth + 1) if length == UNDEFINED else at + length
