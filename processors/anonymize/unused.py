"""Bits of pixel data that belong to no sample: above the highest stored one, and below the lowest. Until 2004 systems drew overlays there
(PS3.5 8.1.2 of those editions), and later ones dropped the header that told of it: then nothing but the bits themselves does.

Native samples are looked at in one pass, 0.01 ms for 512 x 512 of 16 bits; RLE is unpacked anyway. Other frames are decoded if their
codestreams have more bits than the header says are stored, and only then.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from hilum.dicom.lossless import LOSSLESS, RLE
from processors.anonymize.about import BITS_ALLOCATED, BITS_STORED, FLOAT_PIXELS, HIGH_BIT, PIXEL_DATA, SAMPLES, SIGNED, About
from processors.anonymize.extent import fragments_of
from processors.anonymize.held import Held, HeldReason, shown
from processors.anonymize.pixels import NATIVE
from processors.anonymize.pixels.frames import decoded_frames, decoding
from processors.anonymize.risky import VIDEO_SYNTAXES
from processors.anonymize.rle import frames_of

_PIECE_BYTES = 2**22
_WIDTHS = (8, 16, 32, 64)


class _Samples:
    """What is known of samples that were looked at."""

    def __init__(self, allocated: int, stored: int, high: int, *, signed: bool) -> None:
        self._low = high + 1 - stored
        self._signed = signed
        self._extended = signed
        self._most, self._high = (1 << (high + 1)) - 1, high
        self._clear = True
        self.width = allocated // 8

    def drawn_on(self, pieces: Iterable[Any]) -> bool:
        """Whether bits are set that are no sample's; `pieces` are arrays of unsigned numbers. Negative samples may go on above the highest
        stored bit, or not; in an object all of them do, or none.
        """
        for piece in pieces:
            if not piece.size:
                continue
            self._clear = self._clear and bool(piece.max() <= self._most)
            if self._extended:
                signed = piece.view(piece.dtype.str.replace("u", "i"))
                self._extended = bool(-(1 << self._high) <= signed.min() and signed.max() < 1 << self._high)
            if not (self._clear or self._extended):
                return True
            if self._low and int(np.bitwise_or.reduce(piece)) & ((1 << self._low) - 1):
                return True
        return False


def is_drawn_on(seen: About, codestream_bits: int, *, look: bool = True) -> bool:
    """Whether bits are set in pixel data that belong to no sample; without `look`, RLE is unpacked and nothing looked at.
    `codestream_bits` are the most that a sample of its codestreams has.

    Raises `Held` if that cannot be told: bits stored that are none of those allocated, frames that cannot be decoded; and for segments of
    RLE, see `processors.anonymize.rle`.
    """
    if PIXEL_DATA not in seen.places or not seen.places.keys().isdisjoint(FLOAT_PIXELS):
        return False
    samples = _samples_of(seen) if look else None
    syntax = seen.source.transfer_syntax_uid
    if syntax == RLE:
        found = False
        for segments in frames_of(seen, fragments_of(seen)):
            found = found or (samples is not None and samples.drawn_on(_put_together(segments, seen)))
        return found
    if samples is None:
        return False
    if syntax in NATIVE:
        return samples.drawn_on(_native(seen, samples.width))
    return False if syntax.startswith(VIDEO_SYNTAXES) else _in_codestreams(seen, samples, codestream_bits)


def _samples_of(seen: About) -> _Samples | None:
    """None where all bits are samples'."""
    allocated = seen.number(BITS_ALLOCATED)
    stored = seen.number(BITS_STORED) or allocated
    high = seen.number(HIGH_BIT) if HIGH_BIT in seen.places else stored - 1
    if not stored <= high + 1 <= allocated:
        raise _untold("Its stored bits are none of those that are allocated (PS3.5 8.1.1).", HIGH_BIT)
    if stored == allocated:
        return None
    if allocated not in _WIDTHS:
        raise _untold("Some of its bits are no sample's, and which, is not known here.", BITS_ALLOCATED)
    return _Samples(allocated, stored, high, signed=seen.number(SIGNED) == 1)


def _untold(sentence: str, tag: int) -> Held:
    fix = "Correct the object at its source, or leave such objects out of what goes to this destination."
    return Held(HeldReason.PIXELS, sentence, fix=fix, place=shown(tag))


def _native(seen: About, width: int) -> Iterator[Any]:
    start, stop, _ = seen.places[PIXEL_DATA]
    kind = np.dtype(f"{'>' if seen.source.big_endian else '<'}u{width}")
    stop -= (stop - start) % width
    with memoryview(seen.source.data) as data:
        for at in range(start, stop, _PIECE_BYTES):
            yield np.frombuffer(data[at : min(at + _PIECE_BYTES, stop)], kind)


def _put_together(segments: list[bytes], seen: About) -> Iterator[Any]:
    """The samples of a frame of RLE."""
    samples = seen.number(SAMPLES) or 1
    width = len(segments) // samples
    for channel in range(samples):
        planes = [np.frombuffer(each, np.uint8) for each in segments[channel * width : (channel + 1) * width]]
        yield np.stack(planes, axis=-1).view(f">u{width}")


def _in_codestreams(seen: About, samples: _Samples, precision: int) -> bool:
    if precision <= (seen.number(BITS_STORED) or 0) == seen.number(HIGH_BIT) + 1:
        return False
    if seen.source.transfer_syntax_uid not in LOSSLESS:
        raise _untold("Its codestreams have more bits than are stored, and cannot be decoded here.", BITS_STORED)
    # Decoders leave out what the header says is not stored: so it says that all is.
    bits = max(precision, seen.number(BITS_STORED))
    kind = np.dtype(f"<u{samples.width}")
    return decoding(lambda: samples.drawn_on(np.frombuffer(frame, kind) for frame in decoded_frames(seen, stored=bits)))
