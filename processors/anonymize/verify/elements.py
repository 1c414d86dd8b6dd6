"""What the second look knows of an element: where it is, what it is, and which of a plan's lanes it goes to."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

#: The tags of the sequences that an element is in, from the outermost.
Path = tuple[int, ...]


class Seen(Struct, frozen=True):
    """An element's tag and VR, and what a plan says of it."""

    tag: int
    vr: str
    #: Which of the lanes its values go to; 0 for none.
    lane: int
    #: Whatever the plan wants to know again.
    note: str = ""


#: Lane and note for a tag and a VR.
Plan = Callable[[int, str], tuple[int, str]]
#: One element: the tags of the sequences it is in, what it is, its bytes, and the SpecificCharacterSet around it.
Element = tuple[Path, Seen, bytes, bytes]


def place_of(path: Path, tag: int) -> str:
    """Where an element is, as people write it: `(0040,A730)/(0040,A160)`."""
    return "/".join(f"({each >> 16:04X},{each & 0xFFFF:04X})" for each in (*path, tag))
