"""The VR of an element where a data set does not say it (PS3.5 A.1)."""

from __future__ import annotations

from functools import lru_cache

from pydicom.datadict import dictionary_VR, private_dictionary_VR


@lru_cache(maxsize=20_000)
def standard_vr(tag: int) -> str:
    """The VR of an element of the standard as PS3.6 has it, such as `US or SS`; `UN` of one that it does not know."""
    if tag & 0xFFFF == 0:
        return "UL"
    try:
        return str(dictionary_VR(tag))
    except KeyError:
        return "UN"


@lru_cache(maxsize=20_000)
def private_vr(tag: int, creator: str) -> bytes:
    """The VR of a private element of a creator; `UN` of one that nobody knows."""
    try:
        vr = str(private_dictionary_VR(tag, creator)).encode()
    except KeyError:
        return b"UN"
    return vr if len(vr) == 2 and vr != b"SQ" else b"UN"  # one of defined length may hold anything; PS3.5 6.2.2 lets it be
