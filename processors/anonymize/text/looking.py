"""An object is looked through for text, where its masks leave anything to be seen."""

from __future__ import annotations

from processors.anonymize.about import About
from processors.anonymize.pixels.fitting import Fitting
from processors.anonymize.pixels.frames import decoding
from processors.anonymize.pixels.layout import Box, Brush
from processors.anonymize.pixels.seeing import each_frame, seen_as
from processors.anonymize.policy import Text
from processors.anonymize.text import boxes


def text_in(seen: About, wanted: Text, fit: Fitting | None) -> tuple[Box, ...]:
    """Where text was found, over all frames that were looked at. Raises `Held` for pixels that cannot be looked at."""
    return decoding(lambda: _text_in(seen, wanted, fit))


def _text_in(seen: About, wanted: Text, fit: Fitting | None) -> tuple[Box, ...]:
    layout, frames = each_frame(seen, _spread(seen.frames, wanted.frames))
    brush = Brush(layout, fit.boxes, fit.regions) if fit is not None and fit.paints else None
    found: set[Box] = set()
    for frame in frames:
        whole = frame if brush is None else brush.painted(frame)
        found.update(boxes(seen_as(whole, layout), wanted.threshold))
    return tuple(sorted(found))


def _spread(count: int, wanted: int) -> frozenset[int]:
    """The first frame, the last, and others between."""
    if wanted >= count:
        return frozenset(range(count))
    return frozenset(n * (count - 1) // max(1, wanted - 1) for n in range(wanted))
