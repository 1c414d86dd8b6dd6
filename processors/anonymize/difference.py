"""What is different between two objects that were made of one original: which attributes, never their values."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from io import BytesIO
from mmap import mmap

from msgspec import Struct
from pydicom import dcmread
from pydicom.datadict import dictionary_VR, keyword_for_tag
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

from hilum.dicom.transcode import DEFLATED

#: What names the policy and its version, and so is always another one.
_OF_THE_POLICY = frozenset({0x00120063, 0x00120064})
#: What pixel data, and all that is behind it, is called.
_PIXELS = "PixelData"


class Difference(Struct, frozen=True, kw_only=True):
    """Attributes by keyword, nested ones by path (`ContentSequence/TextValue`), private and unknown ones by tag."""

    #: That the first has not.
    stays: tuple[str, ...] = ()
    #: That the second has not.
    goes: tuple[str, ...] = ()
    #: That both have, with other values, or in other places.
    differs: tuple[str, ...] = ()


def difference(before: bytes | mmap, now: bytes | mmap) -> Difference:
    """What is different between two Part 10 files. Pixel data is compared by its bytes. Raises `ValueError` without any of their text."""
    try:
        first, second = _values(before), _values(now)
    except Exception as error:
        raise ValueError(f"an object cannot be read ({type(error).__name__})") from None
    return Difference(
        stays=tuple(sorted(second.keys() - first.keys())),
        goes=tuple(sorted(first.keys() - second.keys())),
        differs=tuple(sorted(path for path in first.keys() & second.keys() if first[path] != second[path])),
    )


def _values(whole: bytes | mmap) -> dict[str, list[bytes]]:
    """A digest of each value, by path, in the order of the object."""
    file = BytesIO(whole) if isinstance(whole, bytes) else whole
    file.seek(0)
    ds = dcmread(file, stop_before_pixels=True)  # type: ignore[arg-type]  # an mmap reads as a file does
    found: dict[str, list[bytes]] = defaultdict(list)
    _level(ds, "", found)
    if ds.file_meta.TransferSyntaxUID in DEFLATED:  # it was inflated whole
        file.seek(0)
        _add(found, _PIXELS, bytes(dcmread(file).get("PixelData", b"")))  # type: ignore[arg-type]
    elif rest := memoryview(whole)[file.tell() :]:
        _add(found, _PIXELS, rest)
    return found


def _level(ds: Dataset, above: str, found: dict[str, list[bytes]]) -> None:
    for tag in sorted(ds.keys()):
        if int(tag) in _OF_THE_POLICY or tag.element == 0:
            continue
        path = f"{above}{keyword_for_tag(tag) or f'({tag.group:04X},{tag.element:04X})'}"
        element = ds.get_item(tag)
        if isinstance(element, RawDataElement) and not _is_sequence(element, tag):
            _add(found, path, element.value or b"")
            continue
        value = ds[tag].value
        if ds[tag].VR == "SQ":
            _add(found, path, str(len(value)).encode())
            for item in value:
                _level(item, f"{path}/", found)
        else:
            _add(found, path, repr(value).encode("utf-8", "surrogatepass"))


def _is_sequence(element: RawDataElement, tag: BaseTag) -> bool:
    if element.VR is not None:
        return element.VR == "SQ"
    try:
        return dictionary_VR(tag) == "SQ"
    except KeyError:
        return False


def _add(found: dict[str, list[bytes]], path: str, value: bytes | memoryview) -> None:
    found[path].append(hashlib.sha256(value).digest())
