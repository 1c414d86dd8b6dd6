"""Compression with loss, where a destination asks for it: of which images, and under which UID the derived image goes.

A derived image that may read differently needs a SOP instance UID of its own (PS3.3 C.7.6.1.1.2). Here that UID follows from the
image's own and from how it is compressed, so that a repetition makes the same one; and it can be told from the two UIDs alone that one
was made of the other, so that such an image is known when it comes back, whatever the settings are by then.
"""

from __future__ import annotations

import hashlib
import uuid
from typing import Any

from msgspec import Struct

JPEG_2000 = "1.2.840.10008.1.2.4.91"
#: Transfer syntaxes that are or may be of something lost (PS3.5 10): what is in one of them is not compressed once more.
_MAY_BE_LOSSY = frozenset(f"1.2.840.10008.1.2.4.{number}" for number in (50, 51, 81, 91, 203))
#: Single images that are looked at. Not here: mammograms, images that are measured by their values (PET, NM, dose, segmentations,
#: parametric maps), and enhanced multi-frame ones, which say of each frame what it is.
_CLASSES = frozenset(
    f"1.2.840.10008.5.1.4.1.1.{suffix}"
    for suffix in (
        "1",  # Computed Radiography
        "1.1",  # Digital X-Ray, for presentation
        "2",  # CT
        "3.1",  # Ultrasound Multi-frame
        "4",  # MR
        "6.1",  # Ultrasound
        "7",  # Secondary Capture
        "12.1",  # X-Ray Angiographic
        "12.2",  # X-Ray Radiofluoroscopic
        "77.1.1",  # VL Endoscopic
        "77.1.2",  # VL Microscopic
        "77.1.4",  # VL Photographic
        "77.1.5.1",  # Ophthalmic Photography 8 Bit
    )
)
_SPACE = b"hilum lossy "
_CHECK_BITS = 62


class Lossy(Struct, frozen=True, kw_only=True):
    """How images are compressed with loss."""

    #: How many times smaller than its pixels an image is to be.
    ratio: float
    syntax: str = JPEG_2000

    def uid_of(self, sop_instance_uid: str) -> str:
        """The SOP instance UID of the image that is made of that one so: equal whenever asked for (PS3.5 B.2; UUID version 8)."""
        how = _digest(f"{sop_instance_uid} {self.syntax} {self.ratio:g}") >> 68  # 60 bits
        number = how >> 12 << 80 | 8 << 76 | (how & 0xFFF) << 64 | 2 << 62 | _check(sop_instance_uid)
        return f"2.25.{uuid.UUID(int=number).int}"


def suits(sop_class_uid: str, transfer_syntax_uid: str) -> bool:
    """Whether objects of this kind are compressed with loss where that is asked for; not each of them is, see `hilum.dicom.compress`."""
    return sop_class_uid in _CLASSES and transfer_syntax_uid not in _MAY_BE_LOSSY


def may_be_made(uid: str) -> bool:
    """Whether `uid` looks like a `Lossy.uid_of`: one that does not is none."""
    return _number(uid) is not None


def is_made_of(uid: str, sop_instance_uid: str) -> bool:
    """Whether `uid` is a `Lossy.uid_of(sop_instance_uid)`, however it was compressed."""
    number = _number(uid)
    return number is not None and number & (1 << _CHECK_BITS) - 1 == _check(sop_instance_uid)


def _number(uid: str) -> int | None:
    """The UUID in it, if there is one of version 8 (RFC 9562 5.8)."""
    root, _, number = uid.rpartition(".")
    if root != "2.25" or not number.isascii() or not number.isdecimal() or len(number) > 39:
        return None
    value = int(number)
    return value if value >> 76 & 0xF == 8 and value >> 62 & 3 == 2 else None


def source_named(uid: str, source_images: list[Any]) -> str:
    """The SOP instance UID of the image of which `uid` was made, if SourceImageSequence, in DICOM JSON, names it; else empty."""
    for item in source_images:
        values = item.get("00081155", {}).get("Value") if isinstance(item, dict) else None
        source = values[0] if isinstance(values, list) and values else ""
        if isinstance(source, str) and is_made_of(uid, source):
            return source
    return ""


def _check(sop_instance_uid: str) -> int:
    return _digest(sop_instance_uid) >> (128 - _CHECK_BITS)


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.sha256(_SPACE + text.encode()).digest()[:16], "big")
