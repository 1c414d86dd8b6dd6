"""Value representations by what their values are (PS3.5 6.2)."""

from __future__ import annotations

TEXTUAL = frozenset(["AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UR", "UT"])
#: Free text, which may be cleaned.
FREE = frozenset(["LO", "LT", "SH", "ST", "UC", "UT"])
#: Codes and numbers as text: nothing else can be in their place.
CODED = frozenset({"CS", "DS", "IS"})
TIMES = frozenset({"DA", "DT", "TM"})
_TELLING = frozenset({"PN", "DA", "DT"})
_FAMILIES = (frozenset({"OB", "OW", "OF", "OD", "OL", "OV"}), frozenset({"US", "SS"}), frozenset({"UL", "SL"}), frozenset({"UV", "SV"}))


def fits(standard: str, vr: str) -> bool:
    """Whether an element may say that it is of `vr` where PS3.6 says `standard`; UN may hold anything (PS3.5 6.2.2).

    Text may be any other, but what says that it is somebody's name or a date is not taken for a technical word.
    """
    if vr == "UN" or vr == standard:
        return True
    of_dictionary = standard.split(" or ")
    if vr in of_dictionary or (vr in TEXTUAL and standard in TEXTUAL and vr not in _TELLING):
        return True
    return any(vr in family and not family.isdisjoint(of_dictionary) for family in _FAMILIES)
