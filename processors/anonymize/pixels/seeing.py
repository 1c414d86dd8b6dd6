"""Frames as somebody looks at them, a person or a model: some of an object's, and each as an image of 8 bits."""

from __future__ import annotations

from collections.abc import Container, Iterator
from typing import Any

import numpy as np
from msgspec import structs
from pydicom.pixels.processing import convert_color_space

from hilum.dicom.encoding import EXPLICIT_BIG
from hilum.dicom.lossless import LOSSLESS
from processors.anonymize.about import PHOTOMETRIC, PIXEL_DATA, About
from processors.anonymize.pixels import NATIVE
from processors.anonymize.pixels.frames import check_number, decoded_frames, decoding, first_changes
from processors.anonymize.pixels.layout import Layout, layout_of, unpaintable

#: Samples outside of these percentiles are black or white.
_RANGE = (0.5, 99.5)


def frame_of(seen: About, number: int) -> tuple[Layout, bytes | memoryview]:
    """One frame, counted from 0, not compressed. Raises `Held` if it cannot be decoded, or there are not as many as the header says."""

    def found() -> tuple[Layout, bytes | memoryview]:
        layout, frames = each_frame(seen, {number})
        return layout, next(iter(frames))

    return decoding(found)


def each_frame(seen: About, numbers: Container[int]) -> tuple[Layout, Iterator[bytes | memoryview]]:
    """The frames of these numbers, counted from 0, in order; the others are not decoded. To be used within `decoding`."""
    layout, syntax = layout_of(seen), seen.source.transfer_syntax_uid
    if syntax in LOSSLESS:
        check_number(seen, layout)
        photometric = first_changes(seen)[PHOTOMETRIC]
        assert photometric is not None
        decoded = structs.replace(layout, planar=False, photometric=photometric.value.decode("ascii").strip())
        return decoded, decoded_frames(seen, numbers)
    start, stop, _ = seen.places[PIXEL_DATA]
    size = layout.frame_bytes * layout.frames
    words = syntax == EXPLICIT_BIG and layout.bits_allocated == 8  # bytes in words of the other order (PS3.5 8.1.1): text looks broken
    if syntax not in NATIVE or words or stop - start != size + size % 2:
        raise unpaintable("Its pixels are not looked at: video, a private or new transfer syntax, or not as many as the header says.")
    data = memoryview(seen.source.data)
    places = (start + number * layout.frame_bytes for number in range(layout.frames) if number in numbers)
    return layout, (data[at : at + layout.frame_bytes] for at in places)


def samples_of(frame: bytes | memoryview, layout: Layout) -> Any:
    """A frame that is not compressed: grey (rows, columns), or RGB (rows, columns, 3); of other colour spaces the first channel.

    Raises `Held` if it has not as many samples as the header says.
    """
    kind = "i" if layout.signed else "u"
    samples = np.frombuffer(frame, f"{'>' if layout.big_endian else '<'}{kind}{layout.bits_allocated // 8}")
    try:
        channels = layout.channels(samples)
    except ValueError:
        raise unpaintable("A frame has not as many samples as the header says, or pixels without a pair.") from None
    if layout.halved:
        luma = np.empty((layout.rows, layout.columns), samples.dtype)
        luma[:, 0::2], luma[:, 1::2] = channels[:2]
        channels = [luma, *(each.repeat(2, axis=1) for each in channels[2:])]
    if layout.samples == 3 and layout.photometric == "RGB":
        return np.stack(channels, axis=-1)
    if layout.samples == 3 and layout.photometric.startswith("YBR_FULL") and layout.bits_allocated == 8:
        return convert_color_space(np.stack(channels, axis=-1), "YBR_FULL", "RGB")
    return channels[0]


def window_of(samples: Any) -> tuple[float, float]:
    """What is black and what is white: all but the darkest and the brightest, so that a few samples do not hide the others."""
    low, high = np.percentile(samples, _RANGE)
    return (float(low), float(high)) if high > low else (float(samples.min()), float(samples.max()))


def eight_bits(samples: Any, window: tuple[float, float]) -> Any:
    """Samples as an image of 8 bits."""
    low, high = window
    scale = 255.0 / (high - low) if high > low else 0.0
    return np.clip((samples.astype(np.float32) - low) * scale, 0, 255).astype(np.uint8)


def seen_as(frame: bytes | memoryview, layout: Layout) -> Any:
    """A frame that is not compressed as an image of 8 bits, grey or RGB, in its own window."""
    samples = samples_of(frame, layout)
    return eight_bits(samples, window_of(samples))
