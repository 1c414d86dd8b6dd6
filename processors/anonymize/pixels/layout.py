"""How the samples of a frame lie (PS3.3 C.7.6.3), and how rectangles of it are painted over."""

from __future__ import annotations

from typing import Any

import numpy as np

from hilum.dicom.lossless import Samples
from processors.anonymize.about import (
    BITS_ALLOCATED,
    BITS_STORED,
    COLUMNS,
    FLOAT_PIXELS,
    HIGH_BIT,
    PHOTOMETRIC,
    PIXEL_DATA,
    PLANAR,
    ROWS,
    SAMPLES,
    SIGNED,
    About,
)
from processors.anonymize.held import OR_LEAVE_OUT, Held, HeldReason, shown

#: Left, top, right and bottom in pixels; right and bottom are outside.
Box = tuple[int, int, int, int]


def unpaintable(sentence: str, place: int = PIXEL_DATA) -> Held:
    """Pixels that cannot be painted over."""
    return Held(HeldReason.PIXELS, sentence, fix=OR_LEAVE_OUT, place=shown(place))


class Layout(Samples, frozen=True, kw_only=True):
    """What the header says of the samples, in all frames."""

    planar: bool
    frames: int
    big_endian: bool = False

    @property
    def halved(self) -> bool:
        """Whether two pixels of a row share their chrominance, as `Y1 Y2 Cb Cr` (PS3.3 C.7.6.3.1.2)."""
        return self.photometric == "YBR_FULL_422" and self.samples == 3 and not self.planar

    @property
    def frame_bytes(self) -> int:
        """Of a frame that is not compressed."""
        samples = 2 if self.halved else self.samples
        return self.rows * self.columns * samples * self.bits_allocated // 8

    @property
    def black(self) -> list[int]:
        """What is painted: zero in every sample, chrominance in the middle."""
        if self.samples == 1:
            return [0]
        middle = 1 << (self.bits_stored - 1) if self.photometric.startswith("YBR_") and self.photometric != "YBR_RCT" else 0
        return [0, 0, middle, middle] if self.halved else [0, middle, middle][: self.samples]

    def channels(self, samples: Any) -> list[Any]:
        """Views of each channel by row and column."""
        if self.halved:
            pairs = samples.reshape(self.rows, self.columns // 2, 4)
            return [pairs[..., n] for n in range(4)]
        if self.planar:
            return list(samples.reshape(self.samples, self.rows, self.columns))
        pixels = samples.reshape(self.rows, self.columns, self.samples)
        return [pixels[..., n] for n in range(self.samples)]


def layout_of(seen: About) -> Layout:
    """Read it. Raises `Held` for what is not painted over: float and bit samples, sizes that are none."""
    if not seen.places.keys().isdisjoint(FLOAT_PIXELS) or PIXEL_DATA not in seen.places:
        raise unpaintable("It has no pixel data of whole numbers, and others are not painted over.")
    found = Layout(
        rows=seen.number(ROWS),
        columns=seen.number(COLUMNS),
        samples=seen.number(SAMPLES),
        bits_allocated=seen.number(BITS_ALLOCATED),
        bits_stored=seen.number(BITS_STORED),
        signed=seen.number(SIGNED) == 1,
        planar=seen.number(PLANAR) == 1 and seen.number(SAMPLES) > 1,
        photometric=seen.text(PHOTOMETRIC),
        frames=seen.frames,
        big_endian=seen.source.big_endian,
    )
    if not (found.rows and found.columns and found.samples in (1, 3) and found.bits_allocated in (8, 16, 32)):
        raise unpaintable("Its rows, columns, samples and bits are none of an image that is painted over.", BITS_ALLOCATED)
    if not 0 < found.bits_stored <= found.bits_allocated or seen.number(HIGH_BIT) != found.bits_stored - 1:
        raise unpaintable("Its stored bits are not the lower ones of those that are allocated.", HIGH_BIT)
    return found


class Brush:
    """Paints the same rectangles over each frame, or none, and clears what is not stored."""

    def __init__(self, layout: Layout, boxes: tuple[Box, ...], regions: tuple[Box, ...] | None, *, clear: bool = False) -> None:
        """`regions`: all else is painted over as well; `clear`: bits that are not stored are those of the sign, or none. Raises `Held` for
        pixels in pairs of which one has no other.
        """
        self._unused = layout.bits_allocated - layout.bits_stored if clear else 0
        if layout.halved and (layout.columns % 2 or layout.bits_allocated != 8):
            raise unpaintable("Its pixels share their chrominance, and cannot be paired.", COLUMNS)
        self._layout = layout
        where = np.zeros((layout.rows, layout.columns), dtype=bool)
        if regions is not None:
            where[:] = True
            for left, top, right, bottom in regions:
                where[top:bottom, left:right] = False
        for left, top, right, bottom in boxes:
            where[top:bottom, left:right] = True
        if layout.halved:
            where = (where[:, 0::2] | where[:, 1::2]).repeat(2, axis=1)
        #: Which pixels are painted over, by row and column.
        self.where = where
        self._pairs = where[:, 0::2] if layout.halved else where
        self._type = np.dtype(f"{'>' if layout.big_endian else '<'}u{layout.bits_allocated // 8}")

    def painted(self, frame: bytes | memoryview) -> bytes:
        """A frame that is not compressed, painted over. Raises `Held` if it has another size than the header says."""
        layout = self._layout
        if len(frame) != layout.frame_bytes:
            raise unpaintable("A frame has not as many samples as the header says.")
        samples = np.frombuffer(frame, dtype=self._type).copy()
        if self._unused:
            numbers = samples.view(self._type.str.replace("u", "i")) if layout.signed else samples
            numbers <<= self._unused
            numbers >>= self._unused
        for channel, value in zip(layout.channels(samples), layout.black, strict=True):
            channel[self._pairs] = value
        return samples.tobytes()
