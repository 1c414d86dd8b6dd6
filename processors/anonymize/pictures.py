"""One frame of an object before and after a policy, as pictures for a person, with what is painted over.

They show whose they are: whoever keeps them keeps an original.
"""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from mmap import mmap
from typing import Any, TypeVar

from msgspec import Struct
from PIL import Image, ImageOps

from hilum.errors import Misconfigured
from processors.anonymize.about import COLUMNS, PHOTOMETRIC, REGIONS, ROWS, About, about
from processors.anonymize.faces import Defacer
from processors.anonymize.held import Held
from processors.anonymize.outgoing import prepared
from processors.anonymize.pixels.fitting import Fitting, fitting, regions_of
from processors.anonymize.pixels.layout import Box
from processors.anonymize.pixels.seeing import eight_bits, frame_of, samples_of, window_of
from processors.anonymize.policy import Policy
from processors.anonymize.source import read_source

#: Larger pictures are made smaller.
_MOST_PIXELS = 800
_NOT_LEFT = "It would be held, and nothing would leave."


class Pictures(Struct, frozen=True, kw_only=True):
    """What there is to be seen of one frame. Places are in pixels of the image, not of the pictures."""

    rows: int
    columns: int
    #: Which one is shown, counted from 1, and of how many.
    frame: int
    frames: int
    #: As PNG; empty if it cannot be shown, and then why.
    before: bytes = b""
    after: bytes = b""
    before_says: str = ""
    after_says: str = ""
    #: Painted over by masks of the policy.
    boxes: tuple[Box, ...] = ()
    #: Whether all that is outside the ultrasound regions is painted over as well.
    outside: bool = False
    regions: tuple[Box, ...] = ()
    #: Where a policy that looks for text found some.
    text: tuple[Box, ...] = ()


def pictures(original: bytes | mmap, policy: Policy, *, frame: int = 1, defacer: Defacer | None = None) -> Pictures | None:
    """The frame of this number, counted from 1; None if there is no image, or it cannot be told.

    Raises `Misconfigured` if there is no such frame, or the policy looks for text and the extra `ocr` is not installed.
    """
    seen = _or(lambda: about(read_source(original)), None)
    if seen is None or not seen.has_pixels:
        return None
    count = _or(lambda: seen.frames, 1)
    if not 1 <= frame <= count:
        raise Misconfigured("frame-missing", f"There is no frame {frame}: the object has {count}.", fix="Name one of them, from 1.")
    fit = _or(lambda: fitting(seen, policy.masks), None)
    before, window, says = _shown(seen, frame - 1, None)
    after, after_says = b"", _NOT_LEFT
    try:
        ready = prepared(original, policy, defacer=defacer)
        if ready.part10 is original:
            after, after_says = before, says or "Its pixels leave as they are."
        else:
            after, _, after_says = _shown(about(read_source(ready.part10)), frame - 1, window)
            after_says = f"{ready.stated} {after_says}"
    except Held as held:
        after_says = f"{held.sentence} {_NOT_LEFT}"
    return Pictures(
        rows=seen.number(ROWS),
        columns=seen.number(COLUMNS),
        frame=frame,
        frames=count,
        before=before,
        after=after,
        before_says=says,
        after_says=after_says,
        boxes=fit.boxes if fit is not None else (),
        outside=fit is not None and fit.regions is not None,
        regions=_regions(seen),
        text=_text(seen, policy, fit),
    )


_T = TypeVar("_T")


def _or(work: Callable[[], _T], otherwise: _T) -> _T:
    try:
        return work()
    except Held:
        return otherwise


def _regions(seen: About) -> tuple[Box, ...]:
    return _or(lambda: tuple(regions_of(seen)), ()) if REGIONS in seen.places else ()


def _text(seen: About, policy: Policy, fit: Fitting | None) -> tuple[Box, ...]:
    wanted = policy.text
    if wanted is None:
        return ()
    from processors.anonymize.text.looking import text_in  # with the extra `ocr`, and only where a policy looks

    return _or(lambda: text_in(seen, wanted, fit), ())


def _shown(seen: About, number: int, window: tuple[float, float] | None) -> tuple[bytes, tuple[float, float] | None, str]:
    """A frame as PNG, the window it is seen in, and what is to be said of it."""
    try:
        layout, frame = frame_of(seen, number)
        samples = samples_of(frame, layout)
    except Held as held:
        return b"", window, f"It cannot be shown: {held.sentence}"
    chosen = window or window_of(samples)
    says = "Palette: its indices are shown." if seen.text(PHOTOMETRIC) == "PALETTE COLOR" else ""
    return _png(eight_bits(samples, chosen), inverted=layout.photometric == "MONOCHROME1"), chosen, says


def _png(image: Any, *, inverted: bool) -> bytes:
    picture = Image.fromarray(image)
    if inverted:
        picture = ImageOps.invert(picture)
    picture.thumbnail((_MOST_PIXELS, _MOST_PIXELS))
    out = BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()
