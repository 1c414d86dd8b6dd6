"""An object in another transfer syntax, without loss: compressed pixel data are decoded, the other elements keep their bytes (PS3.5 10)."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from mmap import mmap

from hilum.dicom.decoding import compressed, decoded
from hilum.dicom.encoding import EXPLICIT_BIG, DataSetError, encoding_of
from hilum.dicom.lossy import Lossy
from hilum.dicom.recode import PIXEL_DATA, CannotRecode, Change, Parts, has_odd_value, pieces, recoded
from hilum.upper_layer import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN

DEFLATED = "1.2.840.10008.1.2.1.99"
#: What can be written, best first: Explicit VR says more.
TARGETS = (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN)
#: Transfer syntaxes that can be written one as the other without touching a sample.
_UNCOMPRESSED = frozenset({*TARGETS, EXPLICIT_BIG, DEFLATED})
#: Compressed pixel data that the decoders among Hilum's packages read (PS3.5 A.4): RLE, JPEG, JPEG-LS, JPEG 2000, HTJ2K.
DECODABLE = frozenset(
    {
        "1.2.840.10008.1.2.5",
        *(f"1.2.840.10008.1.2.4.{number}" for number in (50, 51, 57, 70, 80, 81, 90, 91, 201, 202, 203)),
    }
)
#: Decoded pixels up to so many bytes are ready before anything is sent, so that a broken frame breaks off nothing.
_DECODED_FIRST_BYTES = 64 * 2**20
_MOST_INFLATED_BYTES = 2**30


class Pieces:
    """A data set that can be had once, in pieces of the size asked for, the last one shorter."""

    def __init__(self, parts: Parts, frames: Iterable[bytes] | None = None, frames_bytes: int = 0) -> None:
        """`frames` come where `parts` have None, `frames_bytes` in all."""
        self._parts = parts
        self._frames = frames
        self.size_bytes = frames_bytes + sum(len(part) for part in parts if part is not None)

    def __call__(self, size: int) -> Iterator[bytes | memoryview]:
        """May raise `CannotRecode`."""
        return pieces(self._parts, size, iter(self._frames) if self._frames is not None else None)


def targets_for(transfer_syntax_uid: str) -> tuple[str, ...]:
    """The transfer syntaxes that an object can be written in beside its own, best first."""
    if transfer_syntax_uid in _UNCOMPRESSED or transfer_syntax_uid in DECODABLE:
        return tuple(each for each in TARGETS if each != transfer_syntax_uid)
    return ()


def transcoded(part10: bytes | mmap, data_set_at: int, own: str, target: str) -> Pieces:
    """The data set of a Part 10 file, whose transfer syntax is `own`, in the transfer syntax `target`, one of `targets_for(own)`.

    Odd lengths are padded. The pieces can be had once, as long as `part10` is there, and may raise `CannotRecode` as this does.
    """
    changes: dict[int, Change | None] = {}
    frames, frames_bytes = None, 0
    if own not in _UNCOMPRESSED:
        found = decoded(part10, own)
        changes, frames = found.changes, found.frames
        coming = changes[PIXEL_DATA]
        assert coming is not None
        frames_bytes = coming.from_elsewhere_bytes
        if frames_bytes <= _DECODED_FIRST_BYTES:
            frames = iter(list(frames))
    parts = _recoded(part10, data_set_at, own, changes, explicit=target == EXPLICIT_VR_LITTLE_ENDIAN)
    return Pieces(parts, frames, frames_bytes)


def lossy(part10: bytes | mmap, data_set_at: int, own: str, wanted: Lossy) -> tuple[str, Pieces] | None:
    """The SOP instance UID and the data set of the image that is made of this one with loss, in the transfer syntax `wanted.syntax`.

    None if this one is not to be compressed so, see `hilum.dicom.lossy`. Raises `CannotRecode`.
    """
    found = compressed(part10, own, wanted)
    if found is None:
        return None
    return found.sop_instance_uid, Pieces(_recoded(part10, data_set_at, own, found.changes, explicit=True), found.frames, found.size_bytes)


def _recoded(part10: bytes | mmap, data_set_at: int, own: str, changes: dict[int, Change | None], *, explicit: bool) -> Parts:
    data = memoryview(part10)[data_set_at:]
    if own == DEFLATED:
        data = _inflated(data)
    try:
        return recoded(data, encoding_of(bytes(data[:8]), len(data), own), explicit=explicit, changes=changes)
    except DataSetError:
        raise CannotRecode("it does not begin as a data set in its transfer syntax does") from None


def evened(part10: bytes | mmap, data_set_at: int, own: str) -> Pieces | None:
    """The data set in its own transfer syntax, odd lengths padded (PS3.5 7.1.1); None if there are none, or it is deflated or big endian.

    Raises `CannotRecode`.
    """
    if own in (DEFLATED, EXPLICIT_BIG):
        return None
    data = memoryview(part10)[data_set_at:]
    try:
        encoding = encoding_of(bytes(data[:8]), len(data), own)
    except DataSetError:
        raise CannotRecode("it does not begin as a data set in its transfer syntax does") from None
    if not has_odd_value(data, encoding):
        return None
    return Pieces(recoded(data, encoding, explicit=encoding.explicit))


def _inflated(data: memoryview) -> memoryview:
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        found = stream.decompress(data, _MOST_INFLATED_BYTES)
    except zlib.error:
        raise CannotRecode("it is no deflate stream (PS3.5 A.5)") from None
    if not stream.eof:
        raise CannotRecode("its deflate stream has no end, or is longer than 1 GiB")
    return memoryview(found)
