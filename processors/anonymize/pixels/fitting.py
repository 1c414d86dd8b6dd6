"""Which of a policy's masks fit an object, and what they say of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from io import BytesIO

from msgspec import Struct
from pydicom.dataset import Dataset
from pydicom.filereader import read_sequence

from hilum.dicom.encoding import UNDEFINED
from processors.anonymize.about import COLUMNS, MANUFACTURER, MODEL, REGIONS, ROWS, SOFTWARE, About
from processors.anonymize.held import Held, HeldReason, shown
from processors.anonymize.pixels.layout import Box
from processors.anonymize.policy import Mask

_FIX = "Correct the mask, or write one for images like this one."
#: Of RegionSpatialFormat (PS3.3 C.8.5.5.1.1): a region that holds nothing but drawn text.
_GRAPHICS = 5
_EDGES = ("RegionLocationMinX0", "RegionLocationMinY0", "RegionLocationMaxX1", "RegionLocationMaxY1")


class Fitting(Struct, frozen=True, kw_only=True):
    """What is painted over in an object. Without both, a mask says that nothing needs to be."""

    boxes: tuple[Box, ...] = ()
    #: If anything outside of them is painted over.
    regions: tuple[Box, ...] | None = None

    @property
    def paints(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.boxes) or self.regions is not None


def fitting(seen: About, masks: Sequence[Mask]) -> Fitting | None:
    """All that the masks that fit the object say; None if none fits. Raises `Held` if one fits and cannot be applied."""
    fit = [mask for mask in masks if _fits(mask, seen)]
    if not fit:
        return None
    rows, columns = seen.number(ROWS), seen.number(COLUMNS)
    boxes = tuple(_clipped(box, rows, columns) for mask in fit for box in mask.boxes)
    regions = tuple(regions_of(seen)) if any(mask.outside_regions for mask in fit) else None
    return Fitting(boxes=boxes, regions=regions)


def _fits(mask: Mask, seen: About) -> bool:
    """Whether everything that the mask says is so; in text `*` stands for anything, and upper and lower case are the same."""
    return (
        mask.sop_class in ("", seen.source.sop_class_uid)
        and mask.rows in (0, seen.number(ROWS))
        and mask.columns in (0, seen.number(COLUMNS))
        and _matches(mask.manufacturer, [seen.text(MANUFACTURER)])
        and _matches(mask.model, [seen.text(MODEL)])
        and _matches(mask.software, seen.values(SOFTWARE) or [""])
    )


def _matches(pattern: str, values: Sequence[str]) -> bool:
    anything = pattern.upper().replace("[", "[[]")  # which is no bracket of a set here
    return not pattern or any(fnmatchcase(value, anything) for value in values)


def _clipped(box: tuple[int, int, int, int], rows: int, columns: int) -> Box:
    """A box may reach over the right and the lower edge; it must begin within the image."""
    left, top, width, height = box
    if left >= columns or top >= rows:
        raise Held(HeldReason.MASK, "A box of the mask lies beside the image.", fix=_FIX)
    return left, top, min(left + width, columns), min(top + height, rows)


def regions_of(seen: About) -> Iterator[Box]:
    """The ultrasound regions (PS3.3 C.8.5.5), whose edges are in them. Raises `Held` if there are none, or one is not in the image."""
    rows, columns = seen.number(ROWS), seen.number(COLUMNS)
    there = False
    for item in _items(seen):
        try:
            left, top, right, bottom = (int(item[keyword].value) for keyword in _EDGES)
            kind = int(item.get("RegionSpatialFormat") or 0)
        except (KeyError, TypeError, ValueError):
            raise Held(HeldReason.MASK, "An ultrasound region does not say where it is.", fix=_FIX, place=shown(REGIONS)) from None
        if kind == _GRAPHICS:
            continue
        if not (0 <= left <= right < columns and 0 <= top <= bottom < rows):
            raise Held(HeldReason.MASK, "An ultrasound region is not within the image.", fix=_FIX, place=shown(REGIONS))
        there = True
        yield left, top, right + 1, bottom + 1
    if not there:
        raise Held(
            HeldReason.MASK, "The mask is for what lies outside ultrasound regions, and it names none.", fix=_FIX, place=shown(REGIONS)
        )


def _items(seen: About) -> list[Dataset]:
    if REGIONS not in seen.places:
        return []
    start, stop, vr = seen.places[REGIONS]
    source = seen.source
    if source.explicit and vr != b"SQ":
        raise Held(HeldReason.MASK, "Its ultrasound regions are no sequence.", fix=_FIX, place=shown(REGIONS))
    value = bytes(source.data[start:stop])
    undefined = value.endswith((b"\xfe\xff\xdd\xe0\0\0\0\0", b"\xff\xfe\xe0\xdd\0\0\0\0"))
    try:
        return list(
            read_sequence(BytesIO(value), not source.explicit, not source.big_endian, UNDEFINED if undefined else len(value), "latin-1")
        )
    except Exception:  # whatever pydicom makes of it; its text may hold values
        raise Held(HeldReason.MASK, "Its ultrasound regions cannot be read.", fix=_FIX, place=shown(REGIONS)) from None
