"""Compressed pixel data, decoded frame by frame, and what the header says of them afterwards (PS3.5 8.2, PS3.3 C.7.6.1 and C.7.6.3)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO

from msgspec import Struct
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import UID

from hilum.dicom import jpeg12
from hilum.dicom.recode import PIXEL_DATA, CannotRecode, Change

#: What is read of an object to decode it, beside its pixel data (PS3.3 C.7.6.3).
_NEEDED = (
    "BitsAllocated",
    "BitsStored",
    "Columns",
    "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths",
    "HighBit",
    "IconImageSequence",
    "LossyImageCompression",
    "NumberOfFrames",
    "PhotometricInterpretation",
    "PixelData",
    "PixelRepresentation",
    "PlanarConfiguration",
    "Rows",
    "SamplesPerPixel",
)
_ICON, _PHOTOMETRIC, _PLANAR, _LOSSY, _LOSSY_METHOD = 0x00880200, 0x00280004, 0x00280006, 0x00282110, 0x00282114
#: Of encapsulated pixel data only: extended offset tables and total length (PS3.5 A.4).
_OF_ENCAPSULATION = (0x7FE00001, 0x7FE00002, 0x7FE00003)
#: Transfer syntaxes that always lose something (PS3.5 8.2), and the method's name (PS3.3 C.7.6.1.1.5.1).
_ALWAYS_LOSSY = {
    "1.2.840.10008.1.2.4.50": b"ISO_10918_1 ",
    "1.2.840.10008.1.2.4.51": b"ISO_10918_1 ",
    "1.2.840.10008.1.2.4.81": b"ISO_14495_1 ",
}
_MOST_BYTES = 2**32 - 2
_MOST_FRAME_BYTES = 2**30

jpeg12.install()


class Decompressed(Struct, frozen=True, kw_only=True):
    """What becomes of an object whose pixel data are decoded."""

    #: Top-level elements that change, for `hilum.dicom.recode.recoded`; the pixel data come from elsewhere: `frames`.
    changes: dict[int, Change | None]
    #: The decoded frames, one after the other, little endian. Raises `CannotRecode` if one cannot be decoded.
    frames: Iterator[bytes]


def decompressed(part10: BinaryIO, transfer_syntax_uid: str) -> Decompressed:
    """Decode the first frame of a Part 10 file, and say how to go on.

    The samples are those that the decoder gives: no conversion between colour spaces beyond what the codec itself defines. An object
    that was compressed with loss keeps saying so, and says so if it did not. Raises `CannotRecode`.
    """
    decoder = get_decoder(UID(transfer_syntax_uid))
    try:
        ds = dcmread(part10, specific_tags=list(_NEEDED))
        frames = int(ds.get("NumberOfFrames") or 1)
        if ds.Rows * ds.Columns * ds.SamplesPerPixel * ds.BitsAllocated > 8 * _MOST_FRAME_BYTES:
            raise CannotRecode("a frame of it is larger than 1 GiB")
        decoding = decoder.iter_array(ds, raw=True)
        try:
            first, image = next(decoding)
        except ValueError:  # pydicom cannot correct the sign of what it decodes in a row
            decoding = (decoder.as_array(ds, index=index, raw=True) for index in range(frames))
            first, image = next(decoding)
    except (CannotRecode, MemoryError):
        raise
    except Exception as error:  # whatever pydicom and the codecs make of an object; their text may hold values
        raise CannotRecode(f"its pixel data cannot be decoded ({type(error).__name__})") from None
    photometric = _photometric(first, image)
    if first.dtype.itemsize * 8 != ds.BitsAllocated:
        raise CannotRecode("its decoded pixels have another size than BitsAllocated says")
    if first.nbytes * frames > _MOST_BYTES:
        raise CannotRecode("its decoded pixels are longer than an element may be (4 GB)")
    changes = _changes(ds, transfer_syntax_uid, photometric, first.nbytes * frames)
    return Decompressed(changes=changes, frames=_frames(first, decoding, frames))


def _photometric(frame: Any, image: dict[str, Any]) -> str:
    """What the samples of a decoded frame are (PS3.3 C.7.6.3.1.2)."""
    found = str(image["photometric_interpretation"])
    if found == "YBR_FULL_422" and frame.ndim == 3:  # the codec has given each pixel its own chrominance (PS3.5 8.2.1)
        return "YBR_FULL"
    if found.startswith("YBR_") and found != "YBR_FULL":
        raise CannotRecode("its decoded pixels have a colour space that uncompressed images do not have")
    return found


def _changes(ds: Dataset, transfer_syntax_uid: str, photometric: str, size_bytes: int) -> dict[int, Change | None]:
    changes: dict[int, Change | None] = {
        _PHOTOMETRIC: Change(b"CS", photometric.encode() + b" " * (len(photometric) % 2)),
        PIXEL_DATA: Change(b"OW" if ds.BitsAllocated > 8 else b"OB", from_elsewhere_bytes=size_bytes),
        **dict.fromkeys(_OF_ENCAPSULATION),
    }
    if ds.SamplesPerPixel > 1:
        changes[_PLANAR] = Change(b"US", b"\0\0")
    if any("PixelData" in icon and icon["PixelData"].is_undefined_length for icon in ds.get("IconImageSequence") or ()):
        changes[_ICON] = None  # a compressed thumbnail has no place in an uncompressed object, and is Type 3
    if transfer_syntax_uid in _ALWAYS_LOSSY and ds.get("LossyImageCompression") != "01":
        changes[_LOSSY] = Change(b"CS", b"01")
        changes[_LOSSY_METHOD] = Change(b"CS", _ALWAYS_LOSSY[transfer_syntax_uid])
    return changes


def _frames(first: Any, decoding: Iterator[tuple[Any, Any]], count: int) -> Iterator[bytes]:
    yield _little(first)
    done = 1
    try:
        for frame, _ in decoding:
            if frame.nbytes != first.nbytes or done == count:
                raise CannotRecode("its frames differ in size or number from what its header says")
            done += 1
            yield _little(frame)
    except (CannotRecode, MemoryError):
        raise
    except Exception as error:
        raise CannotRecode(f"frame {done + 1} of its pixel data cannot be decoded ({type(error).__name__})") from None
    if done != count:
        raise CannotRecode("it has fewer frames than its header says")


def _little(frame: Any) -> bytes:
    return bytes(frame.astype(frame.dtype.newbyteorder("<"), copy=False).tobytes())
