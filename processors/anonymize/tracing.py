"""What becomes of each element of an object, for a preview: by the engine that tells of them, which reads the object into memory.

Of a large one pixel data is left out of that: the engine keeps it as it is, once masks are painted, and its size is all that is shown.
"""

from __future__ import annotations

from mmap import mmap

from msgspec.structs import replace

from processors.anonymize.about import PIXEL_DATA, about
from processors.anonymize.engine import anonymize
from processors.anonymize.held import shown
from processors.anonymize.outgoing import Prepared
from processors.anonymize.result import Action, Context
from processors.anonymize.source import read_source

#: Pixel data of objects larger than this is left out.
LARGE_BYTES = 16 * 2**20
#: VRs of pixel data whose length has 32 bits; none is written in implicit VR.
_VRS = (b"", b"OB", b"OW", b"UN")


def traced(ready: Prepared, context: Context) -> list[Action]:
    """An action for each element of an object whose pixels are as they may leave. Raises `Held`."""
    shortened, left_out = _without_pixels(ready.part10)
    actions = anonymize(shortened, context, trace=True, cleaned=ready.cleaned, derived=bool(ready.stated)).actions
    return [_of_pixels(each, left_out, ready.stated) if each.path == shown(PIXEL_DATA) else each for each in actions]


def _without_pixels(part10: bytes | mmap) -> tuple[bytes | mmap, int]:
    """The object with empty pixel data, if it is large, and how many bytes were left out."""
    if len(part10) <= LARGE_BYTES:
        return part10, 0
    source = read_source(part10)
    start, stop, vr = about(source).places.get(PIXEL_DATA, (0, 0, b""))
    if source.deflated or not start or vr not in _VRS:
        return part10, 0
    return part10[: start - 4] + bytes(4) + part10[stop:], stop - start


def _of_pixels(action: Action, left_out: int, stated: str) -> Action:
    """With the size of what was left out, and what was done with the pixels before the engine had them."""
    if left_out:
        size = f"{left_out} bytes"
        action = replace(action, before=size, after=None if action.after is None else size)
    return replace(action, changed=True, why=f"{stated} {action.why}") if stated else action
