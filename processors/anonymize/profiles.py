"""Whether an ICC profile is one (ISO 15076-1, ICC.1 7): it may stay with an image, which is shown wrongly without it.

What is no profile may be anything, and what a maker adds to one likewise. Descriptions and copyrights are of the tags that every profile
has; they are left as they are, and the second look reads them.
"""

from __future__ import annotations

import struct

_NAMES = """
    A2B0 A2B1 A2B2 A2B3 A2M0 B2A0 B2A1 B2A2 B2A3 B2D0 B2D1 B2D2 B2D3 D2B0 D2B1 D2B2 D2B3 bXYZ bTRC bkpt calt targ chad chrm cicp clro clot
    ciis cprt dmnd dmdd desc devs gamt gTRC gXYZ kTRC lumi meas meta ncl2 pre0 pre1 pre2 pseq psid rTRC rXYZ resp rig0 rig2 tech view vued
    wtpt bfd crdi ps2i ps2s psd0 psd1 psd2 psd3 scrd scrn vcgt
"""
_TAGS = frozenset(each.encode().ljust(4) for each in _NAMES.split())
_HEADER, _ENTRY, _MOST_TAGS = 132, 12, 100
_MOST_PADDING = 3


def is_profile(raw: bytes) -> bool:
    """Whether all of `raw` is one profile, with tags of the standard alone, and nothing between them or behind it but zeros."""
    if len(raw) < _HEADER or raw[36:40] != b"acsp" or raw[100:128].strip(b"\0"):
        return False
    size, count = int.from_bytes(raw[:4], "big"), int.from_bytes(raw[128:132], "big")
    covered = _HEADER + _ENTRY * count
    if not 0 < count <= _MOST_TAGS or not covered <= size <= len(raw) or len(raw) - size > 1 or raw[size:].strip(b"\0"):
        return False
    entries = [struct.unpack_from(">4sII", raw, _HEADER + _ENTRY * n) for n in range(count)]
    for tag, at, length in sorted(entries, key=lambda entry: (entry[1], entry[2])):
        if tag not in _TAGS or at + length > size or at < _HEADER + _ENTRY * count:
            return False
        if at - covered > _MOST_PADDING or raw[covered:at].strip(b"\0"):
            return False
        covered = max(covered, at + length)
    return size - covered <= _MOST_PADDING and not raw[covered:size].strip(b"\0")
