"""Compressed frames, decoded a few at a time in another process, so that memory does not grow with the object (PS3.5 A.4)."""

from __future__ import annotations

import struct
from collections.abc import Callable, Container, Iterator
from contextlib import closing
from typing import TypeVar

import numpy as np
from pydicom.encaps import generate_frames
from pydicom.pixels.processing import convert_color_space

from hilum.dicom.decoding import Decoded, DecoderLost, decoded
from hilum.dicom.file_meta import part10_head
from hilum.dicom.lossless import RLE
from hilum.dicom.recode import DELIMITER, PIXEL_DATA, CannotRecode, Change
from processors.anonymize.about import BITS_STORED, FRAMES, HIGH_BIT, LOSSY, OF_PIXELS, OFFSET_LENGTHS, OFFSETS, About
from processors.anonymize.codestreams import BEGINNINGS
from processors.anonymize.held import Held, HeldReason, shown
from processors.anonymize.pixels.layout import Layout, unpaintable

#: Of compressed frames, so many bytes are with the decoder at a time, or one frame.
_MOST_BYTES = 8 * 2**20
_VRS = {FRAMES: b"IS", LOSSY: b"CS", 0x00280004: b"CS"}


_T = TypeVar("_T")


def decoding(work: Callable[[], _T]) -> _T:
    """What `work` gives, which has pixels decoded. Raises `Held` if they cannot be.

    A decoder that is lost is asked once more: the machine may have been short of memory. Lost again, it holds the object alone, and
    not all that goes to a destination.
    """
    try:
        try:
            return work()
        except DecoderLost:
            return work()
    except DecoderLost as lost:
        raise Held(
            HeldReason.PIXELS,
            f"Twice, {lost}.",
            fix="Look whether the machine is short of memory, then retry the delivery; else leave such objects out.",
            place=shown(PIXEL_DATA),
        ) from None
    except CannotRecode as error:
        raise unpaintable(f"Its pixels cannot be worked on: {error}.") from None


class Viewed:
    """Bytes as a file, none of them copied."""

    def __init__(self, data: memoryview) -> None:
        self._data, self._at = data, 0

    def read(self, size: int | None = -1, /) -> bytes:
        """See `io.RawIOBase`."""
        stop = len(self._data) if size is None or size < 0 else self._at + size
        found = bytes(self._data[self._at : stop])
        self._at += len(found)
        return found

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """See `io.RawIOBase`."""
        self._at = offset + (0, self._at, len(self._data))[whence]
        return self._at

    def tell(self) -> int:
        """See `io.RawIOBase`."""
        return self._at


def item(fragment: bytes) -> bytes:
    """A fragment with its head, padded."""
    length = len(fragment) + len(fragment) % 2
    return b"\xfe\xff\x00\xe0" + length.to_bytes(4, "little") + fragment.ljust(length, b"\0")


def in_rgb(frame: bytes, layout: Layout) -> bytes:
    """A frame of YBR_FULL, 8 bits a sample, in RGB (PS3.3 C.7.6.3.1.2): rounded to whole samples."""
    if layout.bits_allocated != 8 or layout.samples != 3:
        raise unpaintable("Its colours are not three samples of 8 bits.")
    pixels = np.frombuffer(frame, np.uint8).reshape(layout.rows, layout.columns, 3)
    converted: bytes = convert_color_space(pixels, "YBR_FULL", "RGB").tobytes()
    return converted


def check_number(seen: About, layout: Layout) -> None:
    """Raise `Held` if not as many frames begin among the fragments as the header says."""
    start, stop, vr = seen.places[PIXEL_DATA]
    if vr not in (b"OB", b"OW"):
        raise unpaintable("Its pixel data are no fragments (PS3.5 A.4).")
    data, rle = seen.source.data, seen.source.transfer_syntax_uid == RLE
    at, begun, first = start, 0, True
    while at < stop - 8:
        (size,) = struct.unpack_from("<I", data, at + 4)
        at += 8
        if not first and (rle or data[at : at + 12].startswith(BEGINNINGS)):
            begun += 1
        first = False  # offsets
        at += size
    if at != stop - 8 or begun != layout.frames:
        raise unpaintable("It has not as many frames as its header says.")


def first_changes(seen: About) -> dict[int, Change | None]:
    """What decoding changes in the header; see `hilum.dicom.decompress`. Raises `CannotRecode`."""
    for frame in _frames(seen):
        found = _decoded(seen, [frame])
        with closing(found.frames):  # type: ignore[type-var]  # a generator, which lets go of the decoder at its end
            for _ in found.frames:
                pass
        return found.changes
    raise unpaintable("It has no frame.")


def decoded_frames(seen: About, numbers: Container[int] | None = None, *, stored: int = 0) -> Iterator[bytes]:
    """Each frame, its samples pixel by pixel; or those of `numbers`, counted from 0, alone. With `stored`, so many bits of each sample are
    looked at, whatever the header says. Raises `CannotRecode`.
    """
    waiting: list[bytes] = []
    for number, frame in enumerate(_frames(seen)):
        if numbers is not None and number not in numbers:
            continue
        if waiting and sum(map(len, waiting)) + len(frame) > _MOST_BYTES:
            yield from _all(_decoded(seen, waiting, stored))
            waiting = []
        waiting.append(frame)
    if waiting:
        yield from _all(_decoded(seen, waiting, stored))


def _all(found: Decoded) -> Iterator[bytes]:
    with closing(found.frames) as frames:  # type: ignore[type-var]
        yield from frames


def _frames(seen: About) -> Iterator[bytes]:
    start, stop, _ = seen.places[PIXEL_DATA]
    data = memoryview(seen.source.data)
    tables = [bytes(data[slice(*seen.places[tag][:2])]) for tag in (OFFSETS, OFFSET_LENGTHS) if tag in seen.places]
    offsets = (tables[0], tables[1]) if len(tables) == 2 and all(tables) else None
    frames = generate_frames(Viewed(data[start:stop]), number_of_frames=seen.frames, extended_offsets=offsets)
    while True:
        try:
            frame = next(frames)
        except StopIteration:
            return
        except Exception as error:  # whatever pydicom makes of fragments
            raise CannotRecode(f"its fragments cannot be put together ({type(error).__name__})") from None
        yield frame


def _decoded(seen: About, frames: list[bytes], stored: int = 0) -> Decoded:
    """These frames as an object of their own, which says of its pixels what the whole one does, and nothing else."""
    source = seen.source
    parts = [part10_head(source.sop_class_uid, "", source.transfer_syntax_uid)]
    said = {tag: bytes(source.data[slice(*seen.places[tag][:2])]) for tag in OF_PIXELS if tag in seen.places}
    said[FRAMES] = str(len(frames)).encode()
    if stored:
        said |= {BITS_STORED: stored.to_bytes(2, "little"), HIGH_BIT: (stored - 1).to_bytes(2, "little")}
    for tag, value in sorted(said.items()):
        value += b" " * (len(value) % 2)
        parts.append(struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, _VRS.get(tag, b"US"), len(value)) + value)
    parts.append(struct.pack("<HH2s2xI", PIXEL_DATA >> 16, PIXEL_DATA & 0xFFFF, b"OB", 0xFFFFFFFF))
    parts += [item(b""), *map(item, frames), DELIMITER]
    return decoded(b"".join(parts), source.transfer_syntax_uid)
