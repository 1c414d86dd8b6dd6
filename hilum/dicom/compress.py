"""Images compressed with loss by JPEG 2000 (PS3.5 8.2.4), and what their headers say of it (PS3.3 C.7.6.1.1.5, C.12.1)."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from typing import Any

import numpy as np
import openjpeg
from msgspec import Struct
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.sr.coding import Code
from pydicom.tag import Tag

from hilum.dicom.decompress import decompressed
from hilum.dicom.lossy import Lossy
from hilum.dicom.recode import PIXEL_DATA, CannotRecode, Change

_NEEDED = (
    "BitsAllocated",
    "BitsStored",
    "Columns",
    "DerivationDescription",
    "HighBit",
    "ImageType",
    "LossyImageCompression",
    "PhotometricInterpretation",
    "PixelData",
    "PixelRepresentation",
    "Rows",
    "SOPClassUID",
    "SOPInstanceUID",
    "SamplesPerPixel",
)
#: Where overlays are in unused bits of the pixels, which do not outlast compression (PS3.3 C.9.2, retired).
_OVERLAY_BITS = [0x60000102 + (n << 17) for n in range(16)]
_IMAGE_TYPE, _INSTANCE, _PHOTOMETRIC = 0x00080008, 0x00080018, 0x00280004
_DESCRIPTION, _SOURCE_IMAGES, _DERIVATION = 0x00082111, 0x00082112, 0x00089215
_LOSSY, _RATIO, _METHOD = 0x00282110, 0x00282112, 0x00282114
#: What no longer holds: the smallest and largest value, digital signatures.
_NO_LONGER = (0x00280106, 0x00280107, 0x4FFE0001, 0xFFFAFFFA)
#: What the samples are, and for OpenJPEG's colour transform: 1 is RGB, 2 grey, 0 as it is.
_COLOURS = {"MONOCHROME1": 2, "MONOCHROME2": 2, "RGB": 1, "YBR_FULL": 0}
_LOSSY_COMPRESSION = Code("113040", "DCM", "Lossy Compression")
_PREDECESSOR = Code("121320", "DCM", "Uncompressed predecessor")
_LONGEST_DESCRIPTION = 1024
#: OpenJPEG makes six resolutions, each of half the sides.
_LEAST_SIDE = 32


class Unsuited(Exception):
    """This image is not to be compressed with loss."""


class Compressed(Struct, frozen=True, kw_only=True):
    """What becomes of an image that is compressed with loss."""

    #: The frames, compressed, one after the other. Raises `CannotRecode`.
    frames: Iterator[bytes]
    #: The same image's header; as those of `hilum.dicom.recode.recoded` for a data set in Explicit VR. To be asked for after the frames.
    header: Header


class Header:
    """What the header of the derived image says, once it is known how small it is."""

    def __init__(self, ds: Dataset, lossy: Lossy, changes: dict[int, Change | None], photometric: str) -> None:
        self._ds, self._lossy, self._changes, self._photometric = ds, lossy, changes, photometric
        #: Bytes of pixels, and of frames.
        self.whole_bytes = self.compressed_bytes = 0

    def changes(self) -> dict[int, Change | None]:
        """See `Compressed.header`; without the pixel data."""
        ratio = self.whole_bytes / max(1, self.compressed_bytes)
        words = f"Lossy compression by JPEG 2000, {self._lossy.ratio:g}:1 asked for, {ratio:.3g}:1 reached"
        before = str(self._ds.get("DerivationDescription") or "")
        if before.isascii() and before.isprintable() and before:  # any other may be of a character set that is left open at its end
            words = f"{before}; {words}" if len(before) + len(words) + 2 <= _LONGEST_DESCRIPTION else words
        image_type = self._ds.get("ImageType") or "ORIGINAL\\PRIMARY"
        values = image_type.split("\\") if isinstance(image_type, str) else list(image_type)
        source = Dataset()
        source.ReferencedSOPClassUID, source.ReferencedSOPInstanceUID = self._ds.SOPClassUID, self._ds.SOPInstanceUID
        source.PurposeOfReferenceCodeSequence = [_code(_PREDECESSOR)]
        return {
            **{tag: change for tag, change in self._changes.items() if tag != PIXEL_DATA},
            **dict.fromkeys(_NO_LONGER),
            _IMAGE_TYPE: _text(b"CS", "\\".join(("DERIVED", *map(str, values[1:])))),
            _INSTANCE: Change(b"UI", _even(self._lossy.uid_of(str(self._ds.SOPInstanceUID)).encode(), b"\0")),
            _DESCRIPTION: _text(b"ST", words),
            _SOURCE_IMAGES: _items(source),
            _DERIVATION: _items(_code(_LOSSY_COMPRESSION)),
            _PHOTOMETRIC: _text(b"CS", "YBR_ICT" if self._photometric == "RGB" else self._photometric),
            _LOSSY: _text(b"CS", "01"),
            _RATIO: _text(b"DS", f"{ratio:.4g}"),
            _METHOD: _text(b"CS", "ISO_15444_1"),
        }


def compressed(part10: bytes, transfer_syntax_uid: str, lossy: Lossy) -> Compressed:
    """Compress an image, a Part 10 file. Raises `CannotRecode`, and `Unsuited` if it is left as it is:

    it lost something before, has no pixel data, or has such as compression would spoil (palettes, more than 16 bits, overlays in them,
    a side of less than 32 pixels).
    """
    try:
        ds = dcmread(BytesIO(part10), specific_tags=[*map(_tag, _NEEDED), *_OVERLAY_BITS])
        suited = (
            "PixelData" in ds
            and ds.get("LossyImageCompression") != "01"
            and (ds.PhotometricInterpretation in _COLOURS or ds.PhotometricInterpretation == "YBR_RCT")  # which is decoded to RGB
            and ds.BitsAllocated in (8, 16)
            and ds.HighBit == ds.BitsStored - 1
            and (ds.SamplesPerPixel == 1 or ds.BitsAllocated == 8)
            and not any(ds[tag].value for tag in _OVERLAY_BITS if tag in ds)
            and min(ds.Rows, ds.Columns) >= _LEAST_SIDE
        )
    except Exception as error:  # whatever pydicom makes of an object; its text may hold values
        raise CannotRecode(f"its header cannot be read ({type(error).__name__})") from None
    if not suited:
        raise Unsuited
    found = decompressed(BytesIO(part10), transfer_syntax_uid)
    photometric = found.changes[_PHOTOMETRIC]
    assert photometric is not None
    colours = photometric.value.decode().strip()
    if colours not in _COLOURS:
        raise Unsuited
    header = Header(ds, lossy, found.changes, colours)
    return Compressed(frames=_frames(ds, found.frames, lossy, colours, header), header=header)


def _frames(ds: Dataset, frames: Iterator[bytes], lossy: Lossy, colours: str, header: Header) -> Iterator[bytes]:
    kind = np.dtype(f"<{'i' if ds.PixelRepresentation else 'u'}{ds.BitsAllocated // 8}")
    shape = (ds.Rows, ds.Columns) if ds.SamplesPerPixel == 1 else (ds.Rows, ds.Columns, ds.SamplesPerPixel)
    for frame in frames:
        pixels = np.frombuffer(frame, kind).reshape(shape)
        try:
            done = openjpeg.utils.encode_array(
                pixels,
                bits_stored=ds.BitsStored,
                photometric_interpretation=_COLOURS[colours],
                use_mct=colours == "RGB",
                compression_ratios=[lossy.ratio],
            )
        except Exception as error:
            raise CannotRecode(f"its pixel data cannot be compressed ({type(error).__name__})") from None
        header.whole_bytes += ds.Rows * ds.Columns * ds.SamplesPerPixel * ds.BitsStored // 8
        header.compressed_bytes += len(done)
        yield bytes(done)


def _tag(keyword: str) -> int:
    return int(Tag(keyword))


def _code(code: Any) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code.value, code.scheme_designator, code.meaning
    return item


def _items(item: Dataset) -> Change:
    """One item that comes after those that the sequence has."""
    out = DicomBytesIO()
    out.is_little_endian, out.is_implicit_VR = True, False
    write_dataset(out, item)
    written = out.getvalue()
    return Change(b"SQ", b"\xfe\xff\x00\xe0" + len(written).to_bytes(4, "little") + written, appended=True)


def _text(vr: bytes, value: str) -> Change:
    return Change(vr, _even(value.encode("ascii", "replace"), b" "))


def _even(value: bytes, pad: bytes) -> bytes:
    return value + pad * (len(value) % 2)
